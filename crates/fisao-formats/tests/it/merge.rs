//! Checkpoints with an adapter folded in.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, TensorData};
use fisao_formats::FormatError;
use fisao_formats::adapter::{Adapter, VisionAdapter};
use fisao_formats::checkpoint::{
    CONFIG_FILE, Checkpoint, named_tensors, write_checkpoint, write_llava, write_llava_processing,
};
use fisao_formats::merge::{Merge, MergeOptions, Merged};
use fisao_formats::weights::{LoadDtype, MappedFile, StoredDtype};
use fisao_models::image::ImageProcessor;
use fisao_testkit::compare::assert_close;
use half::f16;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::peft::{CASES, LOGITS, base_model, expected_logits, folder, logits};
use crate::{message, tiny};

const APPLY: MergeOptions =
    MergeOptions { dtype: None, max_shard_size: u64::MAX, vision: VisionAdapter::Apply };

/// A folder with the fixtures' model in `model`.
fn workplace(dtype: StoredDtype) -> TempDir {
    let place = tempdir().expect("a temporary folder");
    let (folder, model) = (place.path().join("model"), base_model());
    let images = ImageProcessor::clip(tiny::as_llava(model.config()).vision.image_size as u32);
    let (tokenizer, special) = (tiny::tokenizer(), tiny::special_tokens());
    write_llava_processing(&folder, tiny::as_llava(model.config()), &tokenizer, &special, &images)
        .expect("the folder is new");
    write_llava(&folder, &model, dtype).expect("the folder is new");
    place
}

fn prepare(place: &TempDir, case: &str, options: &MergeOptions) -> Result<Merge, FormatError> {
    let checkpoint = Checkpoint::open(&place.path().join("model"))?;
    Merge::new(&checkpoint, Adapter::read(&folder(case))?, &folder(case), options)
}

fn output(place: &TempDir) -> PathBuf {
    place.path().join("merged")
}

fn merge(place: &TempDir, case: &str, options: &MergeOptions) -> Result<Merged, FormatError> {
    prepare(place, case, options)?.write(&output(place), &mut |_| ControlFlow::Continue(()))
}

fn stored(folder: &Path, file: &str) -> Vec<(String, String, TensorData)> {
    let file = MappedFile::open(&folder.join(file)).expect("a whole file");
    let keys = file.keys().into_iter().map(|key| {
        let tensor = file.tensor(&key).expect("its own key");
        let data = tensor.as_stored(tensor.shape()).expect("floats");
        (key, tensor.dtype_name(), data)
    });
    keys.collect()
}

fn load(folder: &Path) -> Vec<f32> {
    let checkpoint = Checkpoint::open(folder).expect("a whole checkpoint");
    let loaded =
        checkpoint.load_vision_language(LoadDtype::F32, &Device::flex()).expect("whole weights");
    assert_eq!(loaded.unused, Vec::<String>::new());
    logits(&loaded.model)
}

#[test]
fn merged_checkpoint_logits_match_peft() {
    for case in CASES {
        let place = workplace(StoredDtype::F32);
        let merged = merge(&place, case, &APPLY).expect("the adapter fits");
        assert_eq!(merged.files, ["model.safetensors"], "{case}");
        assert_close(case, &load(&output(&place)), &expected_logits(case), LOGITS);
    }
}

/// PEFT saves the weight that an adapted output matrix belongs to, and puts it in the place of the model's.
#[test]
fn base_weight_stored_in_the_adapter_is_merged() {
    let place = workplace(StoredDtype::F32);
    let mut adapter = Adapter::read(&folder(CASES[0])).expect("a whole adapter");
    let update = adapter.updates.values_mut().next().expect("at least one map");
    let shape = [update.b.shape()[0], update.a.shape()[1]];
    let values = (0..shape[0] * shape[1]).map(|at| (at as f32 * 0.37).sin()).collect();
    update.base = Some(TensorData::new::<f32, _>(values, shape));
    let mut model = base_model();
    let before = logits(&model);
    adapter.apply(&mut model, &folder(CASES[0]), VisionAdapter::Apply).expect("it fits");
    let expected = logits(&model);
    assert!(before.iter().zip(&expected).any(|(a, b)| (a - b).abs() > 1e-2), "the weight matters");
    let checkpoint = Checkpoint::open(&place.path().join("model")).unwrap();
    let merge = Merge::new(&checkpoint, adapter, &folder(CASES[0]), &APPLY).unwrap();
    merge.write(&output(&place), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_close("own base weight", &load(&output(&place)), &expected, LOGITS);
}

#[test]
fn non_finite_adapter_weights_are_rejected_before_writing() {
    let place = workplace(StoredDtype::F32);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut adapter = Adapter::read(&folder(CASES[0])).expect("a whole adapter");
        let update = adapter.updates.values_mut().next().expect("at least one map");
        let (mut values, shape) = (update.b.try_to_vec::<f32>().unwrap(), update.b.shape());
        values[3] = bad;
        update.b = TensorData::new(values, [shape[0], shape[1]]);
        let checkpoint = Checkpoint::open(&place.path().join("model")).unwrap();
        let error = Merge::new(&checkpoint, adapter, &folder(CASES[0]), &APPLY).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("adapter_model.safetensors: 1 values of tensor"), "{said}");
        assert!(said.contains("lora_B"), "{said}");
    }
    assert!(!output(&place).exists());
}

/// Everything but the linear layers is copied, and the linear layers are what f64 arithmetic rounds to.
#[test]
fn only_adapted_linear_layers_change_and_are_rounded_once() {
    let place = workplace(StoredDtype::F16);
    let merged = merge(&place, "patterns", &APPLY).expect("the adapter fits");
    let adapter = Adapter::read(&folder("patterns")).expect("PEFT wrote it");
    assert_eq!((merged.layers, adapter.updates.len()), (8, 8));
    let before = stored(&place.path().join("model"), "model.safetensors");
    let after = stored(&output(&place), "model.safetensors");
    assert_eq!(after.len(), before.len());
    let mut changed = 0;
    for ((name, dtype, old), (new_name, new_dtype, new)) in before.iter().zip(&after) {
        assert_eq!((name, dtype.as_str()), (new_name, "F16"));
        assert_eq!(dtype, new_dtype);
        let Some(update) = adapter.updates.get(name.trim_end_matches(".weight")) else {
            assert_eq!(old, new, "{name}");
            continue;
        };
        changed += 1;
        let [rank, inputs] = [update.rank(), update.a.shape()[1]];
        let floats =
            |data: &TensorData| data.clone().convert::<f32>().try_to_vec::<f32>().expect("f32");
        let (a, b, old, new) = (floats(&update.a), floats(&update.b), floats(old), floats(new));
        for (at, (old, new)) in old.iter().zip(&new).enumerate() {
            let (row, column) = (at / inputs, at % inputs);
            let terms =
                (0..rank).map(|k| f64::from(b[row * rank + k]) * f64::from(a[k * inputs + column]));
            let exact = f64::from(*old) + update.scale * terms.sum::<f64>();
            // Arithmetic in f32 may tip a value that lies between two of f16's.
            let step = f64::from(f16::EPSILON) * exact.abs().max(1e-4);
            assert!(
                (f64::from(*new) - exact).abs() <= 0.51 * step,
                "{name}: {new}, exactly {exact}"
            );
        }
    }
    assert_eq!(changed, merged.layers);
}

#[test]
fn merge_writes_another_dtype_to_weights_and_config() {
    let place = workplace(StoredDtype::F16);
    let options = MergeOptions { dtype: Some(StoredDtype::Bf16), ..APPLY };
    merge(&place, "layers", &options).expect("the adapter fits");
    let tensors = stored(&output(&place), "model.safetensors");
    assert!(tensors.iter().all(|(_, dtype, _)| dtype == "BF16"));
    let config = fs::read_to_string(output(&place).join(CONFIG_FILE)).expect("it is there");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["torch_dtype"], "bfloat16");
    assert_eq!(config["text_config"]["torch_dtype"], "bfloat16");
}

#[test]
fn shards_hold_the_same_tensors_as_one_file() {
    let place = workplace(StoredDtype::F32);
    merge(&place, "list", &APPLY).expect("the adapter fits");
    let whole = stored(&output(&place), "model.safetensors");
    let together = load(&output(&place));
    fs::remove_dir_all(output(&place)).expect("it is there");

    let options = MergeOptions { max_shard_size: 20_000, ..APPLY };
    let merged = merge(&place, "list", &options).expect("the adapter fits");
    assert!(merged.files.len() > 3, "{:?}", merged.files);
    let last = format!("model-{0:05}-of-{0:05}.safetensors", merged.files.len());
    assert_eq!(merged.files.last(), Some(&last));
    assert!(!output(&place).join("model.safetensors").exists());
    let mut parts = Vec::new();
    for file in &merged.files {
        let tensors = stored(&output(&place), file);
        let bytes = tensors.iter().map(|(_, _, data)| data.as_bytes().len()).sum::<usize>();
        assert!(bytes <= 20_000 || tensors.len() == 1, "{file} has {bytes} bytes");
        parts.extend(tensors);
    }
    assert_eq!(parts, whole);
    assert_eq!(load(&output(&place)), together);

    let index = fs::read_to_string(output(&place).join("model.safetensors.index.json"));
    let index: Value = serde_json::from_str(&index.expect("it is there")).expect("JSON");
    assert_eq!(index["metadata"]["total_size"], merged.bytes);
    assert_eq!(index["weight_map"].as_object().map(serde_json::Map::len), Some(merged.tensors));
}

#[test]
fn files_beside_the_weights_are_copied() {
    let place = workplace(StoredDtype::F32);
    merge(&place, "layers", &APPLY).expect("the adapter fits");
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
        let mut names = entries.map(|entry| entry.file_name()).collect::<Vec<_>>();
        names.sort();
        names
    };
    let (from, to) = (place.path().join("model"), output(&place));
    assert_eq!(names(&to), names(&from));
    for name in names(&from).iter().filter(|name| *name != "model.safetensors") {
        let bytes = |folder: &Path| fs::read(folder.join(name)).expect("it is there");
        assert_eq!(bytes(&to), bytes(&from), "{}", name.display());
    }
}

#[test]
fn merge_progress_counts_every_byte_and_can_cancel() {
    let place = workplace(StoredDtype::F32);
    let options = MergeOptions { max_shard_size: 20_000, ..APPLY };
    let merge = prepare(&place, "list", &options).expect("the adapter fits");
    let mut seen = 0;
    let stopped = merge.write(&output(&place), &mut |bytes| {
        seen += bytes;
        if seen < 50_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(matches!(
        stopped,
        Err(FormatError::Io { ref source, .. }) if source.kind() == std::io::ErrorKind::Interrupted
    ));
    assert!(!output(&place).exists(), "two files were written, and are gone");

    // A folder that was there stays, empty.
    fs::create_dir(output(&place)).expect("it is gone");
    merge.write(&output(&place), &mut |_| ControlFlow::Break(())).expect_err("ended at once");
    assert_eq!(fs::read_dir(output(&place)).expect("it is there").count(), 0);

    seen = 0;
    let merged = merge.write(&output(&place), &mut |bytes| {
        seen += bytes;
        ControlFlow::Continue(())
    });
    assert_eq!(seen, merged.expect("an empty folder").bytes);
}

#[test]
fn merge_into_a_non_empty_folder_is_rejected() {
    let place = workplace(StoredDtype::F32);
    fs::create_dir(output(&place)).expect("a new folder");
    fs::write(output(&place).join("thesis.tex"), "x").expect("writable");
    insta::assert_snapshot!(message(merge(&place, "layers", &APPLY), &place), @"DIR/merged is not empty (thesis.tex is there), and the output wants a folder of its own");
    assert!(output(&place).join("thesis.tex").exists());
}

#[test]
fn checkpoints_that_cannot_be_merged_are_rejected() {
    let place = workplace(StoredDtype::F32);
    let refusal = |case: &str, options: &MergeOptions| {
        message(merge(&place, case, options), &place)
            .replace(&folder(case).display().to_string(), "ADAPTER")
    };
    insta::assert_snapshot!(refusal("list", &MergeOptions { vision: VisionAdapter::Refuse, ..APPLY }), @"ADAPTER/adapter_model.safetensors would change the vision tower, which is the verifier's own: `base_model.model.model.vision_tower.encoder.layers.0.mlp.fc1.lora_A.weight`, `base_model.model.model.vision_tower.encoder.layers.0.mlp.fc1.lora_B.weight`, `base_model.model.model.vision_tower.encoder.layers.0.self_attn.out_proj.lora_A.weight`, `base_model.model.model.vision_tower.encoder.layers.0.self_attn.out_proj.lora_B.weight` and 20 more");

    let path = place.path().join("model").join(CONFIG_FILE);
    let original = fs::read_to_string(&path).expect("it is there");
    let configure = |field: &str, value: Value| {
        let mut config: Value = serde_json::from_str(&original).expect("JSON");
        config[field] = value;
        fs::write(&path, config.to_string()).expect("writable");
    };
    configure("quantization_config", json!({ "quant_method": "gptq", "bits": 4 }));
    insta::assert_snapshot!(refusal("layers", &APPLY), @"DIR/model/config.json describes weights that are quantised by GPTQ to 4 bits, but only those of 16 or 32 bits are read");
    let mut text = serde_json::from_str::<Value>(&original).expect("JSON")["text_config"].take();
    text["tie_word_embeddings"] = json!(true);
    let mut config: Value = serde_json::from_str(&original).expect("JSON");
    config["text_config"] = text;
    let mut tensors = named_tensors(&base_model());
    tensors.retain(|(name, _)| !name.contains("lm_head"));
    write_checkpoint(&place.path().join("model"), &config, &tensors, StoredDtype::F32)
        .expect("writable");
    insta::assert_snapshot!(refusal("projector", &APPLY), @"ADAPTER/adapter_model.safetensors changes lm_head, which in this model is the embedding table itself (tie_word_embeddings)");
    fs::write(&path, &original).expect("writable");

    let mut tensors = named_tensors(&base_model());
    let (name, tensor) = &mut tensors[0];
    *tensor = TensorData::new(vec![70_000.0_f32; tensor.num_elements()], tensor.shape().to_vec());
    let name = name.clone();
    let config = serde_json::from_str(&original).expect("JSON");
    write_checkpoint(&place.path().join("model"), &config, &tensors, StoredDtype::F32)
        .expect("writable");
    let options = MergeOptions { dtype: Some(StoredDtype::F16), ..APPLY };
    assert_eq!(
        refusal("layers", &options),
        format!(
            "DIR/model/model.safetensors: tensor `{name}` holds values beyond the range of float16"
        )
    );
    assert!(!output(&place).exists());
}
