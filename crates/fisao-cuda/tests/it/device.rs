//! A driver for tests, and values for it.

use std::sync::{Arc, OnceLock};

use fisao_cuda::{
    Buffer, Card, CubinCache, CudaError, Driver, Host, HostKernels, HostOptions, Matrix, Product,
    Storage,
};

/// All element types.
pub(crate) const STORAGES: [Storage; 3] = [Storage::F32, Storage::F16, Storage::Bf16];

/// Kernels that all tests of this program share.
fn kernels() -> Option<Arc<HostKernels>> {
    static KERNELS: OnceLock<Option<Arc<HostKernels>>> = OnceLock::new();
    let compile = || {
        let folder = tempfile::tempdir().expect("a folder");
        match HostKernels::compile(folder.path(), &STORAGES, &HostOptions::default()) {
            Ok(kernels) => Some(Arc::new(kernels)),
            Err(CudaError::HostCompiler { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    };
    KERNELS.get_or_init(compile).clone()
}

/// What kernels run on: the CPU, or, where `FISAO_TEST_CARD` is the number of one, a card.
pub(crate) fn driver(test: &str) -> Option<Box<dyn Driver>> {
    if let Ok(ordinal) = std::env::var("FISAO_TEST_CARD") {
        static CACHE: OnceLock<tempfile::TempDir> = OnceLock::new();
        let folder = CACHE.get_or_init(|| tempfile::tempdir().expect("a folder"));
        let ordinal = ordinal.parse().expect("FISAO_TEST_CARD is the number of a card");
        let card = Card::new(ordinal, &STORAGES, &CubinCache::new(folder.path()));
        return Some(Box::new(card.expect("a card")));
    }
    let kernels = kernels();
    if kernels.is_none() {
        skipped(test, "no C++ compiler");
    }
    kernels.map(|kernels| -> Box<dyn Driver> { Box::new(Host::new(kernels, 1 << 32)) })
}

#[expect(clippy::print_stderr, reason = "a test says that it was skipped")]
pub(crate) fn skipped(test: &str, why: &str) {
    eprintln!("skipped: {why}: {test}");
}

/// Numbers from −1 to 1 that look random, the same for the same seed.
pub(crate) fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The same, rounded to a type.
pub(crate) fn rounded(seed: u64, count: usize, storage: Storage) -> Vec<f32> {
    storage.widened(&storage.narrowed(&values(seed, count)))
}

pub(crate) fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

pub(crate) fn upload(driver: &mut dyn Driver, storage: Storage, values: &[f32]) -> Buffer {
    upload_bytes(driver, &storage.narrowed(values))
}

pub(crate) fn upload_ints(driver: &mut dyn Driver, values: &[i32]) -> Buffer {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    upload_bytes(driver, &bytes)
}

fn upload_bytes(driver: &mut dyn Driver, bytes: &[u8]) -> Buffer {
    let buffer = driver.reserve(bytes.len()).expect("memory");
    driver.upload(buffer, bytes).expect("uploaded");
    buffer
}

/// Room for so many elements, full of NaN.
pub(crate) fn room(driver: &mut dyn Driver, storage: Storage, count: usize) -> Buffer {
    driver.reserve(count * storage.bytes()).expect("memory")
}

pub(crate) fn download(driver: &mut dyn Driver, storage: Storage, buffer: Buffer) -> Vec<f32> {
    let mut bytes = vec![0; buffer.bytes()];
    driver.download(buffer, &mut bytes).expect("downloaded");
    storage.widened(&bytes)
}

/// How far results may be from those in f64, relative to the largest: a few roundings of the type.
pub(crate) fn tolerance(storage: Storage) -> f64 {
    match storage {
        Storage::F32 => 3e-6,
        Storage::F16 => 1.5e-3,
        Storage::Bf16 => 1.2e-2,
    }
}

/// Panics where a value is further from what is expected than `tolerance` times the largest.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3_f64, |most, x| most.max(x.abs()));
    for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs() / largest;
        assert!(error <= tolerance, "{what}: element {at} is {found}, expected {expected}");
    }
}

/// Any product of matrices, for tests.
pub(crate) fn product(driver: &mut dyn Driver, a: Matrix, b: Matrix, out: Matrix) {
    let product = Product { a, b, out, scale: 1.0, accumulate: false };
    driver.product(&product).expect("a product");
}
