//! What is compared: methods and their settings.

use std::ops::RangeInclusive;

use anyhow::bail;
use fisao_align::AlignConfig;
use fisao_align::group::GroupRelativeConfig;
use fisao_align::objective::{DpoConfig, Objective, PairSource, SftConfig};
use fisao_runs::demo_config::demo_config;
use fisao_runs::settings::SettingsChanges;
use fisao_runs::{Refusal, Reporter, renamed, settings};
use fisao_verifier::calibration::Labels;
use fisao_verifier::rewards::RewardForm;
use serde::{Deserialize, Serialize};

use super::comparison::CompareRequest;
use super::document::Budget;

/// Responses to one image, for methods that compare them. They see as many times fewer images, so that all methods
/// learn from the same number of responses.
const SAMPLES: usize = 4;

/// Bound of the sentence reward, standard deviations: its own default.
const SENTENCE_MAX: f64 = 3.0;

/// A method of making the model hallucinate less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MethodChoice {
    /// The model as it comes.
    Base,
    /// Token rewards of the model's own encoder, PPO.
    Fisao,
    /// The same rewards without a critic: responses to one image against each other.
    FisaoGroup,
    /// PPO with one reward for the whole response.
    SentencePpo,
    /// DPO on pairs that the verifier makes of the model's own responses, anew in every iteration.
    SelfDpo,
    /// No training: the best of N responses by the verifier.
    BestOfN,
    /// Supervised fine-tuning on captions written by someone who knows.
    Sft,
    /// DPO on pairs written by someone who knows.
    Dpo,
}

impl MethodChoice {
    /// All of them.
    const ALL: [Self; 8] = [
        Self::Base,
        Self::Fisao,
        Self::FisaoGroup,
        Self::SentencePpo,
        Self::SelfDpo,
        Self::BestOfN,
        Self::Sft,
        Self::Dpo,
    ];
}

/// What all methods get as much of as FiSAO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BudgetChoice {
    /// Responses learned from.
    #[default]
    Prompts,
    /// Seconds of training.
    WallTime,
    /// First the one, then the other.
    Both,
}

/// Questions about the method, as settings to vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ablation {
    /// The margin λ of threshold rewards.
    Margin,
    /// Token rewards on the last token of a word, or on all of them; or one for the sentence.
    Granularity,
    /// Corrected for the verifier's errors, log-odds, thresholds, or the whole sentence.
    Form,
    /// Calibration with annotations and without.
    Labels,
    /// Images to train on, from 32 to 4096.
    Prompts,
    /// Rank of the adapter.
    Rank,
    /// Verifiers of several AUCs, by noise on their scores, with every method that uses them.
    Verifier,
    /// Fraction of the object names that the verifier knows.
    Vocabulary,
}

/// One way to get captions.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    pub(crate) key: String,
    pub(crate) label: String,
    pub(crate) description: &'static str,
    pub(crate) uses_external_data: bool,
    pub(crate) budget: Option<Budget>,
    pub(crate) kind: Kind,
    pub(crate) config: AlignConfig,
    pub(crate) surroundings: Surroundings,
}

/// How captions are got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// From the model as it is.
    Untrained,
    /// By choosing among so many.
    BestOf(usize),
    /// After training.
    Trained,
}

/// What varies besides the settings of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Surroundings {
    /// What calibration knows.
    pub(crate) labels: Labels,
    /// Images to train on; as many as are asked for where there is not a number.
    pub(crate) prompts: Option<usize>,
    /// Fraction of the object names that the verifier knows.
    #[serde(alias = "vocabulary_share")]
    pub(crate) vocabulary_fraction: f64,
}

impl Trial {
    /// Whether another trial of the same seed has the same settings, whatever it is called, and so the same result: an ablation
    /// holds the default setting, too.
    pub(crate) fn is_equal(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.config == other.config
            && self.surroundings == other.surroundings
    }
}

/// Everything that was asked for, for one seed.
pub(crate) fn trials(
    request: &CompareRequest,
    seed: u64,
    reporter: &Reporter,
) -> anyhow::Result<Vec<Trial>> {
    let mut choices = request.methods.clone();
    if choices.is_empty() {
        choices = match (request.vary.is_empty(), request.ablation.is_empty()) {
            (true, true) => MethodChoice::ALL.to_vec(),
            _ => vec![MethodChoice::Base],
        };
    }
    // Changes are told from the one, tests are made against the other, times are FiSAO's.
    choices.extend([MethodChoice::Base, MethodChoice::Fisao]);
    choices.sort_unstable();
    choices.dedup();
    let mut trials = Vec::new();
    for choice in choices {
        trials.push(trial(choice, request, seed, reporter)?);
    }
    let mut variations = Vec::new();
    for ablation in &request.ablation {
        variations.extend(varied(*ablation));
    }
    for vary in &request.vary {
        variations.extend(variation(vary, reporter)?);
    }
    for variation in variations {
        trials.push(variation.apply(request, seed, reporter)?);
    }
    Ok(trials)
}

/// Settings that all methods begin with.
fn base_config(
    request: &CompareRequest,
    seed: u64,
    reporter: &Reporter,
    change: impl FnOnce(&mut AlignConfig),
) -> anyhow::Result<AlignConfig> {
    let mut config = demo_config(seed, request.quick);
    change(&mut config);
    settings::resolve(&config, &request.settings, reporter)
}

fn trial(
    choice: MethodChoice,
    request: &CompareRequest,
    seed: u64,
    reporter: &Reporter,
) -> anyhow::Result<Trial> {
    use MethodChoice as M;
    let (key, label, description) = match choice {
        M::Base => ("base", "base model", "as it comes"),
        M::Fisao => {
            ("fisao", "FiSAO (PPO)", "token rewards of the model's own encoder, with a critic")
        }
        M::FisaoGroup => (
            "fisao-group",
            "FiSAO (critic-free)",
            "token rewards, responses to an image against each other",
        ),
        M::SentencePpo => {
            ("sentence-ppo", "PPO, sentence reward", "one score for the whole response")
        }
        M::SelfDpo => (
            "self-dpo",
            "self-rewarding DPO",
            "best and worst of the model's own responses by the verifier",
        ),
        M::BestOfN => {
            ("best-of-n", "best of N", "no training: the verifier chooses among sampled captions")
        }
        M::Sft => ("sft", "SFT", "truthful captions"),
        M::Dpo => (
            "dpo",
            "DPO, external pairs",
            "truthful captions against such with things that are not there",
        ),
    };
    let mut config = base_config(request, seed, reporter, |config| match choice {
        M::Base | M::Fisao | M::BestOfN => {}
        M::FisaoGroup => {
            config.align.samples_per_image = SAMPLES;
            let kl = config.objective.definition().kl().cloned().unwrap_or_default();
            let group = GroupRelativeConfig { kl, ..GroupRelativeConfig::default() };
            config.objective = Objective::GroupRelative(group);
        }
        M::SentencePpo => config.reward.form = RewardForm::Sentence { max: SENTENCE_MAX },
        M::SelfDpo => {
            config.align.samples_per_image = SAMPLES;
            config.objective = Objective::Dpo(DpoConfig::default());
        }
        M::Sft => {
            config.objective = Objective::Sft(SftConfig {});
        }
        M::Dpo => {
            let pairs = PairSource::Data;
            config.objective = Objective::Dpo(DpoConfig { pairs, ..DpoConfig::default() });
        }
    })?;
    // As many responses for each method, also where the number of images is asked for.
    let images = config.align.images_per_iteration / config.align.samples_per_image;
    config.align.images_per_iteration = images.max(1);
    let kind = match choice {
        M::Base => Kind::Untrained,
        M::BestOfN => Kind::BestOf(request.best_of),
        _ => Kind::Trained,
    };
    Ok(Trial {
        key: key.to_owned(),
        label: match kind {
            Kind::BestOf(count) => format!("best of {count}"),
            _ => label.to_owned(),
        },
        description,
        uses_external_data: matches!(choice, M::Sft | M::Dpo),
        budget: (kind == Kind::Trained).then_some(Budget::Prompts),
        kind,
        config,
        surroundings: surroundings(request),
    })
}

fn surroundings(request: &CompareRequest) -> Surroundings {
    Surroundings { labels: request.labels, prompts: None, vocabulary_fraction: 1.0 }
}

/// A method with some settings changed; FiSAO unless another is named.
struct Variation {
    method: MethodChoice,
    /// Name and value, as the method's key has them.
    name: String,
    value: String,
    /// Settings as `--set` takes them.
    set: Vec<String>,
}

/// Images that a trial may be trained on: the scenes of the built-in synthetic dataset that are for training.
const IMAGES: RangeInclusive<usize> = 1..=1 << 20;

/// Keys that are no settings of a run.
const LABELS: &str = "labels";
const PROMPTS: &str = "prompts";
const VOCABULARY_FRACTION: &str = "vocabulary-fraction";

impl Variation {
    fn of(name: &str, value: &str, set: &[&str]) -> Self {
        let set = set.iter().map(ToString::to_string).collect();
        let (name, value) = (name.to_owned(), value.to_owned());
        Self { method: MethodChoice::Fisao, name, value, set }
    }

    fn apply(
        self,
        request: &CompareRequest,
        seed: u64,
        reporter: &Reporter,
    ) -> anyhow::Result<Trial> {
        let mut trial = trial(self.method, request, seed, reporter)?;
        let number = |what: &str| {
            let message = format!("--vary {}={}: {what}", self.name, self.value);
            self.value.parse::<f64>().map_err(|_| Refusal::new(message))
        };
        match self.name.as_str() {
            LABELS => {
                trial.surroundings.labels = match self.value.as_str() {
                    "annotations" => Labels::Annotations,
                    "none" => Labels::None,
                    other => {
                        bail!(Refusal::new(format!("--vary labels={other}: annotations or none")))
                    }
                };
            }
            PROMPTS => {
                let count = self.value.parse().ok().filter(|count| IMAGES.contains(count));
                let refusal = || {
                    let (value, least, most) = (&self.value, IMAGES.start(), IMAGES.end());
                    Refusal::new(format!(
                        "--vary prompts={value}: a number of images from {least} to {most}"
                    ))
                };
                trial.surroundings.prompts = Some(count.ok_or_else(refusal)?);
            }
            VOCABULARY_FRACTION => {
                let fraction = number("a fraction above 0, at most 1")?;
                if !(fraction > 0.0 && fraction <= 1.0) {
                    bail!(Refusal::new(
                        "--vary vocabulary-fraction takes fractions above 0, at most 1"
                    ));
                }
                trial.surroundings.vocabulary_fraction = fraction;
            }
            _ => {
                let set = SettingsChanges { config: None, set: self.set.clone() };
                trial.config = settings::resolve(&trial.config, &set, reporter)?;
            }
        }
        trial.label = match self.method {
            MethodChoice::Fisao => format!("FiSAO, {} {}", self.name, self.value),
            _ => format!("{}, {} {}", trial.label, self.name, self.value),
        };
        trial.key = format!("{}[{}={}]", trial.key, self.name, self.value);
        Ok(trial)
    }
}

/// The values of one `--vary`.
fn variation(text: &str, reporter: &Reporter) -> anyhow::Result<Vec<Variation>> {
    let Some((key, values)) = text.split_once('=') else {
        bail!(
            Refusal::new(format!("--vary {text} gives no values"))
                .hint(format!("write --vary {text}=VALUE,VALUE"))
        );
    };
    let key = renamed::present_key(key.trim(), reporter);
    let name = key.rsplit('.').next().unwrap_or(&key);
    let each = |value: &str| Variation::of(name, value, &[&format!("{key}={value}")]);
    Ok(values.split(',').map(str::trim).filter(|value| !value.is_empty()).map(each).collect())
}

fn varied(ablation: Ablation) -> Vec<Variation> {
    let plain = |name: &str, key: &str, values: &[&str]| -> Vec<Variation> {
        values
            .iter()
            .map(|value| Variation::of(name, value, &[&format!("{key}={value}")]))
            .collect()
    };
    match ablation {
        Ablation::Margin => {
            let each = |value: &&str| {
                let margin = format!("reward.form.margin={value}");
                Variation::of("margin", value, &["reward.form.kind=threshold", &margin])
            };
            ["0", "0.05", "0.1", "0.15"].iter().map(each).collect()
        }
        Ablation::Granularity => vec![
            Variation::of("placement", "last", &["reward.placement=last"]),
            Variation::of("placement", "spread", &["reward.placement=spread"]),
            Variation::of("granularity", "sentence", &["reward.form.kind=sentence"]),
        ],
        Ablation::Form => ["corrected", "log-odds", "threshold", "sentence"]
            .iter()
            .map(|form| Variation::of("form", form, &[&format!("reward.form.kind={form}")]))
            .collect(),
        Ablation::Labels => plain(LABELS, LABELS, &["annotations", "none"]),
        Ablation::Prompts => {
            plain(PROMPTS, PROMPTS, &["32", "64", "128", "256", "512", "1024", "2048", "4096"])
        }
        Ablation::Rank => plain("rank", "lora.rank", &["1", "2", "4", "8", "16", "32"]),
        Ablation::Verifier => NOISE.iter().flat_map(|noise| weaker(noise)).collect(),
        Ablation::Vocabulary => {
            plain(VOCABULARY_FRACTION, VOCABULARY_FRACTION, &["0.1", "0.25", "0.5", "0.75"])
        }
    }
}

/// Standard deviations of the noise at which the embedded clear world's verifier has an AUC of about 1, 0.95, 0.9, 0.8, 0.7
/// and 0.6 on the base model's own words: √(Δμ²/(2 Φ⁻¹(AUC)²) − σ²), with Δμ = 0.45 and σ = 0.06.
const NOISE: [&str; 6] = ["0", "0.18", "0.24", "0.36", "0.58", "1.15"];

/// Methods that learn from, or choose by, the verifier's scores.
const VERIFIED: [MethodChoice; 5] = [
    MethodChoice::Fisao,
    MethodChoice::FisaoGroup,
    MethodChoice::SentencePpo,
    MethodChoice::SelfDpo,
    MethodChoice::BestOfN,
];

/// All of them with so much noise on the scores of mentions.
fn weaker(noise: &str) -> Vec<Variation> {
    let set = format!("score.noise={noise}");
    let each =
        |&method: &MethodChoice| Variation { method, ..Variation::of("noise", noise, &[&set]) };
    VERIFIED.iter().map(each).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use fisao_runs::device::DeviceChoice;
    use fisao_scenes::WorldKind;

    use super::*;

    #[test]
    fn methods_learn_from_as_many_responses_whatever_their_number_is_set_to() {
        for (set, expected) in [(&[][..], 64), (&["align.images-per-iteration=76"][..], 76)] {
            let request = CompareRequest {
                methods: vec![MethodChoice::FisaoGroup, MethodChoice::SelfDpo, MethodChoice::Sft],
                vary: Vec::new(),
                ablation: Vec::new(),
                seeds: 1,
                first_seed: 0,
                budget: BudgetChoice::Prompts,
                labels: Labels::Annotations,
                world: WorldKind::Clear,
                best_of: 8,
                quick: false,
                device: DeviceChoice::Cpu,
                settings: SettingsChanges {
                    set: set.iter().map(ToString::to_string).collect(),
                    ..SettingsChanges::default()
                },
                output: PathBuf::new(),
            };
            for trial in trials(&request, 0, &Reporter::silent()).unwrap() {
                let align = &trial.config.align;
                let responses = align.images_per_iteration * align.samples_per_image;
                assert_eq!(responses, expected, "{}", trial.key);
            }
        }
    }
}
