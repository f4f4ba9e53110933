//! Small dense matrices.

use crate::random::Stream;

/// `[rows, columns]`, row by row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// Standard normal entries.
    pub(crate) fn random([rows, columns]: [usize; 2], stream: &mut Stream) -> Self {
        Self { columns, values: stream.normals(rows * columns) }
    }

    /// Orthonormal columns in a random direction (Gram–Schmidt).
    pub(crate) fn orthonormal([rows, columns]: [usize; 2], stream: &mut Stream) -> Self {
        let mut found: Vec<Vec<f64>> = Vec::with_capacity(columns);
        for _ in 0..columns {
            let mut vector = stream.normals(rows);
            for other in &found {
                let along = dot(&vector, other);
                vector.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
            }
            let length = dot(&vector, &vector).sqrt();
            found.push(vector.iter().map(|value| value / length).collect());
        }
        let entry = |at: usize| found[at % columns][at / columns];
        Self { columns, values: (0..rows * columns).map(entry).collect() }
    }

    /// M x, `[rows]` for x `[columns]`.
    pub(crate) fn times(&self, x: &[f64]) -> Vec<f64> {
        assert_eq!(
            x.len(),
            self.columns,
            "a matrix multiplies a vector of as many entries as it has columns"
        );
        self.values.chunks(self.columns).map(|row| dot(row, x)).collect()
    }

    /// Mᵀ x, `[columns]` for x `[rows]`.
    pub(crate) fn transposed_times(&self, x: &[f64]) -> Vec<f64> {
        let mut found = vec![0.0; self.columns];
        for (row, x) in self.values.chunks(self.columns).zip(x) {
            found.iter_mut().zip(row).for_each(|(value, entry)| *value += entry * x);
        }
        found
    }

    /// M Nᵀ, for N with as many columns.
    pub(crate) fn times_transposed(&self, other: &Self) -> Self {
        let rows = self.values.chunks(self.columns);
        let values: Vec<f64> = rows.flat_map(|row| other.times(row)).collect();
        Self { columns: other.values.len() / other.columns, values }
    }

    /// M N.
    pub(crate) fn times_matrix(&self, other: &Self) -> Self {
        let rows = self.values.chunks(self.columns);
        Self {
            columns: other.columns,
            values: rows.flat_map(|row| other.transposed_times(row)).collect(),
        }
    }

    /// ⟨M, N⟩ = Σ M_ij N_ij.
    pub(crate) fn inner(&self, other: &Self) -> f64 {
        dot(&self.values, &other.values)
    }

    /// a M + b N.
    pub(crate) fn combined(&self, a: f64, other: &Self, b: f64) -> Self {
        let values = self.values.iter().zip(&other.values).map(|(x, y)| a * x + b * y).collect();
        Self { columns: self.columns, values }
    }

    /// M/‖M‖.
    pub(crate) fn normalised(&self) -> Self {
        let length = self.inner(self).sqrt();
        Self { columns: self.columns, values: self.values.iter().map(|x| x / length).collect() }
    }
}

/// Σ x_i y_i.
pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}
