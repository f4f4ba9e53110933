//! A run on images of files: with a calibration that was made before, or with one of its own.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use fisao_align::mentions::MentionScorer;
use fisao_align::tasks::{Task, TaskSource as _};
use fisao_align::trainer::ValidationSet;
use fisao_align::{AlignConfig, StopFlag};
use fisao_eval::chair::Rules;
use fisao_formats::data_record::DataRecord;
use fisao_formats::digest::{sha256_bytes, sha256_file};
use fisao_formats::prompts::PromptSet;
use fisao_formats::run_folder::RunFolder;
use fisao_verifier::calibration::{Calibration, CalibrationError};
use fisao_verifier::rewards::RewardError;

use super::announcement::{self, Announcement};
use super::outlook::{self, Outlook};
use super::prompts::{self, PassedOver, PromptTasks};
use super::record::Files;
use super::splitting::{self, Counts, Parts};
use super::{Outcome, Published, Run, defaults, publishing};
use crate::bundle::{Pair, Policy};
use crate::calibrations::{self, Setting};
use crate::failure::{OrInternal as _, Refusal};
use crate::found_vocabulary::{self, FoundVocabulary};
use crate::ground_truth::{self, Annotations};
use crate::merge::merge_into;
use crate::models::{ImageSet, Models, NothingNamed, with_captioning};
use crate::pipeline::{self, Pipeline, TrainingData};
use crate::score_settings::ScoreSettings;
use crate::scored_captions::{Captioning, ScoredCaptions};
use crate::vocabulary::{self, AUTO, Vocabulary};
use crate::{data_check, prospects, settings, text_cache};

/// Prompts of files for validation at most: their pixels stay in memory.
pub(super) const VALIDATION_IMAGES: usize = 32;

/// What a run on files is made of.
pub(super) struct Material<'a> {
    files: &'a Files,
    pub set: &'a PromptSet,
    pub parts: &'a Parts,
    pub loaded: &'a Pair,
    pub config: &'a AlignConfig,
    annotations: Option<Annotations>,
    /// The list that annotations use and rates are measured by.
    measured_words: Vocabulary,
}

impl Run<'_> {
    /// Trains on images of files.
    pub(super) fn train_on_files(&self, files: &Files) -> anyhow::Result<Outcome> {
        if let Some(done) = self.finished(files)? {
            return Ok(done);
        }
        let reporter = self.reporter;
        let calibration = self.known_calibration(files)?;
        let measured_words = Vocabulary::named(files.measured_vocabulary())?;
        let words = self.found_before(files)?.unwrap_or_else(|| measured_words.clone());
        let annotations = self.annotations(files, &measured_words)?;
        let set = prompts::open(files, reporter)?;
        let splits = files.calibration.is_none() || files.test_images.unwrap_or(0) > 0;
        let seed = self.config.seed;
        let images = if splits { set.shuffled_images(seed, &|_| {})? } else { Vec::new() };
        let counts = Counts::new(if splits { images.len() } else { set.len() }, files)?;
        let loaded = self.load(files, calibration.as_ref())?;
        let config = self.settings_for(files, &loaded.policy, counts)?;
        let first =
            PromptTasks::new(&loaded.policy, &set, vec![0], None, &config).without_answers();
        // An image that cannot be used is refused, or passed over, where all of them are checked.
        let first = first.task(0).ok();
        if files.calibration.is_none() && self.begun.is_none() {
            let announcement = Announcement::new(files, &loaded, &words, counts, &config);
            if !self.is_confirmed(&announcement, (&loaded, first.as_ref()), counts, &config)? {
                return Ok(Outcome::Declined);
            }
        } else if let Some(task) = &first {
            let models = (&loaded.policy.model, &loaded.verifier.verifier);
            let card = outlook::card_memory(models, task, &config)?;
            if let Some(card) = card {
                let hidden = loaded.policy.model.language_model().config().hidden_size;
                let copied = outlook::copied_for_critic(&config, hidden);
                let lines = [Some(outlook::card_line(card)), outlook::critic_line(copied)];
                let lines: Vec<_> = lines.into_iter().flatten().collect();
                reporter.note(announcement::in_columns(&lines).join("\n"));
            }
        }
        let passed_over = prompts::check_images(&set, files, reporter)?;
        let parts = if splits {
            splitting::split(images, &set, &passed_over, files, (seed, reporter))?
        } else {
            let (training, validation) = prompts::split(&set, &passed_over, files, seed, reporter)?;
            Parts { training, validation, ..Parts::default() }
        };
        let data = self.data(files, &set, &words)?;
        let data = self.with_models(
            data,
            &loaded,
            calibration.as_ref().filter(|_| files.calibration.is_some()),
        )?;
        if let Some(calibration) = &calibration {
            let setting = Setting { verifier: &loaded.verifier, vocabulary: &words };
            setting.check(calibration, Some(&loaded.policy), reporter)?;
            loaded.verifier.check_auc(calibration, config.guards.verifier_auc)?;
        }
        let material = Material {
            files,
            set: &set,
            parts: &parts,
            loaded: &loaded,
            config: &config,
            annotations,
            measured_words,
        };
        self.train_on(&material, &words, calibration, (data, &passed_over))
    }

    /// Says what is going to be done, how long it takes and how much memory, and asks whether to.
    fn is_confirmed(
        &self,
        announcement: &Announcement,
        (loaded, first): (&Pair, Option<&Task>),
        counts: Counts,
        config: &AlignConfig,
    ) -> anyhow::Result<bool> {
        self.reporter.note(announcement.lines().join("\n"));
        if let Some(task) = first {
            let outlook = Outlook::of(loaded, task, counts, config)?;
            self.reporter.note(announcement::in_columns(&outlook.lines()).join("\n"));
            if let Some((warning, hint)) = outlook.warning() {
                self.reporter.warn(warning, Some(hint));
            }
        }
        Ok(self.output.is_none() || (self.confirm)()?)
    }

    /// The list that a run that is resumed has found. Until it is found what annotations use stands in.
    fn found_before(&self, files: &Files) -> anyhow::Result<Option<Vocabulary>> {
        if files.finds_vocabulary() && files.calibration.is_some() {
            bail!(vocabulary::other_than_calibrated(
                "name that list, or leave --calibration out, so that the run calibrates on what it finds"
            ));
        }
        let found = self.begun.as_ref().map(|folder| folder.path(found_vocabulary::FILE));
        let found = found.filter(|found| files.finds_vocabulary() && found.exists());
        found.map(|found| Vocabulary::named(&found)).transpose()
    }

    /// Finds the list of objects in captions of the calibration's images, and writes it. Returns the captions with it, for the
    /// calibration; a list that was found before comes alone.
    fn find_words(
        &self,
        material: &Material<'_>,
        words: &Vocabulary,
        folder: &RunFolder,
    ) -> anyhow::Result<(Vocabulary, Option<ScoredCaptions>)> {
        let path = folder.path(found_vocabulary::FILE);
        if path.exists() {
            return Ok((words.clone(), None));
        }
        let Pair { policy, verifier, .. } = material.loaded;
        let tasks = material.captioned(&material.parts.calibration);
        let tokenizer = Arc::clone(&policy.tokenizer) as _;
        let mut scorer = MentionScorer::of_nothing(tokenizer, verifier.verifier.clone());
        let stop = StopFlag::new((self.stop)()?);
        let (output, reporter) = (folder.path(calibrations::CALIBRATION), self.reporter);
        let kept = (Some(output.as_path()), &stop);
        let find = |captioning: &Captioning<'_>| {
            let scored = captioning.captions("calibrate", &mut scorer)?;
            let labelled = material.annotations.as_ref().map(|_| &material.measured_words);
            let found = FoundVocabulary::of_captions(captioning, &scored, &scorer, labelled)?;
            Ok((found, scored))
        };
        let (found, scored) =
            with_captioning(policy, material.config, &tasks, kept, reporter, find)?;
        found.write(&path, reporter)?;
        Ok((found.into_words(), Some(scored)))
    }

    /// The calibration that was made before, of a run that is resumed by the run itself.
    fn known_calibration(&self, files: &Files) -> anyhow::Result<Option<Calibration>> {
        let own = self.own_calibration();
        let path = own.as_deref().or(files.calibration.as_deref());
        path.map(calibrations::read).transpose()
    }

    /// What is known to be in the images.
    fn annotations(
        &self,
        files: &Files,
        words: &Vocabulary,
    ) -> anyhow::Result<Option<Annotations>> {
        let Some(path) = &files.annotations else { return Ok(None) };
        let (paths, vocabulary) = (std::slice::from_ref(path), words.for_chair()?);
        let truth = ground_truth::read(paths, Rules::Strict, &vocabulary, self.reporter)?;
        Ok(Some(Annotations::new(truth)))
    }

    /// Loads model and verifier.
    fn load(&self, files: &Files, calibration: Option<&Calibration>) -> anyhow::Result<Pair> {
        let (opened, reporter) = (&self.opened, self.reporter);
        let score = ScoreSettings::of_run(&self.config);
        let score = match calibration {
            Some(calibration) => score.or_as_in(calibration),
            None => score,
        };
        let Pair { policy, verifier, views } = Pair::open(&files.pair(), score, opened, reporter)?;
        Ok(Pair { policy, verifier, views })
    }

    /// The settings with what depends on the model: the learning rate, and of a run that calibrates itself the defaults that suit
    /// model and images. A run that is resumed has them already.
    fn settings_for(
        &self,
        files: &Files,
        policy: &Policy,
        counts: Counts,
    ) -> anyhow::Result<AlignConfig> {
        let decoder = policy.model.language_model().config();
        if self.begun.is_some() {
            return Ok(self.config.clone().for_decoder(decoder.matrix_elements()));
        }
        let asked = &self.config;
        let config = if files.calibration.is_some() {
            asked.clone().for_decoder(decoder.matrix_elements())
        } else {
            let base = AlignConfig { seed: asked.seed, ..AlignConfig::default() };
            let sizes = (asked.align.iterations, counts.training());
            let base = defaults::for_model(base, decoder, sizes);
            // What there is to say about the changes has been said.
            let silent = crate::reporter::Reporter::silent();
            settings::resolve(&base, &self.request.settings, &silent)?
        };
        let chosen = (asked.align.learning_rate, config.align.learning_rate);
        // A run that calibrates itself announces its settings.
        if let (None, Some(rate), Some(_)) = (chosen.0, chosen.1, &files.calibration) {
            self.reporter.note(format!("learning rate {rate:e}, by the model's size"));
        }
        Ok(config)
    }

    /// What the run is trained on, which must be what it was begun with. A dry run needs no record.
    fn data(
        &self,
        files: &Files,
        set: &PromptSet,
        words: &Vocabulary,
    ) -> anyhow::Result<Option<DataRecord>> {
        if self.begun.is_none() && self.output.is_none() {
            return Ok(None);
        }
        let progress = self.reporter.phase("reading images", set.len() as u64);
        let record = set.digests(&|done| progress.reach(done as u64, set.len() as u64))?;
        progress.finish();
        let name = |at| match set.row(at) {
            Ok(row) => format!("row {} ({})", at + 1, row.id),
            Err(_) => format!("row {}", at + 1),
        };
        let amended = self.amendment.is_given();
        if amended {
            self.check_data(&record, name)?;
        }
        // Of what is found, captions decide.
        let vocabulary =
            if files.finds_vocabulary() { AUTO.to_owned() } else { words.identity().sha256 };
        let mut record = record.with_input("vocabulary", vocabulary);
        if let Some(annotations) = &files.annotations {
            record = record.with_input("file of annotations", sha256_file(annotations)?);
        }
        if !amended {
            self.check_data(&record, name)?;
        }
        Ok(Some(record))
    }

    /// The same with what it is trained on and by.
    fn with_models(
        &self,
        data: Option<DataRecord>,
        loaded: &Pair,
        calibration: Option<&Calibration>,
    ) -> anyhow::Result<Option<DataRecord>> {
        let Some(record) = data else { return Ok(None) };
        let mut record = record
            .with_input("model", loaded.policy.sample()?)
            .with_input("verifier", loaded.verifier.sample()?);
        if let Some(calibration) = calibration {
            let digest = sha256_bytes(&serde_json::to_vec(calibration)?);
            record = record.with_input("calibration", digest);
        }
        if let Some(folder) = self.begun.as_ref().filter(|_| self.amendment.is_given()) {
            data_check::write(folder.root(), &record)?;
        }
        let named = |folder: &RunFolder| folder.path(data_check::DATA).exists();
        if self.begun.as_ref().is_some_and(named) {
            // Rows have been compared before.
            self.check_data(&record, |at| format!("row {}", at + 1))?;
        }
        Ok(Some(record))
    }

    /// Begins the folder, or goes on in it, or makes the one step of a dry run.
    fn train_on(
        &self,
        material: &Material<'_>,
        words: &Vocabulary,
        calibration: Option<Calibration>,
        (record, passed_over): (Option<DataRecord>, &PassedOver),
    ) -> anyhow::Result<Outcome> {
        let begin = |calibration: Option<&Calibration>| {
            let folder = match (&self.begun, &self.output) {
                (Some(folder), _) => folder.clone(),
                (None, Some(output)) => {
                    self.begin(output, material.config, calibration, record.as_ref())?
                }
                (None, None) => None.or_internal("a dry run has no folder")?,
            };
            passed_over.write(&folder)?;
            material.parts.write(material.set, &folder)?;
            anyhow::Ok(folder)
        };
        let dry = self.begun.is_none() && self.output.is_none();
        let begun = if material.files.finds_vocabulary() && !dry {
            Some(begin(calibration.as_ref())?)
        } else {
            None
        };
        let find = |folder| self.in_folder(folder, || self.find_words(material, words, folder));
        let (found, captioned) = begun.as_ref().map(find).transpose()?.unzip();
        let words = found.as_ref().unwrap_or(words);
        let captioned = captioned.flatten();
        let begin = |calibration: Option<&Calibration>| {
            begun.clone().map_or_else(|| begin(calibration), anyhow::Ok)
        };
        let pipeline = Pipeline {
            config: material.config,
            models: self.models(material, words)?,
            folder: None,
            resumed: self.begun.is_some(),
            stop: (self.stop)()?,
            resume_command: &self.request.resume_command,
            reporter: self.reporter,
        };
        let training = material.tasks(&material.parts.training);
        let data = || {
            anyhow::Ok(TrainingData { tasks: &training, validation: Some(material.validation()?) })
        };
        let stand_in = if dry { Some(super::estimate::stand_in()?) } else { None };
        let known = calibration.as_ref().filter(|_| dry || material.parts.test.is_empty());
        let Some(known) = known.or(stand_in.as_ref()) else {
            let folder = begin(calibration.as_ref())?;
            let pipeline = Pipeline { folder: Some(&folder), ..pipeline };
            let published = self.in_folder(&folder, || {
                self.whole(&pipeline, material, (calibration, captioned), &folder)
            })?;
            return self.done(material.files, &folder, passed_over, published);
        };
        // What cannot be trained is refused before there is a folder.
        let mut trainer = pipeline.trainer(known, data()?)?;
        self.note_objective(material.config, &trainer);
        if dry {
            return self.dry_run(&pipeline, &mut trainer, calibration.as_ref());
        }
        let folder = begin(Some(known))?;
        self.in_folder(&folder, || pipeline.train(&mut trainer, known, &folder))?;
        self.done(material.files, &folder, passed_over, None)
    }

    /// Work in the run's folder, whose errors are told in the user's words.
    fn in_folder<T>(
        &self,
        folder: &RunFolder,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        work().map_err(|error| self.ended(Some(folder), error))
    }

    /// Model, verifier and vocabulary, with a scorer that knows every name.
    fn models<'a>(
        &self,
        material: &'a Material<'_>,
        words: &'a Vocabulary,
    ) -> anyhow::Result<Models<'a>> {
        let Material { loaded, measured_words, .. } = material;
        let tokenizer = Arc::clone(&loaded.policy.tokenizer) as _;
        let scorer = text_cache::scorer(&loaded.verifier, tokenizer, words, self.reporter)?;
        Ok(Models {
            policy: &loaded.policy,
            verifier: &loaded.verifier,
            words,
            measured_words,
            scorer,
        })
    }

    /// Calibrates where that is not done yet, on captions that are there if there are any, and, where images are held out, captions these before and after training.
    fn whole(
        &self,
        pipeline: &Pipeline<'_>,
        material: &Material<'_>,
        (calibration, captioned): (Option<Calibration>, Option<ScoredCaptions>),
        folder: &RunFolder,
    ) -> anyhow::Result<Option<Published>> {
        let started = Instant::now();
        let calibration = match calibration {
            Some(calibration) => calibration,
            None => self.calibrate(pipeline, material, captioned, folder)?,
        };
        let calibrate = started.elapsed().as_secs_f64();
        let training = material.tasks(&material.parts.training);
        let data = TrainingData { tasks: &training, validation: Some(material.validation()?) };
        if material.parts.test.is_empty() {
            let mut trainer = pipeline.trainer(&calibration, data)?;
            self.note_objective(material.config, &trainer);
            pipeline.train(&mut trainer, &calibration, folder)?;
            return Ok(None);
        }
        let tasks = material.captioned(&material.parts.test);
        let test = ImageSet { tasks: &tasks, truth: material.truth(&material.parts.test)? };
        let mut results = pipeline.train_and_evaluate(&calibration, data, &test, folder)?;
        results.seconds.calibrate = calibrate;
        results.seconds.total = started.elapsed().as_secs_f64();
        let reporter = self.reporter;
        let published =
            publishing::publish(material, &calibration, &results, &test, folder, reporter)?;
        pipeline::discard_captions(folder);
        Ok(Some(published))
    }

    /// The run's own calibration, and what it is worth.
    fn calibrate(
        &self,
        pipeline: &Pipeline<'_>,
        material: &Material<'_>,
        captioned: Option<ScoredCaptions>,
        folder: &RunFolder,
    ) -> anyhow::Result<Calibration> {
        let tasks = material.captioned(&material.parts.calibration);
        let truth = material.truth(&material.parts.calibration)?;
        let images = ImageSet { tasks: &tasks, truth };
        if images.truth.is_some() {
            let (annotated, all) = (images.annotated(), images.tasks.count());
            self.reporter.note(format!("{annotated} of {all} calibration images are annotated"));
        }
        let Pair { policy, verifier, .. } = material.loaded;
        let rows = material.parts.calibration.clone();
        let seen =
            PromptTasks::new(policy, material.set, rows, Some(&verifier.views), material.config);
        let views = |at| Ok(seen.task(at)?.verifier_images);
        verifier.report_drift(images.tasks.count(), &views, self.reporter)?;
        let calibration = pipeline
            .own_calibration(&images, captioned)
            .map_err(|error| uncalibrated(error, folder, &self.request.resume_command))?;
        let config = material.config;
        let captions = config.responses_per_iteration() * config.align.iterations;
        let mut lines = prospects::summary(&calibration);
        lines.extend(prospects::lines(&calibration, &config.reward, Some(captions))?);
        self.reporter.note(lines.join("\n"));
        Ok(calibration)
    }

    /// A run whose adapter is written and whose report is published.
    fn done(
        &self,
        files: &Files,
        folder: &RunFolder,
        passed_over: &PassedOver,
        published: Option<Published>,
    ) -> anyhow::Result<Outcome> {
        if let Some(summary) = passed_over.summary(folder) {
            self.reporter.note(summary);
        }
        self.merge(files, folder)?;
        Ok(self.trained(folder, published))
    }

    /// Writes the model with the adapter in its weights, where that is asked for and not done yet.
    fn merge(&self, files: &Files, folder: &RunFolder) -> anyhow::Result<()> {
        let Some(output) = &files.merge else { return Ok(()) };
        if output.join(fisao_formats::checkpoint::CONFIG_FILE).exists() {
            return Ok(());
        }
        let model = files.model_location();
        let adapter = folder.path(RunFolder::ADAPTER);
        let merged = merge_into(&model, &adapter, output, &(self.stop)()?, self.reporter);
        let merged = merged.map_err(|error| self.ended(Some(folder), error))?;
        self.reporter.note(format!(
            "merged model: {} ({} layers changed)",
            output.display(),
            merged.layers
        ));
        Ok(())
    }

    /// What there is to say of a run that was measured already, and of which nothing has changed.
    fn finished(&self, files: &Files) -> anyhow::Result<Option<Outcome>> {
        let Some(folder) = &self.begun else { return Ok(None) };
        let done = publishing::published_iterations(folder)?;
        if done != Some(self.config.align.iterations) {
            return Ok(None);
        }
        self.reporter.note("all iterations are done, and the report is written");
        self.merge(files, folder)?;
        Ok(Some(self.trained(folder, None)))
    }
}

/// Why a run cannot be calibrated, with what can be done about it without losing the captions.
fn uncalibrated(error: anyhow::Error, folder: &RunFolder, resume_command: &str) -> anyhow::Error {
    let concerns = |is: fn(&(dyn Error + 'static)) -> bool| error.chain().any(is);
    let split = folder.path(splitting::SPLIT);
    let split = split.display();
    let hint = if concerns(<dyn Error>::is::<NothingNamed>) {
        format!(
            "name the objects of your images, in a file or a built-in list, with: {resume_command} --vocabulary LIST"
        )
    } else if concerns(is_too_few) {
        "begin anew in another folder with more images, a larger --calibration-images, or longer captions (--set \
         max-new-tokens=N)"
            .to_owned()
    } else if concerns(|cause| cause.is::<CalibrationError>() || cause.is::<RewardError>()) {
        format!(
            "say which objects are in the images that {split} lists under \"calibration\" with: {resume_command} --annotations \
             FILE; or begin anew with more images, a larger --calibration-images, or another --verifier"
        )
    } else {
        return error;
    };
    let folder = folder.root().display();
    let message = format!("the run cannot calibrate itself; its captions are kept in {folder}");
    Refusal::new(message).because(error).hint(hint).into()
}

fn is_too_few(cause: &(dyn Error + 'static)) -> bool {
    matches!(cause.downcast_ref(), Some(CalibrationError::TooFew { .. }))
}

impl Material<'_> {
    /// The model as it was named.
    pub(super) fn model(&self) -> &str {
        &self.files.model
    }

    /// What every test image is captioned with, where that is one prompt.
    pub(super) fn prompt(&self) -> anyhow::Result<Option<String>> {
        let prompt = |row: &u32| anyhow::Ok(self.set.row(*row as usize)?.prompt);
        let mut prompts = self.parts.test.iter().map(prompt);
        let Some(first) = prompts.next().transpose()? else { return Ok(None) };
        for other in prompts {
            if other? != first {
                return Ok(None);
            }
        }
        Ok(Some(first))
    }

    /// The object vocabulary that rates are measured by, as it was named.
    pub(super) fn vocabulary(&self) -> &Path {
        self.files.measured_vocabulary()
    }

    fn tasks(&self, rows: &[u32]) -> PromptTasks<'_> {
        let Pair { policy, views, .. } = self.loaded;
        PromptTasks::new(policy, self.set, rows.to_vec(), views.as_ref(), self.config)
    }

    /// Tasks that the policy answers itself.
    fn captioned(&self, rows: &[u32]) -> PromptTasks<'_> {
        self.tasks(rows).without_answers()
    }

    /// Validation is on rows that are held out for it, or else on those of the calibration, or else on some that
    /// are trained on, which show how the policy speaks.
    fn validation(&self) -> anyhow::Result<ValidationSet> {
        let Parts { calibration, training, validation, .. } = self.parts;
        let rows = [validation, calibration, training];
        let rows = rows.into_iter().find(|rows| !rows.is_empty()).map_or(&[][..], Vec::as_slice);
        let rows = &rows[..rows.len().min(VALIDATION_IMAGES)];
        Ok(ValidationSet { tasks: self.tasks(rows).all()?, truth: None })
    }

    /// The objects of some images, as far as they are annotated.
    fn truth(&self, rows: &[u32]) -> anyhow::Result<Option<Vec<Option<BTreeSet<String>>>>> {
        let Some(annotations) = &self.annotations else { return Ok(None) };
        let of = |row: &u32| {
            let row = self.set.row(*row as usize)?;
            let objects = annotations.find(&row.image_name).or_else(|| annotations.find(&row.id));
            anyhow::Ok(objects.cloned())
        };
        Ok(Some(rows.iter().map(of).collect::<anyhow::Result<_>>()?))
    }
}
