//! What is wrong with a safetensors file that the format's own reader refuses, with the tensor it is about.

use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The key of a header that describes no tensor.
const METADATA: &str = "__metadata__";

/// What a file is instead, if that can be told from its beginning.
pub(super) fn other_content(bytes: &[u8]) -> Option<&'static str> {
    let signatures: [(&[u8], &str); 5] = [
        (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for"),
        (b"<", "a web page"),
        (b"PK\x03\x04", "a ZIP archive, as PyTorch pickles are"),
        (b"\x80", "a Python pickle"),
        (b"{", "JSON"),
    ];
    signatures.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, name)| *name)
}

/// The first tensor of a header that is described wrongly, and how; `None` if it is the header as a whole
/// that is wrong.
pub(super) fn of_header(header: &[u8]) -> Option<String> {
    let header: Map<String, Value> = serde_json::from_slice(header).ok()?;
    let mut tensors = Vec::new();
    for (name, info) in header.iter().filter(|(name, _)| *name != METADATA) {
        match TensorInfo::deserialize(info) {
            Ok(info) => tensors.push((name, info)),
            Err(error) => return Some(format!("tensor `{name}`: {}", first_part(&error))),
        }
    }
    tensors.iter().find_map(|(name, info)| of_tensor(name, info)).or_else(|| of_order(tensors))
}

/// The reader lists every dtype there is, which is more than anyone wants to know.
fn first_part(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(", expected one of").next().unwrap_or(&text).to_owned()
}

/// A tensor whose place is not as long as its shape and type say.
fn of_tensor(name: &str, info: &TensorInfo) -> Option<String> {
    let (start, end) = info.data_offsets;
    let (dtype, shape) = (info.dtype, &info.shape);
    if end < start {
        return Some(format!("tensor `{name}` ends at byte {end}, before it begins at {start}"));
    }
    let count = shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size));
    let Some(bits) = count.and_then(|count| count.checked_mul(dtype.bitsize())) else {
        return Some(format!("tensor `{name}` of shape {shape:?} is larger than any memory"));
    };
    let (needed, given) = (bits / 8, end - start);
    (needed != given).then(|| {
        format!(
            "tensor `{name}` of dtype {dtype} and shape {shape:?} takes {needed} bytes, but its place is \
             {given} bytes long"
        )
    })
}

/// Two tensors that overlap or leave a gap.
fn of_order(mut tensors: Vec<(&String, TensorInfo)>) -> Option<String> {
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let (mut before, mut end) = (None::<&str>, 0);
    for (name, info) in &tensors {
        let (start, next) = info.data_offsets;
        if start != end {
            let what = if start < end { "overlaps" } else { "leaves a gap after" };
            let before = before.map_or_else(|| "the header".to_owned(), |name| format!("`{name}`"));
            return Some(format!("tensor `{name}` {what} {before}"));
        }
        (before, end) = (Some(name.as_str()), next);
    }
    None
}
