//! A plot of named clouds of points: each with its mean, and how sure that is along both axes.

use std::fmt::Write as _;

use fisao_eval::statistics::Interval;

use super::axis::{Axis, rows};
use super::html::{escape, number};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 54.0;
/// Room for names beside the points.
const RIGHT: f64 = 640.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 350.0;
/// Height a name takes.
const NAME: f64 = 15.0;
/// How far a name stands above its mean, so that the interval does not cross it.
const ABOVE: f64 = 10.0;

/// Number of colours that `style.css` has for clouds.
const COLOURS: usize = 9;

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Cloud {
    /// Shown in the legend.
    pub name: String,
    /// x and y of each.
    pub points: Vec<(f64, f64)>,
    /// Their mean, x and y.
    pub mean: (f64, f64),
    /// Along x and y.
    pub intervals: (Option<Interval>, Option<Interval>),
    /// Set off from the others.
    pub marked: bool,
}

/// Clouds over two named axes. Axes hold all points and means; intervals that reach beyond are cut off.
pub fn scatter(clouds: &[Cloud], x_name: &str, y_name: &str, decimals: usize) -> String {
    let shown: Vec<(usize, &Cloud)> = clouds
        .iter()
        .enumerate()
        .filter(|(_, cloud)| cloud.mean.0.is_finite() && cloud.mean.1.is_finite())
        .collect();
    if shown.is_empty() {
        return "<p class=\"empty\">Nothing could be measured.</p>".to_owned();
    }
    let points =
        || shown.iter().flat_map(|(_, cloud)| cloud.points.iter().copied().chain([cloud.mean]));
    let x = Axis::new(range(points().map(|point| point.0)), (LEFT, RIGHT));
    let y = Axis::new(range(points().map(|point| point.1)), (BOTTOM, TOP));
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"{} over {}\">",
        BOTTOM + 50.0,
        escape(y_name),
        escape(x_name),
    );
    svg += &grid(&x, &y, x_name, y_name);
    for &(index, cloud) in &shown {
        svg += &spread(index, cloud, &x, &y);
    }
    for (index, name_y) in name_heights(&shown, &y) {
        svg += &name(index, &clouds[index], name_y, &x, &y);
    }
    for &(index, cloud) in &shown {
        svg += &middle(index, cloud, &x, &y, decimals);
    }
    svg + "</svg>"
}

/// Least and greatest with a margin.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values = values.filter(|value| value.is_finite());
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let margin = 0.08 * (high - low).max(0.05 * high.abs());
    (low - margin, high + margin)
}

fn grid(x: &Axis, y: &Axis, x_name: &str, y_name: &str) -> String {
    let mut svg = rows(y, 6, (LEFT, RIGHT));
    let (ticks, decimals) = x.ticks(8);
    for tick in ticks {
        let at = x.at(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>\
             <text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            BOTTOM + 18.0,
            number(tick, decimals),
        );
    }
    let (middle, half) = (f64::midpoint(LEFT, RIGHT), f64::midpoint(TOP, BOTTOM));
    let _ = write!(
        svg,
        "<text class=\"tick\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text class=\"tick\" transform=\"translate(14 {half:.1}) rotate(-90)\" \
         text-anchor=\"middle\">{}</text>",
        BOTTOM + 40.0,
        escape(x_name),
        escape(y_name),
    );
    svg
}

fn group(index: usize, cloud: &Cloud) -> String {
    let class = if cloud.marked { "marked" } else { "" };
    format!("<g class=\"cloud cloud-{} {class}\">", index % COLOURS)
}

/// The name, and a line that leads to it.
fn name(index: usize, cloud: &Cloud, name_y: f64, x: &Axis, y: &Axis) -> String {
    let (at_x, at_y) = (x.at(cloud.mean.0), y.at(cloud.mean.1));
    format!(
        "{}<line class=\"leader\" x1=\"{:.1}\" y1=\"{at_y:.1}\" x2=\"{:.1}\" y2=\"{name_y:.1}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
        group(index, cloud),
        at_x + 6.0,
        at_x + 13.0,
        at_x + 16.0,
        name_y + 4.0,
        escape(&cloud.name),
    )
}

/// The mean.
fn middle(index: usize, cloud: &Cloud, x: &Axis, y: &Axis, decimals: usize) -> String {
    format!(
        "{}<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5.5\"><title>{}: {}, {}</title></circle></g>",
        group(index, cloud),
        x.at(cloud.mean.0),
        y.at(cloud.mean.1),
        escape(&cloud.name),
        number(cloud.mean.0, decimals),
        number(cloud.mean.1, decimals),
    )
}

/// The intervals and every point.
fn spread(index: usize, cloud: &Cloud, x: &Axis, y: &Axis) -> String {
    let (mean_x, mean_y) = (x.at(cloud.mean.0), y.at(cloud.mean.1));
    let mut svg = group(index, cloud);
    if let Some(Interval { low, high }) = cloud.intervals.0 {
        let (from, to) = (x.at(low).clamp(LEFT, RIGHT), x.at(high).clamp(LEFT, RIGHT));
        let _ = write!(
            svg,
            "<line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{mean_y:.1}\" y2=\"{mean_y:.1}\"/>"
        );
    }
    if let Some(Interval { low, high }) = cloud.intervals.1 {
        let (from, to) = (y.at(low).clamp(TOP, BOTTOM), y.at(high).clamp(TOP, BOTTOM));
        let _ = write!(
            svg,
            "<line x1=\"{mean_x:.1}\" x2=\"{mean_x:.1}\" y1=\"{from:.1}\" y2=\"{to:.1}\"/>"
        );
    }
    let finite = cloud.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
    for &(at_x, at_y) in finite {
        let _ = write!(
            svg,
            "<circle class=\"one\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
            x.at(at_x),
            y.at(at_y)
        );
    }
    svg + "</g>"
}

/// Where the names stand: each beside its mean and a little above, moved down where it would meet another, and all of them back up
/// where the last would leave the image.
fn name_heights(shown: &[(usize, &Cloud)], y: &Axis) -> Vec<(usize, f64)> {
    let mut names: Vec<(usize, f64)> =
        shown.iter().map(|&(index, cloud)| (index, y.at(cloud.mean.1) - ABOVE)).collect();
    names.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut free = TOP;
    for (_, at) in &mut names {
        *at = at.max(free);
        free = *at + NAME;
    }
    let mut free = BOTTOM;
    for (_, at) in names.iter_mut().rev() {
        *at = at.min(free);
        free = *at - NAME;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(name: &str, mean: (f64, f64)) -> Cloud {
        let wide = Interval { low: -100.0, high: 100.0 };
        Cloud {
            name: name.to_owned(),
            points: vec![mean, (f64::NAN, 1.0)],
            mean,
            intervals: (Some(wide), None),
            marked: false,
        }
    }

    #[test]
    fn points_that_are_not_finite_are_omitted() {
        assert!(scatter(&[], "x", "y", 1).contains("Nothing"));
        let svg = scatter(&[cloud("none", (f64::NAN, 1.0)), cloud("<a>", (1.0, 1.0))], "x", "y", 1);
        assert!(!svg.contains("none") && !svg.contains("NaN") && svg.contains("&lt;a&gt;"));
        // The interval ends where the axis does.
        assert!(svg.contains("x1=\"54.0\" x2=\"640.0\""), "{svg}");
    }

    #[test]
    fn scatter_labels_do_not_overlap() {
        let y = Axis::new((0.0, 1.0), (BOTTOM, TOP));
        let clouds: Vec<Cloud> = [0.0, 0.01, 0.5].iter().map(|&at| cloud("a", (1.0, at))).collect();
        let shown: Vec<(usize, &Cloud)> = clouds.iter().enumerate().collect();
        let mut heights: Vec<f64> = name_heights(&shown, &y).iter().map(|name| name.1).collect();
        assert!(heights.iter().all(|&at| (TOP..=BOTTOM).contains(&at)), "{heights:?}");
        heights.dedup_by(|b, a| *b - *a < NAME - 1e-9);
        assert_eq!(heights.len(), 3);
    }
}
