//! The result of a demo as a table for the terminal.

use fisao_report::{Judgement, Metric, Report, ReportRow, Scores, headline};
use owo_colors::OwoColorize;

/// Width of the column that names the decoding, at least.
const DECODING_WIDTH: usize = 13;
/// Width of the column that says before, after or change.
const MODEL_WIDTH: usize = 8;
/// Width of a column of numbers.
const NUMBER_WIDTH: usize = 13;

/// The headline, the table of scores, the verifier and the warnings.
///
/// The text carries colour codes; write it through `anstream`, which drops them where the
/// output is not a terminal.
pub(crate) fn summary(report: &Report) -> String {
    let longest = report.before_after.iter().map(|row| row.decoding.chars().count() + 2).max();
    let width = longest.unwrap_or(0).max(DECODING_WIDTH);
    let mut lines = vec![headline(report), String::new(), heading(width)];
    for row in &report.before_after {
        lines.extend(score_lines(row, width));
    }
    lines.push(String::new());
    let verifier = &report.verifier;
    lines.push(format!(
        "{:<width$}AUC {:.3}, correct mentions {:.3} ± {:.3}, hallucinated mentions {:.3} ± {:.3}",
        "verifier",
        verifier.auc,
        verifier.mu_correct,
        verifier.sigma_correct,
        verifier.mu_hallucinated,
        verifier.sigma_hallucinated,
    ));
    let warnings = report.warnings.iter();
    lines.extend(warnings.map(|warning| format!("{} {warning}", "warning:".yellow().bold())));
    lines.push(String::new());
    lines.join("\n")
}

fn heading(width: usize) -> String {
    let names = Metric::ALL.map(|metric| format!("{:>NUMBER_WIDTH$}", metric.name()));
    let blank = width + MODEL_WIDTH;
    format!("{:blank$}{}{:>NUMBER_WIDTH$}", "", names.concat(), "captions").dimmed().to_string()
}

fn score_lines(row: &ReportRow, width: usize) -> [String; 3] {
    let values = |decoding: &str, model: &str, scores: &Scores| {
        let cells = Metric::ALL.map(|metric| format!("{:>NUMBER_WIDTH$}", metric.value(scores)));
        let captions = scores.captions;
        format!(
            "{decoding:<width$}{model:<MODEL_WIDTH$}{}{captions:>NUMBER_WIDTH$}",
            cells.concat()
        )
    };
    // Padding comes before colouring: colour codes would count as width.
    let changes = Metric::ALL.map(|metric| {
        let text = format!("{:>NUMBER_WIDTH$}", metric.change(row));
        match metric.assess(row) {
            Judgement::Better => text.green().to_string(),
            Judgement::Neutral => text,
            Judgement::Worse => text.red().bold().to_string(),
        }
    });
    [
        values(&row.decoding, "before", &row.base),
        values("", "after", &row.aligned),
        format!("{:width$}{:<MODEL_WIDTH$}{}", "", "change", changes.concat()),
    ]
}

#[cfg(test)]
mod tests {
    use super::summary;
    use fisao_eval::chair::ChairChanges;
    use fisao_report::{Report, ReportRow, ScoredBy, Scores, VerifierFacts};

    /// A run as it might have been.
    fn sample() -> Report {
        let scores = |chair_i, chair_s, recall, mean_length| Scores {
            chair_i,
            chair_s,
            recall,
            mean_length,
            captions: 500,
        };
        let row = |decoding: &str, base, aligned| ReportRow {
            decoding: decoding.to_owned(),
            base,
            aligned,
            changes: ChairChanges::default(),
            estimated: false,
            intervals: None,
            protocols: None,
        };
        Report {
            title: "A small model stops seeing things".to_owned(),
            seed: 7,
            before_after: vec![
                row("greedy", scores(0.182, 0.48, 0.841, 31.4), scores(0.061, 0.152, 0.835, 32.0)),
                row(
                    "sampled T=1",
                    scores(0.264, 0.585, 0.812, 32.1),
                    scores(0.092, 0.22, 0.823, 31.6),
                ),
            ],
            verifier: VerifierFacts {
                scored_by: ScoredBy::default(),
                auc: 0.968,
                mu_correct: 0.462,
                sigma_correct: 0.071,
                mu_hallucinated: 0.213,
                sigma_hallucinated: 0.088,
                tau_plus: Some(0.43),
                tau_minus: Some(0.25),
                full_reward: None,
                full_penalty: None,
                boundary: Some(0.358),
                correct_hist: Vec::new(),
                hallucinated_hist: Vec::new(),
                hist_range: (-0.1, 0.7),
            },
            curves: Vec::new(),
            gallery: Vec::new(),
            facts: Vec::new(),
            warnings: vec!["Length of captions <fell> by 16 % at iteration 12.".to_owned()],
            attribution: String::new(),
        }
    }

    #[test]
    fn summary_columns_align_without_colours() {
        let text = anstream::adapter::strip_str(&summary(&sample())).to_string();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn recall_loss_is_printed_in_red() {
        let mut report = sample();
        report.before_after[0].aligned.recall = report.before_after[0].base.recall - 0.1;
        let change = summary(&report);
        assert!(change.contains("\u{1b}[31m"), "{change}");
        assert!(!summary(&sample()).contains("\u{1b}[31m"));
    }
}
