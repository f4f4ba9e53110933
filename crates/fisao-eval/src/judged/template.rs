//! Prompts with places to fill.

/// A prompt in which names in braces stand for what differs from question to question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Text between the places, one more than there are places.
    texts: Vec<String>,
    /// Names, in order.
    places: Vec<String>,
}

/// A prompt that does not ask about the answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateError {
    /// A place that must be there.
    #[error("the judge's prompt lacks {{{place}}}; it must have {expected}")]
    Missing {
        /// The place.
        place: &'static str,
        /// All places.
        expected: String,
    },
}

impl Template {
    /// A prompt with these places, each at least once. Other braces are text.
    ///
    /// # Errors
    /// A place that is not there.
    pub fn new(text: &str, places: &[&'static str]) -> Result<Self, TemplateError> {
        let mut template = Self { texts: Vec::new(), places: Vec::new() };
        let mut rest = text;
        let next = |rest: &str| {
            let found = places.iter().filter_map(|place| {
                Some((rest.find(&format!("{{{place}}}"))?, (*place).to_owned()))
            });
            found.min()
        };
        while let Some((at, place)) = next(rest) {
            template.texts.push(rest[..at].to_owned());
            rest = &rest[at + place.len() + 2..];
            template.places.push(place);
        }
        template.texts.push(rest.to_owned());
        match places.iter().find(|place| !template.places.iter().any(|name| name == **place)) {
            Some(place) => {
                let expected: Vec<String> =
                    places.iter().map(|place| format!("{{{place}}}")).collect();
                Err(TemplateError::Missing { place, expected: expected.join(", ") })
            }
            None => Ok(template),
        }
    }

    /// The prompt with its places filled. What is filled in is not looked at again.
    pub(super) fn fill(&self, values: &[(&str, &str)]) -> String {
        let mut filled = self.texts.first().cloned().unwrap_or_default();
        for (place, text) in self.places.iter().zip(self.texts.iter().skip(1)) {
            let value = values.iter().find(|(name, _)| name == place);
            filled.push_str(value.map_or("", |(_, value)| value));
            filled.push_str(text);
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_placeholders_are_filled_once_and_required() {
        let template = Template::new("{a}: {b} {c} {a}{", &["a", "b"]).unwrap();
        assert_eq!(template.fill(&[("b", "{a}"), ("a", "x")]), "x: {a} {c} x{");
        let error = Template::new("{b}", &["a", "b"]).unwrap_err();
        assert_eq!(error.to_string(), "the judge's prompt lacks {a}; it must have {a}, {b}");
    }
}
