//! Variants of the verifier's score that are compared.

use fisao_runs::score_settings::ScoreSettings;
use fisao_verifier::regions::{Regions, ScoreConfig, Wording};
use fisao_verifier::templates::Templates;

/// The plain cosine that all variants are compared with: CLIP's zero-shot sentence, the pooled image, no centring.
pub(super) const PLAIN: Variant = Variant {
    name: "plain",
    templates: &["a photo of a {}."],
    regions: Regions::Whole,
    centred: false,
    wording: Wording::Name,
    contrast: 0,
};

/// Names that a name is contrasted with.
const CONTRAST: u32 = 3;

/// Sentences that are averaged, in everyday words about images of any kind.
pub(super) const ENSEMBLE: &[&str] = &[
    "a photo of a {}.",
    "a picture of a {}.",
    "there is a {} in the picture.",
    "a {}.",
    "an image that shows a {}.",
];

/// A way to score mentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) templates: &'static [&'static str],
    pub(super) regions: Regions,
    pub(super) centred: bool,
    pub(super) wording: Wording,
    pub(super) contrast: u32,
}

/// All variants, the plain one first.
pub(super) const VARIANTS: &[Variant] = &[
    PLAIN,
    Variant { name: "bare word", templates: &["{}"], ..PLAIN },
    Variant { name: "ensemble", templates: ENSEMBLE, ..PLAIN },
    Variant { name: "centred", centred: true, ..PLAIN },
    Variant { name: "ensemble, centred", templates: ENSEMBLE, centred: true, ..PLAIN },
    Variant { name: "patches", regions: Regions::Patches, ..PLAIN },
    Variant { name: "patches, centred", regions: Regions::Patches, centred: true, ..PLAIN },
    Variant { name: "auto, centred", regions: Regions::Auto, centred: true, ..PLAIN },
    Variant { name: "crops", regions: Regions::Crops, ..PLAIN },
    Variant { name: "crops, centred", regions: Regions::Crops, centred: true, ..PLAIN },
    Variant {
        name: "ensemble, patches, centred",
        templates: ENSEMBLE,
        regions: Regions::Patches,
        centred: true,
        ..PLAIN
    },
    Variant { name: "phrase, centred", wording: Wording::Phrase, centred: true, ..PLAIN },
    Variant { name: "contrast", contrast: CONTRAST, ..PLAIN },
    Variant { name: "contrast, centred", contrast: CONTRAST, centred: true, ..PLAIN },
    Variant {
        name: "phrase, contrast, centred",
        wording: Wording::Phrase,
        contrast: CONTRAST,
        centred: true,
        ..PLAIN
    },
];

impl Variant {
    /// As the verifier takes it.
    pub(super) fn settings(&self) -> ScoreSettings {
        let prompts = self.templates.iter().map(ToString::to_string).collect();
        ScoreSettings {
            templates: Templates { prompts, ..Templates::default() },
            score: ScoreConfig {
                regions: self.regions,
                centred: self.centred,
                wording: self.wording,
                contrast: self.contrast,
                ..ScoreConfig::default()
            },
        }
    }

    /// The pooled image, centred, in the usual sentence.
    pub(super) fn is_pooled(&self) -> bool {
        *self == Self { name: self.name, centred: true, ..PLAIN }
    }

    /// Whether this is what commands do when nothing else is asked for.
    pub(super) fn is_default(&self) -> bool {
        let ScoreSettings { templates, score } = self.settings();
        templates == Templates::default() && score == ScoreConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_variant_is_the_default() {
        assert_eq!(VARIANTS.iter().filter(|variant| variant.is_default()).count(), 1);
    }
}
