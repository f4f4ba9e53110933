//! Families beside LLaVA against transformers and PEFT, on small random checkpoints that transformers wrote.
//!
//! Runs when `FISAO_FAMILY_CHECKPOINTS` names a folder with one folder for each family: `model/`, `adapter/`, a verifier's folder,
//! images, and what transformers computes from them in `expected.json` and `expected.safetensors`.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fisao_formats::adapter::{Adapter, VisionAdapter};
use fisao_formats::checkpoint::Checkpoint;
use fisao_formats::images::open_image;
use fisao_formats::weights::LoadDtype;
use fisao_models::contrastive::ContrastiveModel;
use fisao_models::generation::{Prompt, Sampling};
use fisao_models::image::PixelValues;
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::text::Tokenizer;
use fisao_models::vision::VisionOutput;
use fisao_models::vision_language::{ImageBatch, ImageFeatures, ImagePlace, VisionLanguageModel};
use fisao_testkit::skipped::report_skipped;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::transformers::{expected, expected_json, furthest, ids};

const VARIABLE: &str = "FISAO_FAMILY_CHECKPOINTS";
/// Cases whose processor does not cut images; its file says the opposite.
const WHOLE: &str = "_whole";
/// Absolute.
const PIXELS: f32 = 1e-4;
const LOGPROBS: f32 = 1e-3;
const COSINES: f32 = 1e-4;
/// Relative to the largest.
const RELATIVE: f32 = 2e-4;

/// The folder of a family.
fn family(test: &str, family: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        report_skipped(test, &format!("{VARIABLE} is not set"));
        return None;
    };
    let folder = root.join(family);
    if folder.join("expected.json").exists() {
        return Some(folder);
    }
    report_skipped(test, &format!("{} has no {family}/expected.json", root.display()));
    None
}

/// Prints how far off it is, so that a run shows more than that it passed.
#[expect(clippy::print_stderr, reason = "figures for the log")]
fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = furthest(found, expected);
    eprintln!("{what} off by {worst:.1e}");
    assert!(worst <= tolerance, "{what} off by {worst}, allowed {tolerance}");
}

fn assert_near(what: &str, found: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    assert_close(what, found, expected, RELATIVE * largest);
}

/// Copies files and subfolders.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, target).expect("writable");
        }
    }
}

/// The checkpoint as a case takes it, in a folder of its own.
fn checkpoint(folder: &Path, case: &str, target: &Path) -> Checkpoint {
    copy_folder(&folder.join("model"), target);
    if case.ends_with(WHOLE) {
        for file in ["preprocessor_config.json", "processor_config.json"] {
            let path = target.join(file);
            let text = fs::read_to_string(&path).expect("the generator writes it");
            let changed =
                text.replace("\"do_image_splitting\": true", "\"do_image_splitting\": false");
            assert_ne!(text, changed, "{file}");
            fs::write(path, changed).expect("writable");
        }
    }
    Checkpoint::open(target).expect("a checkpoint that is read")
}

/// A case of a family.
struct Case<'a> {
    folder: &'a Path,
    name: &'a str,
    expected: &'a Value,
    checkpoint: Checkpoint,
    _copy: tempfile::TempDir,
}

impl<'a> Case<'a> {
    fn open(folder: &'a Path, name: &'a str, expected: &'a Value) -> Self {
        let copy = tempfile::tempdir().expect("a temporary folder");
        let checkpoint = checkpoint(folder, name, copy.path());
        Self { folder, name, expected, checkpoint, _copy: copy }
    }

    fn wanted(&self, what: &str) -> Vec<f32> {
        expected(self.folder, &format!("{}.{what}", self.name))
    }

    fn wanted_in(&self, prefix: &str, what: &str) -> Vec<f32> {
        expected(self.folder, &format!("{prefix}{}.{what}", self.name))
    }

    /// Log-probabilities of what transformers answered.
    fn log_probabilities(&self, model: &VisionLanguageModel, answer: &Value) -> Vec<f32> {
        let (prompt, said) = (self.prompt(), ids(&answer["new_tokens"]));
        let example = Example { prompt: &prompt, image: 0, response: &said };
        let states = model.response_states(&[example], &self.features(model));
        floats(&model.log_probabilities(&states, 1.0).0)
    }

    fn pixels(&self) -> PixelValues {
        let name = self.expected["image"].as_str().expect("a file");
        let image = open_image(&self.folder.join(name)).expect("the generator's image");
        self.checkpoint.image_processor().expect("a processor").process(&image)
    }

    fn model(&self) -> VisionLanguageModel {
        let loaded = self.checkpoint.load_vision_language(LoadDtype::F32, &Device::flex());
        let loaded = loaded.expect("whole weights");
        assert_eq!(loaded.unused, Vec::<String>::new(), "{}", self.name);
        loaded.model
    }

    fn prompt(&self) -> Vec<u32> {
        let tokenizer = self.checkpoint.tokenizer().expect("a tokenizer");
        let prompt = self.expected["prompt"].as_str().expect("text");
        let mut ids = tokenizer.encode(prompt, true).expect("any text");
        let config = self.checkpoint.vision_language_config().expect("a model").family();
        if config.image_place() == ImagePlace::BeforeText {
            ids.insert(0, config.tokens().image);
        }
        let ids = config.expand_image_token(&ids, self.pixels().original_size);
        let ids = ids.expect("one placeholder");
        assert_eq!(
            Some(ids.len() as u64),
            self.expected["prompt_tokens"].as_u64(),
            "{}",
            self.name
        );
        ids
    }

    fn features(&self, model: &VisionLanguageModel) -> ImageFeatures {
        let tokenizer = self.checkpoint.instruction_tokenizer().expect("usable");
        let images = ImageBatch::new([&self.pixels()], &model.device());
        model
            .image_features(match tokenizer {
                Some(tokenizer) => {
                    let prompt = self.expected["prompt"].as_str().expect("text");
                    images
                        .with_instructions(vec![tokenizer.encode(prompt, true).expect("any text")])
                }
                None => images,
            })
            .unwrap()
    }

    /// Compares logits of the whole prompt, log-probabilities of the answer, and greedy decoding.
    fn compare_answer(
        &self,
        model: &VisionLanguageModel,
        dtype: &str,
        prefix: &str,
        answer: &Value,
    ) {
        let (features, prompt) = (self.features(model), self.prompt());
        let (first, rest) = prompt.split_at(1);
        // What the last position predicts is of no account to its logits.
        let rest = [rest, &[0]].concat();
        let example = Example { prompt: first, image: 0, response: &rest };
        let states = model.response_states(&[example], &features);
        let logits = floats(&model.language_model().logits(states.hidden));
        let what = |part: &str| format!("{}: {prefix}{part}", self.name);
        let wanted = |part: &str| self.wanted_in(dtype, &format!("{prefix}{part}"));
        assert_near(&what("logits"), &logits, &wanted("logits"));
        let logprobs = self.log_probabilities(model, answer);
        assert_close(&what("log-probabilities"), &logprobs, &wanted("new_logprobs"), LOGPROBS);

        let said = ids(&answer["new_tokens"]);
        let sampling = Sampling { max_new_tokens: said.len(), temperature: 0.0, seed: 0 };
        let prompt = Prompt { ids: prompt, image: 0, stream: 0 };
        let greedy =
            model.generate(&[prompt], &features, 1, &sampling).expect("responses").remove(0);
        assert_eq!(greedy.tokens, said, "{}", what("decoding"));
        let tokenizer = self.checkpoint.tokenizer().expect("a tokenizer");
        let text = tokenizer.decode(greedy.text_tokens()).expect("known ids").text;
        assert_eq!(Some(text.as_str()), answer["generated"].as_str(), "{}", what("text"));
    }
}

/// transformers has the whole image behind its tiles; here it comes first.
fn whole_first(values: &[f32], tiles: usize) -> Vec<f32> {
    let (others, whole) = values.split_at(values.len() / tiles * (tiles - 1));
    [whole, others].concat()
}

#[test]
fn smolvlm_pixels_features_logits_and_tokens_match_transformers() {
    let test = "smolvlm_pixels_features_logits_and_tokens_match_transformers";
    let Some(folder) = family(test, "smolvlm") else { return };
    let expected = expected_json(&folder);
    for (name, record) in expected["cases"].as_object().expect("cases") {
        let case = Case::open(&folder, name, record);
        let tiles = 1
            + (record["rows"].as_u64().expect("a number")
                * record["cols"].as_u64().expect("a number")) as usize;
        let wanted = whole_first(&case.wanted("pixel_values"), tiles);
        assert_close(&format!("{name}: pixels"), &case.pixels().values, &wanted, PIXELS);
        let model = case.model();
        let features = floats(case.features(&model).tokens());
        assert_near(
            &format!("{name}: image tokens"),
            &features,
            &case.wanted_in(in_f32(&expected), "image_tokens"),
        );
        case.compare_answer(&model, in_f32(&expected), "", &record["answer"]);
    }
}

#[test]
fn instructblip_matches_transformers() {
    let Some(folder) = family("instructblip_matches_transformers", "instructblip") else { return };
    let expected = expected_json(&folder);
    for (name, record) in expected["cases"].as_object().expect("cases") {
        let case = Case::open(&folder, name, record);
        let wanted = case.wanted("pixel_values");
        assert_close(&format!("{name}: pixels"), &case.pixels().values, &wanted, PIXELS);
        let model = case.model();
        let features = floats(case.features(&model).tokens());
        assert_near(
            &format!("{name}: image tokens"),
            &features,
            &case.wanted_in(in_f32(&expected), "image_tokens"),
        );
        case.compare_answer(&model, in_f32(&expected), "", &record["answer"]);
    }
}

/// Pixels in the order of the family's patches, those of a token behind each other, each frame the same.
fn patches(pixels: &PixelValues, [patch, merge, frames]: [usize; 3]) -> Vec<f32> {
    let (width, height) = (pixels.tile_size.0 as usize, pixels.tile_size.1 as usize);
    let square = patch * merge;
    let mut values = Vec::with_capacity(frames * pixels.values.len());
    for (top, left) in (0..height)
        .step_by(square)
        .flat_map(|top| (0..width).step_by(square).map(move |left| (top, left)))
    {
        for (y, x) in (0..merge).flat_map(|y| (0..merge).map(move |x| (y * patch, x * patch))) {
            for channel in (0..3).flat_map(|channel| std::iter::repeat_n(channel, frames)) {
                for row in 0..patch {
                    let first = (channel * height + top + y + row) * width + left + x;
                    values.extend_from_slice(&pixels.values[first..first + patch]);
                }
            }
        }
    }
    values
}

/// Compares all that transformers says of a Qwen2.5-VL or Qwen3-VL.
fn compare_qwen(test: &str, kind: &str) {
    let Some(folder) = family(test, kind) else { return };
    let expected = expected_json(&folder);
    let sizes = ["patch_size", "merge_size", "temporal_patch_size"]
        .map(|key| expected["image"][key].as_u64().expect("a number") as usize);
    for (name, record) in expected["cases"].as_object().expect("cases") {
        let case = Case::open(&folder, name, record);
        let pixels = patches(&case.pixels(), sizes);
        assert_close(&format!("{name}: pixels"), &pixels, &case.wanted("pixel_values"), PIXELS);
        let model = case.model();
        let features = case.features(&model);
        let tokens = floats(features.tokens());
        assert_near(
            &format!("{name}: image tokens"),
            &tokens,
            &case.wanted_in(in_f32(&expected), "image_tokens"),
        );
        for (layer, deep) in features.deep().iter().enumerate() {
            let wanted = case.wanted_in(in_f32(&expected), &format!("deepstack_{layer}"));
            assert_near(&format!("{name}: deep features {layer}"), &floats(deep), &wanted);
        }
        case.compare_answer(&model, in_f32(&expected), "", &record["answer"]);
    }
}

#[test]
fn qwen2_5_vl_matches_transformers() {
    compare_qwen("qwen2_5_vl_matches_transformers", "qwen2_5_vl");
}

#[test]
fn qwen3_vl_matches_transformers() {
    compare_qwen("qwen3_vl_matches_transformers", "qwen3_vl");
}

#[test]
fn adapter_on_qwen3_vl_matches_peft() {
    let test = "adapter_on_qwen3_vl_matches_peft";
    let Some(folder) = family(test, "qwen3_vl") else { return };
    compare_adapter(&folder, &expected_json(&folder));
}

#[test]
fn adapter_on_instructblip_matches_peft() {
    let test = "adapter_on_instructblip_matches_peft";
    let Some(folder) = family(test, "instructblip") else { return };
    compare_adapter(&folder, &expected_json(&folder));
}

#[test]
fn blip2_scores_match_transformers() {
    let Some(folder) = family("blip2_scores_match_transformers", "blip2_itm") else { return };
    let record = expected_json(&folder);
    let checkpoint = Checkpoint::open(&folder.join("model")).expect("a verifier's checkpoint");
    let device = Device::flex();
    let loaded = checkpoint.load_contrastive(LoadDtype::F32, &device).expect("whole weights");
    assert_eq!(loaded.unused, Vec::<String>::new());
    let case = &record["cases"]["wide"];
    let wanted = |what: &str| expected(&folder, &format!("{}wide.{what}", in_f32(&record)));
    let image = open_image(&folder.join(case["image"].as_str().expect("a file")));
    let processor = checkpoint.image_processor().expect("a processor");
    let pixels = processor.process(&image.expect("the generator's image"));
    assert_close("pixels", &pixels.values, &expected(&folder, "wide.pixel_values"), PIXELS);
    let pixels = ImageBatch::new([&pixels], &device).whole();
    let output = loaded.model.vision().encode(pixels).unwrap();
    let embedded = loaded.model.embed_vision_output(output.clone()).unwrap();
    assert_close("image", &floats(&embedded), &wanted("image_embeds"), COSINES);
    let tokenizer = checkpoint.tokenizer().expect("a tokenizer");
    let texts = case["texts"].as_array().expect("a list").iter();
    let ids = texts.map(|text| tokenizer.encode(text.as_str().expect("text"), true));
    let ids = ids.collect::<Result<Vec<_>, _>>().expect("any text");
    let texts = loaded.model.embed_text(&ids).unwrap();
    assert_close("texts", &floats(&texts), &wanted("text_embeds"), COSINES);
    let (queries, dim) = (loaded.model.image_vectors(), loaded.model.dim());
    let cosines = embedded.reshape([queries, dim]).matmul(texts.transpose());
    let best = floats(&cosines.max_dim(0));
    assert_close("ITC", &best, &wanted("itc"), COSINES);

    let ContrastiveModel::Blip2(model) = &loaded.model else { panic!("another model") };
    let states = output.states.repeat_dim(0, ids.len());
    let output = VisionOutput { states, depth: output.depth };
    let logits = floats(&model.matching_logits(output, &ids).unwrap());
    assert_close("ITM", &logits, &wanted("itm_logits"), COSINES);
}

#[test]
fn smolvlm_adapter_logits_and_tokens_match_peft() {
    let test = "smolvlm_adapter_logits_and_tokens_match_peft";
    let Some(folder) = family(test, "smolvlm") else { return };
    compare_adapter(&folder, &expected_json(&folder));
}

/// Compares a model under the adapter that PEFT wrote with what PEFT made of it.
fn compare_adapter(folder: &Path, expected: &Value) {
    let name = expected["adapter"]["case"].as_str().expect("a case");
    let record = &expected["cases"][name];
    let case = Case::open(folder, name, record);
    let mut model = case.model();
    let path = folder.join("adapter");
    let adapter = Adapter::read(&path).expect("PEFT wrote it");
    let layers = adapter.apply(&mut model, &path, VisionAdapter::Refuse).expect("it fits");
    assert_eq!(Some(2 * layers as u64), expected["adapter"]["tensors"].as_u64());
    case.compare_answer(&model, in_f32(expected), "adapter.", &record["adapter"]);
}

#[test]
fn siglip_verifier_of_smolvlm_matches_transformers_cosines() {
    let test = "siglip_verifier_of_smolvlm_matches_transformers_cosines";
    let Some(folder) = family(test, "smolvlm") else { return };
    compare_verifiers(&folder, &["siglip", "siglip_drifted"]);
}

/// Compares cosines of verifiers beside a model.
fn compare_verifiers(folder: &Path, names: &[&str]) {
    let record = expected_json(folder);
    for &name in names {
        let checkpoint = Checkpoint::open(&folder.join(name)).expect("a verifier's checkpoint");
        let device = Device::flex();
        let loaded = checkpoint.load_contrastive(LoadDtype::F32, &device).expect("whole weights");
        assert_eq!(loaded.unused, Vec::<String>::new());
        let image = record[name]["image"].as_str().expect("a file");
        let image = open_image(&folder.join(image)).expect("the generator's image");
        let pixels = checkpoint.image_processor().expect("a processor").process(&image);
        let image = loaded.model.embed_images(ImageBatch::new([&pixels], &device).whole()).unwrap();
        let tokenizer = checkpoint.tokenizer().expect("a tokenizer");
        let texts = record[name]["texts"].as_array().expect("a list").iter();
        let ids = texts.map(|text| tokenizer.encode(text.as_str().expect("text"), true));
        let ids = ids.collect::<Result<Vec<_>, _>>().expect("any text");
        let cosines = floats(&image.matmul(loaded.model.embed_text(&ids).unwrap().transpose()));
        let wanted = expected(folder, &format!("{}{name}.cosines", in_f32(&record)));
        assert_close(&format!("{name}: cosines"), &cosines, &wanted, COSINES);
    }
}

/// What names of expected values begin with that were computed in f32, as we compute whatever weights are stored in. What
/// transformers computes in bf16 from the same weights is up to 0.15 off these in its log-probabilities.
fn in_f32(record: &Value) -> &'static str {
    if record["dtype"] == "bfloat16" { "float32." } else { "" }
}

/// LLaVA, its tiled kin among them: every folder there is of them.
fn llava_families(test: &str) -> Vec<PathBuf> {
    let Some(root) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        report_skipped(test, &format!("{VARIABLE} is not set"));
        return Vec::new();
    };
    let entries = fs::read_dir(&root).expect("a folder of families");
    let mut folders: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    folders.retain(|folder| {
        let name = folder.file_name().expect("a name").to_string_lossy();
        name.starts_with("llava_") && folder.join("expected.json").exists()
    });
    folders.sort();
    if folders.is_empty() {
        report_skipped(test, &format!("{} has no family of LLaVA", root.display()));
    }
    folders
}

#[test]
fn llava_families_give_the_pixels_features_logits_and_tokens_of_transformers() {
    let test = "llava_families_give_the_pixels_features_logits_and_tokens_of_transformers";
    for folder in llava_families(test) {
        let expected = expected_json(&folder);
        let prefix = in_f32(&expected);
        for (name, record) in expected["cases"].as_object().expect("cases") {
            let what = |part: &str| format!("{}: {name}: {part}", expected["family"]);
            let case = Case::open(&folder, name, record);
            let wanted = case.wanted("pixel_values");
            assert_close(&what("pixels"), &case.pixels().values, &wanted, PIXELS);
            let model = case.model();
            let features = floats(case.features(&model).tokens());
            let wanted = case.wanted_in(prefix, "image_tokens");
            assert_near(&what("image tokens"), &features, &wanted);
            case.compare_answer(&model, prefix, "", &record["answer"]);
        }
    }
}

#[test]
fn adapters_on_llava_families_give_the_logits_and_tokens_of_peft() {
    let test = "adapters_on_llava_families_give_the_logits_and_tokens_of_peft";
    for folder in llava_families(test) {
        let record = expected_json(&folder);
        if record["adapter"].is_object() {
            compare_adapter(&folder, &record);
        }
    }
}

#[test]
fn the_clip_beside_llava_families_gives_the_cosines_of_transformers() {
    let test = "the_clip_beside_llava_families_gives_the_cosines_of_transformers";
    for folder in llava_families(test) {
        compare_verifiers(&folder, &["clip"]);
    }
}

/// Beginnings of tensors' names, by release; those of transformers 5 as the generator writes them come first.
const RELEASES: [[(&str, &str); 5]; 3] = [
    [
        ("vision_tower.", "vision_tower.vision_model."),
        ("language_model.model.", "language_model.model."),
        ("language_model.lm_head.", "language_model.lm_head."),
        ("multi_modal_projector.", "multi_modal_projector."),
        ("image_newline", "image_newline"),
    ],
    [
        ("vision_tower.", "model.vision_tower.vision_model."),
        ("language_model.model.", "model.language_model."),
        ("language_model.lm_head.", "lm_head."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
        ("image_newline", "model.image_newline"),
    ],
    [
        ("vision_tower.", "model.vision_tower."),
        ("language_model.model.", "model.language_model."),
        ("language_model.lm_head.", "lm_head."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
        ("image_newline", "model.image_newline"),
    ],
];

#[test]
fn names_of_every_release_give_the_same_llava() {
    for folder in llava_families("names_of_every_release_give_the_same_llava") {
        let record = expected_json(&folder);
        let (name, record) =
            record["cases"].as_object().expect("cases").iter().next().expect("one");
        let mut case = Case::open(&folder, name, record);
        let answer = &record["answer"];
        let expected = case.log_probabilities(&case.model(), answer);
        for release in RELEASES {
            let copy = case.checkpoint.folder().join("model.safetensors");
            rename(&folder.join("model").join("model.safetensors"), &copy, release);
            case.checkpoint = Checkpoint::open(case.checkpoint.folder()).expect("a checkpoint");
            let found = case.log_probabilities(&case.model(), answer);
            assert_eq!(found, expected, "{}: {release:?}", folder.display());
        }
    }
}

/// Copies a file of tensors under other names.
fn rename(from: &Path, to: &Path, names: [(&str, &str); 5]) {
    let bytes = fs::read(from).expect("weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("the generator writes safetensors");
    let renamed = tensors.iter().map(|(stored, tensor)| {
        let known = names.iter().find(|(begin, _)| stored.starts_with(begin));
        let (begin, other) = known.unwrap_or_else(|| panic!("{stored} has no other name"));
        (stored.replacen(begin, other, 1), tensor)
    });
    let bytes = safetensors::serialize(renamed, None).expect("the same tensors");
    fs::write(to, bytes).expect("writable");
}
