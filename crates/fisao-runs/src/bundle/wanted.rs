//! Models that all processes of a command open.

use fisao_models::vision_language::VisionLanguageModel;
use fisao_scenes::WorldKind;
use fisao_verifier::scorer::Verifier;
use serde::{Deserialize, Serialize};

use super::{ModelSource, Pair, PairSource, Policy};
use crate::device::OpenDevice;
use crate::reporter::Reporter;
use crate::score_settings::ScoreSettings;

/// Which models.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Wanted {
    /// A model and its verifier.
    Pair(PairSource, ScoreSettings),
    /// A model alone.
    Model(ModelSource, WorldKind),
}

/// Opens models for [`serve_command`](crate::processes::serve_command). What there is to say about them, the process that runs the command
/// says.
pub fn open_wanted(wanted: &str) -> anyhow::Result<(VisionLanguageModel, Option<Verifier>)> {
    let (device, silent) = (OpenDevice::cpu(), Reporter::silent());
    Ok(match serde_json::from_str(wanted)? {
        Wanted::Pair(source, settings) => {
            let Pair { policy, verifier, .. } = Pair::open(&source, settings, &device, &silent)?;
            (policy.model, Some(verifier.verifier))
        }
        Wanted::Model(source, world) => {
            (Policy::open(&source, world, &device, &silent)?.model, None)
        }
    })
}
