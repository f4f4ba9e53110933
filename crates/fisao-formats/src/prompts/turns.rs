//! Conversations, as LLaVA-Instruct (`from`, `value`) and TRL (`role`, `content`) write them.

use std::borrow::Cow;

use super::fields::Cell;

/// What stands for the image in a text.
const PLACEHOLDER: &str = "<image>";

/// The first exchange of a conversation.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Exchange {
    /// The user's first turn, without the image's placeholder.
    pub(super) user: Option<String>,
    /// The assistant's turn that follows it.
    pub(super) reply: Option<String>,
    /// How often the user speaks in all.
    pub(super) user_turns: usize,
}

/// Reads the first exchange of a conversation. What the system says is not part of it.
///
/// # Errors
/// It is no conversation; `field` is where it was found.
pub(super) fn first_exchange(field: &str, conversation: &Cell) -> Result<Exchange, String> {
    let mut exchange = Exchange::default();
    for (role, text) in turns(field, conversation)? {
        match role {
            Role::User => {
                exchange.user_turns += 1;
                if exchange.user.is_none() {
                    exchange.user = Some(text.replace(PLACEHOLDER, "").trim().to_owned());
                }
            }
            Role::Assistant => {
                // Only what follows the user's first turn directly is a reply to it.
                if exchange.user_turns == 1 && exchange.reply.is_none() {
                    exchange.reply = Some(text.into_owned());
                }
            }
            Role::Other => {}
        }
    }
    Ok(exchange)
}

/// What a text or the last turn of the assistant in a conversation says.
///
/// # Errors
/// It is neither, or a conversation in which no assistant speaks.
pub(super) fn last_reply(field: &str, cell: &Cell) -> Result<String, String> {
    if let Some(text) = text(cell) {
        return Ok(text.to_owned());
    }
    let turns = turns(field, cell)?;
    let replies = turns.into_iter().filter(|(role, _)| *role == Role::Assistant);
    let last = replies.map(|(_, text)| text).next_back();
    last.map(Cow::into_owned).ok_or_else(|| format!("`{field}` has no turn of the assistant"))
}

/// Text of a cell; Parquet files may hold it as bytes.
pub(super) fn text(cell: &Cell) -> Option<&str> {
    match cell {
        Cell::Text(text) => Some(text),
        Cell::Bytes(bytes) => str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// A prompt without the image's placeholder before or after it. One in the midst of the text is left
/// there, since a prompt with it is a whole model input that needs no chat template.
pub(super) fn without_placeholder(prompt: &str) -> &str {
    let mut text = prompt;
    while let Some(rest) = text.trim_start().strip_prefix(PLACEHOLDER) {
        text = rest.trim();
    }
    while let Some(rest) = text.trim_end().strip_suffix(PLACEHOLDER) {
        text = rest.trim();
    }
    text
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    User,
    Assistant,
    Other,
}

impl Role {
    fn of(name: &str) -> Self {
        match name {
            "user" | "human" => Self::User,
            "assistant" | "gpt" | "model" => Self::Assistant,
            _ => Self::Other,
        }
    }
}

fn turns<'a>(field: &str, conversation: &'a Cell) -> Result<Vec<(Role, Cow<'a, str>)>, String> {
    let wrong = || {
        format!(
            "`{field}` is {}; give text, or a list of turns with `role` and `content`",
            conversation.kind()
        )
    };
    match conversation {
        Cell::List(turns) => turns.iter().map(|turn| one_turn(field, turn)).collect(),
        // Older versions of Hugging Face datasets store a list of objects as an object of lists.
        Cell::Struct(_) => {
            let column = |names: [&str; 2]| {
                let cell = names.iter().find_map(|name| conversation.field(name));
                if let Some(Cell::List(cells)) = cell { Some(cells) } else { None }
            };
            let roles = column(["role", "from"]).ok_or_else(wrong)?;
            let contents = column(["content", "value"]).ok_or_else(wrong)?;
            let turn = |(role, said)| Ok((role_of(field, Some(role))?, content(field, said)?));
            roles.iter().zip(contents).map(turn).collect()
        }
        _ => Err(wrong()),
    }
}

fn one_turn<'a>(field: &str, turn: &'a Cell) -> Result<(Role, Cow<'a, str>), String> {
    let role = role_of(field, turn.field("role").or_else(|| turn.field("from")))?;
    let said = turn.field("content").or_else(|| turn.field("value"));
    Ok((role, content(field, said.unwrap_or(&Cell::Null))?))
}

fn role_of(field: &str, role: Option<&Cell>) -> Result<Role, String> {
    let role = role.and_then(text);
    let role = role.ok_or_else(|| format!("a turn of `{field}` does not say whose (`role`)"))?;
    Ok(Role::of(role))
}

/// The text of a turn: plain, or that of its parts of type "text", one per line.
fn content<'a>(field: &str, cell: &'a Cell) -> Result<Cow<'a, str>, String> {
    match cell {
        Cell::Null => Ok(Cow::Borrowed("")),
        Cell::List(parts) => {
            let text = |part| part_text(field, part).transpose();
            let texts = parts.iter().filter_map(text).collect::<Result<Vec<_>, _>>()?;
            Ok(texts.join("\n").into())
        }
        _ => match text(cell) {
            Some(text) => Ok(text.into()),
            None => Err(format!(
                "the `content` of a turn of `{field}` is {}; give text, or a list of parts",
                cell.kind()
            )),
        },
    }
}

/// The text of a part, if it is of that type.
fn part_text<'a>(field: &str, part: &'a Cell) -> Result<Option<&'a str>, String> {
    if let Some(text) = text(part) {
        return Ok(Some(text));
    }
    match (part.field("type").and_then(text), part.field("text").and_then(text)) {
        (Some("text") | None, Some(text)) => Ok(Some(text)),
        (Some("text"), None) => Err(format!("a part of type \"text\" in `{field}` has no `text`")),
        (_, _) if matches!(part, Cell::Struct(_)) => Ok(None),
        (_, _) => Err(format!("a part of a turn of `{field}` is {}", part.kind())),
    }
}
