//! A page about a detector of hallucinations: its numbers, and what is gained by leaving suspects out.

use fisao_eval::detection::RiskPoint;

use crate::html::{escape, fill, page};
use crate::plots::{Line, lines};
use crate::table::Table;

/// What the page shows.
#[derive(Clone, Copy, Debug)]
pub struct DetectionPage<'a> {
    /// Name of the detector.
    pub detector: &'a str,
    /// Name of the labels.
    pub labels: &'a str,
    /// All numbers.
    pub table: &'a Table,
    /// What has to be known beside them.
    pub notes: &'a [String],
    /// Fraction hallucinated among the words kept, the least suspected first.
    pub risk_coverage: &'a [RiskPoint],
}

impl DetectionPage<'_> {
    /// The page as HTML, which makes no request to anywhere.
    pub fn render(&self) -> String {
        let points = self.risk_coverage.iter().map(|point| (point.coverage, point.risk));
        let curve = Line { name: self.detector.to_owned(), points: points.collect() };
        let notes: Vec<String> = self
            .notes
            .iter()
            .map(|note| format!("<p class=\"lead\">{}</p>", escape(note)))
            .collect();
        let coverage = "coverage: fraction of words kept, the least suspected first";
        let main = fill(
            include_str!("detection.html").trim_end(),
            &[
                ("detector", &escape(self.detector)),
                ("labels", &escape(self.labels)),
                ("notes", &notes.join("\n")),
                ("risk", &lines(&[curve], coverage, 0.0..=0.01)),
                ("table", &self.table.html()),
            ],
        );
        page("Hallucinated words and spans", &main)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detection_page_has_numbers_and_curve_and_escapes_names() {
        let mut table = Table::new(&["of", "value"]);
        table.row(["words", "0.75"]);
        let curve = [(0.5, 0.1), (1.0, 0.2)].map(|(coverage, risk)| RiskPoint { coverage, risk });
        let page = DetectionPage {
            detector: "a<b",
            labels: "halloc",
            table: &table,
            notes: &["1 & 2".to_owned()],
            risk_coverage: &curve,
        };
        let html = page.render();
        assert!(html.contains("a&lt;b") && !html.contains("a<b"), "{html}");
        assert!(html.contains("<td>words</td>") && html.contains("1 &amp; 2"), "{html}");
        assert!(html.contains("<svg") && html.contains("coverage: fraction of words kept"));
        let empty = DetectionPage { risk_coverage: &[], ..page }.render();
        assert!(empty.contains("Nothing could be measured."));
    }
}
