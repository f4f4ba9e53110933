//! Parquet files as pyarrow writes them (fixtures/prompts/make.py).

use std::fs;

use fisao_formats::prompts::{Answer, PromptKind, PromptSet, RowImage, Skipped};
use tempfile::tempdir;

use super::{file, fixture, open, pair, response, rows};

/// The colour of a row's image tells its number.
fn image_number(row: &fisao_formats::prompts::PromptRow) -> u8 {
    let image = row.open_image().expect("a picture");
    assert_eq!(image.dimensions(), (3, 2));
    image.get_pixel(1, 1).0[0] / 40
}

#[test]
fn preferences_with_images_are_read() {
    let set = open(&fixture("preferences_snappy.parquet"));
    assert_eq!(
        (set.kind(), set.len(), set.skipped()),
        (PromptKind::Parquet, 6, Skipped::default())
    );
    // One block per row group.
    assert_eq!(set.blocks(), [0..4, 4..6]);
    for (index, row) in rows(&set).iter().enumerate() {
        assert_eq!(row.id, (100 + index).to_string());
        assert_eq!(row.image_name, format!("{}.png", index / 2));
        assert_eq!(usize::from(image_number(row)), index / 2);
        assert_eq!(row.prompt, format!("What is in picture {}? ({index})", index / 2));
        assert_eq!(row.answer, pair(&format!("good {index} é叫🦀"), &format!("bad {index}")));
    }
    set.check_images(&|_| {}).expect("all images are in the file");
}

#[test]
fn conversations_are_read_with_every_compression() {
    for name in ["zstd", "v2", "gzip", "plain"] {
        let set = open(&fixture(&format!("conversations_{name}.parquet")));
        assert_eq!(set.skipped(), Skipped { without_image: 2, several_images: 1 }, "{name}");
        let rows = rows(&set);
        let expected = [(0, 0), (2, 1), (5, 4)];
        assert_eq!(rows.len(), expected.len(), "{name}");
        for (row, (number, image)) in rows.iter().zip(expected) {
            assert_eq!(row.prompt, format!("Question {number}?"), "{name}");
            let (good, bad) = (format!("good {number}"), format!("bad {number}"));
            assert_eq!(row.answer, pair(&good, &bad), "{name}");
            assert_eq!(image_number(row), image, "{name}");
        }
        // An image without a name is known by its row.
        assert!(rows[1].image_name.ends_with(".parquet row 2"), "{}", rows[1].image_name);
    }
}

#[test]
fn llava_parquet_rows_refer_to_image_files() {
    let path = fixture("llava_paths.parquet");
    let set = PromptSet::open(&path, Some("pictures".as_ref()), "Describe it.").expect("a set");
    assert_eq!(set.skipped(), Skipped { without_image: 2, several_images: 0 });
    for (row, (number, image)) in rows(&set).iter().zip([(0, 0), (2, 1), (4, 2)]) {
        assert_eq!(row.id, format!("row{number}"));
        assert_eq!(file(row, "pictures".as_ref()), format!("{image}.png"));
        assert_eq!(row.prompt, format!("Ask {number}."));
        assert_eq!(row.answer, response(&format!("Say {number}.")));
    }
    let error = set.check_images(&|_| {}).expect_err("there are no such files");
    assert!(error.to_string().contains("the images of 3 of 3 rows are not there"), "{error}");
}

#[test]
fn images_may_be_inside_or_beside_the_parquet_file() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("mixed.parquet");
    fs::copy(fixture("mixed.parquet"), &path).expect("writable");
    let set = open(&path);
    let rows = rows(&set);
    assert_eq!(set.skipped(), Skipped { without_image: 1, several_images: 0 });
    assert_eq!((image_number(&rows[0]), image_number(&rows[2])), (0, 2));
    assert_eq!(file(&rows[1], folder.path()), "1.png");
    let prompts = rows.iter().map(|row| row.prompt.as_str()).collect::<Vec<_>>();
    assert_eq!(prompts, ["a", "Describe it.", "Describe it."]);
    assert!(rows.iter().all(|row| row.answer == Answer::None), "reference answers are not read");
    let error = set.check_images(&|_| {}).expect_err("one is missing");
    assert!(error.to_string().contains("the images of 1 of 3 rows"), "{error}");
    fs::write(folder.path().join("1.png"), "").expect("writable");
    set.check_images(&|_| {}).expect("now it is there");
}

#[test]
fn bare_binary_columns_are_images() {
    let rows = rows(&open(&fixture("binary.parquet")));
    assert_eq!(rows.iter().map(image_number).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(rows[1].answer, response("4"));
    assert!(matches!(rows[0].image, RowImage::Bytes(_)));
}

#[test]
fn large_row_groups_are_read_in_blocks() {
    let set = open(&fixture("many.parquet"));
    assert_eq!(set.blocks(), [0..4096, 4096..5000]);
    // In the order of blocks, and from block to block.
    for index in (0..5000).step_by(331).chain([4999, 0, 4096, 4095]) {
        let row = set.row(index).expect("a row");
        assert_eq!(row.prompt, format!("prompt {index}"));
        assert_eq!(row.image_name, format!("{}.png", index % 7));
    }
}

#[test]
fn parquet_shards_of_a_folder_are_one_set() {
    let folder = tempdir().expect("a temporary folder");
    let copies = [("b", "conversations_zstd"), ("a", "preferences_snappy"), ("c", "mixed")];
    for (name, original) in copies {
        let path = folder.path().join(format!("{name}.parquet"));
        fs::copy(fixture(&format!("{original}.parquet")), path).expect("writable");
    }
    // Beside shards, images do not count.
    fs::write(folder.path().join("1.png"), "").expect("writable");
    let set = open(folder.path());
    assert_eq!(set.len(), 6 + 3 + 3);
    assert_eq!(set.skipped(), Skipped { without_image: 3, several_images: 1 });
    assert_eq!(set.blocks(), [0..4, 4..6, 6..9, 9..12]);
    assert_eq!(set.row(6).expect("a row").prompt, "Question 0?");
    assert_eq!(set.row(9).expect("a row").prompt, "a");
    assert_eq!(set.row(0).expect("a row").id, "100");
    set.check_images(&|_| {}).expect("what is not in a shard is beside it");
}

#[test]
fn prompt_set_can_be_read_from_several_threads() {
    let set = open(&fixture("many.parquet"));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let set = &set;
            scope.spawn(move || {
                for index in (thread..5000).step_by(97) {
                    let row = set.row(index).expect("a row");
                    assert_eq!(row.prompt, format!("prompt {index}"));
                }
            });
        }
    });
}
