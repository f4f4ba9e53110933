//! Matrices as kernels read them.

use std::ops::Range;

/// Up to so many rows of `x` a skinny GEMM is quicker than a general product.
pub(crate) const SKINNY_ROWS: usize = 40;

/// A matrix read through strides.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// Starts at the first element.
    pub data: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Numbers from one row to the next.
    pub row_stride: usize,
    /// Numbers from one column to the next.
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major without gaps.
    pub fn dense(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The same numbers with rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// A row that lies in one piece.
    #[inline(always)]
    pub(crate) fn row(&self, at: usize) -> &'a [f32] {
        debug_assert!(self.column_stride == 1, "a row in pieces");
        &self.data[at * self.row_stride..][..self.columns]
    }

    /// Some of its rows.
    #[inline(always)]
    pub(crate) fn some_rows(&self, rows: Range<usize>) -> Self {
        let data = &self.data[(rows.start * self.row_stride).min(self.data.len())..];
        Self { data, rows: rows.len(), ..*self }
    }

    /// Some of its columns.
    #[inline(always)]
    pub(crate) fn some_columns(&self, columns: Range<usize>) -> Self {
        debug_assert!(columns.end <= self.columns, "more columns than there are");
        let data = &self.data[(columns.start * self.column_stride).min(self.data.len())..];
        Self { data, columns: columns.len(), ..*self }
    }

    /// Where a row begins, which may be behind the last.
    #[inline(always)]
    pub(crate) fn at(&self, row: usize) -> *const f32 {
        self.data.as_ptr().wrapping_add(row * self.row_stride)
    }

    /// Whether its rows are few, each in one piece.
    pub(crate) fn is_skinny(&self) -> bool {
        self.rows <= SKINNY_ROWS && self.column_stride == 1
    }

    /// Itself as a matrix without gaps, where it is one.
    pub(crate) fn stored(&self) -> Option<StoredMatrix<'a, f32>> {
        let dense = self.column_stride == 1 && self.row_stride == self.columns;
        dense.then(|| StoredMatrix {
            data: &self.data[..self.rows * self.columns],
            rows: self.rows,
            columns: self.columns,
        })
    }

    /// Elements that reading it touches.
    pub(crate) fn extent(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// A row-major matrix without gaps.
#[derive(Clone, Copy)]
pub(crate) struct StoredMatrix<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}
