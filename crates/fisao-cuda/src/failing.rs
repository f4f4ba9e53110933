//! A driver that fails, for tests of what becomes of the work.

use std::fmt;

use crate::{Buffer, CudaError, Driver, Graph, Launch, Memory, Product};

/// A driver that fails when something is copied from it: there a card says of work that it was asked for before that it failed. As on a
/// card, every call after that fails as well.
pub struct Failing<D> {
    driver: D,
    /// Asked before every download, until it says so, whether that one fails.
    fails: Box<dyn FnMut() -> bool + Send>,
    failed: bool,
}

impl<D> Failing<D> {
    /// Fails after so many downloads.
    pub fn after(downloads: usize, driver: D) -> Self {
        let mut left = downloads;
        Self::when(
            move || match left.checked_sub(1) {
                Some(fewer) => {
                    left = fewer;
                    false
                }
                None => true,
            },
            driver,
        )
    }

    /// Fails at the first download for which `fails` says so.
    pub fn when(fails: impl FnMut() -> bool + Send + 'static, driver: D) -> Self {
        Self { driver, fails: Box::new(fails), failed: false }
    }

    fn working(&mut self, call: &'static str) -> Result<&mut D, CudaError> {
        if self.failed {
            return Err(CudaError::Call { call, code: "CUDA_ERROR_ILLEGAL_ADDRESS".to_owned() });
        }
        Ok(&mut self.driver)
    }
}

impl<D: fmt::Debug> fmt::Debug for Failing<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { driver, failed, .. } = self;
        f.debug_struct("Failing").field("driver", driver).field("failed", failed).finish()
    }
}

impl<D: Driver> Driver for Failing<D> {
    fn name(&self) -> String {
        self.driver.name()
    }

    fn memory(&self) -> Result<Memory, CudaError> {
        self.driver.memory()
    }

    fn reserve(&mut self, bytes: usize) -> Result<Buffer, CudaError> {
        self.working("cuMemAlloc")?.reserve(bytes)
    }

    fn release(&mut self, buffer: Buffer) -> Result<(), CudaError> {
        self.working("cuMemFree")?.release(buffer)
    }

    fn upload(&mut self, to: Buffer, bytes: &[u8]) -> Result<(), CudaError> {
        self.working("cuMemcpyHtoD")?.upload(to, bytes)
    }

    fn download(&mut self, from: Buffer, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.failed = self.failed || (self.fails)();
        self.working("cuMemcpyDtoH")?.download(from, bytes)
    }

    fn copy(&mut self, from: Buffer, to: Buffer) -> Result<(), CudaError> {
        self.working("cuMemcpyDtoD")?.copy(from, to)
    }

    fn clear(&mut self, buffer: Buffer) -> Result<(), CudaError> {
        self.working("cuMemsetD8")?.clear(buffer)
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError> {
        self.working("cuLaunchKernel")?.launch(launch)
    }

    fn product(&mut self, product: &Product) -> Result<(), CudaError> {
        self.working("cublasLtMatmul")?.product(product)
    }

    fn synchronize(&mut self) -> Result<(), CudaError> {
        self.working("cuStreamSynchronize")?.synchronize()
    }

    fn begin_capture(&mut self) -> Result<(), CudaError> {
        self.working("cuStreamBeginCapture")?.begin_capture()
    }

    fn end_capture(&mut self) -> Result<Graph, CudaError> {
        self.working("cuStreamEndCapture")?.end_capture()
    }

    fn launch_graph(&mut self, graph: Graph) -> Result<(), CudaError> {
        self.working("cuGraphLaunch")?.launch_graph(graph)
    }

    fn drop_graph(&mut self, graph: Graph) -> Result<(), CudaError> {
        self.working("cuGraphExecDestroy")?.drop_graph(graph)
    }
}
