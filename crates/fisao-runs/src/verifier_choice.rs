//! Which verifier goes with a model: the contrastive checkpoint that its vision tower comes from, or its own decoder.

use std::ffi::OsString;
use std::fmt;

use fisao_models::vision::{VisionConfig, VisionFamily};
use fisao_models::vision_language::VisionLanguageConfig;

use serde::{Deserialize, Serialize};

use crate::model_location::ModelLocation;
use crate::reporter::Reporter;

/// What options and records call the decoder's reading.
pub const DECODER: &str = "decoder";

/// A verifier as it is asked for: a contrastive checkpoint, or the model's own decoder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum VerifierSource {
    /// A CLIP, SigLIP or BLIP-2 checkpoint.
    Checkpoint(ModelLocation),
    /// What the model's decoder reads at the image's positions; needs no second checkpoint.
    Decoder,
}

impl From<OsString> for VerifierSource {
    fn from(text: OsString) -> Self {
        if text == DECODER { Self::Decoder } else { Self::Checkpoint(text.into()) }
    }
}

/// As it was written.
impl fmt::Display for VerifierSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint(location) => location.fmt(f),
            Self::Decoder => f.write_str(DECODER),
        }
    }
}

impl VerifierSource {
    /// What still means the same from another folder.
    pub fn lasting(&self) -> anyhow::Result<String> {
        match self {
            Self::Checkpoint(location) => location.lasting(),
            Self::Decoder => Ok(DECODER.to_owned()),
        }
    }
}

/// How a verifier's image encoder is related to the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// Both vision towers have the same weights, up to rounding.
    Exact,
    /// The model's tower began as the verifier's and was tuned: same configuration, other weights. The model's own is used with the
    /// verifier's head.
    Near,
    /// No contrastive model has the tower: the model's decoder reads.
    Decoder,
    /// The towers are different models, which was allowed.
    Mismatched,
}

impl Grade {
    /// What it says of the verifier, behind its name.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Exact => "whose vision encoder the model has",
            Self::Near => "its head on the model's own, tuned vision encoder",
            Self::Decoder => "reading the image's positions",
            Self::Mismatched => "with a vision encoder of its own",
        }
    }
}

/// The verifier that goes with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifierChoice {
    /// A checkpoint on the Hugging Face Hub.
    Checkpoint {
        /// Its name.
        id: &'static str,
        /// What the model's tower is expected to be; the weights decide.
        grade: Grade,
    },
    /// The model's own decoder.
    Decoder,
}

/// A public contrastive model by the sizes of its vision tower.
struct KnownTower {
    family: VisionFamily,
    hidden_size: usize,
    layers: usize,
    image_size: usize,
    patch_size: usize,
    id: &'static str,
}

/// Vision towers that vision-language models were built on.
const KNOWN_TOWERS: [KnownTower; 5] = [
    KnownTower {
        family: VisionFamily::Clip,
        hidden_size: 1024,
        layers: 24,
        image_size: 336,
        patch_size: 14,
        id: "openai/clip-vit-large-patch14-336",
    },
    KnownTower {
        family: VisionFamily::Clip,
        hidden_size: 1024,
        layers: 24,
        image_size: 224,
        patch_size: 14,
        id: "openai/clip-vit-large-patch14",
    },
    KnownTower {
        family: VisionFamily::Siglip,
        hidden_size: 1152,
        layers: 27,
        image_size: 384,
        patch_size: 14,
        id: "google/siglip-so400m-patch14-384",
    },
    KnownTower {
        family: VisionFamily::Siglip,
        hidden_size: 768,
        layers: 12,
        image_size: 512,
        patch_size: 16,
        id: "google/siglip-base-patch16-512",
    },
    KnownTower {
        family: VisionFamily::Eva,
        hidden_size: 1408,
        layers: 39,
        image_size: 224,
        patch_size: 14,
        id: "Salesforce/blip2-itm-vit-g",
    },
];

impl KnownTower {
    fn is(&self, tower: &VisionConfig) -> bool {
        self.family == tower.family
            && self.hidden_size == tower.hidden_size
            && self.layers == tower.num_hidden_layers
            && self.image_size == tower.image_size
            && self.patch_size == tower.patch_size
    }
}

/// Families that keep the tower frozen in training; others tune it.
const FROZEN_TOWERS: [&str; 2] = ["llava", "instructblip"];

/// The verifier that goes with a model, by the model's configuration alone: the contrastive checkpoint that its vision tower comes
/// from, or its own decoder where the tower is that of none that is known.
pub fn matching_verifier(config: &VisionLanguageConfig) -> VerifierChoice {
    let family = config.family();
    let known = family.vision().and_then(|tower| KNOWN_TOWERS.iter().find(|known| known.is(tower)));
    known.map_or(VerifierChoice::Decoder, |known| {
        let frozen = FROZEN_TOWERS.contains(&family.model_type());
        let grade = if frozen { Grade::Exact } else { Grade::Near };
        VerifierChoice::Checkpoint { id: known.id, grade }
    })
}

impl VerifierChoice {
    /// The same as it could have been asked for, which the user is told.
    pub(crate) fn told(self, reporter: &Reporter) -> VerifierSource {
        reporter.note(self.in_words());
        match self {
            Self::Checkpoint { id, .. } => VerifierSource::Checkpoint(OsString::from(id).into()),
            Self::Decoder => VerifierSource::Decoder,
        }
    }

    /// What is chosen, and why, in one line.
    fn in_words(self) -> String {
        match self {
            Self::Checkpoint { id, grade: Grade::Exact } => {
                format!("verifier: {id}, which has the model's vision tower")
            }
            Self::Checkpoint { id, .. } => format!(
                "verifier: {id}, which the model's vision tower was tuned from; its head is used on the model's own tower"
            ),
            Self::Decoder => "verifier: the model's own decoder (--verifier decoder), as no known contrastive model has its \
                              vision tower"
                .to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifier_options_are_read_back_as_written() {
        for text in ["decoder", "openai/clip-vit-large-patch14-336", "./decoder"] {
            let source = VerifierSource::from(OsString::from(text));
            assert_eq!(source.to_string(), text);
            assert_eq!(matches!(source, VerifierSource::Decoder), text == "decoder");
        }
        assert_eq!(VerifierSource::Decoder.lasting().unwrap(), "decoder");
    }

    #[test]
    fn towers_lead_to_the_checkpoint_they_come_from() {
        use fisao_models::vision_language::VisionLanguageConfig;
        use fisao_models::vision_language::instructblip::InstructBlipConfig;
        use fisao_models::vision_language::llava::LlavaConfig;

        let llava = |edit: &dyn Fn(&mut LlavaConfig)| {
            let mut config = fisao_testkit::tiny::llava_config();
            let vision = &mut config.vision;
            (vision.hidden_size, vision.num_hidden_layers) = (1024, 24);
            (vision.image_size, vision.patch_size) = (336, 14);
            edit(&mut config);
            VisionLanguageConfig::from(config)
        };
        let chosen = |config| matching_verifier(&config);
        let checkpoint = |id, grade| VerifierChoice::Checkpoint { id, grade };
        let clip = "openai/clip-vit-large-patch14-336";
        assert_eq!(chosen(llava(&|_| {})), checkpoint(clip, Grade::Exact));
        let siglip = |config: &mut LlavaConfig| {
            let vision = &mut config.vision;
            (vision.family, vision.image_size) = (VisionFamily::Siglip, 384);
            (vision.hidden_size, vision.num_hidden_layers) = (1152, 27);
        };
        let id = "google/siglip-so400m-patch14-384";
        assert_eq!(chosen(llava(&siglip)), checkpoint(id, Grade::Exact));
        // One layer fewer is another model, and so is a tower that nobody published with a text encoder.
        assert_eq!(
            chosen(llava(&|config| config.vision.num_hidden_layers = 23)),
            VerifierChoice::Decoder
        );
        assert_eq!(
            matching_verifier(&fisao_testkit::tiny::llava_config().into()),
            VerifierChoice::Decoder
        );
        let mut blip: InstructBlipConfig = fisao_testkit::tiny::instructblip_config();
        (blip.vision.hidden_size, blip.vision.num_hidden_layers) = (1408, 39);
        (blip.vision.image_size, blip.vision.patch_size) = (224, 14);
        let id = "Salesforce/blip2-itm-vit-g";
        assert_eq!(chosen(blip.into()), checkpoint(id, Grade::Exact));
    }
}
