//! Verifying captions that are there: which of the words of each name what is not in its image.

mod doubtful;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context as _, bail};
use fisao_align::RunControl;
use fisao_eval::chair::{ChairInput, read_captions};
use fisao_formats::documents::{check_output_file, open_text, write_bytes};
use fisao_formats::images::open_image;
use fisao_verifier::regions::ScoreUnit;
use fisao_verifier::scorer::{HeatMap, HeatMapUnit};
use serde::Serialize;

use self::doubtful::Doubtful;
use crate::bundle::{AloneSource, LoadedVerifier, Views, warn_of_photographs};
use crate::calibrations;
use crate::device::DeviceChoice;
use crate::failure::{Interrupted, Refusal};
use crate::found_vocabulary::FoundVocabulary;
use crate::image_directory::ImageDirectory;
use crate::reporter::Reporter;
use crate::score_settings::{ScoreChoice, ScoreSettings};
use crate::scorer::{
    ScoredCaption, ScoredMention, Scorer, SeenImage, encode_images, images_at_once,
};
use crate::stop::StopSource;
use crate::tasks::{DamagedImages, checked_images};
use crate::vocabulary::{self, Vocabulary};

/// Where captions to verify come from.
#[derive(Clone, Debug)]
pub enum CaptionsToVerify {
    /// A file.
    File(PathBuf),
    /// They are known.
    Given(Vec<ChairInput>),
}

/// Captions to verify, and by what.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// The captions.
    pub captions: CaptionsToVerify,
    /// Folder of their images.
    pub images: PathBuf,
    /// What is done about images that cannot be used.
    pub damaged: DamagedImages,
    /// What verifies.
    pub verifier: AloneSource,
    /// What turns scores into probabilities; without it there is no decision.
    pub calibration: Option<PathBuf>,
    /// File or name of the list of objects.
    pub vocabulary: Option<PathBuf>,
    /// Where a list that is found in the captions is written.
    pub found_vocabulary: Option<PathBuf>,
    /// How names are scored; as the calibration has it where nothing is said.
    pub scoring: ScoreChoice,
    /// Probability of being hallucinated from which on a mention counts as hallucinated.
    pub threshold: f64,
    /// Whether verdicts say where in the image each word is seen.
    pub heat_maps: bool,
    /// A page to write, and how many captions it shows at most, the most doubtful first.
    pub page: Option<(PathBuf, usize)>,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Whether verdicts are to be the same for any number of processes and threads.
    pub exact: bool,
}

/// The verdict on one caption, as printed.
#[derive(Debug, Serialize)]
pub struct Verdict<'a> {
    /// Name of the image.
    pub image_id: &'a str,
    /// Its file.
    pub image: &'a Path,
    /// The caption.
    pub caption: &'a str,
    /// What the scores are.
    pub unit: ScoreUnit,
    /// What it names.
    pub mentions: Vec<Judged>,
    /// Mentions that count as hallucinated; `None` without a calibration.
    pub hallucinated: Option<usize>,
}

/// One word and how likely it is made up.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// First character in the caption, counted from 0.
    pub start: usize,
    /// Character after the last.
    pub end: usize,
    /// What the caption says.
    pub text: String,
    /// The object.
    pub category: String,
    /// The name that was scored.
    pub form: String,
    /// How the caption describes it, with {} in the name's place, where that was scored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The names that it was contrasted with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contrasted: Vec<String>,
    /// Whether the caption says that the object is not there; such mentions are not scored.
    pub negated: bool,
    /// Score against the image.
    pub score: f64,
    /// Probability that the object is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_hallucinated: Option<f64>,
    /// Whether it counts as hallucinated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hallucinated: Option<bool>,
    /// Tokens that spell it, first and past the last, where there are tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<[usize; 2]>,
    /// Where in the image it is seen, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heat_map: Option<HeatMapRows>,
}

/// A heat map, one row of patches after the other.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HeatMapRows {
    /// Patches along each side of the image as the verifier takes it, of cosines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<usize>,
    /// One for each patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosines: Option<Vec<f64>>,
    /// Image tokens from top to bottom of the image, of probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    /// Image tokens from left to right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<usize>,
    /// One for each image token that shows the whole of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probabilities: Option<Vec<f64>>,
    /// The part of the image that it covers: left, upper, right and lower edge as fractions of the image's width and height; below 0 and
    /// above 1 is padding.
    pub region: [f64; 4],
}

impl HeatMapRows {
    /// Of a map that covers this part of the image.
    pub fn new(map: HeatMap, region: [f64; 4]) -> Self {
        let HeatMap { unit, rows, columns, values } = map;
        match unit {
            HeatMapUnit::Cosine => {
                Self { side: Some(rows), cosines: Some(values), region, ..Self::default() }
            }
            HeatMapUnit::Probability => Self {
                rows: Some(rows),
                columns: Some(columns),
                probabilities: Some(values),
                region,
                ..Self::default()
            },
        }
    }
}

/// What was found in all captions.
#[derive(Debug, Default)]
pub struct Sum {
    /// Captions.
    pub captions: usize,
    /// Captions that name no object.
    pub without_object: usize,
    /// Mentions that are scored.
    pub mentions: usize,
    /// Mentions that are not.
    pub negated: usize,
    /// Mentions that count as hallucinated.
    pub hallucinated: usize,
    /// Whether a calibration tells which do.
    pub calibrated: bool,
}

/// Verifies captions one after the other and hands the verdict on each to `each`, with the scores behind it. A raised flag ends the
/// work after the captions that are scored together.
///
/// # Errors
/// [`Interrupted`] where the flag was raised, or what `each` returns. Otherwise what cannot be used, or what failed.
pub fn verify(
    request: &VerifyRequest,
    each: &mut dyn FnMut(&Verdict<'_>, &ScoredCaption) -> anyhow::Result<()>,
    stop: StopSource<'_>,
    reporter: &Reporter,
) -> anyhow::Result<Sum> {
    let page = request.page.as_ref();
    let outputs = page.map(|(path, _)| path).into_iter().chain(&request.found_vocabulary);
    outputs.into_iter().try_for_each(|path| check_output_file(path))?;
    let (captions, files) = captions(request, reporter)?;
    let calibration = request.calibration.as_deref().map(calibrations::read).transpose()?;
    let settings = ScoreSettings::chosen(&request.scoring, calibration.as_ref());
    let embedded = request.verifier.is_embedded();
    let named = request.vocabulary.as_deref();
    let finds = vocabulary::is_automatic(named);
    if finds && calibration.is_some() {
        let hint = "name that list, or leave --calibration out";
        bail!(vocabulary::other_than_calibrated(hint));
    }
    let words =
        if finds { None } else { Some(Vocabulary::chosen(named, embedded, calibration.as_ref())?) };
    let opened = request.device.open(reporter)?;
    let loaded = request.verifier.open(settings, &opened, reporter)?;
    let words = match words {
        Some(words) => words,
        None => find_words((&captions, &files), &loaded, request, reporter)?,
    };
    if request.heat_maps || page.is_some() {
        warn_of_no_places(&loaded, reporter);
    }
    let mut scorer = Scorer::new(&loaded, &words, calibration, reporter)?;
    scorer.recall(&loaded, reporter)?;
    let (stop, unit) = (stop()?, loaded.verifier.unit());
    let calibrated = scorer.is_calibrated();
    let mut sum = Sum { calibrated, ..Sum::default() };
    let mut doubtful = Doubtful::new(page.map_or(0, |(_, most)| *most));
    let mut known: HashMap<&Path, SeenImage> = HashMap::new();
    let team = loaded.team(request.exact);
    let at_once = images_at_once(&loaded.verifier, team);
    let control = RunControl::new(&|_| {}).shared(team);
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
        let open = |file: &&Path| anyhow::Ok(open_image(file)?);
        let seen = encode_images(scorer.verifier(), &loaded.views, &fresh, open, control)?;
        known.extend(fresh.into_iter().zip(seen));
        for (input, file) in captions.iter().zip(files) {
            let seen = &known[file.as_path()];
            let (threshold, maps) = (request.threshold, request.heat_maps);
            let shown = (seen, input.caption.as_str());
            let (scored, mentions) = judge(&mut scorer, &loaded.views, shown, threshold, maps)?;
            let verdict = Verdict {
                image_id: &input.image_id,
                image: file,
                caption: &input.caption,
                unit,
                hallucinated: calibrated.then(|| hallucinated(&mentions)),
                mentions,
            };
            sum.add(&verdict);
            each(&verdict, &scored)?;
            doubtful.add(&input.image_id, file, scored);
            progress.advance(1);
        }
    }
    if let Some((path, _)) = page {
        let page = doubtful.page(&loaded, &scorer, request.threshold, &sum.in_words())?;
        write_bytes(path, page.as_bytes())?;
        reporter.note(format!("page: {}", path.display()));
    }
    progress.finish();
    Ok(sum)
}

/// The objects that the captions themselves name and the verifier sees.
fn find_words(
    (captions, files): (&[ChairInput], &[PathBuf]),
    loaded: &LoadedVerifier,
    request: &VerifyRequest,
    reporter: &Reporter,
) -> anyhow::Result<Vocabulary> {
    let mut images: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    images.sort_unstable();
    images.dedup();
    let open = |file: &&Path| anyhow::Ok(open_image(file)?);
    let progress = reporter.phase("look for objects", images.len() as u64);
    let mut embeddings = Vec::with_capacity(images.len());
    let team = loaded.team(request.exact);
    let control = RunControl::new(&|_| {}).shared(team);
    for part in images.chunks(images_at_once(&loaded.verifier, team)) {
        let seen = encode_images(&loaded.verifier, &loaded.views, part, open, control)?;
        embeddings.extend(seen.into_iter().map(|seen| seen.embedding));
        progress.advance(part.len() as u64);
    }
    progress.finish();
    let images_of = |file: &PathBuf| images.binary_search(&file.as_path());
    let images_of: Vec<usize> = files.iter().filter_map(|file| images_of(file).ok()).collect();
    let texts: Vec<&str> = captions.iter().map(|input| input.caption.as_str()).collect();
    let shown = (images_of.as_slice(), embeddings.as_slice());
    let found = FoundVocabulary::of_texts(&texts, shown, &loaded.verifier)?;
    match &request.found_vocabulary {
        Some(path) => found.write(path, reporter)?,
        None => found.tell("written to a file with --found-vocabulary FILE", reporter),
    }
    Ok(found.into_words())
}

/// Says so where no image token has a place in the image, so that there are no heat maps.
fn warn_of_no_places(loaded: &LoadedVerifier, reporter: &Reporter) {
    let Some(reader) = loaded.verifier.decoder() else { return };
    let family = reader.model().config().family();
    if family.whole_image_grid((1, 1)).is_none() {
        reporter.warn(
            format!(
                "there are no heat maps: image tokens of {} have no place in the image",
                family.model_type()
            ),
            Some("a contrastive verifier shows where in the image words are seen"),
        );
    }
}

/// The captions and the file of each one's image, which can be used.
fn captions(
    request: &VerifyRequest,
    reporter: &Reporter,
) -> anyhow::Result<(Vec<ChairInput>, Vec<PathBuf>)> {
    let captions = match &request.captions {
        CaptionsToVerify::File(path) => {
            let captions = read_captions(open_text("captions", path)?)
                .with_context(|| format!("{} cannot be read as captions", path.display()))?;
            if captions.is_empty() {
                bail!(Refusal::new(format!("{} holds no caption", path.display())));
            }
            captions
        }
        CaptionsToVerify::Given(captions) => captions.clone(),
    };
    let images = ImageDirectory::open(&request.images);
    let file = |input: &ChairInput| images.file(&input.image_id);
    let files = captions.iter().map(file).collect::<anyhow::Result<Vec<_>>>()?;
    let mut different = files.clone();
    different.sort_unstable();
    different.dedup();
    let usable = checked_images(&different, request.damaged, reporter)?;
    let sizes = usable.iter().map(|image| image.size);
    warn_of_photographs(request.verifier.is_embedded(), sizes, reporter);
    if usable.len() == different.len() {
        return Ok((captions, files));
    }
    let usable: HashSet<&Path> = usable.iter().map(|image| image.file.as_path()).collect();
    let pairs = captions.into_iter().zip(&files);
    let pairs = pairs.filter(|(_, file)| usable.contains(file.as_path()));
    Ok(pairs.map(|(caption, file)| (caption, file.clone())).unzip())
}

/// Verdicts on what a caption names: from a probability of `threshold` on a mention counts as hallucinated. `heat_maps` adds where in the
/// image each is seen.
///
/// # Errors
/// A name cannot be scored, or the image not shown to a decoder.
pub fn judge(
    scorer: &mut Scorer,
    views: &Views,
    (seen, caption): (&SeenImage, &str),
    threshold: f64,
    heat_maps: bool,
) -> anyhow::Result<(ScoredCaption, Vec<Judged>)> {
    let scored = scorer.caption(&seen.embedding, caption)?;
    let mut judged: Vec<Judged> =
        scored.mentions.iter().map(|mention| Judged::new(mention.clone(), threshold)).collect();
    if heat_maps {
        let region = views.region(seen.whole.original_size);
        let maps = scorer.heat_maps(&seen.whole, &scored)?.unwrap_or_default();
        for (mention, map) in judged.iter_mut().zip(maps) {
            mention.heat_map = Some(HeatMapRows::new(map, region));
        }
    }
    Ok((scored, judged))
}

/// How many mentions count as hallucinated.
pub fn hallucinated(mentions: &[Judged]) -> usize {
    mentions.iter().filter(|mention| mention.hallucinated == Some(true)).count()
}

impl Judged {
    /// The verdict on a mention.
    pub fn new(mention: ScoredMention, threshold: f64) -> Self {
        let p_hallucinated = mention.p_hallucinated.filter(|_| !mention.negated);
        Self {
            start: mention.start,
            end: mention.end,
            text: mention.text,
            category: mention.category,
            form: mention.form,
            description: mention.description,
            contrasted: mention.contrasted,
            negated: mention.negated,
            score: mention.score,
            p_hallucinated,
            hallucinated: p_hallucinated.map(|p| p >= threshold),
            tokens: None,
            heat_map: None,
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

    /// What was found in all, for people.
    pub fn in_words(&self) -> String {
        let Self { captions, without_object, mentions, negated, hallucinated, calibrated } = *self;
        let mut parts = vec![format!("{mentions} mentions in {captions} captions")];
        if calibrated && mentions > 0 {
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
