//! `fisao caption`.

use std::path::PathBuf;

use clap::Args;

use super::{
    ChoosingArguments, DamagedArguments, Format, ModelArguments, SamplingArguments,
    SharingArguments, VocabularyArguments, WorldArguments,
};

#[derive(Debug, Args)]
pub(crate) struct CaptionArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    /// Image file, or folder of images; may be repeated
    #[arg(long, short, visible_alias = "image", required = true, num_args = 1.., value_name = "PATH")]
    pub(crate) images: Vec<PathBuf>,
    /// What to ask; a prompt that holds `<image>` is passed on verbatim, any other is put into
    /// a conversation by the model's chat template
    #[arg(long, value_name = "TEXT", default_value = fisao_scenes::PROMPTS[0])]
    pub(crate) prompt: String,
    /// Show all images to the model in one prompt, in the order they are given, and print one answer: for models that were trained on
    /// such prompts (SmolVLM, Qwen2.5-VL, Qwen3-VL)
    #[arg(long, conflicts_with_all = ["best_of", "guided", "skip_damaged"])]
    pub(crate) together: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    #[command(flatten)]
    pub(crate) choosing: ChoosingArguments,
    #[command(flatten)]
    pub(crate) damaged: DamagedArguments,
    #[command(flatten)]
    pub(crate) sharing: SharingArguments,
    #[command(flatten)]
    pub(crate) vocabulary: VocabularyArguments,
    /// How to print the captions; json prints one object per image, or one for all with --together
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Format,
}
