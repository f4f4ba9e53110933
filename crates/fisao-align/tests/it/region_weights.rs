//! Which regions of an image a score should look at, found by calibration.

use std::collections::BTreeSet;

use fisao_align::calibrate::{Supervision, calibrate};
use fisao_align::mention_views::MentionViews;
use fisao_align::mentions::{MentionScorer, ScoredResponse};
use fisao_align::region_weights::{region_weights, unlabelled_region_weights};
use fisao_models::generation::FinishReason;
use fisao_verifier::calibration::UnlabelledFit;
use fisao_verifier::mentions::{ObjectVocabulary, TokenMention};
use fisao_verifier::regions::{ImageEmbedding, Regions, ScoreConfig, cosine};
use fisao_verifier::scorer::Verifier;
use fisao_verifier::templates::Templates;

use fisao_testkit::tiny_policy::models;

const NAMES: [&str; 3] = ["dog", "cat", "car"];
const IMAGES: usize = 600;

/// Captions that name one object each, images of given contents, and what they hold.
struct World {
    scorer: MentionScorer,
    captions: Vec<ScoredResponse>,
    images: Vec<ImageEmbedding>,
    truth: Vec<BTreeSet<String>>,
}

/// A number for each place, of mean 0 and standard deviation 0.7, with one hump.
fn wave(at: usize, rate: f64) -> f32 {
    let at = at as f64 * rate;
    let sum = at.sin() + (1.618 * at + 1.0).sin() + (2.414 * at + 2.0).sin();
    (sum / 3.0_f64.sqrt()) as f32
}

/// Every name means a direction of its own.
fn teach(verifier: &mut Verifier, vocabulary: &ObjectVocabulary) {
    let dim = verifier.contrastive().unwrap().dim();
    let direction = |(at, (form, _)): (usize, (&str, usize))| {
        (form.to_owned(), (0..dim).map(|axis| f32::from(u8::from(axis == at))).collect())
    };
    let known: Vec<(String, Vec<f32>)> = vocabulary.forms().enumerate().map(direction).collect();
    assert!(known.len() <= dim, "{} names in {dim} dimensions", known.len());
    verifier.insert_embeddings(known);
}

/// Three of four mentions are correct. An image's whole and its best patch lean towards its caption's name by the given
/// amounts where the object is there; both vary.
fn world(whole: f32, patch: f32) -> World {
    let mut scorer = models().1;
    let score = ScoreConfig { regions: Regions::Auto, ..ScoreConfig::default() };
    scorer.verifier = scorer.verifier.with_settings(Templates::default(), score);
    teach(&mut scorer.verifier, &scorer.vocabulary);
    let mut made = World { scorer, captions: vec![], images: vec![], truth: vec![] };
    for at in 0..IMAGES {
        let form = NAMES[at % NAMES.len()];
        let mention = made.scorer.vocabulary.mentions(form).next().expect("a known name");
        let category = mention.category;
        let correct = at / 2 % 4 != 3;
        let text = &made.scorer.verifier.embeddings()[form];
        let lean = |by: f32, rate: f64| -> Vec<f32> {
            let present = if correct { by } else { 0.0 };
            text.iter().map(|x| (present + 0.1 * wave(at, rate)) * x).collect()
        };
        made.images.push(ImageEmbedding { whole: lean(whole, 1.7), parts: vec![lean(patch, 2.3)] });
        made.captions.push(ScoredResponse {
            task: at,
            tokens: vec![1],
            logprobs: vec![0.0],
            finish: FinishReason::Stop,
            text: form.to_owned(),
            negated: 0,
            mentions: vec![TokenMention {
                category,
                form: form.to_owned(),
                text: form.to_owned(),
                span: 0..form.len(),
                tokens: 0..1,
                negated: false,
                description: None,
            }],
            scores: vec![0.0],
        });
        let name = made.scorer.vocabulary.category(category).to_owned();
        made.truth.push(if correct { BTreeSet::from([name]) } else { BTreeSet::new() });
    }
    made
}

impl World {
    fn annotated(&self) -> f64 {
        let Self { scorer, captions, images, truth } = self;
        let (verifier, vocabulary) = (&scorer.verifier, &scorer.vocabulary);
        region_weights(captions, images, verifier, vocabulary, truth).unwrap().patches
    }

    fn unlabelled(&self) -> f64 {
        let Self { scorer, captions, images, .. } = self;
        let (verifier, vocabulary) = (&scorer.verifier, &scorer.vocabulary);
        unlabelled_region_weights(captions, images, verifier, vocabulary).unwrap().patches
    }
}

#[test]
fn patches_get_weight_where_they_are_more_informative() {
    let world = world(0.1, 0.6);
    assert!(world.annotated() > 0.6, "{}", world.annotated());
    assert!((world.unlabelled() - 1.0).abs() < 1e-12, "{}", world.unlabelled());
}

#[test]
fn patches_get_no_weight_where_they_are_not_more_informative() {
    for (whole, patch) in [(0.6, 0.0), (0.6, 0.6)] {
        let world = world(whole, patch);
        assert!(world.annotated() < 1e-12, "{whole} {patch}: {}", world.annotated());
        assert!(world.unlabelled() < 1e-12, "{whole} {patch}: {}", world.unlabelled());
    }
}

#[test]
fn calibration_stores_the_region_weights_of_its_scores() {
    let World { mut scorer, captions, images, truth } = world(0.1, 0.6);
    let supervision = Supervision::Annotations(&truth);
    let calibration = calibrate(&captions, &images, &mut scorer, supervision).unwrap();
    assert!(calibration.weights.unwrap().patches > 0.6 && calibration.auc > 0.99);
    assert_eq!(calibration.unlabelled, None);
    // A verifier that has seen none of it scores alike once it has adopted the calibration.
    let mut fresh = models().1.verifier.with_settings(
        Templates::default(),
        ScoreConfig { regions: Regions::Auto, ..ScoreConfig::default() },
    );
    teach(&mut fresh, &scorer.vocabulary);
    let plain = fresh.score(&images[0], "dog").unwrap();
    let text = fresh.embeddings()["dog"].clone();
    assert!((plain - cosine(&images[0].whole, &text)).abs() < 1e-12);
    fresh.apply_calibration(&calibration);
    let scores: Vec<f64> = captions
        .iter()
        .map(|caption| fresh.score(&images[caption.task], &caption.mentions[0].form).unwrap())
        .collect();
    assert!((fresh.score(&images[0], "dog").unwrap() - plain).abs() > 0.1);
    assert_eq!(scores, calibration.mentions.scores);
}

#[test]
fn three_views_calibrate_when_scores_are_not_bimodal() {
    let World { mut scorer, captions, mut images, truth } = world(0.1, 0.0);
    // The score tells a little, and each view a little else.
    for (at, image) in images.iter_mut().enumerate() {
        let text = &scorer.verifier.embeddings()[captions[at].mentions[0].form.as_str()];
        let present = f32::from(u8::from(!truth[at].is_empty()));
        let scale = 0.12 * present + 0.1 * wave(at, 0.37);
        image.whole = text.iter().map(|x| scale * x).collect();
        image.parts = vec![image.whole.clone()];
    }
    let view = |rate: f64| -> Vec<f64> {
        let value =
            |at: usize| f64::from(u8::from(!truth[at].is_empty())) + f64::from(wave(at, rate));
        (0..IMAGES).map(value).collect()
    };
    let views = MentionViews { image_drops: view(1.13), agreements: view(2.71) };
    let supervision = Supervision::None(&views);
    let calibration = calibrate(&captions, &images, &mut scorer, supervision).unwrap();
    assert_eq!(calibration.unlabelled, Some(UnlabelledFit::ThreeViews));
    assert!((calibration.prior_correct - 0.75).abs() < 0.05, "{}", calibration.prior_correct);
}
