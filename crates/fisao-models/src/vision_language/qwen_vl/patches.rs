//! Patches of one image: the order in which the tower holds them, their windows, and what their places give.

use fisao_kernels::rotary::Angles;

use crate::llama::rotary::{angles, frequencies};

/// Patches along each side, and those along a side that become one token together.
#[derive(Debug, Clone, Copy)]
pub(super) struct PatchGrid {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) merge: usize,
}

/// Patches in an order in which those of a token are adjacent, and so are those of a window and windows of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PatchOrder {
    /// Row and column of each patch.
    pub(super) places: Vec<[usize; 2]>,
    /// Windows of one size, and patches of each of them.
    pub(super) windows: Vec<[usize; 2]>,
    /// Where each token stands, row by row.
    pub(super) tokens: Vec<usize>,
}

impl PatchGrid {
    /// Rows and columns of tokens.
    pub(super) fn tokens(&self) -> [usize; 2] {
        [self.rows / self.merge, self.columns / self.merge]
    }

    /// The order where attention has windows of so many tokens along a side; row by row where it has none.
    pub(super) fn order(&self, window: Option<usize>) -> PatchOrder {
        let [down, across] = self.tokens();
        let side = window.unwrap_or(usize::MAX);
        let firsts = |length: usize| (0..length).step_by(side.min(length.max(1)));
        let corners = firsts(down).flat_map(|row| firsts(across).map(move |column| [row, column]));
        let cells = |[top, left]: [usize; 2]| {
            let rows = top..down.min(top.saturating_add(side));
            let columns = left..across.min(left.saturating_add(side));
            rows.flat_map(|row| columns.clone().map(move |column| [row, column]))
                .collect::<Vec<_>>()
        };
        let mut windows: Vec<Vec<[usize; 2]>> = corners.map(cells).collect();
        // What is in a window does not depend on others, so that windows may come in any order.
        windows.sort_by_key(Vec::len);
        let of_token = self.merge * self.merge;
        let same = windows.chunk_by(|a, b| a.len() == b.len());
        let sizes = same.map(|windows| [windows.len(), windows[0].len() * of_token]).collect();
        let mut tokens = vec![0; down * across];
        let mut places = Vec::with_capacity(self.rows * self.columns);
        for (index, &[row, column]) in windows.iter().flatten().enumerate() {
            tokens[row * across + column] = index;
            let merge = self.merge;
            let inside = (0..merge).flat_map(|y| (0..merge).map(move |x| [y, x]));
            places.extend(inside.map(|[y, x]| [row * merge + y, column * merge + x]));
        }
        PatchOrder { places, windows: sizes, tokens }
    }
}

impl PatchOrder {
    /// Where each patch stands row by row.
    pub(super) fn row_by_row(&self, columns: usize) -> Vec<i64> {
        self.places.iter().map(|[row, column]| (row * columns + column) as i64).collect()
    }

    /// Rotary angles of two dimensions: the first half of a head's pairs turns with the row, the other with the column.
    pub(super) fn angles(&self, base: f64, half: usize) -> Angles {
        let places = self.places.iter().flatten().copied();
        Angles { half, ..angles(&frequencies(base, half / 2), places) }
    }

    /// The four entries of a square table of positions, `side` along each side, that lie around each patch where the grid is laid over the
    /// table corner on corner, and their weights; four lists.
    pub(super) fn table_taps(&self, grid: PatchGrid, side: usize) -> [(Vec<i64>, Vec<f32>); 4] {
        let mut taps: [(Vec<i64>, Vec<f32>); 4] = Default::default();
        for &[row, column] in &self.places {
            let down = neighbours(row, grid.rows, side);
            let across = neighbours(column, grid.columns, side);
            let pairs = down.iter().flat_map(|y| across.iter().map(move |x| (y, x)));
            for (((y, of_y), (x, of_x)), (entries, weights)) in pairs.zip(&mut taps) {
                entries.push((y * side + x) as i64);
                weights.push((of_y * of_x) as f32);
            }
        }
        taps
    }
}

/// The two of `side` entries on either side of place `at` of `length`, with weights.
fn neighbours(at: usize, length: usize, side: usize) -> [(usize, f64); 2] {
    let place = (at * (side - 1)) as f64 / (length.max(2) - 1) as f64;
    let (first, part) = (place.floor() as usize, place.fract());
    [(first, 1.0 - part), ((first + 1).min(side - 1), part)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_one_size_are_adjacent_and_tokens_are_found_again() {
        let grid = PatchGrid { rows: 4, columns: 6, merge: 2 };
        let order = grid.order(Some(2));
        // Two tokens by two, and the column that is left over.
        assert_eq!(order.windows, [[1, 8], [1, 16]]);
        assert_eq!(order.tokens, [2, 3, 0, 4, 5, 1]);
        assert_eq!(order.places[..4], [[0, 4], [0, 5], [1, 4], [1, 5]]);
        let whole = grid.order(None);
        assert_eq!((whole.windows, whole.tokens), (vec![[1, 24]], (0..6).collect()));
        assert_eq!(whole.places[4], [0, 2]);
    }

    #[test]
    fn tables_are_read_corner_on_corner() {
        assert_eq!(neighbours(0, 7, 4), [(0, 1.0), (1, 0.0)]);
        assert_eq!(neighbours(6, 7, 4), [(3, 1.0), (3, 0.0)]);
        assert_eq!(neighbours(1, 7, 4), [(0, 0.5), (1, 0.5)]);
        assert_eq!(neighbours(0, 1, 4)[0], (0, 1.0));
    }
}
