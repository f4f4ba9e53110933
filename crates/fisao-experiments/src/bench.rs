//! Workloads that tell how fast a machine does what alignment consists of.
//!
//! A case is a piece of work of fixed size on drawn weights, or on the embedded models; what it costs in
//! multiply-adds and bytes is known, so that its speed can be set against what the machine can do at
//! best. `benches/pytorch/works.py` does the same work under the same names in PyTorch.

mod iteration;
mod measure;
mod models;
mod products;
mod works;

use fisao_models::llama::LlamaConfig;
use fisao_models::vision::VisionConfig;

pub use measure::{Measured, Repetitions, measure};
use models::Held;
pub use works::{DECODED, PROMPT};
use works::{Decoding, Step};

/// Name of the case that finds the arithmetic ceiling.
pub const ARITHMETIC: &str = "ceiling-arithmetic";
/// Name of the case that finds the memory's ceiling.
pub const MEMORY: &str = "ceiling-memory";

/// What one repetition of a case does.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Things of `unit`.
    pub count: f64,
    /// What is counted.
    pub unit: &'static str,
    /// Floating-point operations of its products, two to a multiply-add; 0 where they are not what it is about.
    pub flops: f64,
    /// Bytes that have to be read, where that bounds it; else 0.
    pub bytes: f64,
}

type Work = Box<dyn Fn(&mut Repetitions) -> anyhow::Result<Amount>>;

/// A piece of work.
pub struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// Takes minutes or gigabytes.
    pub heavy: bool,
    /// Runs elsewhere than on the CPU, too.
    pub portable: bool,
    work: Work,
}

impl Case {
    fn new(
        name: &'static str,
        about: &'static str,
        work: impl Fn(&mut Repetitions) -> anyhow::Result<Amount> + 'static,
    ) -> Self {
        Self { name, about, heavy: false, portable: false, work: Box::new(work) }
    }

    fn heavy(self) -> Self {
        Self { heavy: true, ..self }
    }

    fn portable(self) -> Self {
        Self { portable: true, ..self }
    }
}

/// All cases, the ceilings first.
pub fn catalogue() -> Vec<Case> {
    let mut cases = vec![
        Case::new(ARITHMETIC, "product of two 1024 × 1024 matrices, f32", products::large),
        Case::new(MEMORY, "sum over 1 GiB on all cores", |r| Ok(products::memory(r))),
        Case::new("product-1-f32", "1 row by 4096 × 4096, f32", |r| {
            products::rows(r, 1, Held::F32)
        }),
        Case::new("product-1-bf16", "1 row by 4096 × 4096, bf16", |r| {
            products::rows(r, 1, Held::Bf16)
        }),
        Case::new("product-4-f32", "4 rows by 4096 × 4096, f32", |r| {
            products::rows(r, 4, Held::F32)
        }),
        Case::new("product-4-bf16", "4 rows by 4096 × 4096, bf16", |r| {
            products::rows(r, 4, Held::Bf16)
        }),
        Case::new(
            "product-16-f32",
            "16 rows by 192 × 512, f32, as the embedded model decodes",
            |r| products::small(r, 16),
        ),
    ];
    cases.extend(decoding());
    cases.extend(training());
    cases.extend(encoding());
    cases.extend([
        Case::new(
            "verify-embedded",
            "64 images and 4 words each through the embedded verifier",
            iteration::verify,
        ),
        Case::new(
            "iteration-ppo",
            "sample, verify and update: 64 images, a response each, PPO",
            |r| iteration::iterations(r, &iteration::ppo()),
        ),
        Case::new(
            "iteration-group",
            "sample, verify and update: 16 images, 4 responses each, without a critic",
            |r| iteration::iterations(r, &iteration::group()),
        ),
    ]);
    cases
}

/// Image encoders of published models.
fn encoding() -> Vec<Case> {
    type Tower = ([&'static str; 3], &'static str, fn() -> VisionConfig);
    let towers: [Tower; 3] = [
        (
            ["encode-vit-l-336-f32", "encode-vit-l-336-bf16", "encode-vit-l-336-bf16-rounded"],
            "8 images through CLIP ViT-L/14-336, f32",
            models::clip_large,
        ),
        (
            ["encode-vit-g-224-f32", "encode-vit-g-224-bf16", "encode-vit-g-224-bf16-rounded"],
            "8 images through EVA ViT-g/14-224, f32",
            models::eva_giant,
        ),
        (
            ["encode-so400m-384-f32", "encode-so400m-384-bf16", "encode-so400m-384-bf16-rounded"],
            "8 images through SigLIP so400m/14-384, f32",
            models::siglip_so400m,
        ),
    ];
    let of_tower = |(names, about, config): Tower| {
        in_each_form(names, about, move |r, held| works::encode(r, &config(), works::IMAGES, held))
    };
    let mut cases: Vec<Case> = towers.into_iter().flat_map(of_tower).collect();
    // Beside onnxruntime: the towers of most contrastive checkpoints, one image at a time and eight.
    let in_f32 = |name, about, config: fn() -> VisionConfig, images| {
        Case::new(name, about, move |r| works::encode(r, &config(), images, Held::F32))
    };
    cases.extend([
        in_f32(
            "encode-1-vit-b-32-224-f32",
            "1 image through CLIP ViT-B/32, f32",
            models::clip_base,
            1,
        ),
        in_f32("encode-vit-b-32-224-f32", "8 images, the same", models::clip_base, works::IMAGES),
        in_f32(
            "encode-1-siglip-b-16-224-f32",
            "1 image through SigLIP B/16-224, f32",
            models::siglip_base,
            1,
        ),
        in_f32(
            "encode-siglip-b-16-224-f32",
            "8 images, the same",
            models::siglip_base,
            works::IMAGES,
        ),
        in_f32(
            "encode-1-vit-l-336-f32",
            "1 image through CLIP ViT-L/14-336, f32",
            models::clip_large,
            1,
        ),
    ]);
    cases.extend(in_each_form(
        ["encode-qformer-f32", "encode-qformer-bf16", "encode-qformer-bf16-rounded"],
        "8 images and instructions through InstructBLIP's Q-Former, f32",
        works::qformer,
    ));
    cases
}

/// A case with weights in f32, in bf16, and with activations rounded to bf16, too.
fn in_each_form(
    [full, half, rounded]: [&'static str; 3],
    about: &'static str,
    work: impl Fn(&mut Repetitions, Held) -> anyhow::Result<Amount> + Copy + 'static,
) -> [Case; 3] {
    [
        Case::new(full, about, move |r| work(r, Held::F32)),
        Case::new(half, "the same, bf16", move |r| work(r, Held::Bf16)),
        Case::new(rounded, "the same, activations rounded to bf16, too", move |r| {
            work(r, Held::Bf16Rounded)
        }),
    ]
}

fn decoding() -> Vec<Case> {
    let case = |name, about, config: fn() -> LlamaConfig, batch, held| {
        Case::new(name, about, move |r| {
            works::decode(r, Decoding { config: config(), batch, held, in_int8: false })
        })
        .portable()
    };
    let in_int8 = |name, about, config: fn() -> LlamaConfig, batch| {
        Case::new(name, about, move |r| {
            let held = Held::Bf16;
            works::decode(r, Decoding { config: config(), batch, held, in_int8: true })
        })
    };
    vec![
        case(
            "decode-embedded-32",
            "32 responses by a decoder of the embedded model's size, f32",
            models::embedded,
            32,
            Held::F32,
        ),
        case(
            "decode-1024-1-f32",
            "1 response, d = 1024, 8 layers, f32",
            models::middle,
            1,
            Held::F32,
        ),
        case("decode-1024-4-f32", "4 responses, the same", models::middle, 4, Held::F32),
        case("decode-1024-1-bf16", "1 response, the same, bf16", models::middle, 1, Held::Bf16),
        case("decode-1024-4-bf16", "4 responses, the same, bf16", models::middle, 4, Held::Bf16),
        case(
            "decode-1024-1-bf16-rounded",
            "1 response, the same, activations rounded to bf16, too",
            models::middle,
            1,
            Held::Bf16Rounded,
        ),
        case(
            "decode-1024-4-bf16-rounded",
            "4 responses, the same",
            models::middle,
            4,
            Held::Bf16Rounded,
        ),
        case("decode-1024-64-f32", "64 responses, the same, f32", models::middle, 64, Held::F32)
            .heavy(),
        case("decode-1024-64-bf16", "64 responses, the same, bf16", models::middle, 64, Held::Bf16)
            .heavy(),
        case(
            "decode-7b-1-bf16",
            "1 response, LLaVA-1.5-7B's size, bf16",
            models::seven,
            1,
            Held::Bf16,
        )
        .heavy(),
        case("decode-7b-32-bf16", "32 responses, the same", models::seven, 32, Held::Bf16).heavy(),
        in_int8(
            "decode-1024-1-int8",
            "1 response, d = 1024, 8 layers, int8 weights",
            models::middle,
            1,
        ),
        in_int8("decode-1024-4-int8", "4 responses, the same", models::middle, 4),
        in_int8(
            "decode-7b-1-int8",
            "1 response, LLaVA-1.5-7B's size, int8 weights",
            models::seven,
            1,
        )
        .heavy(),
        in_int8("decode-7b-4-int8", "4 responses, the same", models::seven, 4).heavy(),
        case("decode-7b-4-bf16", "4 responses, the same, bf16", models::seven, 4, Held::Bf16)
            .heavy(),
    ]
}

fn training() -> Vec<Case> {
    let case = |name, about, step: fn() -> Step| {
        Case::new(name, about, move |r| works::train(r, &step())).portable()
    };
    vec![
        case(
            "train-256",
            "step of all parameters, d = 256, 4 layers, 16 × 96 tokens, f32",
            || Step {
                config: models::small(),
                batch: 16,
                length: 96,
                prompt: 2,
                group: 1,
                adapter: false,
                gradient_checkpointing: false,
                held: Held::F32,
            },
        ),
        case(
            "lora-1024-f32",
            "step of an adapter, d = 1024, 8 layers, 2 × 256 tokens, f32",
            || adapter(256, false, Held::F32),
        ),
        case("lora-1024-f32-long", "the same, 2 × 1024 tokens", || {
            adapter(1024, false, Held::F32)
        }),
        case(
            "lora-1024-f32-long-recomputed",
            "the same, layers recomputed in the backward pass",
            || adapter(1024, true, Held::F32),
        ),
        case("lora-1024-bf16", "the step of 2 × 256 tokens on a bf16 base", || {
            adapter(256, false, Held::Bf16)
        }),
        case("lora-1024-bf16-rounded", "the same, activations rounded to bf16, too", || {
            adapter(256, false, Held::Bf16Rounded)
        }),
        case("lora-7b-bf16", "the same, LLaVA-1.5-7B's size", || Step {
            config: models::seven(),
            ..adapter(256, false, Held::Bf16)
        })
        .heavy(),
        case(
            "lora-1024-rows-f32",
            "step of an adapter, d = 1024, 8 layers, 8 × 716 tokens, the last 100 learned from, f32",
            || responses(models::middle, 8, 1, Held::F32),
        ),
        case("lora-1024-groups-f32", "the same, in groups of four with the same prompt", || {
            responses(models::middle, 8, 4, Held::F32)
        }),
        case("lora-7b-rows-bf16", "4 × 716 tokens, LLaVA-1.5-7B's size, recomputed, bf16", || {
            responses(models::seven, 4, 1, Held::Bf16)
        })
        .heavy(),
        case("lora-7b-groups-bf16", "the same, a group of four with the same prompt", || {
            responses(models::seven, 4, 4, Held::Bf16)
        })
        .heavy(),
    ]
}

/// An adapter's step on two sequences.
fn adapter(length: usize, gradient_checkpointing: bool, held: Held) -> Step {
    Step {
        config: models::middle(),
        batch: 2,
        length,
        prompt: 2,
        group: 1,
        adapter: true,
        gradient_checkpointing,
        held,
    }
}

/// An adapter's step on responses of 100 tokens to prompts of LLaVA-1.5's length, a `group` to each; layers are recomputed.
fn responses(config: fn() -> LlamaConfig, batch: usize, group: usize, held: Held) -> Step {
    Step { config: config(), batch, group, prompt: 616, ..adapter(716, true, held) }
}

/// Cases by name or the beginning of names. The heavy ones are among them only by their whole names, or where all are asked for.
///
/// # Errors
/// The first name that no case has.
pub fn chosen(names: &[String], all: bool) -> Result<Vec<Case>, String> {
    let mut cases = catalogue();
    let exact = |name: &String| cases.iter().any(|case| case.name == name);
    let exact: Vec<bool> = names.iter().map(exact).collect();
    // A whole name is itself alone, whatever else begins like it.
    let is_meant = |case: &Case, (name, &exact): (&String, &bool)| {
        if exact { case.name == name } else { !case.heavy && case.name.starts_with(name.as_str()) }
    };
    for (name, exact) in names.iter().zip(&exact) {
        if !cases.iter().any(|case| is_meant(case, (name, exact))) {
            return Err(name.clone());
        }
    }
    cases.retain(|case| match names {
        [] => all || !case.heavy,
        names => names.iter().zip(&exact).any(|name| is_meant(case, name)),
    });
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str], all: bool) -> Result<Vec<&'static str>, String> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Ok(chosen(&names, all)?.iter().map(|case| case.name).collect())
    }

    #[test]
    fn heavy_cases_need_their_full_name_or_all() {
        let heavy = "decode-7b-32-bf16";
        assert!(!names(&[], false).expect("cases").contains(&heavy));
        assert!(!names(&["decode"], false).expect("cases").contains(&heavy));
        assert_eq!(names(&["decode-7b"], false), Err("decode-7b".to_owned()));
        assert_eq!(names(&[heavy], false), Ok(vec![heavy]));
        assert!(names(&[], true).expect("cases").contains(&heavy));
    }
}
