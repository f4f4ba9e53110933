//! Generation: a response depends on its own prompt, image and random stream, and on nothing else.

use fisao_models::generation::{FinishReason, Generated, Prompt, Sampling};
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_testkit::compare::{assert_close, largest_difference};
use fisao_testkit::tiny::{blank_pixels, pixels, prompt, tiny_llava};
use fisao_testkit::tolerance::F32_FORWARD;

const GREEDY: Sampling = Sampling { max_new_tokens: 20, temperature: 0.0, seed: 0 };
const SAMPLED: Sampling = Sampling { max_new_tokens: 20, temperature: 0.7, seed: 5 };

/// Prompts of different lengths about different images.
pub(crate) fn prompts() -> Vec<Prompt> {
    [&[5, 9, 12][..], &[7], &[3, 4, 5, 6, 8, 20, 21], &[9, 9]]
        .into_iter()
        .enumerate()
        .map(|(at, text)| Prompt { ids: prompt(text), image: at % 3, stream: at as u64 })
        .collect()
}

fn assert_same_response(actual: &Generated, expected: &Generated) {
    assert_eq!(actual.tokens, expected.tokens);
    assert_eq!(actual.finish, expected.finish);
    assert_close("log-probabilities", &actual.logprobs, &expected.logprobs, F32_FORWARD);
}

fn assert_batch_is_single(sampling: &Sampling) {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let prompts = prompts();
    let together = model.generate(&prompts, &features, 1, sampling).expect("responses");
    assert_eq!(together.len(), prompts.len());
    for (prompt, response) in prompts.iter().zip(&together) {
        let alone = model
            .generate(std::slice::from_ref(prompt), &features, 1, sampling)
            .expect("responses");
        assert_same_response(response, &alone[0]);
    }
    let lengths: Vec<_> = together.iter().map(|response| response.tokens.len()).collect();
    assert!(lengths.iter().any(|&length| length > 4), "too short to tell: {lengths:?}");
}

#[test]
fn greedy_decoding_does_not_depend_on_the_batch() {
    assert_batch_is_single(&GREEDY);
}

/// Int8 weights give nearly the same responses, not to the bit, and leave the model as it is.
#[test]
fn decoding_in_int8_is_close_and_changes_nothing_else() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let write = |model: &VisionLanguageModel| {
        model.generate(&prompts(), &features, 1, &GREEDY).expect("responses")
    };
    let exact = write(&model);
    let rounded = model.decoding_in_int8();
    assert!(rounded.decodes_in_int8() && !model.decodes_in_int8());
    let found = write(&rounded);
    assert_eq!(write(&rounded.clone()), found, "copies share the weights");
    assert_eq!(write(&model), exact);
    // As long as they say the same.
    let mut largest = 0.0_f32;
    for (found, exact) in found.iter().zip(&exact) {
        // The first token comes of the prompt, which is read with the weights as they are.
        assert_eq!(found.logprobs[0].to_bits(), exact.logprobs[0].to_bits());
        let tokens = found.tokens.iter().zip(&exact.tokens);
        let same = tokens.take_while(|(found, exact)| found == exact).count();
        let pairs = found.logprobs[..same].iter().zip(&exact.logprobs);
        largest = pairs.fold(largest, |most, (a, b)| most.max((a - b).abs()));
    }
    assert!(largest > 1e-5 && largest < 0.1, "differs by {largest}");
    let bytes = model.int8_bytes();
    assert!(bytes > 0, "{bytes}");
}

#[test]
#[should_panic(expected = "the weight has changed since it was quantised")]
fn weights_that_change_are_not_decoded_in_int8() {
    let mut model = tiny_llava(3).decoding_in_int8();
    let features = model.image_features(pixels(3, 4)).unwrap();
    model.visit_linears_mut(&mut |_, linear| linear.weight = linear.weight.clone() * 2.0);
    let _ = model.generate(&prompts(), &features, 1, &GREEDY);
}

#[test]
fn sampling_does_not_depend_on_the_batch() {
    assert_batch_is_single(&SAMPLED);
}

/// Rows leave the batch as they end; the others must not notice.
#[test]
fn decoding_continues_after_other_responses_end() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let sampling = Sampling { max_new_tokens: 40, temperature: 1.5, seed: 2 };
    let together = model.generate(&prompts(), &features, 4, &sampling).expect("responses");
    let ended: Vec<_> = together.iter().map(|response| response.tokens.len()).collect();
    assert!(ended.iter().any(|&length| length < 10), "{ended:?}");
    assert!(ended.iter().any(|&length| length > 20), "{ended:?}");
    let prompts = prompts();
    for (at, prompt) in prompts.iter().enumerate() {
        let alone = model
            .generate(std::slice::from_ref(prompt), &features, 4, &sampling)
            .expect("responses");
        for (sample, response) in alone.iter().enumerate() {
            assert_same_response(&together[at * 4 + sample], response);
        }
    }
}

/// The distribution before each token, computed without a cache over the whole sequence.
fn recompute(
    model: &VisionLanguageModel,
    prompt: &Prompt,
    response: &Generated,
    temperature: f64,
) -> Vec<f32> {
    let features = model.image_features(pixels(3, 4)).unwrap();
    let example = Example { prompt: &prompt.ids, image: prompt.image, response: &response.tokens };
    let states = model.response_states(&[example], &features);
    floats(&model.log_distribution(&states, temperature))
}

#[test]
fn cached_decoding_equals_full_forward() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let prompts = prompts();
    let responses = model.generate(&prompts, &features, 1, &GREEDY).expect("responses");
    let vocabulary = model.language_model().config().vocab_size;
    for (prompt, response) in prompts.iter().zip(&responses) {
        let rows = recompute(&model, prompt, response, 1.0);
        let best: Vec<(u32, f32)> = rows
            .chunks_exact(vocabulary)
            .map(|row| {
                let best = (0..vocabulary).max_by(|&a, &b| row[a].total_cmp(&row[b]));
                let best = best.expect("a vocabulary");
                (best as u32, row[best])
            })
            .collect();
        let tokens: Vec<u32> = best.iter().map(|&(token, _)| token).collect();
        let logprobs: Vec<f32> = best.iter().map(|&(_, logprob)| logprob).collect();
        assert_eq!(response.tokens, tokens);
        assert_close("log-probabilities", &response.logprobs, &logprobs, F32_FORWARD);
    }
}

/// Before any update the importance ratio of policy optimisation is exp(0) = 1 for every token.
#[test]
fn training_log_probabilities_equal_the_samplers() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let prompts = prompts();
    let responses = model.generate(&prompts, &features, 2, &SAMPLED).expect("responses");
    let examples: Vec<_> = responses
        .iter()
        .enumerate()
        .map(|(at, response)| Example {
            prompt: &prompts[at / 2].ids,
            image: prompts[at / 2].image,
            response: &response.tokens,
        })
        .collect();
    let states = model.response_states(&examples, &features);
    let (logprobs, entropy) = model.log_probabilities(&states, SAMPLED.temperature);
    let sampled: Vec<f32> =
        responses.iter().flat_map(|response| response.logprobs.iter().copied()).collect();
    assert_close("log-probabilities", &floats(&logprobs), &sampled, F32_FORWARD);
    let (other, _) = model.log_probabilities(&states, 1.0);
    assert!(largest_difference(&floats(&other), &sampled) > 0.1, "the temperature must matter");
    let distribution = floats(&model.log_distribution(&states, SAMPLED.temperature));
    let expected: Vec<f32> = distribution
        .chunks_exact(model.language_model().config().vocab_size)
        .map(|row| row.iter().map(|&logprob| -logprob.exp() * logprob).sum())
        .collect();
    assert_close("entropy", &floats(&entropy), &expected, F32_FORWARD);
}

/// A sampled response may hold the image placeholder; it is a token like any other there.
#[test]
fn image_placeholder_in_a_response_is_an_ordinary_token() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let image = model.tokens().image;
    let sampling = Sampling { temperature: 2.0, max_new_tokens: 30, seed: 1 };
    let (prompts, samples) = (prompts(), 8);
    let responses = model.generate(&prompts, &features, samples, &sampling).expect("responses");
    let mut found = 0;
    for (at, response) in responses.iter().enumerate() {
        let before_last = &response.tokens[..response.tokens.len() - 1];
        if before_last.contains(&image) {
            found += 1;
            let prompt = &prompts[at / samples];
            let example =
                Example { prompt: &prompt.ids, image: prompt.image, response: &response.tokens };
            let states = model.response_states(&[example], &features);
            let (logprobs, _) = model.log_probabilities(&states, sampling.temperature);
            let logprobs = floats(&logprobs);
            assert_close("log-probabilities", &logprobs, &response.logprobs, F32_FORWARD);
        }
    }
    assert!(found > 0, "no response holds a placeholder");
}

#[test]
fn scoring_does_not_depend_on_the_batch() {
    let model = tiny_llava(6);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let prompts = prompts();
    let responses = [vec![4, 2], vec![9, 8, 7, 6, 5], vec![2], vec![11, 12, 13]];
    let example = |at: usize| Example {
        prompt: &prompts[at].ids,
        image: prompts[at].image,
        response: &responses[at],
    };
    let score = |examples: &[Example<'_>]| {
        floats(&model.log_probabilities(&model.response_states(examples, &features), 1.0).0)
    };
    let together = score(&[example(0), example(1), example(2), example(3)]);
    let alone: Vec<f32> = (0..4).flat_map(|at| score(&[example(at)])).collect();
    assert_close("log-probabilities", &together, &alone, F32_FORWARD);
}

/// Prompts of several lengths, one of them about two images; responses down to a single token.
#[test]
fn responses_in_one_row_have_the_states_of_rows_of_their_own() {
    let model = tiny_llava(6);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let prompts = prompts();
    let responses: [&[u32]; 7] =
        [&[4, 2], &[9, 8, 7, 6, 5], &[2], &[11, 12, 13], &[7, 7], &[2], &[5, 11, 4, 2]];
    let asked = [(0, 0), (0, 0), (0, 0), (1, 1), (1, 2), (1, 2), (0, 0)];
    let all: Vec<Example<'_>> = asked
        .into_iter()
        .zip(responses)
        .map(|((prompt, image), response)| Example {
            prompt: &prompts[prompt].ids,
            image,
            response,
        })
        .collect();
    for examples in [&all[..], &all[4..6], &all[2..3], &[all[2].clone(), all[2].clone()]] {
        let once = model.response_states(examples, &features);
        let each: Vec<_> = examples
            .chunks(1)
            .map(|example| model.response_states(example, &features))
            .map(|alone| (floats(&alone.hidden), alone.targets))
            .collect();
        let (states, targets): (Vec<_>, Vec<_>) = each.into_iter().unzip();
        assert_eq!(once.targets, targets.concat());
        assert_close("states", &floats(&once.hidden), &states.concat(), F32_FORWARD);
    }
}

#[test]
fn blanking_the_image_changes_the_logits() {
    let model = tiny_llava(3);
    let ids = prompt(&[5, 9, 12]);
    let response = [4, 7, 2];
    let distribution = |features| {
        let example = Example { prompt: &ids, image: 0, response: &response };
        floats(&model.log_distribution(&model.response_states(&[example], &features), 1.0))
    };
    let seen = distribution(model.image_features(pixels(1, 4)).unwrap());
    let blank = distribution(model.image_features(blank_pixels(1)).unwrap());
    let difference = largest_difference(&seen, &blank);
    assert!(difference > 0.05, "the image is not looked at: logits move by {difference}");
}

#[test]
fn each_prompt_attends_to_its_own_image() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(2, 4)).unwrap();
    let prompt = |image| Prompt { ids: prompt(&[5, 9, 12]), image, stream: 0 };
    let swapped =
        model.generate(&[prompt(1), prompt(0)], &features, 1, &GREEDY).expect("responses");
    let ordered =
        model.generate(&[prompt(0), prompt(1)], &features, 1, &GREEDY).expect("responses");
    assert_eq!(ordered[0].tokens, swapped[1].tokens);
    assert_eq!(ordered[1].tokens, swapped[0].tokens);
    assert_ne!(ordered[0].logprobs, ordered[1].logprobs);
}

#[test]
fn text_tokens_exclude_only_the_end_token() {
    let stopped = Generated {
        tokens: vec![5, 6, 2],
        logprobs: vec![-1.0, -1.0, -0.5],
        finish: FinishReason::Stop,
    };
    assert_eq!(stopped.text_tokens(), [5, 6]);
    let cut = Generated { finish: FinishReason::Length, ..stopped.clone() };
    assert_eq!(cut.text_tokens(), [5, 6, 2]);
    let silent = Generated { tokens: vec![2], logprobs: vec![-1.0], ..stopped };
    assert!(silent.text_tokens().is_empty());
}

/// Bits of the log-probabilities, with everything else.
fn bits(responses: &[Generated]) -> Vec<(&[u32], Vec<u32>, FinishReason)> {
    let bits = |response: &Generated| response.logprobs.iter().map(|x| x.to_bits()).collect();
    responses.iter().map(|one| (&*one.tokens, bits(one), one.finish)).collect()
}

#[test]
fn stepwise_decoding_equals_generate_bitwise() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let (prompts, samples) = (prompts(), 4);
    for sampling in [GREEDY, Sampling { max_new_tokens: 40, temperature: 1.5, seed: 2 }] {
        let whole = model.generate(&prompts, &features, samples, &sampling).expect("responses");
        let settings = vec![sampling; prompts.len()];
        let mut decoding =
            model.start_decoding(&prompts, &features, samples, &settings).expect("prompts");
        let mut steps = 0;
        loop {
            let open: Vec<usize> = decoding.open().collect();
            let lengths = (0..whole.len()).map(|slot| decoding.response(slot).tokens.len());
            for (slot, length) in lengths.enumerate() {
                let written = &whole[slot].tokens;
                assert_eq!(length, written.len().min(steps + 1));
                assert_eq!(decoding.response(slot).tokens, written[..length]);
                assert_eq!(open.contains(&slot), length < written.len());
            }
            assert_eq!(decoding.step().expect("a step"), !open.is_empty());
            if open.is_empty() {
                break;
            }
            steps += 1;
        }
        assert!(steps > 10, "too few to tell: {steps}");
        assert!(!decoding.step().expect("a step"), "nothing is open");
        assert!(bits(&decoding.into_responses()) == bits(&whole), "other responses");
    }
}

#[test]
fn rows_with_settings_of_their_own_equal_those_generated_alone() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let prompts = prompts();
    let settings = [
        Sampling { max_new_tokens: 7, temperature: 1.5, seed: 2 },
        Sampling { max_new_tokens: 0, ..GREEDY },
        Sampling { max_new_tokens: 25, ..GREEDY },
        Sampling { max_new_tokens: 40, temperature: 0.7, seed: 9 },
    ];
    let mut decoding = model.start_decoding(&prompts, &features, 3, &settings).expect("prompts");
    while decoding.step().expect("a step") {}
    let together = decoding.into_responses();
    for (at, (prompt, sampling)) in prompts.iter().zip(&settings).enumerate() {
        let alone = model
            .generate(std::slice::from_ref(prompt), &features, 3, sampling)
            .expect("responses");
        for (sample, response) in alone.iter().enumerate() {
            assert_same_response(&together[at * 3 + sample], response);
        }
    }
    assert!(together[3].tokens.is_empty());
    assert!(together.iter().any(|response| response.tokens.len() > 20), "too short to tell");
    assert!(together[..3].iter().any(|response| response.tokens.len() == 7), "none is truncated");
}

#[test]
fn closing_a_response_leaves_the_others_unchanged() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let prompts = prompts();
    let sampling = Sampling { max_new_tokens: 40, temperature: 1.5, seed: 2 };
    let whole = model.generate(&prompts, &features, 2, &sampling).expect("responses");
    let (longest, _) = whole.iter().enumerate().max_by_key(|(_, one)| one.tokens.len()).unwrap();
    let (ended, _) = whole.iter().enumerate().min_by_key(|(_, one)| one.tokens.len()).unwrap();
    let settings = vec![sampling; prompts.len()];
    let mut decoding = model.start_decoding(&prompts, &features, 2, &settings).expect("prompts");
    for _ in 0..9 {
        decoding.step().expect("a step");
    }
    decoding.close(longest).expect("a step");
    decoding.close(longest).expect("a step");
    decoding.close(ended).expect("a step");
    assert!(decoding.open().all(|slot| slot != longest));
    while decoding.step().expect("a step") {}
    for (slot, (found, expected)) in decoding.into_responses().iter().zip(&whole).enumerate() {
        if slot == longest {
            assert_eq!(found.tokens, expected.tokens[..10]);
            assert_eq!(found.finish, FinishReason::Length);
        } else {
            assert_same_response(found, expected);
        }
    }
}

#[test]
fn decoding_of_no_prompts_is_over_at_once() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(1, 4)).unwrap();
    let mut decoding = model.start_decoding(&[], &features, 2, &[]).expect("prompts");
    assert!(!decoding.step().expect("a step"));
    assert!(decoding.into_responses().is_empty());
}

/// Writes greedy responses, one of which is taken back to `left` tokens once it has `written`, with its token there banned.
fn rewound(slot: usize, written: usize, left: usize) -> (Vec<Generated>, Vec<Generated>, u32) {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let prompts = prompts();
    let whole = model.generate(&prompts, &features, 1, &GREEDY).expect("responses");
    let banned = whole[slot].tokens[left];
    let settings = vec![GREEDY; prompts.len()];
    let mut decoding = model.start_decoding(&prompts, &features, 1, &settings).expect("prompts");
    while decoding.response(slot).tokens.len() < written {
        assert!(decoding.step().expect("a step"));
    }
    decoding.rewind(slot, left, &[banned]);
    assert!(decoding.is_open(slot));
    while decoding.step().expect("a step") {}
    (decoding.into_responses(), whole, banned)
}

/// The longest response of those that [`rewound`] writes, and the last token of it that is not the end token.
fn longest() -> (usize, usize) {
    let model = tiny_llava(3);
    let whole = model
        .generate(&prompts(), &model.image_features(pixels(3, 4)).unwrap(), 1, &GREEDY)
        .expect("responses");
    let lengths = whole.iter().map(|response| response.tokens.len()).enumerate();
    lengths.max_by_key(|&(_, length)| length).expect("responses")
}

#[test]
fn rewound_response_takes_the_most_likely_token_that_is_not_banned() {
    let model = tiny_llava(3);
    let vocabulary = model.language_model().config().vocab_size;
    let (slot, length) = longest();
    assert!(length > 6, "too short to tell");
    for (written, left) in [(5, 3), (6, 1), (4, 3), (3, 0), (1, 0), (length, 2)] {
        let (found, whole, banned) = rewound(slot, written, left);
        let response = &found[slot];
        assert_eq!(response.tokens[..left], whole[slot].tokens[..left]);
        assert_ne!(response.tokens[left], banned);
        let rows = recompute(&model, &prompts()[slot], response, 1.0);
        for (at, row) in rows.chunks_exact(vocabulary).enumerate() {
            let allowed = |token: &usize| at != left || *token != banned as usize;
            let best = (0..vocabulary).filter(allowed).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            let best = best.expect("a vocabulary");
            let taken = if at == left { row[banned as usize].exp() } else { 0.0 };
            assert_eq!(response.tokens[at] as usize, best, "({written}, {left}), token {at}");
            let expected = row[best] - (1.0 - taken).ln();
            assert_close("log-probability", &[response.logprobs[at]], &[expected], F32_FORWARD);
        }
        for other in (0..whole.len()).filter(|&other| other != slot) {
            assert_same_response(&found[other], &whole[other]);
        }
    }
}

#[test]
fn rewound_response_without_banned_tokens_is_written_again() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let prompts = prompts();
    let whole = model.generate(&prompts, &features, 1, &GREEDY).expect("responses");
    let settings = vec![GREEDY; prompts.len()];
    let mut decoding = model.start_decoding(&prompts, &features, 1, &settings).expect("prompts");
    let mut rewinds = 0;
    // All of them, by different numbers of tokens, at different times, and after their end.
    let mut due: Vec<usize> = (0..prompts.len()).collect();
    loop {
        due.retain(|&slot| {
            let length = decoding.response(slot).tokens.len();
            let is_due = length >= 3 + 2 * slot || !decoding.is_open(slot);
            if is_due {
                decoding.rewind(slot, length.saturating_sub(2 + slot), &[]);
                rewinds += 1;
            }
            !is_due
        });
        if !decoding.step().expect("a step") {
            break;
        }
    }
    assert_eq!(rewinds, prompts.len());
    for (found, expected) in decoding.into_responses().iter().zip(&whole) {
        assert_same_response(found, expected);
    }
}

#[test]
fn sampling_never_draws_a_banned_token() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let prompts = prompts();
    let vocabulary = model.language_model().config().vocab_size as u32;
    let settings = vec![Sampling { temperature: 3.0, ..SAMPLED }; prompts.len()];
    let mut decoding = model.start_decoding(&prompts, &features, 2, &settings).expect("prompts");
    let allowed = [7, 9, 11];
    let banned: Vec<u32> = (0..vocabulary).filter(|id| !allowed.contains(id)).collect();
    let mut drawn = std::collections::BTreeSet::new();
    for _ in 0..8 {
        for slot in 0..2 * prompts.len() {
            decoding.rewind(slot, 0, &banned);
            let response = decoding.response(slot);
            assert!(allowed.contains(&response.tokens[0]), "{response:?}");
            assert!(response.is_finite());
            drawn.insert(response.tokens[0]);
        }
    }
    assert_eq!(drawn.len(), allowed.len(), "all that are allowed are drawn");
}

#[test]
#[should_panic(expected = "before the step after its end")]
fn closed_response_is_not_rewound() {
    let model = tiny_llava(3);
    let features = model.image_features(pixels(3, 4)).unwrap();
    let prompts = prompts();
    let settings = vec![GREEDY; prompts.len()];
    let mut decoding = model.start_decoding(&prompts, &features, 1, &settings).expect("prompts");
    decoding.step().expect("a step");
    decoding.close(1).expect("a step");
    decoding.rewind(1, 0, &[]);
}
