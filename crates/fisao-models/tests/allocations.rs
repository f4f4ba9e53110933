//! A step of decoding allocates nothing: a response of many tokens takes as many allocations as one of a few.

#![expect(unsafe_code, reason = "an allocator is counted by standing before it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{DType, Device};
use fisao_models::generation::{Generated, Prompt, Sampling};
use fisao_models::linear::ActivationDtype;
use fisao_models::lora::LoraConfig;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::weights::RandomWeights;
use fisao_testkit::tiny::{RoundedWeights, llava_config, pixels, prompt};

/// The system's allocator with a count of what it was asked for, by all threads.
struct Counted;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system's own.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTED: Counted = Counted;

/// A model that never ends a response, with matrices large enough to be shared among threads.
fn model(dtype: DType, rounds: bool) -> VisionLanguageModel {
    let mut config = llava_config();
    config.tokens.eos = u32::MAX;
    config.text.hidden_size = 256;
    config.text.intermediate_size = 2100;
    config.text.num_attention_heads = 8;
    config.text.head_dim = 32;
    config.text.vocab_size = 3000;
    let mut weights = RoundedWeights { weights: RandomWeights::new(3), dtype, widened: false };
    let mut model =
        VisionLanguageModel::load(config, &mut weights, &Device::flex()).expect("any weights");
    if rounds {
        model.set_activation_dtype(ActivationDtype::Bf16);
    }
    model
}

fn generated(model: &VisionLanguageModel, responses: usize, length: usize) -> Vec<Generated> {
    let features = model.image_features(pixels(1, 4)).unwrap();
    let prompt = Prompt { ids: prompt(&[5, 9, 12]), image: 0, stream: 0 };
    let sampling = Sampling { max_new_tokens: length, temperature: 1.0, seed: 1 };
    model.generate(&[prompt], &features, responses, &sampling).expect("responses")
}

/// What responses of so many tokens take: the fewest of some tries, as threads come by something of their own now and then.
fn allocations(model: &VisionLanguageModel, responses: usize, length: usize) -> usize {
    let once = || {
        let before = COUNT.load(Ordering::Relaxed);
        let found = generated(model, responses, length);
        assert!(found.iter().all(|one| one.tokens.len() == length), "responses of one length");
        COUNT.load(Ordering::Relaxed) - before
    };
    (0..4).map(|_| once()).min().expect("several tries")
}

/// One test: the count is everybody's.
#[test]
fn decoding_step_does_not_allocate() {
    const SHORT: usize = 3;
    const LONG: usize = 30;
    let exact =
        [(DType::F32, false), (DType::BF16, false), (DType::BF16, true), (DType::F16, false)];
    let int8 = [(DType::BF16, false, true), (DType::BF16, true, true)];
    for (dtype, rounds, int8) in
        exact.map(|(dtype, rounds)| (dtype, rounds, false)).into_iter().chain(int8)
    {
        let plain = model(dtype, rounds);
        let mut adapted = plain.clone();
        adapted.add_lora(&LoraConfig::default(), 1).expect("all targets exist");
        for (adapters, model) in [(false, plain), (true, adapted)] {
            let model = if int8 { model.decoding_in_int8() } else { model };
            // A response, a few, and more than meet a matrix at once; by all threads and by one.
            for responses in [1, 5, 48] {
                let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
                let both = || [SHORT, LONG].map(|length| allocations(&model, responses, length));
                let (by_all, by_one) = (both(), one.install(both));
                for (threads, [short, long]) in [("all", by_all), ("one", by_one)] {
                    let what =
                        format!("{dtype:?}, rounding {rounds}, int8 {int8}, adapters {adapters}");
                    // One in every other step would be that many.
                    let more = long.saturating_sub(short);
                    assert!(
                        more < (LONG - SHORT) / 2,
                        "{what}: {more} more for {responses} longer responses by {threads}"
                    );
                }
            }
        }
    }
}
