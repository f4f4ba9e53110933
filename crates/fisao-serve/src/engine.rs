//! What answers requests, however they came: models that are loaded once.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use burn::tensor::Device;
use fisao_align::RunControl;
use fisao_align::encoding::{encode_on, image_batch};
use fisao_align::guided::{Guide, GuidedConfig, GuidedResponse, sample_guided};
use fisao_align::mentions::MentionScorer;
use fisao_align::sampling::{self, tasks_at_once};
use fisao_align::tasks::Task;
use fisao_formats::images::{decode_image, open_image};
use fisao_models::generation::{Generated, Prompt, Sampling};
use fisao_models::image::PixelValues;
use fisao_models::parallel::{parallel_chunks, workers_on};
use fisao_runs::bundle::{
    AloneSource, LoadedVerifier, ModelSource, Pair, PairSource, Policy, Views, warn_of_photographs,
};
use fisao_runs::failure::Refusal;
use fisao_runs::score_settings::ScoreSettings;
use fisao_runs::scorer::{ScoredMention, Scorer, SpelledMention};
use fisao_runs::verify::HeatMapRows;
use fisao_runs::vocabulary::{Vocabulary, usual_list};
use fisao_runs::{Reporter, calibrations};
use fisao_verifier::calibration::Calibration;
use fisao_verifier::mentions::ObjectVocabulary;
use fisao_verifier::regions::ImageEmbedding;
use fisao_verifier::rewards::{self, Response, RewardConfig, RewardRule};
use fisao_verifier::scorer::Verifier;
use image::RgbImage;

use crate::protocol::{
    Answer, Caption, CaptionParams, CaptionToken, Characters, ErrorCode, Failure, FoundMention,
    Greeting, ImageSource, JudgedMention, MentionsParams, NameScore, PROTOCOL, Request,
    RewardedSample, ScoreParams, TokenRewardsParams, TokenSample, Verdict, VerifyParams, params,
};

/// Images encoded at once by one core.
const BATCH: usize = 16;

/// Most captions of one image that one request may ask for.
pub const MOST_SAMPLES: usize = 256;

/// What to load. Without a model and a verifier it is the built-in pair; with one of the two, only that, unless there is a calibration.
#[derive(Clone, Debug)]
pub struct EngineSource {
    /// The model, its adapter and its verifier.
    pub pair: PairSource,
    /// What turns scores into probabilities and rewards.
    pub calibration: Option<PathBuf>,
    /// File or name of the list of objects.
    pub vocabulary: Option<PathBuf>,
    /// How names are scored; `None` is as the calibration says, or as usual.
    pub scoring: Option<ScoreSettings>,
    /// How scores become rewards.
    pub rewards: RewardConfig,
    /// Which files requests may name.
    pub files: FileAccess,
}

/// Which image files a request may name by their path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FileAccess {
    /// None: images come with the request.
    #[default]
    None,
    /// Those in a folder, symbolic links followed.
    Folder(PathBuf),
    /// Any that the process can read.
    All,
}

/// Models that are loaded.
pub struct Engine {
    speaker: Option<Speaker>,
    judge: Option<Judge>,
    vocabulary: ObjectVocabulary,
    vocabulary_name: String,
    files: FileAccess,
    device: Device,
}

/// What writes captions.
struct Speaker {
    policy: Policy,
    /// The same without its adapter, if it has one.
    base: Option<Policy>,
}

/// What says which words are true.
struct Judge {
    loaded: LoadedVerifier,
    /// Looks at images.
    eyes: Verifier,
    /// Learns names as they come up.
    scorer: Mutex<Scorer>,
    /// With a calibration.
    rule: Option<RewardRule>,
    calibration: Option<Calibration>,
    /// What it needs of images besides the model's own pixels, where there is a model.
    beside: Option<Views>,
}

/// An image that was read, in the verifier's views.
struct Seen {
    embedding: ImageEmbedding,
    whole: PixelValues,
}

impl Engine {
    /// Loads everything.
    ///
    /// # Errors
    /// `anyhow` errors of loading, as the commands give them.
    pub fn open(
        source: &EngineSource,
        device: &Device,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let EngineSource { pair, calibration, vocabulary, scoring, rewards, files } = source;
        if let FileAccess::Folder(folder) = files
            && !folder.is_dir()
        {
            let message = format!("--images {}: there is no such folder", folder.display());
            return Err(Refusal::new(message).into());
        }
        let calibration = calibration.as_deref().map(calibrations::read).transpose()?;
        let settings = scoring
            .clone()
            .unwrap_or_else(|| ScoreSettings::chosen(&[], None, None, calibration.as_ref()));
        let nothing_named = pair.model.model.is_none() && pair.verifier.is_none();
        let speaks = pair.model.model.is_some() || nothing_named;
        let judges = pair.verifier.is_some() || calibration.is_some() || nothing_named;
        let embedded = nothing_named;
        let named = vocabulary.as_deref();
        let words = Vocabulary::chosen(named, embedded, calibration.as_ref())?;
        let vocabulary_name = named.map_or_else(
            || usual_list(embedded, calibration.as_ref()).to_owned(),
            |path| path.display().to_string(),
        );
        let (policy, verifier) = if speaks && judges {
            let Pair { policy, verifier, views } = Pair::open(pair, settings, device, reporter)?;
            (Some(policy), Some((verifier, views)))
        } else if speaks {
            (Some(Policy::open(&pair.model, pair.world, device, reporter)?), None)
        } else {
            let ModelSource { model, .. } = pair.model.clone();
            let alone = AloneSource { verifier: pair.verifier.clone(), model, world: pair.world };
            (None, Some((alone.open(settings, device, reporter)?, None)))
        };
        let speaker = policy.map(|policy| Speaker { base: without_adapter(&policy), policy });
        let judge =
            verifier.map(|loaded| Judge::new(loaded, &words, calibration, rewards, reporter));
        Ok(Self {
            speaker,
            judge: judge.transpose()?,
            vocabulary: words.for_mentions()?,
            vocabulary_name,
            files: files.clone(),
            device: device.clone(),
        })
    }

    /// What a server says first.
    pub fn greeting(&self) -> Greeting {
        let (speaker, judge) = (self.speaker.as_ref(), self.judge.as_ref());
        let mut methods = vec!["mentions"];
        methods.extend(speaker.map(|_| "caption"));
        methods.extend(judge.iter().flat_map(|_| ["score", "verify"]));
        methods.extend(judge.and_then(|judge| judge.rule.as_ref()).map(|_| "token_rewards"));
        methods.sort_unstable();
        Greeting {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION"),
            model: speaker.map(|speaker| speaker.policy.name.clone()),
            adapter: speaker.and_then(|speaker| speaker.policy.adapter_name()),
            verifier: judge.map(|judge| judge.loaded.name.clone()),
            calibrated: judge.is_some_and(|judge| judge.rule.is_some()),
            unit: judge.map(|judge| judge.loaded.verifier.unit()),
            vocabulary: self.vocabulary_name.clone(),
            methods,
        }
    }

    /// Answers a request.
    pub fn answer(&self, request: Request) -> Result<Answer, Failure> {
        let Request { method, params: given, .. } = request;
        match method.as_str() {
            "mentions" => Ok(self.mentions(&params(given)?)),
            "score" => self.score(params(given)?),
            "verify" => self.verify(params(given)?),
            "token_rewards" => self.token_rewards(params(given)?),
            "caption" => self.caption(params(given)?),
            _ => {
                let message = format!("there is no method '{method}'");
                let all = "mentions, score, verify, token_rewards, caption";
                Err(Failure::new(ErrorCode::UnknownMethod, message).hint(format!("one of: {all}")))
            }
        }
    }

    /// What texts name.
    pub fn mentions(&self, params: &MentionsParams) -> Answer {
        let of = |text: &String| {
            let characters = Characters::of(text);
            let found = self.vocabulary.mentions(text).map(|mention| {
                let [start, end] = characters.characters(&mention.span);
                FoundMention {
                    start,
                    end,
                    text: text[mention.span].to_owned(),
                    category: self.vocabulary.category(mention.category).to_owned(),
                    form: mention.form.to_owned(),
                    negated: mention.negated,
                }
            });
            found.collect()
        };
        Answer::Mentions { mentions: params.texts.iter().map(of).collect() }
    }

    /// Scores of names with an image.
    pub fn score(&self, params: ScoreParams) -> Result<Answer, Failure> {
        let judge = self.judge()?;
        let ScoreParams { image, names } = params;
        let seen = self.look(judge, &[&image])?.swap_remove(0);
        let mut scorer = judge.scorer();
        let score = |name: String| {
            let scored = scorer.name(&seen.embedding, &name).map_err(|error| invalid(&error))?;
            let (score, p_hallucinated) = (scored.score, scored.p_hallucinated);
            Ok(NameScore { name, score, p_hallucinated })
        };
        let scores = names.into_iter().map(score).collect::<Result<_, Failure>>()?;
        Ok(Answer::Score { unit: judge.loaded.verifier.unit(), scores })
    }

    /// Verdicts on captions.
    pub fn verify(&self, params: VerifyParams) -> Result<Answer, Failure> {
        let judge = self.judge()?;
        let VerifyParams { samples, threshold, heat_maps } = params;
        if !(0.0..=1.0).contains(&threshold) {
            let message = format!("threshold is {threshold}; a probability is from 0 to 1");
            return Err(Failure::new(ErrorCode::InvalidParams, message));
        }
        let images: Vec<&ImageSource> = samples.iter().map(|sample| &sample.image).collect();
        let seen = self.look_once(judge, &images)?;
        let mut scorer = judge.scorer();
        let mut verdicts = Vec::with_capacity(samples.len());
        for sample in &samples {
            let seen = &seen[&sample.image];
            let scored = scorer.caption(&seen.embedding, &sample.caption);
            let scored = scored.map_err(|error| invalid(&error))?;
            let mut maps = Vec::new();
            if heat_maps {
                let found =
                    scorer.heat_maps(&seen.whole, &scored).map_err(|error| invalid(&error))?;
                maps = found.unwrap_or_default();
            }
            let mut mentions: Vec<JudgedMention> =
                scored.mentions.into_iter().map(|mention| judged(mention, threshold)).collect();
            let region = judge.loaded.views.region(seen.whole.original_size);
            for (mention, map) in mentions.iter_mut().zip(maps) {
                mention.heat_map = Some(HeatMapRows::new(map, region));
            }
            let count =
                mentions.iter().filter(|mention| mention.hallucinated == Some(true)).count();
            verdicts.push(Verdict {
                caption: sample.caption.clone(),
                mentions,
                hallucinated: judge.rule.as_ref().map(|_| count),
            });
        }
        Ok(Answer::Verify { unit: judge.loaded.verifier.unit(), samples: verdicts })
    }

    /// Up to which byte of a text that is still being written its words are complete.
    pub(crate) fn settled(&self, text: &str) -> usize {
        self.vocabulary.settled(text)
    }

    /// Verdicts on the words of a text that is still being written, or is done.
    pub(crate) fn judge_text(
        &self,
        image: &ImageEmbedding,
        text: &str,
    ) -> Result<Vec<JudgedMention>, Failure> {
        let scored =
            self.judge()?.scorer().caption(image, text).map_err(|error| invalid(&error))?;
        Ok(scored.mentions.into_iter().map(|mention| judged(mention, 0.5)).collect())
    }

    /// Rewards of the tokens of completions.
    pub fn token_rewards(&self, params: TokenRewardsParams) -> Result<Answer, Failure> {
        let judge = self.judge()?;
        let rule = judge.rule.as_ref().ok_or_else(uncalibrated)?;
        let samples = params.samples;
        let spans = samples.iter().enumerate().map(|(at, sample)| byte_spans(at, sample));
        let spans = spans.collect::<Result<Vec<_>, Failure>>()?;
        let images: Vec<&ImageSource> = samples.iter().map(|sample| &sample.image).collect();
        let seen = self.look_once(judge, &images)?;
        let mut scorer = judge.scorer();
        let of = |(sample, spans): (&TokenSample, &Vec<Range<usize>>)| {
            reward(&mut scorer, rule, &seen[&sample.image].embedding, sample, spans)
        };
        let rewarded = samples.iter().zip(&spans).map(of).collect::<anyhow::Result<_>>();
        Ok(Answer::TokenRewards { samples: rewarded.map_err(|error| invalid(&error))? })
    }

    /// Captions of images.
    pub fn caption(&self, params: CaptionParams) -> Result<Answer, Failure> {
        let CaptionParams {
            images,
            prompt,
            max_new_tokens,
            temperature,
            seed,
            samples,
            adapter,
            guided,
        } = params;
        let policy = self.policy(adapter)?;
        if !(1..=MOST_SAMPLES).contains(&samples) {
            let message = format!("samples is {samples}; it must be from 1 to {MOST_SAMPLES}");
            return Err(Failure::new(ErrorCode::InvalidParams, message));
        }
        let sampling = checked_sampling(max_new_tokens, temperature, seed)?;
        let encoded = policy.prompt(&prompt).map_err(|error| invalid(&error))?;
        let task = |(at, image): (usize, &ImageSource)| {
            let image = self.read(image)?;
            policy.task(at.to_string(), &image, &encoded).map_err(|error| invalid(&error.into()))
        };
        let tasks = images.iter().enumerate().map(task).collect::<Result<Vec<Task>, Failure>>()?;
        let longest = tasks.iter().map(|task| task.prompt.len()).max().unwrap_or(0);
        policy.check_length(longest, max_new_tokens).map_err(|error| {
            let failure = invalid(&error);
            Failure { code: ErrorCode::TooLarge, ..failure }
        })?;
        let written = if let Some(precision) = guided {
            self.guided(policy, precision, (&tasks, &images), samples, &sampling)?
        } else {
            let written = write(policy, &tasks, samples, &sampling).into_iter();
            written.map(|written| spelled(policy, &written)).collect::<Result<_, Failure>>()?
        };
        let mut written = written.into_iter();
        let captions = tasks.iter().map(|_| written.by_ref().take(samples).collect());
        Ok(Answer::Captions { captions: captions.collect() })
    }

    /// Captions in the writing of which doubtful words are taken back; `images` are those of the tasks.
    pub(crate) fn guided(
        &self,
        policy: &Policy,
        precision: f64,
        (tasks, images): (&[Task], &[ImageSource]),
        samples: usize,
        sampling: &Sampling,
    ) -> Result<Vec<Caption>, Failure> {
        let judge = self.judge()?;
        let calibration = judge.calibration.as_ref().ok_or_else(uncalibrated)?;
        let config = GuidedConfig { precision, ..GuidedConfig::default() };
        let guide = Guide::new(config, calibration).map_err(|error| invalid(&error.into()))?;
        let mut tasks = tasks.to_vec();
        if let Some(views) = &judge.beside {
            for (task, image) in tasks.iter_mut().zip(images) {
                task.verifier_images = views.of(&self.read(image)?);
            }
        }
        let scorer = MentionScorer {
            tokenizer: Arc::clone(&policy.tokenizer),
            vocabulary: self.vocabulary.clone(),
            verifier: judge.scorer().verifier().clone(),
        };
        let nobody = |_: usize| {};
        let control = RunControl::new(&nobody);
        let streams: Vec<u64> = (0..tasks.len() as u64).collect();
        let encoded = encode_on(&policy.model, &scorer.verifier, &tasks, control);
        let encoded = encoded.map_err(|error| invalid(&error.into()))?;
        let request = sampling::Request {
            tasks: &tasks,
            encoded: &encoded,
            streams: &streams,
            samples,
            sampling,
            control,
        };
        let written = sample_guided(&policy.model, &scorer, &guide, &request);
        let written = written.map_err(|error| invalid(&error.into()))?.into_iter();
        let spelled = |GuidedResponse { response, guidance }| {
            Ok(Caption { guided: Some(guidance), ..spelled(policy, &response)? })
        };
        written.map(spelled).collect()
    }

    /// The model, with its adapter or without.
    pub(crate) fn policy(&self, adapter: bool) -> Result<&Policy, Failure> {
        let speaker = self.speaker.as_ref().ok_or_else(|| {
            Failure::new(ErrorCode::Unavailable, "captions need a model, and none was given")
                .hint("start the server with --model")
        })?;
        let base = speaker.base.as_ref().filter(|_| !adapter);
        Ok(base.unwrap_or(&speaker.policy))
    }

    /// Name of the model, and whether it has an adapter.
    pub(crate) fn model_name(&self) -> Option<(&str, bool)> {
        let speaker = self.speaker.as_ref()?;
        Some((&speaker.policy.name, speaker.base.is_some()))
    }

    /// A question about an image, as the model takes it.
    pub(crate) fn task(
        &self,
        adapter: bool,
        image: &ImageSource,
        prompt: &str,
    ) -> Result<Task, Failure> {
        let policy = self.policy(adapter)?;
        let image = self.read(image)?;
        let encoded = policy.prompt(prompt).map_err(|error| invalid(&error))?;
        policy.task(String::new(), &image, &encoded).map_err(|error| invalid(&error.into()))
    }

    /// Longest answer to a prompt of this length, tokens.
    pub(crate) fn room(&self, adapter: bool, prompt: usize) -> Result<usize, Failure> {
        let config = self.policy(adapter)?.model.language_model().config();
        let room = config.max_position_embeddings.saturating_sub(prompt);
        if room == 0 {
            let message = format!(
                "the prompt with its image takes {prompt} tokens, and the model has {} positions",
                config.max_position_embeddings
            );
            return Err(Failure::new(ErrorCode::TooLarge, message).hint("shorten the prompt"));
        }
        Ok(room)
    }

    /// Whether words can be verified.
    pub(crate) fn check_verifier(&self) -> Result<(), Failure> {
        self.judge().map(|_| ())
    }

    fn judge(&self) -> Result<&Judge, Failure> {
        self.judge.as_ref().ok_or_else(|| {
            Failure::new(ErrorCode::Unavailable, "verdicts need a verifier, and none was given")
                .hint("start the server with --verifier, or with --calibration beside --model")
        })
    }

    /// An image as it is.
    pub(crate) fn read(&self, image: &ImageSource) -> Result<RgbImage, Failure> {
        let unreadable = |error: anyhow::Error| Failure::of(ErrorCode::InvalidImage, &error);
        match image {
            ImageSource::Path(path) => {
                self.check_access(path)?;
                open_image(path).map_err(|error| unreadable(error.into()))
            }
            ImageSource::Base64(text) => {
                let bytes = STANDARD.decode(text.trim_ascii()).map_err(|error| {
                    Failure::new(
                        ErrorCode::InvalidImage,
                        format!("an image is not base64: {error}"),
                    )
                })?;
                decode_image("an image of the request", &bytes)
                    .map_err(|error| unreadable(error.into()))
            }
        }
    }

    fn check_access(&self, path: &Path) -> Result<(), Failure> {
        let refused = |what: &str| {
            let message = format!("{}: {what}", path.display());
            Err(Failure::new(ErrorCode::InvalidImage, message)
                .hint("send the image itself, as base64"))
        };
        match &self.files {
            FileAccess::All => Ok(()),
            FileAccess::None => refused("this server reads no files"),
            FileAccess::Folder(folder) => {
                let inside = |path: &Path| {
                    Some(path.canonicalize().ok()?.starts_with(folder.canonicalize().ok()?))
                };
                match inside(path) {
                    Some(true) => Ok(()),
                    // Whether a file outside exists is nobody's business.
                    Some(false) | None => {
                        refused("there is no such file in the folder that this server reads")
                    }
                }
            }
        }
    }

    /// What the verifier makes of different images.
    fn look(&self, judge: &Judge, images: &[&ImageSource]) -> Result<Vec<Seen>, Failure> {
        let chunks = parallel_chunks(images, workers_on(&self.device), |chunk| {
            let mut seen = Vec::with_capacity(chunk.len());
            for batch in chunk.chunks(BATCH) {
                let views = batch.iter().map(|image| Ok(judge.loaded.views.of(&self.read(image)?)));
                let views = views.collect::<Result<Vec<_>, Failure>>()?;
                let embeddings = judge.eyes.embed_views(&views);
                let embeddings = embeddings
                    .map_err(|error| Failure::of(ErrorCode::InvalidImage, &error.into()))?;
                let wholes = views.into_iter().map(|mut views| views.swap_remove(0));
                let pairs = embeddings.into_iter().zip(wholes);
                seen.extend(pairs.map(|(embedding, whole)| Seen { embedding, whole }));
            }
            Ok(seen)
        });
        Ok(chunks.into_iter().collect::<Result<Vec<_>, Failure>>()?.into_iter().flatten().collect())
    }

    /// The same of images of which some may be one and the same.
    fn look_once<'a>(
        &self,
        judge: &Judge,
        images: &[&'a ImageSource],
    ) -> Result<HashMap<&'a ImageSource, Seen>, Failure> {
        let mut different: Vec<&ImageSource> = Vec::new();
        let mut known: HashSet<&ImageSource> = HashSet::new();
        for &image in images {
            if known.insert(image) {
                different.push(image);
            }
        }
        let seen = self.look(judge, &different)?;
        Ok(different.into_iter().zip(seen).collect())
    }

    /// What the verifier makes of an image, where there is one.
    pub(crate) fn embed(&self, image: &ImageSource) -> Result<ImageEmbedding, Failure> {
        Ok(self.look(self.judge()?, &[image])?.swap_remove(0).embedding)
    }

    /// Warns on the terminal of images that embedded models were not made for.
    pub fn warn_of(&self, size: (u32, u32), reporter: &Reporter) {
        let embedded = self.speaker.as_ref().is_some_and(|speaker| speaker.policy.is_embedded());
        warn_of_photographs(embedded, [size], reporter);
    }
}

impl Judge {
    fn new(
        (loaded, beside): (LoadedVerifier, Option<Views>),
        words: &Vocabulary,
        calibration: Option<Calibration>,
        rewards: &RewardConfig,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let rule = calibration.as_ref().map(|calibration| RewardRule::new(rewards, calibration));
        let rule = rule.transpose()?;
        let mut scorer = Scorer::new(&loaded, words, calibration.clone(), reporter)?;
        scorer.recall(&loaded, reporter)?;
        let eyes = scorer.verifier().clone();
        Ok(Self { loaded, eyes, scorer: Mutex::new(scorer), rule, calibration, beside })
    }

    fn scorer(&self) -> MutexGuard<'_, Scorer> {
        // A panic leaves it as it was: names are added whole.
        self.scorer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The model without its adapter, if it has one.
fn without_adapter(policy: &Policy) -> Option<Policy> {
    policy.adapter_name()?;
    let mut base = policy.clone();
    base.model = policy.model.without_lora();
    Some(base)
}

fn uncalibrated() -> Failure {
    Failure::new(
        ErrorCode::Unavailable,
        "rewards and guidance need a calibration, and none was given",
    )
    .hint("start the server with --calibration; `fisao calibrate` writes one")
}

fn invalid(error: &anyhow::Error) -> Failure {
    Failure::of(ErrorCode::InvalidParams, error)
}

/// Checked settings of sampling.
pub(crate) fn checked_sampling(
    max_new_tokens: usize,
    temperature: f64,
    seed: u64,
) -> Result<Sampling, Failure> {
    if max_new_tokens == 0 {
        return Err(Failure::new(
            ErrorCode::InvalidParams,
            "max_new_tokens is 0; it must be at least 1",
        ));
    }
    if temperature != 0.0 && !(0.01..=100.0).contains(&temperature) {
        let message = format!("temperature is {temperature}; it must be 0, or from 0.01 to 100");
        return Err(Failure::new(ErrorCode::InvalidParams, message));
    }
    Ok(Sampling { max_new_tokens, temperature, seed })
}

/// Captions of all tasks, those of one adjacent.
fn write(policy: &Policy, tasks: &[Task], samples: usize, sampling: &Sampling) -> Vec<Generated> {
    let model = &policy.model;
    let longest = tasks.iter().map(|task| task.prompt.len()).max().unwrap_or(0);
    let room = tasks_at_once(model, longest + sampling.max_new_tokens);
    let workers = model.decoding_workers().min(tasks.len().max(1));
    let at_once = (room / workers / samples).clamp(1, 32);
    let places: Vec<usize> = (0..tasks.len()).collect();
    let chunks = parallel_chunks(&places, workers, |chunk| {
        let mut written = Vec::with_capacity(chunk.len() * samples);
        for batch in chunk.chunks(at_once) {
            let asked = &tasks[batch[0]..=batch[batch.len() - 1]];
            let features = model.image_features(image_batch(asked, &model.device()));
            let prompts: Vec<Prompt> = asked
                .iter()
                .zip(batch)
                .enumerate()
                .map(|(image, (task, &at))| Prompt {
                    ids: task.prompt.clone(),
                    image,
                    stream: at as u64,
                })
                .collect();
            written.extend(model.generate(&prompts, &features, samples, sampling));
        }
        written
    });
    chunks.concat()
}

/// A caption with what each token spells.
pub(crate) fn spelled(policy: &Policy, written: &Generated) -> Result<Caption, Failure> {
    if !written.is_finite() {
        let message = "the model's logits are not finite: its weights, or the image, are damaged";
        return Err(Failure::new(ErrorCode::Internal, message));
    }
    let decoded =
        policy.tokenizer.decode(&written.tokens).map_err(|error| invalid(&error.into()))?;
    let tokens = written.tokens.iter().zip(&written.logprobs).zip(decoded.spans);
    let tokens = tokens.map(|((&id, &logprob), span)| CaptionToken {
        id,
        text: decoded.text[span].to_owned(),
        logprob,
    });
    let tokens = tokens.collect();
    Ok(Caption { tokens, text: decoded.text, finish_reason: written.finish, guided: None })
}

fn judged(mention: ScoredMention, threshold: f64) -> JudgedMention {
    let p_hallucinated = mention.p_hallucinated.filter(|_| !mention.negated);
    JudgedMention {
        mention: FoundMention {
            start: mention.start,
            end: mention.end,
            text: mention.text,
            category: mention.category,
            form: mention.form,
            negated: mention.negated,
        },
        score: mention.score,
        p_hallucinated,
        hallucinated: p_hallucinated.map(|p| p >= threshold),
        tokens: None,
        heat_map: None,
    }
}

/// Bytes of a sample's text that each token spells.
fn byte_spans(at: usize, sample: &TokenSample) -> Result<Vec<Range<usize>>, Failure> {
    let characters = Characters::of(&sample.text);
    let bytes = |(token, &span): (usize, &[usize; 2])| {
        characters.bytes(span).ok_or_else(|| {
            let [start, end] = span;
            let message = format!(
                "samples[{at}].token_spans[{token}] is [{start}, {end}], and the text has {} characters",
                sample.text.chars().count()
            );
            Failure::new(ErrorCode::InvalidParams, message)
                .hint("spans count characters of the text, not bytes, and end behind the last one")
        })
    };
    sample.token_spans.iter().enumerate().map(bytes).collect()
}

fn reward(
    scorer: &mut Scorer,
    rule: &RewardRule,
    image: &ImageEmbedding,
    sample: &TokenSample,
    spans: &[Range<usize>],
) -> anyhow::Result<RewardedSample> {
    let found = scorer.response(image, &sample.text, spans)?;
    let told = found.iter().filter(|spelled| !spelled.mention.negated);
    let scored: Vec<rewards::ScoredMention> = told
        .map(|SpelledMention { mention, category, tokens }| rewards::ScoredMention {
            category: *category,
            tokens: tokens.clone(),
            score: mention.score,
        })
        .collect();
    let needed = rule.needs_sentence_score() && !spans.is_empty();
    let sentence_score = needed.then(|| scorer.sentence(image, &sample.text)).transpose()?;
    let rewards = if spans.is_empty() {
        Vec::new()
    } else {
        rule.token_rewards(&Response {
            mentions: &scored,
            token_count: spans.len(),
            truncated: sample.truncated,
            sentence_score,
        })
    };
    let mentions = found.into_iter().map(|SpelledMention { mention, tokens, .. }| JudgedMention {
        tokens: Some([tokens.start, tokens.end]),
        ..judged(mention, 0.5)
    });
    Ok(RewardedSample { rewards, mentions: mentions.collect() })
}
