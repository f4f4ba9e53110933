//! The text of the kernels.

use crate::{CudaError, Storage};

/// Every file of kernels with its name, the first what the others share.
const FILES: [(&str, &str); 10] = [
    ("prelude.cu", include_str!("../kernels/prelude.cu")),
    ("norm.cu", include_str!("../kernels/norm.cu")),
    ("activation.cu", include_str!("../kernels/activation.cu")),
    ("rows.cu", include_str!("../kernels/rows.cu")),
    ("rotary.cu", include_str!("../kernels/rotary.cu")),
    ("attention_prefill.cu", include_str!("../kernels/attention_prefill.cu")),
    ("attention_backward.cu", include_str!("../kernels/attention_backward.cu")),
    ("attention_decode.cu", include_str!("../kernels/attention_decode.cu")),
    ("log_probs.cu", include_str!("../kernels/log_probs.cu")),
    ("sample.cu", include_str!("../kernels/sample.cu")),
];

/// What stands before the kernels where they are compiled for the CPU.
pub(crate) const HOST_HEADER: &str = include_str!("../kernels/host.h");

/// Widths of heads that attention is compiled for. A head of another width takes the next one, and the rest of it is zero.
pub const HEAD_SIZES: [usize; 5] = [32, 64, 80, 96, 128];

/// The text of all kernels, CUDA C without headers.
pub fn kernel_source() -> String {
    let mut text = String::new();
    for (name, part) in FILES {
        text.push_str("#line 1 \"");
        text.push_str(name);
        text.push_str("\"\n");
        text.push_str(part);
        text.push('\n');
    }
    text
}

/// Options that both compilers take for an element type.
pub(crate) fn define(storage: Storage) -> String {
    format!("-DSTORAGE={}", storage.define())
}

/// Names of all kernels.
pub fn kernel_names() -> Vec<String> {
    let mut names = Vec::new();
    for line in FILES.iter().flat_map(|(_, text)| text.lines()) {
        // Those made by a macro for each width of heads begin with its name instead.
        if let Some(rest) = line.strip_prefix("KERNEL(") {
            names.extend(rest.split(',').next().map(str::to_owned));
        } else if let Some((name, rest)) = line.split_once('(')
            && name.starts_with("ATTENTION_")
            && let Some(width) = rest.strip_suffix(')')
        {
            names.push(format!("{}_{width}", name.to_lowercase()));
        }
    }
    names
}

/// The width that attention is compiled for that a head takes.
///
/// # Errors
/// [`CudaError::Unsupported`] for a head that is wider than all.
pub(crate) fn compiled_head_size(head_size: usize) -> Result<usize, CudaError> {
    let found = HEAD_SIZES.into_iter().find(|&compiled| compiled >= head_size);
    found.filter(|_| head_size > 0 && head_size.is_multiple_of(2)).ok_or(CudaError::Unsupported {
        what: "the width of a head",
        found: head_size.to_string(),
        supported: "even widths up to 128",
    })
}
