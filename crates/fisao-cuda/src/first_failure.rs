//! The call that failed first, whoever asks.

use crate::{Buffer, CudaError, Driver, Graph, Launch, Memory, Product};

/// A driver that names the call that failed first. After most errors a card refuses every call with the same code; of work on several
/// threads any of these may be the one that is reported, and gives no clue.
#[derive(Debug)]
pub struct FirstFailure<D> {
    driver: D,
    first: Option<(&'static str, String)>,
}

impl<D: Driver> FirstFailure<D> {
    /// Of a driver that has not failed yet.
    pub fn of(driver: D) -> Self {
        Self { driver, first: None }
    }

    fn told<T>(
        &mut self,
        work: impl FnOnce(&mut D) -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        work(&mut self.driver).map_err(|error| {
            let CudaError::Call { call, code } = error else { return error };
            // Another code, as of memory that was too little before, is an error of its own.
            match &self.first {
                Some((first, known)) if *known == code => CudaError::Call { call: first, code },
                _ => {
                    self.first = Some((call, code.clone()));
                    CudaError::Call { call, code }
                }
            }
        })
    }
}

impl<D: Driver> Driver for FirstFailure<D> {
    fn name(&self) -> String {
        self.driver.name()
    }

    fn memory(&self) -> Result<Memory, CudaError> {
        self.driver.memory()
    }

    fn reserve(&mut self, bytes: usize) -> Result<Buffer, CudaError> {
        self.told(|driver| driver.reserve(bytes))
    }

    fn release(&mut self, buffer: Buffer) -> Result<(), CudaError> {
        self.told(|driver| driver.release(buffer))
    }

    fn upload(&mut self, to: Buffer, bytes: &[u8]) -> Result<(), CudaError> {
        self.told(|driver| driver.upload(to, bytes))
    }

    fn download(&mut self, from: Buffer, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.told(|driver| driver.download(from, bytes))
    }

    fn copy(&mut self, from: Buffer, to: Buffer) -> Result<(), CudaError> {
        self.told(|driver| driver.copy(from, to))
    }

    fn clear(&mut self, buffer: Buffer) -> Result<(), CudaError> {
        self.told(|driver| driver.clear(buffer))
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError> {
        self.told(|driver| driver.launch(launch))
    }

    fn product(&mut self, product: &Product) -> Result<(), CudaError> {
        self.told(|driver| driver.product(product))
    }

    fn synchronize(&mut self) -> Result<(), CudaError> {
        self.told(Driver::synchronize)
    }

    fn begin_capture(&mut self) -> Result<(), CudaError> {
        self.told(Driver::begin_capture)
    }

    fn end_capture(&mut self) -> Result<Graph, CudaError> {
        self.told(Driver::end_capture)
    }

    fn launch_graph(&mut self, graph: Graph) -> Result<(), CudaError> {
        self.told(|driver| driver.launch_graph(graph))
    }

    fn drop_graph(&mut self, graph: Graph) -> Result<(), CudaError> {
        self.told(|driver| driver.drop_graph(graph))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Failing, Recorder};

    #[test]
    fn every_later_failure_names_the_first_call() {
        let failing = Failing::after(1, Recorder::alone(1 << 20));
        let mut driver = FirstFailure::of(failing);
        let buffer = driver.reserve(16).unwrap();
        let mut bytes = [0; 16];
        driver.download(buffer, &mut bytes).unwrap();
        let call = |result: Result<(), CudaError>| match result {
            Err(CudaError::Call { call, .. }) => call,
            other => panic!("{other:?}"),
        };
        assert_eq!(call(driver.download(buffer, &mut bytes)), "cuMemcpyDtoH");
        assert_eq!(call(driver.clear(buffer)), "cuMemcpyDtoH");
        assert_eq!(call(driver.reserve(16).map(|_| ())), "cuMemcpyDtoH");
    }
}
