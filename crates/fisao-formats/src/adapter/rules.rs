//! Which linear layers a configuration is for, and their rank and scale, by PEFT's own rules.
//!
//! Reference: `check_target_module_exists` in `peft/tuners/tuners_utils.py`, `get_pattern_key` in
//! `peft/utils/other.py` and `LoraModel._create_and_replace` in `peft/tuners/lora/model.py`, PEFT 0.21.

use std::path::Path;

use fancy_regex::Regex;
use serde_json::{Map, Value};

use super::config::{ALPHA, CONFIG, RANK, RawAdapter, Several};
use crate::FormatError;
use crate::fields::{shortened, shown};

/// PEFT's word for every linear layer but the output matrix.
const ALL_LINEAR: &str = "all-linear";

/// Bytes of all regular expressions together; those of 80 layers' ranks and scales take 70 kB.
const LONGEST_PATTERNS: usize = 96 << 10;

/// A configuration's rules, with its patterns compiled.
#[derive(Debug)]
pub(super) struct Rules {
    targets: Targets,
    excluded: Option<Targets>,
    /// The layers that named targets are limited to.
    layers: Option<Layers>,
    rank: usize,
    alpha: f64,
    use_rslora: bool,
    ranks: Vec<(Pattern, usize)>,
    alphas: Vec<(Pattern, f64)>,
}

#[derive(Debug)]
enum Targets {
    All,
    Names(Vec<String>),
    Pattern(Pattern),
}

#[derive(Debug)]
struct Layers {
    indices: Vec<usize>,
    /// Each with the layer's number as group `idx`; the first that matches counts.
    patterns: Vec<Pattern>,
}

impl Rules {
    pub(super) fn new(raw: &RawAdapter, path: &Path) -> Result<Self, FormatError> {
        check_length(raw, path)?;
        let whole =
            |text: &str, field| Pattern::new(path, field, text, &format!(r"\A(?:{text})\z"));
        let targets = match &raw.target_modules {
            Some(Several::One(text)) if text.eq_ignore_ascii_case(ALL_LINEAR) => Targets::All,
            Some(Several::One(text)) => Targets::Pattern(whole(text, "target_modules")?),
            Some(Several::Many(names)) if !names.is_empty() => Targets::Names(names.clone()),
            found => {
                return Err(FormatError::UnsupportedField {
                    path: path.to_owned(),
                    field: "target_modules".to_owned(),
                    found: if found.is_some() { "[]" } else { "null" }.to_owned(),
                    supported: "a list of names, a regular expression or \"all-linear\"".into(),
                });
            }
        };
        let excluded = match &raw.exclude_modules {
            Some(Several::One(text)) if !text.is_empty() => {
                Some(Targets::Pattern(whole(text, "exclude_modules")?))
            }
            Some(Several::Many(names)) => Some(Targets::Names(names.clone())),
            _ => None,
        };
        Ok(Self {
            layers: Layers::new(raw, &targets, path)?,
            targets,
            excluded,
            rank: raw.r,
            alpha: raw.lora_alpha,
            use_rslora: raw.use_rslora,
            ranks: patterns(path, "rank_pattern", raw.rank_pattern.as_ref(), RANK.said, |value| {
                let rank = usize::try_from(value.as_u64()?).ok()?;
                (RANK.least..=RANK.most).contains(&rank).then_some(rank)
            })?,
            alphas: patterns(
                path,
                "alpha_pattern",
                raw.alpha_pattern.as_ref(),
                ALPHA.said,
                |value| value.as_f64().filter(|&alpha| ALPHA.holds(alpha)),
            )?,
        })
    }

    /// Whether PEFT would put an adapter on the linear layer at `path`.
    pub(super) fn select(&self, path: &str) -> Result<bool, FormatError> {
        if let Some(excluded) = &self.excluded
            && excluded.name(path)?
        {
            return Ok(false);
        }
        match &self.targets {
            // A full path is taken as it is, layers are asked only of a path's ending.
            Targets::Names(names) if names.iter().any(|name| name == path) => Ok(true),
            targets if !targets.name(path)? => Ok(false),
            _ => self.layers.as_ref().map_or(Ok(true), |layers| layers.hold(path)),
        }
    }

    /// The named targets that none of `paths` ends with.
    pub(super) fn idle_targets(&self, paths: &[String]) -> Vec<String> {
        let Targets::Names(names) = &self.targets else { return Vec::new() };
        let idle = names.iter().filter(|name| !paths.iter().any(|path| ends_with(path, name)));
        idle.cloned().collect()
    }

    /// The rank of the linear layer at `path`.
    pub(super) fn rank(&self, path: &str) -> Result<usize, FormatError> {
        Ok(first_match(&self.ranks, path)?.unwrap_or(self.rank))
    }

    /// The factor on `B A` of the linear layer at `path`.
    pub(super) fn scale(&self, path: &str) -> Result<f64, FormatError> {
        let alpha = first_match(&self.alphas, path)?.unwrap_or(self.alpha);
        let rank = self.rank(path)? as f64;
        Ok(alpha / if self.use_rslora { rank.sqrt() } else { rank })
    }
}

impl Targets {
    fn name(&self, path: &str) -> Result<bool, FormatError> {
        match self {
            Self::All => Ok(path.rsplit('.').next() != Some("lm_head")),
            Self::Names(names) => Ok(names.iter().any(|name| ends_with(path, name))),
            Self::Pattern(pattern) => pattern.matches(path),
        }
    }
}

impl Layers {
    fn new(raw: &RawAdapter, targets: &Targets, path: &Path) -> Result<Option<Self>, FormatError> {
        let indices = match &raw.layers_to_transform {
            None => return Ok(None),
            Some(Several::Many(indices)) if indices.is_empty() => return Ok(None),
            Some(Several::Many(indices)) => indices.clone(),
            Some(Several::One(index)) => vec![*index],
        };
        if !matches!(targets, Targets::Names(_)) {
            return Err(FormatError::UnsupportedField {
                path: path.to_owned(),
                field: "layers_to_transform".to_owned(),
                found: "set although target_modules is a string".to_owned(),
                supported: "a list of target_modules".into(),
            });
        }
        let names = match &raw.layers_pattern {
            Some(Several::One(name)) if !name.is_empty() => vec![name.clone()],
            Some(Several::Many(names)) => names.clone(),
            _ => Vec::new(),
        };
        let field = "layers_pattern";
        let mut patterns = names
            .iter()
            .map(|n| Pattern::new(path, field, n, &format!(r"\A(?:.*?\.)?{n}\.(?P<idx>\d+)\.")))
            .collect::<Result<Vec<_>, _>>()?;
        if patterns.is_empty() {
            let any = r"\A.*?\.[^.]*\.(?P<idx>\d+)\.";
            patterns.push(Pattern::new(path, field, "", any)?);
        }
        Ok(Some(Self { indices, patterns }))
    }

    fn hold(&self, path: &str) -> Result<bool, FormatError> {
        for pattern in &self.patterns {
            if let Some(index) = pattern.index(path)? {
                return Ok(self.indices.contains(&index));
            }
        }
        Ok(false)
    }
}

/// A regular expression out of a configuration.
#[derive(Debug)]
struct Pattern {
    regex: Regex,
    path: std::path::PathBuf,
    field: &'static str,
}

impl Pattern {
    fn new(
        path: &Path,
        field: &'static str,
        text: &str,
        anchored: &str,
    ) -> Result<Self, FormatError> {
        // The text itself is compiled first, so that a message is about what the file says.
        let regex = Regex::new(text).and_then(|_| Regex::new(anchored));
        let regex = regex.map_err(|error| unreadable(path, field, &error))?;
        Ok(Self { regex, path: path.to_owned(), field })
    }

    fn matches(&self, text: &str) -> Result<bool, FormatError> {
        self.regex.is_match(text).map_err(|error| unreadable(&self.path, self.field, &error))
    }

    /// The number in the group `idx`, if the pattern matches.
    fn index(&self, text: &str) -> Result<Option<usize>, FormatError> {
        let captures = self.regex.captures(text);
        let captures = captures.map_err(|error| unreadable(&self.path, self.field, &error))?;
        let group = captures.as_ref().and_then(|captures| captures.name("idx"));
        Ok(group.and_then(|group| group.as_str().parse().ok()))
    }
}

/// Compiled, a pattern takes some hundred times the memory of its text.
fn check_length(raw: &RawAdapter, path: &Path) -> Result<(), FormatError> {
    let one = |names: &Option<Several<String>>, of_list: bool| match names {
        Some(Several::One(text)) => text.len(),
        Some(Several::Many(list)) if of_list => list.iter().map(String::len).sum(),
        _ => 0,
    };
    let keys = |map: &Option<Map<String, Value>>| {
        map.iter().flat_map(Map::keys).map(String::len).sum::<usize>()
    };
    let length = one(&raw.target_modules, false)
        + one(&raw.exclude_modules, false)
        + one(&raw.layers_pattern, true)
        + keys(&raw.rank_pattern)
        + keys(&raw.alpha_pattern);
    if length <= LONGEST_PATTERNS {
        return Ok(());
    }
    let reason = format!(
        "its patterns are {length} bytes long together, and at most {LONGEST_PATTERNS} are read"
    );
    Err(FormatError::Malformed { what: CONFIG, path: path.to_owned(), reason })
}

fn unreadable(path: &Path, field: &str, error: &fancy_regex::Error) -> FormatError {
    let reason = format!("a pattern of `{field}` is no regular expression: {error}");
    FormatError::Malformed { what: CONFIG, path: path.to_owned(), reason }
}

/// Whether a path is a name or ends with it as whole components.
fn ends_with(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Patterns of ranks or scales, in the file's order, each to match a path's ending.
fn patterns<T>(
    path: &Path,
    field: &'static str,
    map: Option<&Map<String, Value>>,
    supported: &'static str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<(Pattern, T)>, FormatError> {
    let entries = map.into_iter().flatten();
    let pairs = entries.map(|(text, value)| {
        let read = read(value).ok_or_else(|| FormatError::UnsupportedField {
            path: path.to_owned(),
            field: format!("{field}.{}", shortened(text)),
            found: shown(value),
            supported: supported.into(),
        })?;
        let pattern = Pattern::new(path, field, text, &format!(r"\A(.*\.)?({text})\z"))?;
        Ok((pattern, read))
    });
    pairs.collect()
}

fn first_match<T: Copy>(pairs: &[(Pattern, T)], path: &str) -> Result<Option<T>, FormatError> {
    for (pattern, value) in pairs {
        if pattern.matches(path)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}
