//! Held-out rows and shuffles.

use std::collections::BTreeSet;
use std::fs;

use fisao_formats::prompts::{PromptSet, Split};
use tempfile::tempdir;

use super::{fixture, open};

fn image(set: &PromptSet, row: u32) -> Vec<u8> {
    let row = set.row(row as usize).expect("a row");
    match row.image {
        fisao_formats::prompts::RowImage::Bytes(bytes) => bytes,
        fisao_formats::prompts::RowImage::File(path) => path.display().to_string().into_bytes(),
    }
}

/// Splits a set, and makes sure that no image is on both sides.
fn split(set: &PromptSet, fraction: f64, seed: u64) -> Split {
    let split = set.split(fraction, seed, &|_| {}).expect("readable");
    let all = split.training.len() + split.validation.len();
    assert_eq!(all, set.len());
    let images = |rows: &[u32]| rows.iter().map(|&row| image(set, row)).collect::<BTreeSet<_>>();
    assert!(images(&split.training).is_disjoint(&images(&split.validation)));
    split
}

#[test]
fn no_image_is_in_both_training_and_validation() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("rows.jsonl");
    // Three rows per image, far apart, and two prompts in each.
    let row = |row: u32| format!("{{\"image\":\"{}.png\",\"prompts\":[\"a\",\"b\"]}}\n", row % 200);
    fs::write(&path, (0..600).map(row).collect::<String>()).expect("writable");
    let set = open(&path);
    let first = split(&set, 0.2, 1);
    // 200 images, whose standard deviation is under 6.
    assert!((150..=330).contains(&first.validation.len()), "{}", first.validation.len());
    assert_eq!(first, split(&set, 0.2, 1));
    assert_ne!(first, split(&set, 0.2, 2));
    for name in ["preferences_snappy", "conversations_zstd", "binary", "mixed", "many"] {
        let set = open(&fixture(&format!("{name}.parquet")));
        let sizes = (0..10).map(|seed| split(&set, 0.5, seed).validation.len());
        assert!(sizes.collect::<BTreeSet<_>>().len() > 1, "{name}: the seed has no effect");
    }
}

#[test]
fn validation_split_depends_on_image_names_only() {
    let folder = tempdir().expect("a temporary folder");
    let names: Vec<String> = (0..50).map(|number| format!("{number:02}.png")).collect();
    for name in &names {
        fs::write(folder.path().join(name), "").expect("writable");
    }
    let path = folder.path().join("rows.json");
    let rows: Vec<_> = names.iter().map(|name| serde_json::json!({"image": [name]})).collect();
    fs::write(&path, serde_json::to_vec(&rows).expect("JSON")).expect("writable");
    assert_eq!(split(&open(folder.path()), 0.3, 5), split(&open(&path), 0.3, 5));
}

#[test]
fn shuffle_visits_parquet_blocks_one_after_another() {
    let set = open(&fixture("many.parquet"));
    let rows: Vec<u32> = (0..5000).step_by(2).collect();
    let shuffled = set.shuffled(&rows, 3);
    let switches = shuffled.windows(2).filter(|pair| (pair[0] < 4096) != (pair[1] < 4096)).count();
    assert_eq!(switches, 1);
    assert_ne!(shuffled, set.shuffled(&rows, 4));
    let sorted: BTreeSet<_> = shuffled.iter().copied().collect();
    assert!(sorted.iter().eq(&rows));
}
