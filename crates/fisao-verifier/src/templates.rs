//! Prompt templates: the sentence in which a name is shown to the text encoder.

use serde::{Deserialize, Serialize};

/// Where a template takes the name.
const SLOT: &str = "{}";

/// Sentences a mention is scored in; the text embedding of a mention is the mean over them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Templates {
    /// Sentences with exactly one `{}`. Default: `["a photo of a {}."]`, CLIP's own zero-shot
    /// prompt.
    pub prompts: Vec<String>,
    /// Write "an" for "a" before a name that begins with a vowel sound. Default: true, since that
    /// is what captions look like; CLIP's published prompts leave "a" as it stands.
    pub agree_article: bool,
}

/// Templates that cannot be rendered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateError {
    /// No templates at all.
    #[error("no prompt template is given; the default is \"a photo of a {{}}.\"")]
    Empty,
    /// A template without a place for the name, or with several.
    #[error(
        "the prompt template \"{template}\" holds {found} places \"{{}}\"; it needs exactly one"
    )]
    Slots {
        /// The template as given.
        template: String,
        /// Places found.
        found: usize,
    },
}

impl Default for Templates {
    fn default() -> Self {
        Self { prompts: vec!["a photo of a {}.".to_owned()], agree_article: true }
    }
}

impl Templates {
    /// Checks that every template takes exactly one name.
    ///
    /// # Errors
    /// The first template that does not, or none given.
    pub fn validate(&self) -> Result<(), TemplateError> {
        if self.prompts.is_empty() {
            return Err(TemplateError::Empty);
        }
        for template in &self.prompts {
            let found = template.matches(SLOT).count();
            if found != 1 {
                return Err(TemplateError::Slots { template: template.clone(), found });
            }
        }
        Ok(())
    }

    /// One sentence per template, with `name` in its place.
    pub fn render(&self, name: &str) -> Vec<String> {
        self.prompts.iter().map(|template| self.render_one(template, name)).collect()
    }

    fn render_one(&self, template: &str, name: &str) -> String {
        let Some((before, after)) = template.split_once(SLOT) else {
            return template.to_owned();
        };
        let has_article = before
            .strip_suffix(" ")
            .and_then(|text| text.rsplit(' ').next())
            .is_some_and(|word| word.eq_ignore_ascii_case("a"));
        if self.agree_article && has_article && begins_with_vowel_sound(name) {
            return format!("{}n {name}{after}", before.trim_end());
        }
        format!("{before}{name}{after}")
    }
}

/// Spelling decides but for the words where the ear disagrees.
fn begins_with_vowel_sound(name: &str) -> bool {
    const CONSONANT: &[&str] = &["uni", "eu", "ewe", "one", "use", "uku", "ute", "ufo"];
    const SILENT_H: &[&str] = &["hour", "honest", "heir"];
    let name = name.to_lowercase();
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    begins(SILENT_H) || (name.starts_with(['a', 'e', 'i', 'o', 'u']) && !begins(CONSONANT))
}

#[cfg(test)]
mod tests {
    use super::{TemplateError, Templates};

    #[test]
    fn templates_insert_names_with_the_right_article() {
        let templates = Templates {
            prompts: vec!["a photo of a {}.".into(), "{} on a table".into(), "A {}".into()],
            ..Templates::default()
        };
        assert_eq!(templates.render("dog"), ["a photo of a dog.", "dog on a table", "A dog"]);
        assert_eq!(
            templates.render("apple"),
            ["a photo of an apple.", "apple on a table", "An apple"]
        );
        assert_eq!(templates.render("unicycle")[0], "a photo of a unicycle.");
        let verbatim = Templates { agree_article: false, ..Templates::default() };
        assert_eq!(verbatim.render("apple"), ["a photo of a apple."]);
    }

    #[test]
    fn templates_need_exactly_one_placeholder() {
        let check = |prompts: &[&str]| {
            let prompts = prompts.iter().map(ToString::to_string).collect();
            Templates { prompts, ..Templates::default() }.validate()
        };
        assert_eq!(check(&["a {}", "{}"]), Ok(()));
        assert_eq!(check(&[]), Err(TemplateError::Empty));
        let error = check(&["a photo"]).unwrap_err();
        assert_eq!(error, TemplateError::Slots { template: "a photo".into(), found: 0 });
        assert!(error.to_string().contains("0 places \"{}\""));
    }

    #[test]
    fn unknown_template_keys_are_rejected() {
        let partial: Templates = toml::from_str("agree-article = false").unwrap();
        assert_eq!(partial.prompts, Templates::default().prompts);
        assert!(toml::from_str::<Templates>("article = false").is_err());
    }
}
