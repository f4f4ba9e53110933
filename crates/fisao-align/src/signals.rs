//! Signals about each mention from the base model itself: its encoder and its decoder, no second model and no labels.
//!
//! For a mention u of a caption of image v, written as the tokens `w_1 … w_n` behind the prefix c; every one is meant to be
//! higher for what is in the image:
//!
//! ```text
//! pooled                    f_v(v) · f_t(u)                                                       cosine
//! pooled-centred            pooled − mean of it over images that do not mention u                 cosine
//! pooled-standardised       pooled-centred / standard deviation over those images                 –
//! patches                   mean of the pooled cosine and the best patch's                        cosine
//! patches-centred           patches − mean of it over images that do not mention u                cosine
//! decoder-reading           1/n Σ_t max over image positions i of log softmax(W_U norm(h_i))[w_t] nats
//! decoder-reading-centred   decoder-reading − mean of it over images that do not mention u        nats
//! log-probability           Σ_t log p(w_t | v, c, w_<t)                                           nats
//! image-drop                log-probability − Σ_t log p(w_t | blank image, c, w_<t)               nats
//! agreement                 fraction of other captions sampled of v that name u's category           –
//! ```
//!
//! Cosines: Radford et al. 2021, arXiv 2103.00020. Decoder reading: Jiang et al. 2024, arXiv 2410.02762. Image drop: the
//! contrast of visual contrastive decoding, Leng et al. 2023, arXiv 2311.16922, with a blank image for a distorted one.
//! Log-probability: uncertainty as in Zhou et al. 2023, arXiv 2310.00754. Agreement: Manakul et al. 2023, arXiv 2303.08896.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use burn::tensor::Device;
use fisao_models::generation::Sampling;
use fisao_models::image::PixelValues;
use fisao_models::parallel::{cores, parallel_chunks};
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::vision_language::{ImageBatch, ImageFeatures, VisionLanguageModel};
use fisao_verifier::mentions::TokenMention;
use fisao_verifier::regions::{ImageEmbedding, RegionWeights, Regions};
use fisao_verifier::scorer::Verifier;
use serde::{Deserialize, Serialize};

use crate::captions::{caption, parts};
use crate::encoding::image_batch;
use crate::error::AlignError;
use crate::features::FeatureCache;
use crate::mentions::{MentionScorer, ScoredResponse};
use crate::run_control::RunControl;
use crate::sampling::{Request, tasks_at_once};
use crate::sharing::{Kind, PackedFeatures, PackedTask, Work, WorkModels, in_parts, perform};
use crate::tasks::{Task, TaskSource};

/// Captions worked on at once by one core.
const BATCH: usize = 16;
/// Layers whose states are read at image positions, from the last one back.
const READ_LAYERS: usize = 1;
/// Other captions of each image that are asked whether they name the same.
pub const OTHER_CAPTIONS: usize = 4;
/// Seeds of the other captions begin here, so that none is that of the captions that are judged.
const OTHER_SEEDS: u64 = 1 << 32;
/// Images without a name that its mean is taken from, at least.
const LEAST_IMAGES: usize = 10;

/// What is known about a mention; the module's table says how each is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Signal {
    /// Cosine of the pooled image.
    Pooled,
    /// The same, centred by name.
    PooledCentred,
    /// The same, in standard deviations.
    PooledStandardised,
    /// Cosine of the pooled image and of the best patch.
    Patches,
    /// The same, centred by name.
    PatchesCentred,
    /// What the decoder's head reads at image positions.
    DecoderReading,
    /// The same, centred by name.
    DecoderReadingCentred,
    /// How far the log-probability falls without the image.
    ImageDrop,
    /// Log-probability of the mention's tokens.
    LogProbability,
    /// Fraction of other captions that name the category.
    Agreement,
}

impl Signal {
    /// All of them, in the order of [`signals`].
    pub const ALL: [Self; 10] = [
        Self::Pooled,
        Self::PooledCentred,
        Self::PooledStandardised,
        Self::Patches,
        Self::PatchesCentred,
        Self::DecoderReading,
        Self::DecoderReadingCentred,
        Self::ImageDrop,
        Self::LogProbability,
        Self::Agreement,
    ];

    /// As files and tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pooled => "pooled",
            Self::PooledCentred => "pooled-centred",
            Self::PooledStandardised => "pooled-standardised",
            Self::Patches => "patches",
            Self::PatchesCentred => "patches-centred",
            Self::DecoderReading => "decoder-reading",
            Self::DecoderReadingCentred => "decoder-reading-centred",
            Self::ImageDrop => "image-drop",
            Self::LogProbability => "log-probability",
            Self::Agreement => "agreement",
        }
    }
}

/// What the decoder made of one caption and its image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderView {
    /// For each token asked for the highest log-probability at an image position, nats.
    pub readings: Vec<f64>,
    /// For each mention the log-probability of its tokens, nats.
    pub log_probabilities: Vec<f64>,
    /// The same with a blank image, nats.
    pub blank_log_probabilities: Vec<f64>,
}

/// All that signals of some captions are computed from, one caption to an image.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// One for each image, in order.
    pub captions: &'a [ScoredResponse],
    /// What the verifier made of each image; with patches, or the patches' signals say what the pooled ones say.
    pub images: &'a [ImageEmbedding],
    /// What the decoder made of each caption; readings of `tokens`.
    pub views: &'a [DecoderView],
    /// Tokens that were read at image positions, sorted.
    pub tokens: &'a [u32],
    /// For each image the categories that each of several other captions names.
    pub others: &'a [Vec<BTreeSet<usize>>],
}

/// All tokens that spell mentions of some captions, sorted: what is to be read at image positions.
pub fn mention_tokens<'a>(captions: impl IntoIterator<Item = &'a ScoredResponse>) -> Vec<u32> {
    let of_caption = |caption: &'a ScoredResponse| {
        caption.mentions.iter().flat_map(|mention| spelling(caption, mention))
    };
    let tokens: BTreeSet<u32> = captions.into_iter().flat_map(of_caption).copied().collect();
    tokens.into_iter().collect()
}

/// The tokens that spell a mention.
fn spelling<'a>(caption: &'a ScoredResponse, mention: &TokenMention) -> &'a [u32] {
    &caption.tokens[mention.tokens.clone()]
}

/// Lets the decoder look at each caption and its image, with every adapter off: one pass over the prompt, and two over prompt
/// and caption, the second with a blank image. `captions[i]` is about task `i` of the source, whose features the cache may hold;
/// `tokens` are read at image positions. `control` is told how many more are done, from any thread.
///
/// # Errors
/// What the source reports about a task, or [`AlignError::Stopped`].
pub fn decoder_views(
    policy: &VisionLanguageModel,
    source: &dyn TaskSource,
    (captions, cache): (&[ScoredResponse], &FeatureCache),
    tokens: &[u32],
    control: RunControl<'_>,
) -> Result<Vec<DecoderView>, AlignError> {
    let device = policy.device();
    let prepare = |caption: &ScoredResponse| {
        Ok(Looked {
            task: source.task(caption.task)?,
            features: cache.features_in_memory(caption.task, &device),
            response: caption.tokens.clone(),
            mentions: caption.mentions.iter().map(|mention| mention.tokens.clone()).collect(),
        })
    };
    let Some(team) = control.team else {
        return decoder_views_here(policy, captions, prepare, tokens, control);
    };
    let alone = RunControl { advance: &|_| {}, ..control };
    let mut views = Vec::with_capacity(captions.len());
    for round in captions.chunks(BATCH * team.parts_at_once(policy.scoring_workers())) {
        let looked = parallel_chunks(round, cores(), |part| part.iter().map(prepare).collect());
        let looked = looked.into_iter().collect::<Result<Vec<Vec<_>>, AlignError>>()?;
        let looked: Vec<Looked> = looked.into_iter().flatten().collect();
        let parts: Vec<&[Looked]> = in_parts(&looked, team.parts()).collect();
        let work = |at: usize| DecoderViews {
            captions: parts[at].iter().map(Looked::packed).collect(),
            tokens: tokens.to_vec(),
        };
        let found = perform(team, WorkModels::of_policy(policy), parts.len(), work, alone)?;
        views.extend(found.into_iter().flatten());
        (control.advance)(round.len());
    }
    Ok(views)
}

/// A part of [`decoder_views`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DecoderViews {
    captions: Vec<Looked<PackedTask, PackedFeatures>>,
    tokens: Vec<u32>,
}

impl Work for DecoderViews {
    const KIND: Kind = Kind::DecoderViews;
    type Answer = Vec<DecoderView>;

    fn done(
        &self,
        models: WorkModels<'_>,
        control: RunControl<'_>,
    ) -> Result<Self::Answer, AlignError> {
        let (Self { captions, tokens }, policy) = (self, models.policy());
        let device = policy.device();
        let prepare = |one: &Looked<PackedTask, PackedFeatures>| Ok(one.unpacked(&device));
        decoder_views_here(policy, captions, prepare, tokens, control)
    }
}

/// The same by this process alone, of captions that `prepare` makes ready.
fn decoder_views_here<T: Sync>(
    policy: &VisionLanguageModel,
    captions: &[T],
    prepare: impl Fn(&T) -> Result<Looked, AlignError> + Sync,
    tokens: &[u32],
    control: RunControl<'_>,
) -> Result<Vec<DecoderView>, AlignError> {
    let base = policy.without_lora();
    let chunks = parallel_chunks(captions, base.scoring_workers(), |chunk| {
        let mut views = Vec::with_capacity(chunk.len());
        for batch in chunk.chunks(BATCH) {
            control.check()?;
            let looked = batch.iter().map(&prepare).collect::<Result<Vec<_>, _>>()?;
            views.extend(views_of(&base, &looked, tokens)?);
            (control.advance)(batch.len());
        }
        Ok(views)
    });
    Ok(chunks.into_iter().collect::<Result<Vec<_>, AlignError>>()?.concat())
}

/// A caption to be looked at. `T` and `F` are what its task and the features of its image are held as.
#[derive(Debug, Serialize, Deserialize)]
struct Looked<T = Task, F = ImageFeatures> {
    task: T,
    /// Where they are known.
    features: Option<F>,
    response: Vec<u32>,
    /// Tokens of each mention.
    mentions: Vec<Range<usize>>,
}

impl Looked {
    fn packed(&self) -> Looked<PackedTask, PackedFeatures> {
        Looked {
            task: PackedTask::of(&self.task),
            features: self.features.as_ref().map(PackedFeatures::of),
            response: self.response.clone(),
            mentions: self.mentions.clone(),
        }
    }
}

impl Looked<PackedTask, PackedFeatures> {
    fn unpacked(&self, device: &Device) -> Looked {
        Looked {
            task: self.task.unpacked(),
            features: self.features.as_ref().map(|packed| packed.on(device)),
            response: self.response.clone(),
            mentions: self.mentions.clone(),
        }
    }
}

/// The same of one batch.
fn views_of(
    base: &VisionLanguageModel,
    captions: &[Looked],
    tokens: &[u32],
) -> Result<Vec<DecoderView>, AlignError> {
    let features = features_of(base, captions)?;
    let mut examples = Vec::with_capacity(captions.len());
    for (image, Looked { task, response, .. }) in captions.iter().enumerate() {
        examples.push(Example { prompt: &task.prompt, image, response });
    }
    let readings = base.read_images(&examples, &features, tokens, READ_LAYERS);
    let seen = mention_log_probabilities(base, &examples, &features, captions)?;
    let (blank, shown) = blanks(base, captions)?;
    let blind: Vec<Example<'_>> = examples
        .iter()
        .zip(shown)
        .map(|(example, image)| Example { image, ..example.clone() })
        .collect();
    let unseen = mention_log_probabilities(base, &blind, &blank, captions)?;
    let views = readings.into_iter().zip(seen.into_iter().zip(unseen)).map(
        |(readings, (log_probabilities, blank_log_probabilities))| DecoderView {
            readings,
            log_probabilities,
            blank_log_probabilities,
        },
    );
    Ok(views.collect())
}

/// Features of the captions' images, of which those that are known are not encoded again.
fn features_of(
    base: &VisionLanguageModel,
    captions: &[Looked],
) -> Result<ImageFeatures, AlignError> {
    let missing: Vec<Task> = captions
        .iter()
        .filter(|caption| caption.features.is_none())
        .map(|caption| caption.task.clone())
        .collect();
    let encode = || base.image_features(image_batch(&missing, &base.device()));
    if missing.len() == captions.len() {
        return Ok(encode()?);
    }
    let encoded = if missing.is_empty() { Vec::new() } else { encode()?.split() };
    let mut encoded = encoded.into_iter();
    let each = captions.iter().map(|one| one.features.clone().or_else(|| encoded.next()));
    Ok(ImageFeatures::cat(each.flatten().collect()))
}

/// What the features of a blank image depend on.
#[derive(PartialEq)]
struct BlankKind<'a> {
    /// Where the image encoder reads it.
    original_size: Option<(u32, u32)>,
    tile_size: (u32, u32),
    values: usize,
    instruction: &'a [u32],
}

/// Features of blank images like the captions', one of each kind and instruction, and which of them stands for each caption. A blank
/// image is the processor's mean colour.
fn blanks(
    base: &VisionLanguageModel,
    captions: &[Looked],
) -> Result<(ImageFeatures, Vec<usize>), AlignError> {
    let reads_size = base.config().family().reads_original_size();
    let mut kinds: Vec<BlankKind<'_>> = Vec::new();
    let mut blanks: Vec<PixelValues> = Vec::new();
    let mut shown = Vec::with_capacity(captions.len());
    for Task { image, instruction, .. } in captions.iter().map(|caption| &caption.task) {
        let kind = BlankKind {
            original_size: reads_size.then_some(image.original_size),
            tile_size: image.tile_size,
            values: image.values.len(),
            instruction,
        };
        let known = kinds.iter().position(|known| *known == kind);
        shown.push(known.unwrap_or(kinds.len()));
        if known.is_none() {
            kinds.push(kind);
            blanks.push(PixelValues { values: vec![0.0; image.values.len()], ..image.clone() });
        }
    }
    let instructions = kinds.iter().map(|kind| kind.instruction.to_vec()).collect();
    let blanks = ImageBatch::new(&blanks, &base.device()).with_instructions(instructions);
    Ok((base.image_features(blanks)?, shown))
}

/// For each caption the log-probability of each of its mentions, nats.
fn mention_log_probabilities(
    base: &VisionLanguageModel,
    examples: &[Example<'_>],
    features: &ImageFeatures,
    captions: &[Looked],
) -> Result<Vec<Vec<f64>>, AlignError> {
    let all = floats(&base.response_scores(examples, features, 1.0)?.log_probs);
    let mut rest = all.as_slice();
    let mut found = Vec::with_capacity(captions.len());
    for caption in captions {
        let (own, others) = rest.split_at(caption.response.len());
        rest = others;
        let of_mention =
            |tokens: &Range<usize>| own[tokens.clone()].iter().map(|&one| f64::from(one)).sum();
        found.push(caption.mentions.iter().map(of_mention).collect());
    }
    Ok(found)
}

/// The categories that each of [`OTHER_CAPTIONS`] captions of every task names, with the policy as it is given: sampled anew, at
/// temperature 1, however the captions were chosen whose mentions are judged. `sampling` is how those were; `length` is
/// that of the longest prompt and response together, tokens.
///
/// # Errors
/// What the source reports about a task; see [`caption`].
pub fn categories_of_others(
    policy: &VisionLanguageModel,
    (scorer, cache): (&mut MentionScorer, &mut FeatureCache),
    source: &dyn TaskSource,
    length: usize,
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Result<Vec<Vec<BTreeSet<usize>>>, AlignError> {
    let (samples, seed) = (OTHER_CAPTIONS, OTHER_SEEDS.wrapping_add(sampling.seed));
    let sampling = &Sampling { temperature: 1.0, seed, ..sampling.clone() };
    let mut found = vec![Vec::with_capacity(samples); source.count()];
    for part in parts(source, tasks_at_once(policy, length, control.team)) {
        let (first, tasks) = part?;
        let streams: Vec<u64> = (first..first + tasks.len()).map(|at| at as u64).collect();
        let encoded = cache.encode_from(policy, &scorer.verifier, (&tasks, first), control)?;
        let (tasks, encoded, streams) = (&tasks[..], &encoded, &streams[..]);
        let request = Request { tasks, encoded, streams, samples, sampling, control };
        for written in caption(policy, scorer, &request)? {
            let named = written.mentions.iter().map(|mention| mention.category).collect();
            found[first + written.task].push(named);
        }
    }
    Ok(found)
}

/// Mean and standard deviation of a score over images that do not mention its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation (n).
    pub deviation: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        Self { mean, deviation: square.sqrt() }
    }

    /// Of several names together, for those that are mentioned nearly everywhere.
    fn usual<'a>(known: impl Iterator<Item = &'a Self>) -> Self {
        let known: Vec<&Self> = known.collect();
        let count = known.len().max(1) as f64;
        let mean = known.iter().map(|spread| spread.mean).sum::<f64>() / count;
        let deviation = known.iter().map(|spread| spread.deviation).sum::<f64>() / count;
        Self { mean, deviation: if deviation > 0.0 { deviation } else { 1.0 } }
    }
}

/// What a name scores where it is not mentioned, by name: what its scores are centred by.
#[derive(Clone, Debug, PartialEq)]
struct Spreads<Name> {
    known: BTreeMap<Name, Spread>,
    usual: Spread,
}

impl<Name: Ord + Clone> Spreads<Name> {
    /// `names` with their categories, `named[i]` the categories that the caption of image `i` names.
    fn of(
        names: &BTreeMap<Name, usize>,
        named: &[BTreeSet<usize>],
        score: impl Fn(usize, &Name) -> f64,
    ) -> Self {
        let mut known = BTreeMap::new();
        for (name, category) in names {
            let others = (0..named.len()).filter(|&image| !named[image].contains(category));
            let values: Vec<f64> = others.map(|image| score(image, name)).collect();
            if values.len() >= LEAST_IMAGES.min(named.len()) {
                known.insert(name.clone(), Spread::of(&values));
            }
        }
        let usual = Spread::usual(known.values());
        Self { known, usual }
    }

    fn get(&self, name: &Name) -> Spread {
        let found = self.known.get(name).copied().unwrap_or(self.usual);
        if found.deviation > 0.0 { found } else { Spread { mean: found.mean, ..self.usual } }
    }
}

/// What the names of some captions score where they are not mentioned, from calibration images.
#[derive(Clone, Debug, PartialEq)]
pub struct NameScales {
    pooled: Spreads<String>,
    patches: Spreads<String>,
    reading: Spreads<Vec<u32>>,
}

impl NameScales {
    /// Looks every name that `captions` mention up in the calibration images whose captions do not name its category. The
    /// verifier must know the names.
    pub fn new<'a>(
        calibration: &Evidence<'_>,
        verifier: &Verifier,
        captions: impl IntoIterator<Item = &'a ScoredResponse>,
    ) -> Self {
        let (mut forms, mut spellings) = (BTreeMap::new(), BTreeMap::new());
        for caption in captions {
            for mention in &caption.mentions {
                forms.insert(mention.form.clone(), mention.category);
                spellings.insert(spelling(caption, mention).to_vec(), mention.category);
            }
        }
        let of_caption = |caption: &ScoredResponse| {
            caption.mentions.iter().map(|mention| mention.category).collect()
        };
        let named: Vec<BTreeSet<usize>> = calibration.captions.iter().map(of_caption).collect();
        let in_regions = |regions| {
            Spreads::of(&forms, &named, |image, form: &String| {
                cosine(verifier, &calibration.images[image], form, regions)
            })
        };
        Self {
            pooled: in_regions(Regions::Whole),
            patches: in_regions(Regions::Patches),
            reading: Spreads::of(&spellings, &named, |image, spelling: &Vec<u32>| {
                reading(&calibration.views[image], calibration.tokens, spelling)
            }),
        }
    }
}

/// Cosine of a known name with regions of an image, neither centred nor noisy.
fn cosine(verifier: &Verifier, image: &ImageEmbedding, form: &str, regions: Regions) -> f64 {
    let text = verifier.embeddings().get(form).expect("names are learned before they are scored");
    let regions = if image.parts.is_empty() { Regions::Whole } else { regions };
    image.score(text, regions, RegionWeights::default())
}

/// Mean over the tokens of a spelling of what was read of each.
fn reading(view: &DecoderView, tokens: &[u32], spelling: &[u32]) -> f64 {
    let of_token = |token: &u32| {
        let column = tokens.binary_search(token).expect("tokens of mentions are read");
        view.readings[column]
    };
    spelling.iter().map(of_token).sum::<f64>() / spelling.len().max(1) as f64
}

/// Fraction of other captions of an image, by the categories they name, that name a mention's.
pub(crate) fn agreement(mention: &TokenMention, others: &[BTreeSet<usize>]) -> f64 {
    let agreeing = others.iter().filter(|named| named.contains(&mention.category)).count();
    agreeing as f64 / others.len().max(1) as f64
}

/// The signals of every mention, caption by caption, each in the order of [`Signal::ALL`].
///
/// # Panics
/// The verifier does not know a name, or a token of a mention was not read.
pub fn signals(evidence: &Evidence<'_>, verifier: &Verifier, scales: &NameScales) -> Vec<Vec<f64>> {
    let mut rows = Vec::new();
    for (index, caption) in evidence.captions.iter().enumerate() {
        let (image, view) = (&evidence.images[caption.task], &evidence.views[index]);
        let others = &evidence.others[caption.task];
        for (at, mention) in caption.mentions.iter().enumerate() {
            let pooled = cosine(verifier, image, &mention.form, Regions::Whole);
            let patches = cosine(verifier, image, &mention.form, Regions::Patches);
            let own = spelling(caption, mention);
            let read = reading(view, evidence.tokens, own);
            let (pooled_scale, patches_scale) =
                (scales.pooled.get(&mention.form), scales.patches.get(&mention.form));
            let log_probability = view.log_probabilities[at];
            rows.push(vec![
                pooled,
                pooled - pooled_scale.mean,
                (pooled - pooled_scale.mean) / pooled_scale.deviation,
                patches,
                patches - patches_scale.mean,
                read,
                read - scales.reading.get(&own.to_vec()).mean,
                log_probability - view.blank_log_probabilities[at],
                log_probability,
                agreement(mention, others),
            ]);
        }
    }
    rows
}
