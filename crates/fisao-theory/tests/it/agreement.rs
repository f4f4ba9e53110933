//! Every closed form against its simulation, with several seeds.

use std::collections::BTreeSet;

use fisao_theory::checks::{CHECKS, VIOLATIONS};
use fisao_theory::comparison::{Check, TOLERANCE};

/// Standard errors that an estimate from 16 batches may be off by. Student's t with 15 degrees of freedom exceeds this about once
/// in 10,000 draws; each seed draws some 170.
const STANDARD_ERRORS: f64 = 6.0;

#[test]
fn closed_forms_agree_with_simulations_for_several_seeds() {
    for seed in [0, 1, 2] {
        let checks: Vec<Check> = CHECKS.iter().map(|check| check(seed)).collect();
        for check in &checks {
            let name = check.facts.name;
            assert!(check.relative_error <= TOLERANCE, "{name}, seed {seed}: {check:?}");
            for point in &check.curve {
                let distance = (point.monte_carlo - point.closed_form).abs();
                // Where nothing is random the two differ by rounding alone.
                let allowed = STANDARD_ERRORS * point.standard_error + 1e-9;
                assert!(distance <= allowed, "{name}, seed {seed}: {point:?}");
            }
        }
        let names: BTreeSet<&str> = checks.iter().map(|check| check.facts.name).collect();
        assert_eq!(names.len(), checks.len(), "names are unique");
        for violation in VIOLATIONS {
            let violation = violation(seed);
            assert!(names.contains(violation.check), "{}", violation.check);
            assert!(violation.deviation.is_finite(), "{violation:?}");
        }
    }
}

#[test]
fn same_seed_gives_the_same_bytes_and_another_seed_others() {
    let bytes = |seed: u64| {
        let checks: Vec<_> = CHECKS.iter().step_by(5).map(|check| check(seed)).collect();
        serde_json::to_string(&checks).unwrap()
    };
    assert_eq!(bytes(7), bytes(7));
    assert_ne!(bytes(7), bytes(8));
}
