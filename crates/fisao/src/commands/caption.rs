//! `fisao caption`: describes images.

use std::path::Path;

use fisao_align::RunControl;
use fisao_align::guided::{Guidance, TakenBack};
use fisao_align::sampling::{generate, tasks_at_once};
use fisao_align::tasks::{TaskList, TaskSource};
use fisao_formats::chat_template::PromptPart;
use fisao_formats::images::open_image;
use fisao_models::generation::{FinishReason, Sampling};
use fisao_runs::Reporter;
use fisao_runs::bundle::{Policy, SpelledToken, warn_of_photographs};
use fisao_runs::device::warn_of_batches_left_to_cpu;
use fisao_runs::tasks::{ImageFile, ImageTasks, checked_images};
use serde::Serialize;

use super::chooser::{ChooserSource, Written, open_answerer};
use crate::arguments::{CaptionArguments, Format};
use crate::output;
use fisao_report::escaping::one_line;

/// One image's caption, as printed.
#[derive(Serialize)]
struct CaptionedImage<'a> {
    #[serde(flatten)]
    shown: Shown,
    prompt: &'a str,
    caption: String,
    tokens: Vec<SpelledToken>,
    finish_reason: FinishReason,
    /// What guidance did, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    guided: Option<GuidedCounts>,
}

/// What a caption is about.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    One {
        /// The file's name, by which other commands find it in a folder of images.
        image_id: String,
        image: String,
    },
    Together {
        images: Vec<String>,
    },
}

impl Shown {
    fn one(image: String) -> Self {
        let name = Path::new(&image).file_name().map(|name| name.to_string_lossy().into_owned());
        Self::One { image_id: name.unwrap_or_else(|| image.clone()), image }
    }

    /// For a line of text.
    fn line(&self) -> String {
        match self {
            Self::One { image, .. } => one_line(image).into_owned(),
            Self::Together { images } => one_line(&images.join(", ")).into_owned(),
        }
    }
}

/// What guidance did to a caption.
#[derive(Serialize)]
struct GuidedCounts {
    taken_back: Vec<TakenBack>,
    let_through: usize,
    extra_tokens: usize,
}

impl From<Guidance> for GuidedCounts {
    fn from(guidance: Guidance) -> Self {
        let Guidance { taken_back, let_through, extra_tokens, rewinds: _ } = guidance;
        Self { taken_back, let_through, extra_tokens }
    }
}

pub(crate) fn run(arguments: &CaptionArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let sampling = arguments.sampling.resolve()?;
    let (world, vocabulary) = (arguments.world.kind(), arguments.vocabulary.named());
    let chooser = ChooserSource::of(&arguments.choosing, world, vocabulary)?;
    let images = checked_images(&arguments.images, arguments.damaged.images(), reporter)?;
    let opened = arguments.model.device.open(reporter)?;
    let model = (&arguments.model.source(), world);
    let (policy, mut chooser) = open_answerer(chooser.as_ref(), model, &opened, reporter)?;
    let sizes = images.iter().map(|image| image.size);
    warn_of_photographs(policy.is_embedded(), sizes, reporter);
    if arguments.together {
        return describe_together(arguments, &policy, &images, &sampling, reporter);
    }
    let views = chooser.as_ref().and_then(|chooser| chooser.views().cloned());
    let tasks = ImageTasks::new(&policy, images, &arguments.prompt)?.with_verifier(views);
    policy.check_length(tasks.longest_prompt(), sampling.max_new_tokens)?;

    let length = tasks.longest_prompt() + sampling.max_new_tokens;
    let team = policy.team(arguments.sharing.exact);
    let at_once = tasks_at_once(&policy.model, length, team);
    let progress = reporter.phase("captioning", tasks.count() as u64);
    for start in (0..tasks.count()).step_by(at_once) {
        let end = (start + at_once).min(tasks.count());
        let advance = |done| progress.advance(done as u64);
        let captions = if let Some(chooser) = &mut chooser {
            chooser.choose((&policy, team), &tasks, start..end, &sampling)?
        } else {
            let range = start..end;
            let control = RunControl::new(&advance).shared(team);
            let written = generate(&policy.model, &tasks, range, 1, length, &sampling, control)?;
            written.into_iter().map(|response| (response, None)).collect()
        };
        if chooser.is_some() {
            advance(end - start);
        }
        for (index, written) in (start..end).zip(captions) {
            let shown = Shown::one(tasks.file(index).display().to_string());
            describe(&policy, shown, &arguments.prompt, written)?.print(arguments.format)?;
        }
    }
    progress.finish();
    warn_of_batches_left_to_cpu(&policy.model, reporter);
    Ok(())
}

/// One answer about all images.
fn describe_together(
    arguments: &CaptionArguments,
    policy: &Policy,
    images: &[ImageFile],
    sampling: &Sampling,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let mut parts = vec![PromptPart::Image; images.len()];
    parts.push(PromptPart::Text(&arguments.prompt));
    let prompt = policy.question(&parts)?;
    let files = images.iter().map(|image| open_image(&image.file));
    let loaded = files.collect::<Result<Vec<_>, _>>()?;
    let named: Vec<String> = images.iter().map(|image| image.file.display().to_string()).collect();
    let task = policy.task_about(named.join(", "), &loaded, &prompt)?;
    policy.check_length(task.prompt.len(), sampling.max_new_tokens)?;
    let length = task.prompt.len() + sampling.max_new_tokens;
    let progress = reporter.phase("captioning", 1);
    let advance = |done| progress.advance(done as u64);
    let (list, control) = ([task], RunControl::new(&advance));
    let written = generate(&policy.model, &TaskList(&list), 0..1, 1, length, sampling, control)?;
    for response in written {
        let shown = Shown::Together { images: named.clone() };
        describe(policy, shown, &arguments.prompt, (response, None))?.print(arguments.format)?;
    }
    progress.finish();
    warn_of_batches_left_to_cpu(&policy.model, reporter);
    Ok(())
}

fn describe<'a>(
    policy: &Policy,
    shown: Shown,
    prompt: &'a str,
    (written, guidance): Written,
) -> anyhow::Result<CaptionedImage<'a>> {
    let (caption, tokens) = policy.spelled(&written)?;
    Ok(CaptionedImage {
        shown,
        prompt,
        caption,
        tokens,
        finish_reason: written.finish,
        guided: guidance.map(GuidedCounts::from),
    })
}

impl CaptionedImage<'_> {
    fn print(&self, format: Format) -> anyhow::Result<()> {
        match format {
            Format::Text => {
                output::line(format!("{}: {}", self.shown.line(), one_line(&self.caption)))?;
            }
            Format::Json => output::json(self)?,
        }
        Ok(())
    }
}
