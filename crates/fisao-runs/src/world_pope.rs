//! POPE on the built-in synthetic dataset, read from captions.
//!
//! POPE asks a model "Is there a … in the image?". The embedded model has only ever been taught to caption and
//! captions whatever it is asked, so the answer is read from its caption: yes, if the caption names the object.
//! The questions are POPE's adversarial ones ([`fisao_eval::pope::build`]): three objects that are there, and for
//! each one that is not but is most often seen together with it, which is what the embedded model invents.
//!
//! A caption need not name everything, so silence counts as a no. The numbers compare captioners of the same
//! scenes with each other, but **not** with POPE of a model that answers.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use fisao_eval::answers::Answer;
use fisao_eval::pope::{
    BuildOptions, ImageObjects, Negatives, Question, Scores, build, score_split,
};

use crate::failure::OrInternal as _;

/// Objects asked for in each scene, and as many that are not there.
const OBJECTS: usize = 3;

/// Names of images, and a set of categories for each.
type Categories = BTreeMap<String, BTreeSet<String>>;

/// The questions about a set of scenes.
pub struct CaptionPope {
    questions: Vec<Question>,
}

impl CaptionPope {
    /// Makes the questions, of each scene that holds enough objects; `truth` is what each scene holds.
    ///
    /// # Errors
    /// No scene holds enough objects, or one of them nearly everything.
    pub fn new(truth: &Categories, seed: u64) -> anyhow::Result<Self> {
        let fit = truth.values().filter(|objects| objects.len() >= OBJECTS).count();
        let options = BuildOptions {
            images: fit.max(1),
            objects: OBJECTS,
            ..BuildOptions::new(Negatives::Adversarial, seed)
        };
        let questions = build(&ImageObjects::all(truth), &options);
        Ok(Self { questions: questions.or_internal("POPE on the built-in synthetic dataset")? })
    }

    /// Accuracy, precision, recall, F1 and fraction of yes of captions; `named` are the categories that the caption
    /// of each scene names.
    ///
    /// # Errors
    /// A scene that is asked about has no caption.
    pub fn score(&self, named: &Categories) -> anyhow::Result<Scores> {
        let answer = |question: &Question| {
            let image = &question.image.0;
            let named = named.get(image).with_context(|| format!("{image} has no caption"))?;
            let object = question.object().or_internal("a question for no object")?;
            let text = if named.contains(object) { "yes" } else { "no" };
            let question_id = Some(question.question_id.clone());
            Ok(Answer { question_id, text: text.to_owned() })
        };
        let answers = self.questions.iter().map(answer).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(score_split("adversarial", &self.questions, &answers)?.scores)
    }
}

#[cfg(test)]
mod tests {
    use fisao_eval::pope::Label;

    use super::*;

    fn sets(scenes: &[&[&str]]) -> Categories {
        let set = |(at, objects): (usize, &&[&str])| {
            (format!("test-{at}"), objects.iter().map(ToString::to_string).collect())
        };
        scenes.iter().enumerate().map(set).collect()
    }

    /// The last scene holds too few objects to be asked about.
    fn truth() -> Categories {
        sets(&[
            &["apple", "bowl", "cup", "dog"],
            &["apple", "bowl", "cup"],
            &["fox", "owl", "tree"],
            &["fox", "owl", "tree", "cloud"],
            &["apple", "fox"],
        ])
    }

    #[test]
    fn questions_are_asked_about_every_scene_with_enough_objects() {
        let (truth, pope) = (truth(), CaptionPope::new(&truth(), 1).unwrap());
        assert_eq!(pope.questions.len(), 4 * 2 * OBJECTS);
        for question in &pope.questions {
            let there = truth[&question.image.0].contains(question.object().unwrap());
            assert_eq!(there, question.label == Label::Yes, "{question:?}");
        }
        // The one thing that is seen with apple, bowl and cup elsewhere.
        let mut asked = pope.questions.iter().filter(|question| question.image.0 == "test-1");
        assert!(asked.any(|question| question.object() == Some("dog")));
    }

    #[test]
    fn captions_naming_all_objects_score_perfectly() {
        let scores = CaptionPope::new(&truth(), 1).unwrap().score(&truth()).unwrap();
        assert_eq!(scores.values(), [Some(1.0), Some(1.0), Some(1.0), Some(1.0), Some(0.5)]);
    }

    #[test]
    fn omitted_and_hallucinated_objects_lower_the_scores() {
        // Two scenes, each with all its objects asked for, and three things that are only in the other one.
        let truth = sets(&[&["apple", "bowl", "cup"], &["fox", "owl", "tree"]]);
        let pope = CaptionPope::new(&truth, 7).unwrap();
        // Two of three and one of the other scene; one of three and two of the other scene.
        let named = sets(&[&["apple", "bowl", "fox"], &["fox", "apple", "cup"]]);
        let scores = pope.score(&named).unwrap();
        // 3 of 6 found, 3 of 6 invented, 3 of 6 denied.
        assert_eq!((scores.recall, scores.precision), (Some(0.5), Some(0.5)));
        assert_eq!((scores.accuracy, scores.f1), (Some(0.5), Some(0.5)));
        let named = sets(&[&["apple", "bowl", "cup"], &["fox", "apple"]]);
        let scores = pope.score(&named).unwrap();
        assert_eq!((scores.recall, scores.precision), (Some(4.0 / 6.0), Some(4.0 / 5.0)));
        assert_eq!((scores.accuracy, scores.f1), (Some(9.0 / 12.0), Some(8.0 / 11.0)));
    }

    #[test]
    fn empty_captions_answer_no_to_every_question() {
        let pope = CaptionPope::new(&truth(), 1).unwrap();
        let silent = truth().into_keys().map(|image| (image, BTreeSet::new())).collect();
        let scores = pope.score(&silent).unwrap();
        let found = (scores.accuracy, scores.f1, scores.yes_ratio);
        assert_eq!(found, (Some(0.5), Some(0.0), Some(0.0)));
        assert!(pope.score(&Categories::new()).is_err());
    }
}
