use super::{
    ColouredCaption, Curve, GalleryItem, Judgement, Metric, Report, ReportRow, ScoredBy, Scores,
    VerifierFacts, WordVerdict, headline, html, render,
};
use fisao_eval::chair::ChairChanges;
use fisao_eval::statistics::Interval;
use image::{ImageFormat, Rgb, RgbImage};
use std::io::Cursor;

const TRUTH: &[&str] = &["car", "dog", "traffic light"];

/// A run as it might have been; the text carries what must be escaped.
fn sample() -> Report {
    let scores = |chair_i, chair_s, recall, mean_length| Scores {
        chair_i,
        chair_s,
        recall,
        mean_length,
        captions: 500,
    };
    let row = |decoding: &str, base, aligned| ReportRow {
        decoding: decoding.into(),
        base,
        aligned,
        changes: ChairChanges::default(),
        estimated: false,
        intervals: None,
        protocols: None,
    };
    Report {
        title: "A small model stops seeing things".into(),
        seed: 7,
        before_after: vec![
            row("greedy", scores(0.182, 0.48, 0.841, 31.4), scores(0.061, 0.152, 0.835, 32.0)),
            row("sampled T=1", scores(0.264, 0.585, 0.812, 32.1), scores(0.092, 0.22, 0.823, 31.6)),
        ],
        verifier: verifier(),
        curves: curves(),
        gallery: (0..12).map(gallery_item).collect(),
        facts: [
            ("seed", "7"),
            ("calibrate", "41 s"),
            ("align", "262 s"),
            ("evaluate", "96 s"),
            ("peak memory", "1.4 GB"),
            ("FiSAO", "0.1.0"),
            ("device", "CPU, 2 threads"),
            ("reward", "log-odds, p* = 0.9 & r_max < 3"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into(),
        warnings: vec!["Length of captions <fell> by 16 % at iteration 12.".into()],
        attribution: "Pictures: Twemoji, © Twitter, Inc and other contributors, CC BY 4.0.".into(),
    }
}

fn verifier() -> VerifierFacts {
    let bell = |mean: f64, deviation: f64, total: f64| -> Vec<usize> {
        let bin = |index: usize| (index as f64 + 0.5) / 40.0 * 0.8 - 0.1;
        (0..40)
            .map(|index| {
                let z = (bin(index) - mean) / deviation;
                (total * 0.02 / deviation * 0.399 * (-0.5 * z * z).exp()).round() as usize
            })
            .collect()
    };
    VerifierFacts {
        scored_by: ScoredBy::Contrastive,
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
        correct_hist: bell(0.462, 0.071, 1430.0),
        hallucinated_hist: bell(0.213, 0.088, 318.0),
        hist_range: (-0.1, 0.7),
    }
}

fn curves() -> Vec<Curve> {
    let curve = |name: &str, unit: &str, value: &dyn Fn(f64) -> f64| Curve {
        name: name.into(),
        unit: unit.into(),
        points: (1..=30).map(|step| (f64::from(step), value(f64::from(step)))).collect(),
    };
    let wobble = |step: f64| (step * 2.4).sin();
    vec![
        curve("Reward", "per caption", &|step| {
            2.0 - 3.6 * (-step / 8.0).exp() + 0.12 * wobble(step)
        }),
        curve("KL to reference", "nats per token", &|step| {
            0.05 * (1.0 - (-step / 10.0).exp()) + 0.002 * wobble(step)
        }),
        curve("CHAIR_I", "calibration split", &|step| {
            0.07 + 0.12 * (-step / 6.0).exp() + 0.004 * wobble(step)
        }),
        curve("Recall", "calibration split", &|step| 0.84 + 0.005 * wobble(step)),
        curve("Length", "tokens", &|step| 31.4 + 0.6 * wobble(step / 3.0)),
        curve("Entropy", "nats per token", &|step| 0.9 - 0.012 * step),
    ]
}

fn gallery_item(index: u64) -> GalleryItem {
    let before = "This is a photo of a street scene. There are two cars in the middle and a dog on \
                  the left, next to a bicycle and a traffic light. The background is light green.";
    let after = "This is a photo of a street scene. There are two cars in the middle and a dog on \
                 the left, next to a traffic light. The background is light green.";
    GalleryItem {
        image: image(index),
        verifier_view: None,
        image_id: format!("test-{index:06}"),
        truth: TRUTH.iter().map(ToString::to_string).collect(),
        before: coloured(before, index),
        after: coloured(after, index),
    }
}

fn coloured(text: &str, index: u64) -> ColouredCaption {
    let drift = index as f64 * 0.011;
    let scores =
        [("cars", 0.50), ("dog", 0.44), ("bicycle", 0.17 + drift), ("traffic light", 0.40 - drift)];
    let words = scores.iter().filter_map(|&(form, score)| {
        let start = text.find(form)?;
        let category = form.strip_suffix('s').unwrap_or(form);
        Some(WordVerdict {
            start,
            end: start + form.len(),
            category: category.into(),
            score,
            probability: 1.0 / (1.0 + (-(score - 0.33) * 30.0).exp()),
            hallucinated: Some(!TRUTH.contains(&category)),
            heat_map: None,
        })
    });
    ColouredCaption { text: text.into(), words: words.collect() }
}

/// Three discs on a gradient.
fn image(index: u64) -> Vec<u8> {
    let hue = (index * 41 % 160) as u8;
    let image = RgbImage::from_fn(96, 96, |x, y| {
        let inside = |cx: i64, cy: i64, radius: i64| {
            (i64::from(x) - cx).pow(2) + (i64::from(y) - cy).pow(2) < radius.pow(2)
        };
        let shift = index as i64 * 5 % 30;
        if inside(26 + shift, 34, 15) {
            Rgb([214, 72, 54])
        } else if inside(66, 30 + shift, 12) {
            Rgb([250, 196, 60])
        } else if inside(50, 72 - shift / 3, 17) {
            Rgb([58, 110, 180])
        } else {
            Rgb([90 + hue, 200 - hue / 2, 130 + (y as u8) / 2])
        }
    });
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Png).expect("a PNG in memory");
    file.into_inner()
}

/// Set `FISAO_WRITE_SAMPLE_REPORT=target/report-sample.html` to look at a report without a run.
#[test]
fn sample_report_renders_a_complete_page() {
    let page = render(&sample());
    if let Some(path) = std::env::var_os("FISAO_WRITE_SAMPLE_REPORT") {
        std::fs::write(path, &page).expect("the sample report could not be written");
    }
    assert!(page.ends_with("</html>\n"));
}

#[test]
fn report_structure_matches_the_snapshot() {
    let mut report = sample();
    report.gallery.truncate(1);
    report.gallery[0].image = vec![0, 1, 2];
    report.curves.truncate(1);
    report.curves[0].points.truncate(3);
    report.verifier.correct_hist = vec![1, 3];
    report.verifier.hallucinated_hist = vec![1, 1];
    let page = render(&report);
    let body = page.split_once("<body>").expect("the page has a body").1;
    insta::assert_snapshot!(body);
}

#[test]
fn report_has_no_placeholders_and_no_external_resources() {
    let page = render(&sample());
    assert!(!page.contains("{{"), "a placeholder has no value");
    for fetch in ["http://", "https://", "url(", "<script", "<link", "@import", "srcset"] {
        assert!(!page.contains(fetch), "the page contains {fetch}");
    }
}

#[test]
fn external_text_is_escaped_in_the_report() {
    let hostile = "<b>&\"'{{style}}";
    let mut report = sample();
    report.title = hostile.into();
    report.warnings = vec![hostile.into()];
    report.attribution = hostile.into();
    report.facts = vec![(hostile.into(), hostile.into())];
    report.before_after[0].decoding = hostile.into();
    report.curves[0].name = hostile.into();
    report.curves[0].unit = hostile.into();
    let item = &mut report.gallery[0];
    item.image_id = hostile.into();
    item.truth = vec![hostile.into()];
    item.before.text = hostile.into();
    item.before.words[0].category = hostile.into();
    (item.before.words[0].start, item.before.words[0].end) = (0, hostile.len());
    let page = render(&report);
    assert!(!page.contains("<b>&"), "markup got through");
    let escaped = "&lt;b&gt;&amp;&quot;&#39;{{style}}";
    // Title 2, warning, attribution, fact 2, decoding 4 tiles + table, curve name 2 + unit,
    // image 2, truth, category, caption.
    let places = 2 + 1 + 1 + 2 + 5 + 3 + 2 + 1 + 1 + 1;
    assert_eq!(page.matches(escaped).count(), places, "every place shows the text as it is");
}

#[test]
fn filled_values_are_neither_expanded_nor_escaped() {
    let filled = html::fill("{{ a }} {{b}}\n", &[("a", "{{b}} <p>"), ("b", "2")]);
    assert_eq!(filled, "{{b}} <p> 2\n");
}

#[test]
#[should_panic(expected = "belong together")]
fn placeholder_without_a_value_panics() {
    html::fill("{{ a }} {{ c }}", &[("a", "1")]);
}

#[test]
fn verdicts_with_invalid_spans_are_omitted() {
    let mut report = sample();
    let word = report.gallery[0].before.words[0].clone();
    let at = |start, end| WordVerdict { start, end, ..word.clone() };
    report.gallery.truncate(1);
    report.gallery[0].after.words = Vec::new();
    report.gallery[0].before = ColouredCaption {
        text: "é dog, dog".into(),
        // Inside a character, overlapping, past the end, backwards; only the second is sound.
        words: vec![at(1, 2), at(3, 6), at(4, 6), at(8, 90), at(8, 7)],
    };
    let page = render(&report);
    let caption = page.split("<p class=\"caption\">").nth(1).expect("a caption");
    let caption = caption.split("</p>").next().expect("its end");
    assert_eq!(caption.matches("<mark").count(), 1);
    assert!(caption.starts_with("é <mark") && caption.ends_with(">dog</mark>, dog"), "{caption}");
}

#[test]
fn values_that_are_not_finite_are_not_drawn() {
    let mut report = sample();
    report.curves[0].points[3].1 = f64::NAN;
    report.curves[1].points = vec![(0.0, f64::INFINITY)];
    report.curves[2].points = Vec::new();
    report.verifier.correct_hist = vec![0; 4];
    report.verifier.hallucinated_hist = Vec::new();
    report.verifier.boundary = Some(f64::NAN);
    report.verifier.mu_correct = f64::NAN;
    report.gallery[0].before.words[0].score = f64::NAN;
    let page = render(&report);
    assert!(!page.contains("NaN") && !page.contains("inf\"") && !page.contains("inf "));
}

#[test]
fn headline_reports_large_losses_of_recall_and_length() {
    let mut report = sample();
    assert!(headline(&report).contains("fell from 18.2\u{a0}% to 6.1\u{a0}%"));
    assert!(!headline(&report).contains("too"));
    report.before_after[0].aligned.recall = 0.80;
    assert!(headline(&report).contains("loss of recall is too large"));
    report.before_after[0].aligned.mean_length = 20.0;
    assert!(headline(&report).contains("too much to ignore: −36\u{a0}%."));
    report.before_after[0].aligned.chair_i = 0.2;
    assert!(headline(&report).contains("rose"));
}

#[test]
fn a_change_within_its_interval_is_called_unclear() {
    let mut report = sample();
    let row = &mut report.before_after[0];
    (row.base.chair_i, row.aligned.chair_i) = (0.169, 0.159);
    (row.base.captions, row.aligned.captions) = (64, 64);
    let interval = |low, high| Some(Interval { low, high });
    row.changes = ChairChanges {
        chair_i: interval(-0.024, 0.004),
        chair_s: interval(-0.4, -0.2),
        recall: interval(-0.02, 0.01),
    };
    let (chair_i, chair_s) = (Metric::ChairI.assess(row), Metric::ChairS.assess(row));
    assert_eq!((chair_i, chair_s), (Judgement::Neutral, Judgement::Better));
    let said = headline(&report).replace('\u{a0}', " ");
    let expected = "Object mentions that name something absent changed from 16.9 % to 15.9 %, 95 % interval −2.4 to +0.4 \
                    points: no clear change on 64 captions. Captions with at least one of them went from 48.0 % to \
                    15.2 %, and recall went from 84.1 % to 83.5 % (no clear change).";
    assert_eq!(said, expected);
    // A fall outside of it is one.
    report.before_after[0].changes.chair_i = interval(-0.024, -0.001);
    assert!(headline(&report).contains("fell from 16.9"));
    // A loss of recall is not excused by few captions.
    report.before_after[0].aligned.recall = 0.8;
    report.before_after[0].changes.recall = interval(-0.09, 0.01);
    assert!(headline(&report).contains("loss of recall is too large"));
}
