//! Scores before and after: the headline, the tiles and the table.

use fisao_eval::statistics::Interval;

use super::html::{escape, number, signed};
use super::{RateIntervals, Report, ReportRow, Scores};

/// A loss of recall up to this much (as a fraction, but for rounding) counts as unchanged.
const RECALL_TOLERANCE: f64 = 0.02;
/// Relative changes of caption length between these count as unchanged: captions much shorter
/// hallucinate less by saying less, captions much longer pad.
const LENGTH_TOLERANCE: (f64, f64) = (-0.15, 0.25);

/// What to know of estimated rates.
const ESTIMATES: &str = "No annotation was used for the rows marked as estimated: the verifier that gave the rewards says how \
    likely each mention is to be correct, and small numbers are 95 % bootstrap intervals over the images, which leave out what \
    is uncertain about the calibration. A policy may have learned to please this verifier where it is wrong, which such an \
    estimate cannot show. Recall is of what any of the four captions of an image names, and so higher than recall against \
    annotations. To measure both, give --annotations.";

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Metric {
    /// Hallucinated mentions over all mentions.
    ChairI,
    /// Captions with a hallucinated mention over all captions.
    ChairS,
    /// Objects mentioned over objects present.
    Recall,
    /// Mean caption length in tokens.
    Length,
}

/// What a change means for the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// In the direction one wants.
    Better,
    /// Neither better nor worse, or within tolerance.
    Neutral,
    /// In the direction one does not want.
    Worse,
}

impl Metric {
    /// All metrics in the order of the columns.
    pub const ALL: [Self; 4] = [Self::ChairI, Self::ChairS, Self::Recall, Self::Length];

    /// Name in plain text.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChairI => "CHAIR_I",
            Self::ChairS => "CHAIR_S",
            Self::Recall => "recall",
            Self::Length => "mean length",
        }
    }

    fn name_html(self) -> &'static str {
        match self {
            Self::ChairI => "CHAIR<sub>I</sub>",
            Self::ChairS => "CHAIR<sub>S</sub>",
            Self::Recall => "Recall",
            Self::Length => "Mean length",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::ChairI => "object mentions that name something absent",
            Self::ChairS => "captions with at least one such mention",
            Self::Recall => "objects in the image that are named",
            Self::Length => "tokens in a caption",
        }
    }

    fn of(self, scores: &Scores) -> f64 {
        match self {
            Self::ChairI => scores.chair_i,
            Self::ChairS => scores.chair_s,
            Self::Recall => scores.recall,
            Self::Length => scores.mean_length,
        }
    }

    /// The value with its unit.
    pub fn value(self, scores: &Scores) -> String {
        match self {
            Self::Length => number(self.of(scores), 1),
            _ => percent(self.of(scores)),
        }
    }

    /// The change with its sign and unit: percentage points for rates, per cent for the length.
    pub fn change(self, row: &ReportRow) -> String {
        let (base, aligned) = (self.of(&row.base), self.of(&row.aligned));
        match self {
            Self::Length => format!("{}\u{a0}%", signed(relative_change(base, aligned) * 100.0, 0)),
            _ => format!("{}\u{a0}pt", signed((aligned - base) * 100.0, 1)),
        }
    }

    /// 95 % interval of the change, a fraction, where it is known and the change may as well be none.
    fn unclear(self, row: &ReportRow) -> Option<Interval> {
        let interval = match self {
            Self::ChairI => row.changes.chair_i,
            Self::ChairS => row.changes.chair_s,
            Self::Recall => row.changes.recall,
            Self::Length => None,
        };
        interval.filter(|interval| interval.low <= 0.0 && interval.high >= 0.0)
    }

    /// 95 % interval of the value, in its unit, where it is to be shown.
    fn interval(self, intervals: &RateIntervals) -> Option<String> {
        let interval = match self {
            Self::ChairI => intervals.chair_i,
            Self::ChairS => intervals.chair_s,
            Self::Recall => intervals.recall,
            Self::Length => None,
        };
        let interval = interval?.scaled(100.0);
        Some(format!("{} to {}", number(interval.low, 1), number(interval.high, 1)))
    }

    /// Whether the change is one to be glad of. A loss of recall that is not clear is one all the same: that too few captions
    /// were written to be sure of it does not make it small.
    pub fn assess(self, row: &ReportRow) -> Judgement {
        let (base, aligned) = (self.of(&row.base), self.of(&row.aligned));
        let change = aligned - base;
        let clear = self.unclear(row).is_none();
        match self {
            Self::ChairI | Self::ChairS if clear && change < 0.0 => Judgement::Better,
            Self::ChairI | Self::ChairS if clear && change > 0.0 => Judgement::Worse,
            Self::Recall if clear && change > 0.0 => Judgement::Better,
            Self::Recall if change < -RECALL_TOLERANCE - 1e-9 => Judgement::Worse,
            Self::Length => {
                let (shortest, longest) = LENGTH_TOLERANCE;
                let relative = relative_change(base, aligned);
                if relative < shortest || relative > longest {
                    Judgement::Worse
                } else {
                    Judgement::Neutral
                }
            }
            _ => Judgement::Neutral,
        }
    }
}

impl Judgement {
    fn class(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Neutral => "neutral",
            Self::Worse => "worse",
        }
    }
}

/// The result in a sentence or two, from the first row: what happened to hallucination, and at
/// what cost. A fall bought with silence is named as such.
pub fn headline(report: &Report) -> String {
    let Some(row) = report.before_after.first() else {
        return "Nothing was evaluated.".to_owned();
    };
    let mut sentence = hallucination(row);
    if row.estimated {
        sentence.insert_str(0, "Estimated by the verifier, without labels: ");
    }
    let recall_lost = Metric::Recall.assess(row) == Judgement::Worse;
    let length_off = Metric::Length.assess(row) == Judgement::Worse;
    if recall_lost {
        sentence.push_str(" The loss of recall is too large to call this a success.");
    }
    if length_off {
        sentence.push_str(" The length of captions changed too much to ignore: ");
        sentence.push_str(&Metric::Length.change(row));
        sentence.push('.');
    }
    sentence
}

/// What happened to hallucination and recall.
fn hallucination(row: &ReportRow) -> String {
    let (base, aligned) = (&row.base, &row.aligned);
    let fraction = |metric: Metric| (metric.value(base), metric.value(aligned));
    let (before, after) = fraction(Metric::ChairI);
    let absent = if row.estimated { "object mentions" } else { "Object mentions" };
    let absent = format!("{absent} that name something absent");
    let mentions = match (Metric::ChairI.unclear(row), Metric::ChairI.assess(row)) {
        _ if before == after => format!("{absent} stayed at {before}, captions"),
        (Some(interval), _) => format!(
            "{absent} changed from {before} to {after}, 95\u{a0}% interval {} to {} points: no clear change on {} \
             captions. Captions",
            signed(interval.low * 100.0, 1),
            signed(interval.high * 100.0, 1),
            row.base.captions,
        ),
        (None, Judgement::Worse) => format!("{absent} rose from {before} to {after}, captions"),
        (None, _) => format!("{absent} fell from {before} to {after}, captions"),
    };
    let change = |metric: Metric| {
        let (before, after) = fraction(metric);
        let remark = if metric.unclear(row).is_some() && before != after {
            " (no clear change)"
        } else {
            ""
        };
        format!("went from {before} to {after}{remark}")
    };
    let (captions, recall) = (change(Metric::ChairS), change(Metric::Recall));
    format!("{mentions} with at least one of them {captions}, and recall {recall}.")
}

/// One tile for each metric of the first row.
pub(crate) fn tiles(report: &Report) -> String {
    let Some(row) = report.before_after.first() else {
        return String::new();
    };
    Metric::ALL.iter().map(|&metric| tile(metric, row)).collect::<Vec<_>>().join("\n")
}

fn tile(metric: Metric, row: &ReportRow) -> String {
    let largest = metric.of(&row.base).max(metric.of(&row.aligned)).max(f64::MIN_POSITIVE);
    // Recall is read against 100 %; the others against the larger of their two values.
    let full = if metric == Metric::Recall { 1.0 } else { largest };
    let width = |value: f64| number((value / full * 100.0).clamp(0.0, 100.0), 1);
    format!(
        "<div class=\"tile\">\n<h3>{name}</h3>\n<p class=\"meaning\">{meaning}</p>\n\
         <p class=\"value\">{after} <span class=\"delta {class}\">{change}</span></p>\n\
         <div class=\"bars\" aria-hidden=\"true\"><i class=\"base\" style=\"width:{wide_base}%\">\
         </i><i class=\"aligned\" style=\"width:{wide_aligned}%\"></i></div>\n\
         <p class=\"from\">{decoding}, {before} before</p>\n</div>",
        name = metric.name_html(),
        meaning = metric.meaning(),
        after = metric.value(&row.aligned),
        class = metric.assess(row).class(),
        change = metric.change(row),
        wide_base = width(metric.of(&row.base)),
        wide_aligned = width(metric.of(&row.aligned)),
        decoding = escape(&row.decoding),
        before = metric.value(&row.base),
    )
}

/// The body of the table: three lines for each way of decoding.
pub(crate) fn table(report: &Report) -> String {
    report.before_after.iter().map(table_rows).collect::<Vec<_>>().join("\n")
}

/// What to know of estimated rates; nothing where all are measured.
pub(crate) fn remark_on_estimates(report: &Report) -> String {
    if report.before_after.iter().all(|row| !row.estimated) {
        return String::new();
    }
    format!("\n<p class=\"note\"><strong>Estimates.</strong> {}</p>", escape(ESTIMATES))
}

fn table_rows(row: &ReportRow) -> String {
    let cells = |scores: &Scores, at: usize| {
        let values = Metric::ALL.map(|metric| {
            let interval = row.intervals.and_then(|intervals| metric.interval(&intervals[at]));
            let interval =
                interval.map_or_else(String::new, |it| format!("<br><small>{it}</small>"));
            format!("<td>{}{interval}</td>", metric.value(scores))
        });
        format!("{}<td>{}</td>", values.concat(), scores.captions)
    };
    let changes = Metric::ALL.map(|metric| {
        format!("<td class=\"{}\">{}</td>", metric.assess(row).class(), metric.change(row))
    });
    format!(
        "<tbody>\n<tr><th scope=\"rowgroup\" rowspan=\"3\">{}</th><th scope=\"row\">before</th>{}\
         </tr>\n<tr><th scope=\"row\">after</th>{}</tr>\n<tr class=\"change\"><th scope=\"row\">\
         change</th>{}<td></td></tr>\n</tbody>",
        escape(&row.decoding),
        cells(&row.base, 0),
        cells(&row.aligned, 1),
        changes.concat(),
    )
}

fn percent(fraction: f64) -> String {
    format!("{}\u{a0}%", number(fraction * 100.0, 1))
}

/// Change over the base value; 0 where there is nothing to compare with.
fn relative_change(base: f64, aligned: f64) -> f64 {
    if base.abs() < f64::EPSILON { 0.0 } else { (aligned - base) / base }
}
