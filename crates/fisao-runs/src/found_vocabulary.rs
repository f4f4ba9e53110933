//! `--vocabulary auto`: the list of objects that captions of the images themselves give.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use fisao_align::StopFlag;
use fisao_align::grounding::{
    Captions, Estimate, GroundedNames, Grounding, KindGrounding, LEAST_AUC, LEAST_TEXTS,
    grounded_names,
};
use fisao_align::mentions::MentionScorer;
use fisao_align::tasks::TaskSource;
use fisao_formats::documents::write_bytes;
use fisao_models::generation::Sampling;
use fisao_verifier::mentions::NameKind;
use fisao_verifier::regions::ImageEmbedding;
use fisao_verifier::scorer::Verifier;

use crate::bundle::{LoadedVerifier, Policy};
use crate::failure::Refusal;
use crate::reporter::Reporter;
use crate::scored_captions::{Captioning, ScoredCaptions};
use crate::vocabulary::Vocabulary;

/// Its file in a folder of results.
pub const FILE: &str = "vocabulary.txt";
/// Names of a group, and of those left out, that are told.
const SHOWN: usize = 8;

/// Where the list that is found for a result is written: beside the result's file, under its name.
pub fn beside(output: &Path) -> PathBuf {
    output.with_extension(FILE)
}

/// A list that was found in captions.
pub struct FoundVocabulary {
    names: GroundedNames,
    captions: usize,
    words: Vocabulary,
    /// Grounded names that the annotations know nothing of.
    unlabelled: Vec<String>,
}

impl FoundVocabulary {
    /// The list that some names give. Where annotations say what is correct, `labelled` is the list of their categories: its names
    /// are grouped as it has them, and others are left out, as nothing says whether they are correct.
    ///
    /// # Errors
    /// No name is visually grounded.
    pub fn new(
        names: GroundedNames,
        captions: usize,
        labelled: Option<&Vocabulary>,
    ) -> anyhow::Result<Self> {
        let objects = || names.names.iter().filter(|it| is_object(it));
        let (entries, unlabelled) = if let Some(labelled) = labelled {
            grouped(objects(), labelled)?
        } else {
            let phrases = names.kinds.iter().filter(|kind| kind.is_judged());
            let phrases = phrases.flat_map(|kind| &kind.names);
            let phrases = phrases.filter(|phrase| objects().any(|it| it.name.name == phrase.noun));
            let phrases = phrases.map(|phrase| (phrase.name.clone(), Vec::new()));
            (with_synonyms(objects()).into_iter().chain(phrases).collect(), Vec::new())
        };
        if entries.is_empty() {
            let candidates = names.names.len();
            let message = format!(
                "--vocabulary auto found no object in {captions} captions: of {candidates} nouns that {LEAST_TEXTS} captions or \
                 more use, none is visually grounded for this encoder"
            );
            bail!(Refusal::new(message).hint(
                "give more images or longer captions, or name a list: --vocabulary everyday"
            ));
        }
        let words = Vocabulary { entries, neutral: Vec::new() };
        Ok(Self { names, captions, words, unlabelled })
    }

    /// The list that a model's captions of some images give, grouped as `labelled` has its names where it is given; `length` is that of the longest
    /// prompt, tokens, and `views` of the tasks are what the verifier sees.
    ///
    /// # Errors
    /// The model cannot caption them, a name cannot be scored, or none is visually grounded.
    pub fn of_images(
        (policy, verifier): (&Policy, &LoadedVerifier),
        (source, length): (&dyn TaskSource, usize),
        sampling: &Sampling,
        labelled: Option<&Vocabulary>,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let tokenizer = Arc::clone(&policy.tokenizer) as _;
        let mut scorer = MentionScorer::of_nothing(tokenizer, verifier.verifier.clone());
        let captioning = Captioning {
            model: &policy.model,
            source,
            sampling,
            length: length + sampling.max_new_tokens,
            cache_mb: 0,
            kept: None,
            stop: &StopFlag::default(),
            team: None,
            reporter,
        };
        let scored = captioning.captions("caption", &mut scorer)?;
        Self::of_captions(&captioning, &scored, &scorer, labelled)
    }

    /// The list that captions give which have been made.
    pub(crate) fn of_captions(
        captioning: &Captioning<'_>,
        scored: &ScoredCaptions,
        scorer: &MentionScorer,
        labelled: Option<&Vocabulary>,
    ) -> anyhow::Result<Self> {
        Self::new(captioning.grounded_names(scored, scorer)?, scored.captions.len(), labelled)
    }

    /// The list of captions that are there, without a decoder that could say why.
    ///
    /// # Errors
    /// A name cannot be scored, or none is visually grounded.
    pub fn of_texts(
        texts: &[&str],
        (images_of, images): (&[usize], &[ImageEmbedding]),
        verifier: &Verifier,
    ) -> anyhow::Result<Self> {
        let captions = Captions { texts, images_of, images };
        Self::new(grounded_names(captions, verifier, LEAST_TEXTS)?, texts.len(), None)
    }

    /// What is known of every name.
    pub fn names(&self) -> &GroundedNames {
        &self.names
    }

    /// The list.
    pub fn into_words(self) -> Vocabulary {
        self.words
    }

    /// Writes the list with what was found of every name, and says so.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path, reporter: &Reporter) -> anyhow::Result<()> {
        write_bytes(path, self.text().as_bytes())?;
        let written = format!("{}; use it again, or edited, with --vocabulary", path.display());
        self.tell(&written, reporter);
        Ok(())
    }

    /// Says what was found.
    pub fn tell(&self, written: &str, reporter: &Reporter) {
        let mut lines = vec![format!(
            "{} objects found in {} captions: {written}",
            self.words.entries.len(),
            self.captions
        )];
        lines.extend(self.names.kinds.iter().filter_map(judgement));
        if !self.unlabelled.is_empty() {
            let shown: Vec<&str> = self.unlabelled.iter().take(SHOWN).map(String::as_str).collect();
            lines.push(format!(
                "{} names are left out, as the annotations say nothing of them: {}{}",
                self.unlabelled.len(),
                shown.join(", "),
                if self.unlabelled.len() > SHOWN { ", …" } else { "" }
            ));
        }
        reporter.note(lines.join("\n"));
    }

    /// The file: a listing that can be edited, with what is known of every name behind it.
    fn text(&self) -> String {
        let known: BTreeMap<&str, &Grounding> =
            self.names.names.iter().map(|it| (it.name.name.as_str(), it)).collect();
        let mut text = format!(
            "# Objects found in {} captions (--vocabulary auto). A category and its synonyms a line, with commas between; what stands\n\
             # behind # is not read. auc: how well the encoder tells images whose captions say the name from others (0.5 is chance);\n\
             # image-drop: what the decoder's log-probability of it loses without the image, nats.\n",
            self.captions
        );
        for (category, forms) in &self.words.entries {
            let line = [std::slice::from_ref(category), forms].concat().join(", ");
            let known =
                std::iter::once(category).chain(forms).find_map(|name| known.get(name.as_str()));
            let facts = known.map_or_else(String::new, |it| format!("# {}", self::facts(it)));
            let _ = writeln!(text, "{}", format!("{line:<24} {facts}").trim_end());
        }
        let dropped = |title: &str, text: &mut String, keep: &dyn Fn(&Grounding) -> bool| {
            let mut rest = self.names.names.iter().filter(|it| keep(it)).peekable();
            if rest.peek().is_some() {
                let _ = writeln!(text, "\n# {title}");
            }
            for it in rest {
                let _ = writeln!(text, "# {:<22} # {}", it.name.name, self::facts(it));
            }
        };
        let object = |it: &Grounding| it.name.kind == NameKind::Object;
        dropped("The encoder does not tell where these are:", &mut text, &|it| {
            object(it) && !it.is_seen()
        });
        dropped("The decoder says these with or without the image:", &mut text, &|it| {
            object(it) && it.is_seen() && !it.is_caused()
        });
        dropped("Where everything is, no objects:", &mut text, &|it| {
            it.name.kind == NameKind::Setting
        });
        for kind in &self.names.kinds {
            let Some(judgement) = judgement(kind) else { continue };
            let _ = writeln!(text, "\n# {judgement}");
            if !kind.is_judged() {
                let names: Vec<&str> = kind.names.iter().map(|it| it.name.as_str()).collect();
                let _ = writeln!(text, "# {}", names.join(", "));
            }
        }
        if !self.unlabelled.is_empty() {
            let names = self.unlabelled.join(", ");
            let _ = writeln!(text, "\n# The annotations say nothing of these:\n# {names}");
        }
        text
    }
}

/// Whether it is listed.
fn is_object(it: &Grounding) -> bool {
    it.name.kind == NameKind::Object && it.is_grounded()
}

/// Entries with their forms.
type Entries = Vec<(String, Vec<String>)>;

/// Objects with the less frequent names of each.
fn with_synonyms<'a>(names: impl Iterator<Item = &'a Grounding>) -> Entries {
    let mut entries: Entries = Vec::new();
    for it in names {
        let name = it.name.name.clone();
        let same = it
            .same_as
            .as_ref()
            .and_then(|same| entries.iter_mut().find(|(category, _)| category == same));
        match same {
            Some((_, forms)) => forms.push(name),
            None => entries.push((name, Vec::new())),
        }
    }
    entries
}

/// Names as a list groups them, and those that it does not know.
fn grouped<'a>(
    names: impl Iterator<Item = &'a Grounding>,
    labelled: &Vocabulary,
) -> anyhow::Result<(Entries, Vec<String>)> {
    let matcher = labelled.for_mentions()?;
    let (mut entries, mut unknown): (Entries, _) = (Vec::new(), Vec::new());
    for it in names {
        let name = &it.name.name;
        let Some(found) = matcher.mention_of(name) else {
            unknown.push(name.clone());
            continue;
        };
        let category = matcher.category(found.category);
        let at = entries.iter().position(|(known, _)| known == category);
        let at = at.unwrap_or_else(|| {
            entries.push((category.to_owned(), Vec::new()));
            entries.len() - 1
        });
        if name != category {
            entries[at].1.push(name.clone());
        }
    }
    Ok((entries, unknown))
}

/// What is known of a name.
fn facts(it: &Grounding) -> String {
    let mut facts = vec![format!("{} mentions", it.name.mentions)];
    facts.extend(it.auc.map(|auc| format!("auc {:.2}", auc.mean)));
    facts.extend(it.drop.map(|Estimate { mean, .. }| format!("image-drop {mean:+.1}")));
    facts.join(", ")
}

/// Whether what is said of nouns is judged, and why; nothing where no two phrases could be compared.
fn judgement(kind: &KindGrounding) -> Option<String> {
    let auc = kind.auc?;
    let [low, high] = auc.interval();
    let verdict = if kind.is_judged() { "judged" } else { "not judged" };
    Some(format!(
        "{}s: AUC {:.2} ({low:.2} … {high:.2}) over {} phrases; {verdict}, as the interval {} above {LEAST_AUC}",
        kind.kind.name(),
        auc.mean,
        kind.names.len(),
        if kind.is_judged() { "lies" } else { "does not lie" },
    ))
}
