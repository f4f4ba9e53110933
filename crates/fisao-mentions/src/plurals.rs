//! English plurals of object names.

/// Words whose plural no rule below gives. Several plurals mean that all are in use.
const IRREGULAR: &[(&str, &[&str])] = &[
    ("person", &["people", "persons"]),
    ("child", &["children"]),
    ("grandchild", &["grandchildren"]),
    ("foot", &["feet"]),
    ("tooth", &["teeth"]),
    ("goose", &["geese"]),
    ("mouse", &["mice", "mouses"]),
    ("ox", &["oxen"]),
    ("knife", &["knives"]),
    ("wife", &["wives"]),
    ("life", &["lives"]),
    ("calf", &["calves"]),
    ("half", &["halves"]),
    ("leaf", &["leaves"]),
    ("loaf", &["loaves"]),
    ("shelf", &["shelves"]),
    ("bookshelf", &["bookshelves"]),
    ("thief", &["thieves"]),
    ("wolf", &["wolves"]),
    ("elf", &["elves"]),
    ("scarf", &["scarves", "scarfs"]),
    ("hoof", &["hooves", "hoofs"]),
    ("bus", &["buses", "busses"]),
    ("minibus", &["minibuses", "minibusses"]),
    ("quiz", &["quizzes"]),
    ("cactus", &["cacti", "cactuses"]),
    ("octopus", &["octopuses", "octopi"]),
    ("hippopotamus", &["hippopotamuses", "hippopotami"]),
    ("fish", &["fish", "fishes"]),
    ("passerby", &["passersby"]),
];

/// Words that are their own plural.
const UNCHANGED: &[&str] = &[
    "sheep",
    "deer",
    "moose",
    "bison",
    "cattle",
    "aircraft",
    "watercraft",
    "hovercraft",
    "salmon",
    "trout",
    "shrimp",
    "swine",
    "people",
    "men",
    "women",
    "children",
    "scissors",
    "skis",
    "luggage",
    "furniture",
    "broccoli",
];

/// Words that end in "man" and take a plain "s": the rest ("policeman", "snowman") take "men".
const NOT_A_MAN: &[&str] =
    &["human", "german", "roman", "norman", "ottoman", "caiman", "talisman", "shaman"];

/// Every plural of a lower-case word in use. May be empty or hold the word itself, when singular
/// and plural agree.
pub fn plurals(word: &str) -> Vec<String> {
    if let Some((_, plurals)) = IRREGULAR.iter().find(|(singular, _)| *singular == word) {
        return plurals.iter().map(ToString::to_string).collect();
    }
    if UNCHANGED.contains(&word) {
        return Vec::new();
    }
    if let Some(stem) = word.strip_suffix("man").filter(|_| !NOT_A_MAN.contains(&word)) {
        return vec![format!("{stem}men")];
    }
    regular(word)
}

/// Every word that a lower-case word may be the plural of, known or not: "glasses" of "glass" and of "glasse".
pub(crate) fn singulars(word: &str) -> Vec<String> {
    let irregular = IRREGULAR.iter().map(|(singular, _)| (*singular).to_owned());
    let endings = [("men", "man"), ("ies", "y"), ("es", ""), ("s", "")];
    let stripped = endings.iter().filter_map(|(plural, singular)| {
        word.strip_suffix(plural).map(|stem| format!("{stem}{singular}"))
    });
    let fits =
        |singular: &String| singular != word && plurals(singular).iter().any(|it| it == word);
    irregular.chain(stripped).filter(fits).collect()
}

fn regular(word: &str) -> Vec<String> {
    let mut ending = word.chars().rev();
    let (last, before) = (ending.next(), ending.next());
    let after_vowel = before.is_some_and(|letter| "aeiou".contains(letter));
    match last {
        Some('y') if !after_vowel && before.is_some() => {
            vec![format!("{}ies", &word[..word.len() - 1])]
        }
        // Both "pianos" and "potatoes" exist; the form no one writes never matches anything.
        Some('o') if !after_vowel => vec![format!("{word}s"), format!("{word}es")],
        Some('s' | 'x' | 'z') => vec![format!("{word}es")],
        Some('h') if matches!(before, Some('c' | 's')) => vec![format!("{word}es")],
        Some(_) => vec![format!("{word}s")],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::plurals;

    #[test]
    fn regular_and_irregular_plurals_are_generated() {
        for (singular, plural) in [
            ("dog", "dogs"),
            ("bus", "buses"),
            ("knife", "knives"),
            ("person", "people"),
            ("policeman", "policemen"),
            ("woman", "women"),
            ("ottoman", "ottomans"),
            ("bench", "benches"),
            ("toothbrush", "toothbrushes"),
            ("box", "boxes"),
            ("glass", "glasses"),
            ("baby", "babies"),
            ("toy", "toys"),
            ("donkey", "donkeys"),
            ("potato", "potatoes"),
            ("piano", "pianos"),
            ("video", "videos"),
            ("giraffe", "giraffes"),
            ("mouse", "mice"),
            ("orange", "oranges"),
        ] {
            assert!(plurals(singular).iter().any(|p| p == plural), "{singular} -> {plural}");
        }
        assert!(plurals("sheep").is_empty());
        assert!(plurals("").is_empty());
    }
}
