//! Per-name centring: image–text scores carry a strong bias per word, and one pair of thresholds serves all words only
//! after it is taken away.

use std::collections::BTreeMap;

/// Mean score of each name over images that do not mention it, by name: what is taken from its scores where they are
/// centred. A name is a surface form of the vocabulary.
pub type Centres = BTreeMap<String, f64>;

/// Centres from each name's mean over images that do not mention it. Names without one, as they are mentioned nearly
/// everywhere, get the mean of the others', or 0 where no name has one.
pub fn centres(means: impl IntoIterator<Item = (String, Option<f64>)>) -> Centres {
    let means: Vec<(String, Option<f64>)> = means.into_iter().collect();
    let known: Vec<f64> = means.iter().filter_map(|(_, mean)| *mean).collect();
    let usual = known.iter().sum::<f64>() / known.len().max(1) as f64;
    means.into_iter().map(|(name, mean)| (name, mean.unwrap_or(usual))).collect()
}
