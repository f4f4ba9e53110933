//! A linear axis: data to image coordinates, and round tick values.

use super::html::number;

/// Maps the interval `data` linearly onto the interval `pixels` (which may run backwards).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    data: (f64, f64),
    pixels: (f64, f64),
}

impl Axis {
    /// An axis; an empty data interval is widened so that the mapping stays finite.
    pub(crate) fn new(data: (f64, f64), pixels: (f64, f64)) -> Self {
        let (low, high) = data;
        let data = if (high - low).abs() < f64::EPSILON { (low - 0.5, high + 0.5) } else { data };
        Self { data, pixels }
    }

    /// The coordinate of a value.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let fraction = (value - self.data.0) / (self.data.1 - self.data.0);
        self.pixels.0 + fraction * (self.pixels.1 - self.pixels.0)
    }

    /// Up to about `wanted` round values inside the data interval, with the decimals they need.
    pub(crate) fn ticks(&self, wanted: usize) -> (Vec<f64>, usize) {
        let (low, high) = self.data;
        let step = round_step((high - low) / wanted.max(1) as f64);
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let first = (low / step - 1e-9).ceil();
        let ticks = (0..=2 * wanted)
            .map(|index| (first + index as f64) * step)
            .take_while(|tick| *tick <= high + step * 1e-9)
            .collect();
        (ticks, decimals)
    }
}

/// Lines of a grid at the ticks of a vertical axis, with their numbers on the left.
pub(crate) fn rows(y: &Axis, wanted: usize, (left, right): (f64, f64)) -> String {
    let (ticks, decimals) = y.ticks(wanted);
    let row = |tick: f64| {
        let at = y.at(tick);
        format!(
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            at + 4.0,
            number(tick, decimals),
        )
    };
    ticks.into_iter().map(row).collect()
}

/// Numbers at the ticks of a horizontal axis that lies at `bottom`.
pub(crate) fn numbers_below(x: &Axis, wanted: usize, bottom: f64) -> String {
    let (ticks, decimals) = x.ticks(wanted);
    let one = |tick: f64| {
        format!(
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x.at(tick),
            bottom + 18.0,
            number(tick, decimals),
        )
    };
    ticks.into_iter().map(one).collect()
}

/// The smallest of 1, 2, 5 times a power of ten that is not below `raw`.
fn round_step(raw: f64) -> f64 {
    let magnitude = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * magnitude >= raw * (1.0 - 1e-9))
        .unwrap_or(10.0);
    factor * magnitude
}

#[cfg(test)]
mod tests {
    use super::Axis;

    #[test]
    fn ticks_are_round_numbers_inside_the_axis() {
        let (ticks, decimals) = Axis::new((0.13, 0.42), (0.0, 100.0)).ticks(6);
        let labels: Vec<String> = ticks.iter().map(|tick| format!("{tick:.decimals$}")).collect();
        assert_eq!(labels, ["0.15", "0.20", "0.25", "0.30", "0.35", "0.40"]);
    }

    #[test]
    fn axis_pixel_range_may_be_reversed() {
        let axis = Axis::new((0.0, 10.0), (100.0, 0.0));
        assert!((axis.at(2.5) - 75.0).abs() < 1e-12);
    }

    #[test]
    fn empty_interval_is_drawn_at_the_centre() {
        let axis = Axis::new((3.0, 3.0), (0.0, 10.0));
        assert!((axis.at(3.0) - 5.0).abs() < 1e-12);
        assert!(!axis.ticks(4).0.is_empty());
    }
}
