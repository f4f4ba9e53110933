//! What one run scored, or several: seeds of one model, or files of answers to the same questions.

use fisao_eval::statistics::{Interval, Spread};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::report;
use crate::arguments::{ReportArguments, ReportFormat};
use crate::output;
use fisao_report::table::{NONE, Table};

/// How a number is written for people; JSON has it as it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    /// A fraction, as percent with one decimal.
    Percent,
    /// As it is, with so many decimals.
    Decimals(usize),
}

/// A number that a benchmark is reported by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    /// What JSON calls it.
    pub(super) key: &'static str,
    /// What papers call it.
    pub(super) heading: &'static str,
    pub(super) unit: Unit,
}

impl Number {
    /// A fraction, shown as percent.
    pub(super) const fn percent(key: &'static str, heading: &'static str) -> Self {
        Self { key, heading, unit: Unit::Percent }
    }

    /// A number shown as it is.
    pub(super) const fn decimals(key: &'static str, heading: &'static str, count: usize) -> Self {
        Self { key, heading, unit: Unit::Decimals(count) }
    }
}

/// The numbers of a benchmark and what else stands in its table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout<const N: usize> {
    /// Over the column of names.
    pub(super) names: &'static str,
    pub(super) numbers: [Number; N],
    /// Over the columns of counts.
    pub(super) counts: &'static [&'static str],
}

/// What one run scored.
#[derive(Debug)]
pub(super) struct Run<const N: usize> {
    name: String,
    values: [Option<f64>; N],
    counts: Vec<usize>,
    /// Empty unless JSON is asked for.
    report: Map<String, Value>,
}

impl<const N: usize> Run<N> {
    pub(super) fn new(
        name: impl Into<String>,
        values: [Option<f64>; N],
        counts: &[usize],
        report: &impl Serialize,
        arguments: &ReportArguments,
    ) -> anyhow::Result<Self> {
        let json = arguments.format == ReportFormat::Json;
        let report = if json { report::fields(report)? } else { Map::new() };
        Ok(Self { name: name.into(), values, counts: counts.to_vec(), report })
    }
}

/// Means over runs; `None` where a run lacks the number.
fn spreads<const N: usize>(runs: &[Run<N>]) -> [Option<Spread>; N] {
    std::array::from_fn(|at| {
        let values: Option<Vec<f64>> = runs.iter().map(|run| run.values[at]).collect();
        values.as_deref().and_then(Spread::of)
    })
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Self::Percent => format!("{:.1}", 100.0 * value),
            Self::Decimals(count) => format!("{value:.count$}"),
        }
    }
}

impl<const N: usize> Layout<N> {
    /// A table with a row for each run, behind them what they come to and how sure that is.
    pub(super) fn table(
        &self,
        runs: &[Run<N>],
        intervals: &[Option<Interval>; N],
        format: ReportFormat,
    ) -> Table {
        let mut table = self.headings();
        for run in runs {
            self.row(&mut table, &run.name, &run.values, &run.counts);
        }
        if runs.len() > 1 {
            let pairs = spreads(runs).map(|of| of.map(|of| [of.mean, of.standard_deviation]));
            if format == ReportFormat::Csv {
                self.row(&mut table, "mean", &pairs.map(|of| of.map(|[mean, _]| mean)), &[]);
                self.columns(
                    &mut table,
                    &pairs.map(|of| of.map(|[_, deviation]| deviation)),
                    "s.d.",
                );
            } else {
                self.pairs(&mut table, &pairs, ["mean ± s.d.", "±"]);
            }
        }
        self.interval(&mut table, intervals, format);
        table
    }

    /// The table without rows.
    pub(super) fn headings(&self) -> Table {
        let numbers = self.numbers.iter().map(|number| number.heading);
        let columns: Vec<&str> =
            [self.names].into_iter().chain(numbers).chain(self.counts.iter().copied()).collect();
        Table::new(&columns)
    }

    /// Adds a row.
    pub(super) fn row(
        &self,
        table: &mut Table,
        name: &str,
        values: &[Option<f64>; N],
        counts: &[usize],
    ) {
        let value = |(number, value): (&Number, &Option<f64>)| {
            value.map_or_else(|| NONE.to_owned(), |value| number.unit.write(value))
        };
        let values = self.numbers.iter().zip(values).map(value);
        let counts = (0..self.counts.len())
            .map(|at| counts.get(at).map_or_else(String::new, ToString::to_string));
        table.row([name.to_owned()].into_iter().chain(values).chain(counts));
    }

    /// Adds the intervals of the last row, if there are any: in a row for people, in columns for programs.
    pub(super) fn interval(
        &self,
        table: &mut Table,
        intervals: &[Option<Interval>; N],
        format: ReportFormat,
    ) {
        if intervals.iter().all(Option::is_none) {
            return;
        }
        if format == ReportFormat::Csv {
            self.columns(table, &intervals.map(|of| of.map(|of| of.high)), "95 % to");
            self.columns(table, &intervals.map(|of| of.map(|of| of.low)), "95 % from");
        } else {
            let pairs = intervals.map(|of| of.map(|of| [of.low, of.high]));
            self.pairs(table, &pairs, ["95 % interval", "…"]);
        }
    }

    /// Adds a row of two numbers for each column, with what stands between them.
    fn pairs(&self, table: &mut Table, pairs: &[Option<[f64; 2]>; N], [name, between]: [&str; 2]) {
        let cells = self.numbers.iter().zip(pairs).map(|(number, pair)| {
            let [first, second] = pair.map(|pair| pair.map(|value| number.unit.write(value)))?;
            Some(format!("{first} {between} {second}"))
        });
        let cells = cells.map(|cell| cell.unwrap_or_else(|| NONE.to_owned()));
        let counts = self.counts.iter().map(|_| String::new());
        table.row([name.to_owned()].into_iter().chain(cells).chain(counts));
    }

    /// Adds a column behind each number's own, with something about the last row.
    fn columns(&self, table: &mut Table, values: &[Option<f64>; N], what: &str) {
        for (number, value) in self.numbers.iter().zip(values) {
            let at = table.column(number.heading) + 1;
            let value = value.map_or_else(String::new, |value| number.unit.write(value));
            table.insert_column(at, format!("{} {what}", number.heading), &value);
        }
    }

    /// Everything that is known, as JSON: one run as it is, several with their mean.
    fn json(&self, mut runs: Vec<Run<N>>, intervals: &[Option<Interval>; N]) -> Value {
        let keyed = |values: [Value; N]| -> Map<String, Value> {
            self.numbers.iter().map(|number| number.key.to_owned()).zip(values).collect()
        };
        let mean = keyed(spreads(&runs).map(|spread| json!(spread)));
        let intervals = keyed(intervals.map(|interval| json!(interval)));
        for run in &mut runs {
            run.report.extend(keyed(run.values.map(|value| json!(value))));
        }
        if let [run] = &mut runs[..] {
            run.report.insert("intervals".to_owned(), intervals.into());
            return std::mem::take(&mut run.report).into();
        }
        let file = |mut run: Run<N>| {
            run.report.insert("name".to_owned(), run.name.into());
            Value::from(run.report)
        };
        let files: Vec<Value> = runs.into_iter().map(file).collect();
        json!({ "mean": mean, "intervals": intervals, "files": files })
    }

    /// Prints runs in the format that was asked for.
    pub(super) fn print(
        &self,
        arguments: &ReportArguments,
        runs: Vec<Run<N>>,
        intervals: &[Option<Interval>; N],
        notes: &[String],
    ) -> anyhow::Result<()> {
        match arguments.format {
            ReportFormat::Json => output::json(&self.json(runs, intervals)),
            format => report::table(format, &self.table(&runs, intervals, format), notes),
        }
    }
}
