//! Plots that any report can use: values with intervals, lines over a number, two distributions.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use fisao_eval::statistics::Interval;
use fisao_verifier::calibration::Histograms;

use super::axis::{Axis, numbers_below, rows};
use super::histogram::{area, fractions};
use super::html::{escape, number};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 744.0;
/// Height of one value's row.
const ROW: f64 = 26.0;
/// Room for the names of the rows.
const NAMES: f64 = 220.0;

/// A named value with what it may be off by.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Shown before its row.
    pub name: String,
    /// Where its mark is.
    pub value: f64,
    /// What it may be off by.
    pub interval: Option<Interval>,
    /// Set off from the others.
    pub marked: bool,
}

/// A named line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Shown in the legend.
    pub name: String,
    /// x and y.
    pub points: Vec<(f64, f64)>,
}

/// Values one below the other on one axis, each with its interval.
pub fn estimates(rows: &[Estimate], decimals: usize) -> String {
    let ends = |row: &Estimate| {
        row.interval.map_or((row.value, row.value), |interval| (interval.low, interval.high))
    };
    let low = rows.iter().map(|row| ends(row).0.min(row.value)).fold(f64::INFINITY, f64::min);
    let high = rows.iter().map(|row| ends(row).1.max(row.value)).fold(f64::NEG_INFINITY, f64::max);
    if rows.is_empty() || !low.is_finite() || !high.is_finite() {
        return "<p class=\"empty\">Nothing could be measured.</p>".to_owned();
    }
    let margin = 0.05 * (high - low).max(0.02);
    let x = Axis::new((low - margin, high + margin), (NAMES, RIGHT - 60.0));
    let bottom = 12.0 + ROW * rows.len() as f64;
    let mut svg = open(bottom + 26.0, "Values with 95 % intervals");
    let (ticks, tick_decimals) = x.ticks(5);
    for tick in ticks {
        let at = x.at(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"8\" y2=\"{bottom}\"/>\
             <text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 17.0,
            number(tick, tick_decimals),
        );
    }
    for (index, row) in rows.iter().enumerate() {
        let y = 12.0 + ROW * (index as f64 + 0.5);
        let (from, to) = ends(row);
        let class = if row.marked { "marked" } else { "" };
        let _ = write!(
            svg,
            "<g class=\"estimate {class}\"><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>\
             <text class=\"tick\" x=\"{RIGHT}\" y=\"{:.1}\" text-anchor=\"end\">{}</text></g>",
            NAMES - 14.0,
            y + 4.0,
            escape(&row.name),
            x.at(from),
            x.at(to),
            x.at(row.value),
            y + 4.0,
            number(row.value, decimals),
        );
    }
    svg + "</svg>"
}

/// Values as bars from 0, one below the other, each with its interval.
pub fn bars(rows: &[Estimate], decimals: usize) -> String {
    let ends = |row: &Estimate| row.interval.map_or(row.value, |interval| interval.high);
    let high = rows.iter().map(|row| ends(row).max(row.value)).fold(f64::NEG_INFINITY, f64::max);
    if !high.is_finite() || high <= 0.0 {
        return "<p class=\"empty\">Nothing could be measured.</p>".to_owned();
    }
    let x = Axis::new((0.0, high), (NAMES, RIGHT - 60.0));
    let mut svg = open(18.0 + ROW * rows.len() as f64, "Values as bars with 95 % intervals");
    for (index, row) in rows.iter().enumerate() {
        let y = 12.0 + ROW * (index as f64 + 0.5);
        let class = if row.marked { "marked" } else { "" };
        let _ = write!(
            svg,
            "<g class=\"estimate {class}\"><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{NAMES}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" rx=\"3\"/>\
             <text class=\"tick\" x=\"{RIGHT}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            NAMES - 14.0,
            y + 4.0,
            escape(&row.name),
            y - 7.0,
            x.at(row.value) - NAMES,
            y + 4.0,
            number(row.value, decimals),
        );
        if let Some(Interval { low, high }) = row.interval {
            let (from, to) = (x.at(low.max(0.0)), x.at(high));
            let _ =
                write!(svg, "<line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        }
        svg += "</g>";
    }
    svg + "</svg>"
}

/// Lines over one number; `y` is at least this wide.
pub fn lines(lines: &[Line], x_name: &str, y: RangeInclusive<f64>) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let points_finite = || points().filter(|(x, y)| x.is_finite() && y.is_finite());
    if points_finite().next().is_none() {
        return "<p class=\"empty\">Nothing could be measured.</p>".to_owned();
    }
    let over = |pick: fn(&(f64, f64)) -> f64, start: (f64, f64)| {
        points_finite()
            .map(pick)
            .fold(start, |(low, high), value| (low.min(value), high.max(value)))
    };
    let (top, bottom) = (12.0, 236.0);
    let x_axis =
        Axis::new(over(|point| point.0, (f64::INFINITY, f64::NEG_INFINITY)), (LEFT, RIGHT - 150.0));
    let y_axis = Axis::new(over(|point| point.1, (*y.start(), *y.end())), (bottom, top));
    let mut svg = open(282.0, x_name);
    svg += &rows(&y_axis, 5, (LEFT, RIGHT - 150.0));
    svg += &numbers_below(&x_axis, 6, bottom);
    let middle = f64::midpoint(LEFT, RIGHT - 150.0);
    let _ = write!(
        svg,
        "<text class=\"tick\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        bottom + 38.0,
        escape(x_name),
    );
    // Labels at the lines' ends are moved apart where the lines meet.
    let mut ends: Vec<(usize, f64)> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let mut finite = line.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        let path: Vec<String> = finite
            .clone()
            .map(|&(x, y)| format!("{:.1} {:.1}", x_axis.at(x), y_axis.at(y)))
            .collect();
        let Some(&(_, last)) = finite.next_back() else { continue };
        let _ = write!(svg, "<path class=\"line series-{index}\" d=\"M{}\"/>", path.join("L"));
        ends.push((index, y_axis.at(last)));
    }
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut free = f64::NEG_INFINITY;
    for (index, at) in ends {
        let at = at.max(free);
        free = at + 15.0;
        let _ = write!(
            svg,
            "<text class=\"series-{index}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            RIGHT - 142.0,
            at + 4.0,
            escape(&lines[index].name),
        );
    }
    svg + "</svg>"
}

/// Two distributions as fractions of each, over the same bins.
pub fn distributions(histograms: &Histograms) -> String {
    let bins = histograms.correct.counts.len();
    let correct = fractions(&histograms.correct.counts, bins);
    let wrong = fractions(&histograms.hallucinated.counts, bins);
    let highest = correct.iter().chain(&wrong).copied().fold(0.01, f64::max);
    let (low, high) = (histograms.correct.low, histograms.correct.high);
    let (top, bottom) = (12.0, 216.0);
    let x = Axis::new((low, high), (LEFT, RIGHT));
    let y = Axis::new((0.0, 1.05 * highest), (bottom, top));
    let mut svg = open(248.0, "Scores of correct and of hallucinated mentions");
    let (ticks, decimals) = x.ticks(8);
    for tick in ticks {
        let at = x.at(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>\
             <text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            number(tick, decimals),
        );
    }
    svg += &area("hallucinated", &wrong, (low, high), &x, &y);
    svg += &area("correct", &correct, (low, high), &x, &y);
    svg + "</svg>"
}

fn open(height: f64, label: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">", escape(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_plots_show_a_notice() {
        assert!(estimates(&[], 2).contains("Nothing"));
        let nothing = Line { name: "a".to_owned(), points: vec![(1.0, f64::NAN)] };
        assert!(lines(&[nothing], "images", 0.0..=1.0).contains("Nothing"));
        assert!(bars(&[], 1).contains("Nothing"));
    }

    #[test]
    fn bars_begin_at_zero() {
        let row = |value: f64, interval| Estimate {
            name: "<a>".to_owned(),
            value,
            interval,
            marked: false,
        };
        let interval = Interval { low: -1.0, high: 4.0 };
        let svg = bars(&[row(2.0, None), row(1.0, Some(interval))], 1);
        // 4 takes the 464 units that names and numbers leave.
        assert!(svg.contains("width=\"232.0\"") && svg.contains("width=\"116.0\""), "{svg}");
        assert!(svg.contains("x1=\"220.0\" x2=\"684.0\""), "{svg}");
        assert!(svg.contains("&lt;a&gt;"));
    }

    #[test]
    fn line_names_are_escaped_and_labels_do_not_overlap() {
        let line =
            |name: &str| Line { name: name.to_owned(), points: vec![(0.0, 0.5), (1.0, 0.5)] };
        let svg = lines(&[line("<a>"), line("b")], "images", 0.0..=1.0);
        assert!(svg.contains("&lt;a&gt;") && !svg.contains("<a>"));
        let heights: Vec<&str> = svg.matches("y=\"128.0\"").collect();
        assert_eq!(heights.len(), 1, "{svg}");
    }
}
