//! Where models run: the CPU, or what `--device` names.
//!
//! Under `cuda` the tensors stay on the CPU; decoders and image encoders are copied to the card, and run there.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::{self, Display};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;
use burn::tensor::{DType, Device};
use fisao_align::Warning;
use fisao_cuda::{
    Card, CubinCache, CudaError, Driver, Failing, FirstFailure, Host, HostKernels, HostMemory,
    HostOptions, Storage,
};
use fisao_formats::checkpoint::Checkpoint;
use fisao_formats::documents::read_json;
use fisao_formats::run_folder::RunFolder;
use fisao_formats::weights::LoadDtype;
use fisao_models::card_part::LeftOnCpu;
use fisao_models::contrastive::ContrastiveModel;
use fisao_models::parallel::{cores, instruction_set};
use fisao_models::vision::VisionTower;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::weights::is_held;
use serde::{Deserialize, Serialize};

use crate::cache_folder::cache_folder;
use crate::failure::Refusal;
use crate::reporter::Reporter;

/// File of a run's [`DeviceRecord`].
pub const FILE: &str = "device.json";

/// With the value 1, kernels of `cuda` are compiled by the machine's C++ compiler and run on the CPU: for tests of whole commands. A larger
/// value is the memory of such a device, KiB.
const HOST: &str = "FISAO_CUDA_HOST";
/// With `N` such a device fails at its result number N, counted from 0; with `N@FILE` they are counted from when the file is there.
const FAILS: &str = "FISAO_CUDA_HOST_FAILS";
/// What such a device calls itself.
const HOST_NAME: &str = "CUDA kernels compiled as C++, on the CPU (FISAO_CUDA_HOST)";
/// Memory it has else, bytes.
const HOST_MEMORY: usize = 8 << 30;

/// What a device besides the CPU is reached through; all but `cuda`, which is in every build, are features of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// NVIDIA cards.
    Cuda,
    /// Graphics of Apple.
    Metal,
    /// Any card with a Vulkan driver.
    Vulkan,
}

impl Backend {
    /// All, in the order `auto` tries them in.
    const ALL: [Self; 3] = [Self::Cuda, Self::Metal, Self::Vulkan];

    /// Its name on the command line, and that of its feature.
    fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
        }
    }
}

/// What `--device` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first graphics card there is, or the CPU.
    Auto,
    /// The processor.
    #[default]
    Cpu,
    /// One of the devices that a backend reaches, counted from 0.
    Card(Backend, usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            _ => {}
        }
        let (name, index) = text.split_once(':').unwrap_or((text, "0"));
        let backend = Backend::ALL.into_iter().find(|backend| backend.name() == name);
        match (backend, index.parse()) {
            (Some(backend), Ok(index)) => Ok(Self::Card(backend, index)),
            _ => {
                Err("write auto, cpu, vulkan, cuda or metal; with several cards, vulkan:1 is the \
                      second"
                    .to_owned())
            }
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Card(backend, index) => write!(f, "{}:{index}", backend.name()),
        }
    }
}

/// What a run was computed on; kept in its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeviceRecord {
    /// As `--device` takes it; never `auto`.
    pub device: DeviceChoice,
    /// What it calls itself.
    pub name: Option<String>,
    /// Of runs on the CPU, or whose tensors are there; records of earlier versions do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuRecord>,
}

/// What decides in which order sums are taken on the CPU, and so their last bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CpuRecord {
    /// Cores that the process may use.
    cores: usize,
    /// As [`instruction_set`].
    instruction_set: String,
}

impl CpuRecord {
    /// This process'.
    fn here() -> Self {
        Self { cores: cores(), instruction_set: instruction_set().to_owned() }
    }
}

impl Display for CpuRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.cores == 1 { "" } else { "s" };
        write!(f, "{} core{plural} with {} instructions", self.cores, self.instruction_set)
    }
}

/// A device that answers.
#[derive(Clone, Debug)]
pub struct OpenDevice {
    /// For tensors.
    pub device: Device,
    /// For people.
    pub record: DeviceRecord,
    /// Whether it is a card, and not a program that imitates one.
    is_card: bool,
    /// What decoders and image encoders are copied to.
    card: Option<CudaDevice>,
    /// Whether decoders are.
    decodes: bool,
}

/// What runs kernels of `fisao-cuda`.
#[derive(Clone, Debug)]
enum CudaDevice {
    /// The card of this number.
    Card(usize),
    /// The CPU, see [`HOST`].
    Host {
        /// Shared by the drivers of all models.
        memory: Arc<HostMemory>,
        /// What was compiled, which takes seconds, for the drivers of further models.
        kernels: Arc<Mutex<BTreeMap<Vec<Storage>, Arc<HostKernels>>>>,
        /// When they fail.
        failure: Option<Arc<FailurePoint>>,
    },
}

/// See [`FAILS`].
#[derive(Debug)]
struct FailurePoint {
    /// Results that are left.
    left: AtomicUsize,
    /// Where it is not there yet, nothing is counted.
    file: Option<PathBuf>,
}

impl FailurePoint {
    /// That of the environment.
    fn of_environment() -> Result<Option<Self>, CudaError> {
        let Ok(text) = std::env::var(FAILS) else { return Ok(None) };
        let (count, file) = match text.split_once('@') {
            Some((count, file)) => (count, Some(PathBuf::from(file))),
            None => (text.as_str(), None),
        };
        match count.parse() {
            Ok(count) => Ok(Some(Self { left: AtomicUsize::new(count), file })),
            Err(_) => {
                Err(CudaError::Unsupported { what: FAILS, found: text, supported: "N and N@FILE" })
            }
        }
    }

    /// Counts a result; whether it is the one that fails, or one after it.
    fn is_reached(&self) -> bool {
        if self.file.as_ref().is_some_and(|file| !file.exists()) {
            return false;
        }
        let fewer = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_err()
    }
}

/// The processor.
pub fn cpu() -> Device {
    Device::flex()
}

impl DeviceChoice {
    /// Opens the device, and tells the user about it unless it is the CPU.
    ///
    /// # Errors
    /// It is not in this build, or not in this machine, or its driver fails.
    pub fn open(self, reporter: &Reporter) -> anyhow::Result<OpenDevice> {
        let opened = match self {
            Self::Cpu => None,
            Self::Auto => first_card(reporter),
            Self::Card(backend, index) => Some(open_card(backend, index)?),
        };
        if let (Self::Auto, None) = (self, &opened) {
            reporter.note("device auto: no graphics card can be used, so it is the CPU");
        }
        let Some(opened) = opened else { return Ok(OpenDevice::cpu()) };
        let DeviceRecord { device, name, .. } = &opened.record;
        let name = name.as_deref().unwrap_or("a device without a name");
        reporter.note(format!("device {device}: {name}"));
        if let Some(card) = &opened.card {
            reporter
                .note("the card runs decoders and image encoders; everything else runs on the CPU");
            if let CudaDevice::Host { .. } = card {
                reporter.warn(
                    format!("{HOST} is set: no card is used; kernels run on the CPU, very slowly"),
                    Some("this is for tests; without the variable, --device cuda is a card"),
                );
            }
            return Ok(opened);
        }
        if !opened.is_card {
            // Before the trial: such programs have crashed in it.
            reporter.warn(
                format!("{name} is a program that imitates a graphics card"),
                Some("--device cpu computes the same, faster, and more reliably"),
            );
        }
        match guarded(|| cards::try_out(&opened.device)) {
            Ok(true) => Ok(opened),
            Ok(false) => bail!(
                Refusal::new(format!("--device {device}: {name} multiplies matrices wrongly"))
                    .hint("install a newer driver, or use --device cpu")
            ),
            Err(reason) => bail!(unusable(*device, &reason)),
        }
    }
}

impl OpenDevice {
    /// The processor.
    pub fn cpu() -> Self {
        let here = Some(CpuRecord::here());
        let record = DeviceRecord { device: DeviceChoice::Cpu, name: None, cpu: here };
        Self { device: cpu(), record, is_card: false, card: None, decodes: true }
    }

    /// Whether it is the processor, and nothing else.
    pub fn is_cpu(&self) -> bool {
        self.record.device == DeviceChoice::Cpu
    }

    /// Whether models are copied to a card, and tensors stay on the CPU.
    pub fn has_card(&self) -> bool {
        self.card.is_some()
    }

    /// The same with decoders staying off the card: for what decodes nothing.
    #[must_use]
    pub fn without_decoders(&self) -> Self {
        Self { decodes: false, ..self.clone() }
    }

    /// Copies a model's decoder and image encoder to the card, if there is one. What the card cannot compute stays on the CPU, and the
    /// user is told.
    ///
    /// # Errors
    /// The card has no room for them, or its driver fails.
    pub fn copy_model(
        &self,
        model: &mut VisionLanguageModel,
        reporter: &Reporter,
    ) -> anyhow::Result<()> {
        if self.decodes {
            let decoder = model.language_model_mut();
            let storage = decoder.storage();
            let copy = |driver| decoder.use_card(driver).map(|()| Vec::new());
            self.copy(&[storage], copy, "this decoder", reporter)?;
        }
        let storages = model.image_storages();
        let copy = |driver| model.use_card_for_images(driver);
        self.copy(&storages, copy, "this image encoder", reporter)
    }

    /// The same of a contrastive model's image tower, and of BLIP-2's Q-Former; a tower that is the one `beside` it shares its copy.
    ///
    /// # Errors
    /// As [`copy_model`](Self::copy_model).
    pub fn copy_contrastive(
        &self,
        model: &mut ContrastiveModel,
        beside: Option<&VisionTower>,
        reporter: &Reporter,
    ) -> anyhow::Result<()> {
        let storages = model.image_storages();
        self.copy(&storages, |driver| model.use_card(driver, beside), "this image tower", reporter)
    }

    fn copy(
        &self,
        storages: &[Storage],
        copy: impl FnOnce(Box<dyn Driver + Send>) -> Result<Vec<LeftOnCpu>, CudaError>,
        what: &str,
        reporter: &Reporter,
    ) -> anyhow::Result<()> {
        let Some(card) = &self.card else { return Ok(()) };
        let left_out = |what: &str, reason: &CudaError| {
            reporter.warn(
                format!("the card does not compute {what}, so it runs on the CPU: {reason}"),
                None::<&str>,
            );
        };
        match card.driver(storages).and_then(copy) {
            Err(error @ CudaError::Unsupported { .. }) => left_out(what, &error),
            Err(error) => bail!(refused(self.record.device, &error)),
            Ok(left) => left.iter().for_each(|left| left_out(left.part, &left.reason)),
        }
        Ok(())
    }
}

/// Tells the user of batches that the CPU computed although the model has a card.
pub fn warn_of_batches_left_to_cpu(model: &VisionLanguageModel, reporter: &Reporter) {
    if let Some(warning) = Warning::of_batches_left_to_cpu(model, 0) {
        reporter.warn(warning.message, Some(&warning.hint));
    }
}

impl CudaDevice {
    /// Opens it with kernels for some element types.
    fn driver(&self, storages: &[Storage]) -> Result<Box<dyn Driver + Send>, CudaError> {
        let failed = |source| CudaError::Cache { path: "a temporary folder".into(), source };
        match self {
            Self::Card(ordinal) => {
                // Without a home there is no cache that lasts.
                let temporary = tempfile::tempdir().map_err(failed)?;
                let folder = cache_folder().unwrap_or_else(|| temporary.path().to_owned());
                let cache = CubinCache::new(folder.join("cuda-kernels"));
                Ok(Box::new(FirstFailure::of(Card::new(*ordinal, storages, &cache)?)))
            }
            Self::Host { memory, kernels, failure } => {
                let mut compiled = kernels.lock().unwrap_or_else(PoisonError::into_inner);
                let kernels = match compiled.entry(storages.to_vec()) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(place) => {
                        let folder = tempfile::tempdir().map_err(failed)?;
                        let options = HostOptions::default();
                        let new = HostKernels::compile(folder.path(), storages, &options)?;
                        place.insert(Arc::new(new))
                    }
                };
                let host = Host::within(Arc::clone(kernels), Arc::clone(memory));
                Ok(match failure.clone() {
                    Some(failure) => {
                        let failing = Failing::when(move || failure.is_reached(), host);
                        Box::new(FirstFailure::of(failing))
                    }
                    None => Box::new(host),
                })
            }
        }
    }
}

/// The first graphics card that answers. Where an NVIDIA card is there and does not, the user is told why.
fn first_card(reporter: &Reporter) -> Option<OpenDevice> {
    let mut all = Backend::ALL.into_iter();
    all.find_map(|backend| match backend {
        Backend::Cuda => reach_cuda(0).map_err(|error| passed_over(&error, reporter)).ok(),
        _ => open_card(backend, 0).ok().filter(|opened| opened.is_card),
    })
}

/// Says why `auto` does not take an NVIDIA card, unless there is none.
fn passed_over(error: &CudaError, reporter: &Reporter) {
    if !error.is_without_card() {
        let hint = error.hint().unwrap_or("--device cpu says that no card is wanted");
        reporter.warn(format!("device auto: the NVIDIA card is not used: {error}"), Some(hint));
    }
}

fn open_cuda(ordinal: usize) -> anyhow::Result<OpenDevice> {
    let choice = DeviceChoice::Card(Backend::Cuda, ordinal);
    Ok(reach_cuda(ordinal).map_err(|error| refused(choice, &error))?)
}

fn reach_cuda(ordinal: usize) -> Result<OpenDevice, CudaError> {
    let choice = DeviceChoice::Card(Backend::Cuda, ordinal);
    let host = std::env::var(HOST).ok().and_then(|value| value.parse::<usize>().ok());
    let (card, name) = if let Some(value) = host.filter(|value| *value > 0) {
        let memory = if value == 1 { HOST_MEMORY } else { value << 10 };
        let memory = Arc::new(HostMemory::new(memory));
        let failure = FailurePoint::of_environment()?.map(Arc::new);
        (CudaDevice::Host { memory, kernels: Arc::default(), failure }, HOST_NAME.to_owned())
    } else {
        let card = CudaDevice::Card(ordinal);
        // Kernels are compiled when the element type of a model is known.
        let driver = card.driver(&[])?;
        (card, driver.name())
    };
    // What is not done on the card is done on the CPU.
    let cpu_record = Some(CpuRecord::here());
    let record = DeviceRecord { device: choice, name: Some(name), cpu: cpu_record };
    Ok(OpenDevice { device: cpu(), record, is_card: true, card: Some(card), decodes: true })
}

/// What is wrong with a card; errors that say what to do have it in their last line.
fn refused(choice: DeviceChoice, error: &CudaError) -> Refusal {
    let hint = error.hint().unwrap_or("--device cpu needs no card");
    Refusal::new(format!("--device {choice}: {error}")).hint(hint)
}

/// The device of a resumed run: the one it was begun on, unless another is asked for.
///
/// # Errors
/// As [`DeviceChoice::open`]; the run's record cannot be read.
pub fn of_run(
    folder: &RunFolder,
    asked: Option<DeviceChoice>,
    reporter: &Reporter,
) -> anyhow::Result<OpenDevice> {
    let path = folder.path(FILE);
    // Runs of earlier versions knew the CPU only.
    let begun = if path.exists() {
        read_json::<DeviceRecord>("record of the device", &path)?
    } else {
        DeviceRecord { device: DeviceChoice::Cpu, name: None, cpu: None }
    };
    let opened = asked.unwrap_or(begun.device).open(reporter)?;
    if let Some((before, now)) = difference(&begun, &opened.record) {
        reporter.warn(
            format!("{} was started on {before} and resumes with {now}", folder.root().display()),
            Some("sums are rounded differently: the numbers will not be those of an uninterrupted run"),
        );
    }
    Ok(opened)
}

/// How two records differ in what decides the last bits of a result.
fn difference(begun: &DeviceRecord, now: &DeviceRecord) -> Option<(String, String)> {
    if begun.device != now.device {
        return Some((begun.device.to_string(), now.device.to_string()));
    }
    if let (Some(before), Some(now)) = (&begun.name, &now.name)
        && before != now
    {
        return Some((before.clone(), now.clone()));
    }
    let (before, now) = (begun.cpu.as_ref()?, now.cpu.as_ref()?);
    (before != now).then(|| (before.to_string(), now.to_string()))
}

fn open_card(backend: Backend, index: usize) -> anyhow::Result<OpenDevice> {
    if backend == Backend::Cuda {
        return open_cuda(index);
    }
    let (choice, name) = (DeviceChoice::Card(backend, index), backend.name());
    let reached = guarded(|| cards::reach(backend));
    let devices = match reached {
        Ok(Some(devices)) => devices,
        Ok(None) => bail!(
            Refusal::new(format!("--device {choice}: this build of fisao has no {name}")).hint(
                format!("build it with `cargo install --path crates/fisao --features {name}`")
            )
        ),
        Err(reason) => bail!(unusable(choice, &reason)),
    };
    let Some(device) = devices.get(index) else {
        let found = match devices.len() {
            0 => format!("{name} reaches no device"),
            1 => format!("{name} reaches one device, {name}:0"),
            count => format!("{name} reaches {count} devices, {name}:0 to {name}:{}", count - 1),
        };
        bail!(
            Refusal::new(format!("--device {choice}: {found}"))
                .hint("is the card's driver installed? --device cpu needs none")
        );
    };
    let (name, is_card) = match guarded(|| cards::identify(device)) {
        Ok(answer) => answer,
        Err(reason) => bail!(unusable(choice, &reason)),
    };
    let record = DeviceRecord { device: choice, name, cpu: None };
    Ok(OpenDevice { device: device.clone(), record, is_card, ..OpenDevice::cpu() })
}

fn unusable(choice: DeviceChoice, reason: &str) -> Refusal {
    Refusal::new(format!("--device {choice} cannot be used: {reason}"))
        .hint("is the card's driver installed and recent? --device cpu needs none")
}

/// Runs what reaches into a driver. burn panics where one fails; here that is an answer.
fn guarded<T>(reach: impl FnOnce() -> T) -> Result<T, String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(AssertUnwindSafe(reach));
    panic::set_hook(hook);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        text.unwrap_or("its driver failed").to_owned()
    })
}

/// Refuses a precision that is asked for and that the device does not have, and tells the user where
/// stored weights take more room on it than in their file.
///
/// # Errors
/// `dtype` names such a precision; the weights cannot be opened.
pub(crate) fn check_precision(
    checkpoint: &Checkpoint,
    dtype: LoadDtype,
    device: &Device,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let held = |dtype| is_held(dtype, device);
    let (bf16, f16) = (held(DType::BF16), held(DType::F16));
    let refused = match dtype {
        LoadDtype::Bf16 if !bf16 => "bf16",
        LoadDtype::F16 if !f16 => "f16",
        LoadDtype::AsStored if !(bf16 && f16) => {
            return note_widened(checkpoint, [("BF16", bf16), ("F16", f16)], reporter);
        }
        _ => return Ok(()),
    };
    let other = if f16 { "--dtype f16 or --dtype f32" } else { "--dtype f32" };
    bail!(
        Refusal::new(format!("--dtype {refused}: the device does not compute with such weights"))
            .hint(format!("use {other}, or --device cpu"))
    )
}

/// Tells the user which of the stored weights the device holds in f32.
fn note_widened(
    checkpoint: &Checkpoint,
    held: [(&str, bool); 2],
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let source = checkpoint.weights(LoadDtype::AsStored)?;
    let sizes = source.sizes();
    for (dtype, _) in held.into_iter().filter(|(_, held)| !held) {
        let stored = sizes.iter().filter(|(_, name, ..)| name == dtype);
        let bytes: u64 = stored.map(|&(_, _, bytes, _)| bytes).sum();
        if bytes > 0 {
            reporter.note(format!(
                "{}: the device does not compute with {dtype}, so {:.2} GB of weights are held as \
                 f32, in twice the memory",
                checkpoint.folder().display(),
                bytes as f64 / 1e9
            ));
        }
    }
    Ok(())
}

/// What burn offers besides the CPU.
#[cfg(any(feature = "metal", feature = "vulkan"))]
mod cards {
    use burn::tensor::{Device, DeviceType};
    use fisao_models::parameters::{floats, from_floats};

    use super::Backend;

    /// The devices that a backend reaches, cards before programs that imitate one; `None` where the
    /// backend is not in this build.
    pub(super) fn reach(backend: Backend) -> Option<Vec<Device>> {
        let kind = match backend {
            #[cfg(feature = "metal")]
            Backend::Metal => DeviceType::Metal,
            #[cfg(feature = "vulkan")]
            Backend::Vulkan => DeviceType::Vulkan,
            // `cuda` is not burn's.
            _ => return None,
        };
        Some(Device::enumerate(kind).iter().cloned().collect())
    }

    /// Opens a device. Returns its name, and whether it is a card.
    pub(super) fn identify(device: &Device) -> (Option<String>, bool) {
        match device.identity() {
            Some(identity) => (Some(identity.name), identity.physical.is_some()),
            None => (None, true),
        }
    }

    /// Whether products of small whole numbers, which every precision holds, come out right: one of
    /// many rows and one of a single row, for which there are different kernels. Drivers that burn's
    /// shaders do not suit compute something else without a word.
    pub(super) fn try_out(device: &Device) -> bool {
        [[33, 47, 29], [1, 64, 40]].into_iter().all(|[rows, inner, columns]| {
            let whole = |count: usize| (0..count).map(|at| (at * 7 % 11) as f32 - 5.0);
            let (a, b): (Vec<f32>, Vec<f32>) =
                (whole(rows * inner).collect(), whole(inner * columns).collect());
            let expected = (0..rows * columns).map(|at| {
                let (row, column) = (at / columns, at % columns);
                (0..inner).map(|k| a[row * inner + k] * b[k * columns + column]).sum::<f32>()
            });
            let expected: Vec<f32> = expected.collect();
            let a = from_floats(a, [rows, inner], device);
            floats::<2>(&a.matmul(from_floats(b, [inner, columns], device))) == expected
        })
    }
}

/// What burn offers besides the CPU: nothing, in this build.
#[cfg(not(any(feature = "metal", feature = "vulkan")))]
mod cards {
    use burn::tensor::Device;

    use super::Backend;

    pub(super) fn reach(_: Backend) -> Option<Vec<Device>> {
        None
    }

    pub(super) fn identify(_: &Device) -> (Option<String>, bool) {
        unreachable!("no device was reached")
    }

    pub(super) fn try_out(_: &Device) -> bool {
        unreachable!("no device was reached")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::reporter::Event;

    #[test]
    fn device_names_are_parsed_and_formatted() {
        let choice = |text: &str| text.parse::<DeviceChoice>().unwrap();
        assert_eq!(choice("auto"), DeviceChoice::Auto);
        assert_eq!(choice("cpu"), DeviceChoice::Cpu);
        assert_eq!(choice("vulkan"), DeviceChoice::Card(Backend::Vulkan, 0));
        assert_eq!(choice("cuda:1"), DeviceChoice::Card(Backend::Cuda, 1));
        assert_eq!(choice("metal").to_string(), "metal:0");
        for wrong in ["", "gpu", "vulkan:", "vulkan:-1", "vulkan:x", "cpu:0", "Vulkan"] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn device_record_round_trips_through_json() {
        let device = DeviceChoice::Card(Backend::Vulkan, 1);
        let record = DeviceRecord { device, name: Some("a card".to_owned()), cpu: None };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(text, r#"{"device":"vulkan:1","name":"a card"}"#);
        assert_eq!(serde_json::from_str::<DeviceRecord>(&text).unwrap(), record);
        let wrong = serde_json::from_str::<DeviceRecord>(r#"{"device":"gpu","name":null}"#);
        assert!(wrong.unwrap_err().to_string().contains("write auto, cpu, vulkan"));
    }

    #[test]
    fn resumed_run_uses_its_recorded_device() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("run")).unwrap();
        let go_on = |asked| of_run(&folder, asked, &Reporter::silent());
        let on = |opened: anyhow::Result<OpenDevice>| opened.unwrap().record.device;
        assert_eq!(on(go_on(None)), DeviceChoice::Cpu, "a run without a record");
        let device = DeviceChoice::Card(Backend::Vulkan, 4242);
        folder.write_json(FILE, &DeviceRecord { device, name: None, cpu: None }).unwrap();
        let refusal = go_on(None).unwrap_err().to_string();
        assert!(refusal.starts_with("--device vulkan:4242"), "{refusal}");
        assert_eq!(on(go_on(Some(DeviceChoice::Cpu))), DeviceChoice::Cpu);
    }

    /// Sums are split over the cores, so that a run on another number of them has other last bits.
    #[test]
    fn changed_core_count_or_instruction_set_is_reported() {
        let on = |cores, instruction_set: &str| {
            let cpu = Some(CpuRecord { cores, instruction_set: instruction_set.to_owned() });
            DeviceRecord { device: DeviceChoice::Cpu, name: None, cpu }
        };
        let unknown = DeviceRecord { cpu: None, ..on(1, "avx2") };
        assert_eq!(difference(&on(2, "avx2"), &on(2, "avx2")), None);
        assert_eq!(difference(&unknown, &on(2, "avx2")), None);
        let named = |name: &str| DeviceRecord { name: Some(name.to_owned()), ..on(2, "avx2") };
        assert_eq!(difference(&named("H200"), &named("H200")), None);
        let other = difference(&named("H200"), &named("A100")).unwrap();
        assert_eq!(other, ("H200".to_owned(), "A100".to_owned()));
        let (before, now) = difference(&on(2, "avx2"), &on(1, "avx512")).unwrap();
        assert_eq!(before, "2 cores with avx2 instructions");
        assert_eq!(now, "1 core with avx512 instructions");
        let text = serde_json::to_string(&on(2, "avx2")).unwrap();
        assert_eq!(serde_json::from_str::<DeviceRecord>(&text).unwrap(), on(2, "avx2"));
    }

    #[test]
    fn panicking_driver_becomes_an_error() {
        assert_eq!(guarded(|| 1), Ok(1));
        assert_eq!(guarded::<()>(|| panic!("no {}", "adapter")), Err("no adapter".to_owned()));
    }

    #[test]
    fn auto_device_says_why_an_nvidia_card_is_not_used() {
        let told = Arc::<Mutex<Vec<Event>>>::default();
        let events = Arc::clone(&told);
        let reporter = Reporter::new(move |event| events.lock().unwrap().push(event));
        let library = |what| CudaError::Library {
            what,
            names: vec!["libx.so".to_owned()],
            folders: Vec::new(),
            hint: "install it",
        };
        let call = |call, code: &str| CudaError::Call { call, code: code.to_owned() };
        let without = [
            library("NVIDIA driver"),
            CudaError::NoCard { ordinal: 0, found: 0 },
            call("cuInit", "CUDA_ERROR_NO_DEVICE"),
        ];
        for error in without {
            passed_over(&error, &reporter);
        }
        assert_eq!(told.lock().unwrap().len(), 0);
        for error in [library("NVRTC"), call("cuInit", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH")] {
            passed_over(&error, &reporter);
        }
        let told = told.lock().unwrap();
        let [Event::Warning { text, hint }, Event::Warning { text: other, .. }] = &told[..] else {
            panic!("{told:?}")
        };
        assert!(text.starts_with("device auto: the NVIDIA card is not used: no NVRTC"), "{text}");
        assert_eq!(hint.as_deref(), Some("install it"));
        assert!(other.contains("cuInit failed: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"), "{other}");
    }

    #[test]
    fn auto_device_is_the_cpu_without_a_gpu() {
        let reached = |&backend| open_card(backend, 0).is_ok();
        if !Backend::ALL.iter().any(reached) {
            let opened = DeviceChoice::Auto.open(&Reporter::silent()).unwrap();
            let cpu = Some(CpuRecord::here());
            assert_eq!(opened.record, DeviceRecord { device: DeviceChoice::Cpu, name: None, cpu });
        }
    }
}
