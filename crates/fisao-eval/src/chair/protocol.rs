//! What a CHAIR number depends on, so that it can be cited, repeated and compared.

use serde::{Deserialize, Serialize};

use super::{ChairReport, ImageList, Rules};

/// What a CHAIR number depends on. `None` is what is not known: captions from a file do not say which model wrote them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Protocol {
    /// Program that counted the objects.
    pub scorer: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// How mentions were found.
    pub rules: Option<String>,
    /// Name of the object vocabulary.
    pub vocabulary: Option<String>,
    /// Digest of its words.
    pub vocabulary_sha256: Option<String>,
    /// Images judged.
    pub images: Option<usize>,
    /// Digest of their ids; see [`ChairReport::image_ids_sha256`].
    pub image_ids_sha256: Option<String>,
    /// Name of the list of these images, where they are those of a list.
    pub image_list: Option<String>,
    /// Digest of what is in them; see [`ChairReport::ground_truth_sha256`].
    pub ground_truth_sha256: Option<String>,
    /// Captions judged.
    pub captions: Option<usize>,
    /// Words of a caption, as white space parts them.
    pub words: Option<Lengths>,
    /// Tokens of a caption, the end token not counted.
    pub tokens: Option<Lengths>,
    /// Captions that end because their number of tokens was used up.
    pub cut_off: Option<usize>,
    /// What the model was asked.
    pub prompt: Option<String>,
    /// Name of the model.
    pub model: Option<String>,
    /// Digest of its files.
    pub model_digest: Option<String>,
    /// Name of the adapter. `None` is none where the model's digest is known.
    pub adapter: Option<String>,
    /// Digest of the adapter's weights.
    pub adapter_sha256: Option<String>,
    /// Type of the weights.
    pub dtype: Option<String>,
    /// Temperature of sampling; 0 is greedy decoding.
    pub temperature: Option<f64>,
    /// Seed of sampling.
    pub seed: Option<u64>,
    /// Tokens after which a caption is cut off.
    pub max_new_tokens: Option<u64>,
}

/// Lengths of captions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// Mean.
    pub mean: f64,
    /// Of the longest caption.
    pub max: usize,
}

impl Lengths {
    /// Of at least one caption.
    pub fn of(lengths: &[usize]) -> Option<Self> {
        let max = *lengths.iter().max()?;
        Some(Self { mean: lengths.iter().sum::<usize>() as f64 / lengths.len() as f64, max })
    }
}

impl Protocol {
    /// What a report knows itself.
    pub fn of(report: &ChairReport) -> Self {
        let rules = match report.rules {
            Rules::Strict => "strict",
            Rules::Reference => "reference",
        };
        let known = ImageList::chair_500();
        let is_known = known.sha256() == report.image_ids_sha256;
        let max = report.max_length_words;
        Self {
            scorer: Some("fisao".to_owned()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            rules: Some(rules.to_owned()),
            vocabulary_sha256: Some(report.vocabulary_sha256.clone()),
            images: Some(report.images),
            image_ids_sha256: Some(report.image_ids_sha256.clone()),
            image_list: is_known.then_some(known.name),
            ground_truth_sha256: Some(report.ground_truth_sha256.clone()),
            captions: Some(report.captions),
            words: report.mean_length_words.map(|mean| Lengths { mean, max }),
            ..Self::default()
        }
    }
}

/// How a field bears on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bearing {
    /// What was measured: numbers that differ here cannot be compared.
    Measurement,
    /// How the captions were made: two runs that differ here are two systems.
    Generation,
    /// What came of it: a difference explains one in the numbers.
    Outcome,
    /// A description: no number depends on it.
    Information,
}

/// Whether two reports agree on a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// They do.
    Same,
    /// They do not.
    Different,
    /// One of them does not say, or neither does.
    Unknown,
}

/// One field of two protocols.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldCheck {
    /// Its name.
    pub field: &'static str,
    /// As the first has it.
    pub first: Option<String>,
    /// As the second has it.
    pub second: Option<String>,
    /// Whether they agree.
    pub agreement: Agreement,
    /// What a difference would mean.
    pub bearing: Bearing,
    /// What follows, where they do not agree and it matters.
    pub consequence: Option<&'static str>,
}

impl FieldCheck {
    /// Whether the field is a reason not to compare the numbers, or to doubt it.
    pub fn matters(&self) -> bool {
        self.consequence.is_some()
    }

    /// Whether it is not known if the numbers measure the same.
    pub fn leaves_measurement_open(&self) -> bool {
        self.bearing == Bearing::Measurement && self.agreement == Agreement::Unknown
    }

    /// Whether the numbers measure different things.
    pub fn forbids_comparison(&self) -> bool {
        self.bearing == Bearing::Measurement && self.agreement == Agreement::Different
    }
}

/// A field of protocols, and what a difference means.
struct Field {
    name: &'static str,
    bearing: Bearing,
    consequence: &'static str,
    value: fn(&Protocol) -> Option<String>,
}

impl Field {
    const fn new(
        name: &'static str,
        bearing: Bearing,
        value: fn(&Protocol) -> Option<String>,
        consequence: &'static str,
    ) -> Self {
        Self { name, bearing, consequence, value }
    }
}

/// The most important ones first.
const FIELDS: [Field; 23] = [
    Field::new(
        "scorer",
        Bearing::Measurement,
        |of| of.scorer.clone(),
        "another program counts other words as objects: score the captions of both with one",
    ),
    Field::new(
        "rules",
        Bearing::Measurement,
        |of| of.rules.clone(),
        "other rules find other mentions: score both with the same --rules",
    ),
    Field::new(
        "vocabulary_sha256",
        Bearing::Measurement,
        |of| of.vocabulary_sha256.clone(),
        "other words stand for objects: score both with the same --vocabulary",
    ),
    Field::new(
        "images",
        Bearing::Measurement,
        |of| number(of.images),
        "another number of images: score both on one list, such as --ids chair-500",
    ),
    Field::new(
        "image_ids_sha256",
        Bearing::Measurement,
        |of| of.image_ids_sha256.clone(),
        "other images: score both on one list, such as --ids chair-500",
    ),
    Field::new(
        "ground_truth_sha256",
        Bearing::Measurement,
        |of| of.ground_truth_sha256.clone(),
        "other objects are taken to be in the images: score both with the same --annotations",
    ),
    Field::new(
        "captions",
        Bearing::Measurement,
        |of| number(of.captions),
        "another number of captions",
    ),
    Field::new(
        "prompt",
        Bearing::Generation,
        |of| of.prompt.clone(),
        "another prompt asks for captions of another length and detail",
    ),
    Field::new("model", Bearing::Generation, |of| of.model.clone(), "another model"),
    Field::new(
        "model_digest",
        Bearing::Generation,
        |of| of.model_digest.clone(),
        "other weights of the model",
    ),
    Field::new(
        "adapter",
        Bearing::Generation,
        |of| or_none(of, of.adapter.as_ref()),
        "another adapter",
    ),
    Field::new(
        "adapter_sha256",
        Bearing::Generation,
        |of| or_none(of, of.adapter_sha256.as_ref()),
        "other weights of the adapter",
    ),
    Field::new(
        "dtype",
        Bearing::Generation,
        |of| of.dtype.clone(),
        "rounding differs, and captions with it",
    ),
    Field::new(
        "temperature",
        Bearing::Generation,
        |of| number(of.temperature),
        "sampled captions hallucinate more than greedy ones",
    ),
    Field::new("seed", Bearing::Generation, |of| number(of.seed), "other samples"),
    Field::new(
        "max_new_tokens",
        Bearing::Generation,
        |of| number(of.max_new_tokens),
        "captions are cut off elsewhere, and short ones hallucinate less",
    ),
    Field::new(
        "words",
        Bearing::Outcome,
        |of| of.words.map(|lengths| format!("{:.1}", lengths.mean)),
        "captions of another mean length, with which CHAIR rises: compare them with `fisao eval diff`",
    ),
    Field::new(
        "tokens",
        Bearing::Outcome,
        |of| of.tokens.map(|lengths| format!("{:.1}", lengths.mean)),
        "captions of another mean length, with which CHAIR rises",
    ),
    Field::new(
        "cut_off",
        Bearing::Outcome,
        |of| number(of.cut_off),
        "another number of captions was cut off",
    ),
    Field::new("image_list", Bearing::Information, |of| of.image_list.clone(), ""),
    Field::new("vocabulary", Bearing::Information, |of| of.vocabulary.clone(), ""),
    Field::new("version", Bearing::Information, |of| of.version.clone(), ""),
    Field::new(
        "words_max",
        Bearing::Information,
        |of| number(of.words.map(|lengths| lengths.max)),
        "",
    ),
];

fn number(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// Where the model is known, an adapter that is not named is none.
fn or_none(of: &Protocol, value: Option<&String>) -> Option<String> {
    value.cloned().or_else(|| of.model_digest.as_ref().map(|_| "none".to_owned()))
}

/// Compares two protocols field by field, the most important fields first. Fields that neither has are left out, unless they are
/// about the measurement.
pub fn compare_protocols(first: &Protocol, second: &Protocol) -> Vec<FieldCheck> {
    let both = |known: fn(&Protocol) -> bool| known(first) && known(second);
    // A name stands for a content only where nothing better is known.
    let digests = both(|of| of.model_digest.is_some());
    let greedy = both(|of| of.temperature == Some(0.0));
    let check = |field: &Field| {
        let (first, second) = ((field.value)(first), (field.value)(second));
        let agreement = match (&first, &second) {
            (Some(first), Some(second)) if first == second => Agreement::Same,
            (Some(_), Some(_)) => Agreement::Different,
            _ => Agreement::Unknown,
        };
        let bearing = match field.name {
            "model" | "adapter" if digests => Bearing::Information,
            "seed" if greedy => Bearing::Information,
            _ => field.bearing,
        };
        let matters = agreement != Agreement::Same && bearing != Bearing::Information;
        let consequence = matters.then_some(field.consequence);
        FieldCheck { field: field.name, first, second, agreement, bearing, consequence }
    };
    let said = |check: &FieldCheck| {
        let empty = check.first.is_none() && check.second.is_none();
        !empty || check.bearing == Bearing::Measurement
    };
    FIELDS.iter().map(check).filter(said).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Protocol {
        let text = |text: &str| Some(text.to_owned());
        Protocol {
            scorer: text("fisao"),
            version: text("1"),
            rules: text("strict"),
            vocabulary: text("coco"),
            vocabulary_sha256: text("w"),
            images: Some(2),
            image_ids_sha256: text("i"),
            image_list: None,
            ground_truth_sha256: text("g"),
            captions: Some(2),
            words: Some(Lengths { mean: 9.04, max: 12 }),
            tokens: None,
            cut_off: Some(0),
            prompt: text("Describe."),
            model: text("here/model"),
            model_digest: text("m"),
            adapter: None,
            adapter_sha256: None,
            dtype: text("f32"),
            temperature: Some(0.0),
            seed: Some(1),
            max_new_tokens: Some(64),
        }
    }

    fn reasons(first: &Protocol, second: &Protocol) -> Vec<&'static str> {
        let checks = compare_protocols(first, second);
        checks.into_iter().filter(FieldCheck::matters).map(|check| check.field).collect()
    }

    #[test]
    fn every_field_of_a_protocol_is_compared() {
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(known()) else {
            panic!("a protocol is an object");
        };
        let compared: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
        let missing: Vec<&String> =
            fields.keys().filter(|key| !compared.contains(&key.as_str())).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn what_changes_no_number_is_no_reason() {
        let other = Protocol {
            version: Some("2".to_owned()),
            model: Some("there/model".to_owned()),
            seed: Some(2),
            words: Some(Lengths { mean: 9.0, max: 30 }),
            ..known()
        };
        assert_eq!(reasons(&known(), &other), [""; 0]);
        let sampled = |seed| Protocol { temperature: Some(1.0), seed: Some(seed), ..known() };
        assert_eq!(reasons(&sampled(1), &sampled(2)), ["seed"]);
        let unnamed =
            |model: &str| Protocol { model: Some(model.to_owned()), model_digest: None, ..known() };
        assert_eq!(reasons(&unnamed("a"), &unnamed("b")), ["model"]);
    }

    #[test]
    fn an_adapter_that_is_not_there_differs_from_one_that_is() {
        let other = Protocol { adapter_sha256: Some("a".to_owned()), ..known() };
        assert_eq!(reasons(&known(), &other), ["adapter_sha256"]);
    }

    #[test]
    fn what_is_not_known_is_a_reason_of_its_own() {
        let checks = compare_protocols(&known(), &Protocol::default());
        assert!(checks.iter().all(|check| check.agreement == Agreement::Unknown), "{checks:?}");
        assert!(!checks.iter().any(FieldCheck::forbids_comparison));
        let of = |field: &str| checks.iter().find(|check| check.field == field);
        assert!(of("image_ids_sha256").is_some_and(FieldCheck::matters));
        assert!(of("tokens").is_none(), "neither says");
        let other = Protocol { rules: Some("reference".to_owned()), ..known() };
        let checks = compare_protocols(&known(), &other);
        assert_eq!(checks.iter().filter(|check| check.forbids_comparison()).count(), 1);
    }
}
