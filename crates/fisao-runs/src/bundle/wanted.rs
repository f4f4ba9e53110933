//! Models that all processes of a command open.

use fisao_scenes::WorldKind;
use serde::{Deserialize, Serialize};

use super::{AloneSource, ModelSource, Pair, PairSource, Policy};
use crate::device::OpenDevice;
use crate::processes::OpenedModels;
use crate::reporter::Reporter;
use crate::score_settings::ScoreSettings;

/// Which models.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Wanted {
    /// A model and its verifier.
    Pair(PairSource, ScoreSettings),
    /// A model alone.
    Model(ModelSource, WorldKind),
    /// A verifier alone.
    Verifier(AloneSource, ScoreSettings),
}

/// Opens models for [`serve_command`](crate::processes::serve_command). What there is to say about them, the process that runs the command
/// says.
pub fn open_wanted(wanted: &str) -> anyhow::Result<OpenedModels> {
    let (device, silent) = (OpenDevice::cpu(), Reporter::silent());
    Ok(match serde_json::from_str(wanted)? {
        Wanted::Pair(source, settings) => {
            let Pair { policy, verifier, .. } = Pair::open(&source, settings, &device, &silent)?;
            (Some(policy.model), Some(verifier.verifier))
        }
        Wanted::Model(source, world) => {
            (Some(Policy::open(&source, world, &device, &silent)?.model), None)
        }
        Wanted::Verifier(source, settings) => {
            (None, Some(source.open(settings, &device, &silent)?.verifier))
        }
    })
}
