//! Random streams, ends and budgets of sampled responses.

use fisao_models::generation::{FinishReason, Generated, Prompt, Sampling};
use fisao_models::parameters::{Parameters as _, floats};
use fisao_models::sequences::Example;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_testkit::tiny::{pixels, prompt, tiny_llava};

fn write(
    model: &VisionLanguageModel,
    stream: u64,
    samples: usize,
    sampling: &Sampling,
) -> Vec<Generated> {
    let features = model.image_features(pixels(1, 4)).unwrap();
    let prompt = Prompt { ids: prompt(&[5, 9, 12]), image: 0, stream };
    model.generate(&[prompt], &features, samples, sampling).expect("responses")
}

const SAMPLING: Sampling = Sampling { max_new_tokens: 20, temperature: 1.0, seed: 5 };

#[test]
fn seed_and_stream_determine_a_response() {
    let model = tiny_llava(3);
    let first = write(&model, 7, 3, &SAMPLING);
    assert_eq!(first, write(&model, 7, 3, &SAMPLING));
    assert_ne!(first, write(&model, 8, 3, &SAMPLING));
    assert_ne!(first, write(&model, 7, 3, &Sampling { seed: 6, ..SAMPLING }));
    assert_ne!(first[0].tokens, first[1].tokens);
    assert_ne!(first[1].tokens, first[2].tokens);
}

#[test]
fn response_ends_with_the_end_token_or_at_the_length_limit() {
    let model = tiny_llava(3);
    let end = model.tokens().eos;
    let responses = write(&model, 0, 40, &Sampling { temperature: 1.5, ..SAMPLING });
    let (mut stopped, mut cut) = (0, 0);
    for response in responses {
        assert_eq!(response.tokens.len(), response.logprobs.len());
        assert!(response.logprobs.iter().all(|&logprob| logprob <= 0.0));
        assert!(!response.text_tokens().contains(&end));
        match response.finish {
            FinishReason::Stop => {
                stopped += 1;
                assert_eq!(response.tokens.last(), Some(&end));
            }
            FinishReason::Length => {
                cut += 1;
                assert_eq!(response.tokens.len(), SAMPLING.max_new_tokens);
            }
        }
    }
    assert!(stopped > 0 && cut > 0, "{stopped} stopped, {cut} cut off");
}

#[test]
fn zero_new_tokens_give_empty_responses() {
    let model = tiny_llava(3);
    let responses = write(&model, 0, 2, &Sampling { max_new_tokens: 0, ..SAMPLING });
    assert_eq!(responses.len(), 2);
    assert!(responses.iter().all(|response| response.tokens.is_empty()));
}

#[test]
fn non_finite_logits_end_the_response_and_are_reported() {
    for (bad, temperature) in [(f32::NAN, 0.0), (f32::NAN, 1.0), (f32::INFINITY, 0.0)] {
        let mut model = tiny_llava(3);
        let mut broken = 0;
        model.visit_mut("", &mut |name, mut parameter| {
            if name.ends_with("embed_tokens.weight") {
                let count = parameter.values().len();
                parameter.set_values(vec![bad; count]);
                broken += 1;
            }
        });
        assert_eq!(broken, 1);
        let responses = write(&model, 0, 2, &Sampling { temperature, ..SAMPLING });
        assert!(responses.iter().all(|response| !response.is_finite()), "{bad} {temperature}");
        assert!(responses.iter().all(|response| response.tokens.len() == 1), "none goes on");
    }
    let healthy = write(&tiny_llava(3), 0, 2, &SAMPLING);
    assert!(healthy.iter().all(Generated::is_finite));
}

/// First tokens of many streams against the distribution they are drawn from: Pearson's χ² over
/// the tokens expected at least five times, against the 1 − 10⁻⁶ quantile (Wilson–Hilferty).
#[test]
fn first_sampled_tokens_follow_the_model_distribution() {
    const STREAMS: usize = 4000;
    let model = tiny_llava(3);
    let sampling = Sampling { max_new_tokens: 1, temperature: 0.7, seed: 1 };
    let responses = write(&model, 0, STREAMS, &sampling);
    let features = model.image_features(pixels(1, 4)).unwrap();
    let ids = prompt(&[5, 9, 12]);
    let example = Example { prompt: &ids, image: 0, response: &[0] };
    let states = model.response_states(&[example], &features);
    let expected: Vec<f64> = floats(&model.log_distribution(&states, sampling.temperature))
        .iter()
        .map(|&logprob| f64::from(logprob).exp() * STREAMS as f64)
        .collect();
    let mut counts = vec![0.0; expected.len()];
    for response in responses {
        counts[response.tokens[0] as usize] += 1.0;
    }
    let cells: Vec<_> = expected.iter().zip(&counts).filter(|(e, _)| **e >= 5.0).collect();
    let statistic: f64 = cells.iter().map(|(e, c)| (*c - *e).powi(2) / *e).sum();
    let freedom = cells.len() as f64 - 1.0;
    let spread = 2.0 / (9.0 * freedom);
    let bound = freedom * (1.0 - spread + 4.753 * spread.sqrt()).powi(3);
    assert!(freedom > 10.0 && statistic < bound, "χ² {statistic} above {bound}, {freedom} free");
}
