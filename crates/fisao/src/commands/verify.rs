//! `fisao verify`: which words of given captions are not in their pictures.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context as _, bail};
use fisao_eval::chair::{ChairInput, read_captions};
use fisao_formats::documents::open_text;
use fisao_formats::images::open_image;
use fisao_models::image::ImageProcessor;
use fisao_models::llava::Pictures;
use fisao_models::parallel::{over_shares, shares_on};
use fisao_verifier::scorer::Verifier;
use owo_colors::OwoColorize;
use serde::Serialize;

use super::score::{self, ScoredCaption, ScoredMention, Scorer};
use crate::arguments::{VerifyArguments, VerifyFormat};
use crate::bundle::{LoadedVerifier, verifier_from_arguments};
use crate::failure::{Interrupted, Refusal, VerdictFailed};
use crate::interrupt;
use crate::output;
use crate::pictures::PictureFolder;
use crate::reporter::Reporter;

/// Pictures encoded at once by one core.
const BATCH: usize = 16;

/// The verdict on one caption, as printed.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    image_id: &'a str,
    image: &'a Path,
    caption: &'a str,
    mentions: Vec<Judged<'a>>,
    /// Mentions that count as hallucinated; `None` without a calibration.
    hallucinated: Option<usize>,
}

/// One word and how likely it is made up.
#[derive(Debug, Serialize)]
struct Judged<'a> {
    /// First character in the caption, counted from 0.
    start: usize,
    /// Character after the last.
    end: usize,
    text: &'a str,
    category: &'a str,
    /// The name that was scored.
    form: &'a str,
    /// Whether the caption says that the object is not there; such words are not judged.
    negated: bool,
    /// Score against the picture.
    cosine: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p_hallucinated: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hallucinated: Option<bool>,
}

/// What was found in all captions.
#[derive(Debug, Default)]
struct Sum {
    captions: usize,
    without_object: usize,
    mentions: usize,
    negated: usize,
    hallucinated: usize,
}

pub(crate) fn run(arguments: &VerifyArguments, reporter: &Reporter) -> anyhow::Result<()> {
    for (name, share) in
        [("--threshold", Some(arguments.threshold)), ("--fail-above", arguments.fail_above)]
    {
        if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            bail!(Refusal::new(format!("{name} is not a share from 0 to 1")));
        }
    }
    let (captions, files) = captions(arguments)?;
    let device = arguments.device.open(reporter)?.device;
    let templates = score::templates(&arguments.templates);
    let LoadedVerifier { verifier, processor } =
        verifier_from_arguments(arguments.verifier.as_ref(), templates, &device, reporter)?;
    let calibration = arguments.calibration.as_deref();
    let mut scorer = Scorer::new(verifier, &arguments.vocabulary, calibration)?;
    let stop = interrupt::flag()?;
    let mut sum = Sum::default();
    let mut known: HashMap<&Path, Vec<f32>> = HashMap::new();
    let at_once = BATCH * shares_on(&device);
    let progress = reporter.phase("verifying captions", captions.len() as u64);
    for (captions, files) in captions.chunks(at_once).zip(files.chunks(at_once)) {
        if stop.load(Ordering::Relaxed) {
            let message =
                format!("stopped after {} captions, whose verdicts are printed", sum.captions);
            return Err(Interrupted { message }.into());
        }
        let mut fresh: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        fresh.sort_unstable();
        fresh.dedup();
        // Captions of a picture mostly stand together, so what the last ones showed is kept, and no more.
        known.retain(|file, _| fresh.contains(file));
        fresh.retain(|file| !known.contains_key(file));
        known.extend(embed(scorer.verifier(), &processor, &fresh)?);
        for (input, file) in captions.iter().zip(files) {
            let scored = scorer.caption(&known[file.as_path()], &input.caption)?;
            sum.add(&print(arguments, input, file, &scored)?);
            progress.advance(1);
        }
    }
    progress.finish();
    finish(arguments, &sum, reporter)
}

/// The captions and the file of each one's picture.
fn captions(arguments: &VerifyArguments) -> anyhow::Result<(Vec<ChairInput>, Vec<PathBuf>)> {
    let path = &arguments.captions;
    let captions = read_captions(open_text("captions", path)?)
        .with_context(|| format!("{} cannot be read as captions", path.display()))?;
    if captions.is_empty() {
        bail!(Refusal::new(format!("{} holds no caption", path.display())));
    }
    let pictures = PictureFolder::open(&arguments.images);
    let file = |input: &ChairInput| pictures.file(&input.image_id);
    let files = captions.iter().map(file).collect::<anyhow::Result<Vec<_>>>()?;
    Ok((captions, files))
}

/// Image embeddings, computed on all cores.
fn embed<'a>(
    verifier: &Verifier,
    processor: &ImageProcessor,
    files: &[&'a Path],
) -> anyhow::Result<Vec<(&'a Path, Vec<f32>)>> {
    let device = verifier.model().vision().device();
    let shares = over_shares(files, shares_on(&device), |share| {
        let mut embedded = Vec::with_capacity(share.len());
        for batch in share.chunks(BATCH) {
            let images = batch.iter().map(|file| Ok(processor.process(&open_image(file)?)));
            let images = images.collect::<anyhow::Result<Vec<_>>>()?;
            let pictures = Pictures::new(&images, &device);
            embedded.extend(batch.iter().copied().zip(verifier.embed_images(pictures.whole())));
        }
        anyhow::Ok(embedded)
    });
    Ok(shares.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat())
}

/// Prints the verdict on a caption.
fn print<'a>(
    arguments: &VerifyArguments,
    input: &'a ChairInput,
    file: &'a Path,
    scored: &'a ScoredCaption,
) -> anyhow::Result<Verdict<'a>> {
    let threshold = arguments.threshold;
    let mentions: Vec<Judged> =
        scored.mentions.iter().map(|mention| Judged::new(mention, threshold)).collect();
    let hallucinated = mentions.iter().filter(|judged| judged.hallucinated == Some(true)).count();
    let verdict = Verdict {
        image_id: &input.image_id,
        image: file,
        caption: &input.caption,
        mentions,
        hallucinated: arguments.calibration.as_ref().map(|_| hallucinated),
    };
    match arguments.format {
        VerifyFormat::Jsonl => output::json(&verdict)?,
        VerifyFormat::Text => {
            let caption = score::marked(scored, |word| Judged::new(word, threshold).coloured());
            output::line(format!("{}: {caption}{}", input.image_id, verdict.absent()))?;
        }
    }
    Ok(verdict)
}

impl<'a> Judged<'a> {
    fn new(mention: &'a ScoredMention, threshold: f64) -> Self {
        let p_hallucinated = mention.probability.filter(|_| !mention.negated).map(|p| 1.0 - p);
        Self {
            start: mention.start,
            end: mention.end,
            text: &mention.text,
            category: &mention.category,
            form: &mention.form,
            negated: mention.negated,
            cosine: mention.cosine,
            p_hallucinated,
            hallucinated: p_hallucinated.map(|p| p >= threshold),
        }
    }

    /// The word in the colour of its verdict, or of none; a denied one as it is.
    fn coloured(&self) -> String {
        match self.hallucinated {
            _ if self.negated => self.text.to_owned(),
            None => self.text.cyan().to_string(),
            Some(false) => self.text.green().to_string(),
            Some(true) => self.text.red().to_string(),
        }
    }
}

impl Verdict<'_> {
    /// A line with the words that are not there, for whoever sees no colours; empty if there are none.
    fn absent(&self) -> String {
        let absent = self.mentions.iter().filter(|judged| judged.hallucinated == Some(true));
        let words: Vec<String> = absent
            .filter_map(|judged| Some(format!("{} (p {:.2})", judged.text, judged.p_hallucinated?)))
            .collect();
        if words.is_empty() {
            String::new()
        } else {
            format!("\n  not there: {}", words.join(", "))
        }
    }
}

impl Sum {
    fn add(&mut self, verdict: &Verdict) {
        let negated = verdict.mentions.iter().filter(|mention| mention.negated).count();
        let mentions = verdict.mentions.len() - negated;
        self.captions += 1;
        self.without_object += usize::from(mentions == 0);
        self.mentions += mentions;
        self.negated += negated;
        self.hallucinated += verdict.hallucinated.unwrap_or(0);
    }
}

/// Says what was found in all, and fails where that is too much.
fn finish(arguments: &VerifyArguments, sum: &Sum, reporter: &Reporter) -> anyhow::Result<()> {
    let Sum { captions, without_object, mentions, negated, hallucinated } = *sum;
    let mut parts = vec![format!("{mentions} words in {captions} captions")];
    if arguments.calibration.is_some() && mentions > 0 {
        let share = 100.0 * hallucinated as f64 / mentions as f64;
        parts.push(format!("{hallucinated} count as hallucinated ({share:.1} %)"));
    }
    for (count, what) in [
        (negated, "words say what is not there and are not judged"),
        (without_object, "captions name no object of the vocabulary"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    reporter.note(parts.join("; "));
    if let Some(most) = arguments.fail_above
        && hallucinated as f64 > most * mentions as f64
    {
        let message = format!(
            "{hallucinated} of {mentions} words count as hallucinated, more than the share of {most}"
        );
        return Err(VerdictFailed { message }.into());
    }
    Ok(())
}
