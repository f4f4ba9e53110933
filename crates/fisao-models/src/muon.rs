//! Muon (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>): momentum whose matrix is
//! orthogonalised before it is applied, so that every direction of a weight moves alike.
//!
//! `m ← μm + g`, `u = g + μm`, `O = NS₅(u) ≈ U Vᵀ` of `u = U Σ Vᵀ`, and
//! `θ ← θ(1 − ηλ) − η √max(1, out/in) · O`. The five Newton–Schulz steps use the published quintic
//! `x ↦ 3.4445 x − 4.7750 x³ + 2.0315 x⁵`, which brings singular values near 1 fast rather than to it.
//!
//! Meant for the matrices inside of layers; embeddings, norms and output linear layers keep AdamW.

use std::collections::BTreeMap;

use fisao_kernels::linear::multiply;
use fisao_kernels::matrix::Matrix;

use crate::parallel::{cores, parallel_chunks};
use crate::parameters::{GradientMap, ParameterMut, Parameters};

/// The quintic's coefficients.
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];

/// Newton–Schulz steps.
const STEPS: usize = 5;

/// Constants of the optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MuonConfig {
    /// μ.
    pub momentum: f32,
    /// Decoupled decay λ.
    pub weight_decay: f64,
}

impl Default for MuonConfig {
    fn default() -> Self {
        Self { momentum: 0.95, weight_decay: 0.0 }
    }
}

/// The optimiser with its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Muon {
    config: MuonConfig,
    /// m by parameter name.
    pub momentum: BTreeMap<String, Vec<f32>>,
}

impl Muon {
    /// An optimiser that has seen nothing.
    pub fn new(config: MuonConfig) -> Self {
        Self { config, momentum: BTreeMap::new() }
    }

    /// Updates every matrix of `model` that satisfies `select` and has a gradient; it comes back frozen.
    /// The matrices are shared out among the cores.
    pub fn step(
        &mut self,
        model: &mut impl Parameters,
        select: &dyn Fn(&str) -> bool,
        gradients: &GradientMap,
        learning_rate: f64,
    ) {
        let mut work = Vec::new();
        model.visit_mut("", &mut |name, parameter| {
            if let (ParameterMut::Matrix(matrix), Some(gradient)) =
                (&parameter, gradients.get(name).filter(|_| select(name)))
            {
                work.push(Work { name: name.to_owned(), size: matrix.dims(), gradient });
            }
        });
        // Large and small matrices alternate, so that cores finish together.
        work.sort_by_key(|work| (std::cmp::Reverse(work.gradient.len()), work.name.clone()));
        let parts = cores().min(work.len()).max(1);
        let chunks: Vec<Vec<&Work<'_>>> =
            (0..parts).map(|part| work.iter().skip(part).step_by(parts).collect()).collect();
        let (mu, before) = (self.config.momentum, &self.momentum);
        let moved = parallel_chunks(&chunks, parts, |chunks| {
            let chunk = chunks.iter().flatten();
            chunk.map(|work| (work.name.clone(), work.direction(mu, before))).collect::<Vec<_>>()
        });
        let mut moved: BTreeMap<_, _> = moved.into_iter().flatten().collect();
        let keep = (1.0 - learning_rate * self.config.weight_decay) as f32;
        model.visit_mut("", &mut |name, mut parameter| {
            let Some((momentum, direction)) = moved.remove(name) else { return };
            let rate = learning_rate * aspect(&parameter.shape());
            let mut values = parameter.values();
            for (value, &step) in values.iter_mut().zip(&direction) {
                *value = *value * keep - rate as f32 * step;
            }
            parameter.set_values(values);
            self.momentum.insert(name.to_owned(), momentum);
        });
    }
}

/// `√max(1, out/in)`.
fn aspect(shape: &[usize]) -> f64 {
    (shape[0] as f64 / shape[1] as f64).max(1.0).sqrt()
}

/// One matrix to be updated.
struct Work<'a> {
    name: String,
    size: [usize; 2],
    gradient: &'a [f32],
}

impl Work<'_> {
    /// The new momentum and the direction to step against.
    fn direction(&self, mu: f32, before: &BTreeMap<String, Vec<f32>>) -> (Vec<f32>, Vec<f32>) {
        let mut momentum = match before.get(&self.name) {
            Some(momentum) => momentum.clone(),
            None => vec![0.0; self.gradient.len()],
        };
        let mut update = vec![0.0; self.gradient.len()];
        for ((m, &g), u) in momentum.iter_mut().zip(self.gradient).zip(&mut update) {
            *m = mu * *m + g;
            *u = g + mu * *m;
        }
        let [rows, columns] = self.size;
        (momentum, orthogonalised(update, rows, columns))
    }
}

/// `U Vᵀ` of a row-major matrix, roughly: all singular values between about 0.7 and 1.2.
fn orthogonalised(mut x: Vec<f32>, rows: usize, columns: usize) -> Vec<f32> {
    let norm = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt() as f32 + 1e-7;
    for v in &mut x {
        *v /= norm;
    }
    // The smaller side's products are the cheaper ones.
    let side = rows.min(columns);
    let [a, b, c] = QUINTIC;
    let mut gram = vec![0.0; side * side];
    let mut factor = vec![0.0; side * side];
    let mut next = vec![0.0; x.len()];
    for _ in 0..STEPS {
        let matrix = Matrix::dense(&x, rows, columns);
        let (left, right) = if rows <= columns {
            (matrix, matrix.transposed())
        } else {
            (matrix.transposed(), matrix)
        };
        multiply(&mut gram, side, left, right, 1.0, false);
        let square = Matrix::dense(&gram, side, side);
        multiply(&mut factor, side, square, square, c, false);
        for (f, &g) in factor.iter_mut().zip(&gram) {
            *f += b * g;
        }
        let factor = Matrix::dense(&factor, side, side);
        for (n, &x) in next.iter_mut().zip(&x) {
            *n = a * x;
        }
        if rows <= columns {
            multiply(&mut next, columns, factor, matrix, 1.0, true);
        } else {
            multiply(&mut next, columns, matrix, factor, 1.0, true);
        }
        std::mem::swap(&mut x, &mut next);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Singular values of `diag(σ)` padded to a rectangle are on its diagonal.
    fn diagonal(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        let mut matrix = vec![0.0; rows * columns];
        for (at, &value) in values.iter().enumerate() {
            matrix[at * columns + at] = value;
        }
        matrix
    }

    #[test]
    fn orthogonalisation_equalises_singular_values_and_keeps_signs() {
        for (rows, columns) in [(3, 5), (5, 3), (3, 3)] {
            let out = orthogonalised(diagonal(&[4.0, -1.0, 0.3], rows, columns), rows, columns);
            for row in 0..rows {
                for column in 0..columns {
                    let value = out[row * columns + column];
                    let expected =
                        if row == column && row < 3 { [1.0, -1.0, 1.0][row] } else { 0.0 };
                    assert!(
                        (value - expected).abs() < 0.35,
                        "{rows}×{columns} [{row},{column}] {value}"
                    );
                }
            }
        }
    }

    /// One step of the quintic on a 1×1 matrix, by hand: x = 1 stays within its known band.
    #[test]
    fn orthogonalised_scalar_matches_the_quintic_iteration() {
        let mut x = 1.0_f32;
        for _ in 0..STEPS {
            x = QUINTIC[0] * x + QUINTIC[1] * x.powi(3) + QUINTIC[2] * x.powi(5);
        }
        let found = orthogonalised(vec![7.0], 1, 1)[0];
        assert!((found - x).abs() < 1e-3, "{found} is not {x}");
    }
}
