//! draft
use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use fisao_formats::checkpoint::{write_clip, write_clip_processing, write_llava, write_llava_processing};
use fisao_formats::checkpoint::{Checkpoint, SpecialTokens};
use fisao_formats::{HfTokenizer, LoadDtype, StoredDtype};
use fisao_scenes::World;
use fisao_scenes::recipe::{self, Observer, RecipeConfig, StageProgress, StageState, Verdict, captioning, contrastive, vocabularies};

struct Printer { start: Instant, last: Instant, mean: f64 }
impl Observer for Printer {
    fn progress(&mut self, p: StageProgress) -> Verdict {
        self.mean = if self.mean == 0.0 { p.loss } else { 0.97 * self.mean + 0.03 * p.loss };
        if self.last.elapsed().as_secs_f64() > 10.0 || p.step == 5 {
            self.last = Instant::now();
            let t = self.start.elapsed().as_secs_f64();
            eprintln!("{}/{} loss {:.4} ({:.4}) {:.0}s eta {:.0}s {:.3}s/step", p.step, p.steps, p.loss, self.mean, t, t / p.step as f64 * (p.steps - p.step) as f64, t / p.step as f64);
        }
        Verdict::Continue
    }
    fn save(&mut self, _: StageState) -> Result<(), String> { Ok(()) }
}
fn printer() -> Printer { Printer { start: Instant::now(), last: Instant::now(), mean: 0.0 } }

pub fn run(args: &[String]) -> anyhow::Result<()> {
    let out = Path::new(&args[0]);
    let mut config = RecipeConfig::default();
    for pair in args[1..].chunks(2) {
        match pair[0].as_str() {
            "clip-steps" => config.contrastive.steps = pair[1].parse()?,
            "clip-lr" => config.contrastive.learning_rate = pair[1].parse()?,
            "clip-batch" => config.contrastive.batch = pair[1].parse()?,
            "steps" => config.captioning.steps = pair[1].parse()?,
            "lr" => config.captioning.learning_rate = pair[1].parse()?,
            "batch" => config.captioning.batch = pair[1].parse()?,
            _ => anyhow::bail!("unknown {}", pair[0]),
        }
    }
    let world = World::new();
    let device = Device::flex();
    let special = |bos: &str, eos: &str, pad: &str, unk: &str| SpecialTokens { bos: bos.into(), eos: eos.into(), pad: pad.into(), unk: unk.into() };
    let clip_file = vocabularies::clip_tokenizer(&world, config.seed)?;
    let clip_tok = HfTokenizer::from_json(&clip_file.json.to_string())?;
    let llama_file = vocabularies::llama_tokenizer(&world, config.seed)?;
    let llama_tok = HfTokenizer::from_json(&llama_file.json.to_string())?;
    eprintln!("vocab clip {} llama {}", clip_file.len(), llama_file.len());
    let images = recipe::image_processor();
    let dir = out.join("clip");
    if !dir.join("config.json").exists() {
        std::fs::create_dir_all(&dir)?;
        let clip = contrastive::train_clip(&config, &world, &clip_file, &clip_tok, &device, None, &mut printer())?;
        write_clip_processing(&dir, clip.config().text.max_position_embeddings, &clip_tok, &special("<|startoftext|>", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"), &images)?;
        write_clip(&dir, &clip, StoredDtype::F16)?;
    }
    let clip = Checkpoint::open(&dir)?.load_clip(LoadDtype::default(), &device)?.model;
    let dir = out.join("llava");
    std::fs::create_dir_all(&dir)?;
    let llava = captioning::train_llava(&config, &world, &clip.vision, &llama_file, &llama_tok, &device, None, &mut printer())?;
    write_llava_processing(&dir, llava.config(), &llama_tok, &special("<s>", "</s>", "<unk>", "<unk>"), &images)?;
    write_llava(&dir, &llava, StoredDtype::F16)?;
    Ok(())
}
