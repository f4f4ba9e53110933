//! The kernels on the CPU, for tests: compiled as C++ by the machine's compiler, each CUDA thread a fiber (`kernels/host.h`). Slow, and
//! the same numbers in every run.

#![allow(unsafe_code, reason = "compiled kernels are loaded, and work on memory by address")]

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libloading::Library;

use crate::driver::{Argument, Driver, Graph, Launch, Matrix, Memory, Product};
use crate::source::{HOST_HEADER, define, kernel_source};
use crate::{Buffer, CudaError, Storage};

/// Bytes before and after each reserved buffer that nothing may write to.
const GUARD: usize = 4096;
/// What they hold.
const GUARD_BYTE: u8 = 0xa5;

/// How kernels are compiled for the CPU.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The C++ compiler: `CXX`, or `c++`.
    pub compiler: String,
    /// Further options, such as `-fsanitize=address`.
    pub options: Vec<String>,
}

impl Default for HostOptions {
    fn default() -> Self {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        Self { compiler, options: Vec::new() }
    }
}

/// The kernels as the CPU runs them, for some element types.
#[derive(Debug)]
pub struct HostKernels(BTreeMap<Storage, Library>);

/// A driver that runs kernels on the CPU.
#[derive(Debug)]
pub struct Host {
    kernels: Arc<HostKernels>,
    reserved: BTreeMap<u64, Reserved>,
    memory: Arc<HostMemory>,
    captured: Option<Vec<Work>>,
    graphs: Vec<Vec<Work>>,
}

/// Memory that several such drivers share, as drivers of one card do.
#[derive(Debug)]
pub struct HostMemory {
    total: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
}

impl HostMemory {
    /// `total` bytes, which are taken as they are reserved.
    pub fn new(total: usize) -> Self {
        Self { total, used: AtomicUsize::new(0), peak: AtomicUsize::new(0) }
    }

    /// Most bytes that were reserved at one time.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    fn free(&self) -> usize {
        self.total.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    fn take(&self, bytes: usize) {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(used, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Reserved {
    bytes: usize,
    layout: Layout,
}

/// What a graph consists of.
#[derive(Debug, Clone)]
enum Work {
    Launch {
        kernel: String,
        storage: Storage,
        grid: [u32; 3],
        block: u32,
        shared_bytes: u32,
        arguments: Vec<Argument>,
    },
    Product(Product),
    Copy(Buffer, Buffer),
    Clear(Buffer),
}

/// As in `host.h`.
#[repr(C)]
struct HostLaunch {
    grid: [u32; 3],
    block: u32,
    shared_bytes: u32,
}

type Entry = unsafe extern "C" fn(*const HostLaunch, *mut *mut c_void) -> i32;

impl HostKernels {
    /// Compiles the kernels for weights of some types into `folder`, which is not needed afterwards.
    ///
    /// # Errors
    /// [`CudaError::HostCompiler`] where there is no compiler, [`CudaError::Compile`] for what it says.
    pub fn compile(
        folder: &Path,
        storages: &[Storage],
        options: &HostOptions,
    ) -> Result<Self, CudaError> {
        Self::compile_source(folder, storages, options, &kernel_source())
    }

    /// The same with another text, for tests of tests.
    ///
    /// # Errors
    /// As [`HostKernels::compile`].
    pub fn compile_source(
        folder: &Path,
        storages: &[Storage],
        options: &HostOptions,
        source: &str,
    ) -> Result<Self, CudaError> {
        let mut modules = BTreeMap::new();
        for storage in Storage::with_sums(storages) {
            let path = compile(folder, storage, options, source)?;
            // SAFETY: the library is what was just compiled from this crate's text; loading it runs no code of its own.
            let library = unsafe { Library::new(&path) };
            let library = library.map_err(|error| CudaError::Kernel {
                kernel: path.display().to_string(),
                problem: error.to_string(),
            })?;
            modules.insert(storage, library);
        }
        Ok(Self(modules))
    }
}

impl Host {
    /// A driver with `memory` bytes of memory, that are taken as they are reserved.
    pub fn new(kernels: Arc<HostKernels>, memory: usize) -> Self {
        Self::within(kernels, Arc::new(HostMemory::new(memory)))
    }

    /// One of several drivers that share their memory.
    pub fn within(kernels: Arc<HostKernels>, memory: Arc<HostMemory>) -> Self {
        let (reserved, graphs) = (BTreeMap::new(), Vec::new());
        Self { kernels, reserved, memory, captured: None, graphs }
    }

    /// Stops with a message where memory is not this driver's.
    fn check(&self, buffer: Buffer) {
        if buffer.bytes() == 0 {
            return;
        }
        let before = self.reserved.range(..=buffer.address()).next_back();
        let end = buffer.address() + buffer.bytes() as u64;
        let inside = before.is_some_and(|(start, reserved)| end <= start + reserved.bytes as u64);
        assert!(inside, "{buffer:?} is not reserved");
    }

    fn run(&mut self, work: &Work) -> Result<(), CudaError> {
        match work {
            Work::Launch { kernel, storage, grid, block, shared_bytes, arguments } => {
                let launch = HostLaunch { grid: *grid, block: *block, shared_bytes: *shared_bytes };
                self.call(kernel, *storage, &launch, arguments)
            }
            Work::Product(product) => {
                for matrix in [product.a, product.b, product.out] {
                    self.check(matrix.buffer);
                }
                // SAFETY: the three matrices lie in reserved memory, which was just checked.
                unsafe { multiply(product) };
                Ok(())
            }
            Work::Copy(from, to) => {
                assert!(from.bytes() <= to.bytes(), "room for what is copied");
                self.check(*from);
                self.check(*to);
                // SAFETY: both lie in reserved memory; `copy` allows for an overlap.
                unsafe {
                    let to = pointer(to.address());
                    std::ptr::copy(pointer(from.address()), to, from.bytes());
                }
                Ok(())
            }
            Work::Clear(buffer) => {
                self.check(*buffer);
                // SAFETY: the buffer is reserved.
                unsafe { std::ptr::write_bytes(pointer(buffer.address()), 0, buffer.bytes()) };
                Ok(())
            }
        }
    }

    fn call(
        &self,
        kernel: &str,
        storage: Storage,
        launch: &HostLaunch,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let failed = |problem: String| CudaError::Kernel { kernel: kernel.to_owned(), problem };
        let module = self.kernels.0.get(&storage);
        let module = module.ok_or_else(|| failed(format!("not compiled for {storage:?}")))?;
        for argument in arguments {
            if let Argument::Buffer(buffer) = argument {
                self.check(*buffer);
            }
        }
        let mut bits: Vec<u64> = arguments.iter().map(|argument| argument.bits()).collect();
        let mut values: Vec<*mut c_void> =
            bits.iter_mut().map(|bits| std::ptr::from_mut(bits).cast()).collect();
        // SAFETY: every kernel's entry has this type; the arguments are as many and of such types as its callers in `kernels` give,
        // and each value lives until the call returns.
        let code = unsafe {
            let entry = module.get::<Entry>(format!("host_{kernel}").as_bytes());
            let entry = entry.map_err(|_| failed("there is none of this name".to_owned()))?;
            entry(launch, values.as_mut_ptr())
        };
        match code {
            0 => Ok(()),
            1 => Err(failed("a barrier was not reached by all threads".to_owned())),
            _ => Err(failed(format!("{} threads in a block", launch.block))),
        }
    }

    fn ask(&mut self, work: Work) -> Result<(), CudaError> {
        match &mut self.captured {
            Some(captured) => {
                captured.push(work);
                Ok(())
            }
            None => self.run(&work),
        }
    }

    /// Panics where a kernel wrote before or behind a reserved buffer.
    fn check_guards(&self) {
        for (&start, reserved) in &self.reserved {
            let end = start + reserved.layout.size() as u64 - 2 * GUARD as u64;
            for (side, at) in [("before", start - GUARD as u64), ("behind", end)] {
                // SAFETY: both guards belong to the allocation.
                let guard = unsafe { std::slice::from_raw_parts(pointer(at), GUARD) };
                assert!(
                    guard.iter().all(|&byte| byte == GUARD_BYTE),
                    "a kernel wrote {side} a buffer of {} bytes",
                    reserved.bytes
                );
            }
        }
    }
}

impl Driver for Host {
    fn name(&self) -> String {
        "host".to_owned()
    }

    fn memory(&self) -> Result<Memory, CudaError> {
        Ok(Memory { free: self.memory.free(), total: self.memory.total })
    }

    fn reserve(&mut self, bytes: usize) -> Result<Buffer, CudaError> {
        let free = self.memory()?.free;
        if bytes > free {
            let hint = "ask for less";
            return Err(CudaError::Memory { what: "a reservation", needed: bytes, free, hint });
        }
        let size = bytes.next_multiple_of(256) + 2 * GUARD;
        let layout = Layout::from_size_align(size, 4096).expect("a size below 2⁶³");
        // SAFETY: the layout is not empty; the whole of it is written before it is given out, as NaN and as guards.
        let start = unsafe {
            let start = alloc(layout);
            assert!(!start.is_null(), "no memory");
            std::ptr::write_bytes(start, GUARD_BYTE, size);
            std::ptr::write_bytes(start.add(GUARD), 0xff, size - 2 * GUARD);
            start.add(GUARD)
        };
        let address = start as u64;
        self.memory.take(bytes);
        self.reserved.insert(address, Reserved { bytes, layout });
        Ok(Buffer::new(address, bytes))
    }

    fn release(&mut self, buffer: Buffer) -> Result<(), CudaError> {
        self.check_guards();
        let reserved = self.reserved.remove(&buffer.address()).expect("a reserved buffer");
        self.memory.give_back(reserved.bytes);
        // SAFETY: allocated by `reserve` with this layout, and released once.
        unsafe { dealloc(pointer(buffer.address() - GUARD as u64), reserved.layout) };
        Ok(())
    }

    fn upload(&mut self, to: Buffer, bytes: &[u8]) -> Result<(), CudaError> {
        assert!(self.captured.is_none(), "nothing is uploaded inside a graph");
        let to = to.slice(0, bytes.len());
        self.check(to);
        // SAFETY: the place is reserved, and not part of a Rust value.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(to.address()), bytes.len());
        }
        Ok(())
    }

    fn download(&mut self, from: Buffer, bytes: &mut [u8]) -> Result<(), CudaError> {
        assert!(self.captured.is_none(), "nothing is downloaded inside a graph");
        self.check_guards();
        let from = from.slice(0, bytes.len());
        self.check(from);
        // SAFETY: as above.
        unsafe {
            let source: *const u8 = pointer(from.address());
            std::ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), bytes.len());
        }
        Ok(())
    }

    fn copy(&mut self, from: Buffer, to: Buffer) -> Result<(), CudaError> {
        self.ask(Work::Copy(from, to))
    }

    fn clear(&mut self, buffer: Buffer) -> Result<(), CudaError> {
        self.ask(Work::Clear(buffer))
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let Launch { kernel, storage, grid, block, shared_bytes, arguments } = *launch;
        let (kernel, arguments) = (kernel.to_owned(), arguments.to_vec());
        self.ask(Work::Launch { kernel, storage, grid, block, shared_bytes, arguments })
    }

    fn product(&mut self, product: &Product) -> Result<(), CudaError> {
        product.sizes();
        self.ask(Work::Product(*product))
    }

    fn synchronize(&mut self) -> Result<(), CudaError> {
        self.check_guards();
        Ok(())
    }

    fn begin_capture(&mut self) -> Result<(), CudaError> {
        assert!(self.captured.replace(Vec::new()).is_none(), "one capture at a time");
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Graph, CudaError> {
        self.graphs.push(self.captured.take().expect("a capture was begun"));
        Ok(Graph(self.graphs.len() - 1))
    }

    fn launch_graph(&mut self, graph: Graph) -> Result<(), CudaError> {
        let work = std::mem::take(&mut self.graphs[graph.0]);
        let done = work.iter().try_for_each(|work| self.run(work));
        self.graphs[graph.0] = work;
        done
    }

    fn drop_graph(&mut self, graph: Graph) -> Result<(), CudaError> {
        self.graphs[graph.0].clear();
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for (&address, reserved) in &self.reserved {
            self.memory.give_back(reserved.bytes);
            // SAFETY: allocated by `reserve` with this layout; the map is not used again.
            unsafe { dealloc(pointer(address - GUARD as u64), reserved.layout) };
        }
    }
}

fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

fn compile(
    folder: &Path,
    storage: Storage,
    options: &HostOptions,
    source: &str,
) -> Result<PathBuf, CudaError> {
    let path = |ending: &str| folder.join(format!("kernels_{}.{ending}", storage.define()));
    let (text, library) = (path("cc"), path("so"));
    let written = std::fs::write(&text, format!("{HOST_HEADER}\n{source}"));
    written.map_err(|source| CudaError::Cache { path: text.clone(), source })?;
    let mut command = Command::new(&options.compiler);
    command.args(["-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-w"]);
    command.arg(define(storage)).args(&options.options).arg(&text).arg("-o").arg(&library);
    let output = command
        .output()
        .map_err(|source| CudaError::HostCompiler { command: options.compiler.clone(), source })?;
    if !output.status.success() {
        return Err(CudaError::Compile {
            options: format!("{command:?}"),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(library)
}

/// A matrix in f32, `shape` of it, row-major.
///
/// # Safety
/// The matrix lies in memory that may be read.
unsafe fn read(matrix: Matrix) -> Vec<f32> {
    let extent = matrix.extent();
    // SAFETY: the caller's.
    let bytes = unsafe {
        std::slice::from_raw_parts(pointer(matrix.buffer.address()).cast_const(), extent)
    };
    let values = matrix.storage.widened(bytes);
    let [rows, columns] = matrix.shape();
    let (row, column) = if matrix.transposed { (1, matrix.stride) } else { (matrix.stride, 1) };
    let at = |index: usize| values[index / columns * row + index % columns * column];
    (0..rows * columns).map(at).collect()
}

/// Sums in f32 in the order of the inner dimension, rounds once.
///
/// # Safety
/// All three matrices lie in memory that may be read and written.
unsafe fn multiply(product: &Product) {
    let [m, n, k] = product.sizes();
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: the caller's.
    let (a, b) = unsafe { (read(product.a), read(product.b)) };
    // SAFETY: the caller's.
    let before = product.accumulate.then(|| unsafe { read(product.out) });
    let mut row = vec![0.0_f32; n];
    let out = product.out;
    for i in 0..m {
        row.fill(0.0);
        for l in 0..k {
            let x = a[i * k + l];
            for (sum, &y) in row.iter_mut().zip(&b[l * n..(l + 1) * n]) {
                *sum += x * y;
            }
        }
        for (j, sum) in row.iter_mut().enumerate() {
            *sum = product.scale * *sum + before.as_ref().map_or(0.0, |before| before[i * n + j]);
        }
        let bytes = out.storage.narrowed(&row);
        let at = out.buffer.address() + (i * out.stride * out.storage.bytes()) as u64;
        // SAFETY: row `i` of the result, in its buffer by `Product::sizes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(at), bytes.len()) };
    }
}
