//! OpenAI's chat completions, as far as a model that describes images can answer them.
//!
//! A field that would be ignored is refused by name, as OpenAI's own server does.

use std::time::{SystemTime, UNIX_EPOCH};

use fisao_align::guided::Guidance;
use fisao_models::generation::FinishReason;
use fisao_runs::bundle::SpelledToken;
use fisao_runs::verify::Judged;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::{ErrorCode, Failure, ImageSource, describe};

/// Behind a model's name: the model without its adapter.
const BASE: &str = ":base";
/// Most answers to one question.
const MOST_CHOICES: usize = 64;

/// A request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatRequest {
    model: Option<String>,
    messages: Vec<Message>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f64>,
    n: Option<usize>,
    seed: Option<i64>,
    #[serde(default)]
    pub(crate) stream: bool,
    stream_options: Option<StreamOptions>,
    stop: Option<Stop>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    fisao: Extension,
    // What has no effect: accepted where it asks for none.
    top_p: Option<f64>,
    top_logprobs: Option<u64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<serde_json::Map<String, Value>>,
    response_format: Option<Value>,
    tools: Option<Vec<Value>>,
    #[serde(rename = "tool_choice")]
    _tool_choice: Option<Value>,
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(rename = "metadata")]
    _metadata: Option<Value>,
    #[serde(rename = "store")]
    _store: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

/// What is asked beyond OpenAI's protocol.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extension {
    /// Whether words are to be verified.
    #[serde(default)]
    verify: bool,
    /// Least probability that a word is in the image, where doubtful ones are to be taken back.
    guided: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    role: String,
    content: Content,
    #[serde(rename = "name")]
    _name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part {
    Text { text: String },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Debug, Deserialize)]
struct ImageUrl {
    url: String,
}

/// A part of a question.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    Image(ImageSource),
    Text(String),
}

/// What a request comes down to.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the request")]
#[derive(Debug, PartialEq)]
pub(crate) struct Question {
    /// As it is to be called in the answer.
    pub(crate) model: String,
    pub(crate) adapter: bool,
    /// Images and what is said about them; of one image, it before a single text.
    pub(crate) parts: Vec<Asked>,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) temperature: f64,
    pub(crate) samples: usize,
    /// `None` for one that differs from request to request.
    pub(crate) seed: Option<u64>,
    pub(crate) stop: Vec<String>,
    pub(crate) logprobs: bool,
    pub(crate) usage: bool,
    pub(crate) verify: bool,
    pub(crate) guided: Option<f64>,
}

impl ChatRequest {
    /// What is asked of a model of this name.
    pub(crate) fn question(self, name: &str, has_adapter: bool) -> Result<Question, Failure> {
        self.check_idle()?;
        let base = format!("{name}{BASE}");
        let (model, adapter) = match self.model {
            None => (name.to_owned(), true),
            Some(model) if model == name => (model, true),
            Some(model) if has_adapter && model == base => (model, false),
            Some(model) => {
                let known =
                    if has_adapter { format!("{name} and {base}") } else { name.to_owned() };
                let message = format!("there is no model '{model}' here");
                return Err(Failure::new(ErrorCode::InvalidParams, message)
                    .hint(format!("this server has {known}; GET /v1/models lists them")));
            }
        };
        let parts = conversation(self.messages)?;
        let samples = self.n.unwrap_or(1);
        if !(1..=MOST_CHOICES).contains(&samples) {
            return Err(invalid(format!("n is {samples}; it must be from 1 to {MOST_CHOICES}")));
        }
        let stop = match self.stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text],
            Some(Stop::Several(texts)) => texts,
        };
        if stop.iter().any(String::is_empty) {
            return Err(invalid("a text in stop is empty"));
        }
        let shown = parts.iter().filter(|part| matches!(part, Asked::Image(_))).count();
        if shown > 1 && (self.fisao.verify || self.fisao.guided.is_some()) {
            return Err(invalid(format!(
                "words are verified against one image, and the question shows {shown}"
            ))
            .hint("leave out fisao.verify and fisao.guided, or ask about one image"));
        }
        Ok(Question {
            model,
            adapter,
            parts,
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            temperature: self.temperature.unwrap_or(1.0),
            samples,
            seed: self.seed.map(|seed| seed as u64),
            stop,
            logprobs: self.logprobs.unwrap_or(false),
            usage: self.stream_options.is_some_and(|options| options.include_usage),
            verify: self.fisao.verify,
            guided: self.fisao.guided,
        })
    }

    /// Refuses what would be ignored.
    fn check_idle(&self) -> Result<(), Failure> {
        let idle = [
            ("top_p", self.top_p.is_none_or(|p| (1.0..=1.0).contains(&p)), "1"),
            ("top_logprobs", self.top_logprobs.is_none_or(|count| count == 0), "0"),
            ("presence_penalty", self.presence_penalty.is_none_or(|penalty| penalty == 0.0), "0"),
            ("frequency_penalty", self.frequency_penalty.is_none_or(|penalty| penalty == 0.0), "0"),
            ("logit_bias", self.logit_bias.as_ref().is_none_or(serde_json::Map::is_empty), "empty"),
            ("tools", self.tools.as_ref().is_none_or(Vec::is_empty), "empty"),
            (
                "response_format",
                self.response_format.as_ref().is_none_or(|format| format["type"] == "text"),
                "{\"type\": \"text\"}",
            ),
        ];
        match idle.into_iter().find(|(_, is_idle, _)| !is_idle) {
            None => Ok(()),
            Some((field, _, neutral)) => Err(invalid(format!(
                "{field} is not supported here; leave it out, or at {neutral}"
            ))),
        }
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidParams, message)
}

/// The question of a conversation that consists of one, after what the system has to say.
fn conversation(messages: Vec<Message>) -> Result<Vec<Asked>, Failure> {
    let (mut said, mut asked) = (Vec::new(), 0);
    for Message { role, content, .. } in messages {
        match role.as_str() {
            "system" | "developer" => {}
            "user" => asked += 1,
            "assistant" | "tool" => {
                return Err(invalid("earlier answers cannot be taken up: a conversation is one question about images")
                    .hint("send the last user message alone, with its images"));
            }
            other => {
                return Err(invalid(format!(
                    "there is no role '{other}'; messages are by system, user or assistant"
                )));
            }
        }
        let parts = match content {
            Content::Text(text) => vec![Part::Text { text }],
            Content::Parts(parts) => parts,
        };
        for part in parts {
            match part {
                Part::Text { text } if text.trim().is_empty() => {}
                Part::Text { text } => said.push(Asked::Text(text)),
                Part::ImageUrl { image_url } => said.push(Asked::Image(image_of(&image_url.url)?)),
            }
        }
    }
    if asked != 1 {
        return Err(invalid(format!(
            "there are {asked} user messages; a conversation is one question about images"
        )));
    }
    let is_image = |part: &Asked| matches!(part, Asked::Image(_));
    match said.iter().filter(|part| is_image(part)).count() {
        0 => Err(invalid("there are 0 images; a question is about at least one")
            .hint("add a part {\"type\": \"image_url\", \"image_url\": {\"url\": \"data:image/jpeg;base64,…\"}}")),
        // As `fisao caption` asks.
        1 => {
            let (mut image, texts): (Vec<_>, Vec<_>) = said.into_iter().partition(is_image);
            let texts = texts.into_iter().filter_map(|part| match part {
                Asked::Text(text) => Some(text),
                Asked::Image(_) => None,
            });
            let texts = texts.collect::<Vec<_>>();
            let text = if texts.is_empty() { describe() } else { texts.join("\n") };
            image.push(Asked::Text(text));
            Ok(image)
        }
        _ => {
            if said.iter().all(is_image) {
                said.push(Asked::Text(describe()));
            }
            Ok(said)
        }
    }
}

/// The image of a data URL or a file URL.
fn image_of(url: &str) -> Result<ImageSource, Failure> {
    if let Some(path) = url.strip_prefix("file://") {
        return Ok(ImageSource::Path(path.into()));
    }
    let Some((kind, data)) = url.strip_prefix("data:").and_then(|rest| rest.split_once(',')) else {
        return Err(Failure::new(
            ErrorCode::InvalidImage,
            "an image is sent as a data URL; nothing is downloaded here",
        )
        .hint("data:image/jpeg;base64,… with the bytes of the file"));
    };
    if !kind.ends_with(";base64") {
        return Err(Failure::new(ErrorCode::InvalidImage, "a data URL has to be in base64"));
    }
    Ok(ImageSource::Base64(data.to_owned()))
}

/// An answer, or a part of one that is streamed.
#[derive(Debug, Serialize)]
pub(crate) struct Completion {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
}

/// One of the answers.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Choice {
    pub(crate) index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<Said>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delta: Option<Said>,
    pub(crate) finish_reason: Option<FinishReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logprobs: Option<LogProbabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fisao: Option<Verdicts>,
}

/// Text of an answer.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Said {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
}

/// What is known of an answer's words.
#[derive(Debug, Serialize)]
pub(crate) struct Verdicts {
    pub(crate) mentions: Vec<Judged>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) guided: Option<Guidance>,
}

/// Tokens in OpenAI's form.
#[derive(Debug, Serialize)]
pub(crate) struct LogProbabilities {
    content: Vec<TokenLogProbability>,
}

#[derive(Debug, Serialize)]
struct TokenLogProbability {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: [(); 0],
}

impl LogProbabilities {
    /// Of tokens that spell something, as in OpenAI's answers.
    pub(crate) fn of(tokens: Vec<SpelledToken>) -> Self {
        let token = |SpelledToken { text, logprob, .. }: SpelledToken| TokenLogProbability {
            bytes: text.clone().into_bytes(),
            token: text,
            logprob,
            top_logprobs: [],
        };
        let spelling = tokens.into_iter().filter(|token| !token.text.is_empty());
        Self { content: spelling.map(token).collect() }
    }
}

/// Tokens of question and answers.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "they are OpenAI's")]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
}

impl Usage {
    pub(crate) fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

impl Completion {
    /// Without choices yet.
    pub(crate) fn new(id: u64, object: &'static str, model: &str) -> Self {
        Self {
            id: format!("chatcmpl-{id}"),
            object,
            created: now(),
            model: model.to_owned(),
            choices: Vec::new(),
            usage: None,
        }
    }
}

/// The models of a server.
#[derive(Debug, Serialize)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Debug, Serialize)]
struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// What is not to be asked of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<String>,
}

impl ModelList {
    /// One of this name, and with an adapter the same without it.
    pub(crate) fn of(name: &str, has_adapter: bool, remark: Option<&str>) -> Self {
        let names = [Some(name.to_owned()), has_adapter.then(|| format!("{name}{BASE}"))];
        let remark = remark.map(str::to_owned);
        let model = |id| Model {
            id,
            object: "model",
            created: now(),
            owned_by: "fisao",
            remark: remark.clone(),
        };
        Self { object: "list", data: names.into_iter().flatten().map(model).collect() }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn question(request: Value) -> Result<Question, Failure> {
        let request: ChatRequest =
            serde_json::from_value(request).map_err(|error| invalid(error.to_string()))?;
        request.question("llava", true)
    }

    fn asked(change: impl FnOnce(&mut Value)) -> Result<Question, Failure> {
        let mut request = json!({
            "model": "llava",
            "messages": [{ "role": "user", "content": [
                { "type": "text", "text": "What is this?" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA", "detail": "low" } },
            ] }],
        });
        change(&mut request);
        question(request)
    }

    fn image() -> Asked {
        Asked::Image(ImageSource::Base64("AAAA".to_owned()))
    }

    #[test]
    fn several_images_keep_their_places_and_are_not_verified() {
        let part =
            json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } });
        let with = |request: &mut Value| {
            request["messages"][0]["content"].as_array_mut().unwrap().insert(0, part.clone());
        };
        let text = Asked::Text("What is this?".to_owned());
        assert_eq!(asked(with).unwrap().parts, [image(), text, image()]);
        let refused = asked(|request| {
            with(request);
            request["fisao"] = json!({ "verify": true });
        });
        assert!(refused.unwrap_err().message.contains("shows 2"));
    }

    #[test]
    fn question_with_an_image_is_read() {
        let question = asked(|_| {}).unwrap();
        assert_eq!(question.parts, [image(), Asked::Text("What is this?".to_owned())]);
        assert_eq!((question.temperature, question.samples, question.adapter), (1.0, 1, true));
        assert!(!asked(|request| request["model"] = json!("llava:base")).unwrap().adapter);
    }

    #[test]
    fn what_would_be_ignored_is_refused_by_name() {
        let refused =
            |key: &str, value: Value| asked(|request| request[key] = value).unwrap_err().message;
        for (key, value) in [
            ("top_p", json!(0.9)),
            ("frequency_penalty", json!(1)),
            ("top_logprobs", json!(5)),
            ("tools", json!([{}])),
            ("top_k", json!(4)),
            ("n", json!(0)),
        ] {
            assert!(refused(key, value).contains(key), "{key}");
        }
        for (key, value) in
            [("top_p", json!(1.0)), ("presence_penalty", json!(0)), ("user", json!("me"))]
        {
            assert!(asked(|request| request[key] = value).is_ok(), "{key}");
        }
        assert!(refused("model", json!("gpt-4o")).contains("no model 'gpt-4o'"));
    }

    #[test]
    fn conversation_is_one_question_about_one_image() {
        let with = |messages: Value| asked(|request| request["messages"] = messages);
        let refused = |messages: Value| with(messages).unwrap_err().message;
        assert!(refused(json!([])).contains("0 user messages"));
        assert!(refused(json!([{ "role": "user", "content": "hi" }])).contains("0 images"));
        assert!(
            refused(json!([{ "role": "assistant", "content": "hi" }])).contains("earlier answers")
        );
        let image =
            json!({ "type": "image_url", "image_url": { "url": "https://example.org/a.png" } });
        assert!(
            refused(json!([{ "role": "user", "content": [image] }]))
                .contains("nothing is downloaded")
        );
        let image =
            json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AA" } });
        let question = with(
            json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": [image] }]),
        );
        assert_eq!(question.unwrap().parts[1], Asked::Text("Be brief.".to_owned()));
    }
}
