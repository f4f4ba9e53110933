//! Training curves as small multiples: one quantity, one chart, one unit.

use super::Curve;
use super::axis::Axis;
use super::html::{escape, number};

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 176.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 330.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 146.0;

/// All curves that have something to show.
pub(crate) fn render(curves: &[Curve]) -> String {
    let charts: Vec<String> = curves.iter().filter_map(chart).collect();
    if charts.is_empty() {
        return "<p class=\"empty\">No curves were recorded.</p>".to_owned();
    }
    charts.join("\n")
}

fn chart(curve: &Curve) -> Option<String> {
    let points: Vec<(f64, f64)> =
        curve.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let (&(first_x, first), &(last_x, last)) = (points.first()?, points.last()?);
    let lowest = points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let highest = points.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    // A curve that hardly moves must look as if it hardly moves.
    let margin = ((highest - lowest) * 0.08).max(highest.abs().max(lowest.abs()) * 0.02);
    let floor = if lowest >= 0.0 { (lowest - margin).max(0.0) } else { lowest - margin };
    let x = Axis::new((first_x, last_x), (LEFT, RIGHT));
    let y = Axis::new((floor, highest + margin), (BOTTOM, TOP));
    let decimals = decimals_for(highest - lowest, highest);
    let unit = if curve.unit.is_empty() {
        String::new()
    } else {
        format!("<small>{}</small>", escape(&curve.unit))
    };
    let name = escape(&curve.name);
    Some(format!(
        "<figure class=\"curve\">\n<figcaption><h3>{name}{unit}</h3><span>{} → <b>{}</b></span>\
         </figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"{name} over training\">\n{}\n{}\n</svg>\n</figure>",
        number(first, decimals),
        number(last, decimals),
        grid(&x, &y),
        line(&points, &x, &y, decimals),
    ))
}

/// Enough decimals for two digits of the curve's range.
fn decimals_for(range: f64, highest: f64) -> usize {
    let scale = if range > 0.0 { range } else { highest.abs().max(1e-3) };
    (1.0 - scale.log10().floor()).clamp(0.0, 5.0) as usize
}

fn grid(x: &Axis, y: &Axis) -> String {
    let mut parts = Vec::new();
    let (ticks, decimals) = y.ticks(4);
    for tick in ticks {
        let at = y.at(tick);
        parts.push(format!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 7.0,
            at + 4.0,
            number(tick, decimals),
        ));
    }
    let (ticks, decimals) = x.ticks(5);
    for tick in ticks {
        parts.push(format!(
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x.at(tick),
            BOTTOM + 17.0,
            number(tick, decimals),
        ));
    }
    parts.push(format!(
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>"
    ));
    parts.join("\n")
}

fn line(points: &[(f64, f64)], x: &Axis, y: &Axis, decimals: usize) -> String {
    let path = points
        .iter()
        .map(|&(at, value)| format!("{:.1} {:.1}", x.at(at), y.at(value)))
        .collect::<Vec<_>>()
        .join("L");
    let dots = points
        .iter()
        .map(|&(at, value)| {
            format!(
                "<circle class=\"hover\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"6\"><title>{}: {}</title></circle>",
                x.at(at),
                y.at(value),
                moment(at),
                number(value, decimals),
            )
        })
        .collect::<Vec<_>>()
        .join("\n");
    let (end_x, end_y) =
        points.last().map_or((LEFT, BOTTOM), |&(at, value)| (x.at(at), y.at(value)));
    format!(
        "<path class=\"line\" d=\"M{path}\"/>\n<circle class=\"end\" cx=\"{end_x:.1}\" \
         cy=\"{end_y:.1}\" r=\"3.5\"/>\n{dots}"
    )
}

/// When a value was measured; what was measured before training stands at 0.
fn moment(iteration: f64) -> String {
    if iteration < 0.5 {
        "before training".to_owned()
    } else {
        format!("iteration {}", number(iteration, 0))
    }
}
