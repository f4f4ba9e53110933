//! Two words that count as one.

/// Names of two words that are looked up whole.
const NAMES: &[&str] = &[
    "air plane",
    "baseball bat",
    "baseball glove",
    "cell phone",
    "fire hydrant",
    "hair drier",
    "home plate",
    "hot dog",
    "laptop computer",
    "mobile phone",
    "motor bike",
    "motor cycle",
    "parking meter",
    "potted plant",
    "sports ball",
    "stop light",
    "stop sign",
    "street light",
    "suit case",
    "teddy bear",
    "tennis racket",
    "traffic light",
    "traffic signal",
    "train track",
    "wine glass",
];

/// Animals that stay what they are behind "baby" and "adult", which would name a person alone.
const ANIMALS: &[&str] = &[
    "animal", "bear", "bird", "cat", "cow", "cub", "dog", "elephant", "giraffe", "horse", "sheep",
    "zebra",
];

/// What two words count as, if they count as one: themselves, one of them, or (for "wine glas", as the rules for
/// the singular leave it) the name that was meant.
pub(super) fn joined(first: &str, second: &str) -> Option<&'static str> {
    let listed = |list: &'static [&str]| list.iter().copied().find(|&word| word == second);
    match (first, second) {
        ("baby" | "adult", _) => listed(ANIMALS),
        ("passenger", "jet") => Some("jet"),
        ("passenger", "train") => Some("train"),
        ("bow", "tie") => Some("tie"),
        ("toilet", "seat") => Some("toilet"),
        ("wine", "glas") => Some("wine glass"),
        _ => NAMES.iter().copied().find(|name| name.split_once(' ') == Some((first, second))),
    }
}

/// Whether a word begins any such pair.
pub(super) fn opens(word: &str) -> bool {
    matches!(word, "baby" | "adult" | "passenger" | "bow" | "toilet" | "wine")
        || NAMES.iter().any(|name| name.split_once(' ').is_some_and(|(first, _)| first == word))
}
