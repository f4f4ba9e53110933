//! Methods against each other on the built-in synthetic dataset, with equal budgets and several seeds.

use std::path::{Path, PathBuf};

use fisao_formats::documents::{check_output_folder, read_json, write_json};
use fisao_runs::bundle::{embedded_name, title};
use fisao_runs::device::DeviceChoice;
use fisao_runs::settings::SettingsChanges;
use fisao_runs::stop::StopSource;
use fisao_runs::world::{DemoSetup, Sizes};
use fisao_runs::{Refusal, Reporter, locks};
use fisao_scenes::WorldKind;
use fisao_verifier::calibration::Labels;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::document::{Budget, Document, Method, Settings};
use super::methods::{Ablation, BudgetChoice, Kind, MethodChoice, Trial, trials};
use super::trial::{Bench, Outcome};
use super::{PAGE, publish, tables};

/// Key of the method that changes are relative to, and of that which others are tested against.
const BASE: &str = "base";
const AGAINST: &str = "fisao";

/// Ends the key of a method that trains as long as FiSAO.
const SAME_TIME: &str = "@time";

/// File that says how much the trials of a folder measure.
const SIZES: &str = "sizes.json";

/// What is to be compared.
#[derive(Clone, Debug)]
pub struct CompareRequest {
    /// Methods; all of them if there are none and nothing is varied.
    pub methods: Vec<MethodChoice>,
    /// Settings to train FiSAO with several values of, as `KEY=VALUE,…`.
    pub vary: Vec<String>,
    /// Questions about the method, as settings to vary.
    pub ablation: Vec<Ablation>,
    /// How many seeds everything is repeated with.
    pub seeds: u64,
    /// The first of them.
    pub first_seed: u64,
    /// What is held equal.
    pub budget: BudgetChoice,
    /// What calibration knows of its images.
    pub labels: Labels,
    /// Which built-in synthetic dataset.
    pub world: WorldKind,
    /// Responses to each image that best-of-N chooses from.
    pub best_of: usize,
    /// Whether it is a shorter and rougher comparison.
    pub quick: bool,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Changes to the settings of every run.
    pub settings: SettingsChanges,
    /// Folder of the results and of all runs; what is there already is not done again.
    pub output: PathBuf,
}

/// A comparison that is done.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The few numbers that matter, as a table.
    pub summary: String,
    /// All of them as a page.
    pub page: PathBuf,
}

/// What all trials of a folder share.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Layout {
    fisao: String,
    sizes: Sizes,
    /// Comparisons begun before there was a choice are of the clear world.
    #[serde(default)]
    world: WorldKind,
}

/// Trains and measures methods, and writes numbers, tables and a page after every seed. A raised flag ends it after the current
/// step.
///
/// # Errors
/// [`Interrupted`](fisao_runs::failure::Interrupted) where the flag was raised. Otherwise what cannot be used, or what failed.
pub fn compare(
    request: &CompareRequest,
    stop: StopSource<'_>,
    reporter: &Reporter,
) -> anyhow::Result<Compared> {
    check_output_folder(&request.output)?;
    let sizes = Sizes::of(request.quick);
    let seeds: Vec<u64> = (request.first_seed..request.first_seed + request.seeds).collect();
    // Every setting is checked before the first of many hours.
    let asked = seeds
        .iter()
        .map(|&seed| trials(request, seed, reporter))
        .collect::<Result<Vec<Vec<Trial>>, _>>()?;
    let stop = stop()?;
    let opened = request.device.open(reporter)?;
    // Whether responses fit the model is known before the first trial, too.
    if let Some(first) = asked.iter().flatten().next() {
        let setup = DemoSetup::open(&first.config, request.world, &opened, reporter)?;
        asked.iter().flatten().try_for_each(|trial| setup.check_length(&trial.config))?;
    }
    let _lock = locks::lock(&request.output, reporter)?;
    claim(&request.output, sizes, request.world)?;
    let bench = Bench { opened: &opened, reporter, stop: &stop, sizes, world: request.world };
    let mut comparison = Comparison { methods: Vec::new(), folder: &request.output, bench };
    let (mut done, mut summary) = (Vec::new(), String::new());
    for (&seed, trials) in seeds.iter().zip(&asked) {
        comparison.seed(seed, trials, request.budget)?;
        done.push(seed);
        // What is known so far is worth reading.
        let document = comparison.document(&done, &asked, request.first_seed);
        publish(&document, &request.output)?;
        if done.len() == seeds.len() {
            summary = tables::summary(&document);
        }
    }
    Ok(Compared { summary, page: request.output.join(PAGE) })
}

/// Marks a folder as a comparison's, or refuses one of another size or version.
fn claim(folder: &Path, sizes: Sizes, world: WorldKind) -> anyhow::Result<()> {
    let path = folder.join(SIZES);
    let layout = Layout { fisao: env!("CARGO_PKG_VERSION").to_owned(), sizes, world };
    if !path.exists() {
        return Ok(write_json(&path, &layout)?);
    }
    let known: Layout = read_json("layout of the comparison", &path)?;
    if known == layout {
        return Ok(());
    }
    let other = "choose another output folder";
    if known.world != world {
        let (folder, world) = (folder.display(), title(known.world));
        let message = format!("{folder} holds a comparison on the {world}");
        return Err(Refusal::new(message).hint(other).into());
    }
    let message = format!(
        "{} holds a comparison that measures {} captions (fisao {}), not {} (fisao {})",
        folder.display(),
        known.sizes.test,
        known.fisao,
        sizes.test,
        layout.fisao
    );
    Err(Refusal::new(message).hint(other).into())
}

/// What has been measured so far.
struct Comparison<'a> {
    methods: Vec<Method>,
    folder: &'a Path,
    bench: Bench<'a>,
}

impl Comparison<'_> {
    /// Runs all trials of one seed.
    fn seed(&mut self, seed: u64, trials: &[Trial], budget: BudgetChoice) -> anyhow::Result<()> {
        let mut time_of_fisao = None;
        let mut ordered: Vec<&Trial> = trials.iter().collect();
        // Its time is the others' budget.
        ordered.sort_by_key(|trial| trial.key != AGAINST);
        let mut finished: Vec<(&Trial, Outcome)> = Vec::new();
        for trial in ordered {
            let equal = finished.iter().find(|(earlier, _)| earlier.is_equal(trial));
            let outcome = match equal {
                Some((_, outcome)) => outcome.clone(),
                None => self.bench.run(trial, &self.place(&trial.key, seed))?,
            };
            finished.push((trial, outcome.clone()));
            let ours = trial.key == AGAINST;
            if ours {
                time_of_fisao = Some(outcome.row.seconds);
            }
            let timed = budget != BudgetChoice::Prompts
                && trial.kind == Kind::Trained
                && !ours
                && !trial.key.contains('[');
            if budget != BudgetChoice::WallTime || !timed {
                self.add(trial, outcome.clone());
            }
            if let (true, Some(seconds)) = (timed, time_of_fisao) {
                let longer = at_same_time(trial, &outcome, seconds);
                let outcome = self.bench.run(&longer, &self.place(&longer.key, seed))?;
                self.add(&longer, outcome);
            }
        }
        // Shown in the order that they were asked for in.
        let position = |key: &str| {
            let plain = key.trim_end_matches(SAME_TIME);
            (trials.iter().position(|trial| trial.key == plain), key.ends_with(SAME_TIME))
        };
        self.methods.sort_by_key(|method| position(&method.key));
        Ok(())
    }

    fn place(&self, key: &str, seed: u64) -> PathBuf {
        let safe = |letter: char| {
            if letter.is_alphanumeric() || "-.".contains(letter) { letter } else { '_' }
        };
        self.folder
            .join("runs")
            .join(key.chars().map(safe).collect::<String>())
            .join(format!("seed-{seed}"))
    }

    fn add(&mut self, trial: &Trial, outcome: Outcome) {
        if let Some(known) = self.methods.iter_mut().find(|method| method.key == trial.key) {
            known.seeds.push(outcome.row);
            return;
        }
        self.methods.push(Method {
            key: trial.key.clone(),
            label: trial.label.clone(),
            description: trial.description.to_owned(),
            uses_external_data: trial.uses_external_data,
            budget: trial.budget,
            seeds: vec![outcome.row],
        });
    }

    fn document(&self, seeds: &[u64], asked: &[Vec<Trial>], first: u64) -> Document {
        let trials = asked.first().map(Vec::as_slice).unwrap_or_default();
        let ours = trials.iter().find(|trial| trial.key == AGAINST);
        let prompts = ours.map_or(0, |trial| {
            trial.config.align.iterations * trial.config.responses_per_iteration()
        });
        let resolved: serde_json::Map<String, Value> = trials
            .iter()
            .map(|trial| {
                (trial.key.clone(), json!({ "first-seed": first, "settings": trial.config }))
            })
            .collect();
        let settings = Settings {
            model: embedded_name(self.bench.world, "llava"),
            seeds: seeds.to_vec(),
            scenes: self.bench.sizes.test,
            base: Some(BASE.to_owned()),
            against: Some(AGAINST.to_owned()),
            prompts,
            seconds: None,
            resolved: Value::Object(resolved),
        };
        Document::summarise(settings, self.methods.clone(), Vec::new())
    }
}

/// A method with as many iterations as fit into the time that FiSAO took.
fn at_same_time(trial: &Trial, outcome: &Outcome, seconds: f64) -> Trial {
    let mut longer = trial.clone();
    let fitting = (seconds / outcome.seconds_per_iteration()).round() as usize;
    longer.config.align.iterations = fitting.max(longer.config.align.warmup_iterations + 1);
    longer.key = format!("{}{SAME_TIME}", trial.key);
    longer.label = format!("{}, same time", trial.label);
    longer.budget = Some(Budget::WallTime);
    longer
}
