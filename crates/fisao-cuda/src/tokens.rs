//! What goes into the first layer.

use std::ops::Range;

use crate::decoder::Decoder;
use crate::kernels::{Rows, embed};
use crate::{Buffer, CudaError, Driver};

/// What a decoder reads.
#[derive(Debug, Clone, Copy)]
pub enum Tokens<'a> {
    /// Token ids, `[prompts · length]`.
    Ids(&'a [u32]),
    /// Embeddings, `[prompts · length, hidden]`: image features among them.
    Embeddings(&'a [f32]),
}

impl Tokens<'_> {
    /// Writes the embeddings of some rows to `x`, `[rows, hidden]` f32; `places` has room for their ids.
    pub(crate) fn upload(
        self,
        driver: &mut dyn Driver,
        decoder: &Decoder,
        [places, x]: [Buffer; 2],
        rows: Range<usize>,
    ) -> Result<(), CudaError> {
        let config = decoder.config();
        let width = config.hidden;
        match self {
            Self::Ids(ids) => {
                let ids = &ids[rows.clone()];
                driver.upload(places, bytemuck::cast_slice(ids))?;
                let buffers = [places, decoder.weights.table, x];
                embed(driver, config.storage, buffers, Rows { rows: rows.len(), width })
            }
            Self::Embeddings(values) => {
                let values = &values[rows.start * width..rows.end * width];
                driver.upload(x, bytemuck::cast_slice(values))
            }
        }
    }
}
