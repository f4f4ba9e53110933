//! Vocabularies that are found in captions, held against the built-in datasets' truth: which objects are found and what else, and
//! whether the encoder can tell attributes, counts and positions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use fisao_align::captions::describe_all;
use fisao_align::grounding::{Estimate, auc_of, beyond_noun};
use fisao_align::mentions::MentionScorer;
use fisao_align::objective::Data;
use fisao_align::tasks::TaskSource as _;
use fisao_align::{RunControl, StopFlag};
use fisao_formats::documents::{check_output_folder, write_bytes, write_json};
use fisao_models::generation::Sampling;
use fisao_report::html::page;
use fisao_report::table::{Table, percent};
use fisao_runs::bundle::{ModelSource, Pair, PairSource};
use fisao_runs::device::DeviceChoice;
use fisao_runs::found_vocabulary::FoundVocabulary;
use fisao_runs::score_settings::ScoreSettings;
use fisao_runs::vocabulary::Vocabulary;
use fisao_runs::world::SceneTasks;
use fisao_runs::{Reporter, locks};
use fisao_scenes::{CATEGORIES, Scene, Split, World, WorldKind};
use fisao_verifier::mentions::{NameKind, NounName, noun_names};
use fisao_verifier::regions::{ImageEmbedding, RegionWeights};
use fisao_verifier::scorer::Verifier;
use serde::Serialize;

use crate::study::Studied;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct VocabularyStudyRequest {
    /// Where to compute.
    pub device: DeviceChoice,
    /// How many seeds it is repeated with, from 0 on.
    pub seeds: u64,
    /// Captions that a list is found in.
    pub count: usize,
    /// Folder of the results.
    pub output: PathBuf,
}

/// What was found with a seed.
#[derive(Clone, Debug, Serialize)]
struct Found {
    dataset: &'static str,
    seed: u64,
    /// Names of the list.
    names: usize,
    /// Categories of the dataset with a name in the list.
    categories: usize,
    /// Of so many.
    of: usize,
    /// Categories without one.
    missing: Vec<&'static str>,
    /// Names that are no category's.
    others: Vec<String>,
    /// Whether the encoder tells what captions say of nouns.
    kinds: Vec<Statements>,
}

/// What captions say of nouns, by the truth.
#[derive(Clone, Debug, Serialize)]
struct Statements {
    /// Attributes, counts or positions.
    of: &'static str,
    /// Statements that are true, and that are not.
    correct: usize,
    wrong: usize,
    /// AUC of the phrase's score less the noun's, with its interval.
    auc: Option<[f64; 3]>,
}

/// All of it.
#[derive(Serialize)]
struct Study {
    fisao: &'static str,
    captions: usize,
    found: Vec<Found>,
}

/// Finds lists in the captions of both built-in datasets; writes `vocabulary.json`, `vocabulary.html` and each list.
pub fn study_vocabulary(
    request: &VocabularyStudyRequest,
    reporter: &Reporter,
) -> anyhow::Result<Studied> {
    check_output_folder(&request.output)?;
    let _lock = locks::lock(&request.output, reporter)?;
    let opened = request.device.open(reporter)?;
    let mut found = Vec::new();
    for kind in WorldKind::ALL {
        let source = PairSource {
            model: ModelSource::default(),
            verifier: None,
            allow_mismatched_verifier: false,
            world: kind,
        };
        let pair = Pair::open(&source, ScoreSettings::default(), &opened, reporter)?;
        for seed in 0..request.seeds {
            found.push(seed_of(&pair, kind, seed, request, reporter)?);
        }
    }
    let study = Study { fisao: env!("CARGO_PKG_VERSION"), captions: request.count, found };
    write_json(&request.output.join("vocabulary.json"), &study)?;
    let path = request.output.join("vocabulary.html");
    let (lists, kinds) = (study.lists(), study.kinds());
    let main = format!(
        "<main><h1>Vocabularies found in captions</h1><p>{} captions each, without labels; held against the scenes’ objects.</p>\
         {}<h2>What captions say of nouns</h2><p>AUC of the phrase’s score less the noun’s, statements that are true \
         of the scene against others.</p>{}</main>",
        study.captions,
        lists.html(),
        kinds.html()
    );
    write_bytes(&path, page("Vocabularies found in captions", &main).as_bytes())?;
    Ok(Studied { summary: format!("{}\n{}", lists.aligned(), kinds.aligned()), page: path })
}

impl Study {
    fn lists(&self) -> Table {
        let mut table = Table::new(&[
            "dataset",
            "seed",
            "names",
            "categories found %",
            "missing",
            "no category's %",
            "these",
        ]);
        for it in &self.found {
            let fraction = |count: usize, of: usize| percent(Some(count as f64 / of.max(1) as f64));
            table.row([
                it.dataset.to_owned(),
                it.seed.to_string(),
                it.names.to_string(),
                fraction(it.categories, it.of),
                it.missing.join(", "),
                fraction(it.others.len(), it.names),
                it.others.join(", "),
            ]);
        }
        table
    }

    fn kinds(&self) -> Table {
        let mut table = Table::new(&["dataset", "seed", "kind", "correct", "wrong", "AUC"]);
        for it in &self.found {
            for kind in &it.kinds {
                let auc = |[auc, low, high]: [f64; 3]| format!("{auc:.2} ({low:.2} … {high:.2})");
                table.row([
                    it.dataset.to_owned(),
                    it.seed.to_string(),
                    kind.of.to_owned(),
                    kind.correct.to_string(),
                    kind.wrong.to_string(),
                    kind.auc.map_or_else(|| "–".to_owned(), auc),
                ]);
            }
        }
        table
    }
}

fn seed_of(
    pair: &Pair,
    kind: WorldKind,
    seed: u64,
    request: &VocabularyStudyRequest,
    reporter: &Reporter,
) -> anyhow::Result<Found> {
    let Pair { policy, verifier, views } = pair;
    let world = World::of(kind);
    let tasks = |split| SceneTasks {
        world: &world,
        split,
        seed,
        count: request.count,
        policy,
        views: views.as_ref(),
        all_prompts: true,
        answers: Data::Sampled,
    };
    let (found_in, held_out) = (tasks(Split::Calibration), tasks(Split::Test));
    let length = found_in.task(0)?.prompt.len();
    let sampling = Sampling { max_new_tokens: 96, temperature: 1.0, seed };
    let source = (&found_in as _, length);
    let found = FoundVocabulary::of_images((policy, verifier), source, &sampling, None, reporter)?;
    let name = kind.name();
    found.write(&request.output.join(format!("{name}-{seed}.txt")), reporter)?;
    let weights = found.names().weights;
    let matcher = Vocabulary::of_world().for_mentions()?;
    let category_of = |name: &str| matcher.mention_of(name).map(|mention| mention.category);
    let words = found.into_words();
    let (mut categories, mut others, mut names) = (BTreeSet::new(), Vec::new(), 0);
    for name in words.names() {
        names += 1;
        match category_of(name) {
            Some(category) => _ = categories.insert(category),
            None => others.push(name.to_owned()),
        }
    }
    let missing = (0..CATEGORIES.len()).filter(|category| !categories.contains(category));
    let missing = missing.map(|category| CATEGORIES[category].name()).collect();

    let tokenizer = Arc::clone(&policy.tokenizer) as _;
    let mut scorer = MentionScorer::of_nothing(tokenizer, verifier.verifier.clone());
    let progress = reporter.phase("caption (test)", request.count as u64);
    let advance = |done| progress.advance(done as u64);
    let flag = StopFlag::default();
    let control = RunControl::new(&advance).until(&flag);
    let length = length + sampling.max_new_tokens;
    let (captions, images) = describe_all(
        &policy.model,
        &mut scorer,
        &held_out,
        length,
        &sampling,
        control,
        &mut |_| {},
    )?;
    progress.finish();
    let texts = captions.iter().map(|caption| caption.text.as_str());
    let phrases = noun_names(texts, 1);
    let scene = |text: usize| world.scene(Split::Test, seed, captions[text].task as u64);
    let kinds = [NameKind::Attribute, NameKind::Count, NameKind::Position];
    let kinds = kinds.into_iter().map(|kind| {
        let truth = |phrase: &NounName, text| is_true(phrase, &scene(text), &category_of);
        let image = |text: usize| &images[captions[text].task];
        let of_kind = phrases.iter().filter(|phrase| phrase.kind == kind);
        measured(kind, of_kind, (&verifier.verifier, weights), &image, &truth)
    });
    Ok(Found {
        dataset: name,
        seed,
        names,
        categories: categories.len(),
        of: CATEGORIES.len(),
        missing,
        others,
        kinds: kinds.collect::<anyhow::Result<_>>()?,
    })
}

/// How well the verifier tells true statements of a kind from others.
fn measured<'a>(
    kind: NameKind,
    phrases: impl Iterator<Item = &'a NounName>,
    (verifier, weights): (&Verifier, RegionWeights),
    image: &dyn Fn(usize) -> &'a ImageEmbedding,
    truth: &dyn Fn(&NounName, usize) -> Option<bool>,
) -> anyhow::Result<Statements> {
    let mut verifier = verifier.clone();
    verifier.set_weights(weights);
    let (mut correct, mut wrong) = (Vec::new(), Vec::new());
    for phrase in phrases {
        verifier.embed_names([phrase.name.as_str(), phrase.noun.as_str()])?;
        for &text in &phrase.texts {
            let Some(is_true) = truth(phrase, text) else { continue };
            let beyond = beyond_noun(phrase, image(text), &verifier)?;
            if is_true { correct.push(beyond) } else { wrong.push(beyond) }
        }
    }
    let both = !correct.is_empty() && !wrong.is_empty();
    let auc = both.then(|| auc_of(&correct, &wrong));
    Ok(Statements {
        of: kind.name(),
        correct: correct.len(),
        wrong: wrong.len(),
        auc: auc.map(|auc: Estimate| {
            let [low, high] = auc.interval();
            [auc.mean, low, high]
        }),
    })
}

/// Whether a scene is as a phrase has it; `None` where it has nothing of what the phrase is about.
fn is_true(
    phrase: &NounName,
    scene: &Scene,
    category_of: &dyn Fn(&str) -> Option<usize>,
) -> Option<bool> {
    let said = phrase.name.as_str();
    if phrase.kind == NameKind::Attribute {
        if !matches!(phrase.noun.as_str(), "background" | "tile" | "tiles") {
            return None;
        }
        let (colour, _) = said.split_once(' ')?;
        let colours = [scene.background.first.name, scene.background.second.name];
        return Some(colours.iter().any(|name| name.ends_with(colour)));
    }
    let category = category_of(&phrase.noun)?;
    let objects: Vec<_> = scene.objects.iter().filter(|it| it.category == category).collect();
    if objects.is_empty() {
        return None;
    }
    if phrase.kind == NameKind::Position {
        return Some(objects.iter().all(|object| said.ends_with(object.place().words())));
    }
    let count = match said.split_once(' ')?.0 {
        "two" => objects.len() == 2,
        "three" => objects.len() == 3,
        "several" => objects.len() > 3,
        _ => return None,
    };
    Some(count)
}
