//! What build this is, and what it finds on this machine.

use std::env::consts::{ARCH, OS};
use std::sync::LazyLock;

use fisao_models::parallel::{cores, instruction_set};

/// Devices of every build, by their names of `--device`.
const ALWAYS: [&str; 2] = ["cpu", "cuda"];

/// Devices besides, by the names of their features and of `--device`.
const FEATURES: [(&str, bool); 2] =
    [("metal", cfg!(feature = "metal")), ("vulkan", cfg!(feature = "vulkan"))];

/// What `--version` says; `-V` says the first line.
static LONG: LazyLock<String> = LazyLock::new(|| {
    let built: Vec<&str> =
        FEATURES.into_iter().filter(|(_, built)| *built).map(|(name, _)| name).collect();
    let features = if built.is_empty() { "none".to_owned() } else { built.join(", ") };
    let devices = [&ALWAYS[..], &built[..]].concat().join(", ");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let found: Vec<String> = instructions()
        .into_iter()
        .map(|(name, found)| format!("{name} {}", if found { "yes" } else { "no" }))
        .collect();
    let found = if found.is_empty() { "none looked for".to_owned() } else { found.join(", ") };
    format!(
        "{}\nbuild:    {profile}, {ARCH} {OS}\nfeatures: {features}\ndevices:  {devices}\n\
         CPU:      {found}; kernels use {}; cores: {}",
        env!("CARGO_PKG_VERSION"),
        instruction_set(),
        cores(),
    )
});

/// What `--version` prints behind the program's name.
pub(crate) fn long() -> &'static str {
    &LONG
}

/// Instructions that matter to the kernels, and whether this processor has them.
#[cfg(target_arch = "x86_64")]
fn instructions() -> Vec<(&'static str, bool)> {
    vec![
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("AVX-512F", is_x86_feature_detected!("avx512f")),
        ("AVX-512BW", is_x86_feature_detected!("avx512bw")),
        ("AVX-512VNNI", is_x86_feature_detected!("avx512vnni")),
        ("AVX-512BF16", is_x86_feature_detected!("avx512bf16")),
        ("AMX-BF16", fisao_models::parallel::multiplies_in_tiles()),
    ]
}

/// Instructions that matter to the kernels, and whether this processor has them.
#[cfg(not(target_arch = "x86_64"))]
fn instructions() -> Vec<(&'static str, bool)> {
    Vec::new()
}
