//! Which of the built-in synthetic datasets.

use clap::{Args, ValueEnum};
use fisao_scenes::{Split, WorldKind};

/// A built-in synthetic dataset, with the models that were trained on it. Its values have no help of their own, which would make the
/// help of every command a long one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorldChoice {
    #[default]
    Clear,
    Hard,
}

/// Which built-in synthetic dataset, for commands that take the embedded models where no others are named.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct WorldArguments {
    /// Which built-in synthetic dataset, where its models or scenes are used; the hard one's verifier is often wrong
    #[arg(long, value_enum, value_name = "WORLD", default_value_t)]
    pub(crate) world: WorldChoice,
}

impl WorldArguments {
    /// The world that was chosen.
    pub(crate) fn kind(self) -> WorldKind {
        self.world.into()
    }
}

/// The same where `--world` names a split.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct WorldKindArguments {
    /// Which built-in synthetic dataset, where its models or scenes are used; the hard one's verifier is often wrong
    #[arg(long, value_enum, value_name = "WORLD", default_value_t)]
    pub(crate) world_kind: WorldChoice,
}

impl WorldKindArguments {
    /// The world that was chosen.
    pub(crate) fn kind(self) -> WorldKind {
        self.world_kind.into()
    }
}

/// A split of the built-in synthetic dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorldSplit {
    /// Scenes the models were trained on
    Train,
    /// Scenes for choosing between settings
    Validation,
    /// Scenes from which rewards are calibrated
    Calibration,
    /// Scenes that are only ever measured on
    Test,
}

impl From<WorldSplit> for Split {
    fn from(split: WorldSplit) -> Self {
        match split {
            WorldSplit::Train => Self::Train,
            WorldSplit::Validation => Self::Validation,
            WorldSplit::Calibration => Self::Calibration,
            WorldSplit::Test => Self::Test,
        }
    }
}

impl From<WorldChoice> for WorldKind {
    fn from(choice: WorldChoice) -> Self {
        match choice {
            WorldChoice::Clear => Self::Clear,
            WorldChoice::Hard => Self::Hard,
        }
    }
}
