//! One image tower for two: the policy's states are where the verifier goes on.

use burn::tensor::Device;
use fisao_models::contrastive::ContrastiveModel;
use fisao_models::parameters::floats;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::vision_language::llava::with_vision_tower;
use fisao_models::weights::RandomWeights;
use fisao_testkit::compare::{assert_close, largest_difference};
use fisao_testkit::tiny::{llava_config, pixels, tiny_clip, vision_config};
use fisao_testkit::tolerance::F32_FORWARD;

/// A LLaVA with the tower of a CLIP.
fn pair() -> (VisionLanguageModel, ContrastiveModel) {
    let clip = tiny_clip(1);
    let (tower, mut weights) = (clip.vision.clone(), RandomWeights::new(2));
    let llava = with_vision_tower(llava_config(), tower, &mut weights, &Device::flex())
        .expect("random weights fit every shape");
    (llava, clip.into())
}

/// More images than go through the tower at once, so that parts have to be put together in order.
#[test]
fn shared_vision_tower_equals_separate_towers() {
    let (llava, clip) = pair();
    let pixels = pixels(37, 3);
    let (features, vision_output) = llava.image_features_and_vision_output(pixels.clone()).unwrap();
    assert!(
        vision_output.depth < vision_config().num_hidden_layers,
        "something is left to be done"
    );
    let alone = llava.image_features(pixels.clone()).unwrap();
    assert_eq!(floats(features.tokens()), floats(alone.tokens()));
    let embeddings = floats(&clip.embed_images(pixels.clone()).unwrap());
    assert_close(
        "embeddings",
        &floats(&clip.embed_vision_output(vision_output).unwrap()),
        &embeddings,
        F32_FORWARD,
    );

    // A tower with other weights ends elsewhere.
    let other: ContrastiveModel = tiny_clip(9).into();
    let (_, vision_output) = llava.image_features_and_vision_output(pixels.clone()).unwrap();
    assert!(
        largest_difference(
            &floats(&other.embed_vision_output(vision_output).unwrap()),
            &embeddings
        ) > 1e-2
    );
}

#[test]
fn patch_embeddings_have_unit_norm_beside_the_image_embedding() {
    let (_, clip) = pair();
    let pixels = pixels(3, 3);
    let (images, patches) =
        clip.embed_patches(clip.vision().encode(pixels.clone()).unwrap()).unwrap();
    assert_close(
        "images",
        &floats(&images),
        &floats(&clip.embed_images(pixels).unwrap()),
        F32_FORWARD,
    );
    assert_eq!(patches.dims(), [3, vision_config().patches(), clip.dim()]);
    for patch in floats(&patches).chunks_exact(clip.dim()) {
        let length = patch.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < F32_FORWARD, "length {length}");
    }
}
