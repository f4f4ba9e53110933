//! The kernels as machine code of the architectures that are supported.

use fisao_cuda::{Architecture, compile_cubin, kernel_names, nvrtc_version};

use crate::device::{STORAGES, skipped};

/// Each architecture once and each element type once; `cargo run -p fisao-cuda --example compile_kernels` compiles all of them for all.
#[test]
fn kernels_compile_for_every_architecture() {
    if let Err(error) = nvrtc_version() {
        skipped("kernels_compile_for_every_architecture", &error.to_string());
        return;
    }
    std::thread::scope(|scope| {
        for ([major, minor], storage) in [[8, 0], [8, 9], [9, 0]].into_iter().zip(STORAGES) {
            scope.spawn(move || {
                let architecture = Architecture { major, minor };
                let cubin = compile_cubin(storage, architecture).expect("valid CUDA C");
                let what = format!("{architecture}, {storage:?}");
                for name in kernel_names() {
                    let section = format!(".text.{name}");
                    let mut parts = cubin.code.windows(section.len());
                    let found = parts.any(|part| part == section.as_bytes());
                    assert!(found, "`{name}` is not in the code for {what}");
                    let of = cubin.resources.iter().find(|of| of.name == name);
                    let of = of.unwrap_or_else(|| panic!("`{name}` is not in the report"));
                    assert_eq!(of.stack_bytes, 0, "`{name}` uses local memory, {what}");
                    // A block has 65,536 registers; the sampler's has 512 threads, no other more than 256.
                    let most = if name == "sample" { 128 } else { 255 };
                    assert!(of.registers > 0 && of.registers <= most, "{of:?}, {what}");
                }
            });
        }
    });
}

#[test]
fn kernel_names_are_those_of_the_source() {
    let names = kernel_names();
    for name in ["rms_norm", "attention_prefill_64", "attention_by_keys_128", "attention_decode_80"]
    {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
}
