//! The study as tables: Markdown for reports, and the few numbers a terminal shows.

use fisao_eval::statistics::Interval;

use super::document::{CoarseResult, Correlation, Cost, Detection, SeedStudy, SignalStudy, Study};
use super::mean;
use fisao_report::html::counted;
use fisao_report::table::{NONE, Table};

/// A number, or what stands for none.
pub(super) fn digits(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.decimals$}"))
}

fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| NONE.to_owned(), |fraction| format!("{:.1} %", 100.0 * fraction))
}

/// Mean of a number over the seeds; `None` where one lacks it.
pub(super) fn over_seeds(
    study: &Study<'_>,
    pick: impl Fn(&SeedStudy) -> Option<f64>,
) -> Option<f64> {
    mean(study.seeds.iter().map(pick))
}

/// Mean of the ends of intervals over the seeds.
pub(super) fn interval_over_seeds(
    study: &Study<'_>,
    pick: impl Fn(&SeedStudy) -> Option<Interval>,
) -> Option<Interval> {
    let low = over_seeds(study, |seed| pick(seed).map(|interval| interval.low))?;
    let high = over_seeds(study, |seed| pick(seed).map(|interval| interval.high))?;
    Some(Interval { low, high })
}

fn in_brackets(interval: Option<Interval>, decimals: usize) -> String {
    interval.map_or_else(
        || NONE.to_owned(),
        |Interval { low, high }| format!("{low:.decimals$} … {high:.decimals$}"),
    )
}

/// What was detected by the variant at a position, or by the probe behind them all.
pub(super) fn detected(seed: &SeedStudy, position: usize) -> Option<&Detection> {
    match seed.variants.get(position) {
        Some(variant) => variant.detection.as_ref(),
        None => seed.probe.as_ref()?.detection.as_ref(),
    }
}

/// Names of the variants, the probe last.
pub(super) fn detectors(study: &Study<'_>) -> Vec<String> {
    let Some(first) = study.seeds.first() else { return Vec::new() };
    let name = |variant: &super::document::VariantResult| {
        if variant.default { format!("{} (default)", variant.name) } else { variant.name.clone() }
    };
    first.variants.iter().map(name).chain(["supervised probe".to_owned()]).collect()
}

/// What was detected by the signal at a position, or by the combinations behind them all.
pub(super) fn signal(seed: &SeedStudy, position: usize) -> Option<&Detection> {
    let SignalStudy { each, combined, .. } = &seed.signals;
    match each.get(position) {
        Some(signal) => signal.detection.as_ref(),
        None => combined.get(position - each.len())?.detection.as_ref(),
    }
}

/// Names of the signals, then of their combinations.
pub(super) fn signal_names(study: &Study<'_>) -> Vec<String> {
    let Some(first) = study.seeds.first() else { return Vec::new() };
    let SignalStudy { each, combined, .. } = &first.signals;
    let combined = combined.iter().map(|found| format!("combined: {}", found.name));
    each.iter().map(|signal| signal.name.clone()).chain(combined).collect()
}

/// The numbers a terminal shows.
pub(super) fn summary(study: &Study<'_>) -> String {
    let mut table = Table::new(&["what", "found"]);
    for (what, found) in summary_rows(study) {
        table.row([what, found]);
    }
    table.aligned()
}

/// What was studied, and the results.
pub(super) fn summary_rows(study: &Study<'_>) -> Vec<(String, String)> {
    let both = |a: &str, x: Option<f64>, b: &str, y: Option<f64>| {
        format!("{a} {}, {b} {}", digits(x, 3), digits(y, 3))
    };
    let Study { auc, brier, spearman, label_free, cost, .. } = study;
    let detection = format!(
        "plain {}, default {}, supervised probe {}",
        digits(auc.plain, 4),
        digits(auc.default, 4),
        digits(auc.probe, 4)
    );
    let combined = format!(
        "encoder and decoder {}, all {}",
        digits(auc.encoder_and_decoder, 4),
        digits(auc.all_signals, 4)
    );
    let squared = format!(
        "default {}, encoder and decoder {}, all {}",
        digits(brier.default, 4),
        digits(brier.encoder_and_decoder, 4),
        digits(brier.all_signals, 4)
    );
    let rows = [
        ("AUC of detecting hallucinated mentions", detection),
        ("the same, signals combined", combined),
        ("Brier score of the probability", squared),
        (
            "Spearman with the fraction of correct mentions",
            both("mentions", spearman.token, "whole caption", spearman.sentence),
        ),
        (
            "calibration without labels is off by, in σ",
            both("μ₊", label_free.mu_correct_error, "μ₋", label_free.mu_hallucinated_error),
        ),
        ("scoring, fraction of the time of writing", percent(cost.fraction_of_rollout)),
        ("scoring, fraction of a training iteration", percent(cost.fraction_of_iteration)),
    ];
    rows.into_iter().map(|(what, found)| (what.to_owned(), found)).collect()
}

/// The whole study.
pub(super) fn markdown(study: &Study<'_>) -> String {
    let sum = |pick: fn(&SeedStudy) -> usize| study.seeds.iter().map(pick).sum::<usize>();
    let head = format!(
        "# What the verifier can detect\n\n\
         Model {}, verifier {}, {}; {}, {} captions sampled at temperature {}, with {} object mentions, \
         {} of them objects that are not there. Numbers are means over the seeds, measured on images that thresholds, \
         centres and probe have not seen.\n",
        study.model,
        study.verifier,
        study.images,
        counted(study.seeds.len(), "seed"),
        sum(|seed| seed.captions),
        study.temperature,
        sum(|seed| seed.mentions),
        sum(|seed| seed.hallucinated),
    );
    let parts = tables(study)
        .into_iter()
        .map(|(title, table)| format!("\n## {title}\n\n{}\n", table.markdown()));
    std::iter::once(head).chain(parts).collect()
}

/// Every table with its title.
pub(super) fn tables(study: &Study<'_>) -> Vec<(&'static str, Table)> {
    vec![
        ("Detection of hallucinated mentions", detection_table(study)),
        ("Signals from the model's own encoder and decoder", signal_table(study)),
        ("Where the verifier sees images in lower resolution: AUC", coarse_table(study)),
        ("Spearman correlation with the quality of captions", correlation_table(study)),
        ("Calibration with annotations and without", calibration_table(study)),
        ("Images to calibrate on", size_table(study)),
        ("Length of the list of objects", vocabulary_table(study)),
        ("Cost", cost_table(study)),
    ]
}

fn detection_table(study: &Study<'_>) -> Table {
    detection_rows(study, "score", detectors(study), detected)
}

fn signal_table(study: &Study<'_>) -> Table {
    detection_rows(study, "signal", signal_names(study), signal)
}

/// A row for each name, what was detected at its position.
fn detection_rows(
    study: &Study<'_>,
    what: &str,
    names: Vec<String>,
    detected: fn(&SeedStudy, usize) -> Option<&Detection>,
) -> Table {
    let mut table = Table::new(&[
        what,
        "AUC",
        "95 % (mean of the seeds')",
        "average precision",
        "AURC",
        "risk at 80 %",
        "Brier",
        "calibration error",
    ]);
    for (position, name) in names.into_iter().enumerate() {
        let number = |pick: fn(&Detection) -> Option<f64>, decimals| {
            digits(over_seeds(study, |seed| pick(detected(seed, position)?)), decimals)
        };
        let interval = interval_over_seeds(study, |seed| detected(seed, position)?.auc_interval);
        table.row([
            name,
            number(|found| Some(found.auc), 4),
            in_brackets(interval, 4),
            number(|found| Some(found.average_precision), 4),
            number(|found| Some(found.aurc), 4),
            number(|found| found.risk_at_80, 4),
            number(|found| found.brier, 4),
            number(|found| found.calibration_error, 4),
        ]);
    }
    table
}

/// A number of one resolution.
type Pick = fn(&CoarseResult) -> Option<f64>;

fn coarse_table(study: &Study<'_>) -> Table {
    let Some(first) = study.seeds.first() else { return Table::default() };
    let factors: Vec<String> =
        first.coarse.iter().map(|coarse| format!("1/{}", coarse.coarseness)).collect();
    let mut columns = vec!["score"];
    columns.extend(factors.iter().map(String::as_str));
    let mut table = Table::new(&columns);
    for variant in &first.variants {
        let auc = |at: usize| {
            digits(over_seeds(study, |seed| *seed.coarse.get(at)?.auc.get(&variant.name)?), 4)
        };
        table.row([variant.name.clone()].into_iter().chain((0..factors.len()).map(auc)));
    }
    let spearman: [(&str, Pick); 2] = [
        ("Spearman with the fraction of correct mentions: mentions", |coarse| {
            coarse.spearman_token
        }),
        ("the same: whole caption", |coarse| coarse.spearman_sentence),
    ];
    for (name, pick) in spearman {
        let number = |at: usize| digits(over_seeds(study, |seed| pick(seed.coarse.get(at)?)), 3);
        table.row([name.to_owned()].into_iter().chain((0..factors.len()).map(number)));
    }
    table
}

fn correlation_table(study: &Study<'_>) -> Table {
    let mut table = Table::new(&[
        "with",
        "mentions",
        "95 %*",
        "whole caption",
        "95 %*",
        "mentions − caption, 95 %*",
    ]);
    let Some(first) = study.seeds.first() else { return table };
    for (at, correlation) in first.correlations.iter().enumerate() {
        let number = |pick: fn(&Correlation) -> Option<f64>| {
            digits(over_seeds(study, |seed| pick(seed.correlations.get(at)?)), 3)
        };
        let interval = |pick: fn(&Correlation) -> Option<Interval>| {
            in_brackets(interval_over_seeds(study, |seed| pick(seed.correlations.get(at)?)), 3)
        };
        table.row([
            correlation.target.clone(),
            number(|found| found.token),
            interval(|found| found.token_interval),
            number(|found| found.sentence),
            interval(|found| found.sentence_interval),
            interval(|found| found.difference_interval),
        ]);
    }
    table
}

fn calibration_table(study: &Study<'_>) -> Table {
    let mut table = Table::new(&[
        "seed",
        "μ₊",
        "μ₋",
        "σ₊",
        "σ₋",
        "without labels μ₊",
        "μ₋",
        "off by, σ: μ₊",
        "μ₋",
        "mismatched pairs as μ₋ off by, σ",
    ]);
    for seed in study.seeds {
        let found = &seed.calibration;
        let annotated = found.annotated.as_ref();
        let free = found.label_free.as_ref();
        table.row([
            seed.seed.to_string(),
            digits(annotated.map(|truth| truth.mu_correct), 4),
            digits(annotated.map(|truth| truth.mu_hallucinated), 4),
            digits(annotated.map(|truth| truth.sigma_correct), 4),
            digits(annotated.map(|truth| truth.sigma_hallucinated), 4),
            digits(free.map(|free| free.mu_correct), 4),
            digits(free.map(|free| free.mu_hallucinated), 4),
            digits(found.mu_correct_error, 3),
            digits(found.mu_hallucinated_error, 3),
            digits(found.mismatched_error, 3),
        ]);
    }
    table
}

fn size_table(study: &Study<'_>) -> Table {
    let mut table =
        Table::new(&["images", "draws", "μ₊ off by, σ", "μ₋ off by, σ", "AUC", "Brier"]);
    let Some(first) = study.seeds.first() else { return table };
    for (at, size) in first.calibration_images.iter().enumerate() {
        let number = |pick: fn(&super::document::CalibrationSize) -> Option<f64>, decimals| {
            digits(over_seeds(study, |seed| pick(seed.calibration_images.get(at)?)), decimals)
        };
        table.row([
            size.images.to_string(),
            size.draws.to_string(),
            number(|size| size.mu_correct_error, 3),
            number(|size| size.mu_hallucinated_error, 3),
            number(|size| size.auc, 4),
            number(|size| size.brier, 4),
        ]);
    }
    table
}

fn vocabulary_table(study: &Study<'_>) -> Table {
    let mut table = Table::new(&["categories", "AUC", "hallucinated mentions found"]);
    let Some(first) = study.seeds.first() else { return table };
    for (at, size) in first.vocabulary.iter().enumerate() {
        table.row([
            format!("{} ({})", size.categories, percent(Some(size.fraction))),
            digits(over_seeds(study, |seed| seed.vocabulary.get(at)?.auc), 4),
            percent(over_seeds(study, |seed| {
                Some(seed.vocabulary.get(at)?.hallucinations_covered)
            })),
        ]);
    }
    table
}

fn cost_table(study: &Study<'_>) -> Table {
    let mut table = Table::new(&["a caption takes", "ms"]);
    let number = |pick: fn(&Cost) -> f64| over_seeds(study, |seed| Some(pick(&seed.cost)));
    for (what, pick) in [
        ("to write", (|cost| cost.generate_ms) as fn(&Cost) -> f64),
        ("to encode its image", |cost| cost.encode_ms),
        ("to find and score its mentions", |cost| cost.words_ms),
        ("to score as a whole", |cost| cost.sentence_ms),
        ("decoder pass over its mentions", |cost| cost.decoder_ms),
    ] {
        table.row([what.to_owned(), digits(number(pick), 3)]);
    }
    for (what, fraction) in [
        ("mentions: (encode + score) / generate", number(|cost| cost.fraction_of_rollout)),
        ("whole: (encode + score) / generate", number(|cost| cost.sentence_fraction_of_rollout)),
        ("mentions: fraction of a training iteration", study.cost.fraction_of_iteration),
    ] {
        table.row([what.to_owned(), percent(fraction)]);
    }
    let speed = digits(number(|cost| cost.mentions_mb_per_second), 0);
    table.row(["text searched for mentions, MB/s, one core".to_owned(), speed]);
    table
}
