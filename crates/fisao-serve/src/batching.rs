//! Many conversations with one model: what waits is written together, one token each a step.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use fisao_align::AlignError;
use fisao_align::guided::Guidance;
use fisao_align::tasks::Task;
use fisao_models::generation::{Decoding, FinishReason, Prompt, Sampling};
use fisao_models::parallel::{cores, on_worker};
use fisao_models::scoring::CudaError;
use fisao_runs::bundle::{Policy, SpelledToken};
use fisao_runs::verify::Judged;
use fisao_verifier::regions::ImageEmbedding;
use tokio::sync::mpsc::UnboundedSender;

use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::protocol::{Caption, ErrorCode, Failure};

/// Most conversations written together by one worker.
const TOGETHER: usize = 32;

/// A conversation: answers to one question about one image.
pub(crate) struct Job {
    /// The question, with its image as the model takes it.
    pub(crate) task: Task,
    /// Whether the adapter is on.
    pub(crate) adapter: bool,
    /// Answers that are wanted.
    pub(crate) samples: usize,
    /// How tokens are chosen.
    pub(crate) sampling: Sampling,
    /// Texts that end an answer, and are no part of it.
    pub(crate) stop: Vec<String>,
    /// Whether the answer is told as it is written, rather than once it is complete.
    pub(crate) streamed: bool,
    /// Whether words are to be verified.
    pub(crate) verify: bool,
    /// When nobody wants the answer any more.
    pub(crate) deadline: Instant,
    /// The place among those that the server takes, once there is one. Given back before the last of the answer is told: whoever was answered may ask at once again.
    pub(crate) place: Option<Place>,
    /// Who is told. Its number of updates is bounded by the tokens that were asked for.
    pub(crate) updates: UnboundedSender<Update>,
}

/// One of the conversations that a server takes at once.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    /// A place, unless `most` are taken.
    fn among(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let place = Self(Arc::clone(taken));
        (taken.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// More of an answer.
#[derive(Debug)]
pub(crate) enum Update {
    /// Text that will not change, and what is known of its words.
    Text { choice: usize, text: String, tokens: Vec<SpelledToken>, mentions: Vec<Judged> },
    /// An answer is complete.
    Done { choice: usize, finish: FinishReason, tokens: usize, guided: Option<Guidance> },
    /// There will be no answer.
    Failed(Failure),
}

/// Jobs that wait, and the workers that take them.
pub(crate) struct Batcher {
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<VecDeque<Job>>,
    arrived: Condvar,
    /// Jobs that wait or are being written.
    open: Arc<AtomicUsize>,
    most: usize,
    closed: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Batcher {
    /// Starts a worker for each batch that decodes best beside the others.
    pub(crate) fn start(
        engine: &Arc<Engine>,
        most: usize,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            open: Arc::default(),
            most,
            closed: AtomicBool::new(false),
            metrics: Arc::clone(metrics),
        });
        let workers = engine.policy(true).map_or(0, |policy| policy.model.decoding_workers());
        for worker in 0..workers {
            let (shared, engine) = (Arc::clone(&shared), Arc::clone(engine));
            let name = format!("decoding-{worker}");
            // One of several keeps to a core of its own, apart from those that others share.
            let own = (workers > 1).then(|| cores() + worker);
            std::thread::Builder::new().name(name).spawn(move || shared.work(&engine, own))?;
        }
        Ok(Self { shared })
    }

    /// Puts a job behind those that wait.
    pub(crate) fn submit(&self, mut job: Job) -> Result<(), Failure> {
        let shared = &self.shared;
        if shared.closed.load(Ordering::Relaxed) {
            return Err(Failure::new(ErrorCode::Busy, "the server is being shut down"));
        }
        job.place = Place::among(&shared.open, shared.most);
        if job.place.is_none() {
            return Err(Failure::new(
                ErrorCode::Busy,
                format!("{} requests wait already", shared.most),
            )
            .hint("ask again later, or start the server with a larger --queue"));
        }
        let mut waiting = shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back(job);
        shared.metrics.waiting.set(waiting.len() as i64);
        shared.arrived.notify_one();
        Ok(())
    }

    /// Takes no more jobs; those that were taken are finished.
    pub(crate) fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.arrived.notify_all();
    }
}

impl Shared {
    fn work(&self, engine: &Engine, own: Option<usize>) {
        while let Some(jobs) = self.take(engine) {
            let count = jobs.len();
            self.metrics.batch.observe(count as f64);
            // A panic ends these answers, whose receivers see that nobody will tell them more, and no others.
            let work = std::panic::AssertUnwindSafe(|| match own {
                Some(own) => on_worker(own, || self.write(engine, jobs)),
                None => self.write(engine, jobs),
            });
            if std::panic::catch_unwind(work).is_err() {
                tracing::error!("a batch of {count} answers panicked");
            }
        }
    }

    /// The first of those that wait, with as many of its kind as can be written together; waits for one. `None` once there will be none.
    fn take(&self, engine: &Engine) -> Option<Vec<Job>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(first) = waiting.front() {
                let kind = first.kind();
                let (adapter, samples, _) = kind;
                let workers =
                    engine.policy(adapter).map_or(1, |policy| policy.model.decoding_workers());
                // The others get their part, too.
                let part = waiting.len().div_ceil(workers.max(1));
                let most = (TOGETHER / samples).clamp(1, part.max(1));
                let mut taken: Vec<Job> = Vec::new();
                let mut left = VecDeque::with_capacity(waiting.len());
                for job in waiting.drain(..) {
                    let fits = taken.len() < most && job.kind() == kind;
                    if fits { taken.push(job) } else { left.push_back(job) }
                }
                *waiting = left;
                self.metrics.waiting.set(waiting.len() as i64);
                if !waiting.is_empty() {
                    self.arrived.notify_one();
                }
                return Some(taken);
            }
            if self.closed.load(Ordering::Relaxed) {
                return None;
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&self, engine: &Engine, mut jobs: Vec<Job>) {
        let now = Instant::now();
        jobs.retain_mut(|job| {
            let late = job.deadline <= now;
            if late {
                job.fail(self::late());
            }
            !late && !job.updates.is_closed()
        });
        let Some((adapter, samples, verified)) = jobs.first().map(Job::kind) else { return };
        let tasks: Vec<Task> = jobs.iter().map(|job| job.task.clone()).collect();
        let encoded = engine
            .policy(adapter)
            .and_then(|policy| Ok((policy, engine.encode(policy, &tasks, verified)?)));
        let (policy, (features, embeddings)) = match encoded {
            Ok(encoded) => encoded,
            Err(failure) => {
                for job in &mut jobs {
                    job.fail(failure.clone());
                }
                return;
            }
        };
        let mut seen = embeddings.into_iter();
        let mut conversations: Vec<Conversation> =
            jobs.into_iter().map(|job| Conversation::new(job, seen.next())).collect();
        let prompts = tasks.into_iter().enumerate();
        let prompts: Vec<Prompt> =
            prompts.map(|(image, task)| Prompt { ids: task.prompt, image, stream: 0 }).collect();
        let sampling: Vec<Sampling> =
            conversations.iter().map(|conversation| conversation.job.sampling.clone()).collect();
        let model = &policy.model;
        let written = model.with_awake_workers(|| {
            let mut decoding = model.start_decoding(&prompts, &features, samples, &sampling)?;
            loop {
                let now = Instant::now();
                for (at, conversation) in conversations.iter_mut().enumerate() {
                    for choice in 0..samples {
                        let place = (at * samples + choice, choice);
                        if !conversation.follow(engine, policy, &decoding, place, now) {
                            decoding.close(place.0)?;
                        }
                    }
                }
                self.metrics.tokens.inc_by(decoding.open().count() as u64);
                if !decoding.step()? {
                    break Ok(());
                }
            }
        });
        // Answers that were finished before stay as they were told.
        if let Err(error) = written {
            let failure = card_failed(error);
            for conversation in &mut conversations {
                conversation.fail(&failure);
            }
        }
    }
}

/// What a client is told of the driver of a card.
fn card_failed(error: CudaError) -> Failure {
    Failure::of(ErrorCode::Internal, &AlignError::from(error).into())
}

fn late() -> Failure {
    Failure::new(ErrorCode::DeadlineExceeded, "the answer took longer than this server allows")
        .hint("ask for fewer tokens, or start the server with a larger --deadline")
}

impl Job {
    /// What jobs that are written together have in common: adapter, answers, and whether words are verified.
    fn kind(&self) -> (bool, usize, bool) {
        (self.adapter, self.samples, self.verify)
    }

    /// Writes the answers under guidance, by itself, and tells each when it is done.
    pub(crate) fn write_guided(mut self, engine: &Engine, precision: f64) {
        let Self { task, adapter, samples, sampling, verify, updates, .. } = &self;
        let written = || {
            let policy = engine.policy(*adapter)?;
            let task = std::slice::from_ref(task);
            let (captions, seen) = engine.guided(policy, precision, task, *samples, sampling)?;
            let seen = seen.first().filter(|_| *verify);
            for (choice, caption) in captions.into_iter().enumerate() {
                let Caption { text, tokens, finish_reason: finish, guided } = caption;
                let mentions = seen.map(|seen| engine.judge_text(seen, &text)).transpose()?;
                let (mentions, count) = (mentions.unwrap_or_default(), tokens.len());
                // Whoever asked may have gone away.
                let _ = updates.send(Update::Text { choice, text, tokens, mentions });
                let _ = updates.send(Update::Done { choice, finish, tokens: count, guided });
            }
            Ok(())
        };
        if let Err(failure) = written() {
            self.fail(failure);
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.place = None;
        // Whoever asked may have gone away.
        let _ = self.updates.send(Update::Failed(failure));
    }
}

/// A job being written.
struct Conversation {
    job: Job,
    seen: Option<ImageEmbedding>,
    choices: Vec<Choice>,
    failed: bool,
}

/// One answer, as far as it was told.
#[derive(Default)]
struct Choice {
    /// Tokens that were looked at.
    looked: usize,
    /// Bytes of the text that were told.
    told: usize,
    /// Tokens that were told.
    tokens: usize,
    mentions: Vec<Judged>,
    done: bool,
}

impl Conversation {
    fn new(job: Job, seen: Option<ImageEmbedding>) -> Self {
        let choices = (0..job.samples).map(|_| Choice::default()).collect();
        Self { job, seen, choices, failed: false }
    }

    /// Tells what is new of an answer; `false` if no more of it is wanted.
    fn follow(
        &mut self,
        engine: &Engine,
        policy: &Policy,
        decoding: &Decoding<'_>,
        (slot, choice): (usize, usize),
        now: Instant,
    ) -> bool {
        if self.failed || self.choices[choice].done {
            return false;
        }
        if self.job.updates.is_closed() {
            self.job.place = None;
            self.failed = true;
            return false;
        }
        let told = if self.job.deadline <= now {
            Err(late())
        } else {
            self.tell(engine, policy, decoding, (slot, choice))
        };
        told.unwrap_or_else(|failure| {
            self.job.fail(failure);
            self.failed = true;
            false
        })
    }

    /// Ends all answers that are not done.
    fn fail(&mut self, failure: &Failure) {
        if !self.failed && self.choices.iter().any(|choice| !choice.done) {
            self.job.fail(failure.clone());
            self.failed = true;
        }
    }

    fn tell(
        &mut self,
        engine: &Engine,
        policy: &Policy,
        decoding: &Decoding<'_>,
        (slot, choice): (usize, usize),
    ) -> Result<bool, Failure> {
        let response = decoding.response(slot);
        let open = decoding.is_open(slot);
        let state = &mut self.choices[choice];
        // Spelling the text at every step costs as much as a small model's step.
        let unasked = !self.job.streamed && self.job.stop.is_empty();
        if open && (unasked || response.tokens.len() == state.looked) {
            return Ok(true);
        }
        state.looked = response.tokens.len();
        let caption = crate::engine::spelled(policy, response)?;
        let stop = self.job.stop.iter().filter_map(|stop| caption.text.find(stop.as_str())).min();
        let done = stop.is_some() || !open;
        // A character whose bytes are not all there yet, or what may become a stop text, is held back.
        let mut end = stop.unwrap_or(caption.text.len());
        if !done {
            end = caption.text.trim_end_matches('\u{fffd}').len();
            let longest = self.job.stop.iter().map(String::len).max().unwrap_or(0);
            let from = end.saturating_sub(longest);
            let from = (0..=from).rev().find(|&at| caption.text.is_char_boundary(at)).unwrap_or(0);
            let begun = |at: &usize| {
                let rest = &caption.text[*at..end];
                self.job.stop.iter().any(|stop| stop.starts_with(rest))
            };
            let places = (from..end).filter(|&at| caption.text.is_char_boundary(at));
            end = places.into_iter().find(begun).unwrap_or(end);
        }
        let text = caption.text.get(state.told..end).unwrap_or_default().to_owned();
        let mut mentions = Vec::new();
        if let Some(seen) = &self.seen
            && (done || ends_a_word(&text))
        {
            let whole = &caption.text[..end];
            let settled = if done { whole.len() } else { engine.settled(whole) };
            let found = engine.judge_text(seen, whole)?;
            let limit = whole[..settled].chars().count();
            for mention in found.into_iter().filter(|found| found.start < limit) {
                let what = |of: &Judged| (of.start, of.end, of.negated);
                let known = |old: &Judged| what(old) == what(&mention);
                if !state.mentions.iter().any(known) {
                    state.mentions.push(mention.clone());
                    mentions.push(mention);
                }
            }
        }
        let fresh = state.tokens..caption.tokens.len();
        state.told = state.told.max(end);
        state.tokens = caption.tokens.len();
        state.done = done;
        let tokens: Vec<SpelledToken> = caption.tokens.into_iter().skip(fresh.start).collect();
        if self.choices.iter().all(|choice| choice.done) {
            self.job.place = None;
        }
        let send = |update| {
            // Whoever asked may have gone away; the next look finds out.
            let _ = self.job.updates.send(update);
        };
        if !(text.is_empty() && mentions.is_empty() && tokens.is_empty()) {
            send(Update::Text { choice, text, tokens, mentions });
        }
        if done {
            let finish = if stop.is_some() { FinishReason::Stop } else { caption.finish_reason };
            send(Update::Done { choice, finish, tokens: response.tokens.len(), guided: None });
        }
        Ok(!done)
    }
}

/// Whether a word may have become complete with this text.
fn ends_a_word(text: &str) -> bool {
    text.contains(|c: char| !c.is_alphanumeric())
}
