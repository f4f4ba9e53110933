//! The comparisons as one HTML page with plots.

use fisao_report::html::{counted, escape, fill, number, page};
use fisao_report::prediction::{Measured, Prediction, prediction};
use fisao_theory::comparison::{Check, Origin, Topic};

use super::document::{Theory, digits};

/// Half-width of a 95 % interval in standard errors: Student's t for 16 batches.
const CONFIDENCE_95: f64 = 2.131;

/// Topics in the order of the page.
const TOPICS: [(Topic, &str, &str); 4] = [
    (
        Topic::Feedback,
        "When feedback from the image lowers the loss",
        "The latent linear-Gaussian model: the policy under-uses the image by δ, the verifier’s score moves the mean of its answers.",
    ),
    (
        Topic::Credit,
        "One reward per response, or one per token",
        "Both estimate the same gradient. What differs is the variance, and where tokens affect later rewards the bias.",
    ),
    (
        Topic::WeakVerifier,
        "Rewards from a weak verifier",
        "What a reward of mentions is worth by the verifier’s AUC, and what deleting mentions could do.",
    ),
    (
        Topic::KlPenalty,
        "The KL penalty",
        "Where the optimum lies, what it costs in KL, and how estimators of the KL err.",
    ),
];

/// Renders the page, which makes no request to anywhere.
pub(super) fn render(theory: &Theory) -> String {
    let sections: Vec<String> = TOPICS
        .iter()
        .map(|&(topic, title, lead)| {
            let of_topic = theory.checks.iter().filter(|check| check.facts.topic == topic);
            let checks: Vec<String> = of_topic.map(one_check).collect();
            format!(
                "<section><h2>{title}</h2><p class=\"lead\">{lead}</p>\
                 <div class=\"predictions\">{}</div></section>",
                checks.join("\n")
            )
        })
        .collect();
    let main = fill(
        include_str!("main.html").trim_end(),
        &[
            ("seed", &theory.seed.to_string()),
            ("checks", &counted(theory.checks.len(), "closed form")),
            ("largest", &number(100.0 * theory.largest_relative_error, 1)),
            ("sections", &sections.join("\n")),
            ("measured", &theory.measurements().html()),
            ("violations", &theory.violations().html()),
            ("table", &theory.table().html()),
        ],
    );
    page("Closed forms beside Monte Carlo", &main)
}

fn one_check(check: &Check) -> String {
    let facts = check.facts;
    let origin = match facts.origin {
        Origin::Paper => "paper’s model",
        Origin::Ours => "ours",
        Origin::Known => "known",
    };
    let measured = check.curve.iter().map(|point| {
        let half = CONFIDENCE_95 * point.standard_error;
        Measured {
            x: point.x,
            y: point.monte_carlo,
            half_interval: half,
            main: point.x.to_bits() == check.at.to_bits(),
        }
    });
    let plot = prediction(&Prediction {
        line: check.line.clone(),
        measured: measured.collect(),
        x_name: facts.parameter.to_owned(),
    });
    format!(
        "<figure class=\"panel plot\" id=\"{name}\"><h3>{name} <small>({origin})</small></h3><p>{what}.</p>\
         <p><code>{formula}</code></p>{plot}\
         <figcaption class=\"note\">At {at}: closed form {closed}, Monte Carlo {found} ± {error}; \
         relative error {relative} %. Assumes: {assumptions}. Source: {source}.</figcaption></figure>",
        name = facts.name,
        what = escape(facts.what),
        formula = escape(facts.formula),
        at = check.at,
        closed = digits(check.closed_form),
        found = digits(check.monte_carlo),
        error = digits(check.standard_error),
        relative = number(100.0 * check.relative_error, 2),
        assumptions = escape(&facts.assumptions.join("; ")),
        source = escape(facts.source),
    )
}
