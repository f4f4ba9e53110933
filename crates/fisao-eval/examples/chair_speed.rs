//! Times CHAIR on captions written here: `cargo run --release -p fisao-eval --example chair_speed [strict|reference]`.
#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::time::Instant;

use fisao_eval::chair::{ChairInput, ChairOptions, GroundTruth, ObjectVocabulary, Rules, evaluate};

const CAPTIONS: usize = 100_000;

/// Sentences as models write them; every caption takes five in a row from its own place on.
const SENTENCES: [&str; 12] = [
    "The image features a dining table with a half-eaten pizza, two forks and a wine glass on it.",
    "A man is riding a skateboard down a ramp while several people watch from the benches.",
    "There are at least three cars parked along the street, one of them near the woman's bicycle.",
    "In the background, a bus and a truck can be seen waiting at the traffic lights.",
    "A baby elephant walks next to an adult elephant, and birds are flying above them.",
    "The kitchen has a stove, a refrigerator, and a sink; bottles and bowls stand on the counter.",
    "She is wearing a \"vintage\" dress (possibly red) and holds an umbrella in her hand.",
    "Two dogs lie on the couch, enjoying the afternoon sun that falls through the window.",
    "The sky is cloudy, giving the scene a calm and peaceful atmosphere.",
    "A cell phone, a laptop and a pair of scissors have been left on the desk.",
    "Some 20 sheep graze in a field of about 3.5 acres, watched by a collie.",
    "The toilet seat is up, and a potted plant makes the bathroom look more inviting.",
];

fn main() {
    let vocabulary = ObjectVocabulary::coco();
    let captions: Vec<ChairInput> = (0..CAPTIONS)
        .map(|index| {
            let sentences = (0..5).map(|at| SENTENCES[(index * 7 + at) % SENTENCES.len()]);
            let caption = sentences.collect::<Vec<_>>().join(" ");
            ChairInput { image_id: (index % 5000).to_string(), caption }
        })
        .collect();
    let objects = ["person", "dog", "dining table"].map(str::to_owned);
    let truth: GroundTruth =
        (0..5000).map(|image| (image.to_string(), objects.iter().cloned().collect())).collect();
    let all = [("strict", Rules::Strict), ("reference", Rules::Reference)];
    let asked = std::env::args().nth(1);
    for (_, rules) in
        all.into_iter().filter(|(name, _)| asked.as_deref().is_none_or(|it| it == *name))
    {
        let options = ChairOptions { rules, ..ChairOptions::default() };
        let start = Instant::now();
        match evaluate(captions.clone(), &truth, &vocabulary, &options) {
            Ok(report) => {
                let seconds = start.elapsed().as_secs_f64();
                let speed = CAPTIONS as f64 / seconds;
                let mentions = report.mentions;
                println!(
                    "{rules:?}: {CAPTIONS} captions, {mentions} mentions, {seconds:.2} s, {speed:.0} captions/s"
                );
            }
            Err(error) => println!("{error}"),
        }
    }
}
