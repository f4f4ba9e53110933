//! Calibration files: read, checked against what is at hand, and signed with what they were made with.

use std::path::Path;

use fisao_formats::FormatError;
use fisao_formats::digest::sha256_parts;
use fisao_formats::documents::{read_json, write_json};
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

    /// Says what a calibration was made with: the captions of a policy, of images with these digests.
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
