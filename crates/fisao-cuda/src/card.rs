//! An NVIDIA card.

#![allow(unsafe_code, reason = "calls the CUDA driver")]

mod cubin;
mod libraries;
mod matmul;

use std::collections::HashMap;
use std::ffi::{CString, c_void};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{
    CUcontext, CUdevice_attribute as Attribute, CUfunction, CUfunction_attribute_enum, CUgraphExec,
    CUgraphInstantiate_flags, CUmodule, CUresult, CUstream, CUstreamCaptureMode,
};

use crate::driver::{Driver, Graph, Launch, Memory, Product};
use crate::{Buffer, CudaError, Storage};
use libraries::{CUBLASLT, DRIVER, NVRTC, load};
use matmul::{Multiplier, WORKSPACE};

pub use cubin::{Architecture, Cubin, CubinCache, KernelResources, compile_cubin, nvrtc_version};

/// Page-locked memory that downloads go through, bytes: twice as quick as without.
const STAGING: usize = 16 << 20;
/// Dynamic shared memory that a kernel may have without being asked for, bytes.
const SHARED: u32 = 48 << 10;

/// One card, its kernels, and a stream that all work is done in.
#[derive(Debug)]
pub struct Card {
    name: String,
    architecture: Architecture,
    device: i32,
    context: CUcontext,
    stream: CUstream,
    modules: HashMap<Storage, CUmodule>,
    functions: HashMap<(Storage, String), CUfunction>,
    multiplier: Option<Multiplier>,
    workspace: Buffer,
    staging: *mut c_void,
    graphs: Vec<Option<CUgraphExec>>,
}

// SAFETY: the handles belong to no thread; every method makes the context that of its own.
unsafe impl Send for Card {}

fn failed(call: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Call { call, code: format!("{:?}", error.0) }
}

impl Card {
    /// The card of this number, with kernels for some element types, which are kept in `cache`.
    ///
    /// # Errors
    /// [`CudaError::Library`] where the driver, NVRTC or cuBLASLt is missing, [`CudaError::NoCard`], [`CudaError::TooOld`],
    /// and what compiling and loading kernels gives.
    pub fn new(
        ordinal: usize,
        storages: &[Storage],
        cache: &CubinCache,
    ) -> Result<Self, CudaError> {
        for library in [DRIVER, NVRTC, CUBLASLT] {
            load(library)?;
        }
        result::init().map_err(failed("cuInit"))?;
        let found = result::device::get_count().map_err(failed("cuDeviceGetCount"))? as usize;
        if ordinal >= found {
            return Err(CudaError::NoCard { ordinal, found });
        }
        let device = result::device::get(ordinal as i32).map_err(failed("cuDeviceGet"))?;
        let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
        let architecture = architecture(device)?;
        if architecture.major < 8 {
            let found = format!("{}.{}", architecture.major, architecture.minor);
            return Err(CudaError::TooOld { name, found });
        }
        // SAFETY: the device exists. The context is released when the card is dropped.
        let context = unsafe {
            let context = result::primary_ctx::retain(device);
            let context = context.map_err(failed("cuDevicePrimaryCtxRetain"))?;
            result::ctx::set_current(context).map_err(failed("cuCtxSetCurrent"))?;
            context
        };
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(failed("cuStreamCreate"))?;
        let mut card = Self {
            name,
            architecture,
            device,
            context,
            stream,
            modules: HashMap::new(),
            functions: HashMap::new(),
            multiplier: None,
            workspace: Buffer::NULL,
            staging: std::ptr::null_mut(),
            graphs: Vec::new(),
        };
        card.multiplier = Some(Multiplier::new()?);
        card.workspace = card.reserve(WORKSPACE)?;
        // SAFETY: freed when the card is dropped.
        card.staging =
            unsafe { result::malloc_host(STAGING, 0) }.map_err(failed("cuMemHostAlloc"))?;
        for (storage, cubin) in cubins(storages, architecture, cache)? {
            // SAFETY: the image is a whole cubin, which lives until it is loaded.
            let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) };
            card.modules.insert(storage, module.map_err(failed("cuModuleLoadData"))?);
        }
        Ok(card)
    }

    /// Its compute capability.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Makes its context that of this thread.
    fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained as long as the card lives.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("cuCtxSetCurrent"))
    }

    fn function(&mut self, launch: &Launch<'_>) -> Result<CUfunction, CudaError> {
        let key = (launch.storage, launch.kernel.to_owned());
        if let Some(&function) = self.functions.get(&key) {
            return Ok(function);
        }
        let problem =
            |problem: String| CudaError::Kernel { kernel: launch.kernel.to_owned(), problem };
        let module = self.modules.get(&launch.storage);
        let module =
            *module.ok_or_else(|| problem(format!("not compiled for {:?}", launch.storage)))?;
        let name = CString::new(launch.kernel).expect("names of kernels hold no NUL");
        // SAFETY: the module is loaded as long as the card lives.
        let function = unsafe { result::module::get_function(module, name) };
        let function = function.map_err(|error| problem(format!("{:?}", error.0)))?;
        // A kernel is launched with the same amount each time: it follows from its name and element type.
        if launch.shared_bytes > SHARED {
            // SAFETY: the function exists.
            unsafe {
                result::function::set_function_attribute(
                    function,
                    CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    launch.shared_bytes as i32,
                )
            }
            .map_err(failed("cuFuncSetAttribute"))?;
        }
        self.functions.insert(key, function);
        Ok(function)
    }
}

/// Machine code for each element type; what is not in the cache is compiled side by side.
fn cubins(
    storages: &[Storage],
    architecture: Architecture,
    cache: &CubinCache,
) -> Result<Vec<(Storage, Vec<u8>)>, CudaError> {
    std::thread::scope(|scope| {
        let compile =
            |&storage: &Storage| (storage, scope.spawn(move || cache.cubin(storage, architecture)));
        let storages = Storage::compiled(storages);
        let compiling: Vec<_> = storages.iter().map(compile).collect();
        let done = compiling.into_iter().map(|(storage, thread)| {
            let cubin = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            cubin.map(|cubin| (storage, cubin))
        });
        done.collect()
    })
}

fn architecture(device: i32) -> Result<Architecture, CudaError> {
    let attribute = |attribute| {
        // SAFETY: the device exists.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        value.map(|value| value as u32).map_err(failed("cuDeviceGetAttribute"))
    };
    Ok(Architecture {
        major: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        minor: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    })
}

impl Driver for Card {
    fn name(&self) -> String {
        format!("{} ({})", self.name, self.architecture)
    }

    fn memory(&self) -> Result<Memory, CudaError> {
        self.enter()?;
        let (free, total) = result::mem_get_info().map_err(failed("cuMemGetInfo"))?;
        Ok(Memory { free, total })
    }

    fn reserve(&mut self, bytes: usize) -> Result<Buffer, CudaError> {
        self.enter()?;
        // SAFETY: nothing reads the memory before it is written by what is asked for next.
        match unsafe { result::malloc_sync(bytes.max(1)) } {
            Ok(address) => Ok(Buffer::new(address, bytes)),
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(CudaError::Memory {
                what: "a reservation",
                needed: bytes,
                free: self.memory()?.free,
                hint: "free memory of the card, or ask for less",
            }),
            Err(error) => Err(failed("cuMemAlloc")(error)),
        }
    }

    fn release(&mut self, buffer: Buffer) -> Result<(), CudaError> {
        self.synchronize()?;
        // SAFETY: reserved by this card, and no work is left that uses it.
        unsafe { result::free_sync(buffer.address()) }.map_err(failed("cuMemFree"))
    }

    fn upload(&mut self, to: Buffer, bytes: &[u8]) -> Result<(), CudaError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.enter()?;
        let to = to.slice(0, bytes.len());
        // SAFETY: the buffer is as long. Of pageable memory the driver has taken a copy when this returns.
        unsafe { result::memcpy_htod_async(to.address(), bytes, self.stream) }
            .map_err(failed("cuMemcpyHtoDAsync"))
    }

    fn download(&mut self, from: Buffer, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.enter()?;
        let from = from.slice(0, bytes.len());
        for (index, part) in bytes.chunks_mut(STAGING).enumerate() {
            let address = from.address() + (index * STAGING) as u64;
            // SAFETY: the staging memory has room for a part, and is read after the copy is complete.
            unsafe {
                let staged = std::slice::from_raw_parts_mut(self.staging.cast::<u8>(), part.len());
                result::memcpy_dtoh_async(staged, address, self.stream)
                    .map_err(failed("cuMemcpyDtoHAsync"))?;
                result::stream::synchronize(self.stream).map_err(failed("cuStreamSynchronize"))?;
                part.copy_from_slice(staged);
            }
        }
        Ok(())
    }

    fn copy(&mut self, from: Buffer, to: Buffer) -> Result<(), CudaError> {
        if from.bytes() == 0 {
            return Ok(());
        }
        self.enter()?;
        let to = to.slice(0, from.bytes());
        // SAFETY: both buffers are as long.
        unsafe {
            result::memcpy_dtod_async(to.address(), from.address(), from.bytes(), self.stream)
        }
        .map_err(failed("cuMemcpyDtoDAsync"))
    }

    fn clear(&mut self, buffer: Buffer) -> Result<(), CudaError> {
        if buffer.bytes() == 0 {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: the buffer is as long.
        unsafe { result::memset_d8_async(buffer.address(), 0, buffer.bytes(), self.stream) }
            .map_err(failed("cuMemsetD8Async"))
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        self.enter()?;
        let function = self.function(launch)?;
        let mut bits: Vec<u64> = launch.arguments.iter().map(|argument| argument.bits()).collect();
        let mut values: Vec<*mut c_void> =
            bits.iter_mut().map(|bits| std::ptr::from_mut(bits).cast()).collect();
        let [x, y, z] = launch.grid;
        // SAFETY: the arguments are as many and of such types as the callers in `kernels` give, are copied by the call, and point
        // to buffers of the sizes that the kernels' comments say.
        unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (launch.block, 1, 1),
                launch.shared_bytes,
                self.stream,
                &mut values,
            )
        }
        .map_err(|error| CudaError::Kernel {
            kernel: launch.kernel.to_owned(),
            problem: format!("{:?}", error.0),
        })
    }

    fn product(&mut self, product: &Product) -> Result<(), CudaError> {
        let [m, n, _] = product.sizes();
        if m == 0 || n == 0 {
            return Ok(());
        }
        self.enter()?;
        let multiplier = self.multiplier.as_mut().expect("made with the card");
        // SAFETY: the matrices lie in their buffers by `Product::sizes`; the workspace is as large.
        unsafe { multiplier.multiply(product, self.workspace, self.stream) }
    }

    fn synchronize(&mut self) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: the stream lives as long as the card.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("cuStreamSynchronize"))
    }

    fn begin_capture(&mut self) -> Result<(), CudaError> {
        self.enter()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as the card.
        unsafe { result::stream::begin_capture(self.stream, mode) }
            .map_err(failed("cuStreamBeginCapture"))
    }

    fn end_capture(&mut self) -> Result<Graph, CudaError> {
        self.enter()?;
        // SAFETY: the stream is being captured; the graph is destroyed once it is instantiated.
        let executable = unsafe {
            let graph =
                result::stream::end_capture(self.stream).map_err(failed("cuStreamEndCapture"))?;
            let executable = result::graph::instantiate(graph, CUgraphInstantiate_flags(0));
            result::graph::destroy(graph).map_err(failed("cuGraphDestroy"))?;
            executable.map_err(failed("cuGraphInstantiate"))?
        };
        self.graphs.push(Some(executable));
        Ok(Graph(self.graphs.len() - 1))
    }

    fn launch_graph(&mut self, graph: Graph) -> Result<(), CudaError> {
        self.enter()?;
        let executable = self.graphs[graph.0].expect("a graph that was not dropped");
        // SAFETY: the graph and the memory it works on are there until it is dropped.
        unsafe { result::graph::launch(executable, self.stream) }.map_err(failed("cuGraphLaunch"))
    }

    fn drop_graph(&mut self, graph: Graph) -> Result<(), CudaError> {
        self.synchronize()?;
        match self.graphs[graph.0].take() {
            // SAFETY: instantiated by `end_capture`, destroyed once, and not running.
            Some(executable) => unsafe { result::graph::exec_destroy(executable) }
                .map_err(failed("cuGraphExecDestroy")),
            None => Ok(()),
        }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // Errors leave memory behind until the process ends.
        let _ = self.synchronize();
        self.multiplier = None;
        // SAFETY: everything was made by this card and is destroyed once, after all work.
        unsafe {
            for graph in self.graphs.drain(..).flatten() {
                let _ = result::graph::exec_destroy(graph);
            }
            for (_, module) in self.modules.drain() {
                let _ = result::module::unload(module);
            }
            if !self.staging.is_null() {
                let _ = result::free_host(self.staging);
            }
            if self.workspace.bytes() > 0 {
                let _ = result::free_sync(self.workspace.address());
            }
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
