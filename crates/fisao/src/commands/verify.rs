//! `fisao verify`: which words of given captions are not in their images.

mod doubtful;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context as _, bail};
use fisao_eval::chair::{ChairInput, read_captions};
use fisao_formats::documents::{check_output_file, open_text, write_bytes};
use fisao_formats::images::open_image;
use fisao_models::image::PixelValues;
use fisao_models::parallel::{parallel_chunks, workers_on};
use fisao_verifier::regions::ImageEmbedding;
use fisao_verifier::scorer::HeatMap;
use owo_colors::OwoColorize;
use serde::Serialize;

use self::doubtful::Doubtful;
use crate::arguments::{VerifyArguments, VerifyFormat};
use crate::bundle::{LoadedVerifier, verifier_from_arguments, warn_of_photographs};
use crate::failure::{Interrupted, Refusal, VerdictFailed, is_closed_pipe};
use crate::image_directory::ImageDirectory;
use crate::reporter::Reporter;
use crate::scorer::{ScoredCaption, ScoredMention, Scorer};
use crate::tasks::checked_images;
use crate::vocabulary::Vocabulary;
use crate::{calibrations, interrupt, output};
use fisao_report::escaping::one_line;

/// Images encoded at once by one core.
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
    /// Whether the caption says that the object is not there; such mentions are not scored.
    negated: bool,
    /// Score against the image.
    cosine: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p_hallucinated: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hallucinated: Option<bool>,
    /// Where in the image it is seen, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    heat_map: Option<HeatMapRows>,
}

/// A heat map, one row of patches after the other.
#[derive(Debug, Serialize)]
struct HeatMapRows {
    /// Patches along each side of the image as the verifier takes it.
    side: usize,
    /// One for each patch.
    cosines: Vec<f64>,
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
    for (name, fraction) in
        [("--threshold", Some(arguments.threshold)), ("--fail-above", arguments.fail_above)]
    {
        if fraction.is_some_and(|fraction| !(0.0..=1.0).contains(&fraction)) {
            bail!(Refusal::new(format!("{name} is not a fraction from 0 to 1")));
        }
    }
    if arguments.heat_maps && arguments.format != VerifyFormat::Jsonl {
        let hint = "add --format jsonl, or let --html show them";
        bail!(Refusal::new("--heat-maps are numbers, which text does not show").hint(hint));
    }
    arguments.html.as_deref().map_or(Ok(()), check_output_file)?;
    let (captions, files) = captions(arguments, reporter)?;
    let calibration = arguments.calibration.as_deref().map(calibrations::read).transpose()?;
    let settings = arguments.scoring.resolve(calibration.as_ref());
    let embedded = arguments.verifier.is_none();
    let words = Vocabulary::from_arguments(&arguments.vocabulary, embedded, calibration.as_ref())?;
    let device = arguments.device.open(reporter)?.device;
    let (verifier, world) = (arguments.verifier.as_ref(), arguments.world.kind());
    let loaded = verifier_from_arguments(verifier, world, settings, &device, reporter)?;
    let mut scorer = Scorer::new(&loaded, &words, calibration, reporter)?;
    scorer.recall(&loaded, reporter)?;
    let stop = interrupt::flag()?;
    let mut sum = Sum::default();
    let mut reader = Reader::new(arguments);
    let mut doubtful =
        Doubtful::new(arguments.html.as_ref().map_or(0, |_| arguments.html_captions));
    let mut known: HashMap<&Path, EncodedImage> = HashMap::new();
    let at_once = BATCH * workers_on(&device);
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
        // Captions of an image mostly stand together, so what the last ones showed is kept, and no more.
        known.retain(|file, _| fresh.contains(file));
        fresh.retain(|file| !known.contains_key(file));
        known.extend(encode_images(&loaded, &scorer, &fresh)?);
        for (input, file) in captions.iter().zip(files) {
            let seen = &known[file.as_path()];
            let scored = scorer.caption(&seen.embedding, &input.caption)?;
            let maps = if arguments.heat_maps {
                scorer.heat_maps(&seen.whole, &scored)
            } else {
                Vec::new()
            };
            sum.add(&print(arguments, input, file, &scored, maps, &mut reader)?);
            doubtful.add(&input.image_id, file, scored);
            progress.advance(1);
        }
    }
    if let Some(path) = &arguments.html {
        let page = doubtful.page(&loaded, &scorer, arguments.threshold, &sum.in_words(&scorer))?;
        write_bytes(path, page.as_bytes())?;
        reporter.note(format!("page: {}", path.display()));
    }
    progress.finish();
    finish(arguments, &scorer, &sum, reporter)
}

/// The captions and the file of each one's image, which can be used.
fn captions(
    arguments: &VerifyArguments,
    reporter: &Reporter,
) -> anyhow::Result<(Vec<ChairInput>, Vec<PathBuf>)> {
    let path = &arguments.captions;
    let captions = read_captions(open_text("captions", path)?)
        .with_context(|| format!("{} cannot be read as captions", path.display()))?;
    if captions.is_empty() {
        bail!(Refusal::new(format!("{} holds no caption", path.display())));
    }
    let images = ImageDirectory::open(&arguments.images);
    let file = |input: &ChairInput| images.file(&input.image_id);
    let files = captions.iter().map(file).collect::<anyhow::Result<Vec<_>>>()?;
    let mut different = files.clone();
    different.sort_unstable();
    different.dedup();
    let usable = checked_images(&different, &arguments.damaged, reporter)?;
    let sizes = usable.iter().map(|image| image.size);
    warn_of_photographs(arguments.verifier.is_none(), sizes, reporter);
    if usable.len() == different.len() {
        return Ok((captions, files));
    }
    let usable: HashSet<&Path> = usable.iter().map(|image| image.file.as_path()).collect();
    let pairs = captions.into_iter().zip(&files);
    let pairs = pairs.filter(|(_, file)| usable.contains(file.as_path()));
    Ok(pairs.map(|(caption, file)| (caption, file.clone())).unzip())
}

/// What is kept of an image while its captions come up.
struct EncodedImage {
    embedding: ImageEmbedding,
    /// The image as the encoder takes it.
    whole: PixelValues,
}

/// Looks at images on all cores.
fn encode_images<'a>(
    loaded: &LoadedVerifier,
    scorer: &Scorer,
    files: &[&'a Path],
) -> anyhow::Result<Vec<(&'a Path, EncodedImage)>> {
    let device = loaded.verifier.model().vision().device();
    let chunks = parallel_chunks(files, workers_on(&device), |chunk| {
        let mut seen = Vec::with_capacity(chunk.len());
        for batch in chunk.chunks(BATCH) {
            let views = batch.iter().map(|file| Ok(loaded.views.of(&open_image(file)?)));
            let views = views.collect::<anyhow::Result<Vec<_>>>()?;
            let embeddings = scorer.embed_all(&views)?;
            let wholes = views.into_iter().map(|mut views| views.swap_remove(0));
            let pairs = embeddings.into_iter().zip(wholes);
            let kept = pairs.map(|(embedding, whole)| EncodedImage { embedding, whole });
            seen.extend(batch.iter().copied().zip(kept));
        }
        anyhow::Ok(seen)
    });
    let chunks = chunks.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    Ok(chunks.into_iter().flatten().collect())
}

/// Whoever reads standard output. Once they have seen enough the work goes on where something else comes of it: a page, or an
/// exit code.
struct Reader {
    listens: bool,
    /// Whether the work ends with them.
    alone: bool,
}

impl Reader {
    fn new(arguments: &VerifyArguments) -> Self {
        Self { listens: true, alone: arguments.html.is_none() && arguments.fail_above.is_none() }
    }

    fn hear(&mut self, say: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        if !self.listens {
            return Ok(());
        }
        let said = say();
        let closed = said.as_ref().is_err_and(|error| error.chain().any(is_closed_pipe));
        if closed && !self.alone {
            self.listens = false;
            return Ok(());
        }
        said
    }
}

/// Prints the verdict on a caption.
fn print<'a>(
    arguments: &VerifyArguments,
    input: &'a ChairInput,
    file: &'a Path,
    scored: &'a ScoredCaption,
    maps: Vec<HeatMap>,
    reader: &mut Reader,
) -> anyhow::Result<Verdict<'a>> {
    let threshold = arguments.threshold;
    let mut mentions: Vec<Judged> =
        scored.mentions.iter().map(|mention| Judged::new(mention, threshold)).collect();
    for (mention, HeatMap { side, cosines }) in mentions.iter_mut().zip(maps) {
        mention.heat_map = Some(HeatMapRows { side, cosines });
    }
    let hallucinated = mentions.iter().filter(|judged| judged.hallucinated == Some(true)).count();
    let verdict = Verdict {
        image_id: &input.image_id,
        image: file,
        caption: &input.caption,
        mentions,
        hallucinated: arguments.calibration.as_ref().map(|_| hallucinated),
    };
    match arguments.format {
        VerifyFormat::Jsonl => reader.hear(|| output::json(&verdict))?,
        VerifyFormat::Text => {
            let caption = scored.marked(|word| Judged::new(word, threshold).coloured());
            let caption = caption.replace(['\n', '\r'], " ");
            let image = one_line(&input.image_id);
            let line = format!("{image}: {caption}{}", verdict.absent());
            reader.hear(|| output::line(line))?;
        }
    }
    Ok(verdict)
}

impl<'a> Judged<'a> {
    fn new(mention: &'a ScoredMention, threshold: f64) -> Self {
        let p_hallucinated = mention.p_hallucinated.filter(|_| !mention.negated);
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
            heat_map: None,
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

impl Sum {
    /// What was found in all, for people.
    fn in_words(&self, scorer: &Scorer) -> String {
        let Self { captions, without_object, mentions, negated, hallucinated } = *self;
        let mut parts = vec![format!("{mentions} mentions in {captions} captions")];
        if scorer.is_calibrated() && mentions > 0 {
            let fraction = 100.0 * hallucinated as f64 / mentions as f64;
            parts.push(format!("{hallucinated} count as hallucinated ({fraction:.1} %)"));
        }
        for (count, what) in [
            (negated, "mentions are negated and not scored"),
            (without_object, "captions name no object of the vocabulary"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        parts.join("; ")
    }
}

/// Says what was found in all, and fails where that is too much.
fn finish(
    arguments: &VerifyArguments,
    scorer: &Scorer,
    sum: &Sum,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let Sum { mentions, hallucinated, .. } = *sum;
    reporter.note(sum.in_words(scorer));
    if let Some(most) = arguments.fail_above
        && hallucinated as f64 > most * mentions as f64
    {
        let message = format!(
            "{hallucinated} of {mentions} mentions count as hallucinated, more than the fraction of {most}"
        );
        return Err(VerdictFailed { message }.into());
    }
    Ok(())
}
