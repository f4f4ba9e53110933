//! Every reader of other people's files, tried with damaged ones: see `fisao_testkit::fuzz`. `cargo xtask fuzz` tries more.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fisao_formats::adapter::Adapter;
use fisao_formats::chat_template::ChatTemplate;
use fisao_formats::checkpoint::{
    Checkpoint, ModelConfig, clip_config_json, llava_config_json, write_clip, write_llava,
};
use fisao_formats::images::decode_image;
use fisao_formats::json_lines::read_json_lines;
use fisao_formats::named_vectors::{read_named_vectors, write_named_vectors};
use fisao_formats::processor::read_image_processor;
use fisao_formats::prompts::PromptSet;
use fisao_formats::tokenizer::HfTokenizer;
use fisao_formats::weights::{LoadDtype, StoredDtype};
use fisao_models::clip::Clip;
use fisao_models::lora::LoraConfig;
use fisao_models::text::Tokenizer;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::weights::RandomWeights;
use fisao_testkit::fuzz::{BYTES, CountedAllocator, Form, Reader, run};
use fisao_testkit::tiny;
use serde_json::{Map, Value, json};
use tempfile::{TempDir, tempdir};

#[global_allocator]
static ALLOCATOR: CountedAllocator = CountedAllocator::new();

const ADAPTER: &str = "adapter_model.safetensors";
const ADAPTER_CONFIG: &str = "adapter_config.json";
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// Bytes that an image may take: a small file may be a large image, up to a limit on its pixels.
const IMAGE: usize = 1 << 31;

#[test]
fn readers_survive_damaged_files() {
    let mut readers = configurations();
    readers.extend(texts());
    readers.extend(weights());
    readers.extend(adapters());
    readers.extend(images());
    readers.extend(rows());
    run(&readers, &ALLOCATOR);
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("JSON")
}

/// A reader of one file in a folder that holds whatever else it takes.
fn reader(
    name: &'static str,
    form: Form,
    files: Vec<Vec<u8>>,
    folder: TempDir,
    file: &'static str,
    read: impl Fn(&Path) + 'static,
) -> Reader {
    let read = move |input: &[u8]| {
        fs::write(folder.path().join(file), input).expect("a writable folder");
        read(folder.path());
    };
    Reader { name, form, bytes: BYTES, files, read: Box::new(read) }
}

fn folder() -> TempDir {
    tempdir().expect("a temporary folder")
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn fixtures(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(fixture(folder)).expect("it is committed");
    let mut paths = entries.map(|entry| entry.expect("readable").path()).collect::<Vec<_>>();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("it is committed")).collect()
}

fn llava() -> VisionLanguageModel {
    VisionLanguageModel::load(tiny::llava_config(), &mut RandomWeights::new(1), &Device::flex())
        .expect("any weights")
}

fn clip() -> Clip {
    Clip::load(tiny::clip_config(), &mut RandomWeights::new(1), &Device::flex())
        .expect("any weights")
}

/// Loads what a folder holds, and asks a model's sizes of its configuration.
fn load(folder: &Path) {
    let Ok(checkpoint) = Checkpoint::open(folder) else { return };
    let _ = checkpoint.unheeded_generation();
    match checkpoint.config() {
        ModelConfig::VisionLanguage(config) => {
            config.family().decoder().matrix_elements();
            for image in [(640, 480), (1, 5000)] {
                config.family().image_tokens(image);
            }
            drop(checkpoint.load_vision_language(LoadDtype::AsStored, &Device::flex()));
        }
        _ => drop(checkpoint.load_contrastive(LoadDtype::AsStored, &Device::flex())),
    }
}

fn configurations() -> Vec<Reader> {
    let siglip = json!({
        "model_type": "siglip", "text_config": { "model_type": "siglip_text_model", "vocab_size": 32 },
        "vision_config": { "model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14 },
    });
    let onevision = json!({
        "model_type": "llava_onevision", "image_token_index": 151_646, "vision_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": [[384, 768], [768, 384]], "vision_feature_layer": -1,
        "text_config": { "model_type": "qwen2", "vocab_size": 152_000, "eos_token_id": [1, 2],
                         "rope_parameters": { "rope_theta": 1e6, "rope_type": "default" } },
        "vision_config": { "model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14 },
    });
    let next = json!({
        "model_type": "llava_next", "image_grid_pinpoints": [[336, 672], [672, 336]],
        "text_config": { "model_type": "mistral", "vocab_size": 32_064, "sliding_window": 64,
                         "rope_scaling": { "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                           "high_freq_factor": 4.0, "original_max_position_embeddings": 64 } },
        "vision_config": { "model_type": "clip_vision_model", "image_size": 336, "patch_size": 14 },
    });
    let configs = vec![
        bytes(&llava_config_json(&tiny::llava_config(), StoredDtype::F32)),
        bytes(&clip_config_json(&tiny::clip_config(), StoredDtype::F32)),
        bytes(&siglip),
        bytes(&onevision),
        bytes(&next),
    ];
    let model = folder();
    write_llava(model.path(), &llava(), StoredDtype::F32).expect("a writable folder");
    let generating = folder();
    write_llava(generating.path(), &llava(), StoredDtype::F32).expect("a writable folder");
    let generation = bytes(&json!({
        "bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0, "repetition_penalty": 1.1,
        "bad_words_ids": [[1]], "num_beams": 2
    }));
    let processors = vec![
        bytes(&json!({
            "crop_size": { "height": 8, "width": 8 }, "do_center_crop": true, "size": { "shortest_edge": 8 },
            "image_processor_type": "CLIPImageProcessor", "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5], "resample": 3, "rescale_factor": 0.003_921
        })),
        bytes(&json!({
            "image_processor_type": "LlavaOnevisionImageProcessor", "do_pad": true,
            "image_grid_pinpoints": [[30, 60], [90, 30]], "size": { "height": 30, "width": 30 }
        })),
        bytes(&json!({
            "image_processor_type": "LlavaNextImageProcessor", "do_pad": true, "crop_size": 30,
            "image_grid_pinpoints": [[30, 60], [90, 30]], "size": { "shortest_edge": 30 }
        })),
    ];
    let read_processor = |folder: &Path| {
        if let Ok(processor) = read_image_processor(folder) {
            let (width, height) = processor.output_size((5, 3));
            if width.max(height) <= 100 {
                processor.process(&image::RgbImage::new(5, 3));
            }
        }
    };
    vec![
        reader("config", Form::Json, configs, model, CONFIG, load),
        reader(
            "generation-config",
            Form::Json,
            vec![generation],
            generating,
            "generation_config.json",
            load,
        ),
        reader(
            "processor",
            Form::Json,
            processors,
            folder(),
            "preprocessor_config.json",
            read_processor,
        ),
    ]
}

/// A tokenizer with a step of every kind.
fn steps() -> Value {
    let small = |name: &str| -> Value {
        let text = fs::read_to_string(fixture(name)).expect("it is committed");
        serde_json::from_str(&text).expect("JSON")
    };
    let mut file = small("crates/fisao-demo-clip/clear/tokenizer.json");
    file["normalizer"] = json!({ "type": "Sequence", "normalizers": [
        { "type": "NFKC" }, { "type": "Lowercase" }, { "type": "Prepend", "prepend": "▁" },
        { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        { "type": "Replace", "pattern": { "Regex": "\\s+" }, "content": " " },
        { "type": "Strip", "strip_left": true, "strip_right": false },
    ] });
    file["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": "'s|\\p{L}+|\\p{N}" }, "behavior": "Isolated", "invert": false },
        { "type": "Digits", "individual_digits": true }, { "type": "FixedLength", "length": 4 },
        { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false },
    ] });
    file["decoder"] = json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" },
        { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
    ] });
    file["post_processor"] = json!({ "type": "TemplateProcessing", "pair": [],
        "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
        "special_tokens": { "<s>": { "id": "<s>", "ids": [1], "tokens": ["<s>"] } } });
    file
}

fn texts() -> Vec<Reader> {
    let mut tokenizers = vec![bytes(&steps())];
    for name in [
        "crates/fisao-demo-clip/clear/tokenizer.json",
        "crates/fisao-demo-llava/model/tokenizer.json",
    ] {
        tokenizers.push(fs::read(fixture(name)).expect("it is committed"));
    }
    let read_tokenizer = |input: &[u8]| {
        let Ok(text) = str::from_utf8(input) else { return };
        let Ok(tokenizer) = HfTokenizer::from_json(text) else { return };
        let _ = tokenizer.encode("A dog 12 <image> on the bench, é 叫 ﷺ.", true);
        let _ = tokenizer.decode(&[1, 2, 3, 4, 5, 30, 31, 100, u32::MAX]);
        let _ = tokenizer.decode(&[]);
    };
    let templates = fixtures("fixtures/chat_templates", "jinja");
    let read_template = |input: &[u8]| {
        let Ok(text) = String::from_utf8(input.to_vec()) else { return };
        let template = ChatTemplate::new(text, PathBuf::new(), Map::new());
        let _ = template.instruction("What is this?", "<image>");
    };
    let holder = folder();
    let holders = vec![
        bytes(
            &json!({ "chat_template": "{{ messages }}", "bos_token": { "content": "<s>" }, "eos_token": "</s>" }),
        ),
        bytes(
            &json!({ "chat_template": [{ "name": "default", "template": "x" }], "added_tokens_decoder": {} }),
        ),
    ];
    let read_holder = |folder: &Path| {
        if let Ok(Some(template)) = ChatTemplate::open(folder) {
            let _ = template.instruction("What is this?", "<image>");
        }
    };
    vec![
        Reader {
            name: "tokenizer",
            form: Form::Json,
            bytes: BYTES,
            files: tokenizers,
            read: Box::new(read_tokenizer),
        },
        Reader {
            name: "chat-template",
            form: Form::Text,
            bytes: BYTES,
            files: templates,
            read: Box::new(read_template),
        },
        reader(
            "tokenizer-config",
            Form::Json,
            holders,
            holder,
            "tokenizer_config.json",
            read_holder,
        ),
    ]
}

fn weights() -> Vec<Reader> {
    let (model, sharded) = (folder(), folder());
    for place in [&model, &sharded] {
        write_clip(place.path(), &clip(), StoredDtype::F16).expect("a writable folder");
    }
    let file = fs::read(model.path().join(WEIGHTS)).expect("it was written just now");
    let shard = "model-00001-of-00001.safetensors";
    fs::rename(sharded.path().join(WEIGHTS), sharded.path().join(shard))
        .expect("a writable folder");
    let names = Checkpoint::open(model.path()).expect("a checkpoint");
    let names = names.weights(LoadDtype::AsStored).expect("whole weights");
    let map =
        names.inventory().iter().map(|(name, ..)| ((*name).to_owned(), json!(shard))).collect();
    let index = json!({ "metadata": { "total_size": 1 }, "weight_map": Value::Object(map) });
    let vectors = folder();
    let path = vectors.path().join("vectors.safetensors");
    let named = [("dog".to_owned(), vec![1.0_f32, 2.0]), ("cat".to_owned(), vec![3.0, 4.0])];
    let named = named.iter().map(|(name, vector)| (name, vector));
    write_named_vectors(&path, named).expect("a writable folder");
    let named = fs::read(&path).expect("it was written just now");
    let read_vectors =
        |folder: &Path| drop(read_named_vectors(&folder.join("vectors.safetensors")));
    vec![
        reader("weights", Form::Safetensors, vec![file], model, WEIGHTS, load),
        reader(
            "index",
            Form::Json,
            vec![bytes(&index)],
            sharded,
            "model.safetensors.index.json",
            load,
        ),
        reader(
            "named-vectors",
            Form::Safetensors,
            vec![named],
            vectors,
            "vectors.safetensors",
            read_vectors,
        ),
    ]
}

fn adapters() -> Vec<Reader> {
    let config = LoraConfig { rank: 2, ..LoraConfig::default() };
    let mut model = llava();
    model.add_lora(&config, 1).expect("a valid configuration");
    let adapter = Adapter::of(&model, &config, Some("tiny"));
    let (configured, weighted) = (folder(), folder());
    for place in [&configured, &weighted] {
        adapter.write(place.path()).expect("a writable folder");
    }
    let read = |place: &TempDir, file: &str| {
        fs::read(place.path().join(file)).expect("it was written just now")
    };
    let (settings, matrices) = (read(&configured, ADAPTER_CONFIG), read(&weighted, ADAPTER));
    let named = json!({
        "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "exclude_modules": ["x"],
        "layers_to_transform": [0, 1], "layers_pattern": "layers", "rank_pattern": { "^q_proj": 2 },
        "alpha_pattern": { "v_proj": 8 }, "peft_type": "LORA", "bias": "none"
    });
    let apply = move || {
        let model = llava();
        move |folder: &Path| {
            if let Ok(adapter) = Adapter::read(folder) {
                let _ = adapter.apply(
                    &mut model.clone(),
                    folder,
                    fisao_formats::adapter::VisionAdapter::Apply,
                );
            }
        }
    };
    vec![
        reader(
            "adapter-config",
            Form::Json,
            vec![settings, bytes(&named)],
            configured,
            ADAPTER_CONFIG,
            apply(),
        ),
        reader("adapter", Form::Safetensors, vec![matrices], weighted, ADAPTER, apply()),
    ]
}

fn images() -> Vec<Reader> {
    let kinds = [
        ("jpeg", "jpg"),
        ("png", "png"),
        ("gif", "gif"),
        ("bmp", "bmp"),
        ("webp", "webp"),
        ("tiff", "tif"),
    ];
    let readers = kinds.map(|(name, extension)| {
        // Large ones are as good as small ones, and slow.
        let mut files = fixtures("fixtures/images", extension);
        files.retain(|file| file.len() < 20_000);
        let read = |input: &[u8]| drop(decode_image("picture", input));
        Reader { name, form: Form::Bytes, bytes: IMAGE, files, read: Box::new(read) }
    });
    readers.into_iter().filter(|reader| !reader.files.is_empty()).collect()
}

fn rows() -> Vec<Reader> {
    let turns = json!([{ "role": "user", "content": [{ "type": "image" }, { "type": "text", "text": "What?" }] },
                       { "role": "assistant", "content": "A dog." }]);
    let rows = [
        json!({ "image": "a.jpg", "prompt": "What?", "chosen": "A dog.", "rejected": "A cat." }),
        json!({ "images": ["a.jpg"], "messages": turns, "id": 391_895.0 }),
        json!({ "image": "iVBORw0KGgo=", "conversations": [{ "from": "human", "value": "<image>\nWhat?" },
                                                           { "from": "gpt", "value": "A dog." }] }),
    ];
    let lines = rows.iter().map(|row| row.to_string() + "\n").collect::<String>().into_bytes();
    let list = bytes(&json!(rows));
    let prompts = |file: &'static str| {
        move |folder: &Path| {
            let Ok(set) = PromptSet::open(&folder.join(file), None, "Describe it.") else { return };
            for index in 0..set.len().min(20) {
                let _ = set.row(index).map(|row| row.open_image().map(drop));
            }
            let _ = set.check_images(&|_| {});
        }
    };
    let records = b"{\"a\": 1}\n{\"a\": 2}\n".to_vec();
    let parquet = fixtures("fixtures/prompts", "parquet");
    let mut readers = vec![
        reader(
            "prompt-lines",
            Form::JsonLines,
            vec![lines],
            folder(),
            "p.jsonl",
            prompts("p.jsonl"),
        ),
        reader("prompt-list", Form::Json, vec![list], folder(), "p.json", prompts("p.json")),
        reader("json-lines", Form::JsonLines, vec![records], folder(), "r.jsonl", |folder| {
            drop(read_json_lines::<Value>("records", &folder.join("r.jsonl")));
        }),
    ];
    if !parquet.is_empty() {
        let read = prompts("p.parquet");
        readers.push(reader("parquet", Form::Bytes, parquet, folder(), "p.parquet", read));
    }
    readers
}
