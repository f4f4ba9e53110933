//! What becomes of images whose card fails: an error, whichever part of the encoder it is that the driver fails in.

use burn::tensor::Tensor;
use fisao_cuda::{CudaError, Failing, Storage};
use fisao_models::contrastive::ContrastiveModel;
use fisao_models::parameters::floats;
use fisao_models::vision_language::{ImageBatch, VisionLanguageModel};
use fisao_testkit::tiny::{
    pixels, tiny_blip2, tiny_clip, tiny_instructblip, tiny_llava, tiny_siglip,
};

use crate::card::host;

/// Runs `work` on models whose drivers fail after 0, 1, 2, … results, until one does not: how often it failed. `copy` gives a driver to a
/// model.
fn failures<M: Clone>(
    model: &M,
    copy: impl Fn(&mut M, Box<Failing<fisao_cuda::Host>>),
    work: impl Fn(&M) -> Result<Vec<f32>, CudaError>,
) -> Option<usize> {
    for downloads in 0.. {
        let driver = Failing::after(downloads, host("failing images", Storage::F32)?);
        let mut on_card = model.clone();
        copy(&mut on_card, Box::new(driver));
        match work(&on_card) {
            Ok(found) => {
                assert!(found.iter().all(|x| x.is_finite()));
                return Some(downloads);
            }
            Err(CudaError::Call { call, code }) => {
                // The call that failed, not one of those that gave memory back.
                assert_eq!((call, code.as_str()), ("cuMemcpyDtoH", "CUDA_ERROR_ILLEGAL_ADDRESS"));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(work(&on_card).is_err(), "a card that failed does not work again");
    }
    None
}

fn copy_encoder(model: &mut VisionLanguageModel, driver: Box<Failing<fisao_cuda::Host>>) {
    assert!(model.use_card_for_images(driver).expect("a copy").is_empty());
}

fn copy_verifier(model: &mut ContrastiveModel, driver: Box<Failing<fisao_cuda::Host>>) {
    model.use_card(driver, None).expect("a copy");
}

#[test]
fn driver_that_fails_while_images_are_encoded_is_an_error() {
    let tokens = |model: &VisionLanguageModel, images: ImageBatch| {
        Ok(floats(model.image_features(images)?.tokens()))
    };
    let llava = failures(&tiny_llava(3), copy_encoder, |model| {
        tokens(model, ImageBatch::from(pixels(3, 4)))
    });
    let Some(llava) = llava else { return };
    assert_eq!(llava, 2, "the tower, the projector");
    let instructblip = failures(&tiny_instructblip(3), copy_encoder, |model| {
        let instructions = vec![vec![3, 4, 5], vec![6], vec![9, 8, 7]];
        tokens(model, ImageBatch::from(pixels(3, 4)).with_instructions(instructions))
    });
    // Texts of one length are read together.
    assert_eq!(instructblip, Some(5), "the tower; Q-Former and projection, for each length");
}

#[test]
fn driver_that_fails_while_a_verifier_embeds_is_an_error() {
    let clip = failures(&ContrastiveModel::from(tiny_clip(3)), copy_verifier, |model| {
        Ok(floats(&model.embed_images(pixels(3, 4))?))
    });
    let Some(clip) = clip else { return };
    assert_eq!(clip, 1, "the tower");
    let blip2 = ContrastiveModel::from(tiny_blip2(3));
    let images = failures(&blip2, copy_verifier, |model| {
        let (images, patches) = model.embed_patches(model.vision().encode(pixels(3, 4))?)?;
        Ok([floats(&images), floats(&patches)].concat())
    });
    assert_eq!(images, Some(3), "the tower; the Q-Former, for patches and for images");
    let texts = failures(&blip2, copy_verifier, |model| {
        Ok(floats(&model.embed_text(&[vec![3, 4, 5], vec![6, 7]])?))
    });
    assert_eq!(texts, Some(2), "the Q-Former, for each length");
    let siglip = ContrastiveModel::from(tiny_siglip(3));
    let pooled = failures(&siglip, copy_verifier, |model| {
        Ok(floats(&model.embed_patches(model.vision().encode(pixels(3, 4))?)?.1))
    });
    assert_eq!(pooled, Some(3), "the tower; the pooling, of images and of patches");
    let matched = failures(&blip2, copy_verifier, |model| {
        let ContrastiveModel::Blip2(blip2) = model else { panic!("BLIP-2") };
        let states =
            Tensor::ones([1, 5, blip2.vision().config().hidden_size], &pixels(1, 4).device());
        Ok(floats(&blip2.matching_logits_of_states(&states, &[vec![3, 4, 5]])?))
    });
    assert_eq!(matched, Some(1), "the Q-Former");
}
