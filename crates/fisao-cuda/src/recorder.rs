//! A driver that writes down what it is asked for.

use crate::driver::{Driver, Graph, Launch, Memory, Product};
use crate::{Buffer, CudaError, Storage};

/// One call of a driver.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// [`Driver::reserve`], bytes.
    Reserve(usize),
    /// [`Driver::release`]
    Release(Buffer),
    /// [`Driver::upload`], bytes.
    Upload(usize),
    /// [`Driver::download`], bytes.
    Download(usize),
    /// [`Driver::copy`], bytes.
    Copy(usize),
    /// [`Driver::clear`], bytes.
    Clear(usize),
    /// [`Driver::launch`]
    Launch {
        /// Name of the kernel.
        kernel: String,
        /// The element type.
        storage: Storage,
        /// Number of blocks.
        grid: [u32; 3],
        /// Threads of a block.
        block: u32,
        /// Dynamic shared memory, bytes.
        shared_bytes: u32,
    },
    /// [`Driver::product`]: m, n and k.
    Product([usize; 3]),
    /// [`Driver::synchronize`]
    Synchronize,
    /// [`Driver::begin_capture`]
    BeginCapture,
    /// [`Driver::end_capture`]
    EndCapture(Graph),
    /// [`Driver::launch_graph`]
    LaunchGraph(Graph),
    /// [`Driver::drop_graph`]
    DropGraph(Graph),
}

/// Writes down every call, and hands it to another driver if there is one. Without one, memory is counted but not there: what is
/// downloaded is zero.
#[derive(Debug)]
pub struct Recorder<D> {
    driver: Option<D>,
    calls: Vec<Call>,
    memory: usize,
    used: usize,
    peak: usize,
    next: u64,
    graphs: usize,
}

impl Recorder<crate::Host> {
    /// With no driver behind it, and `memory` bytes of memory.
    pub fn alone(memory: usize) -> Self {
        Self::with(None, memory)
    }
}

impl<D: Driver> Recorder<D> {
    /// Before another driver.
    pub fn before(driver: D) -> Self {
        Self::with(Some(driver), 0)
    }

    fn with(driver: Option<D>, memory: usize) -> Self {
        let (calls, next) = (Vec::new(), 1 << 40);
        Self { driver, calls, memory, used: 0, peak: 0, next, graphs: 0 }
    }

    /// All calls since the last time this was asked.
    pub fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    /// Most bytes that were reserved at one time.
    pub fn peak(&self) -> usize {
        self.peak
    }

    fn ask(
        &mut self,
        call: Call,
        ask: impl FnOnce(&mut D) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        self.calls.push(call);
        self.driver.as_mut().map_or(Ok(()), ask)
    }
}

impl<D: Driver> Driver for Recorder<D> {
    fn name(&self) -> String {
        self.driver.as_ref().map_or_else(|| "recorder".to_owned(), Driver::name)
    }

    fn memory(&self) -> Result<Memory, CudaError> {
        match &self.driver {
            Some(driver) => driver.memory(),
            None => Ok(Memory { free: self.memory - self.used, total: self.memory }),
        }
    }

    fn reserve(&mut self, bytes: usize) -> Result<Buffer, CudaError> {
        self.calls.push(Call::Reserve(bytes));
        let buffer = if let Some(driver) = &mut self.driver {
            driver.reserve(bytes)?
        } else {
            let free = self.memory - self.used;
            if bytes > free {
                let (what, hint) = ("a reservation", "ask for less");
                return Err(CudaError::Memory { what, needed: bytes, free, hint });
            }
            let buffer = Buffer::new(self.next, bytes);
            self.next += bytes.next_multiple_of(256) as u64;
            buffer
        };
        self.used += bytes;
        self.peak = self.peak.max(self.used);
        Ok(buffer)
    }

    fn release(&mut self, buffer: Buffer) -> Result<(), CudaError> {
        self.used -= buffer.bytes();
        self.ask(Call::Release(buffer), |driver| driver.release(buffer))
    }

    fn upload(&mut self, to: Buffer, bytes: &[u8]) -> Result<(), CudaError> {
        let to = to.slice(0, bytes.len());
        self.ask(Call::Upload(bytes.len()), |driver| driver.upload(to, bytes))
    }

    fn download(&mut self, from: Buffer, bytes: &mut [u8]) -> Result<(), CudaError> {
        let from = from.slice(0, bytes.len());
        bytes.fill(0);
        self.ask(Call::Download(bytes.len()), |driver| driver.download(from, bytes))
    }

    fn copy(&mut self, from: Buffer, to: Buffer) -> Result<(), CudaError> {
        self.ask(Call::Copy(from.bytes()), |driver| driver.copy(from, to))
    }

    fn clear(&mut self, buffer: Buffer) -> Result<(), CudaError> {
        self.ask(Call::Clear(buffer.bytes()), |driver| driver.clear(buffer))
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError> {
        let Launch { kernel, storage, grid, block, shared_bytes, .. } = *launch;
        let kernel = kernel.to_owned();
        let call = Call::Launch { kernel, storage, grid, block, shared_bytes };
        self.ask(call, |driver| driver.launch(launch))
    }

    fn product(&mut self, product: &Product) -> Result<(), CudaError> {
        self.ask(Call::Product(product.sizes()), |driver| driver.product(product))
    }

    fn synchronize(&mut self) -> Result<(), CudaError> {
        self.ask(Call::Synchronize, Driver::synchronize)
    }

    fn begin_capture(&mut self) -> Result<(), CudaError> {
        self.ask(Call::BeginCapture, Driver::begin_capture)
    }

    fn end_capture(&mut self) -> Result<Graph, CudaError> {
        let graph = match &mut self.driver {
            Some(driver) => driver.end_capture()?,
            None => Graph(self.graphs),
        };
        self.graphs += 1;
        self.calls.push(Call::EndCapture(graph));
        Ok(graph)
    }

    fn launch_graph(&mut self, graph: Graph) -> Result<(), CudaError> {
        self.ask(Call::LaunchGraph(graph), |driver| driver.launch_graph(graph))
    }

    fn drop_graph(&mut self, graph: Graph) -> Result<(), CudaError> {
        self.ask(Call::DropGraph(graph), |driver| driver.drop_graph(graph))
    }
}
