//! How a verifier is to score.

use fisao_align::AlignConfig;
use fisao_verifier::calibration::{Calibration, VerifierIdentity};
use fisao_verifier::regions::{Regions, ScoreConfig, ScoreHead};
use fisao_verifier::templates::Templates;

/// Sentences, and what is made of them and images.
#[derive(Clone, Debug, Default)]
pub struct ScoreSettings {
    /// Sentences in which names are scored.
    pub templates: Templates,
    /// What scores them, and where names are looked for.
    pub score: ScoreConfig,
}

impl ScoreSettings {
    /// Those of an alignment run.
    pub fn of_run(config: &AlignConfig) -> Self {
        Self { templates: config.templates.clone(), score: config.score }
    }

    /// What was asked for; where nothing was, what a calibration was made with, or the usual.
    pub fn chosen(
        prompts: &[String],
        regions: Option<Regions>,
        head: Option<ScoreHead>,
        calibration: Option<&Calibration>,
    ) -> Self {
        let made_with = calibration.and_then(|calibration| calibration.made_with.as_ref());
        let mut settings = made_with.map_or_else(Self::default, |made_with| {
            let VerifierIdentity { templates, score, .. } = made_with.verifier.clone();
            Self { templates, score }
        });
        if !prompts.is_empty() {
            prompts.clone_into(&mut settings.templates.prompts);
        }
        if let Some(regions) = regions {
            settings.score.regions = regions;
        }
        if let Some(head) = head {
            settings.score.head = head;
        }
        settings
    }

    /// The same with a calibration's head and regions where nothing else was asked for.
    #[must_use]
    pub fn or_as_in(mut self, calibration: &Calibration) -> Self {
        let made_with = calibration.made_with.as_ref().map(|made| made.verifier.score);
        if let Some(ScoreConfig { head, regions, crops, .. }) = made_with {
            if self.score.head == ScoreHead::default() {
                self.score.head = head;
            }
            if self.score.regions == Regions::Auto {
                (self.score.regions, self.score.crops) = (regions, crops);
            }
        }
        self
    }
}
