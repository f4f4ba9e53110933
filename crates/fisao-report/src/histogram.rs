//! Verifier scores of correct and hallucinated mentions, with the reward's thresholds.

use super::VerifierFacts;
use super::axis::Axis;
use super::html::number;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 748.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 256.0;
/// Room that the label of a threshold needs.
const LABEL_WIDTH: f64 = 180.0;
const LABEL_LINE: f64 = 17.0;

/// The two distributions as step areas, each as a fraction of its own class: hallucinated mentions are
/// the rarer ones, and on one count axis they would vanish.
pub(crate) fn render(facts: &VerifierFacts) -> String {
    let bins = facts.correct_hist.len().max(facts.hallucinated_hist.len());
    if bins == 0 {
        return "<p class=\"empty\">No scores were recorded.</p>".to_owned();
    }
    let correct = fractions(&facts.correct_hist, bins);
    let hallucinated = fractions(&facts.hallucinated_hist, bins);
    let highest = correct.iter().chain(&hallucinated).copied().fold(0.0, f64::max).max(0.01);
    let x = Axis::new(facts.hist_range, (LEFT, RIGHT));
    let y = Axis::new((0.0, highest * 1.05), (BOTTOM, TOP));
    let parts = [
        grid(&x, &y, facts.scored_by.unit()),
        area("hallucinated", &hallucinated, facts.hist_range, &x, &y),
        area("correct", &correct, facts.hist_range, &x, &y),
        markers(facts, &x),
        tooltips(facts, &correct, &hallucinated, &x),
    ];
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Histogram of verifier \
         scores of correct and hallucinated mentions\">\n{}\n</svg>",
        parts.join("\n")
    )
}

/// Numbers beside the histogram.
pub(crate) fn facts(facts: &VerifierFacts) -> String {
    let spread = |mean: f64, deviation: f64, counts: &[usize]| {
        let words: usize = counts.iter().sum();
        format!("{} ± {} <small>{words} mentions</small>", number(mean, 3), number(deviation, 3))
    };
    let mut rows = vec![
        ("AUC".to_owned(), number(facts.auc, 3)),
        (
            "<i class=\"key correct\"></i>correct".to_owned(),
            spread(facts.mu_correct, facts.sigma_correct, &facts.correct_hist),
        ),
        (
            "<i class=\"key hallucinated\"></i>hallucinated".to_owned(),
            spread(facts.mu_hallucinated, facts.sigma_hallucinated, &facts.hallucinated_hist),
        ),
    ];
    for (name, value) in [
        ("rewarded from τ₊", facts.tau_plus),
        ("penalised up to τ₋", facts.tau_minus),
        ("full reward from", facts.full_reward),
        ("full penalty up to", facts.full_penalty),
        ("reward changes sign at", facts.boundary),
    ] {
        rows.extend(value.map(|value| (name.to_owned(), number(value, 3))));
    }
    rows.iter()
        .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Counts of bins as fractions of all.
pub(crate) fn fractions(counts: &[usize], bins: usize) -> Vec<f64> {
    let total = counts.iter().sum::<usize>().max(1) as f64;
    (0..bins).map(|bin| counts.get(bin).copied().unwrap_or(0) as f64 / total).collect()
}

fn grid(x: &Axis, y: &Axis, unit: &str) -> String {
    let mut lines = Vec::new();
    let (ticks, _) = y.ticks(4);
    for tick in ticks {
        let at = y.at(tick);
        lines.push(format!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} %</text>",
            LEFT - 8.0,
            at + 4.0,
            number(tick * 100.0, 0),
        ));
    }
    let (ticks, decimals) = x.ticks(8);
    for tick in ticks {
        let at = x.at(tick);
        lines.push(format!(
            "<text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            BOTTOM + 18.0,
            number(tick, decimals),
        ));
    }
    lines.push(format!(
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>\
         <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">verifier score of \
         a mention ({unit})</text>",
        f64::midpoint(LEFT, RIGHT),
        HEIGHT - 6.0,
    ));
    lines.join("\n")
}

/// Steps over bins of equal width down to the axis, which lies at 0 of `y`.
pub(crate) fn area(
    class: &str,
    fractions: &[f64],
    range: (f64, f64),
    x: &Axis,
    y: &Axis,
) -> String {
    let width = (range.1 - range.0) / fractions.len() as f64;
    let steps: Vec<String> = fractions
        .iter()
        .enumerate()
        .map(|(bin, &fraction)| {
            let end = x.at(range.0 + (bin + 1) as f64 * width);
            format!("V{:.1}H{end:.1}", y.at(fraction))
        })
        .collect();
    let (start, bottom) = (x.at(range.0), y.at(0.0));
    format!("<path class=\"area {class}\" d=\"M{start:.1} {bottom}{}V{bottom}Z\"/>", steps.concat())
}

/// Vertical lines at the thresholds, labelled above the plot: each threshold on its outer side,
/// the boundary between them one line higher, so that labels never meet.
fn markers(facts: &VerifierFacts, x: &Axis) -> String {
    let label_line = TOP - 12.0;
    [
        (facts.tau_minus, "τ₋ penalised below", "hallucinated", "end", label_line),
        (facts.tau_plus, "τ₊ rewarded above", "correct", "start", label_line),
        (facts.full_penalty, "full penalty below", "hallucinated", "end", label_line),
        (facts.full_reward, "full reward above", "correct", "start", label_line),
        (facts.boundary, "reward changes sign at", "boundary", "middle", label_line - LABEL_LINE),
    ]
    .into_iter()
    .filter_map(|(value, label, class, anchor, baseline)| {
        let value =
            value.filter(|value| (facts.hist_range.0..=facts.hist_range.1).contains(value))?;
        let at = x.at(value);
        let (lowest, highest, offset) = match anchor {
            "end" => (LEFT + LABEL_WIDTH, RIGHT, -6.0),
            "start" => (LEFT, RIGHT - LABEL_WIDTH, 6.0),
            _ => (LEFT + LABEL_WIDTH / 2.0, RIGHT - LABEL_WIDTH / 2.0, 0.0),
        };
        let text_at = (at + offset).clamp(lowest, highest);
        let top = if anchor == "middle" { baseline + 6.0 } else { baseline - 10.0 };
        Some(format!(
            "<g class=\"marker {class}\"><line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top:.1}\" \
             y2=\"{BOTTOM}\"/><text x=\"{text_at:.1}\" y=\"{baseline:.1}\" \
             text-anchor=\"{anchor}\">{label} {}</text></g>",
            number(value, 3),
        ))
    })
    .collect::<Vec<_>>()
    .join("\n")
}

/// An invisible column over each bin that says its numbers.
fn tooltips(facts: &VerifierFacts, correct: &[f64], hallucinated: &[f64], x: &Axis) -> String {
    let (low, high) = facts.hist_range;
    let width = (high - low) / correct.len() as f64;
    let count = |counts: &[usize], bin: usize| counts.get(bin).copied().unwrap_or(0);
    (0..correct.len())
        .map(|bin| {
            let from = low + bin as f64 * width;
            format!(
                "<rect class=\"hover\" x=\"{:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\">\
                 <title>score {} to {}: {} correct mentions ({} %), {} hallucinated ({} %)</title>\
                 </rect>",
                x.at(from),
                x.at(from + width) - x.at(from),
                BOTTOM - TOP,
                number(from, 3),
                number(from + width, 3),
                count(&facts.correct_hist, bin),
                number(correct[bin] * 100.0, 1),
                count(&facts.hallucinated_hist, bin),
                number(hallucinated[bin] * 100.0, 1),
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
}
