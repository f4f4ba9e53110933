//! Phrases as written, in calibration and training.

use fisao_align::RunControl;
use fisao_align::captions::describe_all;
use fisao_align::centring::{centre, mismatched_scores};
use fisao_align::mentions::ScoredResponse;
use fisao_models::generation::Sampling;
use fisao_testkit::tiny_policy::{Noise, models};
use fisao_verifier::regions::{ScoreConfig, Wording};
use fisao_verifier::templates::Templates;

/// What describing adds by itself is measured on other images and taken away; undescribed mentions keep the centres of their names.
#[test]
fn descriptions_have_a_centre_of_their_own() {
    let (policy, mut scorer) = models();
    let score = ScoreConfig { wording: Wording::Phrase, ..ScoreConfig::default() };
    scorer.verifier = scorer.verifier.with_settings(Templates::default(), score);
    scorer.verifier.learn(&scorer.vocabulary).unwrap();
    let sampling = Sampling { max_new_tokens: 40, temperature: 1.0, seed: 0 };
    let (captions, images) = describe_all(
        &policy,
        &mut scorer,
        &Noise,
        64,
        &sampling,
        RunControl::new(&|_| ()),
        &mut |_| (),
    )
    .unwrap();
    // "red dog" and "big cat" come up by chance.
    let part = |described: bool| -> Vec<ScoredResponse> {
        let keep = |caption: &ScoredResponse| {
            let mut caption = caption.clone();
            let keeps = caption.mentions.iter().map(|it| it.description.is_some() == described);
            let mut keeps = keeps.collect::<Vec<_>>().into_iter();
            caption.mentions.retain(|_| keeps.next().unwrap());
            caption
        };
        captions.iter().map(keep).collect()
    };
    let count = |captions: &[ScoredResponse]| -> usize {
        captions.iter().map(|caption| caption.mentions.len()).sum()
    };
    assert!(count(&part(true)) > 3 && count(&part(false)) > 3, "{captions:?}");

    let (verifier, vocabulary) = (&mut scorer.verifier, &scorer.vocabulary);
    let found = centre(&part(true), &images, verifier, vocabulary).unwrap();
    assert!(found.described.unwrap().abs() > 1e-6);
    let left = mismatched_scores(&part(true), &images, verifier).unwrap();
    let mean = left.iter().sum::<f64>() / left.len() as f64;
    assert!(mean.abs() < 1e-12, "{mean}");
    assert_eq!(centre(&part(false), &images, verifier, vocabulary).unwrap().described, None);
}
