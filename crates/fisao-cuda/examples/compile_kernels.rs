//! Compiles all kernels by NVRTC for every architecture and element type, and prints how long that takes and how large they are.
//!
//! No card is needed, only NVRTC: `pip install nvidia-cuda-nvrtc` in an active virtual environment.

use std::time::Instant;

use fisao_cuda::{Architecture, CudaError, Storage, compile_cubin, kernel_names, nvrtc_version};

#[expect(clippy::print_stdout, reason = "that is what the example is for")]
fn main() -> Result<(), CudaError> {
    let [major, minor] = nvrtc_version()?;
    println!("NVRTC {major}.{minor}, {} kernels", kernel_names().len());
    for [major, minor] in [[8, 0], [8, 9], [9, 0]] {
        for storage in [Storage::F32, Storage::F16, Storage::Bf16] {
            let start = Instant::now();
            let architecture = Architecture { major, minor };
            let cubin = compile_cubin(storage, architecture)?;
            let seconds = start.elapsed().as_secs_f64();
            println!("{architecture} {storage:?}: {} KiB, {seconds:.1} s", cubin.code.len() >> 10);
        }
    }
    Ok(())
}
