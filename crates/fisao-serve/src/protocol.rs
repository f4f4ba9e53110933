//! What is asked and what is answered: JSON that any program can write. `docs/src/serve.md` describes it.

use std::ops::Range;
use std::path::PathBuf;

use fisao_align::AlignError;
use fisao_align::guided::Guidance;
use fisao_runs::bundle::SpelledToken;
use fisao_runs::failure::{InternalError, hint_of};
use fisao_runs::verify::Judged;
use fisao_verifier::regions::ScoreUnit;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the protocol; a request that names another one is refused.
pub const PROTOCOL: u64 = 1;

/// What was wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// It is no JSON object.
    InvalidJson,
    /// It speaks another version of the protocol.
    UnsupportedProtocol,
    /// There is no such method.
    UnknownMethod,
    /// A field is missing, unknown, or of another kind.
    InvalidParams,
    /// An image cannot be read.
    InvalidImage,
    /// It is larger than allowed.
    TooLarge,
    /// What it needs was not loaded.
    Unavailable,
    /// It does not carry the token that the server asks for.
    Unauthorised,
    /// Too many wait already.
    Busy,
    /// It took longer than allowed.
    DeadlineExceeded,
    /// A mistake of ours.
    Internal,
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What kind of thing was wrong.
    pub code: ErrorCode,
    /// What was wrong, as a sentence.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// An error of the library; `code` unless it is a mistake of ours.
    pub fn of(code: ErrorCode, error: &anyhow::Error) -> Self {
        let ours = error.chain().any(<dyn std::error::Error + 'static>::is::<InternalError>);
        let code = if ours { ErrorCode::Internal } else { code };
        let hint = error.chain().find_map(hint_of);
        Self { code, message: format!("{error:#}"), hint }
    }
}

/// Of looking at an image.
impl From<AlignError> for Failure {
    fn from(error: AlignError) -> Self {
        Self::of(ErrorCode::InvalidImage, &error.into())
    }
}

/// What names a request: whatever its client gave it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RequestId(Value);

/// A request whose parameters have not been looked at.
#[derive(Debug)]
pub struct Request {
    /// Repeated in the answer.
    pub id: RequestId,
    /// What is asked for.
    pub method: String,
    /// With what.
    pub params: Value,
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// The failure, with the request's id as far as it can be told.
    #[expect(
        clippy::result_large_err,
        reason = "there is one for each line, and it is written at once"
    )]
    pub fn parse(line: &str) -> Result<Self, (RequestId, Failure)> {
        let nameless = |failure| (RequestId::default(), failure);
        let value: Value = serde_json::from_str(line).map_err(|error| {
            nameless(Failure::new(ErrorCode::InvalidJson, format!("the line is not JSON: {error}")))
        })?;
        let Value::Object(mut fields) = value else {
            let message = "a request is a JSON object with id, method and params";
            return Err(nameless(Failure::new(ErrorCode::InvalidJson, message)));
        };
        let id = if let Some(id @ (Value::String(_) | Value::Number(_))) = fields.remove("id") {
            RequestId(id)
        } else {
            let message = "a request has an id, a string or a number";
            return Err(nameless(Failure::new(ErrorCode::InvalidParams, message)));
        };
        let refuse = |code, message: String| Err((id.clone(), Failure::new(code, message)));
        match fields.remove("protocol") {
            None => {}
            Some(version) if version.as_u64() == Some(PROTOCOL) => {}
            Some(version) => {
                let message =
                    format!("protocol {version} is not spoken here; this server speaks {PROTOCOL}");
                return refuse(ErrorCode::UnsupportedProtocol, message);
            }
        }
        let Some(Value::String(method)) = fields.remove("method") else {
            return refuse(ErrorCode::InvalidParams, "a request has a method, a string".to_owned());
        };
        let params =
            fields.remove("params").unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        if let Some((unknown, _)) = fields.iter().next() {
            let message =
                format!("unknown field '{unknown}'; a request has id, method, params and protocol");
            return refuse(ErrorCode::InvalidParams, message);
        }
        Ok(Self { id, method, params })
    }
}

/// Parameters of one kind, read from what came.
pub fn params<T: DeserializeOwned>(params: Value) -> Result<T, Failure> {
    serde_json::from_value(params)
        .map_err(|error| Failure::new(ErrorCode::InvalidParams, error.to_string()))
}

/// What a request is answered with.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// What was asked for.
    Result {
        /// Of the request.
        id: RequestId,
        /// As the method says.
        result: Answer,
    },
    /// Why it was not answered.
    Error {
        /// Of the request; null where it had none.
        id: RequestId,
        /// What was wrong.
        error: Failure,
    },
}

impl Reply {
    /// The reply to a request.
    pub fn new(id: RequestId, answer: Result<Answer, Failure>) -> Self {
        match answer {
            Ok(result) => Self::Result { id, result },
            Err(error) => Self::Error { id, error },
        }
    }
}

/// What a server says first.
#[derive(Clone, Debug, Serialize)]
pub struct Greeting {
    /// [`PROTOCOL`].
    pub protocol: u64,
    /// Of the program.
    pub version: &'static str,
    /// Name of the model, if one is loaded.
    pub model: Option<String>,
    /// Name of its adapter.
    pub adapter: Option<String>,
    /// Name of the verifier, if one is loaded.
    pub verifier: Option<String>,
    /// Whether scores become probabilities and rewards.
    pub calibrated: bool,
    /// What scores are.
    pub unit: Option<ScoreUnit>,
    /// Name of the object vocabulary.
    pub vocabulary: String,
    /// Methods that can be answered with what is loaded.
    pub methods: Vec<&'static str>,
    /// What is not to be asked of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// An image of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSource {
    /// A file of the server's machine.
    Path(PathBuf),
    /// The bytes of a file.
    Base64(String),
}

/// Parameters of `mentions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MentionsParams {
    /// Texts to be searched.
    pub texts: Vec<String>,
}

/// Parameters of `score`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreParams {
    /// The image.
    pub image: ImageSource,
    /// Names to be scored against it.
    pub names: Vec<String>,
}

/// Parameters of `verify`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyParams {
    /// Captions with their images.
    pub samples: Vec<CaptionSample>,
    /// From this probability on a mention counts as hallucinated.
    #[serde(default = "half")]
    pub threshold: f64,
    /// Whether to say where in the image each word is seen.
    #[serde(default)]
    pub heat_maps: bool,
}

fn half() -> f64 {
    0.5
}

/// A caption with its image.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionSample {
    /// The image.
    pub image: ImageSource,
    /// What is said of it.
    pub caption: String,
}

/// Parameters of `token_rewards`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRewardsParams {
    /// Completions with their images.
    pub samples: Vec<TokenSample>,
}

/// A completion with its tokens and its image.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSample {
    /// The image.
    pub image: ImageSource,
    /// The completion without special tokens.
    pub text: String,
    /// Characters of the text that each token spells, first and past the last.
    pub token_spans: Vec<[usize; 2]>,
    /// Whether it was cut off by its length budget.
    #[serde(default)]
    pub truncated: bool,
}

/// Parameters of `caption`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionParams {
    /// Images to be described.
    pub images: Vec<ImageSource>,
    /// What to ask.
    #[serde(default = "describe")]
    pub prompt: String,
    /// Longest caption, tokens.
    #[serde(default = "usual_length")]
    pub max_new_tokens: usize,
    /// 0 takes the most likely token.
    #[serde(default)]
    pub temperature: f64,
    /// Of sampling.
    #[serde(default)]
    pub seed: u64,
    /// Captions of each image.
    #[serde(default = "one")]
    pub samples: usize,
    /// Whether the adapter is on.
    #[serde(default = "yes")]
    pub adapter: bool,
    /// Least probability that a word is in the image, where doubtful ones are to be taken back.
    #[serde(default)]
    pub guided: Option<f64>,
}

/// What a model is asked where nothing else is said.
pub fn describe() -> String {
    "Describe the image.".to_owned()
}

fn usual_length() -> usize {
    96
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

/// An answer of any method.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Of `mentions`.
    Mentions {
        /// Of each text.
        mentions: Vec<Vec<FoundMention>>,
    },
    /// Of `score`.
    Score {
        /// What the scores are.
        unit: ScoreUnit,
        /// Of each name.
        scores: Vec<NameScore>,
    },
    /// Of `verify`.
    Verify {
        /// What the scores are.
        unit: ScoreUnit,
        /// Of each caption.
        samples: Vec<Verdict>,
    },
    /// Of `token_rewards`.
    TokenRewards {
        /// Of each completion.
        samples: Vec<RewardedSample>,
    },
    /// Of `caption`.
    Captions {
        /// Of each image.
        captions: Vec<Vec<Caption>>,
    },
}

/// Where a text names an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundMention {
    /// First character.
    pub start: usize,
    /// Character after the last.
    pub end: usize,
    /// What the text says.
    pub text: String,
    /// The object.
    pub category: String,
    /// The name that stands for it.
    pub form: String,
    /// Whether the text says that it is not there.
    pub negated: bool,
}

/// Score of a name.
#[derive(Debug, Serialize)]
pub struct NameScore {
    /// The name.
    pub name: String,
    /// Score against the image.
    pub score: f64,
    /// Probability that it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_hallucinated: Option<f64>,
}

/// The verdict on one caption.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The caption.
    pub caption: String,
    /// What it names.
    pub mentions: Vec<Judged>,
    /// Mentions that count as hallucinated; `None` without a calibration.
    pub hallucinated: Option<usize>,
}

/// Rewards of one completion.
#[derive(Debug, Serialize)]
pub struct RewardedSample {
    /// One for each token.
    pub rewards: Vec<f32>,
    /// What the completion names.
    pub mentions: Vec<Judged>,
}

/// A caption that the model wrote.
#[derive(Debug, Serialize)]
pub struct Caption {
    /// The caption.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<SpelledToken>,
    /// `stop` or `length`.
    pub finish_reason: fisao_models::generation::FinishReason,
    /// What guidance did to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guided: Option<Guidance>,
}

/// Bytes of a text by its characters.
#[derive(Debug)]
pub struct Characters {
    /// Where each character begins, and the end of the text.
    starts: Vec<usize>,
}

impl Characters {
    /// Of a text.
    pub fn of(text: &str) -> Self {
        let starts = text.char_indices().map(|(start, _)| start);
        Self { starts: starts.chain([text.len()]).collect() }
    }

    /// Bytes of a range of characters.
    pub fn bytes(&self, [start, end]: [usize; 2]) -> Option<Range<usize>> {
        let range = *self.starts.get(start)?..*self.starts.get(end)?;
        (range.start <= range.end).then_some(range)
    }

    /// Characters of a range of bytes that begins and ends with some.
    pub fn characters(&self, bytes: &Range<usize>) -> [usize; 2] {
        [bytes.start, bytes.end].map(|byte| self.starts.partition_point(|&start| start < byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_and_bytes_are_told_apart() {
        let text = "Im Café: 🐶 a dog";
        let characters = Characters::of(text);
        let dog = text.find("dog").unwrap();
        assert_eq!(characters.characters(&(dog..dog + 3)), [13, 16]);
        assert_eq!(characters.bytes([13, 16]), Some(dog..dog + 3));
        assert_eq!(characters.bytes([13, 17]), None);
        assert_eq!(characters.bytes([5, 4]), None);
        assert_eq!(characters.bytes([16, 16]), Some(text.len()..text.len()));
    }

    #[test]
    fn lines_that_are_no_requests_are_refused_by_what_is_wrong() {
        let refused = |line: &str| {
            let (id, failure) = Request::parse(line).unwrap_err();
            (serde_json::to_string(&id).unwrap(), failure.code, failure.message)
        };
        let (id, code, _) = refused("{");
        assert_eq!((id.as_str(), code), ("null", ErrorCode::InvalidJson));
        assert_eq!(refused("[1]").1, ErrorCode::InvalidJson);
        assert_eq!(refused(r#"{"method": "score"}"#).1, ErrorCode::InvalidParams);
        assert_eq!(refused(r#"{"id": [1], "method": "score"}"#).1, ErrorCode::InvalidParams);
        let (id, code, message) = refused(r#"{"id": "a", "protocol": 2, "method": "score"}"#);
        assert_eq!((id.as_str(), code), ("\"a\"", ErrorCode::UnsupportedProtocol));
        assert!(message.contains("speaks 1"), "{message}");
        let (_, code, message) = refused(r#"{"id": 7, "method": "score", "param": {}}"#);
        assert_eq!(code, ErrorCode::InvalidParams);
        assert!(message.contains("'param'"), "{message}");
    }
}
