//! `fisao caption`: describes images.

use fisao_align::captions::{generate, tasks_at_once};
use fisao_align::tasks::TaskSource;
use fisao_models::generation::{FinishReason, Generated};
use serde::Serialize;

use crate::arguments::{CaptionArguments, Format};
use crate::bundle::Policy;
use crate::output;
use crate::reporter::Reporter;
use crate::tasks::{ImageTasks, checked_images};

/// One image's caption, as printed.
#[derive(Serialize)]
struct CaptionedImage<'a> {
    image: String,
    prompt: &'a str,
    text: String,
    tokens: Vec<CaptionToken>,
    finish_reason: FinishReason,
}

#[derive(Serialize)]
struct CaptionToken {
    id: u32,
    /// What it spells in the text; empty for the end token.
    text: String,
    /// Natural logarithm of its probability when it was chosen.
    logprob: f32,
}

pub(crate) fn run(arguments: &CaptionArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let sampling = arguments.sampling.resolve()?;
    let images = checked_images(&arguments.images, reporter)?;
    let device = arguments.model.device.open(reporter)?.device;
    let policy = Policy::from_arguments(&arguments.model, &device, reporter)?;
    let tasks = ImageTasks::new(&policy, images, &arguments.prompt)?;
    policy.check_length(tasks.longest_prompt(), sampling.max_new_tokens)?;

    let length = tasks.longest_prompt() + sampling.max_new_tokens;
    let at_once = tasks_at_once(&policy.model, length);
    let progress = reporter.phase("captioning", tasks.count() as u64);
    for start in (0..tasks.count()).step_by(at_once) {
        let end = (start + at_once).min(tasks.count());
        let advance = |done| progress.advance(done as u64);
        let captions = generate(&policy.model, &tasks, start..end, length, &sampling, &advance)?;
        for (index, written) in (start..end).zip(captions) {
            let image = tasks.file(index).display().to_string();
            let caption = describe(&policy, image, &arguments.prompt, &written)?;
            match arguments.format {
                Format::Text => output::line(format!("{}: {}", caption.image, caption.text))?,
                Format::Json => output::json(&caption)?,
            }
        }
    }
    progress.finish();
    Ok(())
}

fn describe<'a>(
    policy: &Policy,
    image: String,
    prompt: &'a str,
    written: &Generated,
) -> anyhow::Result<CaptionedImage<'a>> {
    let decoded = policy.tokenizer.decode(&written.tokens)?;
    let tokens = written
        .tokens
        .iter()
        .zip(&written.logprobs)
        .zip(decoded.spans)
        .map(|((&id, &logprob), span)| CaptionToken {
            id,
            text: decoded.text[span].to_owned(),
            logprob,
        })
        .collect();
    Ok(CaptionedImage { image, prompt, text: decoded.text, tokens, finish_reason: written.finish })
}
