//! CHAIR of a file of captions: `cargo run --release -p fisao-eval --example chair -- captions.jsonl annotations.json`.
#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::error::Error;
use std::fs::File;
use std::io::BufReader;

use fisao_eval::chair::{
    ChairOptions, GroundTruthReader, ObjectVocabulary, evaluate, read_captions,
};

fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [captions, annotations] = files.as_slice() else {
        return Err("usage: chair captions.jsonl annotations.json".into());
    };
    let captions = read_captions(BufReader::new(File::open(captions)?))?;
    let (vocabulary, options) = (ObjectVocabulary::coco(), ChairOptions::default());
    let mut reader = GroundTruthReader::new(&vocabulary, options.rules);
    reader.read(BufReader::new(File::open(annotations)?))?;
    let (truth, _) = reader.finish();
    let report = evaluate(captions, &truth, &vocabulary, &options)?;
    let percent = |rate: Option<f64>| {
        rate.map_or_else(|| "–".to_owned(), |rate| format!("{:.1} %", 100.0 * rate))
    };
    println!("captions {}, mentions {}", report.captions, report.mentions);
    println!("CHAIR_I  {}", percent(report.chair_i));
    println!("CHAIR_S  {}", percent(report.chair_s));
    println!("recall   {}", percent(report.recall));
    Ok(())
}
