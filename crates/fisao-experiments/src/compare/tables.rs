//! The comparison as tables: for the terminal, as Markdown, and as cells for the page.

use fisao_eval::statistics::{Interval, MeanEstimate};

use super::document::{Decoding, Document, Method};
use super::metric::{Metric, Wanted};
use super::summary::{Change, PairedComparison};
use super::texts;
use fisao_report::html::{number, signed};
use fisao_report::table::{NONE, Table};

/// Columns a terminal has room for.
const TERMINAL: [Metric; 6] = [
    Metric::ChairI,
    Metric::Recall,
    Metric::MeanLength,
    Metric::PopeF1,
    Metric::Cider,
    Metric::Seconds,
];

/// Behind a mean that differs significantly.
pub(super) const MARK: &str = "†";

/// A metric of one method.
pub(super) struct Cell<'a> {
    /// The mean as it is written.
    pub(super) mean: String,
    /// Half of the interval's width.
    pub(super) half: Option<String>,
    /// Whether no other method has a better mean.
    pub(super) best: bool,
    /// The test against the method that all are tested against, if it found a difference.
    pub(super) differs: Option<&'a PairedComparison>,
}

impl Cell<'_> {
    /// With the mean as `emphasise` has it where it is the best.
    fn text(&self, emphasise: impl Fn(&str) -> String) -> String {
        let mean = if self.best { emphasise(&self.mean) } else { self.mean.clone() };
        let half = self.half.as_ref().map_or_else(String::new, |half| format!(" ± {half}"));
        format!("{mean}{half}{}", if self.differs.is_some() { MARK } else { "" })
    }
}

/// A metric of every method, in their order.
pub(super) fn column(document: &Document, decoding: Decoding, metric: Metric) -> Vec<Cell<'_>> {
    let summary = &document.summary;
    let mean = |method: &Method| summary.method(&method.key)?.mean(decoding, metric);
    let means: Vec<Option<&MeanEstimate>> = document.methods.iter().map(mean).collect();
    let values = || means.iter().flatten().map(|mean| mean.spread.mean);
    let best = match metric.wanted() {
        Wanted::Low => values().reduce(f64::min),
        Wanted::High => values().reduce(f64::max),
        Wanted::Neither => None,
    };
    // Who reads the same number sees no difference, and is shown none; nobody is best where all are equal.
    let best = best.map(|best| metric.text(Some(best)));
    let best = best.filter(|best| values().any(|value| metric.text(Some(value)) != *best));
    let cell = |(method, mean): (&Method, Option<&MeanEstimate>)| {
        let written = metric.text(mean.map(|mean| mean.spread.mean));
        let half = mean.and_then(|mean| mean.interval).map(|Interval { low, high }| {
            number((high - low) / 2.0 * metric.scale(), metric.decimals())
        });
        let test = summary.test(decoding, metric, &method.key);
        Cell {
            best: best.as_ref() == Some(&written),
            mean: written,
            half,
            differs: test.filter(|test| test.is_significant()),
        }
    };
    document.methods.iter().zip(means.iter().copied()).map(cell).collect()
}

/// Metrics that a table of one way of decoding has; costs stand with the greedy captions alone.
pub(super) fn metrics(decoding: Decoding) -> Vec<Metric> {
    match decoding {
        Decoding::Greedy => Metric::ALL.to_vec(),
        Decoding::Sampled => Metric::of_captions().collect(),
    }
}

/// Whether anything was measured by a way of decoding.
pub(super) fn has(document: &Document, decoding: Decoding) -> bool {
    let rows = document.methods.iter().flat_map(|method| &method.seeds);
    decoding == Decoding::Greedy || rows.into_iter().any(|row| row.sampled.is_some())
}

/// Whether a method learns from what is not its own, and what is held equal.
pub(super) fn conditions(method: &Method) -> [String; 2] {
    let external = if method.uses_external_data { "yes" } else { "no" };
    let budget = method.budget.map_or(NONE, super::document::Budget::name);
    [external.to_owned(), budget.to_owned()]
}

/// The means of the methods; as many columns as are asked for.
fn means(
    document: &Document,
    decoding: Decoding,
    metrics: &[Metric],
    emphasise: impl Fn(&str) -> String + Copy,
    with_conditions: bool,
) -> Table {
    let mut names = vec!["method"];
    if with_conditions {
        names.extend(["external data", "budget"]);
    }
    names.extend(metrics.iter().map(|metric| metric.name()));
    let mut table = Table::new(&names);
    let columns: Vec<Vec<Cell<'_>>> =
        metrics.iter().map(|&metric| column(document, decoding, metric)).collect();
    for (at, method) in document.methods.iter().enumerate() {
        let mut row = vec![method.label.clone()];
        if with_conditions {
            row.extend(conditions(method));
        }
        row.extend(columns.iter().map(|column| column[at].text(emphasise)));
        table.row(row);
    }
    table
}

/// How CHAIR, recall and length moved against the base.
pub(super) fn changes(document: &Document) -> Table {
    let mut table = Table::new(&[
        "method",
        "CHAIR_I, %",
        "worst seed",
        "recall, points",
        "worst seed",
        "length, %",
        "farthest seed",
    ]);
    for method in &document.methods {
        let Some(found) = document.summary.method(&method.key) else { continue };
        let changes = [&found.chair_i_change, &found.recall_change, &found.length_change];
        if changes.iter().all(|change| change.is_none()) {
            continue;
        }
        let text = |change: &Option<Change>, pick: fn(&Change) -> f64| {
            let value = change.as_ref().map(|change| signed(100.0 * pick(change), 1));
            value.unwrap_or_else(|| NONE.to_owned())
        };
        let cells = changes
            .into_iter()
            .flat_map(|change| [text(change, |c| c.mean), text(change, |c| c.worst)]);
        table.row([method.label.clone()].into_iter().chain(cells));
    }
    table
}

/// Every test of one metric and decoding.
pub(super) fn tests(document: &Document, decoding: Decoding, metric: Metric) -> Table {
    let test = |method: &Method| document.summary.test(decoding, metric, &method.key);
    let found: Vec<_> =
        document.methods.iter().filter_map(|method| Some((method, test(method)?))).collect();
    let signs = found.iter().any(|(_, test)| test.sign_test_p.is_some());
    let mut names = vec!["method", "difference", "95 %", "seeds", "p", "p (Holm)"];
    names.extend(signs.then_some("p (sign test)"));
    let mut table = Table::new(&names);
    let scaled = |value: f64| signed(value * metric.scale(), metric.decimals() + 1);
    for (method, test) in found {
        let interval = test.interval.map_or_else(
            || NONE.to_owned(),
            |Interval { low, high }| format!("{} … {}", scaled(low), scaled(high)),
        );
        let mut row = vec![
            method.label.clone(),
            scaled(test.difference),
            interval,
            test.seeds.to_string(),
            probability(test.p),
            probability(test.p_holm),
        ];
        row.extend(signs.then(|| probability(test.sign_test_p)));
        table.row(row);
    }
    table
}

/// A p as it is written.
pub(super) fn probability(p: Option<f64>) -> String {
    match p {
        None => NONE.to_owned(),
        Some(p) if p < 0.001 => "<0.001".to_owned(),
        Some(p) => number(p, 3),
    }
}

/// Metrics that tests are shown of; `compare.json` holds those of all.
pub(super) const TESTED: [Metric; 3] = [Metric::ChairI, Metric::Recall, Metric::PopeF1];

/// Every method and seed.
pub(super) fn seeds(document: &Document, decoding: Decoding) -> Table {
    let metrics = metrics(decoding);
    let mut names = vec!["method", "seed"];
    names.extend(metrics.iter().map(|metric| metric.name()));
    let mut table = Table::new(&names);
    for method in &document.methods {
        for row in &method.seeds {
            let values = metrics.iter().map(|&metric| metric.text(row.value(decoding, metric)));
            table.row([method.label.clone(), row.seed.to_string()].into_iter().chain(values));
        }
    }
    table
}

/// The few numbers a terminal shows: `*` is best, `†` differs significantly.
pub(crate) fn summary(document: &Document) -> String {
    let best = |mean: &str| format!("{mean}*");
    let table = means(document, Decoding::Greedy, &TERMINAL, best, false);
    format!("{}\n\n* the best mean. {}", table.aligned(), texts::marks(document))
}

/// The whole comparison.
pub(super) fn markdown(document: &Document) -> String {
    let head = format!("# {}\n\n{}\n", texts::TITLE, texts::headline(document));
    let parts = parts(document);
    let parts = parts.iter().map(|(title, body)| format!("\n## {title}\n\n{body}\n"));
    [head].into_iter().chain(parts).collect::<Vec<_>>().concat()
}

/// Title and text of what follows the head.
fn parts(document: &Document) -> Vec<(String, String)> {
    let list = |items: Vec<String>| {
        items.iter().map(|item| format!("- {item}")).collect::<Vec<_>>().join("\n")
    };
    let bold = |mean: &str| format!("**{mean}**");
    let table = |decoding: Decoding| {
        let metrics = metrics(decoding);
        let table = means(document, decoding, &metrics, bold, decoding == Decoding::Greedy);
        format!("{}\n\n{}", table.markdown(), texts::table_notes(document).join("\n\n"))
    };
    let mut parts = Vec::new();
    if !document.warnings.is_empty() {
        parts.push(("Warnings".to_owned(), list(document.warnings.clone())));
    }
    parts.push(("Greedy captions".to_owned(), table(Decoding::Greedy)));
    if has(document, Decoding::Sampled) {
        parts.push(("Captions drawn at temperature 1".to_owned(), table(Decoding::Sampled)));
    }
    if let Some(title) = texts::changes_title(document) {
        parts.push((title, changes(document).markdown()));
    }
    parts.push(("What equal budget means".to_owned(), texts::budget(document).join("\n\n")));
    let methods = texts::methods(document);
    if !methods.is_empty() {
        let items = methods.iter().map(|(label, does)| format!("**{label}**: {does}")).collect();
        parts.push(("The methods".to_owned(), list(items)));
    }
    if let Some(against) = document.against() {
        for metric in TESTED {
            let title = format!("{}: difference from {against}", metric.name());
            parts.push((title, tests(document, Decoding::Greedy, metric).markdown()));
        }
    }
    parts.push(("Every seed".to_owned(), seeds(document, Decoding::Greedy).markdown()));
    let warned = document.run_warnings();
    if !warned.is_empty() {
        parts.push((texts::WARNED.to_owned(), list(warned)));
    }
    parts
}
