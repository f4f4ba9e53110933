//! Adapters in PEFT's layout: both generations of keys, and adapters that do not fit.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::{Device, TensorData};
use fisao_formats::FormatError;
use fisao_formats::adapter::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Adapter, VisionAdapter};
use fisao_formats::checkpoint::{Checkpoint, write_llava};
use fisao_formats::merge::{Merge, MergeOptions};
use fisao_formats::weights::{MappedFile, StoredDtype, write_safetensors};
use fisao_models::lora::LoraConfig;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::weights::RandomWeights;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::{message, tiny};

fn lora_config() -> LoraConfig {
    LoraConfig {
        rank: 3,
        alpha: 6.0,
        target_modules: vec!["q_proj".to_owned(), "v_proj".to_owned()],
        use_rslora: false,
    }
}

/// A model with an adapter whose B is not zero.
fn adapted() -> VisionLanguageModel {
    let mut model = tiny::llava(3);
    model.add_lora(&lora_config(), 11).expect("a valid configuration");
    let mut next = 0.0;
    model.visit_lora_mut(&mut |_, mut parameter| {
        let count = parameter.shape().iter().product::<usize>();
        let values = (0..count).map(|_| {
            next += 0.25;
            next
        });
        parameter.set_values(values.collect());
    });
    model
}

fn written() -> (TempDir, Adapter) {
    let folder = tempdir().expect("a temporary folder");
    let adapter = Adapter::of(&adapted(), &lora_config(), Some("tiny/llava"));
    adapter.write(folder.path()).expect("a writable folder");
    (folder, adapter)
}

/// Rewrites the adapter's weights with their keys and tensors changed.
fn rewrite(folder: &Path, change: impl FnOnce(&mut BTreeMap<String, TensorData>)) {
    let path = folder.join(ADAPTER_WEIGHTS_FILE);
    let file = MappedFile::open(&path).expect("a whole file");
    let mut tensors = BTreeMap::new();
    for key in file.keys() {
        let tensor = file.tensor(&key).expect("the key is the file's own");
        tensors.insert(key, tensor.to_f32(tensor.shape()).expect("floats"));
    }
    change(&mut tensors);
    let tensors = tensors.iter().map(|(key, data)| (key.as_str(), data));
    write_safetensors(&path, tensors, StoredDtype::F32).expect("a writable folder");
}

fn load(folder: &TempDir) -> Result<usize, FormatError> {
    Adapter::read(folder.path())?.apply(&mut tiny::llava(3), folder.path(), VisionAdapter::Refuse)
}

/// Changes one field of the adapter's configuration.
fn configure(folder: &TempDir, field: &str, value: Value) {
    let path = folder.path().join(ADAPTER_CONFIG_FILE);
    let config = fs::read_to_string(&path).expect("it is there");
    let mut config: Value = serde_json::from_str(&config).expect("JSON");
    config[field] = value;
    fs::write(&path, config.to_string()).expect("writable");
}

/// The message and hint about an adapter whose configuration says something else.
fn refusal(field: &str, value: Value) -> String {
    let (folder, _) = written();
    configure(&folder, field, value);
    let error = load(&folder).expect_err("this adapter has to be refused");
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    let text = format!("{error}{hint}");
    text.replace(&folder.path().display().to_string(), "DIR")
}

#[test]
fn adapter_round_trips_through_its_files() {
    let (folder, adapter) = written();
    let read = Adapter::read(folder.path()).expect("it was written just now");
    assert_eq!(read, adapter);
    let mut model = tiny::llava(3);
    // 2 layers × 2 targets.
    let applied = read.apply(&mut model, folder.path(), VisionAdapter::Refuse);
    assert_eq!(applied.expect("it fits"), 4);
    assert_eq!(Adapter::of(&model, &lora_config(), read.base_model()), adapter);
    read.write(folder.path()).expect("a writable folder");
    assert_eq!(Adapter::read(folder.path()).expect("it was written just now"), adapter);
}

#[test]
fn keys_and_configuration_match_peft_0_21() {
    // Copied from what PEFT 0.21.2 saved for a LlavaForConditionalGeneration of transformers 5.23.
    let (folder, _) = written();
    let file = MappedFile::open(&folder.path().join(ADAPTER_WEIGHTS_FILE)).expect("a whole file");
    let shapes = file.keys().into_iter().filter(|key| key.contains("layers.0.")).map(|key| {
        let shape = file.tensor(&key).expect("its own key").shape().to_vec();
        (key, shape)
    });
    let prefix = "base_model.model.model.language_model.layers.0.self_attn";
    let expected = [
        (format!("{prefix}.q_proj.lora_A.weight"), vec![3, 8]),
        (format!("{prefix}.q_proj.lora_B.weight"), vec![8, 3]),
        (format!("{prefix}.v_proj.lora_A.weight"), vec![3, 8]),
        (format!("{prefix}.v_proj.lora_B.weight"), vec![4, 3]),
    ];
    assert_eq!(shapes.collect::<Vec<_>>(), expected);

    let config = fs::read_to_string(folder.path().join(ADAPTER_CONFIG_FILE)).expect("it is there");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let expected = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "lora_alpha": 6, "r": 3,
        "base_model_name_or_path": "tiny/llava", "inference_mode": true, "lora_dropout": 0.0,
        "fan_in_fan_out": false, "init_lora_weights": true, "use_rslora": false,
        "target_modules": ".*language_model.*\\.(q_proj|v_proj)",
    });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(config.get(field), Some(value), "{field}");
    }
}

#[test]
fn keys_of_older_transformers_are_read() {
    let (folder, adapter) = written();
    rewrite(folder.path(), |tensors| {
        let old =
            |key: &str| key.replace("model.model.language_model.", "model.language_model.model.");
        *tensors = std::mem::take(tensors).into_iter().map(|(k, v)| (old(&k), v)).collect();
    });
    let read = Adapter::read(folder.path()).expect("old keys");
    assert!(read.updates.keys().eq(adapter.updates.keys()));
    for (update, written) in read.updates.values().zip(adapter.updates.values()) {
        assert_eq!((&update.a, &update.b), (&written.a, &written.b));
        assert_eq!(
            update.path,
            written.path.replace("model.language_model.", "language_model.model.")
        );
    }
    assert_eq!(load(&folder).expect("they fit"), 4);
}

#[test]
fn unmatched_adapter_tensors_are_reported_by_name() {
    let (folder, _) = written();
    rewrite(folder.path(), |tensors| {
        let map = "base_model.model.model.resampler";
        for (matrix, shape) in [("lora_A", [3, 8]), ("lora_B", [8, 3])] {
            let data = TensorData::new(vec![0.5_f32; 24], shape);
            tensors.insert(format!("{map}.{matrix}.weight"), data);
        }
    });
    insta::assert_snapshot!(message(load(&folder), &folder), @"DIR/adapter_model.safetensors does not fit the model: nothing in the model takes `base_model.model.model.resampler.lora_A.weight`, `base_model.model.model.resampler.lora_B.weight`");

    // Something else than LoRA's matrices.
    let (folder, _) = written();
    rewrite(folder.path(), |tensors| {
        let key = "base_model.model.model.language_model.layers.0.self_attn.q_proj".to_owned();
        let data = TensorData::new(vec![0.5_f32; 8], [8]);
        tensors.insert(key + ".lora_magnitude_vector", data);
    });
    insta::assert_snapshot!(message(load(&folder), &folder), @"DIR/adapter_model.safetensors does not fit the model: nothing in the model takes `base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_magnitude_vector`");

    // A layer that this model does not have.
    let (folder, _) = written();
    rewrite(folder.path(), |tensors| {
        let layer_9 = |key: &str| key.replace("layers.1.", "layers.9.");
        *tensors = std::mem::take(tensors).into_iter().map(|(k, v)| (layer_9(&k), v)).collect();
    });
    let error = load(&folder).expect_err("there is no layer 9");
    assert!(error.hint().is_some_and(|hint| hint.contains("base_model_name_or_path")));
    let said = error.to_string();
    assert!(
        said.contains(
            "`base_model.model.model.language_model.layers.9.self_attn.q_proj.lora_A.weight`"
        ),
        "{said}"
    );
    assert!(said.contains("it lacks `base_model.model.model.language_model.layers.1."), "{said}");
}

#[test]
fn extra_adapter_layer_is_reported_by_name() {
    let (folder, _) = written();
    rewrite(folder.path(), |tensors| {
        let more = |(key, data): (&String, &TensorData)| {
            key.contains("layers.1.").then(|| (key.replace("layers.1.", "layers.2."), data.clone()))
        };
        let more = tensors.iter().filter_map(more).collect::<Vec<_>>();
        tensors.extend(more);
    });
    let said = message(load(&folder), &folder);
    assert!(said.contains("nothing in the model takes") && said.contains("layers.2."), "{said}");
    assert!(!said.contains("it lacks"), "{said}");
}

#[test]
fn an_empty_adapter_is_refused() {
    let (folder, _) = written();
    rewrite(folder.path(), BTreeMap::clear);
    assert_eq!(
        message(load(&folder), &folder),
        "DIR/adapter_model.safetensors does not fit the model: it holds no tensors"
    );
}

#[test]
fn an_adapter_on_the_vision_tower_is_refused() {
    for tower in ["vision_tower.encoder", "vision_tower.vision_model.encoder"] {
        let (folder, _) = written();
        let map = format!("base_model.model.model.{tower}.layers.0.self_attn.q_proj");
        let key = format!("{map}.lora_A.weight");
        rewrite(folder.path(), |tensors| {
            tensors.insert(key.clone(), TensorData::new(vec![0.0_f32; 24], [3, 8]));
            let b = TensorData::new(vec![0.0_f32; 24], [8, 3]);
            tensors.insert(format!("{map}.lora_B.weight"), b);
        });
        let error = load(&folder).expect_err("the verifier must not move");
        assert!(matches!(error, FormatError::AdapterTouchesVision { .. }), "{error}");
        assert!(error.to_string().contains(&key), "{error}");
    }
}

#[test]
fn a_matrix_without_its_counterpart_or_of_another_rank_is_refused() {
    let (folder, _) = written();
    let b = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_B.weight";
    rewrite(folder.path(), |tensors| {
        tensors.remove(b);
    });
    let said = message(load(&folder), &folder);
    assert!(said.ends_with(&format!("does not fit the model: it lacks `{b}`")), "{said}");

    let (folder, _) = written();
    rewrite(folder.path(), |tensors| {
        tensors.insert(b.to_owned(), TensorData::new(vec![0.0_f32; 16], [8, 2]));
    });
    assert_eq!(
        message(load(&folder), &folder),
        format!(
            "DIR/adapter_model.safetensors does not have the ranks of its configuration (r, \
             rank_pattern): `{b}` has 2, not 3"
        )
    );

    // Of the right rank, but for a model of another width.
    let (folder, _) = written();
    rewrite(folder.path(), |tensors| {
        tensors.insert(b.to_owned(), TensorData::new(vec![0.0_f32; 30], [10, 3]));
    });
    assert!(
        message(load(&folder), &folder)
            .contains("has shape [10, 3], but the configuration needs [8, 3]")
    );
}

#[test]
fn rejected_adapter_leaves_the_model_unchanged() {
    let (folder, _) = written();
    let mut adapter = Adapter::read(folder.path()).expect("it was written just now");
    adapter.updates.pop_first();
    let mut model = tiny::llava(3);
    let refused = adapter.apply(&mut model, folder.path(), VisionAdapter::Refuse);
    refused.expect_err("a map is missing");
    assert!(Adapter::of(&model, &lora_config(), None).updates.is_empty());
}

#[test]
fn adapters_other_than_plain_lora_are_rejected() {
    let cases = [
        ("peft_type", json!("IA3")),
        ("r", json!(0)),
        ("bias", json!("all")),
        ("use_dora", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("modules_to_save", json!(["lm_head"])),
        ("trainable_token_indices", json!([3, 5])),
        ("target_parameters", json!(["experts.up"])),
        ("target_modules", json!([])),
        ("layers_to_transform", json!([0])),
    ];
    for (field, value) in cases {
        let said = refusal(field, value);
        let expected = format!("DIR/adapter_config.json: `{field}` is ");
        assert!(said.starts_with(&expected), "{said}");
    }
    insta::assert_snapshot!(refusal("use_dora", json!(true)), @r"DIR/adapter_config.json: `use_dora` is true, but only false is supported");
    insta::assert_snapshot!(refusal("init_lora_weights", json!("olora")), @r"DIR/adapter_config.json: `init_lora_weights` is olora, but only an initialisation that leaves the model's weights as they are is supported");
    insta::assert_snapshot!(refusal("rank_pattern", json!({ "q_proj": "many" })), @r#"DIR/adapter_config.json: `rank_pattern.q_proj` is "many", but only a whole number from 1 to 65536 is supported"#);
}

#[test]
fn configuration_for_other_linear_layers_is_rejected() {
    // More than there are matrices for.
    insta::assert_snapshot!(refusal("target_modules", json!(".*language_model.*(q_proj|v_proj|k_proj)")), @r"
    DIR/adapter_model.safetensors does not fit the model: it lacks `base_model.model.model.language_model.layers.0.self_attn.k_proj.lora_A.weight`, `base_model.model.model.language_model.layers.0.self_attn.k_proj.lora_B.weight`, `base_model.model.model.language_model.layers.1.self_attn.k_proj.lora_A.weight`, `base_model.model.model.language_model.layers.1.self_attn.k_proj.lora_B.weight`
    hint: the adapter was trained on another model; see base_model_name_or_path in its adapter_config.json
    ");
    // Fewer.
    insta::assert_snapshot!(refusal("target_modules", json!(".*language_model.*q_proj")), @r"
    DIR/adapter_model.safetensors holds matrices for linear layers that its configuration does not select: `base_model.model.model.language_model.layers.0.self_attn.v_proj.lora_A.weight`, `base_model.model.model.language_model.layers.0.self_attn.v_proj.lora_B.weight`, `base_model.model.model.language_model.layers.1.self_attn.v_proj.lora_A.weight`, `base_model.model.model.language_model.layers.1.self_attn.v_proj.lora_B.weight`
    hint: adapter_config.json and adapter_model.safetensors must come from the same training, and from a model of this architecture
    ");
    // Bare names are the vision tower's as well, for which there are none.
    insta::assert_snapshot!(refusal("target_modules", json!(["q_proj", "v_proj"])), @r#"
    DIR/adapter_model.safetensors does not fit the model: it lacks `base_model.model.model.vision_tower.encoder.layers.0.self_attn.q_proj.lora_A.weight`, `base_model.model.model.vision_tower.encoder.layers.0.self_attn.q_proj.lora_B.weight`, `base_model.model.model.vision_tower.encoder.layers.0.self_attn.v_proj.lora_A.weight`, `base_model.model.model.vision_tower.encoder.layers.0.self_attn.v_proj.lora_B.weight` and 4 more
    hint: target_modules also selects linear layers of the vision tower, for which there are no matrices; if there should be none, add "exclude_modules": ".*vision_tower.*" to adapter_config.json
    "#);
    // None of the model's.
    insta::assert_snapshot!(refusal("target_modules", json!(["q_proj", "query_key_value"])), @r"
    DIR/adapter_config.json: `target_modules` names `query_key_value`, which matches no linear layer of the model
    hint: adapter_config.json and adapter_model.safetensors must come from the same training, and from a model of this architecture
    ");
    let long = refusal("exclude_modules", json!("x".repeat(100_000)));
    assert!(long.contains("bytes long together, and at most 98304 are read"), "{long}");
    insta::assert_snapshot!(refusal("target_modules", json!(".*language_model.*(q_proj")), @r"DIR/adapter_config.json is not a valid adapter configuration (adapter_config.json): a pattern of `target_modules` is no regular expression: Parsing error at position 25: Opening parenthesis without closing parenthesis");
    insta::assert_snapshot!(refusal("rank_pattern", json!({ "layers.1.*": 8 })), @r"
    DIR/adapter_model.safetensors does not have the ranks of its configuration (r, rank_pattern): `base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight` has 3, not 8, `base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_B.weight` has 3, not 8, `base_model.model.model.language_model.layers.1.self_attn.v_proj.lora_A.weight` has 3, not 8, `base_model.model.model.language_model.layers.1.self_attn.v_proj.lora_B.weight` has 3, not 8
    hint: adapter_config.json and adapter_model.safetensors must come from the same training
    ");
}

#[test]
fn target_and_exclude_modules_match_as_in_peft() {
    let taken = [
        [("target_modules", json!(["q_proj", "v_proj"])), ("exclude_modules", json!(".*vision.*"))],
        [
            ("target_modules", json!(["self_attn.q_proj", "v_proj", "out_proj"])),
            ("exclude_modules", json!(["out_proj", "layers.0.self_attn.q_proj"])),
        ],
    ];
    let fits = taken.map(|fields| {
        let (folder, _) = written();
        for (field, value) in fields {
            configure(&folder, field, value);
        }
        load(&folder).map_err(|error| error.to_string())
    });
    assert_eq!(fits[0], Ok(4));
    // `out_proj` and the first layers' `q_proj` are excluded on the tower too, what is left is not.
    let said = fits[1].as_ref().expect_err("layer 0 is excluded");
    let (_, said) = said.split_once("it lacks ").expect("maps of the tower");
    insta::assert_snapshot!(said, @"`base_model.model.model.vision_tower.encoder.layers.0.self_attn.v_proj.lora_A.weight`, `base_model.model.model.vision_tower.encoder.layers.0.self_attn.v_proj.lora_B.weight`, `base_model.model.model.vision_tower.encoder.layers.1.self_attn.q_proj.lora_A.weight`, `base_model.model.model.vision_tower.encoder.layers.1.self_attn.q_proj.lora_B.weight` and 2 more");
}

#[test]
fn rank_and_alpha_patterns_apply_to_matching_layers_only() {
    let (folder, adapter) = written();
    configure(&folder, "rank_pattern", json!({ "proj": 8, "layers.9.*": 4 }));
    configure(&folder, "alpha_pattern", json!({ "q_pro": 8, "1.self_attn.v_proj": 12 }));
    let read = Adapter::read(folder.path()).expect("ranks are as they were");
    for (name, update) in &read.updates {
        let expected = if name.contains("layers.1.self_attn.v_proj") { 4.0 } else { 2.0 };
        assert!((update.scale - expected).abs() < 1e-12, "{name}: {}", update.scale);
    }
    assert!(read.updates.keys().eq(adapter.updates.keys()));
}

#[test]
fn adapter_on_a_tied_output_matrix_is_rejected() {
    let mut config = tiny::llava_config();
    config.text.tie_word_embeddings = true;
    let (folder, _) = written();
    let head = "base_model.model.lm_head";
    rewrite(folder.path(), |tensors| {
        let floats = |count| vec![0.0_f32; count];
        tensors.insert(format!("{head}.lora_A.weight"), TensorData::new(floats(24), [3, 8]));
        tensors.insert(format!("{head}.lora_B.weight"), TensorData::new(floats(72), [24, 3]));
    });
    let weights = &mut RandomWeights::new(3);
    let mut model =
        VisionLanguageModel::load(config, weights, &Device::flex()).expect("random weights fit");
    let adapter = Adapter::read(folder.path()).expect("pairs of matrices");
    let refused = adapter.apply(&mut model, folder.path(), VisionAdapter::Refuse);
    insta::assert_snapshot!(message(refused, &folder), @"DIR/adapter_model.safetensors changes lm_head, which in this model is the embedding table itself (tie_word_embeddings)");
}

/// Writes the adapter again as if the language model had been trained alone: its maps are called `prefix` and the rest of
/// their name, and its targets are names that the vision tower has as well.
fn of_the_decoder_alone(prefix: &str) -> TempDir {
    let (folder, _) = written();
    rewrite(folder.path(), |tensors| {
        let rename = |key: &str| key.replace("base_model.model.model.language_model.", prefix);
        *tensors = std::mem::take(tensors).into_iter().map(|(k, v)| (rename(&k), v)).collect();
    });
    configure(&folder, "target_modules", json!(["q_proj", "v_proj"]));
    folder
}

#[test]
fn language_model_adapter_needs_no_vision_tower_matrices() {
    let (_folder, adapter) = written();
    // `LlamaForCausalLM` and `LlamaModel`.
    for prefix in ["base_model.model.model.", "base_model.model."] {
        let folder = of_the_decoder_alone(prefix);
        assert_eq!(load(&folder).expect("it fits"), 4, "{prefix}");
        let read = Adapter::read(folder.path()).expect("whole matrices");
        for (name, update) in &read.updates {
            assert_eq!(
                (&update.a, &update.b),
                (&adapter.updates[name].a, &adapter.updates[name].b)
            );
        }
    }
    // The names of the whole model promise matrices of its tower.
    let (folder, _) = written();
    configure(&folder, "target_modules", json!(["q_proj", "v_proj"]));
    assert!(message(load(&folder), &folder).contains("it lacks"));
    // One of the decoder's own linear layers is missing.
    let folder = of_the_decoder_alone("base_model.model.model.");
    rewrite(folder.path(), |tensors| {
        tensors.retain(|key, _| !key.contains("layers.1.self_attn.v_proj"));
    });
    let said = message(load(&folder), &folder);
    assert!(
        said.contains("it lacks `base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight`"),
        "{said}"
    );
    assert!(!said.contains("vision"), "{said}");
}

#[test]
fn language_model_adapter_merges_to_the_same_weights() {
    let place = tempdir().expect("a temporary folder");
    let model = place.path().join("model");
    write_llava(&model, &tiny::llava(3), StoredDtype::F32).expect("a writable folder");
    let checkpoint = Checkpoint::open(&model).expect("it was written just now");
    let merged = |folder: &Path, output: &str| {
        let adapter = Adapter::read(folder).expect("whole matrices");
        let merge = Merge::new(&checkpoint, adapter, folder, &MergeOptions::default());
        let output = place.path().join(output);
        merge
            .expect("it fits")
            .write(&output, &mut |_| ControlFlow::Continue(()))
            .expect("writable");
        fs::read(output.join("model.safetensors")).expect("it was written just now")
    };
    let (whole, _) = written();
    let alone = of_the_decoder_alone("base_model.model.model.");
    assert!(
        merged(whole.path(), "whole") == merged(alone.path(), "alone"),
        "the merged weights differ"
    );
}

#[test]
fn empty_adapter_tensors_are_rejected_with_a_hint() {
    for shape in [vec![0], vec![0, 8]] {
        let (folder, _) = written();
        rewrite(folder.path(), |tensors| {
            for data in tensors.values_mut() {
                *data = TensorData::new(Vec::<f32>::new(), shape.clone());
            }
        });
        let error = load(&folder).expect_err("there is nothing in it");
        assert!(error.hint().is_some_and(|hint| hint.contains("ZeRO stage 3")));
        let said = error.to_string();
        assert!(
            said.contains("holds tensors without numbers, of shape [0]: `base_model"),
            "{said}"
        );
    }
}

#[test]
fn invalid_adapter_settings_are_rejected_by_key() {
    let numbers = [json!("x"), json!([1]), json!(true), json!(1e300)];
    let mut cases = Vec::new();
    for wrong in numbers.into_iter().chain([json!(0), json!(-1), json!(1_u64 << 60), json!(1.5)]) {
        let alpha = wrong.as_f64().is_none_or(|alpha| alpha.abs() > 1e6);
        cases.push(("rank_pattern", json!({ "q_proj": wrong })));
        if alpha {
            cases.push(("lora_alpha", wrong.clone()));
            cases.push(("alpha_pattern", json!({ "q_proj": wrong })));
        }
        cases.push(("r", wrong));
    }
    cases.extend([
        ("use_rslora", json!("yes")),
        ("target_modules", json!(5)),
        ("target_modules", json!([5])),
        ("exclude_modules", json!({})),
        ("layers_to_transform", json!([-1])),
        ("layers_to_transform", json!("1")),
        ("rank_pattern", json!([1])),
    ]);
    for (key, value) in cases {
        let said = refusal(key, value.clone());
        assert!(
            said.starts_with(&format!("DIR/adapter_config.json: `{key}")),
            "{key} = {value}: {said}"
        );
        assert!(said.contains("is supported"), "{key} = {value}: {said}");
    }
    let (folder, _) = written();
    let path = folder.path().join(ADAPTER_CONFIG_FILE);
    let config = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, config.replace("\"lora_alpha\": 6", "\"lora_alpha\": NaN")).expect("writable");
    let said = message(load(&folder), &folder);
    assert!(said.contains("`lora_alpha` is NaN, which is not a number in JSON"), "{said}");
}

#[test]
fn missing_adapter_files_are_reported_by_path() {
    let (folder, _) = written();
    fs::rename(folder.path().join(ADAPTER_WEIGHTS_FILE), folder.path().join("adapter_model.bin"))
        .expect("writable");
    assert!(message(Adapter::read(folder.path()), &folder).contains("Python pickle"));
    fs::remove_file(folder.path().join("adapter_model.bin")).expect("it is there");
    // The original LLaVA repository trains the projector beside the adapter.
    let beside = folder.path().join("non_lora_trainables.bin");
    fs::write(&beside, b"pickle").expect("writable");
    assert!(message(Adapter::read(folder.path()), &folder).contains("non_lora_trainables.bin"));
    fs::remove_file(beside).expect("it is there");
    assert_eq!(
        message(Adapter::read(folder.path()), &folder),
        "no weights file at DIR/adapter_model.safetensors"
    );
    fs::remove_file(folder.path().join(ADAPTER_CONFIG_FILE)).expect("it is there");
    assert_eq!(
        message(Adapter::read(folder.path()), &folder),
        "no adapter configuration (adapter_config.json) at DIR/adapter_config.json"
    );
}
