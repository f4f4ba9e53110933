//! The normal distribution function and its inverse.

/// Φ(z), to 1.5e-7 (Abramowitz and Stegun, *Handbook of Mathematical Functions*, 7.1.26).
pub(super) fn normal_cdf(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let coefficients =
        [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let polynomial = coefficients.iter().fold(0.0, |sum, c| sum * t + c) * t;
    let erf = 1.0 - polynomial * (-x * x).exp();
    if z >= 0.0 { f64::midpoint(1.0, erf) } else { f64::midpoint(1.0, -erf) }
}

/// Φ⁻¹(p) for p in (0, 1), by bisection; as exact as [`normal_cdf`].
pub(super) fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        if normal_cdf(middle) < p { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::{normal_cdf, normal_quantile};

    #[test]
    fn the_normal_distribution_matches_its_table() {
        for (z, expected) in
            [(0.0, 0.5), (1.0, 0.841_344_75), (-1.96, 0.024_997_90), (3.0, 0.998_650_1)]
        {
            assert!((normal_cdf(z) - expected).abs() < 2e-7, "Φ({z}) = {}", normal_cdf(z));
            assert!((normal_quantile(expected) - z).abs() < 1e-4, "Φ⁻¹({expected})");
        }
    }
}
