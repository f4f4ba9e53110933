//! Scores by what a model's own decoder reads in an image.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fisao_models::image::PixelValues;
use fisao_models::lora::LowRank;
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::text::{DecodedText, TextError, Tokenizer};
use fisao_models::vision_language::{ImageBatch, VisionLanguageModel};
use fisao_testkit::tiny;
use fisao_verifier::regions::{ImageEmbedding, ScoreConfig};
use fisao_verifier::scorer::{DecoderReader, HeatMapUnit, Verifier, VerifierError};

/// Absolute tolerance of log-probabilities in f32.
const TOLERANCE: f64 = 1e-5;

/// The first letter of a word with the space before it is one of ten tokens, every other letter one of seven.
struct Spelling;

impl Tokenizer for Spelling {
    fn encode(&self, text: &str, _: bool) -> Result<Vec<u32>, TextError> {
        let mut ids = Vec::new();
        for word in text.split(' ') {
            let letters = word.bytes().filter(u8::is_ascii_lowercase);
            ids.extend(letters.enumerate().map(|(at, byte)| {
                let letter = u32::from(byte - b'a');
                if at == 0 { 4 + letter % 10 } else { 20 + letter % 7 }
            }));
        }
        Ok(ids)
    }

    fn decode(&self, ids: &[u32]) -> Result<DecodedText, TextError> {
        let mut decoded = DecodedText::default();
        for &id in ids {
            let start = decoded.text.len();
            if id < 20 && start > 0 {
                decoded.text.push(' ');
            }
            decoded.text.push(char::from(b'a' + (id - if id < 20 { 4 } else { 20 }) as u8));
            decoded.spans.push(start..decoded.text.len());
        }
        Ok(decoded)
    }

    fn token_id(&self, _: &str) -> Option<u32> {
        None
    }
}

fn verifier(model: &VisionLanguageModel, score: ScoreConfig) -> Verifier {
    let prompt = vec![1, model.tokens().image, 7];
    Verifier::of_decoder(DecoderReader::new(model, Arc::new(Spelling), prompt, Vec::new()), score)
}

fn uncentred() -> ScoreConfig {
    ScoreConfig { centred: false, ..ScoreConfig::default() }
}

fn embeddings(verifier: &Verifier, seed: u64) -> Vec<ImageEmbedding> {
    verifier.embed_images(tiny::pixels(2, seed)).unwrap()
}

#[test]
fn score_is_the_reading_of_the_first_token_in_a_sentence() {
    let model = tiny::tiny_llava(5);
    let mut verifier = verifier(&model, uncentred());
    verifier.embed_names(["dog", "cat"]).unwrap();
    let images = embeddings(&verifier, 6);
    let features = model.image_features(tiny::pixels(2, 6)).unwrap();
    let prompt = tiny::prompt(&[7]);
    for (image, embedding) in images.iter().enumerate() {
        let example = Example { prompt: &prompt, image, response: &[] };
        // " d" and " c"; one of two layers is the second half.
        let expected = model.read_images(&[example], &features, &[7, 6], 1).remove(0);
        for (name, expected) in ["dog", "cat"].into_iter().zip(expected) {
            assert!(
                (verifier.score(embedding, name).unwrap() - expected).abs() < TOLERANCE,
                "{name}"
            );
        }
    }
    assert!(
        (verifier.score(&images[0], "dog").unwrap() - verifier.score(&images[1], "dog").unwrap())
            .abs()
            > 1e-4
    );
}

#[test]
fn fraction_of_layers_decides_which_are_read() {
    let model = tiny::tiny_llava(5);
    let read = |reading_layers| {
        let verifier = verifier(&model, ScoreConfig { reading_layers, ..uncentred() });
        embeddings(&verifier, 6).swap_remove(0).whole
    };
    let (last, half, all) = (read(0.1), read(0.5), read(1.0));
    assert_eq!(last, half);
    assert!(last.iter().zip(&all).all(|(last, all)| last <= all));
    assert_ne!(last, all);
}

/// A verifier is never trained: whatever the policy learns, it reads the model as it was.
#[test]
fn adapter_on_the_decoder_does_not_reach_the_reading() {
    let mut model = tiny::tiny_llava(5);
    let before = embeddings(&verifier(&model, uncentred()), 6);
    model.visit_linears_mut(&mut |name, linear| {
        if name.starts_with("language_model") {
            let [inputs, outputs] = linear.size();
            let ones = |shape| Tensor::ones(shape, &Device::flex());
            let (a, b) = (ones([1, inputs]), ones([outputs, 1]));
            linear.adapter = Some(LowRank { a, b, scale: 1.0 });
        }
    });
    let features = model.image_features(tiny::pixels(2, 6)).unwrap();
    let sizes = [(8, 8); 2];
    let verifier = verifier(&model, uncentred());
    assert!(verifier.reads_features_for(&[]) && !verifier.reads_features_for(&[3]));
    assert_eq!(embeddings(&verifier, 6), before);
    assert_eq!(verifier.embed_features(&features, &sizes).unwrap(), before);
}

#[test]
fn image_features_of_an_adapted_encoder_are_not_read() {
    let mut model = tiny::tiny_llava(5);
    model.visit_linears_mut(&mut |name, linear| {
        if name.starts_with("multi_modal_projector") {
            let [inputs, outputs] = linear.size();
            let ones = |shape| Tensor::ones(shape, &Device::flex());
            let (a, b) = (ones([1, inputs]), ones([outputs, 1]));
            linear.adapter = Some(LowRank { a, b, scale: 1.0 });
        }
    });
    assert!(model.has_adapted_image_encoder());
    let verifier = verifier(&model, uncentred());
    assert!(!verifier.reads_features_for(&[]));
    let plain = self::verifier(&tiny::tiny_llava(5), uncentred());
    assert_eq!(embeddings(&verifier, 6), embeddings(&plain, 6));
}

#[test]
fn names_with_the_same_first_token_are_reported() {
    let mut verifier = verifier(&tiny::tiny_llava(5), uncentred());
    verifier.embed_names(["dog", "cat", "deer", "car"]).unwrap();
    assert_eq!(verifier.names_of_one_token(), [["car", "cat"], ["deer", "dog"]]);
    let error = verifier.embed_names(["四"]).unwrap_err();
    assert!(matches!(&error, VerifierError::Unspelled { name } if name == "四"), "{error}");
}

#[test]
fn centres_of_readings_are_subtracted() {
    let mut verifier = verifier(&tiny::tiny_llava(5), ScoreConfig::default());
    verifier.embed_names(["dog"]).unwrap();
    let image = embeddings(&verifier, 6).swap_remove(0);
    let raw = verifier.score(&image, "dog").unwrap();
    verifier.set_centres(Some(BTreeMap::from([("dog".to_owned(), -2.0)])));
    assert!((verifier.score(&image, "dog").unwrap() - (raw + 2.0)).abs() < 1e-12);
    assert!(verifier.embed_names(["cat"]).unwrap_err().to_string().contains("'cat'"));
}

#[test]
fn heat_map_of_a_reading_is_the_grid_of_image_tokens() {
    let model = tiny::tiny_llava(5);
    let mut verifier = verifier(&model, uncentred());
    verifier.embed_names(["dog", "cat"]).unwrap();
    let size = (tiny::IMAGE_SIZE as u32, tiny::IMAGE_SIZE as u32);
    let values = floats(&tiny::pixels(1, 6));
    let image = PixelValues { values, tile_size: size, original_size: size };
    let maps = verifier.heat_maps(&image, &["dog", "cat"]).unwrap().expect("patches have places");
    let embedding = verifier.embed_views(&[[image]]).unwrap().swap_remove(0);
    for (map, name) in maps.iter().zip(["dog", "cat"]) {
        assert_eq!((map.unit, map.rows, map.columns), (HeatMapUnit::Probability, 2, 2));
        assert_eq!(map.values.len(), 4);
        let score = verifier.score(&embedding, name).unwrap();
        assert!((map.range().1.ln() - score).abs() < TOLERANCE, "{name}: {map:?} {score}");
    }
}

#[test]
fn queries_of_a_q_former_have_no_place_in_the_image() {
    let model = tiny::tiny_instructblip(3);
    let prompt = vec![model.tokens().image, 1, 7];
    let reader = DecoderReader::new(&model, Arc::new(Spelling), prompt, vec![5, 6]);
    let mut verifier = Verifier::of_decoder(reader, uncentred());
    verifier.embed_names(["dog"]).unwrap();
    let size = model.config().family().vision().unwrap().image_size;
    let pixels: Tensor<4> = tiny::pixels(1, 6);
    assert_eq!(pixels.dims()[3], size);
    let image = PixelValues {
        values: floats(&pixels),
        tile_size: (size as u32, size as u32),
        original_size: (size as u32, size as u32),
    };
    assert!(verifier.heat_maps(&image, &["dog"]).unwrap().is_none());
    // Image tokens depend on the instruction: those for another one are not read.
    assert!(verifier.reads_features_for(&[5, 6]) && !verifier.reads_features_for(&[]));
    let images = || ImageBatch::from(pixels.clone());
    let own = model.image_features(images().with_instructions(vec![vec![5, 6]])).unwrap();
    let read = verifier.embed_features(&own, &[(size as u32, size as u32)]).unwrap();
    assert_eq!(read, verifier.embed_images(images()).unwrap());
}

#[test]
fn a_decoder_has_no_text_embeddings() {
    let verifier = verifier(&tiny::tiny_llava(5), uncentred());
    let error = verifier.embed_text(&["a dog".to_owned()]).unwrap_err();
    assert!(matches!(error, VerifierError::NoTextEncoder), "{error}");
    let images = embeddings(&verifier, 6);
    let both = verifier.score_sentence(&images[0], "dog cat").unwrap();
    let of = |ids: &[usize]| ids.iter().map(|&id| f64::from(images[0].whole[id])).sum::<f64>();
    let ids = Spelling.encode("dog cat", false).unwrap();
    let ids: Vec<usize> = ids.into_iter().map(|id| id as usize).collect();
    assert!((both - of(&ids) / ids.len() as f64).abs() < 1e-12);
}
