//! What a row says: its image, its prompts and its answer, by the conventions of the formats.

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use bytes::Bytes;
use fisao_images::format::is_image;
use sha2::{Digest, Sha256};

use super::Answer;
use super::fields::{Cell, Fields, IMAGE_FIELDS};
use super::image_folder::shortened;
use super::turns::{Exchange, first_exchange, last_reply, text, without_placeholder};

const DATA_URL: &str = "data:";

/// A row, understood.
#[derive(Debug)]
pub(super) struct Reading {
    /// Its name, where it has one.
    pub(super) id: Option<String>,
    pub(super) image: ImageReference,
    /// At least one; an empty one stands for the default prompt.
    pub(super) prompts: Vec<String>,
    pub(super) answer: Answer,
}

impl Reading {
    /// Understands a row.
    ///
    /// # Errors
    /// A field is not what its name promises; the message says which and how it should be.
    pub(super) fn of(fields: &Fields) -> Result<Self, String> {
        let image = ImageReference::of_row(fields)?;
        let conversation = conversation(fields)?;
        let prompts = prompts(fields, &conversation)?;
        let answer = answer(fields, conversation)?;
        let id = fields.first_of(&["id", "question_id", "uid"]).and_then(|(_, id)| match id {
            Cell::Number(number) => Some(number.clone()),
            other => text(other).map(str::to_owned),
        });
        Ok(Self { id: id.filter(|id| !id.is_empty()), image, prompts, answer })
    }
}

/// Which image a row is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ImageReference {
    /// None.
    Absent,
    /// More than one, which no prompt here has.
    Several(usize),
    /// A file's name.
    Path(String),
    /// An encoded file as a `data:` URL.
    DataUrl(String),
    /// An encoded file in base64 without more.
    Base64(String),
    /// An encoded file, maybe with its name.
    Bytes { name: Option<String>, bytes: Bytes },
}

impl ImageReference {
    /// The image of a row.
    ///
    /// # Errors
    /// The field is not an image.
    pub(super) fn of_row(fields: &Fields) -> Result<Self, String> {
        for field in IMAGE_FIELDS {
            if let Some(cell) = fields.get(field) {
                let image = Self::of(field, cell)?;
                if image != Self::Absent {
                    return Ok(image);
                }
            }
        }
        Ok(Self::Absent)
    }

    fn of(field: &str, cell: &Cell) -> Result<Self, String> {
        match cell {
            Cell::Null => Ok(Self::Absent),
            Cell::Text(name) => Self::named(field, name),
            Cell::Bytes(bytes) => Ok(Self::Bytes { name: None, bytes: bytes.clone() }),
            Cell::List(images) => {
                let images = images.iter().map(|image| Self::of(field, image));
                let mut images = images.collect::<Result<Vec<_>, _>>()?;
                images.retain(|image| *image != Self::Absent);
                let count = images.len();
                Ok(match images.pop() {
                    None => Self::Absent,
                    Some(image) if count == 1 => image,
                    Some(_) => Self::Several(count),
                })
            }
            Cell::Struct(parts) => {
                let name = cell.field("path").and_then(text).filter(|name| !name.is_empty());
                match (cell.field("bytes"), name) {
                    (Some(Cell::Bytes(bytes)), name) => {
                        Ok(Self::Bytes { name: name.map(str::to_owned), bytes: bytes.clone() })
                    }
                    (Some(_), _) => Err(format!("the `bytes` of `{field}` are no bytes")),
                    (None, Some(name)) => Self::named(field, name),
                    (None, None)
                        if parts.iter().any(|(part, _)| ["bytes", "path"].contains(part)) =>
                    {
                        Ok(Self::Absent)
                    }
                    (None, None) => {
                        Err(format!("`{field}` is an object without `bytes` and `path`"))
                    }
                }
            }
            Cell::Flag | Cell::Number(_) => {
                Err(format!("`{field}` is {}; give a file's name, or a list of one", cell.kind()))
            }
        }
    }

    fn named(field: &str, name: &str) -> Result<Self, String> {
        if name.starts_with(DATA_URL) {
            return if name.contains(";base64,") {
                Ok(Self::DataUrl(name.to_owned()))
            } else {
                Err(format!("`{field}` is a data URL, but not of base64"))
            };
        }
        if let Some(path) = name.strip_prefix("file://") {
            let path = shortened(path);
            return Err(format!("`{field}` is a URL of a file here; use its path, {path}"));
        }
        if name.contains("://") {
            let name = shortened(name);
            return Err(format!(
                "`{field}` is an address ({name}), and nothing is downloaded; fetch the images and \
                 give the names of the files"
            ));
        }
        Ok(if name.is_empty() {
            Self::Absent
        } else if is_base64_image(name) {
            Self::Base64(name.to_owned())
        } else {
            Self::Path(name.to_owned())
        })
    }

    /// The name that the row gives the image, if any.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Path(name) => Some(name),
            Self::Bytes { name, .. } => name.as_deref(),
            Self::Absent | Self::Several(_) | Self::DataUrl(_) | Self::Base64(_) => None,
        }
    }

    /// Equal for rows about the same image: a digest of its name or, without one, its content.
    pub(super) fn digest(&self) -> u32 {
        let digest = match (self.name(), self) {
            (Some(name), _) => Sha256::digest(name),
            (None, Self::DataUrl(text) | Self::Base64(text)) => Sha256::digest(text),
            (None, Self::Bytes { bytes, .. }) => Sha256::digest(bytes),
            (None, _) => return 0,
        };
        digest.iter().take(4).fold(0, |number, &byte| number << 8 | u32::from(byte))
    }
}

/// Whether a text is an image in base64 and no name: long, without a full stop before an ending, and its first bytes are
/// those of an image.
fn is_base64_image(text: &str) -> bool {
    const SHORTEST: usize = 64;
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte) || byte.is_ascii_whitespace()
    };
    if text.len() < SHORTEST || !text.bytes().all(allowed) {
        return false;
    }
    let start: String = text.chars().filter(|c| !c.is_ascii_whitespace()).take(32).collect();
    decode_base64(&start).is_some_and(|start| is_image(&start))
}

/// Bytes in base64, of the usual alphabet or that of URLs, with or without white space and padding.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const USUAL: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const OF_URLS: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    USUAL.decode(&text).or_else(|_| OF_URLS.decode(&text)).ok()
}

/// The conversation that a row is made of, in the field of its prompt or in one of its own. Without any,
/// that of `chosen`, which in TRL may repeat the prompt.
fn conversation(fields: &Fields) -> Result<Exchange, String> {
    const PLACES: [&str; 5] = ["prompt", "question", "text", "conversations", "messages"];
    match fields.first_of(&PLACES) {
        Some((field, cell)) if text(cell).is_none() => first_exchange(field, cell),
        Some(_) => Ok(Exchange::default()),
        None if fields.get("prompts").is_some() => Ok(Exchange::default()),
        None => match fields.get("chosen") {
            Some(chosen @ Cell::List(_)) => {
                let exchange = first_exchange("chosen", chosen)?;
                // Its reply is the choice, which is no response on its own.
                Ok(Exchange { reply: None, ..exchange })
            }
            _ => Ok(Exchange::default()),
        },
    }
}

fn prompts(fields: &Fields, conversation: &Exchange) -> Result<Vec<String>, String> {
    if let Some((_, cell)) = fields.first_of(&["prompt", "question", "text"])
        && let Some(text) = text(cell)
    {
        return Ok(vec![without_placeholder(text).to_owned()]);
    }
    if let Some(user) = &conversation.user {
        return Ok(vec![user.clone()]);
    }
    match fields.get("prompts") {
        None => Ok(vec![String::new()]),
        Some(Cell::List(prompts)) if !prompts.is_empty() => {
            let one = |prompt| text(prompt).map(|text| without_placeholder(text).to_owned());
            let prompts = prompts.iter().map(one).collect::<Option<Vec<_>>>();
            prompts.ok_or_else(|| "`prompts` is not a list of texts".to_owned())
        }
        Some(Cell::List(_)) => Err("`prompts` is an empty list".to_owned()),
        Some(other) => Err(format!("`prompts` is {}; give a list of texts", other.kind())),
    }
}

fn answer(fields: &Fields, conversation: Exchange) -> Result<Answer, String> {
    match (fields.get("chosen"), fields.get("rejected")) {
        (Some(chosen), Some(rejected)) => {
            if conversation.user_turns > 1 {
                return Err(format!(
                    "`chosen` and `rejected` answer the last of {} turns of the user; only prompts of \
                     one turn are read, so leave this row out",
                    conversation.user_turns
                ));
            }
            let chosen = last_reply("chosen", chosen)?;
            return Ok(Answer::Pair { chosen, rejected: last_reply("rejected", rejected)? });
        }
        (Some(_), None) => return Err("there is `chosen`, but no `rejected`".to_owned()),
        (None, Some(_)) => return Err("there is `rejected`, but no `chosen`".to_owned()),
        (None, None) => {}
    }
    // In a longer conversation, the reply to the first turn is within it.
    if let Some(reply) = conversation.reply {
        return Ok(Answer::Response(reply));
    }
    if conversation.user_turns > 1 {
        return Ok(Answer::None);
    }
    let Some((field, cell)) = fields.first_of(&["response", "answer", "completion", "caption"])
    else {
        return Ok(Answer::None);
    };
    Ok(match cell {
        Cell::Number(number) => Answer::Response(number.clone()),
        Cell::Text(_) | Cell::Bytes(_) | Cell::Struct(_) => {
            last_reply(field, cell).map_or(Answer::None, Answer::Response)
        }
        Cell::List(_) if field == "completion" => Answer::Response(last_reply(field, cell)?),
        // Several reference answers are data of an evaluation, none of them is the response.
        _ => Answer::None,
    })
}
