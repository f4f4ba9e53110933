//! `fisao compare`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fisao_align::config::LARGEST_SEED;
use fisao_experiments::compare as library;

use super::shared::{MOST_OF_BEST, MOST_SEEDS, from_to};
use super::{DeviceArguments, LabelSource, SettingsArguments, WorldArguments};

#[derive(Debug, Args)]
pub(crate) struct CompareArguments {
    /// Methods to compare [default: all of them]
    #[arg(long, value_enum, value_name = "METHOD", value_delimiter = ',')]
    pub(crate) methods: Vec<MethodChoice>,
    /// Train FiSAO with each of several values of a setting, for instance lora.rank=4,8,16; may be repeated. Besides the
    /// settings there are labels=annotations,none, prompts=N,… (images to train on) and vocabulary-fraction=S,… (fraction of the
    /// object names that the verifier knows)
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(crate) vary: Vec<String>,
    /// An ablation of the paper's questions, instead of naming its settings with --vary; may be repeated
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',')]
    pub(crate) ablation: Vec<Ablation>,
    /// Repeat everything with this many seeds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = from_to::<u64>(1, MOST_SEEDS))]
    pub(crate) seeds: u64,
    /// The first of the seeds
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = from_to::<u64>(0, LARGEST_SEED - MOST_SEEDS))]
    pub(crate) first_seed: u64,
    /// What is held equal
    #[arg(long, value_enum, value_name = "BUDGET", default_value_t)]
    pub(crate) budget: BudgetChoice,
    /// What calibration knows of its images
    #[arg(long, value_enum, value_name = "LABELS", default_value_t)]
    pub(crate) labels: LabelSource,
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    /// Responses to each image that best-of-N chooses from
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = from_to::<usize>(1, MOST_OF_BEST))]
    pub(crate) best_of: usize,
    /// A shorter and rougher comparison
    #[arg(long)]
    pub(crate) quick: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
    /// Folder for compare.json, compare.md, compare.html and all runs; what is there already is not done again
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
}

/// A method of making the model hallucinate less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum MethodChoice {
    /// The model as it comes
    Base,
    /// Token rewards of the model's own encoder, PPO
    Fisao,
    /// The same rewards without a critic: responses to one image against each other
    FisaoGroup,
    /// PPO with one reward for the whole response
    SentencePpo,
    /// DPO on pairs that the verifier makes of the model's own responses, anew in every iteration
    SelfDpo,
    /// No training: the best of N responses by the verifier
    BestOfN,
    /// Supervised fine-tuning on captions written by someone who knows
    Sft,
    /// DPO on pairs written by someone who knows
    Dpo,
}

/// What all methods get as much of as FiSAO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BudgetChoice {
    /// Responses learned from
    #[default]
    Prompts,
    /// Seconds of training
    WallTime,
    /// First the one, then the other
    Both,
}

/// Questions about the method, as settings to vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ablation {
    /// The margin λ of threshold rewards
    Margin,
    /// Token rewards on the last token of a word, or on all of them; or one for the sentence
    Granularity,
    /// Corrected for the verifier's errors, log-odds, thresholds, or the whole sentence
    Form,
    /// Calibration with annotations and without
    Labels,
    /// Images to train on, from 32 to 4096
    Prompts,
    /// Rank of the adapter
    Rank,
    /// Verifiers from an AUC of 1 down to 0.6, by noise on their scores: FiSAO with and without critic, sentence reward,
    /// self-rewarding DPO and best of N with each
    Verifier,
    /// Fraction of the object names that the verifier knows
    Vocabulary,
}

impl From<MethodChoice> for library::MethodChoice {
    fn from(method: MethodChoice) -> Self {
        match method {
            MethodChoice::Base => Self::Base,
            MethodChoice::Fisao => Self::Fisao,
            MethodChoice::FisaoGroup => Self::FisaoGroup,
            MethodChoice::SentencePpo => Self::SentencePpo,
            MethodChoice::SelfDpo => Self::SelfDpo,
            MethodChoice::BestOfN => Self::BestOfN,
            MethodChoice::Sft => Self::Sft,
            MethodChoice::Dpo => Self::Dpo,
        }
    }
}

impl From<BudgetChoice> for library::BudgetChoice {
    fn from(budget: BudgetChoice) -> Self {
        match budget {
            BudgetChoice::Prompts => Self::Prompts,
            BudgetChoice::WallTime => Self::WallTime,
            BudgetChoice::Both => Self::Both,
        }
    }
}

impl From<Ablation> for library::Ablation {
    fn from(ablation: Ablation) -> Self {
        match ablation {
            Ablation::Margin => Self::Margin,
            Ablation::Granularity => Self::Granularity,
            Ablation::Form => Self::Form,
            Ablation::Labels => Self::Labels,
            Ablation::Prompts => Self::Prompts,
            Ablation::Rank => Self::Rank,
            Ablation::Verifier => Self::Verifier,
            Ablation::Vocabulary => Self::Vocabulary,
        }
    }
}
