//! Calibration files: read, checked against what is at hand, and signed with what they were made with.

use std::path::Path;

use fisao_align::mention_views::MentionViews;
use fisao_align::mentions::{MentionScorer, ScoredResponse};
use fisao_align::run_control::ResponseStore;
use fisao_align::tasks::{Task, TaskSource};
use fisao_align::{AlignError, RunControl, StopFlag};
use fisao_formats::FormatError;
use fisao_formats::digest::sha256_parts;
use fisao_formats::documents::{read_json, write_json};
use fisao_models::generation::Sampling;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::calibration::{
    AtHand, CALIBRATION_VERSION, Calibration, CalibrationError, ImagesIdentity,
    OLDEST_CALIBRATION_VERSION, Provenance,
};
use serde_json::Value;

use crate::bundle::{LoadedVerifier, Policy};
use crate::reporter::Reporter;
use crate::vocabulary::Vocabulary;

/// File of a run's calibration in its folder.
pub const CALIBRATION: &str = "calibration.json";

/// Reads a calibration that nothing is known about yet.
///
/// # Errors
/// It cannot be read, is of another version, or holds numbers that no calibration can hold.
pub fn read(path: &Path) -> anyhow::Result<Calibration> {
    const WHAT: &str = "calibration";
    let file: Value = read_json(WHAT, path)?;
    // Before the fields are looked at, as other versions have others.
    let version = file.get("version").and_then(Value::as_u64);
    let known = u64::from(OLDEST_CALIBRATION_VERSION)..=u64::from(CALIBRATION_VERSION);
    if let Some(found) = version.filter(|found| !known.contains(found)) {
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        return Err(CalibrationError::Version { found }.into());
    }
    let calibration: Calibration = serde_json::from_value(file).map_err(|error| {
        FormatError::Malformed { what: WHAT, path: path.to_owned(), reason: error.to_string() }
    })?;
    calibration.validate()?;
    Ok(calibration)
}

/// Writes a calibration.
pub fn write(path: &Path, calibration: &Calibration) -> Result<(), FormatError> {
    write_json(path, calibration)
}

/// What a calibration is made with or used with.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// What scores them.
    pub verifier: &'a LoadedVerifier,
    /// What is looked for.
    pub vocabulary: &'a Vocabulary,
}

impl Setting<'_> {
    /// Refuses a calibration that was made with something else. `policy` is whose captions are to be scored; `None` where
    /// they come from elsewhere.
    pub fn check(
        &self,
        calibration: &Calibration,
        policy: Option<&Policy>,
        reporter: &Reporter,
    ) -> anyhow::Result<()> {
        if calibration.made_with.is_none() {
            // Nothing to compare: no need to read every byte of the models.
            reporter
                .note("the calibration does not say what it was made with: nothing was checked");
            return Ok(());
        }
        let model = policy.map(|policy| policy.identity(reporter)).transpose()?;
        let adapter = policy.map(|policy| policy.adapter_identity(reporter)).transpose()?;
        let adapter = adapter.flatten();
        let verifier = self.verifier.identity(reporter)?;
        let vocabulary = self.vocabulary.identity();
        let at_hand = AtHand {
            model: model.as_ref().map(|model| (model, adapter.as_ref())),
            verifier: &verifier,
            // Captions from elsewhere may be searched for other objects, as long as they have centres.
            vocabulary: policy.map(|_| &vocabulary),
        };
        Ok(calibration.check_fits(&at_hand)?)
    }

    /// Says what a calibration was made with: the captions of a policy, of images with these [digests](image_digest).
    pub fn sign(
        &self,
        calibration: &mut Calibration,
        policy: &Policy,
        images: &[String],
        reporter: &Reporter,
    ) -> anyhow::Result<()> {
        calibration.made_with = Some(Provenance {
            fisao: env!("CARGO_PKG_VERSION").to_owned(),
            model: policy.identity(reporter)?,
            adapter: policy.adapter_identity(reporter)?,
            verifier: self.verifier.identity(reporter)?,
            vocabulary: self.vocabulary.identity(),
            images: ImagesIdentity { count: images.len(), sha256: sha256_parts(images) },
        });
        Ok(())
    }
}

/// What the decoder says of mentions where no annotations do, with a progress bar.
pub fn label_free_views(
    model: &VisionLanguageModel,
    scorer: &MentionScorer,
    source: &dyn TaskSource,
    captions: &[ScoredResponse],
    (sampling, length): (&Sampling, usize),
    (kept, stop): (Option<&dyn ResponseStore>, &StopFlag),
    reporter: &Reporter,
) -> Result<MentionViews, AlignError> {
    let passes = source.count() * MentionViews::PASSES;
    let progress = reporter.phase("look without labels", passes as u64);
    let advance = |done| progress.advance(done as u64);
    // What it learns on the way is not to change the last bits of what follows.
    let others = &mut scorer.clone();
    let control = RunControl { kept, ..RunControl::new(&advance).until(stop) };
    let views = MentionViews::of(model, others, source, captions, length, sampling, control)?;
    progress.finish();
    Ok(views)
}

/// Digest of one image, by its name and the pixels that the model takes.
pub fn image_digest(task: &Task) -> String {
    let pixels: Vec<u8> = task.image.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    sha256_parts([task.id.as_bytes(), &pixels])
}
