//! Where names are looked for, and what a verifier keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Tensor;
use fisao_models::image::PixelValues;
use fisao_models::parameters::floats;
use fisao_models::text::{DecodedText, TextError, Tokenizer};
use fisao_testkit::tiny::{self, tiny_clip};
use fisao_verifier::mentions::{ObjectVocabulary, TokenMention};
use fisao_verifier::regions::{
    ImageEmbedding, RegionWeights, Regions, ScoreConfig, Window, Wording, cosine, crop_windows,
};
use fisao_verifier::scorer::{Verifier, VerifierError};
use fisao_verifier::templates::Templates;
use proptest::prelude::*;

const EOS: u32 = 38;

/// One id for each letter; nothing for anything else.
struct Letters;

impl Tokenizer for Letters {
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let letters =
            text.bytes().filter(u8::is_ascii_lowercase).map(|byte| u32::from(byte - b'a') + 2);
        let ids: Vec<u32> = letters.collect();
        Ok(if add_special_tokens { [&[37], &*ids, &[EOS]].concat() } else { ids })
    }

    fn decode(&self, _: &[u32]) -> Result<DecodedText, TextError> {
        Ok(DecodedText::default())
    }

    fn token_id(&self, _: &str) -> Option<u32> {
        None
    }
}

fn verifier(prompts: &[&str], score: ScoreConfig) -> Verifier {
    let prompts = prompts.iter().map(ToString::to_string).collect();
    let templates = Templates { prompts, ..Templates::default() };
    Verifier::new(tiny_clip(5), Arc::new(Letters), templates, score)
}

fn pixels(count: usize) -> Tensor<4> {
    tiny::pixels(count, 3)
}

fn with(regions: Regions) -> ScoreConfig {
    ScoreConfig { regions, ..ScoreConfig::default() }
}

/// Names are embedded in batches, several sentences each, and none is taken for another's.
#[test]
fn name_embedding_is_the_mean_over_its_sentences() {
    let prompts = ["a {}", "{}", "see a {}"];
    let mut verifier = verifier(&prompts, with(Regions::Whole));
    let names: Vec<String> = ('a'..='z').map(|letter| format!("do{letter}")).collect();
    verifier.embed_names(names.iter().map(String::as_str)).unwrap();
    let image = verifier.embed_images(pixels(1)).unwrap().swap_remove(0);
    for name in [&names[0], &names[17], &names[25]] {
        let sentences = verifier.templates().render(name);
        let expected = verifier.embed_text(&sentences).unwrap();
        let found = verifier.score(&image, name).unwrap();
        assert!((found - cosine(&image.whole, &expected)).abs() < 1e-6, "{name}");
    }
}

#[test]
fn score_uses_the_selected_regions() {
    let text = [1.0, 0.0];
    let image =
        ImageEmbedding { whole: vec![0.6, 0.8], parts: vec![vec![0.0, 1.0], vec![0.8, 0.6]] };
    let score = |regions, patches| image.score(&text, regions, RegionWeights { patches });
    assert!((score(Regions::Whole, 0.25) - 0.6).abs() < 1e-7);
    assert!((score(Regions::Patches, 0.25) - 0.7).abs() < 1e-7);
    assert!((score(Regions::Crops, 0.25) - 0.8).abs() < 1e-7);
    assert!((score(Regions::Auto, 0.0) - 0.6).abs() < 1e-7);
    assert!((score(Regions::Auto, 0.25) - 0.65).abs() < 1e-7);
}

#[test]
fn patches_are_embedded_unless_their_weight_is_set_to_zero() {
    let mut verifier = verifier(&["{}"], with(Regions::Auto));
    verifier.embed_names(["dog"]).unwrap();
    let embed = |verifier: &Verifier| verifier.embed_images(pixels(1)).unwrap().swap_remove(0);
    let image = embed(&verifier);
    assert!(!image.parts.is_empty(), "weights are still to be found");
    let text = &verifier.embeddings()["dog"];
    let (whole, auto) = (cosine(&image.whole, text), verifier.score(&image, "dog").unwrap());
    assert!((auto - whole).abs() < 1e-12);
    verifier.set_weights(RegionWeights { patches: 0.5 });
    assert_eq!(embed(&verifier), image);
    let halves =
        image.score(&verifier.embeddings()["dog"], Regions::Patches, RegionWeights::default());
    assert!((verifier.score(&image, "dog").unwrap() - halves).abs() < 1e-12);
    verifier.set_weights(RegionWeights::default());
    assert!(embed(&verifier).parts.is_empty());
}

#[test]
fn image_crops_and_patches_are_assigned_to_their_image() {
    let verifier = verifier(&["{}"], with(Regions::Crops));
    assert_eq!(verifier.score_config().views(), 5);
    let embedded = verifier.embed_images(pixels(10)).unwrap();
    assert_eq!(embedded.iter().map(|image| image.parts.len()).collect::<Vec<_>>(), [4, 4]);
    let whole = verifier.with_settings(verifier.templates().clone(), with(Regions::Whole));
    let alone = whole.embed_images(pixels(10)).unwrap();
    assert_eq!(embedded[1].whole, alone[5].whole);
    assert_eq!(embedded[1].parts[3], alone[9].whole);

    let patches = whole.with_settings(whole.templates().clone(), with(Regions::Patches));
    let seen = patches.embed_images(pixels(2)).unwrap();
    assert_eq!(seen[1].parts.len(), 4);
    let maps = {
        let mut patches = patches.clone();
        patches.embed_names(["dog"]).unwrap();
        let size = (tiny::IMAGE_SIZE as u32, tiny::IMAGE_SIZE as u32);
        let values = floats(&pixels(1));
        let image = PixelValues { values, tile_size: size, original_size: size };
        patches.heat_maps(&image, &["dog"]).unwrap().unwrap()
    };
    assert_eq!((maps[0].rows, maps[0].columns, maps[0].values.len()), (2, 2, 4));
    let (low, high) = maps[0].range();
    assert!(low < high && (-1.0..=1.0).contains(&low) && (-1.0..=1.0).contains(&high));
}

/// Dogs with a synonym, cats, cars and cows.
fn animals_and_cars() -> ObjectVocabulary {
    let names = [("dog", &["puppy"][..]), ("cat", &[]), ("car", &[]), ("cow", &[])];
    let entries = names
        .map(|(name, forms)| (name.to_owned(), forms.iter().map(ToString::to_string).collect()));
    ObjectVocabulary::new(entries.to_vec()).unwrap()
}

/// Unit embeddings that say how near names are: puppy, cat, cow, car, from the nearest to a dog on.
fn teach_nearness(verifier: &mut Verifier) {
    let dim = verifier.contrastive().unwrap().dim();
    let turned = |(name, angle): (&str, f32)| {
        let mut text = vec![0.0; dim];
        (text[0], text[1]) = (angle.cos(), angle.sin());
        (name.to_owned(), text)
    };
    let names = [("dog", 0.0), ("puppy", 0.1), ("cat", 0.2), ("cow", 0.5), ("car", 1.5)];
    verifier.insert_embeddings(names.map(turned));
}

#[test]
fn names_are_contrasted_with_the_nearest_of_other_objects() {
    let contrasted = ScoreConfig { contrast: 2, ..with(Regions::Whole) };
    let mut verifier = verifier(&["{}"], contrasted);
    teach_nearness(&mut verifier);
    let image = verifier.embed_images(pixels(1)).unwrap().swap_remove(0);
    let plain = |name: &str| cosine(&image.whole, &verifier.embeddings()[name]);
    let [dog, cat, cow] = ["dog", "cat", "cow"].map(plain);
    // Nothing to contrast with is known yet.
    assert!((verifier.score(&image, "dog").unwrap() - dog).abs() < 1e-12);
    verifier.learn(&animals_and_cars()).unwrap();
    assert_eq!(verifier.alternatives("dog"), ["cat", "cow"], "a puppy is a dog");
    assert_eq!(verifier.alternatives("cat"), ["puppy", "cow"], "the nearest name of each object");
    let expected = dog - 0.5 * f64::midpoint(cat, cow);
    assert!((verifier.score(&image, "dog").unwrap() - expected).abs() < 1e-12);
    // A name that nobody listed is contrasted, too.
    verifier.embed_names(["unicorn"]).unwrap();
    assert_eq!(verifier.alternatives("unicorn").len(), 2);
    let kept = verifier.with_settings(verifier.templates().clone(), with(Regions::Whole));
    assert!(kept.alternatives("dog").is_empty());
}

#[test]
fn phrases_are_scored_as_written_and_contrasted_in_the_same_words() {
    let score = ScoreConfig { wording: Wording::Phrase, contrast: 1, ..with(Regions::Whole) };
    let mut verifier = verifier(&["a {}"], score);
    verifier.learn(&animals_and_cars()).unwrap();
    let text = "A small brown dog and a cat.";
    let descriptions = verifier.descriptions(text, &[14..17, 24..27]);
    assert_eq!(descriptions, [Some("small brown {}".to_owned()), None]);
    let mention = TokenMention {
        category: 0,
        form: "dog".to_owned(),
        text: "dog".to_owned(),
        span: 14..17,
        tokens: 3..4,
        negated: false,
        description: descriptions[0].clone(),
    };
    verifier.embed_described("dog", descriptions[0].as_deref()).unwrap();
    let image = verifier.embed_images(pixels(1)).unwrap().swap_remove(0);
    let other = verifier.alternatives("dog")[0].clone();
    let embed = |name: &str| verifier.embed_text(&[format!("a small brown {name}")]).unwrap();
    let fits = |name: &str| cosine(&image.whole, &embed(name));
    let expected = fits("dog") - 0.5 * fits(&other);
    assert!((verifier.score_mention(&image, &mention).unwrap() - expected).abs() < 1e-6);
    assert!((verifier.score(&image, "dog").unwrap() - expected).abs() > 1e-4);

    // Describing has a centre of its own, besides the name's.
    let names = ["dog", "puppy", "cat", "car", "cow"].map(|name| (name.to_owned(), 0.25));
    verifier.set_centres(Some(BTreeMap::from(names)));
    verifier.set_described(0.125);
    let found = verifier.score_mention(&image, &mention).unwrap();
    assert!((found - (expected - 0.375)).abs() < 1e-6);

    // Names alone are scored unless phrases are asked for.
    let named = ScoreConfig { wording: Wording::Name, ..score };
    let mut verifier = verifier.with_settings(verifier.templates().clone(), named);
    verifier.learn(&animals_and_cars()).unwrap();
    assert_eq!(verifier.descriptions(text, &[14..17, 24..27]), [None, None]);
    let bare = verifier.score(&image, "dog").unwrap();
    assert_eq!(verifier.score_mention(&image, &mention).unwrap().to_bits(), bare.to_bits());
    let many = ScoreConfig { contrast: 17, ..score };
    let error = many.validate().unwrap_err().to_string();
    assert_eq!(error, "score.contrast is 17; it must be from 0 to 16");
}

#[test]
fn centres_are_subtracted_and_required_for_every_name() {
    let mut verifier = verifier(&["{}"], ScoreConfig::default());
    verifier.embed_names(["dog"]).unwrap();
    let image = verifier.embed_images(pixels(1)).unwrap().swap_remove(0);
    let raw = verifier.score(&image, "dog").unwrap();
    verifier.set_centres(Some(BTreeMap::from([("dog".to_owned(), 0.25)])));
    assert!((verifier.score(&image, "dog").unwrap() - (raw - 0.25)).abs() < 1e-12);
    let error = verifier.embed_names(["cat"]).unwrap_err();
    assert!(error.to_string().contains("knows nothing about the scores of 'cat'"), "{error}");
    // Known or not, a name without a centre is refused before it is scored.
    verifier.insert_embeddings([("cat".to_owned(), vec![0.5; 10])]);
    assert!(verifier.embed_names(["cat"]).is_err());
    verifier.set_centres(None);
    assert!((verifier.score(&image, "dog").unwrap() - raw).abs() < 1e-12);
}

/// A tower that the policy tuned is used with the verifier's own text side.
#[test]
fn adopted_tower_is_the_models_own_and_leaves_the_text_side() {
    let policy = tiny::tiny_llava(7);
    let tower = policy.vision_tower().unwrap();
    let mut adopted = verifier(&["{}"], with(Regions::Whole));
    let published = adopted.clone();
    assert!(matches!(
        adopted.share_tower(tower),
        Err(VerifierError::EncoderWeightsMismatch { .. })
    ));
    adopted.adopt_tower(&policy);
    assert!(adopted.shares_tower());
    adopted.check_own_encoder(tower).unwrap();
    let text = |verifier: &Verifier| verifier.embed_text(&["dog".to_owned()]).unwrap();
    assert_eq!(text(&adopted), text(&published));
    let own = adopted.embed_images(pixels(2)).unwrap();
    let (_, output) = policy.image_features_and_vision_output(pixels(2)).unwrap();
    let continued = adopted.embed_vision_output(output).unwrap();
    let before = published.embed_images(pixels(2)).unwrap();
    for at in 0..2 {
        assert!((own[at].mean_cosine(&continued[at]) - 1.0).abs() < 1e-5);
        assert!(own[at].mean_cosine(&before[at]) < 0.99);
        assert!((own[at].mean_cosine(&own[at]) - 1.0).abs() < 1e-12);
    }
}

/// No signal of the verifier sidesteps the noise, or a weak verifier would be a perfect one in disguise.
#[test]
fn noise_is_added_to_name_and_sentence_scores() {
    let exact = ScoreConfig { regions: Regions::Whole, centred: false, ..ScoreConfig::default() };
    let score = |noise: f64| {
        let mut verifier = verifier(&["{}"], ScoreConfig { noise, ..exact });
        verifier.embed_names(["dog"]).unwrap();
        let images = verifier.embed_images(pixels(2)).unwrap();
        let scores = images.iter().map(|image| {
            let sentence = |text| verifier.score_sentence(image, text).unwrap();
            [verifier.score(image, "dog").unwrap(), sentence("a dog"), sentence("a cat")]
        });
        scores.collect::<Vec<_>>().concat()
    };
    let (exact, noisy) = (score(0.0), score(0.5));
    assert_eq!(noisy, score(0.5), "an image and a text have one noise");
    let added: Vec<f64> = noisy.iter().zip(&exact).map(|(noisy, exact)| noisy - exact).collect();
    assert!(added.iter().all(|noise| noise.abs() > 1e-6 && noise.abs() < 2.5), "{added:?}");
    let twice =
        score(1.0).iter().zip(&exact).map(|(noisy, exact)| noisy - exact).collect::<Vec<_>>();
    for (one, two) in added.iter().zip(&twice) {
        assert!((two - 2.0 * one).abs() < 1e-6, "{added:?} {twice:?}");
    }
    for (at, noise) in added.iter().enumerate() {
        assert!(
            !added[..at].contains(noise),
            "images and texts have noises of their own: {added:?}"
        );
    }
}

#[test]
fn unscorable_names_images_and_settings_are_rejected() {
    let mut verifier = verifier(&["a {}"], ScoreConfig::default());
    let error = verifier.embed_names(["dog", "四"]).unwrap_err();
    assert!(matches!(&error, VerifierError::Unspelled { name } if name == "四"), "{error}");
    assert!(error.hint().unwrap().contains("object vocabulary"));
    let damaged = pixels(2).mul_scalar(f32::NAN);
    let error = verifier.embed_images(damaged).unwrap_err();
    assert!(error.to_string().contains("image 0 is not finite"), "{error}");
    let crops = ScoreConfig { crops: 1, ..with(Regions::Crops) };
    assert!(crops.validate().unwrap_err().to_string().contains("from 2 to 8"));
}

#[test]
fn inserted_name_embeddings_are_not_recomputed() {
    let mut first = verifier(&["{}"], ScoreConfig::default());
    first.embed_names(["dog", "cat"]).unwrap();
    let mut second = verifier(&["{}"], ScoreConfig::default());
    second.insert_embeddings(
        first.embeddings().iter().map(|(name, text)| (name.clone(), text.clone())),
    );
    assert_eq!(second.embeddings(), first.embeddings());
    // A known name is not embedded again.
    second.insert_embeddings([("dog".to_owned(), vec![0.5; 10])]);
    second.embed_names(["dog"]).unwrap();
    assert_eq!(second.embeddings()["dog"], vec![0.5; 10]);
}

proptest! {
    /// Windows lie in the image, cover all of it, and are more than one.
    #[test]
    fn crop_windows_cover_the_image(width in 1_u32..400, height in 1_u32..400, per_side in 2_u32..6) {
        let windows = crop_windows((width, height), per_side);
        prop_assert_eq!(windows.len(), (per_side * per_side) as usize);
        let mut covered = vec![false; (width * height) as usize];
        for Window { x, y, width: w, height: h } in windows {
            prop_assert!(w >= 1 && h >= 1 && x + w <= width && y + h <= height);
            for row in y..y + h {
                covered[(row * width + x) as usize..][..w as usize].fill(true);
            }
        }
        if width > per_side && height > per_side {
            prop_assert!(covered.iter().all(|is| *is));
        }
    }
}
