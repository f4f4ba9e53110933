//! Safetensors files: precisions, shards, and every way a file can be damaged.

use std::fs;
use std::path::Path;

use burn::tensor::{DType, TensorData};
use fisao_formats::FormatError;
use fisao_formats::checkpoint::LLAVA_LAYOUT;
use fisao_formats::weights::{
    Layout, LoadDtype, SafetensorsSource, StoredDtype, WEIGHTS_FILE, write_safetensors,
};
use fisao_models::weights::{Init, WeightError, WeightSource};
use serde_json::json;
use tempfile::{TempDir, tempdir};

use crate::message;

/// 1/3 and 1000.1 rounded to the nearest f16 and bf16 value, by hand from the formats' definitions:
/// f16 has 11 significant bits (steps of 2⁻¹² near 1/3, of ½ near 1000), bf16 has 8 (2⁻⁹ and 4).
const VALUES: [f32; 2] = [1.0 / 3.0, 1000.1];
const AS_F16: [f32; 2] = [1365.0 / 4096.0, 1000.0];
const AS_BF16: [f32; 2] = [171.0 / 512.0, 1000.0];

fn write(path: &Path, tensors: &[(&str, TensorData)], dtype: StoredDtype) {
    let tensors = tensors.iter().map(|(name, data)| (*name, data));
    write_safetensors(path, tensors, dtype).expect("a writable folder");
}

fn one_tensor(dtype: StoredDtype) -> TempDir {
    let folder = tempdir().expect("a temporary folder");
    let data = TensorData::new(VALUES.to_vec(), [1, 2]);
    write(&folder.path().join(WEIGHTS_FILE), &[("a.weight", data)], dtype);
    folder
}

fn open(folder: &TempDir, dtype: LoadDtype) -> Result<SafetensorsSource, FormatError> {
    SafetensorsSource::open(folder.path(), Layout::CONTRASTIVE, dtype)
}

fn ask(
    source: &mut SafetensorsSource,
    name: &str,
    shape: &[usize],
) -> Result<TensorData, WeightError> {
    source.tensor(name, shape, Init::Zeros)
}

#[test]
fn every_stored_dtype_is_rounded_and_read_back() {
    let cases = [
        (StoredDtype::F32, VALUES, DType::F32),
        (StoredDtype::F16, AS_F16, DType::F16),
        (StoredDtype::Bf16, AS_BF16, DType::BF16),
    ];
    for (stored, expected, dtype) in cases {
        let folder = one_tensor(stored);
        let mut source = open(&folder, LoadDtype::F32).expect("a whole file");
        let data = ask(&mut source, "a.weight", &[1, 2]).expect("the tensor is there");
        assert_eq!(data.try_to_vec::<f32>().expect("f32"), expected, "{stored:?}");
        let mut source = open(&folder, LoadDtype::AsStored).expect("a whole file");
        let data = ask(&mut source, "a.weight", &[1, 2]).expect("the tensor is there");
        assert_eq!(data.dtype(), dtype);
        assert_eq!(data.convert::<f32>().try_to_vec::<f32>().expect("f32"), expected, "{stored:?}");
    }
}

#[test]
fn long_half_precision_tensors_are_converted_to_the_last_value() {
    // Longer than one conversion block, and not a multiple of it.
    let values = (0..10_001).map(|index| (index % 2048) as f32).collect::<Vec<_>>();
    let folder = tempdir().expect("a temporary folder");
    let data = TensorData::new(values.clone(), [values.len()]);
    write(&folder.path().join(WEIGHTS_FILE), &[("a", data)], StoredDtype::F16);
    let mut source = open(&folder, LoadDtype::F32).expect("a whole file");
    let read = ask(&mut source, "a", &[values.len()]).expect("the tensor is there");
    assert_eq!(read.try_to_vec::<f32>().expect("f32"), values);
}

#[test]
fn scalar_is_read_with_and_without_dimensions() {
    let folder = tempdir().expect("a temporary folder");
    let data = TensorData::new(vec![2.5_f32], Vec::<usize>::new());
    write(&folder.path().join(WEIGHTS_FILE), &[("logit_scale", data)], StoredDtype::F32);
    for shape in [&[] as &[usize], &[1]] {
        let mut source = open(&folder, LoadDtype::F32).expect("a whole file");
        let read = ask(&mut source, "logit_scale", shape).expect("one value is one value");
        assert_eq!(read.shape().to_vec(), shape);
        assert_eq!(read.try_to_vec::<f32>().expect("f32"), [2.5]);
    }
}

#[test]
fn unused_tensors_are_reported_except_constants() {
    let folder = tempdir().expect("a temporary folder");
    let data = || TensorData::new(vec![1.0_f32], [1]);
    let tensors = [
        ("used", data()),
        ("text_model.embeddings.position_ids", data()),
        ("layers.0.self_attn.rotary_emb.inv_freq", data()),
        ("z", data()),
        ("unknown", data()),
    ];
    write(&folder.path().join(WEIGHTS_FILE), &tensors, StoredDtype::F32);
    let mut source = open(&folder, LoadDtype::F32).expect("a whole file");
    ask(&mut source, "used", &[1]).expect("the tensor is there");
    assert_eq!(source.finish(), ["unknown", "z"]);
}

#[test]
fn missing_and_misshapen_tensors_are_reported_with_their_file() {
    let folder = one_tensor(StoredDtype::F32);
    let mut source = open(&folder, LoadDtype::F32).expect("a whole file");
    let missing = ask(&mut source, "b.weight", &[1, 2]).expect_err("there is no b");
    let misshapen = ask(&mut source, "a.weight", &[2, 2]).expect_err("a is 1×2");
    assert_eq!(
        message::<()>(Err(source.explain(missing)), &folder),
        "DIR/model.safetensors has no tensor `b.weight`"
    );
    let misshapen = source.explain(misshapen);
    assert!(misshapen.hint().is_some_and(|hint| hint.contains("same model")));
    assert_eq!(
        message::<()>(Err(misshapen), &folder),
        "DIR/model.safetensors: tensor `a.weight` has shape [1, 2], but the configuration needs [2, 2]"
    );
}

#[test]
fn integer_tensors_are_refused_as_weights() {
    let folder = tempdir().expect("a temporary folder");
    let header = json!({ "a": { "dtype": "I64", "shape": [1], "data_offsets": [0, 8] } });
    write_raw(&folder.path().join(WEIGHTS_FILE), &header.to_string(), &[0; 8]);
    let mut source = open(&folder, LoadDtype::F32).expect("a whole file");
    let error = ask(&mut source, "a", &[1]).expect_err("integers are no weights");
    assert_eq!(
        message::<()>(Err(source.explain(error)), &folder),
        "DIR/model.safetensors: tensor `a` has dtype I64, but only F32, F16 and BF16 are read"
    );
}

#[test]
fn truncated_file_error_states_both_lengths() {
    let folder = one_tensor(StoredDtype::F32);
    let path = folder.path().join(WEIGHTS_FILE);
    let whole = fs::read(&path).expect("the file is there");
    // Within the data, within the header, within the header's length, and nothing at all.
    let header = u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
    for (kept, promised) in [(whole.len() - 1, whole.len()), (20, 8 + header), (5, 8), (0, 8)] {
        fs::write(&path, &whole[..kept]).expect("a writable folder");
        let error = open(&folder, LoadDtype::F32);
        assert!(error.as_ref().is_err_and(|error| error.hint().is_some()));
        assert_eq!(
            message(error, &folder),
            format!(
                "DIR/model.safetensors is truncated: its header promises {promised} bytes, \
                 the file has {kept}"
            )
        );
    }
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(&path, longer).expect("a writable folder");
    assert!(message(open(&folder, LoadDtype::F32), &folder).contains("has trailing bytes"));
}

#[test]
fn damaged_headers_are_refused_without_panic() {
    let info = |dtype: &str, shape: &str, start: u64, end: u64| {
        format!(r#""dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]"#)
    };
    let two = |a: String, b: String| format!(r#"{{"a":{{{a}}},"b":{{{b}}}}}"#);
    let one = |a: String| format!(r#"{{"a":{{{a}}}}}"#);
    let headers = [
        ("not JSON", "nonsense".to_owned()),
        ("overlap", two(info("F32", "[2]", 0, 8), info("F32", "[2]", 4, 12))),
        ("gap", two(info("F32", "[1]", 0, 4), info("F32", "[1]", 8, 12))),
        ("reversed offsets", one(info("F32", "[1]", 8, 4))),
        ("shape against length", one(info("F32", "[3]", 0, 8))),
        ("shape that overflows", one(info("F32", "[9223372036854775807,4]", 0, 8))),
        ("offset beyond any file", one(info("U8", "[18446744073709551615]", 0, u64::MAX))),
        ("negative shape", one(info("F32", "[-1]", 0, 4))),
        ("unknown dtype", one(info("F33", "[1]", 0, 4))),
        ("an array", "[]".to_owned()),
    ];
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join(WEIGHTS_FILE);
    for (what, header) in headers {
        write_raw(&path, &header, &[0; 12]);
        let said = message(open(&folder, LoadDtype::F32), &folder);
        assert!(said.starts_with("DIR/model.safetensors is "), "{what}: {said}");
    }
    fs::write(&path, u64::MAX.to_le_bytes()).expect("a writable folder");
    let said = message(open(&folder, LoadDtype::F32), &folder);
    assert!(said.contains("header length of 18446744073709551615 bytes"), "{said}");
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = tempdir().expect("a temporary folder");
    let shard = |name: &str| folder.path().join(name);
    let data = |value: f32| TensorData::new(vec![value], [1]);
    write(&shard("model-00001-of-00002.safetensors"), &[("a", data(1.0))], StoredDtype::F32);
    write(&shard("model-00002-of-00002.safetensors"), &[("b", data(2.0))], StoredDtype::F32);
    let index = |b: &str| {
        json!({ "metadata": { "total_size": 8 },
                "weight_map": { "a": "model-00001-of-00002.safetensors", "b": b } })
    };
    let write_index = |b: &str| {
        fs::write(shard("model.safetensors.index.json"), index(b).to_string())
            .expect("a writable folder");
    };

    write_index("model-00002-of-00002.safetensors");
    let mut source = open(&folder, LoadDtype::F32).expect("two whole shards");
    let b = ask(&mut source, "b", &[1]).expect("the tensor is there");
    assert_eq!(b.try_to_vec::<f32>().expect("f32"), [2.0]);
    assert_eq!(source.finish(), ["a"]);

    write_index("model-00003-of-00003.safetensors");
    assert_eq!(
        message(open(&folder, LoadDtype::F32), &folder),
        "no weights file at DIR/model-00003-of-00003.safetensors"
    );
    write_index("model-00001-of-00002.safetensors");
    assert_eq!(
        message(open(&folder, LoadDtype::F32), &folder),
        "DIR/model-00001-of-00002.safetensors has no tensor `b`"
    );
}

#[test]
fn two_spellings_of_one_tensor_are_refused() {
    let folder = tempdir().expect("a temporary folder");
    let data = || TensorData::new(vec![1.0_f32], [1]);
    let tensors = [("lm_head.weight", data()), ("language_model.lm_head.weight", data())];
    write(&folder.path().join(WEIGHTS_FILE), &tensors, StoredDtype::F32);
    let result = SafetensorsSource::open(folder.path(), LLAVA_LAYOUT, LoadDtype::F32);
    let said = message(result, &folder);
    assert!(said.contains("both `language_model.lm_head.weight`"), "{said}");
}

#[test]
fn pickles_are_rejected_with_a_hint() {
    let folder = tempdir().expect("a temporary folder");
    fs::write(folder.path().join("pytorch_model.bin"), b"\x80\x02").expect("a writable folder");
    let error = open(&folder, LoadDtype::F32).expect_err("pickles run code");
    assert!(error.hint().is_some_and(|hint| hint.contains("safe_serialization")));
    assert!(error.to_string().contains("pytorch_model.bin"));
}

fn write_raw(path: &Path, header: &str, data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    fs::write(path, bytes).expect("a writable folder");
}
