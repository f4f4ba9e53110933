//! The object words of the world, as the verifier's and the scorer's matchers take them.

use crate::category::CATEGORIES;

/// Category name with all its surface forms (the first is the name itself): singular and plural of the
/// usual word, of its synonyms, and of the narrower words some sprites carry. No form belongs to two
/// categories; a matcher must prefer the longest form ("hot dog" before "dog").
pub fn vocabulary() -> Vec<(String, Vec<String>)> {
    CATEGORIES
        .iter()
        .map(|category| {
            let narrower = category.sprites.iter().filter_map(|sprite| sprite.narrower.as_ref());
            let nouns = std::iter::once(&category.noun).chain(category.synonyms).chain(narrower);
            let mut forms = vec![category.name().to_owned()];
            for form in nouns.flat_map(|noun| [noun.singular, noun.plural]) {
                if !forms.iter().any(|known| known == form) {
                    forms.push(form.to_owned());
                }
            }
            (category.name().to_owned(), forms)
        })
        .collect()
}
