//! The study as one HTML page with plots.

use super::document::Study;
use super::tables::{
    detected, detectors, interval_over_seeds, over_seeds, signal, signal_names, summary_rows,
    tables,
};
use fisao_report::html::{counted, escape, fill, page};
use fisao_report::plots::{Estimate, Line, distributions, estimates, lines};

/// Variants whose lines are drawn where the verifier loses resolution.
const DRAWN: usize = 5;

/// Renders the page, which makes no request to anywhere.
pub(super) fn render(study: &Study<'_>) -> String {
    let tiles: Vec<String> = summary_rows(study)
        .iter()
        .map(|(what, found)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(what), escape(found))
        })
        .collect();
    let tables: Vec<String> = tables(study)
        .iter()
        .map(|(title, table)| {
            format!("<h3>{}</h3><div class=\"scroll\">{}</div>", escape(title), table.html())
        })
        .collect();
    let distribution = study.seeds.first().and_then(|seed| seed.distribution.as_ref());
    let main = fill(
        include_str!("main.html").trim_end(),
        &[
            ("model", &escape(&study.model)),
            ("images", &escape(&study.images)),
            ("seeds", &counted(study.seeds.len(), "seed")),
            ("facts", &tiles.join("\n")),
            ("distribution", &distribution.map_or_else(String::new, distributions)),
            ("detection", &detection(study)),
            ("signals", &signals(study)),
            ("risk", &risk(study)),
            ("coarse", &coarse(study)),
            ("correlations", &correlations(study)),
            ("sizes", &sizes(study)),
            ("tables", &tables.join("\n")),
        ],
    );
    page("What the verifier can detect", &main)
}

fn detection(study: &Study<'_>) -> String {
    let rows = detectors(study).into_iter().enumerate().filter_map(|(position, name)| {
        Some(Estimate {
            value: over_seeds(study, |seed| Some(detected(seed, position)?.auc))?,
            interval: interval_over_seeds(study, |seed| detected(seed, position)?.auc_interval),
            marked: name.ends_with("(default)"),
            name,
        })
    });
    estimates(&rows.collect::<Vec<_>>(), 4)
}

/// AUC of the signals and of their combinations.
fn signals(study: &Study<'_>) -> String {
    let rows = signal_names(study).into_iter().enumerate().filter_map(|(position, name)| {
        Some(Estimate {
            value: over_seeds(study, |seed| Some(signal(seed, position)?.auc))?,
            interval: interval_over_seeds(study, |seed| signal(seed, position)?.auc_interval),
            marked: name.starts_with("combined"),
            name,
        })
    });
    estimates(&rows.collect::<Vec<_>>(), 4)
}

/// Risk over coverage of the plain score and the probe, first seed.
fn risk(study: &Study<'_>) -> String {
    let names = detectors(study);
    let curve = |position: usize| {
        let found = study.seeds.first().and_then(|seed| detected(seed, position))?;
        Some(Line { name: names[position].clone(), points: found.risk_coverage.clone() })
    };
    let drawn = [0, names.len().saturating_sub(1)];
    let drawn: Vec<Line> = drawn.into_iter().filter_map(curve).collect();
    lines(&drawn, "coverage: fraction of mentions kept, best scores first", 0.0..=0.01)
}

/// AUC over lost resolution of the variants that differ most.
fn coarse(study: &Study<'_>) -> String {
    let Some(first) = study.seeds.first() else { return String::new() };
    let mut drawn: Vec<Line> = first
        .variants
        .iter()
        .enumerate()
        .map(|(position, variant)| {
            let sharp = over_seeds(study, |seed| Some(detected(seed, position)?.auc));
            let coarse = first.coarse.iter().enumerate().filter_map(|(at, coarse)| {
                let auc = over_seeds(study, |seed| *seed.coarse.get(at)?.auc.get(&variant.name)?);
                Some((coarse.coarseness, auc?))
            });
            let points = sharp.map(|auc| (1.0, auc)).into_iter().chain(coarse).collect();
            Line { name: variant.name.clone(), points }
        })
        .collect();
    // The plain score first, then the best of the others at the coarsest.
    let last = |line: &Line| line.points.last().map_or(0.0, |point| point.1);
    drawn[1..].sort_by(|a, b| last(b).total_cmp(&last(a)));
    drawn.truncate(DRAWN);
    lines(&drawn, "pixels of the image to one that the verifier sees, along each side", 0.9..=1.0)
}

fn correlations(study: &Study<'_>) -> String {
    let Some(first) = study.seeds.first() else { return String::new() };
    let mut rows = Vec::new();
    for (at, correlation) in first.correlations.iter().enumerate() {
        let target = &correlation.target;
        if let Some(value) = over_seeds(study, |seed| seed.correlations.get(at)?.token) {
            let interval =
                interval_over_seeds(study, |seed| seed.correlations.get(at)?.token_interval);
            rows.push(Estimate {
                name: format!("{target}: mentions"),
                value,
                interval,
                marked: true,
            });
        }
        if let Some(value) = over_seeds(study, |seed| seed.correlations.get(at)?.sentence) {
            let interval =
                interval_over_seeds(study, |seed| seed.correlations.get(at)?.sentence_interval);
            rows.push(Estimate {
                name: format!("{target}: caption"),
                value,
                interval,
                marked: false,
            });
        }
    }
    estimates(&rows, 3)
}

fn sizes(study: &Study<'_>) -> String {
    let Some(first) = study.seeds.first() else { return String::new() };
    let line = |name: &str, pick: fn(&super::document::CalibrationSize) -> Option<f64>| Line {
        name: name.to_owned(),
        points: first
            .calibration_images
            .iter()
            .enumerate()
            .filter_map(|(at, size)| {
                let value = over_seeds(study, |seed| pick(seed.calibration_images.get(at)?))?;
                Some((size.images as f64, value))
            })
            .collect(),
    };
    let drawn =
        [line("μ₊", |size| size.mu_correct_error), line("μ₋", |size| size.mu_hallucinated_error)];
    lines(&drawn, "images to calibrate on; means are off by, σ", 0.0..=0.3)
}
