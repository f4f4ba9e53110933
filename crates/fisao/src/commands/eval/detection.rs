//! `fisao eval detection`: how well a detector finds hallucinated words and spans.

mod arguments;

use std::path::Path;

use anyhow::{Context as _, bail};
use fisao_eval::chair::ChairInput;
use fisao_eval::localization::{
    Broken, LabelOptions, Labels, LocalizationOptions, LocalizationReport, Measured, Measures,
    Orientation, PairedTextsBy, PredictedSpan, PredictedText, Predictions, Skipped, Tokenization,
    evaluate, read_labels, read_predictions,
};
use fisao_eval::statistics::{Bootstrap, Interval};
use fisao_formats::documents::{check_output_file, write_bytes};
use fisao_report::detection::DetectionPage;
use fisao_report::table::{NONE, Table};
use fisao_runs::scorer::ScoredCaption;
use fisao_runs::verify::{CaptionsToVerify, Verdict, verify};
use fisao_runs::{Refusal, Reporter};

use arguments::TokenChoice;
pub(super) use arguments::{DETECTION_FILES, DetectionArguments};

use super::inputs::{name, read, warn_of};
use super::report;
use crate::arguments::ReportFormat;
use crate::{interrupt, output};

pub(crate) fn run(arguments: &DetectionArguments, reporter: &Reporter) -> anyhow::Result<()> {
    if arguments.threshold.is_some_and(|threshold| !threshold.is_finite()) {
        bail!(Refusal::new("--threshold is not a finite number"));
    }
    arguments.html.as_deref().map_or(Ok(()), check_output_file)?;
    let options = LabelOptions {
        offsets: arguments.offsets.into(),
        clean: arguments.clean_labels.clone(),
        ignored: arguments.ignored_labels.clone(),
        with_tokens: arguments.tokens == TokenChoice::Labels,
        text_field: arguments.text_field.clone(),
        broken: if arguments.skip_broken { Broken::Skip } else { Broken::Refuse },
    };
    let labels = read("labels", &arguments.labels, |reader| read_labels(reader, &options))?;
    warn_of_skipped(&arguments.labels, &labels.skipped, reporter);
    let (detector, predictions) = match (&arguments.predictions, &arguments.images) {
        (Some(file), _) => {
            // Predictions name their text by themselves.
            let options = LabelOptions { text_field: None, ..options };
            let found = read("predictions", file, |reader| read_predictions(reader, &options))?;
            warn_of_skipped(file, &found.skipped, reporter);
            (name(file), found)
        }
        (None, Some(images)) => {
            ("verifier".to_owned(), verified(arguments, images, &labels, reporter)?)
        }
        (None, None) => bail!(Refusal::new("neither --predictions nor --images is given")),
    };
    let skip_damaged = arguments.predictions.is_none() && arguments.damaged.skip_damaged;
    let options = LocalizationOptions {
        tokenization: arguments.tokens.into(),
        threshold: arguments.threshold,
        skip_unmatched: arguments.skip_unmatched || skip_damaged,
        bootstrap: Bootstrap::default(),
    };
    let mut found = evaluate(&labels, &predictions, &options).with_context(|| {
        format!("{detector} cannot be compared with {}", arguments.labels.display())
    })?;
    warn(&detector, &found, reporter);
    if let Some(path) = &arguments.html {
        let page = DetectionPage {
            detector: &detector,
            labels: &name(&arguments.labels),
            table: &table(&found, ReportFormat::Table),
            notes: &notes(&found),
            risk_coverage: &found.risk_coverage,
        };
        write_bytes(path, page.render().as_bytes())?;
        reporter.note(format!("page: {}", path.display()));
    }
    if !arguments.report.per_image {
        found.per_text.clear();
    }
    match arguments.report.format {
        ReportFormat::Json => output::json(&found),
        format => report::table(format, &table(&found, format), &notes(&found)),
    }
}

/// What a verifier says of the labelled texts.
fn verified(
    arguments: &DetectionArguments,
    images: &Path,
    labels: &Labels,
    reporter: &Reporter,
) -> anyhow::Result<Predictions> {
    let caption = |text: &fisao_eval::localization::LabelledText| {
        let image_id = text.image.clone().ok_or_else(|| {
            Refusal::new("a labelled text names no image to look at")
                .hint("add \"image\" or \"image_id\", or give --predictions")
        })?;
        anyhow::Ok(ChairInput { image_id, caption: text.text.clone() })
    };
    let captions = labels.texts.iter().map(caption).collect::<anyhow::Result<Vec<_>>>()?;
    if captions.is_empty() {
        return Ok(Predictions::default());
    }
    let DetectionArguments { verifying, damaged, device, .. } = arguments;
    let captions = CaptionsToVerify::Given(captions);
    let request = verifying.request(captions, images, damaged, device);
    let calibrated = request.calibration.is_some();
    let orientation = if calibrated { Orientation::Probability } else { Orientation::NegatedScore };
    let mut predictions = Predictions { orientation: Some(orientation), ..Predictions::default() };
    let mut each = |verdict: &Verdict<'_>, scored: &ScoredCaption| {
        let mentions = verdict.mentions.iter().zip(&scored.mentions);
        let spans = mentions.filter(|(judged, _)| !judged.negated).map(|(judged, mention)| {
            let score = judged.p_hallucinated.unwrap_or(-judged.score);
            PredictedSpan { bytes: mention.bytes.clone(), score, verdict: judged.hallucinated }
        });
        predictions.texts.push(PredictedText {
            id: None,
            image: Some(verdict.image_id.to_owned()),
            text: verdict.caption.to_owned(),
            spans: spans.collect(),
            of_tokens: false,
        });
        Ok(())
    };
    let sum = verify(&request, &mut each, &interrupt::flag, reporter)?;
    reporter.note(sum.in_words());
    Ok(predictions)
}

/// Says which texts of a file were left out.
fn warn_of_skipped(file: &Path, skipped: &Skipped, reporter: &Reporter) {
    for (problem, count, first) in skipped.each() {
        let file = file.display();
        reporter.warn(
            format!("{file}: {count} texts with {problem} are left out, first {first}"),
            None,
        );
    }
}

fn warn(detector: &str, found: &LocalizationReport, reporter: &Reporter) {
    let of = found.unmatched;
    let counts = [
        (of.without_prediction, "labelled texts without a prediction are left out"),
        (of.unknown, "predictions of images or ids without labels are left out"),
        (of.other_text, "predictions of other texts than the labels' are left out"),
    ];
    warn_of(detector, &counts, reporter);
    if found.token_measures.value("roc_auc_with_opinion").is_some_and(|auc| auc < 0.5) {
        reporter.warn(
            format!("{detector}: hallucinated words score below others (ROC AUC under 0.5)"),
            Some("a higher score means more likely hallucinated; change the sign of scores that say the opposite"),
        );
    }
}

/// What a number is called, and whether it is a fraction that is shown as percent.
fn heading(name: &str) -> (&'static str, bool) {
    match name {
        "roc_auc" => ("ROC AUC", false),
        "roc_auc_with_opinion" => ("ROC AUC, with an opinion only", false),
        "average_precision" => ("average precision", false),
        "f1" => ("F1 %", true),
        "precision" => ("precision %", true),
        "recall" => ("recall %", true),
        "best_f1" => ("best F1 %", true),
        "aurc" => ("AURC, with an opinion only", false),
        "without_opinion" => ("hallucinated, without an opinion %", true),
        "exact_f1" => ("exact F1 %", true),
        "exact_precision" => ("exact precision %", true),
        "exact_recall" => ("exact recall %", true),
        "overlap_f1" => ("overlap F1 %", true),
        "overlap_precision" => ("overlap precision %", true),
        "overlap_recall" => ("overlap recall %", true),
        "character_f1" => ("character F1 %", true),
        "character_precision" => ("character precision %", true),
        "character_recall" => ("character recall %", true),
        "span_recall" => ("recall of spans, overlap %", true),
        _ => ("", false),
    }
}

/// What tokens are called.
fn unit(found: &LocalizationReport) -> &'static str {
    match found.tokenization {
        Tokenization::Words => "words",
        Tokenization::Labels => "tokens",
    }
}

/// Every group of numbers with its name.
fn groups(found: &LocalizationReport) -> Vec<(String, &Measures)> {
    let mut groups = vec![
        (unit(found).to_owned(), &found.token_measures),
        ("spans".to_owned(), &found.span_measures),
    ];
    groups.extend(found.types.iter().map(|of| (of.name.clone(), &of.measures)));
    if found.types.len() > 1 {
        groups.push(("mean over types".to_owned(), &found.over_types));
    }
    groups
}

/// A row for each number.
fn table(found: &LocalizationReport, format: ReportFormat) -> Table {
    let csv = format == ReportFormat::Csv;
    let columns: &[&str] = if csv {
        &["of", "number", "value", "95 % from", "95 % to"]
    } else {
        &["of", "number", "value", "95 % interval"]
    };
    let mut table = Table::new(columns);
    for (group, measures) in groups(found) {
        for (name, Measured { value, interval, .. }) in &measures.0 {
            let (heading, percent) = heading(name);
            let write = |number: f64| {
                if percent { format!("{:.1}", 100.0 * number) } else { format!("{number:.4}") }
            };
            let none = || if csv { String::new() } else { NONE.to_owned() };
            let shown = |number: Option<f64>| number.map_or_else(none, write);
            let ends: Vec<String> = if csv {
                let [low, high] =
                    [|of: Interval| of.low, |of: Interval| of.high].map(|end| interval.map(end));
                vec![shown(low), shown(high)]
            } else {
                let both = interval.map(|of| format!("{} … {}", write(of.low), write(of.high)));
                vec![both.unwrap_or_else(none)]
            };
            table.row([group.clone(), heading.to_owned(), shown(*value)].into_iter().chain(ends));
        }
    }
    table
}

/// What has to be known beside the numbers.
fn notes(found: &LocalizationReport) -> Vec<String> {
    let unit = unit(found);
    let LocalizationReport { texts, images, tokens, hallucinated, ignored, .. } = found;
    let spans = found.labelled_spans;
    let flagged =
        found.flagged_spans.map_or(String::new(), |flagged| format!(", {flagged} flagged"));
    let by = match found.paired_by {
        PairedTextsBy::Id => "id",
        PairedTextsBy::ImageAndText => "image and text",
        PairedTextsBy::Text => "text",
    };
    let mut notes = vec![format!(
        "{texts} texts of {images} images, joined by {by}: {tokens} {unit}, {hallucinated} hallucinated, {} of them without \
             an opinion; {ignored} left out; {spans} labelled spans{flagged}",
        found.hallucinated_without_opinion
    )];
    notes.extend(match found.orientation {
        Some(Orientation::Probability) => {
            Some("scores are p_hallucinated of the verifier".to_owned())
        }
        Some(Orientation::NegatedScore) => Some(
            "scores are those of the verifier with their sign changed, as it has no calibration"
                .to_owned(),
        ),
        Some(Orientation::Given) | None => None,
    });
    notes.extend(found.best_threshold.map(|best| {
        format!(
            "best F1 at a score of {:.4} or more: precision {:.1} %, recall {:.1} %; chosen with these labels",
            best.threshold, 100.0 * best.precision, 100.0 * best.recall
        )
    }));
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for (group, measures) in groups(found) {
        for (name, measured) in &measures.0 {
            let Some(reason) = measured.undefined else { continue };
            let what = format!("{group}: {}", heading(name).0.trim_end_matches(" %"));
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, whats)) => whats.push(what),
                None => reasons.push((reason, vec![what])),
            }
        }
    }
    notes.extend(
        reasons
            .into_iter()
            .map(|(reason, whats)| format!("{NONE} as {reason}: {}", whats.join("; "))),
    );
    notes
}
