//! What a run is going to do, said before it does it.

use fisao_align::AlignConfig;
use fisao_report::html::counted;

use super::files::VALIDATION_IMAGES;
use super::record::Files;
use super::splitting::Counts;
use crate::bundle::Pair;
use crate::vocabulary::Vocabulary;

/// What there is to say about a run.
pub(super) struct Announcement {
    lines: Vec<(&'static str, String)>,
}

impl Announcement {
    /// Of a run that calibrates itself.
    pub(super) fn new(
        files: &Files,
        Pair { policy, verifier, .. }: &Pair,
        words: &Vocabulary,
        counts: Counts,
        config: &AlignConfig,
    ) -> Self {
        let decoder = policy.model.language_model().config().matrix_elements();
        let align = &config.align;
        let Counts { images, calibration, test } = counts;
        let validation = if files.validation_fraction > 0.0 {
            format!("{:.0} % of these held out for validation", 100.0 * files.validation_fraction)
        } else {
            format!("validated on {} of the calibration's", calibration.min(VALIDATION_IMAGES))
        };
        let labels = match &files.annotations {
            Some(path) => format!("with annotations of {}", path.display()),
            None => "without labels".to_owned(),
        };
        let learns = format!(
            "{}, LoRA of rank {}, learning rate {:e}{}",
            config.objective.definition().name(),
            config.lora.rank,
            align.learning_rate.unwrap_or_default(),
            if align.gradient_checkpointing { ", gradient checkpointing" } else { "" },
        );
        let lines = vec![
            ("model", format!("{}, decoder of {} parameters", files.model, rounded(decoder))),
            ("verifier", format!("{}, {}", verifier.name, verifier.grade.in_words())),
            (
                "vocabulary",
                if files.finds_vocabulary() {
                    format!("found in the captions of the {calibration} images to calibrate on")
                } else {
                    let objects = words.identity().categories;
                    format!("{}, {objects} objects", files.vocabulary.display())
                },
            ),
            (
                "images",
                format!(
                    "{images}: {calibration} to calibrate on ({labels}), {} to train on ({validation}), {test} to be measured \
                     on before and after",
                    counts.training(),
                ),
            ),
            (
                "training",
                format!(
                    "{} of {}, {} each, {} in all; {learns}",
                    counted(align.iterations, "iteration"),
                    counted(align.images_per_iteration, "image"),
                    counted(config.samples_per_image(), "caption"),
                    config.responses_per_iteration() * align.iterations,
                ),
            ),
        ];
        Self { lines }
    }

    /// A line a fact, with its name in front.
    pub(super) fn lines(&self) -> Vec<String> {
        in_columns(&self.lines)
    }
}

/// Facts with their names in front, all of them in the same place.
pub(super) fn in_columns(facts: &[(&str, String)]) -> Vec<String> {
    facts.iter().map(|(name, text)| format!("{name:<11}{text}")).collect()
}

/// A large number in the way it is said.
fn rounded(number: usize) -> String {
    let number = number as f64;
    if number >= 1e9 {
        format!("{:.1} billion", number / 1e9)
    } else if number >= 1e6 {
        format!("{:.1} million", number / 1e6)
    } else {
        format!("{:.0} thousand", number / 1e3)
    }
}
