//! A working folder with small models and images, and the command run in it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Output, Stdio};
use std::sync::Arc;

use assert_cmd::Command;
use burn::tensor::Device;
use fisao_formats::checkpoint::Checkpoint;
use fisao_formats::checkpoint::{
    SpecialTokens, llava_config_json, named_tensors, write_checkpoint, write_clip,
    write_clip_processing, write_llava, write_llava_processing,
};
use fisao_formats::tokenizer::HfTokenizer;
use fisao_formats::weights::StoredDtype;
use fisao_models::clip::Clip;
use fisao_models::image::{BestResolution, ImageProcessor, Resize, Resolution};
use fisao_models::vision_language::llava::{LlavaConfig, TilingConfig, with_vision_tower};
use fisao_models::vision_language::{VisionLanguageConfig, VisionLanguageModel};
use fisao_models::weights::RandomWeights;
use fisao_testkit::skipped::report_skipped;
use fisao_testkit::tiny;
use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A temporary folder that commands are run in, so that paths in messages are short and stable.
pub(crate) struct Workplace {
    folder: TempDir,
    /// What the commands take for the cache of the Hugging Face Hub; empty at first.
    downloads: TempDir,
}

impl Workplace {
    /// An empty folder.
    pub(crate) fn new() -> Self {
        let folder = || tempfile::tempdir().expect("a temporary folder");
        Self { folder: folder(), downloads: folder() }
    }

    /// A folder with a model in `llava`, its verifier in `clip` and three images in `images`.
    pub(crate) fn furnished() -> Self {
        let place = Self::new();
        place.write_models();
        fs::create_dir(place.path("pictures")).expect("a new folder");
        for (name, colour) in
            [("a.png", [210, 40, 30]), ("b.png", [30, 90, 200]), ("c.png", [240, 220, 60])]
        {
            let picture = RgbImage::from_fn(20, 14, |x, y| {
                if x > y { Rgb(colour) } else { Rgb([x as u8 * 9, 120, y as u8 * 12]) }
            });
            picture.save(place.path("pictures").join(name)).expect("a picture can be saved");
        }
        place
    }

    /// Where a file of the folder is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("a file can be written");
    }

    /// Cuts a file to its first bytes.
    pub(crate) fn truncate(&self, name: &str, length: usize) {
        let content = fs::read(self.path(name)).expect("the file is there");
        assert!(length < content.len(), "{name} has only {} bytes", content.len());
        self.write(name, &content[..length]);
    }

    /// Where downloads of the commands are.
    pub(crate) fn downloads(&self) -> &Path {
        self.downloads.path()
    }

    /// The command in the folder, with nothing of the tester's own environment that matters to it,
    /// and without a network.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::cargo_bin("fisao").expect("the binary of this package");
        command.current_dir(self.folder.path());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_uppercase();
            let meant = ["FISAO_", "HF_", "HUGGING", "TRANSFORMERS_", "XDG_"]
                .iter()
                .any(|start| text.starts_with(start));
            if meant || text.ends_with("_PROXY") || ["COLUMNS", "RUST_LOG"].contains(&&*text) {
                command.env_remove(name);
            }
        }
        command.env("HF_HOME", self.downloads()).env("HF_HUB_OFFLINE", "1");
        command.env("FISAO_CACHE", self.downloads());
        command
    }

    /// Runs the command in the folder.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("the command can be started")
    }

    /// Runs a command that has to succeed with `--device cuda`, whose kernels are compiled as C++ and run on the CPU. Nothing where there is no
    /// C++ compiler: that is reported.
    pub(crate) fn run_on_host_kernels(&self, test: &str, arguments: &[&str]) -> Option<Output> {
        let mut command = self.command();
        command.args(arguments).args(["--device", "cuda"]).env("FISAO_CUDA_HOST", "1");
        let output = command.output().expect("the command can be started");
        let errors = String::from_utf8_lossy(&output.stderr);
        if errors.contains("no C++ compiler") {
            report_skipped(test, "no C++ compiler");
            return None;
        }
        assert!(output.status.success(), "{errors}");
        Some(output)
    }

    /// Runs a command in the same way that has to fail by its card, as `FISAO_CUDA_HOST_FAILS` says.
    pub(crate) fn fail_on_host_kernels(
        &self,
        test: &str,
        arguments: &[&str],
        fails: &str,
    ) -> Option<Output> {
        let mut command = self.command();
        command.args(arguments);
        // A run that is resumed goes on where it was begun.
        if !arguments.contains(&"--resume") {
            command.args(["--device", "cuda"]);
        }
        command.env("FISAO_CUDA_HOST", "1").env("FISAO_CUDA_HOST_FAILS", fails);
        let output = command.output().expect("the command can be started");
        let errors = String::from_utf8_lossy(&output.stderr);
        if errors.contains("no C++ compiler") {
            report_skipped(test, "no C++ compiler");
            return None;
        }
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        Some(output)
    }

    /// Starts the command in the folder, for a test that ends it; what it prints is lost.
    pub(crate) fn start<Argument: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Child {
        let mut command = process::Command::new(env!("CARGO_BIN_EXE_fisao"));
        command.args(arguments).current_dir(self.path("."));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command starts")
    }

    /// Runs a command that has to succeed; returns what it printed.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("output is UTF-8")
    }

    /// Runs a command whose input is at fault: exit code 1, nothing printed as data, nothing
    /// written. Returns the error.
    pub(crate) fn refuse(&self, arguments: &[&str]) -> String {
        let before = self.inventory();
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
        assert_eq!(self.inventory(), before, "{arguments:?} left something behind");
        errors
    }

    /// Every file and folder with its size, sorted.
    fn inventory(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        collect(self.folder.path(), &mut found);
        found.sort_unstable();
        found
    }

    fn write_models(&self) {
        let images = ImageProcessor::clip(tiny::IMAGE_SIZE as u32);
        let llava = tiny::tiny_llava(1);
        self.write_llava("llava", &llava, &images);
        let mut clip = tiny::tiny_clip(2);
        clip.vision = llava.vision_tower().expect("a tower").clone();
        self.write_clip("clip", &clip);
        self.write_clip("foreign", &tiny::tiny_clip(3));
    }

    /// Adds models in `onevision` and `next` that look at images in tiles, with the image tower of the other.
    pub(crate) fn write_tiled(&self) {
        self.write_with_tiles("onevision", Some(2));
        self.write_with_tiles("next", None);
    }

    fn write_with_tiles(&self, name: &str, max_tiles: Option<usize>) {
        let side = tiny::IMAGE_SIZE as u32;
        let resolutions = [(1, 2), (2, 1), (2, 2)]
            .map(|(rows, columns)| Resolution { height: rows * side, width: columns * side });
        let images = ImageProcessor {
            resize: Some(Resize::Exact { width: side, height: side }),
            crop: None,
            tiles: Some(Arc::new(BestResolution { resolutions: resolutions.to_vec() })),
            ..ImageProcessor::clip(side)
        };
        let tiling = TilingConfig { resolutions: resolutions.to_vec(), max_tiles };
        let config = LlavaConfig { tiling: Some(tiling), ..tiny::llava_config() };
        let model = tiny::tiny_llava(1);
        let tower = model.vision_tower().expect("a tower").clone();
        let mut weights = RandomWeights::new(4);
        let model = with_vision_tower(config, tower, &mut weights, &Device::flex());
        self.write_llava(name, &model.expect("random weights fit every shape"), &images);
    }

    /// Adds an InstructBLIP in `instructblip` and a BLIP-2 on its image tower in `blip2`.
    pub(crate) fn write_instructblip(&self) {
        let model = tiny::tiny_instructblip(1);
        let config = tiny::instructblip_config();
        let vision = json!({
            "model_type": "instructblip_vision_model", "hidden_size": config.vision.hidden_size,
            "intermediate_size": config.vision.intermediate_size,
            "num_hidden_layers": config.vision.num_hidden_layers,
            "num_attention_heads": config.vision.num_attention_heads,
            "image_size": config.vision.image_size, "patch_size": config.vision.patch_size,
            "layer_norm_eps": config.vision.layer_norm_eps, "hidden_act": "gelu",
        });
        let qformer = json!({
            "model_type": "instructblip_qformer", "vocab_size": config.qformer.vocab_size,
            "hidden_size": config.qformer.hidden_size,
            "intermediate_size": config.qformer.intermediate_size,
            "num_hidden_layers": config.qformer.num_hidden_layers,
            "num_attention_heads": config.qformer.num_attention_heads,
            "max_position_embeddings": config.qformer.max_position_embeddings,
            "encoder_hidden_size": config.qformer.encoder_hidden_size,
        });
        let text = llava_config_json(&tiny::llava_config(), StoredDtype::F32)["text_config"].take();
        let document = json!({
            "model_type": "instructblip", "text_config": text, "vision_config": vision,
            "qformer_config": qformer, "num_query_tokens": config.query_tokens,
            "image_token_index": config.tokens.image,
        });
        let tensors = named_tensors(&model);
        let folder = self.path("instructblip");
        write_checkpoint(&folder, &document, &tensors, StoredDtype::F32).expect("a new folder");
        let tokenizer = decoder_tokenizer();
        let special = special_tokens("<s>", "</s>", "<unk>");
        let images = ImageProcessor::clip(tiny::IMAGE_SIZE as u32);
        write_clip_processing(&folder, 64, &tokenizer, &special, &images).expect("a new folder");
        let nested = folder.join("qformer_tokenizer");
        write_clip_processing(&nested, 12, &verifier_tokenizer(), &special, &images)
            .expect("a new folder");

        let blip2 = tiny::tiny_blip2(2);
        let tower = |name: &str| {
            let shared = !name.starts_with("vision_model.post_layernorm.");
            let own = format!("vision_tower.{name}");
            tensors.iter().find(|(other, _)| shared && *other == own).map(|(_, data)| data.clone())
        };
        let tensors: Vec<_> = named_tensors(&blip2)
            .into_iter()
            .map(|(name, data)| (name.clone(), tower(&name).unwrap_or(data)))
            .collect();
        let mut document = json!({
            "model_type": "blip-2", "architectures": ["Blip2ForImageTextRetrieval"],
            "vision_config": document["vision_config"], "qformer_config": document["qformer_config"],
            "num_query_tokens": blip2.config().query_tokens,
            "image_text_hidden_size": blip2.config().projection_dim,
        });
        document["vision_config"]["model_type"] = json!("blip_2_vision_model");
        document["qformer_config"]["model_type"] = json!("blip_2_qformer");
        let folder = self.path("blip2");
        write_checkpoint(&folder, &document, &tensors, StoredDtype::F32).expect("a new folder");
        write_clip_processing(&folder, 12, &verifier_tokenizer(), &special, &images)
            .expect("a new folder");
    }

    /// Adds a Qwen3-VL in `qwen3_vl`, or with `older` a Qwen2.5-VL in `qwen2_5_vl`, for images of 64 to 512 pixels in squares of 8.
    pub(crate) fn write_qwen_vl(&self, older: bool) {
        let (name, mut text, mut vision) = if older {
            let vision = json!({
                "model_type": "qwen2_5_vl_vision", "hidden_act": "silu", "window_size": 16,
                "fullatt_block_indexes": [1],
            });
            ("qwen2_5_vl", json!({ "model_type": "qwen2_5_vl_text" }), vision)
        } else {
            let vision = json!({
                "model_type": "qwen3_vl_vision", "hidden_act": "gelu_pytorch_tanh",
                "num_position_embeddings": 9, "deepstack_visual_indexes": [0, 1],
            });
            ("qwen3_vl", json!({ "model_type": "qwen3_vl_text", "head_dim": 8 }), vision)
        };
        let sizes = json!({
            "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
            "rope_parameters": { "rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1] },
        });
        let tower = json!({
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2,
            "patch_size": 4, "spatial_merge_size": 2, "out_hidden_size": 16,
        });
        extend(&mut text, sizes);
        extend(&mut vision, tower);
        let document = json!({
            "model_type": name, "text_config": text, "vision_config": vision, "image_token_id": 31,
            "tie_word_embeddings": !older,
        });
        let folder = self.path(name);
        let special = special_tokens("<s>", "</s>", "<unk>");
        let images = ImageProcessor::clip(tiny::IMAGE_SIZE as u32);
        write_clip_processing(&folder, 64, &decoder_tokenizer(), &special, &images)
            .expect("a new folder");
        let processor = json!({
            "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "merge_size": 2,
            "size": { "shortest_edge": 64, "longest_edge": 512 },
        });
        self.write(&format!("{name}/preprocessor_config.json"), processor.to_string());
        let template = "{% for m in messages %}USER: {% for c in m.content %}{{ '<image>' if c.type == 'image' \
                        else c.text }} {% endfor %}{% endfor %}ASSISTANT:";
        self.write(&format!("{name}/chat_template.jinja"), template);
        self.write(&format!("{name}/config.json"), document.to_string());
        let checkpoint = Checkpoint::open(&folder).expect("a configuration that is read");
        let config = checkpoint.vision_language_config().expect("a model").clone();
        let mut weights = RandomWeights::new(6);
        let model = VisionLanguageModel::load(config, &mut weights, &Device::flex());
        let tensors = named_tensors(&model.expect("random weights fit every shape"));
        write_checkpoint(&folder, &document, &tensors, StoredDtype::F32).expect("a new folder");
    }

    fn write_llava(&self, name: &str, llava: &VisionLanguageModel, images: &ImageProcessor) {
        let tokenizer = decoder_tokenizer();
        let special = special_tokens("<s>", "</s>", "<unk>");
        let folder = self.path(name);
        let VisionLanguageConfig::Llava(config) = llava.config() else { panic!("not a LLaVA") };
        write_llava_processing(&folder, config, &tokenizer, &special, images)
            .expect("the folder is new");
        write_llava(&folder, llava, StoredDtype::F32).expect("the folder is new");
    }

    /// A verifier in `large` that takes images of twice the side.
    pub(crate) fn write_large_clip(&self) {
        self.write_clip("large", &tiny::tiny_clip_for(2 * tiny::IMAGE_SIZE, 5));
    }

    fn write_clip(&self, name: &str, clip: &Clip) {
        let (tokenizer, begin, end) = (verifier_tokenizer(), "<|startoftext|>", "<|endoftext|>");
        let images = ImageProcessor::clip(clip.config().vision.image_size as u32);
        let special = special_tokens(begin, end, end);
        let longest = clip.config().text.max_position_embeddings;
        let folder = self.path(name);
        write_clip_processing(&folder, longest, &tokenizer, &special, &images)
            .expect("the folder is new");
        write_clip(&folder, clip, StoredDtype::F32).expect("the folder is new");
    }
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let entry = entry.expect("the folder can be read");
        let data = entry.metadata().expect("the file is there");
        found.push((entry.path(), if data.is_dir() { 0 } else { data.len() }));
        if data.is_dir() {
            collect(&entry.path(), found);
        }
    }
}

/// Puts the fields of one JSON object into another.
fn extend(object: &mut Value, more: Value) {
    let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) else {
        panic!("two objects")
    };
    object.extend(more);
}

/// The decoder's tokenizer, of words that it may write.
fn decoder_tokenizer() -> HfTokenizer {
    let words = [
        "USER",
        "ASSISTANT",
        ":",
        ".",
        "a",
        "the",
        "dog",
        "cat",
        "and",
        "is",
        "there",
        "image",
        "Describe",
        "red",
        "on",
        "bench",
    ];
    tokenizer(&["<unk>", "<s>", "</s>"], &words, 31, &["<image>"], "<s>", None)
}

/// The verifier's, which puts a token before and behind each text.
fn verifier_tokenizer() -> HfTokenizer {
    let words = ["<unk>", "a", "an", "photo", "of", ".", "dog", "cat", "car", "apple"];
    let (begin, end) = ("<|startoftext|>", "<|endoftext|>");
    tokenizer(&[], &words, 37, &[begin, end], begin, Some(end))
}

fn special_tokens(bos: &str, eos: &str, pad: &str) -> SpecialTokens {
    SpecialTokens { bos: bos.into(), eos: eos.into(), pad: pad.into(), unk: pad.into() }
}

/// A tokenizer of whole words; `last` special tokens are numbered from `last_id`.
fn tokenizer(
    first: &[&str],
    words: &[&str],
    last_id: usize,
    last: &[&str],
    begin: &str,
    end: Option<&str>,
) -> HfTokenizer {
    let ids = |words: &[&str], from: usize| -> Vec<(String, usize)> {
        words.iter().enumerate().map(|(at, word)| ((*word).to_owned(), from + at)).collect()
    };
    let special: Vec<_> = ids(first, 0).into_iter().chain(ids(last, last_id)).collect();
    // Ids have no gaps: added tokens that the vocabulary lacks are numbered right after it.
    let known = first.len() + words.len();
    let fillers: Vec<(String, usize)> =
        (known..last_id).map(|id| (format!("word{id}"), id)).collect();
    let vocab: serde_json::Map<String, Value> = ids(first, 0)
        .into_iter()
        .chain(ids(words, first.len()))
        .chain(fillers)
        .map(|(word, id)| (word, Value::from(id)))
        .collect();
    let added = |(content, id): &(String, usize)| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true })
    };
    let token = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let mut single = vec![token(begin), json!({ "Sequence": { "id": "A", "type_id": 0 } })];
    single.extend(end.map(token));
    let spelled = |name: &str| {
        let id = special.iter().find(|(word, _)| word == name).map(|(_, id)| *id);
        json!({ "id": name, "ids": [id], "tokens": [name] })
    };
    let mut names = serde_json::Map::new();
    for name in std::iter::once(begin).chain(end) {
        names.insert(name.to_owned(), spelled(name));
    }
    let spec = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special.iter().map(added).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": { "type": "TemplateProcessing", "single": single,
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } },
                     { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": names },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
    });
    HfTokenizer::from_json(&spec.to_string()).expect("a valid tokenizer.json")
}
