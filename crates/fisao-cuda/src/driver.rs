//! What a decoder asks of a card.

use crate::{CudaError, Storage};

/// A piece of a card's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Buffer {
    address: u64,
    bytes: usize,
}

impl Buffer {
    /// No memory: what a kernel takes for an input that is optional.
    pub const NULL: Self = Self { address: 0, bytes: 0 };

    /// The memory of `bytes` bytes at an address of the card.
    pub fn new(address: u64, bytes: usize) -> Self {
        Self { address, bytes }
    }

    /// Where it begins.
    pub fn address(self) -> u64 {
        self.address
    }

    /// Its size, bytes.
    pub fn bytes(self) -> usize {
        self.bytes
    }

    /// `bytes` bytes of it, from `offset` on.
    ///
    /// # Panics
    /// When it ends before them.
    #[must_use]
    pub fn slice(self, offset: usize, bytes: usize) -> Self {
        assert!(
            offset + bytes <= self.bytes,
            "bytes {offset}..{} of a buffer of {}",
            offset + bytes,
            self.bytes
        );
        Self { address: self.address + offset as u64, bytes }
    }
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    /// A pointer.
    Buffer(Buffer),
    /// `int`.
    Int(i32),
    /// `long long`.
    Long(i64),
    /// `float`.
    Float(f32),
}

impl Argument {
    /// The value as it lies in memory.
    pub(crate) fn bits(self) -> u64 {
        match self {
            Self::Buffer(buffer) => buffer.address(),
            Self::Int(value) => u64::from(value as u32),
            Self::Long(value) => value as u64,
            Self::Float(value) => u64::from(value.to_bits()),
        }
    }
}

impl From<Buffer> for Argument {
    fn from(buffer: Buffer) -> Self {
        Self::Buffer(buffer)
    }
}

impl From<usize> for Argument {
    fn from(value: usize) -> Self {
        Self::Int(i32::try_from(value).expect("sizes in kernels are below 2³¹"))
    }
}

impl From<i32> for Argument {
    fn from(value: i32) -> Self {
        Self::Int(value)
    }
}

impl From<i64> for Argument {
    fn from(value: i64) -> Self {
        Self::Long(value)
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

/// A kernel that is to run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Launch<'a> {
    /// Its name in `kernels/`.
    pub kernel: &'a str,
    /// The element type it is compiled for.
    pub storage: Storage,
    /// Number of blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
    /// In the order of its parameters.
    pub arguments: &'a [Argument],
}

/// A row-major matrix in a card's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Matrix {
    /// From its first element on.
    pub buffer: Buffer,
    /// Of its elements.
    pub storage: Storage,
    /// Rows as they lie in memory.
    pub rows: usize,
    /// Columns as they lie in memory.
    pub columns: usize,
    /// Elements from one row to the next, at least as many as columns.
    pub stride: usize,
    /// Whether its transposed is meant.
    pub transposed: bool,
}

impl Matrix {
    /// Rows that lie one behind the other.
    pub fn new(buffer: Buffer, storage: Storage, [rows, columns]: [usize; 2]) -> Self {
        Self { buffer, storage, rows, columns, stride: columns, transposed: false }
    }

    /// `columns` columns of it, from `first` on.
    #[must_use]
    pub fn columns(self, first: usize, columns: usize) -> Self {
        assert!(first + columns <= self.columns, "columns of the matrix");
        let skipped = first * self.storage.bytes();
        // Of the last row nothing is needed behind the columns.
        let bytes = self.buffer.bytes().saturating_sub(skipped);
        Self { buffer: self.buffer.slice(skipped, bytes), columns, ..self }
    }

    /// `rows` rows of it, from `first` on.
    #[must_use]
    pub fn rows(self, first: usize, rows: usize) -> Self {
        assert!(first + rows <= self.rows, "rows of the matrix");
        let skipped = first * self.stride * self.storage.bytes();
        let bytes = self.buffer.bytes().saturating_sub(skipped);
        Self { buffer: self.buffer.slice(skipped, bytes), rows, ..self }
    }

    /// Its transposed.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns, after it is transposed if it is.
    pub fn shape(self) -> [usize; 2] {
        if self.transposed { [self.columns, self.rows] } else { [self.rows, self.columns] }
    }

    /// Bytes from its first element to its last.
    pub(crate) fn extent(self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        ((self.rows - 1) * self.stride + self.columns) * self.storage.bytes()
    }
}

/// `out = scale · a b`, or `out += scale · a b`, summed in f32 and rounded once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// `[m, k]`.
    pub a: Matrix,
    /// `[k, n]`, of the same element type.
    pub b: Matrix,
    /// `[m, n]`, not transposed.
    pub out: Matrix,
    /// Factor.
    pub scale: f32,
    /// Whether it is added to what is there.
    pub accumulate: bool,
}

impl Product {
    /// `m`, `n` and `k`.
    ///
    /// # Panics
    /// When shapes do not fit, or a matrix exceeds its buffer.
    pub(crate) fn sizes(&self) -> [usize; 3] {
        let ([m, k], [l, n]) = (self.a.shape(), self.b.shape());
        assert!(k == l && self.out.shape() == [m, n], "shapes of a product: {self:?}");
        assert!(self.a.storage == self.b.storage, "factors of one type: {self:?}");
        assert!(!self.out.transposed, "a result is not transposed");
        for matrix in [self.a, self.b, self.out] {
            assert!(matrix.extent() <= matrix.buffer.bytes(), "a matrix in its buffer: {self:?}");
        }
        [m, n, k]
    }
}

/// A card's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub free: usize,
    /// Bytes.
    pub total: usize,
}

/// A captured sequence of kernels and products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Graph(pub(crate) usize);

/// A card, or what stands in for one. All work is done in the order it is asked for.
pub trait Driver {
    /// What it is, for logs.
    fn name(&self) -> String;

    /// What of its memory is free.
    ///
    /// # Errors
    /// [`CudaError::Call`]
    fn memory(&self) -> Result<Memory, CudaError>;

    /// Takes memory, aligned to 256 bytes. Its content is arbitrary.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where there is not enough.
    fn reserve(&mut self, bytes: usize) -> Result<Buffer, CudaError>;

    /// Gives back what [`reserve`](Self::reserve) gave.
    ///
    /// # Errors
    /// [`CudaError::Call`]
    fn release(&mut self, buffer: Buffer) -> Result<(), CudaError>;

    /// Copies to the beginning of a buffer. The source may be changed when this returns.
    ///
    /// # Errors
    /// [`CudaError::Call`]
    fn upload(&mut self, to: Buffer, bytes: &[u8]) -> Result<(), CudaError>;

    /// Copies from the beginning of a buffer, after everything asked for before.
    ///
    /// # Errors
    /// [`CudaError::Call`], also that of work asked for before.
    fn download(&mut self, from: Buffer, bytes: &mut [u8]) -> Result<(), CudaError>;

    /// Copies `from` to the beginning of `to`.
    ///
    /// # Errors
    /// [`CudaError::Call`]
    fn copy(&mut self, from: Buffer, to: Buffer) -> Result<(), CudaError>;

    /// Sets all bytes to 0.
    ///
    /// # Errors
    /// [`CudaError::Call`]
    fn clear(&mut self, buffer: Buffer) -> Result<(), CudaError>;

    /// Runs a kernel. Nothing happens where the grid is empty.
    ///
    /// # Errors
    /// [`CudaError::Kernel`] where there is none of this name.
    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError>;

    /// Multiplies matrices. Nothing happens where the result is empty.
    ///
    /// # Errors
    /// [`CudaError::Call`]
    fn product(&mut self, product: &Product) -> Result<(), CudaError>;

    /// Waits for all work.
    ///
    /// # Errors
    /// [`CudaError::Call`], also that of work asked for before.
    fn synchronize(&mut self) -> Result<(), CudaError>;

    /// From here on kernels, products and copies on the card are written down instead of run.
    ///
    /// # Errors
    /// [`CudaError::Call`]
    fn begin_capture(&mut self) -> Result<(), CudaError>;

    /// Ends what [`begin_capture`](Self::begin_capture) began.
    ///
    /// # Errors
    /// [`CudaError::Call`]
    fn end_capture(&mut self) -> Result<Graph, CudaError>;

    /// Runs what was captured.
    ///
    /// # Errors
    /// [`CudaError::Call`]
    fn launch_graph(&mut self, graph: Graph) -> Result<(), CudaError>;

    /// Forgets a graph.
    ///
    /// # Errors
    /// [`CudaError::Call`]
    fn drop_graph(&mut self, graph: Graph) -> Result<(), CudaError>;
}

impl<D: Driver + ?Sized> Driver for Box<D> {
    fn name(&self) -> String {
        (**self).name()
    }

    fn memory(&self) -> Result<Memory, CudaError> {
        (**self).memory()
    }

    fn reserve(&mut self, bytes: usize) -> Result<Buffer, CudaError> {
        (**self).reserve(bytes)
    }

    fn release(&mut self, buffer: Buffer) -> Result<(), CudaError> {
        (**self).release(buffer)
    }

    fn upload(&mut self, to: Buffer, bytes: &[u8]) -> Result<(), CudaError> {
        (**self).upload(to, bytes)
    }

    fn download(&mut self, from: Buffer, bytes: &mut [u8]) -> Result<(), CudaError> {
        (**self).download(from, bytes)
    }

    fn copy(&mut self, from: Buffer, to: Buffer) -> Result<(), CudaError> {
        (**self).copy(from, to)
    }

    fn clear(&mut self, buffer: Buffer) -> Result<(), CudaError> {
        (**self).clear(buffer)
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError> {
        (**self).launch(launch)
    }

    fn product(&mut self, product: &Product) -> Result<(), CudaError> {
        (**self).product(product)
    }

    fn synchronize(&mut self) -> Result<(), CudaError> {
        (**self).synchronize()
    }

    fn begin_capture(&mut self) -> Result<(), CudaError> {
        (**self).begin_capture()
    }

    fn end_capture(&mut self) -> Result<Graph, CudaError> {
        (**self).end_capture()
    }

    fn launch_graph(&mut self, graph: Graph) -> Result<(), CudaError> {
        (**self).launch_graph(graph)
    }

    fn drop_graph(&mut self, graph: Graph) -> Result<(), CudaError> {
        (**self).drop_graph(graph)
    }
}
