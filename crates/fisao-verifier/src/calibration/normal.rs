//! The normal distribution function and its inverse.

/// Φ(z).
pub(super) fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
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
    fn normal_cdf_and_quantile_match_the_table() {
        for (z, expected) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_069),
            (-1.96, 0.024_997_895_148),
            (3.0, 0.998_650_101_968),
        ] {
            assert!((normal_cdf(z) - expected).abs() < 1e-12, "Φ({z}) = {}", normal_cdf(z));
            assert!((normal_quantile(expected) - z).abs() < 1e-9, "Φ⁻¹({expected})");
        }
    }
}
