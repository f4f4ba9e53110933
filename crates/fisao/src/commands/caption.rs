//! `fisao caption`: describes images.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use burn::tensor::Device;
use fisao_align::RunControl;
use fisao_align::captions::best_of;
use fisao_align::guided::{Guidance, Guide, GuidedConfig, TakenBack, caption_guided};
use fisao_align::mentions::MentionScorer;
use fisao_align::sampling::{generate, tasks_at_once};
use fisao_align::tasks::TaskSource;
use fisao_align::token_rewards::AdditionalRewards;
use fisao_models::generation::{FinishReason, Generated, Sampling};
use fisao_runs::bundle::{Policy, Views, warn_of_photographs};
use fisao_runs::calibrations::{self, Setting};
use fisao_runs::tasks::{ImageTasks, checked_images};
use fisao_runs::vocabulary::Vocabulary;
use fisao_runs::{Refusal, Reporter};
use fisao_verifier::rewards::{RewardConfig, RewardRule};
use serde::Serialize;

use crate::arguments::{CaptionArguments, Format, ScoringArguments};
use crate::output;
use fisao_report::escaping::one_line;

/// One image's caption, as printed.
#[derive(Serialize)]
struct CaptionedImage<'a> {
    /// The file's name, by which other commands find it in a folder of images.
    image_id: String,
    image: String,
    prompt: &'a str,
    caption: String,
    tokens: Vec<CaptionToken>,
    finish_reason: FinishReason,
    /// What guidance did, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    guided: Option<GuidedCounts>,
}

/// What guidance did to a caption.
#[derive(Serialize)]
struct GuidedCounts {
    taken_back: Vec<TakenBack>,
    let_through: usize,
    extra_tokens: usize,
}

impl From<Guidance> for GuidedCounts {
    fn from(guidance: Guidance) -> Self {
        let Guidance { taken_back, let_through, extra_tokens, rewinds: _ } = guidance;
        Self { taken_back, let_through, extra_tokens }
    }
}

/// A response, with what guidance did to it where it was asked for.
type Written = (Generated, Option<Guidance>);

#[derive(Serialize)]
struct CaptionToken {
    id: u32,
    /// What it spells in the text; empty for the end token.
    text: String,
    /// Natural logarithm of its probability when it was chosen.
    logprob: f32,
}

pub(crate) fn run(arguments: &CaptionArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let sampling = arguments.sampling.resolve()?;
    let precision = arguments.guided.map(checked_precision).transpose()?;
    let images = checked_images(&arguments.images, arguments.damaged.images(), reporter)?;
    let device = arguments.model.device.open(reporter)?.device;
    let policy =
        Policy::open(&arguments.model.source(), arguments.world.kind(), &device, reporter)?;
    let sizes = images.iter().map(|image| image.size);
    warn_of_photographs(policy.is_embedded(), sizes, reporter);
    let chooser = arguments.calibration.as_deref();
    let chooser =
        chooser.map(|path| Chooser::open((path, precision), arguments, &policy, &device, reporter));
    let mut chooser = chooser.transpose()?;
    let views = chooser.as_ref().and_then(|chooser| chooser.views.clone());
    let tasks = ImageTasks::new(&policy, images, &arguments.prompt)?.with_verifier(views);
    policy.check_length(tasks.longest_prompt(), sampling.max_new_tokens)?;

    let length = tasks.longest_prompt() + sampling.max_new_tokens;
    let at_once = tasks_at_once(&policy.model, length);
    let progress = reporter.phase("captioning", tasks.count() as u64);
    for start in (0..tasks.count()).step_by(at_once) {
        let end = (start + at_once).min(tasks.count());
        let advance = |done| progress.advance(done as u64);
        let captions = match &mut chooser {
            Some(chooser) => chooser.choose(&policy, &tasks, start..end, &sampling)?,
            None => {
                let range = start..end;
                let written = generate(&policy.model, &tasks, range, length, &sampling, &advance)?;
                written.into_iter().map(|response| (response, None)).collect()
            }
        };
        if chooser.is_some() {
            advance(end - start);
        }
        for (index, written) in (start..end).zip(captions) {
            let image = tasks.file(index).display().to_string();
            let caption = describe(&policy, image, &arguments.prompt, written)?;
            match arguments.format {
                Format::Text => {
                    let (image, text) = (one_line(&caption.image), one_line(&caption.caption));
                    output::line(format!("{image}: {text}"))?;
                }
                Format::Json => output::json(&caption)?,
            }
        }
    }
    progress.finish();
    Ok(())
}

/// A precision as it was asked for.
fn checked_precision(precision: f64) -> anyhow::Result<f64> {
    if precision > 0.0 && precision < 1.0 {
        return Ok(precision);
    }
    bail!(
        Refusal::new(format!("--guided is {precision}; it must be greater than 0 and less than 1"))
            .hint("write --guided 0.8 for words that are in the image four times of five")
    )
}

/// What chooses among several captions, or takes words back while one is written.
struct Chooser {
    scorer: MentionScorer,
    rule: RewardRule,
    guide: Option<Guide>,
    views: Option<Views>,
    /// Captions of an image to choose from, where there are several.
    count: Option<usize>,
}

impl Chooser {
    fn open(
        (calibration, precision): (&Path, Option<f64>),
        arguments: &CaptionArguments,
        policy: &Policy,
        device: &Device,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let calibration = calibrations::read(calibration)?;
        let settings = ScoringArguments::default().resolve(Some(&calibration));
        let (verifier, world) = (arguments.verifier.as_ref(), arguments.world.kind());
        let mut loaded = policy.verifier(verifier, world, settings, device, reporter)?;
        let views = loaded.views_beside(policy, arguments.allow_mismatched_verifier, reporter)?;
        let words = Vocabulary::chosen(
            arguments.vocabulary.named(),
            policy.is_embedded(),
            Some(&calibration),
        )?;
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
        Ok(Self { scorer, rule, guide, views, count: arguments.best_of })
    }

    fn choose(
        &mut self,
        policy: &Policy,
        tasks: &ImageTasks<'_>,
        range: Range<usize>,
        sampling: &Sampling,
    ) -> anyhow::Result<Vec<Written>> {
        let first = range.start;
        let asked = range.map(|at| tasks.task(at)).collect::<Result<Vec<_>, _>>()?;
        let asked = (asked.as_slice(), first);
        let (model, scorer, rule) = (&policy.model, &mut self.scorer, &self.rule);
        let (additional, control) = (AdditionalRewards::default(), RunControl::new(&|_| {}));
        if let Some(guide) = &self.guide {
            let choice = self.count.map(|count| (count, rule, &additional));
            let written = caption_guided(model, scorer, guide, choice, asked, sampling, control)?;
            let written = written.into_iter();
            return Ok(written.map(|(one, guidance)| (one.response(), Some(guidance))).collect());
        }
        let (rewards, count) = ((rule, &additional), self.count.unwrap_or(1));
        let (best, _) = best_of(model, scorer, rewards, asked, count, sampling, control)?;
        Ok(best.iter().map(|best| (best.response(), None)).collect())
    }
}

fn describe<'a>(
    policy: &Policy,
    image: String,
    prompt: &'a str,
    (written, guidance): Written,
) -> anyhow::Result<CaptionedImage<'a>> {
    let decoded = policy.tokenizer.decode(&written.tokens)?;
    let tokens = written
        .tokens
        .iter()
        .zip(&written.logprobs)
        .zip(decoded.spans)
        .map(|((&id, &logprob), span)| CaptionToken {
            id,
            text: decoded.text[span].to_owned(),
            logprob,
        })
        .collect();
    let name = Path::new(&image).file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(CaptionedImage {
        image_id: name.unwrap_or_else(|| image.clone()),
        image,
        prompt,
        caption: decoded.text,
        tokens,
        finish_reason: written.finish,
        guided: guidance.map(GuidedCounts::from),
    })
}
