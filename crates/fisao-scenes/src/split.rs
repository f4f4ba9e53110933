//! The splits of the world.

/// A part of the world. No scene belongs to two splits, whatever the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// Scenes a model is trained on.
    Train,
    /// Scenes for choosing between settings.
    Validation,
    /// Scenes from which reward thresholds are set.
    Calibration,
    /// Scenes that are only ever measured on.
    Test,
}

impl Split {
    /// Every split.
    pub const ALL: [Self; 4] = [Self::Train, Self::Validation, Self::Calibration, Self::Test];

    /// Lower-case name, as in image ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Calibration => "calibration",
            Self::Test => "test",
        }
    }

    /// Position in [`Self::ALL`].
    pub(crate) const fn position(self) -> u64 {
        self as u64
    }
}
