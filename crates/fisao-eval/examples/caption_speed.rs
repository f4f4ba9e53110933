//! How long caption metrics take on the captions of `fixtures/caption_scores` or of another file of that shape:
//! as they are, and repeated until there are 5,000 images.
//!
//! ```sh
//! cargo run --release -p fisao-eval --example caption_speed [FILE]
//! ```

#![allow(clippy::print_stdout, reason = "an example's output")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

use fisao_eval::captions::{
    CaptionInput, CaptionOptions, MeteorTables, References, evaluate, intervals,
};
use fisao_eval::statistics::Bootstrap;
use serde::Deserialize;

#[derive(Deserialize)]
struct Captions {
    #[serde(alias = "hyp")]
    captions: BTreeMap<String, String>,
    #[serde(alias = "refs")]
    references: BTreeMap<String, Vec<String>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let fixture =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/caption_scores/expected.json");
    let path = std::env::args().nth(1).unwrap_or_else(|| fixture.to_owned());
    let read: Captions = serde_json::from_reader(BufReader::new(File::open(path)?))?;
    for images in [read.captions.len(), 5_000] {
        let mut references = References::default();
        let mut captions = Vec::with_capacity(images);
        for (number, (image_id, caption)) in read.captions.iter().cycle().take(images).enumerate() {
            let texts = read.references.get(image_id).ok_or("an image without references")?;
            references.add(&format!("image {number}"), texts.clone());
            let image_id = format!("image {number}");
            captions.push(CaptionInput { image_id, caption: caption.clone() });
        }
        let options = CaptionOptions::default();
        let start = Instant::now();
        let report = evaluate(&captions, &references, &MeteorTables::default(), &options)?;
        let scored = start.elapsed().as_secs_f64();
        intervals(&[&report], Bootstrap::default());
        let both = start.elapsed().as_secs_f64();
        println!("{} images: {scored:.3} s, with intervals {both:.3} s", report.images);
    }
    Ok(())
}
