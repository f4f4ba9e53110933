//! How a verifier is to score.

use fisao_align::AlignConfig;
use fisao_verifier::calibration::Calibration;
use fisao_verifier::regions::{Regions, ScoreConfig};
use fisao_verifier::templates::Templates;

/// Sentences and regions.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScoreSettings {
    /// Sentences in which names are scored.
    pub(crate) templates: Templates,
    /// Where names are looked for.
    pub(crate) score: ScoreConfig,
}

impl ScoreSettings {
    /// Those of an alignment run.
    pub(crate) fn of_run(config: &AlignConfig) -> Self {
        Self { templates: config.templates.clone(), score: config.score }
    }

    /// The same with a calibration's regions where nothing else was asked for.
    pub(crate) fn or_as_in(self, calibration: &Calibration) -> Self {
        let made_with = calibration.made_with.as_ref().map(|made| made.verifier.score);
        let Some(ScoreConfig { regions, crops, .. }) =
            made_with.filter(|_| self.score.regions == Regions::Auto)
        else {
            return self;
        };
        Self { score: ScoreConfig { regions, crops, ..self.score }, ..self }
    }
}
