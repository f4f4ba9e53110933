//! Names that texts use, a text a line of the standard input: `cargo run -p fisao-mentions --example noun_names < captions.txt`.

#![expect(clippy::print_stdout, reason = "an example that prints")]

use std::io::{Read as _, stdin};

use fisao_mentions::noun_names;

fn main() -> std::io::Result<()> {
    let mut texts = String::new();
    stdin().read_to_string(&mut texts)?;
    for name in noun_names(texts.lines(), 3) {
        println!("{:?}\t{}\t{}\t{}", name.kind, name.name, name.mentions, name.texts.len());
    }
    Ok(())
}
