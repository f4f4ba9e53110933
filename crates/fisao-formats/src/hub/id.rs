//! Names of models on the Hub.

use std::fmt::{self, Display};
use std::str::FromStr;

use super::HubError;

/// The branch that is meant when none is named.
const MAIN: &str = "main";
/// The Hub's own limit.
const LONGEST: usize = 96;

/// A model on the Hub, `owner/name`, at one of its revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    repository: Box<str>,
    revision: Box<str>,
}

impl HubId {
    /// Owner and name, such as `llava-hf/llava-1.5-7b-hf`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// A branch, a tag, a pull request (`refs/pr/1`) or a commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

impl FromStr for HubId {
    type Err = HubError;

    /// Reads `owner/name` or `owner/name@revision`.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let well_formed = match repository.split_once('/') {
            Some((owner, name)) => is_name(owner) && is_name(name) && repository.len() <= LONGEST,
            None => false,
        };
        // The revision becomes a path below the cache's `refs`.
        if !well_formed || revision.is_empty() || !revision.split('/').all(is_path_part) {
            return Err(HubError::BadId { text: text.to_owned() });
        }
        Ok(Self { repository: repository.into(), revision: revision.into() })
    }
}

impl Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if self.revision() == MAIN { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// The Hub's rule for owners and names. `--` is what the cache's folder names have for the slash.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: char| "-.".contains(c);
    !text.is_empty()
        && text.chars().all(plain)
        && !text.starts_with(edge)
        && !text.ends_with(edge)
        && !text.contains("--")
        && !text.contains("..")
        && text.strip_suffix(".git").is_none()
}

/// Whether a text can be one component of a path, and of a URL as it stands.
pub(super) fn is_path_part(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_are_parsed_with_and_without_revision() {
        let id: HubId = "llava-hf/llava-1.5-7b-hf".parse().unwrap();
        assert_eq!((id.repository(), id.revision()), ("llava-hf/llava-1.5-7b-hf", "main"));
        assert_eq!(id.to_string(), "llava-hf/llava-1.5-7b-hf");
        let id: HubId = "a/b_c@refs/pr/8".parse().unwrap();
        assert_eq!((id.repository(), id.revision()), ("a/b_c", "refs/pr/8"));
        assert_eq!(id.to_string(), "a/b_c@refs/pr/8");
    }

    #[test]
    fn hub_ids_that_could_escape_the_cache_are_rejected() {
        for text in [
            "name",
            "a/b/c",
            "/b",
            "a/",
            "../b",
            "a/..",
            "a/b--c",
            "a/b.git",
            "a b/c",
            "a/b@",
            "a/b@../../x",
            "a/b@/x",
            "a/b@x//y",
            "a/b@x y",
            "ä/b",
        ] {
            assert!(text.parse::<HubId>().is_err(), "{text}");
        }
        assert!(format!("a/{}", "b".repeat(95)).parse::<HubId>().is_err());
    }
}
