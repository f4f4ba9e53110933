//! The object words of the world, as the verifier's and the scorer's matchers take them.

use crate::category::{CATEGORIES, Category};

/// Category name with its surface forms (the first is the name itself): the usual word, its synonyms and
/// the narrower words some sprites carry, all in the singular. Matchers form the plurals themselves, so that
/// the verifier is asked about "a photo of a bike" whether the text says bike or bikes. No form belongs to
/// two categories; a matcher must prefer the longest form ("hot dog" before "dog").
pub fn vocabulary() -> Vec<(String, Vec<String>)> {
    CATEGORIES.iter().map(|category| (category.name().to_owned(), forms_of(category))).collect()
}

/// Surface forms of one category, its name first.
pub(crate) fn forms_of(category: &Category) -> Vec<String> {
    let narrower = category.sprites.iter().filter_map(|sprite| sprite.narrower.as_ref());
    let nouns = std::iter::once(&category.noun).chain(category.synonyms).chain(narrower);
    let mut forms = vec![category.name().to_owned()];
    for form in nouns.map(|noun| noun.singular) {
        if !forms.iter().any(|known| known == form) {
            forms.push(form.to_owned());
        }
    }
    forms
}
