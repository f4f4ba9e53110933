//! New questions from the ground truth of any images.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Label, Question};
use crate::answers::QuestionId;
use crate::image_id::ImageId;
use crate::statistics::SplitMix;

/// An image and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageObjects {
    /// Its id.
    pub image: String,
    /// Names of the objects in it. Their order counts: see [`BuildOptions::first_objects`].
    pub objects: Vec<String>,
}

impl ImageObjects {
    /// Images from sets of objects, in the order of their ids and of the names.
    pub fn all(truth: &BTreeMap<String, BTreeSet<String>>) -> Vec<Self> {
        let entry = |(image, objects): (&String, &BTreeSet<String>)| Self {
            image: image.clone(),
            objects: objects.iter().cloned().collect(),
        };
        truth.iter().map(entry).collect()
    }
}

/// Which absent object is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negatives {
    /// Any, all with the same chance.
    Random,
    /// The one that most of the sampled images hold.
    Popular,
    /// The one that is most often seen together with the object asked for just before.
    Adversarial,
}

/// What questions are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    /// Which absent objects are asked for.
    pub negatives: Negatives,
    /// Images asked about; POPE has 500.
    pub images: usize,
    /// Present objects asked for in each, and as many absent ones; POPE has 3. Images with fewer objects are
    /// left out.
    pub objects: usize,
    /// Ask for the first objects of each image, as the reference does, whose lists are in the order of
    /// annotation. Where the order is that of the alphabet, this would ask for little but apples and bananas,
    /// so `false` draws them.
    pub first_objects: bool,
    /// Seed of all that is drawn. Images and present objects depend on nothing else of these options but
    /// their numbers, so one seed asks about the same images whatever the absent objects.
    pub seed: u64,
}

impl BuildOptions {
    /// POPE's own numbers, with present objects drawn.
    pub fn new(negatives: Negatives, seed: u64) -> Self {
        Self { negatives, images: 500, objects: 3, first_objects: false, seed }
    }
}

/// Ground truth from which the questions cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// Too few images to choose from.
    #[error(
        "{found} of {given} images hold at least {objects} objects, fewer than the {wanted} to \
         ask about; ask about fewer, or for fewer objects"
    )]
    TooFewImages {
        /// Images given.
        given: usize,
        /// Those with enough objects.
        found: usize,
        /// Objects each needs.
        objects: usize,
        /// Images to ask about.
        wanted: usize,
    },
    /// Every object there is, is in the image or was asked for.
    #[error(
        "there is no object left that image '{image}' does not hold and was not asked for; ask for \
         fewer objects, or about more images"
    )]
    NothingAbsent {
        /// The image.
        image: String,
    },
    /// One image given twice.
    #[error("image '{image}' is given twice; merge its objects")]
    Repeated {
        /// The image.
        image: String,
    },
}

/// Makes questions as POPE's `utils.py` does: for each sampled image, in turn a present object and an absent
/// one, the absent one never asked for before. Ties go to what was met first; where no popular or adversarial
/// object is left, a random one is asked for.
///
/// The same input gives the same questions on every machine; the reference's own draws are not repeated.
///
/// # Errors
/// Too few images, or an image that holds nearly everything there is.
pub fn build(images: &[ImageObjects], options: &BuildOptions) -> Result<Vec<Question>, BuildError> {
    let mut random = SplitMix(options.seed);
    let sampled = sample(images, options, &mut random)?;
    let counts = Counts::of(&sampled);
    let mut questions = Vec::with_capacity(sampled.len() * options.objects * 2);
    for entry in &sampled {
        // Present objects, and what was already asked for.
        let mut taken: HashSet<&str> = entry.objects.iter().copied().collect();
        for &present in &entry.asked {
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
                .ok_or_else(|| BuildError::NothingAbsent { image: entry.image.to_owned() })?;
            taken.insert(absent);
            for (object, label) in [(present, Label::Yes), (absent, Label::No)] {
                questions.push(question(questions.len() + 1, entry.image, object, label));
            }
        }
    }
    Ok(questions)
}

/// A sampled image: its objects without repeats, and those that are asked for.
struct Sampled<'a> {
    image: &'a str,
    objects: Vec<&'a str>,
    asked: Vec<&'a str>,
}

/// Draws images, and in each the objects to ask for.
fn sample<'a>(
    images: &'a [ImageObjects],
    options: &BuildOptions,
    random: &mut SplitMix,
) -> Result<Vec<Sampled<'a>>, BuildError> {
    let mut seen_images = HashSet::new();
    let mut fit = Vec::new();
    for ImageObjects { image, objects } in images {
        if !seen_images.insert(image) {
            return Err(BuildError::Repeated { image: image.clone() });
        }
        let mut seen = HashSet::new();
        let objects: Vec<&str> =
            objects.iter().map(String::as_str).filter(|name| seen.insert(*name)).collect();
        if objects.len() >= options.objects {
            fit.push((image, objects));
        }
    }
    if fit.len() < options.images {
        let (given, found) = (images.len(), fit.len());
        let (objects, wanted) = (options.objects, options.images);
        return Err(BuildError::TooFewImages { given, found, objects, wanted });
    }
    draw_to_front(&mut fit, options.images, random);
    fit.truncate(options.images);
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
    fn of(images: &[Sampled<'a>]) -> Self {
        let mut alone = Tally::default();
        let mut together: HashMap<&str, Tally<'_>> = HashMap::new();
        for entry in images {
            for &name in &entry.objects {
                alone.add(name);
                let others = together.entry(name).or_default();
                entry.objects.iter().filter(|&&other| other != name).for_each(|o| others.add(o));
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
