//! Which absent objects a biased caption mentions.

use rand::{Rng, RngExt};

use crate::category::category_index;
use crate::scene::Scene;
use crate::theme::companions;

/// Most objects inserted into one caption.
const MOST_INSERTED: usize = 2;

/// How often absent objects are put into captions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Insertion {
    /// Probability that an absent companion of a present trigger is inserted (see [`companions`]).
    pub companion_rate: f64,
    /// Probability that one other absent object of the theme is inserted.
    pub other_rate: f64,
}

impl Default for Insertion {
    /// Rates under which about half of all captions, and between a sixth and a fifth of all mentions, are false.
    fn default() -> Self {
        Self { companion_rate: 0.85, other_rate: 0.08 }
    }
}

impl Insertion {
    /// Nothing absent is ever mentioned.
    pub const NONE: Self = Self { companion_rate: 0.0, other_rate: 0.0 };

    /// Draws the categories to insert into a caption of `scene`. Triggers are looked up among the objects
    /// that are really there, so one insertion never causes another.
    pub(crate) fn draw(&self, scene: &Scene, rng: &mut impl Rng) -> Vec<usize> {
        let present = scene.category_indices();
        let absent = |category: usize| !present.contains(&category);
        let mut inserted = Vec::new();
        for rule in companions(scene.theme) {
            let companion = category_index(rule.companion);
            let applies = present.contains(&category_index(rule.trigger));
            if applies
                && absent(companion)
                && !inserted.contains(&companion)
                && rng.random_bool(self.companion_rate)
            {
                inserted.push(companion);
            }
        }
        while inserted.len() > MOST_INSERTED {
            inserted.swap_remove(rng.random_range(0..inserted.len()));
        }
        if inserted.len() < MOST_INSERTED && rng.random_bool(self.other_rate) {
            let others: Vec<_> = scene
                .theme
                .members()
                .filter(|&(category, _)| absent(category) && !inserted.contains(&category))
                .map(|(category, _)| category)
                .collect();
            if !others.is_empty() {
                inserted.push(others[rng.random_range(0..others.len())]);
            }
        }
        inserted
    }
}
