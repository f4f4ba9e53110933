//! A driver that fails, for tests of what becomes of the work.

use crate::{Buffer, CudaError, Driver, Graph, Launch, Memory, Product};

/// A driver that fails when something is copied from it, after a number of such copies: there a card says of work that it was asked for
/// before that it failed. As on a card, every call after that fails as well.
#[derive(Debug)]
pub struct Failing<D> {
    driver: D,
    downloads: usize,
}

impl<D> Failing<D> {
    /// Fails after so many downloads.
    pub fn after(downloads: usize, driver: D) -> Self {
        // The last one is the one that fails.
        Self { driver, downloads: downloads + 1 }
    }

    fn working(&mut self, call: &'static str) -> Result<&mut D, CudaError> {
        if self.downloads == 0 {
            return Err(CudaError::Call { call, code: "CUDA_ERROR_ILLEGAL_ADDRESS".to_owned() });
        }
        Ok(&mut self.driver)
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
        self.downloads = self.downloads.saturating_sub(1);
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
