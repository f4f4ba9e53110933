//! Rows that are looked up, gathered, added and converted.

use super::{Rows, THREADS, blocks, by_element, by_row, run};
use crate::{Buffer, CudaError, Driver, Storage};

/// Rows of `table` at `ids`, `[rows]` of u32, to `out` in f32.
///
/// # Errors
/// Those of the driver.
pub fn embed(
    driver: &mut dyn Driver,
    storage: Storage,
    [ids, table, out]: [Buffer; 3],
    rows: Rows,
) -> Result<(), CudaError> {
    let arguments = [ids.into(), table.into(), out.into(), rows.width.into()];
    by_row(driver, storage, "embed", rows.rows, &arguments)
}

/// The last row of each of `sequences` sequences of `length` rows, in f32.
///
/// # Errors
/// Those of the driver.
pub fn last_rows(
    driver: &mut dyn Driver,
    [x, out]: [Buffer; 2],
    [sequences, length, width]: [usize; 3],
) -> Result<(), CudaError> {
    let arguments = [x.into(), out.into(), length.into(), width.into()];
    by_row(driver, Storage::F32, "last_rows", sequences, &arguments)
}

/// `out[row] = x[places[row]]`, f32; `places` is `[rows]` i32.
///
/// # Errors
/// Those of the driver.
pub fn gather_rows(
    driver: &mut dyn Driver,
    [x, places, out]: [Buffer; 3],
    rows: Rows,
) -> Result<(), CudaError> {
    let arguments = [x.into(), places.into(), out.into(), rows.width.into()];
    by_row(driver, Storage::F32, "gather_rows", rows.rows, &arguments)
}

/// `out[places[row]] += x[row]`, f32, in the order of the rows; `places` is `[rows]` i32 and may repeat itself.
///
/// # Errors
/// Those of the driver.
pub fn add_rows(
    driver: &mut dyn Driver,
    [x, places, out]: [Buffer; 3],
    rows: Rows,
) -> Result<(), CudaError> {
    let Rows { rows, width } = rows;
    let arguments = [x.into(), places.into(), out.into(), rows.into(), width.into()];
    by_element(driver, Storage::F32, "add_rows", width, &arguments)
}

/// `x[row] += bias`, f32.
///
/// # Errors
/// Those of the driver.
pub fn add_bias(
    driver: &mut dyn Driver,
    [x, bias]: [Buffer; 2],
    rows: Rows,
) -> Result<(), CudaError> {
    let Rows { rows, width } = rows;
    let arguments = [x.into(), bias.into(), rows.into(), width.into()];
    by_element(driver, Storage::F32, "add_bias", rows * width, &arguments)
}

/// f32 to the storage type.
///
/// # Errors
/// Those of the driver.
pub fn narrow(
    driver: &mut dyn Driver,
    storage: Storage,
    [x, out]: [Buffer; 2],
    count: usize,
) -> Result<(), CudaError> {
    let arguments = [x.into(), out.into(), (count as i64).into()];
    by_element(driver, storage, "narrow", count, &arguments)
}

/// Copies row `from` of `[layers, rows, elements]` to row `to`, in every layer.
///
/// # Errors
/// Those of the driver.
pub fn move_row(
    driver: &mut dyn Driver,
    storage: Storage,
    cache: Buffer,
    [layers, rows, elements]: [usize; 3],
    [from, to]: [usize; 2],
) -> Result<(), CudaError> {
    let arguments = [
        cache.into(),
        ((rows * elements) as i64).into(),
        (elements as i64).into(),
        from.into(),
        to.into(),
    ];
    let grid = [blocks(elements, THREADS as usize), blocks(layers, 1), 1];
    run(driver, storage, "move_row", grid, THREADS, &arguments)
}
