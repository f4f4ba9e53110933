//! Per-name centring: image–text scores carry a strong bias per word, and one pair of thresholds serves all words only
//! after it is taken away.

use std::collections::BTreeMap;

/// Mean score of each name over images that do not mention it, by name: what is taken from its scores where they are
/// centred. A name is a surface form of the vocabulary.
pub type Centres = BTreeMap<String, f64>;

/// Centres from (name, score) pairs, the scores taken on images that do not mention the name.
pub fn centres<'a>(mismatched: impl IntoIterator<Item = (&'a str, f64)>) -> Centres {
    let mut sums: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    for (name, score) in mismatched {
        if let Some(entry) = sums.get_mut(name) {
            *entry = (entry.0 + score, entry.1 + 1);
        } else {
            sums.insert(name.to_owned(), (score, 1));
        }
    }
    sums.into_iter().map(|(name, (sum, count))| (name, sum / count as f64)).collect()
}
