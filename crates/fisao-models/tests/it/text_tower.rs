//! Which state stands for a text, and how texts are padded and cut.

use fisao_models::clip::Clip;
use fisao_models::parameters::floats;
use fisao_testkit::compare::{assert_close, largest_difference};
use fisao_testkit::tiny::tiny_clip;
use fisao_testkit::tolerance::F32_FORWARD;

/// The small model's first and last token.
const BOS: u32 = 37;
const EOS: u32 = 38;
/// The small model's longest text.
const LONGEST: usize = 12;

fn embed(clip: &Clip, text: &[u32]) -> Vec<f32> {
    floats(&clip.embed_text(&[text.to_vec()]))
}

#[test]
fn text_embeddings_do_not_depend_on_the_batch() {
    let clip = tiny_clip(1);
    let texts = [vec![BOS, 4, EOS], vec![BOS, 9, 20, 33, 2, 6, EOS], vec![BOS, EOS]];
    let alone: Vec<f32> = texts.iter().flat_map(|text| embed(&clip, text)).collect();
    assert_close("texts", &floats(&clip.embed_text(&texts)), &alone, F32_FORWARD);
}

#[test]
fn tokens_after_the_first_end_token_are_ignored() {
    let clip = tiny_clip(1);
    let text = embed(&clip, &[BOS, 4, 7, EOS]);
    let padded = embed(&clip, &[BOS, 4, 7, EOS, EOS, EOS, 39]);
    assert_close("padded text", &padded, &text, F32_FORWARD);
}

#[test]
fn long_text_is_truncated_and_keeps_its_end_token() {
    let clip = tiny_clip(1);
    let mut long = vec![BOS];
    long.extend(3..30);
    long.push(EOS);
    let cut = [&long[..LONGEST - 1], &[EOS]].concat();
    assert_eq!(embed(&clip, &long), embed(&clip, &cut));
    let text: Vec<u32> = long[..LONGEST - 1].to_vec();
    assert!(largest_difference(&embed(&clip, &long), &embed(&clip, &text)) > 1e-3);
}

#[test]
fn embeddings_have_unit_norm() {
    let clip = tiny_clip(2);
    let text = embed(&clip, &[BOS, 4, 7, EOS]);
    let image = floats(&clip.embed_images(fisao_testkit::tiny::pixels(1, 3)).unwrap());
    for embedding in [text, image] {
        let length = embedding.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < F32_FORWARD, "length {length}");
    }
}

#[test]
fn image_embeddings_do_not_depend_on_the_batch() {
    let clip = tiny_clip(2);
    let pixels = fisao_testkit::tiny::pixels(3, 4);
    let together = floats(&clip.embed_images(pixels.clone()).unwrap());
    let alone: Vec<f32> = (0..3)
        .flat_map(|at| floats(&clip.embed_images(pixels.clone().narrow(0, at, 1)).unwrap()))
        .collect();
    assert_close("images", &together, &alone, F32_FORWARD);
}
