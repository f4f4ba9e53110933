//! Options of commands.
//!
//! Paths, choices of decoding and verbosity are options; what steers an alignment run lives in its
//! configuration file and `--set`, see [`fisao_runs::settings`].

mod align;
mod bench;
mod calibrate;
mod caption;
mod choosing;
mod compare;
mod config;
mod demo;
mod eval;
mod inspect;
mod merge;
mod pretrain;
mod runs;
mod score;
mod serve;
mod shared;
mod study;
mod truth;
mod verify;
mod world;

pub(crate) use align::{AlignArguments, AlignSource};
pub(crate) use bench::BenchArguments;
pub(crate) use calibrate::CalibrateArguments;
pub(crate) use caption::CaptionArguments;
pub(crate) use choosing::ChoosingArguments;
pub(crate) use compare::CompareArguments;
pub(crate) use config::{ConfigArguments, ConfigFormat};
pub(crate) use demo::{DemoArguments, LabelSource};
pub(crate) use eval::{
    AnswerFieldArguments, AnswererArguments, AnsweringArguments, BenchmarkAnswering,
    BenchmarkArguments, ReportArguments, ReportFormat,
};
pub(crate) use inspect::InspectArguments;
pub(crate) use merge::MergeArguments;
pub(crate) use pretrain::PretrainArguments;
pub(crate) use runs::RunsArguments;
pub(crate) use score::ScoreArguments;
pub(crate) use serve::ServeArguments;
pub(crate) use shared::{
    Activations, DamagedArguments, DeviceArguments, Format, MOST, ModelArguments, PairArguments,
    SamplingArguments, ScoringArguments, SettingsArguments, SharingArguments, VerifierArguments,
    VocabularyArguments, from_to, vision_adapter,
};
pub(crate) use study::{StudyArguments, StudyCommand, TheoryArguments, VerifierStudyArguments};
pub(crate) use truth::{ChairRules, TruthArguments};
pub(crate) use verify::{VerifyArguments, VerifyFormat, VerifyingArguments};
pub(crate) use world::{WorldArguments, WorldChoice, WorldKindArguments, WorldSplit};
