//! Tables of results: aligned for people, Markdown for reports, CSV for spreadsheets.

use std::fmt::Write as _;

use crate::escaping::one_line;
use crate::html::escape;

/// Rows under headings; every row has as many cells as there are columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// It has not as many cells as the table has columns.
    pub fn row<Cell: Into<String>>(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let row = cells.into_iter().map(|cell| one_line(&cell.into()).into_owned());
        let row: Vec<String> = row.collect();
        assert_eq!(row.len(), self.columns.len(), "a row has as many cells as there are columns");
        self.rows.push(row);
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Place of the column under a heading.
    ///
    /// # Panics
    /// There is none.
    pub fn column(&self, heading: &str) -> usize {
        let found = self.columns.iter().position(|column| column == heading);
        found.unwrap_or_else(|| panic!("no column `{heading}`"))
    }

    /// Inserts a column in which the last row alone has something.
    pub fn insert_column(&mut self, at: usize, heading: String, last: &str) {
        self.columns.insert(at, heading);
        let count = self.rows.len();
        for (row, cells) in self.rows.iter_mut().enumerate() {
            cells.insert(at, if row + 1 == count { last.to_owned() } else { String::new() });
        }
    }

    /// Columns under their headings. Text stands on the left, numbers on the right.
    pub fn aligned(&self) -> String {
        let widths = self.widths();
        let right = self.numeric();
        let mut text = String::new();
        for row in self.all() {
            let cells = row.iter().zip(&widths).zip(&right).map(|((cell, &width), &right)| {
                if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// A table of GitHub's Markdown.
    pub fn markdown(&self) -> String {
        let rule = self.numeric().into_iter().map(|right| if right { "---:" } else { "---" });
        let rule = format!("| {} |", rule.collect::<Vec<_>>().join(" | "));
        let lines = self.all().map(|row| {
            let cells = row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " "));
            format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
        });
        let mut lines: Vec<String> = lines.collect();
        lines.insert(1, rule);
        lines.join("\n")
    }

    /// A table of HTML.
    pub fn html(&self) -> String {
        let row = |tag: &str, cells: &[String]| {
            let cells = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)));
            format!("<tr>{}</tr>", cells.collect::<String>())
        };
        let rows: String = self.rows.iter().map(|cells| row("td", cells)).collect();
        let head = row("th", &self.columns);
        format!("<table class=\"plain\"><thead>{head}</thead><tbody>{rows}</tbody></table>")
    }

    /// Comma-separated values as RFC 4180 has them, but for lines that end in a bare line feed. What is not there is empty.
    pub fn csv(&self) -> String {
        let mut text = String::new();
        for row in self.all() {
            let cells = row.iter().map(|cell| {
                if cell == NONE {
                    String::new()
                } else if cell.contains([',', '"', '\n', '\r']) {
                    format!("\"{}\"", cell.replace('"', "\"\""))
                } else {
                    cell.clone()
                }
            });
            let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join(","));
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn all(&self) -> impl Iterator<Item = &Vec<String>> {
        std::iter::once(&self.columns).chain(&self.rows)
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| self.all().map(|row| row[column].chars().count()).max();
        (0..self.columns.len()).map(|column| width(column).unwrap_or(0)).collect()
    }

    /// Which columns hold numbers: those whose cells all begin like one, be it in bold or a bound, stand for none or are empty.
    fn numeric(&self) -> Vec<bool> {
        let number = |cell: &String| {
            cell == NONE
                || cell.is_empty()
                || cell
                    .trim_start_matches(['-', '−', '+', '±', '*', '<'])
                    .starts_with(|c: char| c.is_ascii_digit())
        };
        (0..self.columns.len())
            .map(|column| !self.rows.is_empty() && self.rows.iter().all(|row| number(&row[column])))
            .collect()
    }
}

/// What stands where there is not a number.
pub const NONE: &str = "–";

/// A rate in percent with one decimal, or what stands for none.
pub fn percent(rate: Option<f64>) -> String {
    rate.map_or_else(|| NONE.to_owned(), |rate| format!("{:.1}", 100.0 * rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["split", "accuracy", "note"]);
        table.row(["random", "89.5", "a|b"]);
        table.row(["popular, \"seen\"", NONE, ""]);
        table
    }

    #[test]
    fn aligned_table_has_padded_columns() {
        assert_eq!(
            table().aligned(),
            "split            accuracy  note\n\
             random               89.5  a|b\n\
             popular, \"seen\"         –"
        );
    }

    #[test]
    fn markdown_escapes_pipes_and_fills_columns() {
        assert_eq!(
            table().markdown(),
            "| split | accuracy | note |\n| --- | ---: | --- |\n| random | 89.5 | a\\|b |\n\
             | popular, \"seen\" | – |  |"
        );
    }

    #[test]
    fn csv_quotes_commas_and_quotation_marks() {
        assert_eq!(
            table().csv(),
            "split,accuracy,note\nrandom,89.5,a|b\n\"popular, \"\"seen\"\"\",,"
        );
    }

    #[test]
    fn missing_rate_is_shown_as_a_dash() {
        assert_eq!((percent(Some(0.5)), percent(None)), ("50.0".to_owned(), NONE.to_owned()));
    }
}
