//! A model's answers to questions about images, written down as they come, so that a run that was ended
//! goes on where it stopped.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::bail;
use fisao_align::AlignError;
use fisao_align::RunControl;
use fisao_align::likelihoods::likelihoods;
use fisao_align::sampling::{generate, tasks_at_once};
use fisao_align::tasks::{Task, TaskSource};
use fisao_formats::FormatError;
use fisao_formats::data_record::{DataRecord, FileDigests, RowDigest};
use fisao_formats::digest::sha256_bytes;
use fisao_formats::documents::{read_json, write_json};
use fisao_formats::images::open_image;
use fisao_models::generation::{FinishReason, Generated, Sampling};
use serde_json::{Map, Value, json};

use crate::bundle::{Policy, Views, warn_of_photographs};
use crate::data_check::{self, DATA};
use crate::device::warn_of_batches_left_to_cpu;
use crate::failure::{Interrupted, OrInternal as _, Refusal};
use crate::locks;
use crate::prompt::EncodedPrompt;
use crate::reporter::Reporter;
use crate::stop::StopSource;
use crate::tasks::{DamagedImages, checked_images};

/// The answers, one JSON object a line.
pub const ANSWERS: &str = "answers.jsonl";
/// What they were made with.
pub const SETTINGS: &str = "settings.json";

/// Keys of the settings that tell what the model's and its adapter's files held.
const MODEL_DIGEST: &str = "model_digest";
const ADAPTER_DIGEST: &str = "adapter_sha256";

/// Keys of the settings that are there only where they were asked for.
const OPTIONAL: [&str; 4] = ["guided", "best_of", "calibration_sha256", "activation_dtype"];

/// One question about one image.
#[derive(Clone, Debug)]
pub struct Question {
    /// What the line of its answer begins with; tells it from all other questions.
    pub row: Map<String, Value>,
    /// The image.
    pub image: PathBuf,
    /// What is asked.
    pub prompt: String,
    /// Answers of which the model is to say how likely it finds each; empty if it is to answer itself. All
    /// questions have some, or none has.
    pub options: Vec<String>,
}

impl Question {
    /// A question that the model is to answer itself.
    pub fn new<const N: usize>(fields: [(&str, Value); N], image: PathBuf, prompt: String) -> Self {
        let row = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self { row, image, prompt, options: Vec::new() }
    }
}

/// Questions about images that can be used.
struct Usable {
    questions: Vec<Question>,
    /// Width and height of each one's image.
    sizes: Vec<(u32, u32)>,
    /// Names of the images that are passed over.
    skipped: Vec<String>,
}

/// Writes the answers to some tasks of a source, one each, in their order.
pub type WriteAnswers<'a> =
    dyn FnMut(&dyn TaskSource, Range<usize>) -> anyhow::Result<Vec<Generated>> + 'a;

/// Another way of writing answers than the model's own: with a verifier's help.
pub struct Choosing<'a> {
    /// What the verifier sees besides the model's own pixels.
    pub views: Option<&'a Views>,
    /// Writes.
    pub write: &'a mut WriteAnswers<'a>,
}

/// How questions are answered.
pub struct Answering<'a> {
    /// Who answers.
    pub policy: &'a Policy,
    /// How.
    pub sampling: &'a Sampling,
    /// What else the answers depend on, for the record.
    pub settings: Value,
    /// Name of the field that holds the answer.
    pub field: &'static str,
    /// Where they are written.
    pub folder: &'a Path,
    /// What is done about images that cannot be used; questions about those that are passed over stay unanswered.
    pub damaged: DamagedImages,
    /// Whether answers are to be the same for any number of processes and threads.
    pub exact: bool,
    /// Ends the work between two answers.
    pub stop: StopSource<'a>,
}

impl Answering<'_> {
    /// Answers all questions that the folder does not hold answers to yet; returns the file of answers.
    ///
    /// # Errors
    /// An image cannot be used, the folder holds answers to other questions or by another model, or
    /// [`Interrupted`] where the flag was raised; what was answered stays.
    pub fn run(
        &self,
        questions: &[Question],
        mut choosing: Option<Choosing<'_>>,
        reporter: &Reporter,
    ) -> anyhow::Result<PathBuf> {
        let Usable { questions, sizes, skipped } = self.usable(questions, reporter)?;
        let questions = &questions[..];
        let views = choosing.as_ref().and_then(|choosing| choosing.views);
        let tasks = QuestionTasks::new(self.policy, questions, &sizes, views)?;
        if choosing.is_some() && !tasks.options.is_empty() {
            let message = "--guided and --best-of are for answers that the model writes; this benchmark asks how likely it finds given ones";
            bail!(Refusal::new(message));
        }
        let answer = tasks.options.iter().flatten().map(Vec::len).max();
        let answer = answer.unwrap_or(self.sampling.max_new_tokens);
        self.policy.check_length(tasks.longest, answer)?;
        let _lock = locks::lock(self.folder, reporter)?;
        self.check_settings(questions, &skipped, reporter)?;
        let path = self.folder.join(ANSWERS);
        let done = self.answered(&path, questions)?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = file.map_err(|error| unwritten(&path, error))?;
        let stop = (self.stop)()?;
        let length = tasks.longest + answer;
        let team = self.policy.team(self.exact);
        let at_once = tasks_at_once(&self.policy.model, length, team);
        let progress = reporter.phase_from("answering", done as u64, questions.len() as u64);
        for start in (done..questions.len()).step_by(at_once) {
            if stop.load(Ordering::Relaxed) {
                let message = format!(
                    "stopped after {start} of {} answers, which are kept; the same command resumes",
                    questions.len()
                );
                return Err(Interrupted { message }.into());
            }
            let end = (start + at_once).min(questions.len());
            let advance = |count| progress.advance(count as u64);
            let control = RunControl::new(&advance).shared(team);
            let model = &self.policy.model;
            let asked = &questions[start..end];
            let mut lines = String::new();
            if tasks.options.is_empty() {
                let range = start..end;
                let written = if let Some(choosing) = &mut choosing {
                    let written = (choosing.write)(&tasks, range)?;
                    advance(written.len());
                    written
                } else {
                    generate(model, &tasks, range, 1, length, self.sampling, control)?
                };
                for (question, answer) in asked.iter().zip(written) {
                    let tokens = answer.text_tokens();
                    let text = self.policy.tokenizer.decode(tokens)?.text;
                    let written = Some((tokens.len(), answer.finish));
                    lines.push_str(&self.line(question, text.into(), written)?);
                }
            } else {
                let options = &tasks.options;
                let found = likelihoods(model, &tasks, start..end, options, length, control)?;
                for (question, found) in asked.iter().zip(found) {
                    lines.push_str(&self.line(question, json!(found), None)?);
                }
            }
            let kept = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
            kept.map_err(|error| unwritten(&path, error))?;
        }
        progress.finish();
        warn_of_batches_left_to_cpu(&self.policy.model, reporter);
        Ok(path)
    }

    /// The questions whose images can be used.
    fn usable(&self, questions: &[Question], reporter: &Reporter) -> anyhow::Result<Usable> {
        let mut files: Vec<PathBuf> =
            questions.iter().map(|question| question.image.clone()).collect();
        files.sort();
        files.dedup();
        let images = checked_images(&files, self.damaged, reporter)?;
        let sizes = images.iter().map(|image| image.size);
        warn_of_photographs(self.policy.is_embedded(), sizes, reporter);
        let size = |file: &Path| {
            let at = images.binary_search_by(|image| image.file.as_path().cmp(file));
            at.ok().map(|at| images[at].size)
        };
        let skipped = files.iter().filter(|file| size(file).is_none());
        let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into();
        let skipped = skipped.map(name).collect();
        let sized =
            |question: &Question| size(&question.image).map(|size| (question.clone(), size));
        let (questions, sizes) = questions.iter().filter_map(sized).unzip();
        Ok(Usable { questions, sizes, skipped })
    }

    fn line(
        &self,
        question: &Question,
        answer: Value,
        written: Option<(usize, FinishReason)>,
    ) -> anyhow::Result<String> {
        let mut row = question.row.clone();
        row.insert("prompt".to_owned(), question.prompt.clone().into());
        row.insert(self.field.to_owned(), answer);
        if let Some((tokens, finish)) = written {
            row.insert("tokens".to_owned(), tokens.into());
            row.insert("finish_reason".to_owned(), json!(finish));
        }
        let line =
            serde_json::to_string(&row).or_internal("an answer cannot be written as JSON")?;
        Ok(line + "\n")
    }

    /// Writes down what the answers depend on, or compares it with what is written there.
    fn check_settings(
        &self,
        questions: &[Question],
        skipped: &[String],
        reporter: &Reporter,
    ) -> anyhow::Result<()> {
        let (path, data) = (self.folder.join(SETTINGS), record(questions)?);
        let begun = path.exists();
        let mut settings = self.settings.clone();
        if !skipped.is_empty() {
            settings["skipped_images"] = json!(skipped);
        }
        settings["answers"] = self.field.into();
        if begun && !self.folder.join(DATA).exists() {
            // As earlier versions told images apart.
            settings["pictures_sha256"] = images(questions).into();
        }
        let options: Vec<&Vec<String>> =
            questions.iter().map(|question| &question.options).collect();
        if options.iter().any(|options| !options.is_empty()) {
            settings["options_sha256"] = sha256_bytes(json!(options).to_string().as_bytes()).into();
        }
        settings["model"] = self.policy.name.clone().into();
        settings[MODEL_DIGEST] = self.policy.sample()?.into();
        if let Some(adapter) = self.policy.adapter_identity(reporter)? {
            settings[ADAPTER_DIGEST] = adapter.sha256.into();
        }
        settings["max_new_tokens"] = self.sampling.max_new_tokens.into();
        settings["temperature"] = self.sampling.temperature.into();
        settings["seed"] = self.sampling.seed.into();
        if !begun {
            // The settings last: they make the folder one that is gone on with.
            data_check::write(self.folder, &data)?;
            return Ok(write_json(&path, &settings)?);
        }
        let known: Value = read_json("settings of the answers", &path)?;
        if known.get(MODEL_DIGEST).is_none() {
            // As earlier versions wrote them.
            reporter.note(format!(
                "{} does not say what the model's files held: whether they are the same is not known",
                path.display()
            ));
            for key in [MODEL_DIGEST, ADAPTER_DIGEST] {
                settings.as_object_mut().map(|settings| settings.remove(key));
            }
        }
        let differs = settings
            .as_object()
            .into_iter()
            .flatten()
            .find(|(key, value)| known.get(key.as_str()) != Some(value))
            .map(|(key, value)| (key.as_str(), value));
        // What is there only where it was asked for.
        let left_out = OPTIONAL
            .into_iter()
            .find(|key| known.get(key).is_some() && settings.get(key).is_none());
        let left_out = left_out.map(|key| (key, &Value::Null));
        let Some((key, value)) = differs.or(left_out) else {
            let name =
                |at: usize| format!("question {} ({})", at + 1, questions[at].image.display());
            return data_check::check(self.folder, &data, name, reporter);
        };
        bail!(self.other_settings(key, known.get(key).unwrap_or(&Value::Null), value))
    }

    /// The folder was started with something else under a key of the settings.
    fn other_settings(&self, key: &str, before: &Value, now: &Value) -> Refusal {
        let (folder, model) = (self.folder.display(), &self.policy.name);
        let replaced = match key {
            MODEL_DIGEST => format!("the files of the model {model}"),
            ADAPTER_DIGEST => format!("the files of the adapter {}", self.settings["adapter"]),
            _ => {
                let message = format!(
                    "{folder} holds answers that were made with `{key}` {before}, not {now}"
                );
                let hint = "name another folder with --output, or resume with the same settings";
                return Refusal::new(message).hint(hint);
            }
        };
        Refusal::new(format!(
            "{folder} holds answers of something else: {replaced} have changed since"
        ))
        .hint("put the files back as they were, or name another folder with --output")
    }

    /// How many questions are answered already. A last line that was not written to its end is removed.
    fn answered(&self, path: &Path, questions: &[Question]) -> anyhow::Result<usize> {
        if !path.exists() {
            return Ok(0);
        }
        let text = fs::read_to_string(path).map_err(|source| FormatError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            let file = File::options().write(true).open(path);
            let cut = file.and_then(|file| file.set_len(whole as u64));
            cut.map_err(|error| unwritten(path, error))?;
        }
        let mut done = 0;
        for (line, question) in text[..whole].lines().zip(questions) {
            let row: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
            let same = question.row.iter().all(|(key, value)| row.get(key) == Some(value))
                && row.get("prompt").and_then(Value::as_str) == Some(&question.prompt)
                && row.contains_key(self.field);
            if !same {
                bail!(other_questions(path, done + 1));
            }
            done += 1;
        }
        if text[..whole].lines().count() > questions.len() {
            bail!(other_questions(path, questions.len() + 1));
        }
        Ok(done)
    }
}

/// What is asked about which images, by their content. Folders do not count: they may be moved.
fn record(questions: &[Question]) -> Result<DataRecord, FormatError> {
    let mut files = FileDigests::default();
    files.read(questions.iter().map(|question| question.image.as_path()))?;
    let rows = questions.iter().map(|Question { row, image, prompt, options }| {
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let texts = json!([row, prompt, options, name]).to_string();
        RowDigest::new([texts], files.of(image))
    });
    Ok(DataRecord::new(rows.collect()))
}

/// Digest of the images' names and sizes in bytes, which is what earlier versions kept.
fn images(questions: &[Question]) -> String {
    let mut text = String::new();
    for question in questions {
        let name = question.image.file_name().unwrap_or_default().to_string_lossy();
        let size = fs::metadata(&question.image).map_or(0, |known| known.len());
        let _ = writeln!(text, "{name} {size}");
    }
    sha256_bytes(text.as_bytes())
}

fn other_questions(path: &Path, line: usize) -> Refusal {
    Refusal::new(format!(
        "{}, line {line} does not answer the question at its place",
        path.display()
    ))
    .hint("the folder belongs to another run: name another one with --output")
}

fn unwritten(path: &Path, source: std::io::Error) -> FormatError {
    FormatError::Io { action: "write", path: path.to_owned(), source }
}

/// Questions as tasks.
struct QuestionTasks<'a> {
    policy: &'a Policy,
    questions: &'a [Question],
    /// Per question.
    prompts: Vec<EncodedPrompt>,
    /// Per question, ids of each option; empty where questions have none.
    options: Vec<Vec<Vec<u32>>>,
    /// Length of the longest prompt, its image included.
    longest: usize,
    /// What a verifier sees besides the model's own pixels.
    views: Option<&'a Views>,
}

impl<'a> QuestionTasks<'a> {
    fn new(
        policy: &'a Policy,
        questions: &'a [Question],
        sizes: &[(u32, u32)],
        views: Option<&'a Views>,
    ) -> anyhow::Result<Self> {
        let (mut prompts, mut longest) = (Vec::with_capacity(questions.len()), 0);
        for (question, &size) in questions.iter().zip(sizes) {
            let prompt = policy.prompt(&question.prompt)?;
            longest = longest
                .max(policy.model.config().family().expand_image_token(&prompt.ids, size)?.len());
            prompts.push(prompt);
        }
        let given = questions.iter().filter(|question| !question.options.is_empty());
        let options = given.map(|question| ids(policy, question)).collect::<anyhow::Result<_>>()?;
        Ok(Self { policy, questions, prompts, options, longest, views })
    }
}

/// Token ids of a question's options.
fn ids(policy: &Policy, question: &Question) -> anyhow::Result<Vec<Vec<u32>>> {
    let encode = |option: &String| {
        let ids = policy.tokenizer.encode(option, false)?;
        if ids.is_empty() {
            bail!(Refusal::new(format!(
                "an option of the question `{}` is empty",
                question.prompt
            )));
        }
        Ok(ids)
    };
    question.options.iter().map(encode).collect()
}

impl TaskSource for QuestionTasks<'_> {
    fn count(&self) -> usize {
        self.questions.len()
    }

    fn task(&self, index: usize) -> Result<Task, AlignError> {
        let file = &self.questions[index].image;
        let id = file.display().to_string();
        let image = open_image(file)
            .map_err(|error| AlignError::Task { id: id.clone(), source: error.into() })?;
        let verifier_images = self.views.map_or_else(Vec::new, |views| views.of(&image));
        Ok(Task { verifier_images, ..self.policy.task(id, &image, &self.prompts[index])? })
    }
}
