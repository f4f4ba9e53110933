//! What answers requests, however they came: models that are loaded once.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fisao_align::RunControl;
use fisao_align::encoding::{EncodedImages, encode, encode_on, image_batch};
use fisao_align::guided::{Guide, GuidedConfig, GuidedResponse, sample_guided};
use fisao_align::mentions::MentionScorer;
use fisao_align::sampling::{Request as SampleRequest, generate};
use fisao_align::tasks::{Task, TaskList};
use fisao_formats::chat_template::PromptPart;
use fisao_formats::images::{decode_image, open_image};
use fisao_models::generation::{Generated, Sampling};
use fisao_models::vision_language::ImageFeatures;
use fisao_runs::Reporter;
use fisao_runs::bundle::{
    AloneSource, LoadedVerifier, ModelSource, NAME_MODELS, Pair, PairSource, Policy, Views,
    embedded_remark,
};
use fisao_runs::device::OpenDevice;
use fisao_runs::failure::Refusal;
use fisao_runs::score_settings::ScoreSettings;
use fisao_runs::scorer::{Scorer, SeenImage, SpelledMention, encode_images};
use fisao_runs::verify::{self, Judged};
use fisao_runs::vocabulary::{Vocabulary, usual_list};
use fisao_verifier::calibration::Calibration;
use fisao_verifier::mentions::ObjectVocabulary;
use fisao_verifier::regions::ImageEmbedding;
use fisao_verifier::rewards::{self, Response, RewardConfig, RewardRule};
use fisao_verifier::scorer::Verifier;
use image::RgbImage;

use crate::openai::Asked;
use crate::protocol::{
    Answer, Caption, CaptionParams, Characters, ErrorCode, Failure, FoundMention, Greeting,
    ImageSource, MentionsParams, NameScore, PROTOCOL, Request, RewardedSample, ScoreParams,
    TokenRewardsParams, TokenSample, Verdict, VerifyParams, params,
};

/// Longest answer where a request does not say, tokens.
const USUAL_LENGTH: usize = 256;

/// Most captions of one image that one request may ask for.
pub const MOST_SAMPLES: usize = 256;

/// What to load. Without a model and a verifier it is the built-in pair; with one of the two, only that, unless there is a calibration.
#[derive(Clone, Debug)]
pub struct EngineSource {
    /// The model, its adapter and its verifier.
    pub pair: PairSource,
    /// What turns scores into probabilities and rewards.
    pub calibration: Option<Calibration>,
    /// File or name of the list of objects.
    pub vocabulary: Option<PathBuf>,
    /// How names are scored.
    pub scoring: ScoreSettings,
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
    /// What is not to be asked of the model.
    remark: Option<String>,
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

impl Engine {
    /// Loads everything.
    ///
    /// # Errors
    /// `anyhow` errors of loading, as the commands give them.
    pub fn open(
        source: &EngineSource,
        opened: &OpenDevice,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let EngineSource { pair, calibration, vocabulary, scoring, rewards, files } = source;
        if let FileAccess::Folder(folder) = files
            && !folder.is_dir()
        {
            let message = format!("--images {}: there is no such folder", folder.display());
            return Err(Refusal::new(message).into());
        }
        let nothing_named = pair.model.model.is_none() && pair.verifier.is_none();
        let speaks = pair.model.model.is_some() || nothing_named;
        let judges = pair.verifier.is_some() || calibration.is_some() || nothing_named;
        let named = vocabulary.as_deref();
        let words = Vocabulary::chosen(named, nothing_named, calibration.as_ref())?;
        let vocabulary_name = named.map_or_else(
            || usual_list(nothing_named, calibration.as_ref()).to_owned(),
            |path| path.display().to_string(),
        );
        let (policy, verifier) = if speaks && judges {
            let Pair { policy, verifier, views } =
                Pair::open(pair, scoring.clone(), opened, reporter)?;
            (Some(policy), Some((verifier, views)))
        } else if speaks {
            (Some(Policy::open(&pair.model, pair.world, opened, reporter)?), None)
        } else {
            let ModelSource { model, .. } = pair.model.clone();
            let alone = AloneSource { verifier: pair.verifier.clone(), model, world: pair.world };
            (None, Some((alone.open(scoring.clone(), opened, reporter)?, None)))
        };
        let speaker = policy.map(|policy| Speaker { base: without_adapter(&policy), policy });
        let remark = nothing_named.then(embedded_remark);
        if let Some(remark) = &remark {
            reporter.warn(remark, Some(NAME_MODELS));
        }
        let judge = verifier
            .map(|loaded| Judge::new(loaded, &words, calibration.clone(), rewards, reporter));
        Ok(Self {
            speaker,
            judge: judge.transpose()?,
            vocabulary: words.for_mentions()?,
            vocabulary_name,
            files: files.clone(),
            remark,
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
            remark: self.remark.clone(),
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
            let shown = (seen, sample.caption.as_str());
            let judged =
                verify::judge(&mut scorer, &judge.loaded.views, shown, threshold, heat_maps);
            let (_, mentions) = judged.map_err(|error| invalid(&error))?;
            verdicts.push(Verdict {
                caption: sample.caption.clone(),
                hallucinated: judge.rule.as_ref().map(|_| verify::hallucinated(&mentions)),
                mentions,
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
    ) -> Result<Vec<Judged>, Failure> {
        let scored =
            self.judge()?.scorer().caption(image, text).map_err(|error| invalid(&error))?;
        Ok(scored.mentions.into_iter().map(|mention| Judged::new(mention, 0.5)).collect())
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
        let tasks = self.tasks(policy, &images, &prompt, guided.is_some())?;
        let longest = tasks.iter().map(|task| task.prompt.len()).max().unwrap_or(0);
        answer_length(policy, longest, Some(max_new_tokens))?;
        let written = if let Some(precision) = guided {
            self.guided(policy, precision, &tasks, samples, &sampling)?.0
        } else {
            let (list, length) = (TaskList(&tasks), longest + max_new_tokens);
            let all = 0..tasks.len();
            let written = generate(
                &policy.model,
                &list,
                all,
                samples,
                length,
                &sampling,
                RunControl::new(&|_| {}),
            );
            let written = written.map_err(|error| failed(&error.into()))?.into_iter();
            written.map(|written| spelled(policy, &written)).collect::<Result<_, Failure>>()?
        };
        let mut written = written.into_iter();
        let captions = tasks.iter().map(|_| written.by_ref().take(samples).collect());
        Ok(Answer::Captions { captions: captions.collect() })
    }

    /// Captions in the writing of which doubtful words are taken back, and what the verifier makes of each task's image.
    pub(crate) fn guided(
        &self,
        policy: &Policy,
        precision: f64,
        tasks: &[Task],
        samples: usize,
        sampling: &Sampling,
    ) -> Result<(Vec<Caption>, Vec<ImageEmbedding>), Failure> {
        let judge = self.judge()?;
        let calibration = judge.calibration.as_ref().ok_or_else(uncalibrated)?;
        let config = GuidedConfig { precision, ..GuidedConfig::default() };
        let guide = Guide::new(config, calibration).map_err(|error| invalid(&error.into()))?;
        let mut scorer = MentionScorer {
            tokenizer: Arc::clone(&policy.tokenizer),
            vocabulary: self.vocabulary.clone(),
            verifier: judge.scorer().verifier().clone(),
        };
        let nobody = |_: usize| {};
        let control = RunControl::new(&nobody);
        let streams: Vec<u64> = (0..tasks.len() as u64).collect();
        let encoded = encode_on(&policy.model, &scorer.verifier, tasks, control);
        let encoded = encoded.map_err(|error| failed(&error.into()))?;
        let (encoded, streams) = (&encoded, &streams[..]);
        let request = SampleRequest { tasks, encoded, streams, samples, sampling, control };
        let written = sample_guided(&policy.model, &mut scorer, &guide, &request);
        let written = written.map_err(|error| failed(&error.into()))?.into_iter();
        judge.scorer().learn(&scorer.verifier);
        let spelled = |GuidedResponse { response, guidance }| {
            Ok(Caption { guided: Some(guidance), ..spelled(policy, &response)? })
        };
        let captions = written.map(spelled).collect::<Result<_, Failure>>()?;
        Ok((captions, encoded.embeddings.clone()))
    }

    /// What the encoders make of tasks' images; the verifier's part only of tasks that are to be `verified`.
    pub(crate) fn encode(
        &self,
        policy: &Policy,
        tasks: &[Task],
        verified: bool,
    ) -> Result<(ImageFeatures, Vec<ImageEmbedding>), Failure> {
        let model = &policy.model;
        if !verified {
            let features = model.image_features(image_batch(tasks, &model.device()));
            return Ok((features.map_err(|error| failed(&error.into()))?, Vec::new()));
        }
        let encoded = encode(model, &self.judge()?.eyes, tasks);
        let EncodedImages { features, embeddings } =
            encoded.map_err(|error| failed(&error.into()))?;
        Ok((ImageFeatures::cat(features), embeddings))
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

    /// What is not to be asked of the model.
    pub(crate) fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// A question about one image or several, as the model takes it, and as the verifier does where the answer is to be `verified`.
    pub(crate) fn question(
        &self,
        policy: &Policy,
        parts: &[Asked],
        verified: bool,
    ) -> Result<Task, Failure> {
        if let [Asked::Image(image), Asked::Text(text)] = parts {
            let image = std::slice::from_ref(image);
            return Ok(self.tasks(policy, image, text, verified)?.swap_remove(0));
        }
        let shown = parts.iter().map(|part| match part {
            Asked::Image(_) => PromptPart::Image,
            Asked::Text(text) => PromptPart::Text(text),
        });
        // Before any image is read: the model may have been trained on prompts with one.
        let prompt =
            policy.question(&shown.collect::<Vec<_>>()).map_err(|error| invalid(&error))?;
        let images = parts.iter().filter_map(|part| match part {
            Asked::Image(image) => Some(self.read(image)),
            Asked::Text(_) => None,
        });
        let images = images.collect::<Result<Vec<_>, _>>()?;
        let task = policy.task_about("0".to_owned(), &images, &prompt);
        task.map_err(|error| invalid(&error.into()))
    }

    /// A question about images, as the model takes it, and as the verifier does where answers are to be `verified`.
    pub(crate) fn tasks(
        &self,
        policy: &Policy,
        images: &[ImageSource],
        prompt: &str,
        verified: bool,
    ) -> Result<Vec<Task>, Failure> {
        let encoded = policy.prompt(prompt).map_err(|error| invalid(&error))?;
        let views = if verified { self.judge()?.beside.as_ref() } else { None };
        let task = |(at, image): (usize, &ImageSource)| {
            let image = self.read(image)?;
            let task = policy.task(at.to_string(), &image, &encoded);
            let task = task.map_err(|error| invalid(&error.into()))?;
            let verifier_images = views.map_or_else(Vec::new, |views| views.of(&image));
            Ok(Task { verifier_images, ..task })
        };
        images.iter().enumerate().map(task).collect()
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
    fn look(&self, judge: &Judge, images: &[&ImageSource]) -> Result<Vec<SeenImage>, Failure> {
        let control = RunControl::new(&|_| {});
        encode_images(&judge.eyes, &judge.loaded.views, images, |image| self.read(image), control)
    }

    /// The same of images of which some may be one and the same.
    fn look_once<'a>(
        &self,
        judge: &Judge,
        images: &[&'a ImageSource],
    ) -> Result<HashMap<&'a ImageSource, SeenImage>, Failure> {
        let mut known = HashSet::new();
        let different: Vec<&ImageSource> =
            images.iter().copied().filter(|&image| known.insert(image)).collect();
        let seen = self.look(judge, &different)?;
        Ok(different.into_iter().zip(seen).collect())
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

/// What fails in the middle of work.
fn failed(error: &anyhow::Error) -> Failure {
    Failure::of(ErrorCode::Internal, error)
}

/// Longest answer to a prompt of this length, tokens: what was asked for, or what is usual as far as there is room.
pub(crate) fn answer_length(
    policy: &Policy,
    prompt: usize,
    asked: Option<usize>,
) -> Result<usize, Failure> {
    let room = policy.room(prompt);
    let longest = asked.unwrap_or_else(|| USUAL_LENGTH.min(room));
    if longest <= room && room > 0 {
        return Ok(longest);
    }
    let message = format!(
        "{longest} tokens do not fit: the prompt with its image takes {prompt} and leaves room for {room}"
    );
    Err(Failure::new(ErrorCode::TooLarge, message)
        .hint("ask for fewer tokens, or shorten the prompt"))
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

/// A caption with what each token spells.
pub(crate) fn spelled(policy: &Policy, written: &Generated) -> Result<Caption, Failure> {
    if !written.is_finite() {
        let message = "the model's logits are not finite: its weights, or the image, are damaged";
        return Err(Failure::new(ErrorCode::Internal, message));
    }
    let (text, tokens) = policy.spelled(written).map_err(|error| failed(&error.into()))?;
    Ok(Caption { text, tokens, finish_reason: written.finish, guided: None })
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
    let mentions = found.into_iter().map(|SpelledMention { mention, tokens, .. }| Judged {
        tokens: Some([tokens.start, tokens.end]),
        ..Judged::new(mention, 0.5)
    });
    Ok(RewardedSample { rewards, mentions: mentions.collect() })
}
