//! How a verifier is to score.

use fisao_align::AlignConfig;
use fisao_verifier::calibration::{Calibration, VerifierIdentity};
use fisao_verifier::regions::{Regions, ScoreConfig, ScoreHead, Wording};
use fisao_verifier::templates::Templates;
use serde::{Deserialize, Serialize};

/// Sentences, and what is made of them and images.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ScoreSettings {
    /// Sentences in which names are scored.
    pub templates: Templates,
    /// What scores them, and where names are looked for.
    pub score: ScoreConfig,
}

/// What is asked of scores; nothing of what is empty.
#[derive(Clone, Debug, Default)]
pub struct ScoreChoice {
    /// Sentences in which names are scored.
    pub templates: Vec<String>,
    /// Where in an image a name is looked for.
    pub regions: Option<Regions>,
    /// What a BLIP-2 verifier scores with.
    pub head: Option<ScoreHead>,
    /// What of a mention is scored.
    pub wording: Option<Wording>,
    /// How many other names a name is contrasted with.
    pub contrast: Option<u32>,
}

impl ScoreSettings {
    /// Those of an alignment run.
    pub fn of_run(config: &AlignConfig) -> Self {
        Self { templates: config.templates.clone(), score: config.score }
    }

    /// What was asked for; where nothing was, what a calibration was made with, or the usual.
    pub fn chosen(choice: &ScoreChoice, calibration: Option<&Calibration>) -> Self {
        let made_with = calibration.and_then(|calibration| calibration.made_with.as_ref());
        let mut settings = made_with.map_or_else(Self::default, |made_with| {
            let VerifierIdentity { templates, score, .. } = made_with.verifier.clone();
            Self { templates, score }
        });
        let ScoreChoice { templates, regions, head, wording, contrast } = choice;
        if !templates.is_empty() {
            templates.clone_into(&mut settings.templates.prompts);
        }
        let score = &mut settings.score;
        score.regions = regions.unwrap_or(score.regions);
        score.head = head.unwrap_or(score.head);
        score.wording = wording.unwrap_or(score.wording);
        score.contrast = contrast.unwrap_or(score.contrast);
        settings
    }

    /// The same with a calibration's head, regions, wording and contrast where nothing else was asked for.
    #[must_use]
    pub fn or_as_in(mut self, calibration: &Calibration) -> Self {
        let made_with = calibration.made_with.as_ref().map(|made| made.verifier.score);
        if let Some(ScoreConfig { head, regions, crops, wording, contrast, .. }) = made_with {
            if self.score.wording == Wording::default() {
                self.score.wording = wording;
            }
            if self.score.contrast == 0 {
                self.score.contrast = contrast;
            }
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
