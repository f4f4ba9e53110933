//! Adapters in PEFT's layout: both generations of keys, and adapters that do not fit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::TensorData;
use fisao_formats::adapter::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE};
use fisao_formats::weights::{MappedFile, write_safetensors};
use fisao_formats::{Adapter, FormatError, StoredDtype};
use fisao_models::llava::Llava;
use fisao_models::lora::LoraConfig;
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
fn adapted() -> Llava {
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
    let adapter = Adapter::of(&adapted(), lora_config(), Some("tiny/llava".to_owned()));
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
    Adapter::read(folder.path())?.apply(&mut tiny::llava(3), folder.path())
}

#[test]
fn an_adapter_survives_writing_and_reading() {
    let (folder, adapter) = written();
    let read = Adapter::read(folder.path()).expect("it was written just now");
    assert_eq!(read, adapter);
    let mut model = tiny::llava(3);
    // 2 layers × 2 targets × 2 matrices.
    assert_eq!(read.apply(&mut model, folder.path()).expect("it fits"), 8);
    assert_eq!(Adapter::of(&model, lora_config(), read.base_model), adapter);
}

#[test]
fn keys_and_configuration_are_those_of_peft_0_21() {
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
fn old_keys_are_read() {
    let (folder, adapter) = written();
    rewrite(folder.path(), |tensors| {
        let old =
            |key: &str| key.replace("model.model.language_model.", "model.language_model.model.");
        *tensors = std::mem::take(tensors).into_iter().map(|(k, v)| (old(&k), v)).collect();
    });
    assert_eq!(Adapter::read(folder.path()).expect("old keys"), adapter);
}

#[test]
fn tensors_that_match_nothing_are_named() {
    let (folder, _) = written();
    rewrite(folder.path(), |tensors| {
        let key = tensors.keys().next().expect("a tensor").clone();
        let data = tensors[&key].clone();
        tensors.insert("base_model.model.model.mm_projector.lora_A.weight".to_owned(), data);
    });
    assert_eq!(
        message(load(&folder), &folder),
        "DIR/adapter_model.safetensors does not fit the model: nothing in the model takes \
         `base_model.model.model.mm_projector.lora_A.weight`"
    );

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
    assert!(said.contains("it lacks `language_model.model.layers.1."), "{said}");
}

#[test]
fn a_layer_more_than_the_model_has_is_named() {
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
        let key = format!("base_model.model.model.{tower}.layers.0.self_attn.q_proj.lora_A.weight");
        rewrite(folder.path(), |tensors| {
            tensors.insert(key.clone(), TensorData::new(vec![0.0_f32; 24], [3, 8]));
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
    assert!(
        said.contains("it lacks `language_model.model.layers.0.self_attn.q_proj.lora_B"),
        "{said}"
    );

    let (folder, _) = written();
    rewrite(folder.path(), |tensors| {
        tensors.insert(b.to_owned(), TensorData::new(vec![0.0_f32; 16], [8, 2]));
    });
    assert_eq!(
        message(load(&folder), &folder),
        format!(
            "DIR/adapter_model.safetensors: tensor `{b}` has shape [8, 2], but the configuration needs [8, 3]"
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
fn a_refused_adapter_leaves_the_model_as_it_was() {
    let (folder, _) = written();
    let mut adapter = Adapter::read(folder.path()).expect("it was written just now");
    adapter.tensors.pop_first();
    let mut model = tiny::llava(3);
    adapter.apply(&mut model, folder.path()).expect_err("a matrix is missing");
    assert!(Adapter::of(&model, lora_config(), None).tensors.is_empty());
}

#[test]
fn what_is_not_plain_lora_is_refused() {
    let cases = [
        ("peft_type", json!("IA3")),
        ("r", json!(0)),
        ("bias", json!("all")),
        ("use_dora", json!(true)),
        ("rank_pattern", json!({ "q_proj": 8 })),
        ("alpha_pattern", json!({ "q_proj": 8 })),
        ("modules_to_save", json!(["lm_head"])),
        ("target_modules", json!(["q_proj", "v_proj", "k_proj"])),
    ];
    for (field, value) in cases {
        let (folder, _) = written();
        let path = folder.path().join(ADAPTER_CONFIG_FILE);
        let config = fs::read_to_string(&path).expect("it is there");
        let mut config: Value = serde_json::from_str(&config).expect("JSON");
        config[field] = value;
        fs::write(&path, config.to_string()).expect("writable");
        let said = message(Adapter::read(folder.path()), &folder);
        let expected = format!("DIR/adapter_config.json: `{field}` is ");
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn absent_files_are_named() {
    let (folder, _) = written();
    fs::rename(folder.path().join(ADAPTER_WEIGHTS_FILE), folder.path().join("adapter_model.bin"))
        .expect("writable");
    assert!(message(Adapter::read(folder.path()), &folder).contains("Python pickle"));
    fs::remove_file(folder.path().join("adapter_model.bin")).expect("it is there");
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
