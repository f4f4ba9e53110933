//! What chooses among several captions by the verifier, or takes words back while one is written.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use fisao_align::RunControl;
use fisao_align::captions::best_of;
use fisao_align::guided::{Guidance, Guide, GuidedConfig, caption_guided};
use fisao_align::mentions::MentionScorer;
use fisao_align::tasks::TaskSource;
use fisao_align::team::Team;
use fisao_align::token_rewards::AdditionalRewards;
use fisao_formats::digest::sha256_file;
use fisao_models::generation::{Generated, Sampling};
use fisao_runs::bundle::{ModelSource, Pair, PairSource, Policy, Views};
use fisao_runs::calibrations::{self, Setting};
use fisao_runs::device::OpenDevice;
use fisao_runs::verifier_choice::VerifierSource;
use fisao_runs::vocabulary::Vocabulary;
use fisao_runs::{Refusal, Reporter};
use fisao_scenes::WorldKind;
use fisao_verifier::rewards::{RewardConfig, RewardRule};
use serde_json::{Value, json};

use crate::arguments::{ChoosingArguments, ScoringArguments};

/// A response, with what guidance did to it where it was asked for.
pub(crate) type Written = (Generated, Option<Guidance>);

/// How captions are to be chosen, and by which verifier.
#[derive(Clone, Copy)]
pub(crate) struct ChooserSource<'a> {
    pub(crate) calibration: &'a Path,
    /// Least probability that a word is in the image, where words are to be taken back.
    pub(crate) precision: Option<f64>,
    /// Captions of an image to choose from, where there are to be several.
    pub(crate) best_of: Option<usize>,
    pub(crate) verifier: Option<&'a VerifierSource>,
    pub(crate) allow_mismatched: bool,
    /// Whose verifier, where the models are the built-in ones.
    pub(crate) world: WorldKind,
    pub(crate) vocabulary: Option<&'a Path>,
}

impl<'a> ChooserSource<'a> {
    /// What is to be chosen by, if that was asked for.
    ///
    /// # Errors
    /// The precision is out of range.
    pub(crate) fn of(
        arguments: &'a ChoosingArguments,
        world: WorldKind,
        vocabulary: Option<&'a Path>,
    ) -> anyhow::Result<Option<Self>> {
        let source = arguments.calibration.as_deref().map(|calibration| Self {
            calibration,
            precision: arguments.guided,
            best_of: arguments.best_of,
            verifier: arguments.verifier.as_ref(),
            allow_mismatched: arguments.allow_mismatched_verifier,
            world,
            vocabulary,
        });
        source.iter().try_for_each(Self::check)?;
        Ok(source)
    }

    /// What captions depend on besides the model, for the record.
    pub(crate) fn settings(&self) -> Vec<(&'static str, Value)> {
        let guided = self.precision.map(|precision| ("guided", json!(precision)));
        let best_of = self.best_of.map(|count| ("best_of", json!(count)));
        guided.into_iter().chain(best_of).collect()
    }

    /// The same with the calibration by its content.
    ///
    /// # Errors
    /// The calibration cannot be read.
    pub(crate) fn identity(&self) -> anyhow::Result<Vec<(&'static str, Value)>> {
        let mut settings = self.settings();
        settings.push(("calibration_sha256", json!(sha256_file(self.calibration)?)));
        Ok(settings)
    }

    /// Refuses a precision that is out of range, before anything is loaded.
    fn check(&self) -> anyhow::Result<()> {
        match self.precision {
            Some(precision) if !(precision > 0.0 && precision < 1.0) => bail!(
                Refusal::new(format!(
                    "--guided is {precision}; it must be greater than 0 and less than 1"
                ))
                .hint("write --guided 0.8 for words that are in the image four times of five")
            ),
            _ => Ok(()),
        }
    }
}

/// What chooses among several captions, or takes words back while one is written.
pub(crate) struct Chooser {
    scorer: MentionScorer,
    rule: RewardRule,
    guide: Option<Guide>,
    views: Option<Views>,
    best_of: Option<usize>,
}

/// A model, and what chooses among its captions where that was asked for, opened in all processes of the command.
pub(crate) fn open_answerer(
    source: Option<&ChooserSource<'_>>,
    (model, world): (&ModelSource, WorldKind),
    opened: &OpenDevice,
    reporter: &Reporter,
) -> anyhow::Result<(Policy, Option<Chooser>)> {
    let Some(source) = source else {
        return Ok((Policy::open_shared(model, world, opened, reporter)?, None));
    };
    let (policy, chooser) = Chooser::open(source, model, opened, reporter)?;
    Ok((policy, Some(chooser)))
}

impl Chooser {
    fn open(
        source: &ChooserSource<'_>,
        model: &ModelSource,
        opened: &OpenDevice,
        reporter: &Reporter,
    ) -> anyhow::Result<(Policy, Self)> {
        let &ChooserSource { verifier, world, precision, best_of, .. } = source;
        let calibration = calibrations::read(source.calibration)?;
        let settings = ScoringArguments::default().resolve(Some(&calibration));
        let pair = PairSource {
            model: model.clone(),
            verifier: verifier.cloned(),
            allow_mismatched_verifier: source.allow_mismatched,
            world,
        };
        let Pair { policy, verifier: loaded, views } =
            Pair::open(&pair, settings, opened, reporter)?;
        let words =
            Vocabulary::chosen(source.vocabulary, policy.is_embedded(), Some(&calibration))?;
        let setting = Setting { verifier: &loaded, vocabulary: &words };
        // An aligned model may be held to the calibration of the one it was made of.
        setting.check(&calibration, None, reporter)?;
        let mut verifier = loaded.verifier.clone();
        verifier.apply_calibration(&calibration);
        let scorer = MentionScorer {
            tokenizer: Arc::clone(&policy.tokenizer) as _,
            vocabulary: words.for_mentions()?,
            verifier,
        };
        let rule = RewardRule::new(&RewardConfig::default(), &calibration)?;
        let guide = |precision| {
            Guide::new(GuidedConfig { precision, ..GuidedConfig::default() }, &calibration)
        };
        let guide = precision.map(guide).transpose()?;
        Ok((policy, Self { scorer, rule, guide, views, best_of }))
    }

    /// What the verifier sees besides the model's own pixels.
    pub(crate) fn views(&self) -> Option<&Views> {
        self.views.as_ref()
    }

    /// Captions of the tasks `range` of a source. Words are taken back in this process alone.
    pub(crate) fn choose(
        &mut self,
        (policy, team): (&Policy, Option<Team<'_>>),
        tasks: &dyn TaskSource,
        range: Range<usize>,
        sampling: &Sampling,
    ) -> anyhow::Result<Vec<Written>> {
        let first = range.start;
        let asked = range.map(|at| tasks.task(at)).collect::<Result<Vec<_>, _>>()?;
        let asked = (asked.as_slice(), first);
        let (model, scorer, rule) = (&policy.model, &mut self.scorer, &self.rule);
        let additional = AdditionalRewards::default();
        let control = RunControl::new(&|_| {}).shared(team);
        if let Some(guide) = &self.guide {
            let choice = self.best_of.map(|count| (count, rule, &additional));
            let written = caption_guided(model, scorer, guide, choice, asked, sampling, control)?;
            let written = written.into_iter();
            return Ok(written.map(|(one, guidance)| (one.response(), Some(guidance))).collect());
        }
        let (rewards, count) = ((rule, &additional), self.best_of.unwrap_or(1));
        let (best, _) = best_of(model, scorer, rewards, asked, count, sampling, control)?;
        Ok(best.iter().map(|best| (best.response(), None)).collect())
    }
}
