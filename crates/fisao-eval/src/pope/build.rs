//! New questions from the ground truth of any pictures.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Label, Question};
use crate::answers::QuestionId;
use crate::image_id::ImageId;
use crate::statistics::SplitMix;

/// A picture and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its id.
    pub image: String,
    /// Names of the objects in it. Their order counts: see [`BuildOptions::first_objects`].
    pub objects: Vec<String>,
}

impl Picture {
    /// Pictures from sets of objects, in the order of their ids and of the names.
    pub fn all(truth: &BTreeMap<String, BTreeSet<String>>) -> Vec<Self> {
        let picture = |(image, objects): (&String, &BTreeSet<String>)| Self {
            image: image.clone(),
            objects: objects.iter().cloned().collect(),
        };
        truth.iter().map(picture).collect()
    }
}

/// Which absent object is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negatives {
    /// Any, all with the same chance.
    Random,
    /// The one that most of the sampled pictures hold.
    Popular,
    /// The one that is most often seen together with the object asked for just before.
    Adversarial,
}

/// What questions are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    /// Which absent objects are asked for.
    pub negatives: Negatives,
    /// Pictures asked about; POPE has 500.
    pub pictures: usize,
    /// Present objects asked for in each, and as many absent ones; POPE has 3. Pictures with fewer objects are
    /// left out.
    pub objects: usize,
    /// Ask for the first objects of each picture, as the reference does, whose lists are in the order of
    /// annotation. Where the order is that of the alphabet, this would ask for little but apples and bananas,
    /// so `false` draws them.
    pub first_objects: bool,
    /// Seed of all that is drawn. Pictures and present objects depend on nothing else of these options but
    /// their numbers, so one seed asks about the same pictures whatever the absent objects.
    pub seed: u64,
}

impl BuildOptions {
    /// POPE's own numbers, with present objects drawn.
    pub fn new(negatives: Negatives, seed: u64) -> Self {
        Self { negatives, pictures: 500, objects: 3, first_objects: false, seed }
    }
}

/// Ground truth from which the questions cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BuildError {
    /// Too few pictures to choose from.
    #[error(
        "{found} of {given} pictures hold at least {objects} objects, fewer than the {wanted} to \
         ask about; ask about fewer, or for fewer objects"
    )]
    Pictures {
        /// Pictures given.
        given: usize,
        /// Those with enough objects.
        found: usize,
        /// Objects each needs.
        objects: usize,
        /// Pictures to ask about.
        wanted: usize,
    },
    /// Every object there is, is in the picture or was asked for.
    #[error(
        "there is no object left that image '{image}' does not hold and was not asked for; ask for \
         fewer objects, or about more pictures"
    )]
    NothingAbsent {
        /// The picture.
        image: String,
    },
    /// One picture given twice.
    #[error("image '{image}' is given twice; merge its objects")]
    Repeated {
        /// The picture.
        image: String,
    },
}

/// Makes questions as POPE's `utils.py` does: for each sampled picture, in turn a present object and an absent
/// one, the absent one never asked for before. Ties go to what was met first; where no popular or adversarial
/// object is left, a random one is asked for.
///
/// The same input gives the same questions on every machine; the reference's own draws are not repeated.
///
/// # Errors
/// Too few pictures, or a picture that holds nearly everything there is.
pub fn build(pictures: &[Picture], options: &BuildOptions) -> Result<Vec<Question>, BuildError> {
    let mut random = SplitMix(options.seed);
    let sampled = sample(pictures, options, &mut random)?;
    let counts = Counts::of(&sampled);
    let mut questions = Vec::with_capacity(sampled.len() * options.objects * 2);
    for picture in &sampled {
        // Present objects, and what was already asked for.
        let mut taken: HashSet<&str> = picture.objects.iter().copied().collect();
        for &present in &picture.asked {
            let free = |name: &&str| !taken.contains(name);
            let absent = match options.negatives {
                Negatives::Random => None,
                Negatives::Popular => counts.popular.iter().copied().find(free),
                Negatives::Adversarial => counts.together[present].iter().copied().find(free),
            };
            let absent = absent.or_else(|| {
                let left: Vec<&str> = counts.names.iter().copied().filter(free).collect();
                (!left.is_empty()).then(|| left[random.below(left.len())])
            });
            let absent = absent
                .ok_or_else(|| BuildError::NothingAbsent { image: picture.image.to_owned() })?;
            taken.insert(absent);
            for (object, label) in [(present, Label::Yes), (absent, Label::No)] {
                questions.push(question(questions.len() + 1, picture.image, object, label));
            }
        }
    }
    Ok(questions)
}

/// A sampled picture: its objects without repeats, and those that are asked for.
struct Sampled<'a> {
    image: &'a str,
    objects: Vec<&'a str>,
    asked: Vec<&'a str>,
}

/// Draws pictures, and in each the objects to ask for.
fn sample<'a>(
    pictures: &'a [Picture],
    options: &BuildOptions,
    random: &mut SplitMix,
) -> Result<Vec<Sampled<'a>>, BuildError> {
    let mut images = HashSet::new();
    let mut fit = Vec::new();
    for Picture { image, objects } in pictures {
        if !images.insert(image) {
            return Err(BuildError::Repeated { image: image.clone() });
        }
        let mut seen = HashSet::new();
        let objects: Vec<&str> =
            objects.iter().map(String::as_str).filter(|name| seen.insert(*name)).collect();
        if objects.len() >= options.objects {
            fit.push((image, objects));
        }
    }
    if fit.len() < options.pictures {
        let (given, found) = (pictures.len(), fit.len());
        let (objects, wanted) = (options.objects, options.pictures);
        return Err(BuildError::Pictures { given, found, objects, wanted });
    }
    draw_to_front(&mut fit, options.pictures, random);
    fit.truncate(options.pictures);
    let chosen = fit.into_iter().map(|(image, objects)| {
        let mut asked = objects.clone();
        if !options.first_objects {
            draw_to_front(&mut asked, options.objects, random);
        }
        asked.truncate(options.objects);
        Sampled { image, objects, asked }
    });
    Ok(chosen.collect())
}

/// The first steps of a Fisher–Yates shuffle: afterwards the first `count` are a uniform sample in random order.
fn draw_to_front<T>(items: &mut [T], count: usize, random: &mut SplitMix) {
    for front in 0..count.min(items.len()) {
        let other = front + random.below(items.len() - front);
        items.swap(front, other);
    }
}

/// How often objects are there, and with which others.
struct Counts<'a> {
    /// As first met.
    names: Vec<&'a str>,
    /// The most frequent first.
    popular: Vec<&'a str>,
    /// For each object the others, the one most often seen with it first.
    together: HashMap<&'a str, Vec<&'a str>>,
}

impl<'a> Counts<'a> {
    fn of(pictures: &[Sampled<'a>]) -> Self {
        let mut alone = Tally::default();
        let mut together: HashMap<&str, Tally<'_>> = HashMap::new();
        for picture in pictures {
            for &name in &picture.objects {
                alone.add(name);
                let others = together.entry(name).or_default();
                picture.objects.iter().filter(|&&other| other != name).for_each(|o| others.add(o));
            }
        }
        let names = alone.counts.iter().map(|&(name, _)| name).collect();
        let together = together.into_iter().map(|(name, tally)| (name, tally.sorted())).collect();
        Self { names, popular: alone.sorted(), together }
    }
}

/// Counts in the order of first sight.
#[derive(Default)]
struct Tally<'a> {
    places: HashMap<&'a str, usize>,
    counts: Vec<(&'a str, usize)>,
}

impl<'a> Tally<'a> {
    fn add(&mut self, name: &'a str) {
        let place = *self.places.entry(name).or_insert(self.counts.len());
        match self.counts.get_mut(place) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((name, 1)),
        }
    }

    /// The sort is stable, so that ties stay in the order of first sight.
    fn sorted(mut self) -> Vec<&'a str> {
        self.counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        self.counts.into_iter().map(|(name, _)| name).collect()
    }
}

fn question(number: usize, image: &str, object: &str, label: Label) -> Question {
    let vowel = object.chars().next().is_some_and(|first| "aeiouAEIOU".contains(first));
    let article = if vowel { "an" } else { "a" };
    Question {
        question_id: QuestionId(number.to_string()),
        image: ImageId(image.to_owned()),
        text: format!("Is there {article} {object} in the image?"),
        label,
    }
}
