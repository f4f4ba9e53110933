//! What can be wrong with a file, in one enum: every variant names the file, and what to do about it
//! is a separate [`FormatError::hint`], so that a caller can print it on a line of its own.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use fisao_images::ImageError;

use crate::lock_owner::LockOwner;

/// A file or folder that could not be read, understood or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The operating system refused to open, read, write or rename something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb: "read", "write", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file or folder that has to be there is not.
    #[error("no {what} at {}", path.display())]
    NotFound {
        /// What it would have been, such as "checkpoint folder" or "tokenizer (tokenizer.json)".
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Something else where a file has to be.
    #[error("{} is {found}, not a file that can be read as {what}", path.display())]
    NotAFile {
        /// What it would have been.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What it is, such as "a named pipe".
        found: &'static str,
    },
    /// A JSON or TOML file that does not parse, or does not hold what it should.
    #[error("{} is not a valid {what}: {reason}", path.display())]
    Malformed {
        /// What the file should have been.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The parser's reason, with its line and column.
        reason: String,
    },
    /// One line of a JSON-lines file that does not parse.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The parser's reason.
        reason: String,
    },
    /// `model_type` in `config.json` is not one of ours.
    #[error("{} describes a model of type `{found}`, which is not supported (supported: {supported})", path.display())]
    UnknownModelType {
        /// The configuration file.
        path: PathBuf,
        /// The value of `model_type`.
        found: String,
        /// The supported values.
        supported: String,
    },
    /// A checkpoint of one kind where another is needed.
    #[error("{} is a `{found}` checkpoint, but a `{expected}` checkpoint is needed here", path.display())]
    WrongModelType {
        /// The checkpoint folder.
        path: PathBuf,
        /// The kind that is needed.
        expected: &'static str,
        /// The kind that it is.
        found: &'static str,
    },
    /// A configuration lacks a field that has no default.
    #[error("{} has no field `{field}`", path.display())]
    MissingField {
        /// The configuration file.
        path: PathBuf,
        /// The field, dotted from the top.
        field: String,
    },
    /// A decoder for which no file names the token that ends a response, and which has no default.
    #[error(
        "{} does not say where a response ends: neither config.json nor generation_config.json has `eos_token_id`, for which \
         a {family} decoder has no default, and {reason}",
        path.display()
    )]
    NoEndToken {
        /// The checkpoint's folder.
        path: PathBuf,
        /// The decoder's `model_type`.
        family: &'static str,
        /// What is wrong with the last place that was looked in.
        reason: String,
    },
    /// A configuration asks for something that is not implemented.
    #[error("{}: `{field}` is {found}, but only {supported} is supported", path.display())]
    UnsupportedField {
        /// The configuration file.
        path: PathBuf,
        /// The field, dotted from the top.
        field: String,
        /// Its value.
        found: String,
        /// What is supported.
        supported: Cow<'static, str>,
    },
    /// A configuration asks for tiles that a tokenizer has no tokens for.
    #[error("{} has no token {token}, which tells a model's tiles apart", path.display())]
    NoTileToken {
        /// The tokenizer.
        path: PathBuf,
        /// The token.
        token: &'static str,
    },
    /// A checkpoint whose weights are quantised.
    #[error("{} describes weights that are quantised by {by}, but only those of 16 or 32 bits are read", path.display())]
    Quantised {
        /// The configuration file, or that of the weights.
        path: PathBuf,
        /// The method, and the bits where they are known.
        by: String,
    },
    /// A checkpoint in the layout of the original LLaVA repository.
    #[error("{} is the configuration of the original LLaVA repository ({class}), and not of its conversion for transformers", path.display())]
    OriginalLlava {
        /// The configuration file.
        path: PathBuf,
        /// The class it names, or else its type.
        class: String,
        /// The conversion of a model of this kind and size, by its name on the Hugging Face Hub.
        conversion: &'static str,
    },
    /// A safetensors file whose length is not what its header promises.
    #[error("{} {}: its header promises {expected} bytes, the file has {found}", path.display(), if found < expected { "is truncated" } else { "has trailing bytes" })]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes promised.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// A file that was shortened while it was mapped.
    #[error("{} was shortened from {mapped} to {found} bytes while it was in use", path.display())]
    Shortened {
        /// The file.
        path: PathBuf,
        /// Bytes when it was opened.
        mapped: u64,
        /// Bytes now.
        found: u64,
    },
    /// A safetensors file whose header is damaged.
    #[error("{} is not a valid safetensors file: {reason}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder with weights, but only as Python pickles.
    #[error("{} holds its weights only as a Python pickle ({file}), which can run code when opened and is not read", path.display())]
    PickleOnly {
        /// The checkpoint folder.
        path: PathBuf,
        /// The pickle found.
        file: String,
    },
    /// Two tensors of a checkpoint are the same parameter.
    #[error("{} holds `{first}` and `{second}`, which are both `{canonical}`", path.display())]
    DuplicateTensor {
        /// The file that holds the second one.
        path: PathBuf,
        /// Key met first.
        first: String,
        /// Key met second.
        second: String,
        /// The one name that both stand for.
        canonical: String,
    },
    /// A checkpoint lacks a tensor.
    #[error("{} has no tensor `{tensor}`", path.display())]
    MissingTensor {
        /// The file, or the folder when the weights are in several files.
        path: PathBuf,
        /// The tensor's canonical name.
        tensor: String,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("{}: tensor `{tensor}` has shape {found:?}, but the configuration needs {expected:?}", path.display())]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
        /// Shape needed.
        expected: Vec<usize>,
        /// Shape found.
        found: Vec<usize>,
    },
    /// A tensor is of a type that is not a float of 16 or 32 bits.
    #[error("{}: tensor `{tensor}` has dtype {found}, but only F32, F16 and BF16 are read", path.display())]
    TensorDtype {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
        /// Type found.
        found: String,
    },
    /// A value that another precision cannot hold.
    #[error("{}: tensor `{tensor}` holds values beyond the range of {dtype}", path.display())]
    Overflow {
        /// The file.
        path: PathBuf,
        /// The tensor's canonical name.
        tensor: String,
        /// The precision, as PyTorch names it.
        dtype: &'static str,
    },
    /// A tensor with values that no computation survives.
    #[error("{}: {count} values of tensor `{tensor}` are NaN or infinite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
        /// How many of its values.
        count: usize,
    },
    /// Weights that could not be used, for a reason only the model knows.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The file or folder.
        path: PathBuf,
        /// The model's reason.
        reason: String,
    },
    /// A `tokenizer.json` that the tokenizers library refuses.
    #[error("{} is not a usable tokenizer: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// A tokenizer with ids that the model has no embedding for.
    #[error("{} has token ids up to {largest}, but config.json gives the model {embeddings} embeddings", path.display())]
    TokenizerTooLarge {
        /// The tokenizer's file.
        path: PathBuf,
        /// Its largest id.
        largest: u32,
        /// Rows of the embedding table.
        embeddings: usize,
    },
    /// A tokenizer without the token that stands for an image.
    #[error("{} has no token {id}, which config.json says stands for an image", path.display())]
    NoImageToken {
        /// The tokenizer's file.
        path: PathBuf,
        /// The placeholder's id.
        id: u32,
    },
    /// A chat template that cannot be used.
    #[error("{}{}: the chat template {reason}", path.display(), line.map_or_else(String::new, |line| format!(", line {line}")))]
    ChatTemplate {
        /// The file that holds it.
        path: PathBuf,
        /// The line of the template, counted from 1; in a JSON file, of the text inside it.
        line: Option<usize>,
        /// What is wrong, after "the chat template".
        reason: String,
    },
    /// An image that cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Several images that cannot be used, found by looking at all of them.
    #[error("{} of {checked} images cannot be used", images.len())]
    UnusableImages {
        /// What is wrong with each.
        images: Vec<FormatError>,
        /// Images that were looked at.
        checked: usize,
    },
    /// A folder without images.
    #[error("no images in {} (looked for {extensions})", path.display())]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// The extensions looked for.
        extensions: String,
    },
    /// A prompt file, or a folder of them, that cannot be used.
    #[error("{} {reason}", path.display())]
    Prompts {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, after the file's name.
        reason: String,
        /// What to do about it.
        hint: Option<&'static str>,
    },
    /// One row of a prompt file that cannot be used.
    #[error("{}, {unit} {number}: {reason}", path.display())]
    PromptRow {
        /// The file.
        path: PathBuf,
        /// What its rows are: "line", "entry" of a list, or "row".
        unit: &'static str,
        /// Which, counted from 1, rows that are skipped included.
        number: usize,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Another process writes into a folder, or a file.
    #[error("{} is being written by {}", locked.display(), owner_in_words(owner.as_ref()))]
    Locked {
        /// The folder or file.
        locked: PathBuf,
        /// Which process, as far as its lock file says.
        owner: Option<LockOwner>,
        /// The lock file.
        file: PathBuf,
    },
    /// Images that a prompt file names and that are not there.
    #[error("{}: the images of {missing} of {rows} rows are not there, such as {}", path.display(), some_of(names))]
    MissingImages {
        /// The prompt file, or folder of them.
        path: PathBuf,
        /// Rows whose image is not there.
        missing: usize,
        /// All rows.
        rows: usize,
        /// The first few places that were looked at.
        names: Vec<String>,
    },
    /// An adapter of the output matrix, where that is the embedding table.
    #[error("{} changes lm_head, which in this model is the embedding table itself (tie_word_embeddings)", path.display())]
    AdapterTied {
        /// The adapter's weights file.
        path: PathBuf,
    },
    /// Targets of an adapter that are in no model of this kind.
    #[error("{}: `target_modules` names {}, which matches no linear layer of the model", path.display(), some_of(targets))]
    AdapterTargets {
        /// The adapter's configuration.
        path: PathBuf,
        /// The targets.
        targets: Vec<String>,
    },
    /// Matrices of an adapter that its own configuration passes over.
    #[error("{} holds matrices for linear layers that its configuration does not select: {}", path.display(), some_of(keys))]
    AdapterUnselected {
        /// The adapter's weights file.
        path: PathBuf,
        /// The keys of the matrices.
        keys: Vec<String>,
    },
    /// Tensors of an adapter without any numbers.
    #[error("{} holds {} without numbers, of shape [0]: {}", path.display(), if keys.len() == 1 { "a tensor" } else { "tensors" }, some_of(keys))]
    AdapterEmptyTensors {
        /// The adapter's weights file.
        path: PathBuf,
        /// Their keys.
        keys: Vec<String>,
    },
    /// Matrices of an adapter with another rank than its configuration gives them.
    #[error("{} does not have the ranks of its configuration (r, rank_pattern): {}", path.display(), some_ranks(ranks))]
    AdapterRanks {
        /// The adapter's weights file.
        path: PathBuf,
        /// Key, rank found, rank by the configuration.
        ranks: Vec<(String, usize, usize)>,
    },
    /// Tensors of an adapter that belong to nothing in the model, or the other way round.
    #[error("{} does not fit the model: {}", path.display(), mismatch(unmatched, missing))]
    AdapterMismatch {
        /// The adapter's weights file.
        path: PathBuf,
        /// Keys in the file that no linear layer of the model takes.
        unmatched: Vec<String>,
        /// Keys that the file lacks: of matrices whose counterpart is there, or of linear layers that the
        /// configuration selects.
        missing: Vec<String>,
    },
    /// An adapter that would change the vision tower, which is also the verifier.
    #[error("{} would change the vision tower, which is the verifier's own: {}", path.display(), some_of(keys))]
    AdapterTouchesVision {
        /// The adapter's weights file.
        path: PathBuf,
        /// The keys that touch it.
        keys: Vec<String>,
    },
    /// An output folder that already holds a run.
    #[error("{} already holds a run ({file} is there)", path.display())]
    RunExists {
        /// The folder.
        path: PathBuf,
        /// The file that tells.
        file: String,
    },
    /// An output folder that holds something else.
    #[error("{} is not empty ({file} is there), and the output wants a folder of its own", path.display())]
    FolderNotEmpty {
        /// The folder.
        path: PathBuf,
        /// One of its entries.
        file: String,
    },
    /// A folder to resume from that holds no run.
    #[error("{} holds no run to resume ({file} is missing)", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// The file that would tell.
        file: &'static str,
    },
}

impl FormatError {
    /// What the user can do about it, where that is not obvious from the message.
    #[expect(clippy::too_many_lines, reason = "one sentence for each kind of error")]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotFound { what: "model configuration (config.json)", .. } => {
                "a checkpoint is a folder in Hugging Face layout: config.json, model.safetensors, \
                 tokenizer.json and a processor configuration"
            }
            Self::Length { expected, found, .. } if found < expected => {
                "the download or copy was truncated: fetch the file again"
            }
            Self::Shortened { .. } => {
                "weights are read where they lie: leave the file alone while it is used, and put a new one \
                 in its place by renaming it"
            }
            Self::TensorDtype { found, .. } if is_narrow(found) => {
                "weights of 8 bits or fewer are those of a quantised checkpoint: take the one that it was \
                 made from"
            }
            Self::PickleOnly { .. } => {
                "convert it with transformers: \
                 AutoModel.from_pretrained(folder).save_pretrained(folder, safe_serialization=True)"
            }
            Self::MissingTensor { .. } | Self::TensorShape { .. } => {
                "config.json and the weights must come from the same model"
            }
            Self::Quantised { .. } => {
                "take the checkpoint that it was made from, normally the same name without an ending such as \
                 -4bit, -GPTQ, -AWQ or -FP8; one that was quantised here can be written again with \
                 transformers: model.dequantize(), then save_pretrained(folder)"
            }
            Self::OriginalLlava { conversion, .. } => {
                return Some(format!(
                    "take the conversion of the same model: {conversion} stands for this size; one's own training is \
                     converted by transformers' models/llava/convert_llava_weights_to_hf.py"
                ));
            }
            Self::AdapterEmptyTensors { .. } => {
                "DeepSpeed ZeRO stage 3 spreads the weights over the processes, and the adapter was saved \
                 without gathering them: save it through the Trainer with \
                 \"stage3_gather_16bit_weights_on_model_save\": true, or restore it from the training's \
                 checkpoint with zero_to_fp32.py"
            }
            Self::TokenizerTooLarge { .. }
            | Self::NoImageToken { .. }
            | Self::NoTileToken { .. } => {
                "tokenizer.json and config.json must come from the same model"
            }
            Self::NoEndToken { .. } => {
                "add \"eos_token_id\" to generation_config.json: the id of the token that ends a response in the checkpoint's \
                 chat template, for Qwen2's that of <|im_end|>"
            }
            Self::Overflow { .. } => "ask for bf16 or f32, which have the range",
            Self::NotFinite { .. } => {
                "training that produced it has diverged, or the file is damaged: fetch it again, or take \
                 an earlier checkpoint"
            }
            Self::UnknownModelType { .. } | Self::WrongModelType { .. } => {
                "a captioning model is a vision-language checkpoint such as `llava`, a verifier a `clip` or `siglip` \
                 checkpoint: the former holds no text tower, so give the model that its vision tower was taken from"
            }
            Self::ChatTemplate { .. } => {
                "a prompt that holds the image placeholder, normally <image>, is passed on verbatim \
                 and needs no template"
            }
            Self::AdapterMismatch { missing, .. }
                if missing.iter().any(|key| key.contains("vision_tower.")) =>
            {
                "target_modules also selects linear layers of the vision tower, for which there are no \
                 matrices; if there should be none, add \"exclude_modules\": \".*vision_tower.*\" to \
                 adapter_config.json"
            }
            Self::AdapterMismatch { .. } => {
                "the adapter was trained on another model; see base_model_name_or_path in its \
                 adapter_config.json"
            }
            Self::AdapterTouchesVision { .. } => {
                "names such as \"q_proj\" in target_modules are names of the vision tower's linear layers too, and \
                 PEFT adapts whatever matches. Either give --allow-vision-adapter, and the adapter is \
                 applied to the model's tower as PEFT applies it, while the verifier stays as it is; \
                 or train it on the language model only, with \
                 target_modules=\".*language_model.*\\.(q_proj|v_proj)\""
            }
            Self::Prompts { hint, .. } => return hint.map(str::to_owned),
            Self::AdapterTied { .. } => {
                "train the adapter on the decoder's other linear layers, or on a model whose lm_head is its own"
            }
            Self::AdapterTargets { .. } | Self::AdapterUnselected { .. } => {
                "adapter_config.json and adapter_model.safetensors must come from the same training, \
                 and from a model of this architecture"
            }
            Self::AdapterRanks { .. } => {
                "adapter_config.json and adapter_model.safetensors must come from the same training"
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                "the disk is full: free some space, or choose a folder on another disk"
            }
            Self::Locked { owner: Some(owner), file, .. } => {
                return Some(format!(
                    "wait until it has ended, or end it; if there is no such process any more on {}, delete {}",
                    owner.host,
                    file.display()
                ));
            }
            Self::Locked { owner: None, .. } => "wait until it has ended",
            _ => return self.file_hint().map(str::to_owned),
        };
        Some(hint.to_owned())
    }

    /// What the user can do about images, other files that are none, and folders of output.
    fn file_hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::MissingImages { .. } => {
                "--images FOLDER gives the folder that image names are looked up in; without it, that is \
                 the folder of the prompts"
            }
            Self::RunExists { .. } => {
                "resume the run that is there, or choose another output folder"
            }
            Self::FolderNotEmpty { .. } => "choose another output folder, or empty this one",
            Self::Image(error) => return image_hint(error),
            Self::UnusableImages { .. } => {
                "remove or replace these files and run again, or pass over them with --skip-damaged"
            }
            Self::NotAFile { found: "a named pipe", .. } => {
                "write what it says to a file first, and give that"
            }
            _ => return None,
        })
    }

    /// Whether it is about an image that is there, and cannot be used: damaged, too large, or of no format that is read.
    pub fn is_unusable_image(&self) -> bool {
        let Self::Image(error) = self else { return false };
        matches!(
            error,
            ImageError::NotAnImage { .. }
                | ImageError::Damaged { .. }
                | ImageError::UnreadFormat { .. }
                | ImageError::TooLarge { .. }
                | ImageError::Unsupported { .. }
        )
    }

    /// What is wrong with each of several files, where that is what the error is about.
    pub fn list(&self) -> &[Self] {
        if let Self::UnusableImages { images, .. } = self { images } else { &[] }
    }

    /// An operating system error, as "not found" where it is that.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// An error on reading a file that has to be there.
    pub(crate) fn reading(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::NotFound {
            Self::NotFound { what, path: path.to_owned() }
        } else {
            Self::io("read", path, source)
        }
    }
}

/// What the user can do about an image that is there, and cannot be used.
fn image_hint(error: &ImageError) -> Option<&'static str> {
    Some(match error {
        ImageError::NotAnImage { .. } | ImageError::Damaged { .. } => {
            "remove or replace this file and run again, or pass over it with --skip-damaged"
        }
        ImageError::UnreadFormat { .. } => {
            "convert it, for instance with `magick image.avif image.png`, and run again"
        }
        ImageError::TooLarge { .. } => "make it smaller, or remove it, and run again",
        ImageError::Unsupported { .. } => {
            "save it as an ordinary JPEG or PNG, or remove it, and run again"
        }
        _ => return None,
    })
}

/// Whether a type of safetensors holds quantised weights: integers, and floats of 8 bits or fewer.
fn is_narrow(dtype: &str) -> bool {
    ["U8", "I8", "I32", "U32", "F8", "F6", "F4"].iter().any(|narrow| dtype.starts_with(narrow))
}

fn owner_in_words(owner: Option<&LockOwner>) -> String {
    owner.map_or_else(
        || "another process".to_owned(),
        |owner| format!("process {} on {}", owner.pid, owner.host),
    )
}

/// The first few of a list of keys, and how many more there are.
fn some_of(keys: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = keys.iter().take(SHOWN).map(|key| format!("`{key}`")).collect::<Vec<_>>();
    match keys.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn some_ranks(ranks: &[(String, usize, usize)]) -> String {
    const SHOWN: usize = 4;
    let shown = ranks.iter().take(SHOWN);
    let shown = shown.map(|(key, found, expected)| format!("`{key}` has {found}, not {expected}"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match ranks.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn mismatch(unmatched: &[String], missing: &[String]) -> String {
    let mut parts = Vec::new();
    if !unmatched.is_empty() {
        parts.push(format!("nothing in the model takes {}", some_of(unmatched)));
    }
    if !missing.is_empty() {
        parts.push(format!("it lacks {}", some_of(missing)));
    }
    if parts.is_empty() {
        parts.push("it holds no tensors".to_owned());
    }
    parts.join("; ")
}
