//! What a name is contrasted with: the names of other objects that the text encoder has nearest to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fisao_models::parallel::{cores, parallel_chunks};

use crate::mentions::ObjectVocabulary;
use crate::regions::cosine;

/// Alternatives of names.
#[derive(Clone, Default)]
pub(super) struct Alternatives {
    /// Names that they are chosen from, each with its category.
    names: Arc<Vec<(String, usize)>>,
    /// Those found so far.
    found: BTreeMap<String, Vec<String>>,
}

impl Alternatives {
    /// From now on chooses from the names of a vocabulary, all of which have embeddings, and finds those of each.
    pub(super) fn choose_from(
        &mut self,
        vocabulary: &ObjectVocabulary,
        embeddings: &BTreeMap<String, Vec<f32>>,
        count: u32,
    ) {
        let names = vocabulary.forms().map(|(form, category)| (form.to_owned(), category));
        let names: Vec<(String, usize)> = names.collect();
        if *self.names == names {
            return;
        }
        *self = Self { names: Arc::new(names), found: BTreeMap::new() };
        let names = Arc::clone(&self.names);
        self.find(
            &names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            embeddings,
            count,
        );
    }

    /// Finds the alternatives of names that have embeddings; none before there is a vocabulary to choose from.
    pub(super) fn find(
        &mut self,
        names: &[&str],
        embeddings: &BTreeMap<String, Vec<f32>>,
        count: u32,
    ) {
        if self.names.is_empty() || count == 0 {
            return;
        }
        let unknown = names.iter().copied().filter(|name| !self.found.contains_key(*name));
        let unknown: Vec<&str> = unknown.collect();
        let found = parallel_chunks(&unknown, cores(), |chunk| {
            let of_name = |name: &&str| self.nearest(name, embeddings, count);
            chunk.iter().map(of_name).collect::<Vec<_>>()
        });
        let found = found.into_iter().flatten();
        self.found.extend(unknown.iter().map(|name| (*name).to_owned()).zip(found));
    }

    /// Those of a name, the nearest first.
    pub(super) fn of(&self, name: &str) -> &[String] {
        self.found.get(name).map_or(&[], Vec::as_slice)
    }

    /// The nearest name of each of the nearest categories but its own.
    fn nearest(
        &self,
        name: &str,
        embeddings: &BTreeMap<String, Vec<f32>>,
        count: u32,
    ) -> Vec<String> {
        let own = self.names.iter().find(|(known, _)| known == name).map(|(_, category)| *category);
        let text = &embeddings[name];
        let mut best: BTreeMap<usize, (f64, &str)> = BTreeMap::new();
        for (other, category) in self.names.iter().filter(|(_, category)| Some(*category) != own) {
            let near = cosine(text, &embeddings[other]);
            let known = best.entry(*category).or_insert((near, other));
            if near > known.0 {
                *known = (near, other);
            }
        }
        let mut best: Vec<(f64, &str)> = best.into_values().collect();
        best.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        best.into_iter().take(count as usize).map(|(_, name)| name.to_owned()).collect()
    }
}
