//! Settings that suit a model and its images, where nothing else is asked for.

use fisao_align::AlignConfig;
use fisao_align::objective::Objective;
use fisao_align::ppo::PpoConfig;
use fisao_models::llama::LlamaConfig;

/// Elements of a decoder's matrices from which on it counts as large: a layer's activations take more memory than its weights.
const LARGE: usize = 1_000_000_000;

/// Settings of a run that calibrates itself, of so many `iterations`; `images` is how many it may train on.
///
/// | | below a billion elements | from there on |
/// |---|---|---|
/// | images per iteration | 64 | 32 |
/// | responses differentiated at once by a core | 8 | 2 |
/// | gradient checkpointing | no | yes |
///
/// For all of them: one response an image, an adapter of rank 16, the learning rate of the decoder's size, and, as the demo has
/// measured them with verifiers of any strength, two iterations of warm-up and λ = 0.8.
pub(super) fn for_model(
    base: AlignConfig,
    decoder: &LlamaConfig,
    (iterations, images): (usize, usize),
) -> AlignConfig {
    let elements = decoder.matrix_elements();
    let mut config = base.for_decoder(elements);
    let (per_iteration, micro_batch) = if elements < LARGE { (64, 8) } else { (32, 2) };
    let align = &mut config.align;
    align.images_per_iteration = per_iteration.min(images).max(1);
    align.minibatches = align.minibatches.min(align.images_per_iteration);
    align.micro_batch = micro_batch;
    align.gradient_checkpointing = elements >= LARGE;
    align.warmup_iterations = iterations.saturating_sub(1).min(2);
    config.objective = Objective::Ppo(PpoConfig { lambda: 0.8, ..PpoConfig::default() });
    config
}
