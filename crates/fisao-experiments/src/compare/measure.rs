//! Measures the captions of a method on the built-in synthetic dataset's scenes.

use std::collections::{BTreeMap, BTreeSet};

use fisao_eval::captions::{self, CaptionInput, CaptionOptions, MeteorTables, References};
use fisao_eval::chair::{ChairReport, ImageVerdict};
use fisao_runs::world::{Evaluation, references};
use fisao_runs::world_pope::CaptionPope;
use fisao_scenes::{Split, World};

use super::document::Measurements;

/// What captions of a set of scenes are measured against, besides CHAIR: made once for all methods of a seed.
pub(crate) struct Yardsticks {
    pope: CaptionPope,
    references: References,
}

impl Yardsticks {
    /// For the first scenes of a split and seed.
    ///
    /// # Errors
    /// No scene holds enough objects for a question of POPE.
    pub(crate) fn of_scenes(
        world: &World,
        split: Split,
        seed: u64,
        count: usize,
    ) -> anyhow::Result<Self> {
        let truth = |index| {
            let objects = world.scene(split, seed, index).categories();
            (world.image_id(split, index), objects.into_iter().map(str::to_owned).collect())
        };
        let truth: BTreeMap<String, BTreeSet<String>> = (0..count as u64).map(truth).collect();
        let references = references(world, split, seed, count);
        Ok(Self { pope: CaptionPope::new(&truth, seed)?, references })
    }

    /// Everything about captions of the same scenes, one for each.
    ///
    /// # Errors
    /// Captions of other scenes, or none of some.
    pub(crate) fn measure(&self, evaluation: &Evaluation) -> anyhow::Result<Measurements> {
        self.score_captions(&evaluation.chair, evaluation.mean_length)
    }

    fn score_captions(
        &self,
        chair: &ChairReport,
        mean_length: f64,
    ) -> anyhow::Result<Measurements> {
        let input = |verdict: &ImageVerdict| CaptionInput {
            image_id: verdict.image_id.clone(),
            caption: verdict.caption.clone(),
        };
        let inputs: Vec<CaptionInput> = chair.per_image.iter().map(input).collect();
        let (tables, options) = (MeteorTables::default(), CaptionOptions::default());
        let likeness = captions::evaluate(&inputs, &self.references, &tables, &options)?.scores;
        let named = |verdict: &ImageVerdict| {
            let categories = verdict.mentions.iter().map(|mention| mention.category.clone());
            (verdict.image_id.clone(), categories.collect())
        };
        let pope = self.pope.score(&chair.per_image.iter().map(named).collect())?;
        Ok(Measurements {
            chair_i: chair.chair_i,
            chair_s: chair.chair_s,
            recall: chair.recall,
            mean_length,
            pope_f1: pope.f1,
            pope_accuracy: pope.accuracy,
            bleu_4: likeness.bleu_4,
            rouge_l: likeness.rouge_l,
            cider: likeness.cider,
        })
    }
}

#[cfg(test)]
mod tests {
    use fisao_eval::chair::{self, ChairInput, ChairOptions, ObjectVocabulary};
    use fisao_scenes::{Insertion, biased_caption, clean_caption};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const SCENES: usize = 60;
    const SEED: u64 = 3;

    /// Truthful captions of scenes, or such that add what often goes with them.
    fn measured(biased: bool) -> Measurements {
        let (world, split) = (World::new(), Split::Test);
        let yardsticks = Yardsticks::of_scenes(&world, split, SEED, SCENES).unwrap();
        let (mut inputs, mut truth) = (Vec::new(), BTreeMap::new());
        // Not the seeds of the references.
        let mut rng = ChaCha8Rng::seed_from_u64(1 << 40);
        for index in 0..SCENES as u64 {
            let (scene, image_id) = (world.scene(split, SEED, index), world.image_id(split, index));
            let caption = if biased {
                biased_caption(&scene, &mut rng, &Insertion::default()).text
            } else {
                clean_caption(&scene, &mut rng).text
            };
            let objects: BTreeSet<String> =
                scene.categories().into_iter().map(str::to_owned).collect();
            truth.insert(image_id.clone(), objects);
            inputs.push(ChairInput { image_id, caption });
        }
        let vocabulary = ObjectVocabulary::new(fisao_scenes::vocabulary()).unwrap();
        let options = ChairOptions::default();
        let report = chair::evaluate(inputs, &truth.into(), &vocabulary, &options).unwrap();
        yardsticks.score_captions(&report, 20.0).unwrap()
    }

    // ROUGE-L is left out: it counts what is found more than what is added, and tells the two hardly apart.
    #[test]
    fn truthful_captions_score_better_than_biased_ones() {
        let (truthful, biased) = (measured(false), measured(true));
        assert_eq!(truthful.chair_i, Some(0.0));
        assert!(biased.chair_i > Some(0.05), "{biased:?}");
        assert!(truthful.pope_accuracy > biased.pope_accuracy, "{truthful:?} {biased:?}");
        assert!(truthful.pope_f1 > biased.pope_f1, "{truthful:?} {biased:?}");
        assert!(truthful.bleu_4 > biased.bleu_4, "{truthful:?} {biased:?}");
        assert!(truthful.cider > biased.cider, "{truthful:?} {biased:?}");
    }
}
