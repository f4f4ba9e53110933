//! Charts of methods that differ in one number alone: each metric over its value.

use super::document::{Decoding, Document, Method};
use super::metric::Metric;
use fisao_report::html::escape;
use fisao_report::plots::{Line, lines};

/// What is drawn.
const DRAWN: [Metric; 4] = [Metric::ChairI, Metric::Recall, Metric::MeanLength, Metric::PopeF1];

/// A section for each setting that takes several values; nothing where none does.
pub(super) fn charts(document: &Document) -> String {
    settings(document).iter().map(|setting| section(document, setting)).collect()
}

/// One setting with the methods that have a value of it, lowest first.
struct Setting<'a> {
    /// Key before the bracket.
    method: &'a str,
    name: &'a str,
    values: Vec<(f64, &'a Method)>,
}

/// Settings with at least two values, in the order in which they are met.
fn settings(document: &Document) -> Vec<Setting<'_>> {
    let mut found: Vec<Setting<'_>> = Vec::new();
    for method in &document.methods {
        let Some((name, value)) = method.setting() else { continue };
        let family = method.key.split('[').next().unwrap_or_default();
        let known = found.iter_mut().find(|known| known.name == name && known.method == family);
        match known {
            Some(known) => known.values.push((value, method)),
            None => found.push(Setting { method: family, name, values: vec![(value, method)] }),
        }
    }
    for setting in &mut found {
        setting.values.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    found.retain(|setting| setting.values.len() > 1);
    found
}

fn section(document: &Document, setting: &Setting<'_>) -> String {
    let charts: Vec<String> = DRAWN
        .iter()
        .map(|&metric| {
            let name = escape(metric.name());
            let drawn = drawn(document, setting, metric);
            // The axis is as wide as the lines are.
            let start = drawn.first().and_then(|line| line.points.first()).map_or(0.0, |at| at.1);
            let chart = lines(&drawn, setting.name, start..=start);
            format!("<figure class=\"panel plot\"><h3>{name}</h3>{chart}</figure>")
        })
        .collect();
    format!(
        "<section>\n<h2>{} over {}</h2>\n<p class=\"lead\">Mean over the seeds, and every seed.</p>\n{}\n</section>\n",
        escape(setting.method),
        escape(setting.name),
        charts.join("\n"),
    )
}

/// The mean, then every seed.
fn drawn(document: &Document, setting: &Setting<'_>, metric: Metric) -> Vec<Line> {
    let line = |name: String, value: &dyn Fn(&Method) -> Option<f64>| Line {
        name,
        points: setting
            .values
            .iter()
            .filter_map(|&(at, method)| Some((at, metric.scale() * value(method)?)))
            .collect(),
    };
    let mean = line("mean".to_owned(), &|method| {
        let summary = document.summary.method(&method.key)?;
        Some(summary.mean(Decoding::Greedy, metric)?.spread.mean)
    });
    let seeds = document.settings.seeds.iter().map(|&seed| {
        line(format!("seed {seed}"), &|method| method.seed(seed)?.value(Decoding::Greedy, metric))
    });
    [mean].into_iter().chain(seeds).collect()
}
