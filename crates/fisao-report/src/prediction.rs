//! A predicted curve with measured points on it.

use std::fmt::Write as _;

use super::axis::{Axis, numbers_below, rows};
use super::html::escape;

const WIDTH: f64 = 520.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 508.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 216.0;

/// A curve and what was measured along it.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// x and y, in small steps.
    pub line: Vec<(f64, f64)>,
    /// What was measured.
    pub measured: Vec<Measured>,
    /// Name of the x axis.
    pub x_name: String,
}

/// A measured point.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Where.
    pub x: f64,
    /// What.
    pub y: f64,
    /// Half the width of its 95 % interval.
    pub half_interval: f64,
    /// Set off from the others.
    pub main: bool,
}

/// Draws both; what is not finite is left out.
pub fn prediction(plot: &Prediction) -> String {
    let finite = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
    let line: Vec<(f64, f64)> = plot.line.iter().copied().filter(finite).collect();
    let measured: Vec<&Measured> =
        plot.measured.iter().filter(|point| finite(&(point.x, point.y))).collect();
    if line.is_empty() && measured.is_empty() {
        return "<p class=\"empty\">Nothing could be measured.</p>".to_owned();
    }
    let points = || line.iter().copied().chain(measured.iter().map(|point| (point.x, point.y)));
    let x = Axis::new(range(points().map(|point| point.0)), (LEFT, RIGHT));
    let y = Axis::new(range(points().map(|point| point.1)), (BOTTOM, TOP));
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} 262\" role=\"img\" aria-label=\"{}\">{}",
        escape(&plot.x_name),
        grid(&x, &y, &plot.x_name),
    );
    let path: Vec<String> =
        line.iter().map(|point| format!("{:.1} {:.1}", x.at(point.0), y.at(point.1))).collect();
    if !path.is_empty() {
        let _ = write!(svg, "<path class=\"line\" d=\"M{}\"/>", path.join("L"));
    }
    for point in measured {
        let (at_x, at_y) = (x.at(point.x), y.at(point.y));
        // An interval ends where the axis does.
        let end = |value: f64| y.at(value).clamp(TOP, BOTTOM);
        let class = if point.main { "main" } else { "" };
        let _ = write!(
            svg,
            "<g class=\"measured {class}\"><line x1=\"{at_x:.1}\" x2=\"{at_x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"4.5\"/></g>",
            end(point.y - point.half_interval),
            end(point.y + point.half_interval),
        );
    }
    svg + "</svg>"
}

/// Least and greatest with a margin.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let margin = 0.06 * (high - low);
    (low - margin, high + margin)
}

fn grid(x: &Axis, y: &Axis, x_name: &str) -> String {
    let mut svg = rows(y, 5, (LEFT, RIGHT)) + &numbers_below(x, 6, BOTTOM);
    let _ = write!(
        svg,
        "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        f64::midpoint(LEFT, RIGHT),
        BOTTOM + 38.0,
        escape(x_name),
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_on_the_line_that_predicts_them() {
        let point = |x: f64, y: f64| Measured { x, y, half_interval: 100.0, main: x > 0.0 };
        let plot = Prediction {
            line: vec![(0.0, 0.0), (1.0, 1.0), (f64::NAN, 1.0)],
            measured: vec![point(0.0, 0.0), point(1.0, 1.0), point(2.0, f64::NAN)],
            x_name: "<x>".to_owned(),
        };
        let svg = prediction(&plot);
        assert!(svg.contains("d=\"M82.1 205.1L483.9 22.9\""), "{svg}");
        assert!(
            svg.contains("cx=\"82.1\" cy=\"205.1\"") && svg.contains("cx=\"483.9\" cy=\"22.9\"")
        );
        assert!(svg.contains("y1=\"216.0\" y2=\"12.0\""), "intervals end where the axis does");
        assert_eq!(svg.matches("measured main").count(), 1);
        assert!(svg.contains("&lt;x&gt;") && !svg.contains("NaN"));
    }

    #[test]
    fn empty_prediction_shows_a_notice() {
        let plot = Prediction { line: Vec::new(), measured: Vec::new(), x_name: String::new() };
        assert!(prediction(&plot).contains("Nothing"));
    }
}
