//! Scores the objects that a caption names by a CLIP, SigLIP or BLIP-2 checkpoint:
//! `cargo run --release -p fisao --example score_caption -- CLIP_FOLDER photo.jpg "A dog on a sofa."`
#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::error::Error;
use std::path::Path;
use std::slice;
use std::sync::Arc;

use burn::tensor::Device;
use fisao_formats::checkpoint::Checkpoint;
use fisao_formats::images::open_image;
use fisao_formats::weights::LoadDtype;
use fisao_verifier::listing::Listing;
use fisao_verifier::mentions::ObjectVocabulary;
use fisao_verifier::regions::ScoreConfig;
use fisao_verifier::scorer::Verifier;
use fisao_verifier::templates::Templates;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, image, caption] = arguments.as_slice() else {
        return Err("usage: score_caption CLIP_FOLDER IMAGE CAPTION".into());
    };
    let checkpoint = Checkpoint::open(Path::new(folder))?;
    let model = checkpoint.load_contrastive(LoadDtype::AsStored, &Device::flex())?.model;
    let tokenizer = Arc::new(checkpoint.tokenizer()?);
    let mut verifier =
        Verifier::new(model, tokenizer, Templates::default(), ScoreConfig::default());
    let pixels = checkpoint.image_processor()?.process(&open_image(Path::new(image))?);
    let embeddings = verifier.embed_views(&[slice::from_ref(&pixels)])?;
    let Listing { entries, neutral } = Listing::everyday();
    let vocabulary = ObjectVocabulary::with_neutral(entries, &neutral)?;
    for mention in vocabulary.mentions(caption) {
        verifier.embed_names([mention.form])?;
        let score = verifier.score(&embeddings[0], mention.form)?;
        println!("{score:+.3}  {}", &caption[mention.span]);
    }
    Ok(())
}
