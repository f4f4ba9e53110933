//! Terms that this project does not use: the table is `xtask/words.toml`, the reasons are in `STYLE.md`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

/// Where the table lies in the workspace.
const TABLE: &str = "xtask/words.toml";

/// The table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Words {
    /// Files and folders that are read, from the workspace's root.
    paths: Vec<String>,
    /// Endings of file names that are read.
    extensions: Vec<String>,
    /// Files and folders below `paths` that are not read: generated files, quoted texts, history.
    except: Vec<String>,
    /// Terms.
    term: Vec<Term>,
}

/// A term that is not used.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Term {
    /// Its forms. One in lower case stands for every case; it is found as a whole word, or as a part of words
    /// where it begins or ends with `*`.
    not: Vec<String>,
    /// What is written instead.
    instead: String,
    /// Files and folders that may use it, each with its reason.
    #[serde(default)]
    except: Vec<Exception>,
}

/// A place where a term is right.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    path: String,
    /// For readers of the table.
    #[serde(rename = "reason")]
    _reason: String,
}

impl Words {
    /// Reads the table of a workspace.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let path = root.join(TABLE);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let words: Self = toml::from_str(text).context("the table of words is malformed")?;
        for term in &words.term {
            let named = term.not.iter().all(|form| !form.trim_matches('*').is_empty());
            ensure!(named && !term.not.is_empty(), "a term for `{}` is empty", term.instead);
        }
        Ok(words)
    }

    /// Every use of a term in the workspace's files: `path:line: …`.
    pub(crate) fn violations(&self, root: &Path) -> anyhow::Result<Vec<String>> {
        let mut files = Vec::new();
        for path in &self.paths {
            self.collect(root, Path::new(path), &mut files)?;
        }
        files.sort();
        let mut found = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(root.join(&file))
                .with_context(|| format!("{} cannot be read", file.display()))?;
            found.extend(self.violations_in(&file, &text));
        }
        Ok(found)
    }

    /// Adds the files at or below `path` that are read.
    fn collect(&self, root: &Path, path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        if self.except.iter().any(|except| path.starts_with(except)) {
            return Ok(());
        }
        let whole = root.join(path);
        if !whole.is_dir() {
            let ending = path.extension().and_then(|ending| ending.to_str());
            if ending.is_some_and(|ending| self.extensions.iter().any(|read| read == ending)) {
                files.push(path.to_owned());
            }
            return Ok(());
        }
        let entries = std::fs::read_dir(&whole)
            .with_context(|| format!("{} cannot be listed", whole.display()))?;
        for entry in entries {
            self.collect(root, &path.join(entry?.file_name()), files)?;
        }
        Ok(())
    }

    fn violations_in(&self, path: &Path, text: &str) -> Vec<String> {
        let flowing = Flowing::new(text);
        let mut found = Vec::new();
        for term in &self.term {
            if term.except.iter().any(|except| path.starts_with(&except.path)) {
                continue;
            }
            for form in &term.not {
                for line in flowing.lines_with(form) {
                    let message = format!("write {} instead of `{form}`", term.instead);
                    found.push((line, format!("{}:{line}: {message}", path.display())));
                }
            }
        }
        found.sort();
        found.into_iter().map(|(_, message)| message).collect()
    }
}

/// A text without line breaks and the marks of comments, so that a term is found across lines.
struct Flowing {
    text: String,
    lower: String,
    /// Where each line begins in `text`.
    starts: Vec<usize>,
}

impl Flowing {
    fn new(text: &str) -> Self {
        let (mut flowing, mut starts) = (String::with_capacity(text.len()), Vec::new());
        for line in text.lines() {
            starts.push(flowing.len());
            let line = line.trim();
            flowing.push_str(line.trim_start_matches(['/', '!', '>']).trim_start());
            flowing.push(' ');
        }
        let lower = flowing.to_ascii_lowercase();
        Self { text: flowing, lower, starts }
    }

    /// Numbers, from 1, of the lines in which a form begins.
    fn lines_with(&self, form: &str) -> Vec<usize> {
        let word = form.trim_matches('*');
        let ignores_case = !word.contains(|letter: char| letter.is_ascii_uppercase());
        let text = if ignores_case { &self.lower } else { &self.text };
        let in_word = |letter: Option<char>| {
            letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
        };
        let places = text.match_indices(word).map(|(at, _)| at).filter(|&at| {
            let open = form.starts_with('*') || !in_word(text[..at].chars().next_back());
            let end = at + word.len();
            open && (form.ends_with('*') || !in_word(text[end..].chars().next()))
        });
        places.map(|at| self.starts.partition_point(|&start| start <= at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#"
        paths = ["notes", "README.md"]
        extensions = ["md", "rs"]
        except = ["notes/history.md"]

        [[term]]
        not = ["way back"]
        instead = "backward pass"

        [[term]]
        not = ["Judge", "judge_*"]
        instead = "scorer"
        except = [{ path = "notes/judges", reason = "language models as judges" }]
    "#;

    fn found(path: &str, text: &str) -> Vec<String> {
        Words::parse(TABLE).expect("a table").violations_in(Path::new(path), text)
    }

    #[test]
    fn term_is_reported_with_its_line_and_replacement() {
        let text = "fine\n/// computed on the way back\nstruct Judge;\n";
        let expected = [
            "notes/a.rs:2: write backward pass instead of `way back`",
            "notes/a.rs:3: write scorer instead of `Judge`",
        ];
        assert_eq!(found("notes/a.rs", text), expected);
    }

    #[test]
    fn term_is_found_across_comment_lines() {
        let expected = ["a.rs:1: write backward pass instead of `way back`"];
        assert_eq!(found("a.rs", "    /// on the Way\n    /// back\n"), expected);
        assert_eq!(found("a.md", "on the\nrailway back\n"), Vec::<String>::new());
    }

    #[test]
    fn terms_match_whole_words_unless_starred() {
        assert_eq!(found("a.rs", "Judges, judge, PreJudge"), Vec::<String>::new());
        assert_eq!(found("a.rs", "judge_all(); prejudge_all();").len(), 1);
    }

    #[test]
    fn exceptions_match_whole_path_components() {
        assert_eq!(found("notes/judges/mm_vet.rs", "struct Judge;"), Vec::<String>::new());
        assert_eq!(found("notes/judges.rs", "struct Judge;").len(), 1);
    }

    #[test]
    fn only_configured_paths_and_extensions_are_read() {
        let folder = std::env::temp_dir().join(format!("fisao-words-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("notes/deep")).expect("a folder");
        let files = ["README.md", "notes/deep/a.rs", "notes/history.md", "notes/a.txt", "other.md"];
        for file in files {
            std::fs::write(folder.join(file), "the way back\n").expect("a file");
        }
        let violations = Words::parse(TABLE).expect("a table").violations(&folder);
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
        let found: Vec<String> = violations.expect("readable files");
        let places: Vec<&str> = found.iter().filter_map(|text| text.split(": ").next()).collect();
        assert_eq!(places, ["README.md:1", "notes/deep/a.rs:1"]);
    }

    #[test]
    fn empty_terms_are_rejected() {
        let table = TABLE.replace("\"way back\"", "\"*\"");
        assert!(Words::parse(&table).is_err());
    }

    #[test]
    fn term_table_of_the_workspace_is_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
        let words = Words::read(root).expect("the table");
        assert!(!words.violations_in(Path::new("x.rs"), "// computed on the way back").is_empty());
    }
}
