//! How the checkpoints of a vision-language family are stored: configuration, tensor names, and what PEFT calls its modules.

use fisao_models::vision_language::VisionLanguageConfig;

use super::companion_files::CompanionFiles;
use super::config::FAMILIES;
use crate::FormatError;
use crate::fields::Fields;
use crate::processor::ImageProcessorFormat;
use crate::tokenizer::TOKENIZER_FILE;
use crate::weights::Layout;

/// Reads a `config.json`, with what its companion files say (tokens that begin and end a response).
pub(super) type ReadConfig =
    fn(&Fields<'_>, &CompanionFiles<'_>) -> Result<VisionLanguageConfig, FormatError>;

/// What transformers writes with a tokenizer in a subfolder.
const TOKENIZER_FILES: [&str; 5] = [
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
];

/// A family. Canonical names of its tensors begin with `vision_tower.` for an image tower and with `language_model.` for the
/// decoder, which adapters and guards go by.
#[derive(Debug)]
pub(crate) struct FamilyFormat {
    /// Each `model_type` of its `config.json`, and what reads it.
    pub(super) model_types: &'static [(&'static str, ReadConfig)],
    /// Names under which its tensors have been stored.
    pub(super) layout: Layout,
    /// What releases call its modules in the keys of an adapter, newest first: that one is written.
    pub(crate) namings: &'static [Naming],
    /// transformers' image processors of its own, `ImageProcessor` left out, and what reads their settings.
    pub(super) image_processors: &'static [ImageProcessorFormat],
    /// The subfolder with the tokenizer of an image encoder that reads instructions.
    pub(super) instruction_tokenizer: Option<&'static str>,
    /// Beginnings of canonical names, and the part of the model they belong to.
    pub(super) parts: &'static [(&'static [&'static str], &'static str)],
}

impl FamilyFormat {
    /// The family of a configuration.
    ///
    /// # Panics
    /// Its `model_type` is not registered.
    pub(crate) fn of(config: &VisionLanguageConfig) -> &'static Self {
        let kind = config.family().model_type();
        let family = FAMILIES.iter().find(|family| family.reader(kind).is_some());
        family.unwrap_or_else(|| panic!("`{kind}` is not among the families that are read"))
    }

    /// What reads a configuration of this `model_type`.
    pub(super) fn reader(&self, kind: &str) -> Option<ReadConfig> {
        self.model_types.iter().find(|(name, _)| *name == kind).map(|(_, read)| *read)
    }

    /// The canonical name of a module at a path, by the first family that knows its beginning; else the path.
    pub(crate) fn canonical_name(path: &str) -> String {
        // Layouts are told apart by whole components of a tensor's name.
        let path = format!("{path}.");
        let known = FAMILIES.iter().find_map(|family| family.layout.translated(&path));
        let name = known.unwrap_or(path);
        name.strip_suffix('.').unwrap_or(&name).to_owned()
    }

    /// The image processors that families have of their own.
    pub(super) fn all_image_processors() -> impl Iterator<Item = &'static ImageProcessorFormat> {
        FAMILIES.iter().flat_map(|family| family.image_processors)
    }

    /// Paths within a checkpoint of the tokenizers that image encoders of all families have of their own.
    pub(crate) fn all_instruction_tokenizers() -> impl Iterator<Item = String> {
        FAMILIES.iter().filter_map(Self::instruction_tokenizer_file)
    }

    /// Paths of all files that transformers writes with those tokenizers.
    pub(crate) fn all_instruction_tokenizer_files() -> impl Iterator<Item = String> {
        let folders = FAMILIES.iter().filter_map(|family| family.instruction_tokenizer);
        folders.flat_map(|folder| TOKENIZER_FILES.map(|name| format!("{folder}/{name}")))
    }

    /// The path within a checkpoint of the tokenizer of an image encoder that reads instructions.
    pub(crate) fn instruction_tokenizer_file(&self) -> Option<String> {
        self.instruction_tokenizer.map(|folder| format!("{folder}/{TOKENIZER_FILE}"))
    }

    /// What releases call modules, of all families.
    pub(crate) fn all_namings() -> impl Iterator<Item = &'static Naming> {
        FAMILIES.iter().flat_map(|family| family.namings)
    }
}

/// The paths of modules in one generation of code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Naming {
    /// Canonical beginning of the inner decoder, and what stands for it.
    pub(crate) decoder: &'static str,
    /// The output matrix.
    pub(crate) head: &'static str,
    /// Canonical beginnings or names of other modules, and what stands for each.
    pub(crate) others: &'static [(&'static str, &'static str)],
}

/// Canonical beginning of the inner decoder.
const DECODER: &str = "language_model.model.";
/// Canonical name of the output matrix.
const HEAD: &str = "language_model.lm_head";

impl Naming {
    /// Whether the model that was trained may have been the language model alone: the original LLaVA repository, too, puts
    /// adapters on its language model before there is a vision tower.
    pub(crate) fn is_of_decoder_alone(&self) -> bool {
        matches!(self.decoder, "model." | "")
    }

    /// Whether its paths are those of the decoder's inner model, which patterns for a whole model do not know.
    pub(crate) fn is_of_inner_model(&self) -> bool {
        self.decoder.is_empty()
    }

    /// The module that holds the decoder, by its own name without what it is in.
    pub(crate) fn decoder_module(&self) -> &'static str {
        let path = self.decoder.trim_end_matches('.');
        let path = path.strip_suffix(".model").unwrap_or(path);
        path.rsplit('.').next().unwrap_or(path)
    }

    /// The path of a linear layer, given its canonical name.
    pub(crate) fn path(&self, canonical: &str) -> String {
        if canonical == HEAD {
            return self.head.to_owned();
        }
        let beginnings =
            std::iter::once((DECODER, self.decoder)).chain(self.others.iter().copied());
        for (prefix, named) in beginnings {
            if let Some(rest) = canonical.strip_prefix(prefix) {
                return format!("{named}{rest}");
            }
        }
        canonical.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PEFT finds layers by this name; a pattern that names another family's decoder matches none.
    #[test]
    fn adapter_targets_name_the_decoder_of_their_family() {
        for family in FAMILIES {
            let newest = &family.namings[0];
            let module = newest.decoder_module();
            assert!(newest.decoder.split('.').any(|part| part == module), "{module}");
            let tower = newest.path("vision_tower.vision_model.encoder.layers.0.self_attn.q_proj");
            assert!(!tower.contains(module), "{module} would match {tower}");
        }
        let modules = FAMILIES.iter().map(|family| family.namings[0].decoder_module());
        let language_model = "language_model";
        let expected = [language_model, language_model, "text_model", language_model];
        assert_eq!(modules.collect::<Vec<_>>(), expected);
    }
}
