//! The comparison as one HTML page with plots.

use serde_json::Value;

use super::ablation;
use super::document::{Decoding, Document, Method};
use super::metric::{Metric, Wanted};
use super::summary::PairedComparison;
use super::tables::{self, Cell, MARK, TESTED, column, has, probability};
use super::texts;
use fisao_report::html::{counted, escape, fill, number, page, signed};
use fisao_report::plots::{Estimate, bars, estimates};
use fisao_report::scatter::{Cloud, scatter};
use fisao_report::warnings;

/// Metrics of the first table: as many as fit beside each other.
const FIRST: [Metric; 6] = [
    Metric::ChairI,
    Metric::ChairS,
    Metric::Recall,
    Metric::MeanLength,
    Metric::PopeF1,
    Metric::Cider,
];

/// Those of the second.
const MORE: [Metric; 5] =
    [Metric::PopeAccuracy, Metric::Bleu4, Metric::RougeL, Metric::Seconds, Metric::SampledTokens];

/// What single runs warned of: much to read, and seldom what one came for.
fn warned(document: &Document) -> String {
    let items = document.run_warnings();
    if items.is_empty() {
        return String::new();
    }
    let items: Vec<String> =
        items.iter().map(|item| format!("<li>{}</li>", escape(item))).collect();
    format!(
        "<details>\n<summary>{}</summary>\n<ul>\n{}\n</ul>\n</details>",
        texts::WARNED,
        items.join("\n")
    )
}

/// Renders the page, which makes no request to anywhere.
pub(super) fn render(document: &Document) -> String {
    let notes = paragraphs("note", &texts::table_notes(document));
    let main = fill(
        include_str!("main.html").trim_end(),
        &[
            ("title", texts::TITLE),
            ("model", &escape(&document.settings.model)),
            ("seeds", &counted(document.settings.seeds.len(), "seed")),
            ("scenes", &document.settings.scenes.to_string()),
            ("headline", &escape(&texts::headline(document))),
            ("warnings", &warnings(&document.warnings)),
            ("greedy", &means(document, Decoding::Greedy, &FIRST, true)),
            ("greedy_more", &means(document, Decoding::Greedy, &MORE, false)),
            ("notes", &notes),
            ("scatter", &trade(document)),
            ("chair", &estimates(&rows(document, Metric::ChairI), 1)),
            ("length", &bars(&rows(document, Metric::MeanLength), 1)),
            ("budget", &paragraphs("", &texts::budget(document))),
            ("methods", &methods(document)),
            ("changes", &changes(document)),
            ("sampled", &sampled(document)),
            ("ablations", &ablation::charts(document)),
            ("tests", &tests(document)),
            ("every", &tables::seeds(document, Decoding::Greedy).html()),
            ("warned", &warned(document)),
            ("settings", &settings(document)),
        ],
    );
    page(texts::TITLE, &main)
}

fn paragraphs(class: &str, texts: &[String]) -> String {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    texts
        .iter()
        .map(|text| format!("<p{class}>{}</p>", escape(text)))
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_tested(document: &Document, method: &Method) -> bool {
    document.settings.against.as_ref() == Some(&method.key)
}

/// A table of means, with or without what is held equal.
fn means(
    document: &Document,
    decoding: Decoding,
    metrics: &[Metric],
    with_conditions: bool,
) -> String {
    let conditions_of = |method: &Method| {
        let conditions = if with_conditions { &tables::conditions(method)[..] } else { &[] };
        conditions.iter().map(|text| format!("<td>{text}</td>")).collect::<Vec<_>>().concat()
    };
    let names = if with_conditions { &["external data", "budget"][..] } else { &[] };
    let heads: Vec<String> = ["method"]
        .iter()
        .chain(names)
        .copied()
        .chain(metrics.iter().map(|metric| metric.name()))
        .map(|name| format!("<th>{}</th>", escape(name)))
        .collect();
    let columns: Vec<Vec<Cell<'_>>> =
        metrics.iter().map(|&metric| column(document, decoding, metric)).collect();
    let row = |(at, method): (usize, &Method)| {
        let values = columns.iter().zip(metrics);
        let values: Vec<String> =
            values.map(|(column, &metric)| cell(&column[at], metric)).collect();
        let class = if is_tested(document, method) { " class=\"marked\"" } else { "" };
        format!(
            "<tr{class}><td>{}</td>{}{}</tr>",
            escape(&method.label),
            conditions_of(method),
            values.concat()
        )
    };
    let rows: Vec<String> = document.methods.iter().enumerate().map(row).collect();
    format!(
        "<table class=\"plain\"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>",
        heads.concat(),
        rows.join("\n")
    )
}

fn cell(cell: &Cell<'_>, metric: Metric) -> String {
    let mean = if cell.best { format!("<b>{}</b>", cell.mean) } else { cell.mean.clone() };
    let half =
        cell.half.as_ref().map_or_else(String::new, |half| format!(" <small>± {half}</small>"));
    let mark = cell.differs.map_or_else(String::new, |test| mark(test, metric));
    format!("<td>{mean}{half}{mark}</td>")
}

/// A mark in the colour of what the difference is for the method, with the numbers on hovering.
fn mark(test: &PairedComparison, metric: Metric) -> String {
    let better = match metric.wanted() {
        Wanted::Low => test.difference < 0.0,
        Wanted::High => test.difference > 0.0,
        Wanted::Neither => return format!("<span class=\"neutral\">{MARK}</span>"),
    };
    format!(
        "<span class=\"{}\" title=\"difference {}, p = {} (Holm)\">{MARK}</span>",
        if better { "better" } else { "worse" },
        signed(test.difference * metric.scale(), metric.decimals() + 1),
        probability(test.p_holm),
    )
}

/// A metric of the methods with its intervals, as it is written.
fn rows(document: &Document, metric: Metric) -> Vec<Estimate> {
    let scale = metric.scale();
    let row = |method: &Method| {
        let mean = document.summary.method(&method.key)?.mean(Decoding::Greedy, metric)?;
        let interval = mean.interval.map(|interval| interval.scaled(scale));
        Some(Estimate {
            name: method.label.clone(),
            value: scale * mean.spread.mean,
            interval,
            marked: is_tested(document, method),
        })
    };
    document.methods.iter().filter_map(row).collect()
}

/// What each method pays in recall for what it hallucinates less.
fn trade(document: &Document) -> String {
    let cloud = |method: &Method| {
        let summary = document.summary.method(&method.key)?;
        let mean = |metric| summary.mean(Decoding::Greedy, metric);
        let (x, y) = (mean(Metric::Recall)?, mean(Metric::ChairI)?);
        let (x_scale, y_scale) = (Metric::Recall.scale(), Metric::ChairI.scale());
        let point = |row: &super::document::SeedRow| {
            let value = |metric| row.value(Decoding::Greedy, metric);
            Some((x_scale * value(Metric::Recall)?, y_scale * value(Metric::ChairI)?))
        };
        Some(Cloud {
            name: method.label.clone(),
            points: method.seeds.iter().filter_map(point).collect(),
            mean: (x_scale * x.spread.mean, y_scale * y.spread.mean),
            intervals: (
                x.interval.map(|interval| interval.scaled(x_scale)),
                y.interval.map(|interval| interval.scaled(y_scale)),
            ),
            marked: is_tested(document, method),
        })
    };
    let clouds: Vec<Cloud> = document.methods.iter().filter_map(cloud).collect();
    scatter(
        &clouds,
        "recall %: objects of the image that are named",
        "CHAIR_I %: objects named that are not there",
        1,
    )
}

fn methods(document: &Document) -> String {
    let items: Vec<String> = texts::methods(document)
        .iter()
        .map(|(label, does)| format!("<li><b>{}</b>: {}</li>", escape(label), escape(does)))
        .collect();
    if items.is_empty() { String::new() } else { format!("<ul>{}</ul>", items.concat()) }
}

fn changes(document: &Document) -> String {
    texts::changes_title(document).map_or_else(String::new, |title| {
        section("changes", &title, "", &scroll(&tables::changes(document).html()))
    })
}

fn sampled(document: &Document) -> String {
    if !has(document, Decoding::Sampled) {
        return String::new();
    }
    let lead =
        "The same models, each token drawn by its probability rather than the likeliest one taken.";
    let metrics: Vec<Metric> = Metric::of_captions().collect();
    let (first, more) = metrics.split_at(6);
    let tables =
        [first, more].map(|metrics| scroll(&means(document, Decoding::Sampled, metrics, false)));
    section("sampled", "Captions drawn at temperature 1", lead, &tables.concat())
}

fn tests(document: &Document) -> String {
    let Some(against) = document.against() else { return String::new() };
    let tables: Vec<String> = TESTED
        .iter()
        .map(|&metric| {
            let table = tables::tests(document, Decoding::Greedy, metric).html();
            format!("<h3>{}</h3>{}", escape(metric.name()), scroll(&table))
        })
        .collect();
    let lead = format!(
        "Method less {against}, seed by seed, greedy captions. p is that of the two-sided paired t-test, which assumes \
         that differences scatter like a normal distribution; Holm’s correction makes up for testing several methods \
         at once. The sign test assumes nothing, but can reach 0.05 only from six seeds on. compare.json holds the \
         tests of all metrics."
    );
    section("tests", &format!("Differences from {against}"), &lead, &tables.concat())
}

fn section(id: &str, title: &str, lead: &str, body: &str) -> String {
    let lead = if lead.is_empty() {
        String::new()
    } else {
        format!("<p class=\"lead\">{}</p>", escape(lead))
    };
    format!("<section id=\"{id}\">\n<h2>{}</h2>\n{lead}\n{body}\n</section>", escape(title))
}

fn scroll(table: &str) -> String {
    format!("<div class=\"scroll\">{table}</div>")
}

/// Everything that was set, nested settings under their names with a dot between.
fn settings(document: &Document) -> String {
    let settings = &document.settings;
    let seeds: Vec<String> = settings.seeds.iter().map(u64::to_string).collect();
    let mut facts = vec![
        ("model".to_owned(), settings.model.clone()),
        ("seeds".to_owned(), seeds.join(", ")),
        ("scenes".to_owned(), settings.scenes.to_string()),
        ("training images".to_owned(), settings.prompts.to_string()),
    ];
    facts.extend(
        settings.seconds.map(|seconds| ("training seconds".to_owned(), number(seconds, 0))),
    );
    flatten("", &settings.resolved, &mut facts);
    facts.push(("FiSAO".to_owned(), document.fisao.clone()));
    let fact = |(name, value): &(String, String)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value))
    };
    facts.iter().map(fact).collect::<Vec<_>>().join("\n")
}

fn flatten(name: &str, value: &Value, facts: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(&name, value, facts);
            }
        }
        Value::Null => {}
        Value::String(text) => facts.push((name.to_owned(), text.clone())),
        other => facts.push((name.to_owned(), other.to_string())),
    }
}
