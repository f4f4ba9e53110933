//! Products by cuBLASLt, with the algorithm that was chosen for a shape kept.

#![allow(unsafe_code, reason = "calls cuBLASLt")]

use std::collections::HashMap;
use std::ffi::c_void;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver::sys::CUstream;

use crate::driver::{Matrix, Product};
use crate::{Buffer, CudaError, Storage};

/// Memory that products may use besides their operands, bytes.
pub(super) const WORKSPACE: usize = 32 << 20;

/// A handle of cuBLASLt with the algorithms that were chosen.
#[derive(Debug)]
pub(super) struct Multiplier {
    handle: sys::cublasLtHandle_t,
    algorithms: HashMap<[Shape; 3], Algorithm>,
}

/// What the choice of an algorithm depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    storage: Storage,
    size: [usize; 3],
    transposed: bool,
    /// Bytes that its address is a multiple of, at most 256.
    alignment: u32,
}

#[derive(Debug)]
struct Algorithm {
    operation: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    chosen: sys::cublasLtMatmulAlgo_t,
}

impl Shape {
    fn of(matrix: Matrix) -> Self {
        let address = matrix.buffer.address();
        Self {
            storage: matrix.storage,
            size: [matrix.rows, matrix.columns, matrix.stride],
            transposed: matrix.transposed,
            alignment: 1 << address.trailing_zeros().min(8),
        }
    }

    fn dtype(self) -> sys::cudaDataType {
        match self.storage {
            Storage::F32 => sys::cudaDataType::CUDA_R_32F,
            Storage::F16 => sys::cudaDataType::CUDA_R_16F,
            Storage::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        }
    }

    /// cuBLAS counts by columns: it sees the transposed of a row-major matrix.
    fn layout(self) -> Result<sys::cublasLtMatrixLayout_t, CublasError> {
        let [rows, columns, stride] = self.size;
        result::create_matrix_layout(self.dtype(), columns as u64, rows as u64, stride as i64)
    }
}

fn failed(call: &'static str) -> impl Fn(CublasError) -> CudaError {
    move |error| CudaError::Call { call, code: format!("{:?}", error.0) }
}

fn pointer<P>(value: &P) -> *const c_void {
    std::ptr::from_ref(value).cast()
}

impl Multiplier {
    /// cuBLASLt is loaded.
    pub(super) fn new() -> Result<Self, CudaError> {
        let handle = result::create_handle().map_err(failed("cublasLtCreate"))?;
        Ok(Self { handle, algorithms: HashMap::new() })
    }

    /// # Safety
    /// The matrices lie in memory of the current card, and so does the workspace, of [`WORKSPACE`] bytes.
    pub(super) unsafe fn multiply(
        &mut self,
        product: &Product,
        workspace: Buffer,
        stream: CUstream,
    ) -> Result<(), CudaError> {
        let Product { a, b, out, scale, accumulate } = *product;
        // outᵀ = bᵀ aᵀ: what is `b` here is the first factor there.
        let key = [b, a, out].map(Shape::of);
        if !self.algorithms.contains_key(&key) {
            let chosen = choose(self.handle, key)?;
            self.algorithms.insert(key, chosen);
        }
        let Algorithm { operation, layouts, chosen } = &self.algorithms[&key];
        let beta = if accumulate { 1.0_f32 } else { 0.0 };
        let address = |matrix: Matrix| matrix.buffer.address() as *mut c_void;
        // SAFETY: descriptors live as long as `self`; the memory is the caller's.
        let done = unsafe {
            result::matmul(
                self.handle,
                *operation,
                pointer(&scale),
                pointer(&beta),
                address(b),
                layouts[0],
                address(a),
                layouts[1],
                address(out),
                layouts[2],
                address(out),
                layouts[2],
                &raw const *chosen,
                workspace.address() as *mut c_void,
                WORKSPACE,
                stream.cast(),
            )
        };
        done.map_err(failed("cublasLtMatmul"))
    }
}

/// Asks cuBLASLt for its best algorithm that sums in a fixed order.
fn choose(handle: sys::cublasLtHandle_t, key: [Shape; 3]) -> Result<Algorithm, CudaError> {
    use sys::cublasLtMatmulDescAttributes_t::{
        CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB,
    };
    use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
    let describe = || -> Result<Algorithm, CublasError> {
        let operation = result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        )?;
        let sides = [CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB];
        for (attribute, shape) in sides.into_iter().zip(key) {
            // CUBLAS_OP_N is 0, CUBLAS_OP_T is 1.
            let value = i32::from(shape.transposed);
            // SAFETY: the descriptor was just made; the value is of the attribute's type.
            unsafe {
                let size = size_of_val(&value);
                result::set_matmul_desc_attribute(operation, attribute, pointer(&value), size)?;
            }
        }
        let layouts = [key[0].layout()?, key[1].layout()?, key[2].layout()?];
        let preference = result::create_matmul_pref()?;
        let set = |attribute, value: *const c_void, size| {
            // SAFETY: the preference was just made; each value below is of its attribute's type.
            unsafe { result::set_matmul_pref_attribute(preference, attribute, value, size) }
        };
        let workspace = WORKSPACE as u64;
        set(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, pointer(&workspace), 8)?;
        // Parts of the inner dimension may be summed apart, but not into the result in any order.
        let reductions = 2_u32;
        set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, pointer(&reductions), 4)?;
        let [b, a, out] = key.map(|shape| shape.alignment);
        for (attribute, alignment) in [
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
        ] {
            set(attribute, pointer(&alignment), 4)?;
        }
        // SAFETY: all descriptors were just made; the preference is destroyed once.
        let found = unsafe {
            let [first, second, third] = layouts;
            let found = result::get_matmul_algo_heuristic(
                handle, operation, first, second, third, third, preference,
            );
            result::destroy_matmul_pref(preference)?;
            found?
        };
        Ok(Algorithm { operation, layouts, chosen: found.algo })
    };
    describe().map_err(failed("cublasLtMatmulAlgoGetHeuristic"))
}

impl Drop for Multiplier {
    fn drop(&mut self) {
        for (_, Algorithm { operation, layouts, .. }) in self.algorithms.drain() {
            // SAFETY: made by `choose`, destroyed once. An error leaves some memory of the host behind.
            unsafe {
                let _ = result::destroy_matmul_desc(operation);
                for layout in layouts {
                    let _ = result::destroy_matrix_layout(layout);
                }
            }
        }
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
