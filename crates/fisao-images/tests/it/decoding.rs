//! Image files: every colour type as PIL converts it, and files that are none.

use std::fmt::Write as _;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fisao_images::ImageError;
use fisao_images::decode::{check_image, decode_image, open_image};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageBuffer, ImageEncoder, ImageFormat, Luma, Rgb};
use serde_json::Value;
use tempfile::tempdir;

use crate::message;

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("an encodable image");
    bytes.into_inner()
}

fn pixels(path: &Path) -> Vec<[u8; 3]> {
    open_image(path).expect("an image").pixels().map(|pixel| pixel.0).collect()
}

/// Where our pixels are not Pillow's, and by how much at most.
const DIFFERENT: [(&str, u8); 2] = [("555.bmp", 1), ("565.bmp", 1)];

#[test]
fn decoded_pixels_match_pillow() {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../fixtures/images"].iter().collect();
    let text = fs::read(folder.join("expected.json")).expect("the generator writes it");
    let expected: Value = serde_json::from_slice(&text).expect("JSON");
    let files = expected["files"].as_object().expect("files by name");
    assert!(files.len() > 60);
    let mut wrong = Vec::new();
    for (name, case) in files {
        let side = |index: usize| case["size"][index].as_u64().expect("pixels") as u32;
        let rgb = BASE64_STANDARD.decode(case["rgb"].as_str().expect("text")).expect("base64");
        let image = match open_image(&folder.join(name)) {
            Ok(image) => image,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        if image.dimensions() != (side(0), side(1)) {
            wrong.push(format!("{name} is {:?}", image.dimensions()));
            continue;
        }
        let differences = || image.as_raw().iter().zip(&rgb).map(|(a, b)| a.abs_diff(*b));
        let worst = differences().max().expect("not empty");
        let allowed = DIFFERENT.iter().find(|(different, _)| different == name);
        if worst > allowed.map_or(0, |&(_, most)| most) {
            let count = differences().filter(|&difference| difference > 0).count();
            let all = rgb.len();
            wrong.push(format!("{name}: {count} of {all} values differ, by up to {worst}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A grey progressive JPEG of 1600 × 1600 pixels whose scans all hold the averages of its 40,000 blocks, one bit each.
fn jpeg_of_scans(count: usize) -> Vec<u8> {
    let mut file = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    file.extend([1; 64]);
    file.extend([0xff, 0xc2, 0, 11, 8, 0x06, 0x40, 0x06, 0x40, 1, 1, 0x11, 0]);
    // One code, of one bit, for a difference of 0.
    file.extend([0xff, 0xc4, 0, 20, 0, 1]);
    file.extend([0; 16]);
    for _ in 0..count {
        file.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0]);
        file.extend([0; 5000]);
    }
    file.extend([0xff, 0xd9]);
    file
}

#[test]
fn a_progressive_jpeg_with_hundreds_of_scans_is_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("scans.jpg");
    fs::write(&path, jpeg_of_scans(20)).unwrap();
    assert_eq!(open_image(&path).unwrap().dimensions(), (1600, 1600));
    fs::write(&path, jpeg_of_scans(251)).unwrap();
    let message = message(open_image(&path), &folder);
    assert!(message.contains("more than 100 times"), "{message}");
}

#[test]
fn colour_types_become_rgb_as_in_pil() {
    // Expected values are those of transformers 5.24's `convert_to_rgb` with Pillow 13.0: what is transparent is put on
    // white, and of 16 bits the high byte is kept. 16-bit grey is the exception: Pillow clips it,
    // which turns nearly every such image white; here it is treated like 16-bit colour.
    let rgba = ImageBuffer::from_raw(2, 1, vec![16, 32, 48, 0, 1, 2, 3, 128_u8]);
    let grey_alpha = ImageBuffer::from_raw(2, 1, vec![16, 0, 32, 255_u8]);
    let wide = ImageBuffer::from_raw(2, 1, vec![0x12ff, 0x00ff, 0xff00, 0x1280, 255, 65535_u16]);
    let wide_alpha = ImageBuffer::from_raw(2, 1, vec![0x12ff, 0x8000, 0x1280, 0_u16]);
    let wide_grey = ImageBuffer::from_raw(2, 1, vec![0x12ff, 65535_u16]);
    let grey = ImageBuffer::from_raw(2, 1, vec![7, 255_u8]);
    let cases = [
        (rgba.map(DynamicImage::ImageRgba8), [[255; 3], [128, 128, 129]]),
        (grey_alpha.map(DynamicImage::ImageLumaA8), [[255; 3], [32; 3]]),
        (wide.map(DynamicImage::ImageRgb16), [[18, 0, 255], [18, 0, 255]]),
        (wide_alpha.map(DynamicImage::ImageLumaA16), [[136; 3], [255; 3]]),
        (wide_grey.map(DynamicImage::ImageLuma16), [[18; 3], [255; 3]]),
        (grey.map(DynamicImage::ImageLuma8), [[7; 3], [255; 3]]),
    ];
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("image.png");
    for (image, expected) in cases {
        let image = image.expect("as many values as pixels");
        fs::write(&path, encode(&image, ImageFormat::Png)).expect("writable");
        assert_eq!(pixels(&path), expected, "{:?}", image.color());
    }
}

#[test]
fn image_format_is_detected_from_content() {
    let folder = tempdir().expect("a temporary folder");
    let image = DynamicImage::ImageRgb8(ImageBuffer::from_pixel(3, 2, Rgb([200, 100, 50])));
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::WebP] {
        let path = folder.path().join("misnamed.jpg");
        fs::write(&path, encode(&image, format)).expect("writable");
        assert_eq!(pixels(&path), [[200, 100, 50]; 6], "{format:?}");
    }
}

#[test]
fn exif_orientation_is_applied() {
    // A TIFF block with one entry: tag 0x0112 (orientation), type SHORT, count 1, value 6, which
    // says that the camera was turned: the image's first row is its right edge.
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 100);
    encoder.set_exif_metadata(exif.to_vec()).expect("a small block");
    // 32 wide, 16 high: left half dark, right half bright.
    let image = ImageBuffer::from_fn(32, 16, |x, _| Luma([if x < 16 { 0 } else { 255_u8 }]));
    encoder
        .write_image(image.as_raw(), 32, 16, image::ExtendedColorType::L8)
        .expect("an encodable image");
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("turned.jpg");
    fs::write(&path, bytes).expect("writable");
    let upright = open_image(&path).expect("an image");
    assert_eq!(upright.dimensions(), (16, 32));
    assert!(upright.get_pixel(8, 4).0[0] < 30, "turned clockwise, the left half is on top");
    assert!(upright.get_pixel(8, 28).0[0] > 225);
}

/// A chunk of PNG with its check sum.
fn chunk(kind: [u8; 4], body: &[u8]) -> Vec<u8> {
    let content = [kind.as_slice(), body].concat();
    let mut sum = flate2::Crc::new();
    sum.update(&content);
    let length = u32::try_from(body.len()).expect("short");
    [&length.to_be_bytes(), content.as_slice(), &sum.sum().to_be_bytes()].concat()
}

#[test]
fn png_orientation_is_read_from_any_metadata_chunk() {
    // Orientation 6 as LONG.
    let exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x06\0\0\0\0";
    let mut digits = String::new();
    for byte in [b"Exif\0\0".as_slice(), exif].concat() {
        write!(digits, "{byte:02x}").expect("in memory");
    }
    let (one, two) = digits.split_at(30);
    let profile = format!("\nexif\n      32\n{one}\n{two}\n");
    let text = [b"Raw profile type exif\0".as_slice(), profile.as_bytes()].concat();
    let mut packed = b"Raw profile type exif\0\0".to_vec();
    let mut encoder = flate2::write::ZlibEncoder::new(&mut packed, flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, profile.as_bytes()).expect("in memory");
    encoder.finish().expect("in memory");
    let international =
        [b"Raw profile type exif\0\0\0en\0\0".as_slice(), profile.as_bytes()].concat();
    let xmp = b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation=\"6\"/>";
    let image = ImageBuffer::from_fn(3, 1, |x, _| Rgb([10 * x as u8, 0, 0]));
    let plain = encode(&DynamicImage::ImageRgb8(image), ImageFormat::Png);
    // Signature and header come first, the end last.
    let (start, end) = (8 + 25, plain.len() - 12);
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("turned.png");
    let size = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("writable");
        open_image(&path).expect("an image").dimensions()
    };
    assert_eq!(size(&plain), (3, 1));
    for (name, kind, body) in [
        ("eXIf", *b"eXIf", exif.as_slice()),
        ("tEXt", *b"tEXt", &text),
        ("zTXt", *b"zTXt", &packed),
        ("iTXt", *b"iTXt", &international),
        ("XMP", *b"iTXt", xmp),
    ] {
        for at in [start, end] {
            let bytes = [&plain[..at], &chunk(kind, body), &plain[at..]].concat();
            assert_eq!(size(&bytes), (1, 3), "{name} at byte {at}");
        }
        let broken = [&plain[..end], &chunk(kind, &body[..body.len() / 2]), &plain[end..]].concat();
        assert_eq!(size(&broken), (3, 1), "half of {name}");
    }
}

#[test]
fn non_image_files_are_reported_with_their_actual_type() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("photo.png");
    let cases: [(&[u8], &str); 6] = [
        (b"a shopping list\n", "is text"),
        (b"", "is empty"),
        (b"%PDF-1.7 \x00", "is a PDF document"),
        (b"<!DOCTYPE html><title>404</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"\x00\x01\x02\x03\xff\xfe", "is in no format that is read"),
    ];
    for (content, description) in cases {
        fs::write(&path, content).expect("writable");
        let said = message(open_image(&path), &folder);
        let expected = format!("DIR/photo.png is not an image: it {description}");
        assert!(said.starts_with(&expected), "{said}");
    }
    let said = message(open_image(folder.path()), &folder);
    assert_eq!(said, "DIR is not an image: it is a folder");
    let said = message(open_image(&folder.path().join("absent.png")), &folder);
    assert_eq!(said, "no image at DIR/absent.png");
}

#[test]
fn truncated_images_are_reported_with_their_format() {
    let image = ImageBuffer::from_fn(64, 64, |x, y| Rgb([(x * 4) as u8, (y * 4) as u8, 9]));
    let image = DynamicImage::ImageRgb8(image);
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("half.bin");
    for (format, name) in [
        (ImageFormat::Png, "PNG"),
        (ImageFormat::Jpeg, "JPEG"),
        (ImageFormat::WebP, "WEBP"),
        (ImageFormat::Bmp, "BMP"),
        (ImageFormat::Gif, "GIF"),
    ] {
        let bytes = encode(&image, format);
        fs::write(&path, &bytes[..bytes.len() / 2]).expect("writable");
        let said = message(open_image(&path), &folder);
        assert!(said.starts_with(&format!("DIR/half.bin is a damaged {name} image: ")), "{said}");
    }
}

/// Names and contents of the fixture's files of one kind.
fn fixture_files(extension: &str) -> Vec<(String, Vec<u8>)> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../fixtures/images"].iter().collect();
    let entries = fs::read_dir(&folder).expect("the fixture");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension() == Some(extension.as_ref()));
    paths.sort_unstable();
    let file = |path: PathBuf| (path.display().to_string(), fs::read(&path).expect("readable"));
    paths.into_iter().map(file).collect()
}

#[test]
fn every_truncated_jpeg_is_an_error() {
    for (name, bytes) in fixture_files("jpg") {
        let whole = bytes.windows(2).rposition(|pair| pair == [0xff, 0xd9]).expect("an end") + 2;
        for length in (4..whole).step_by(23).chain([whole - 1]) {
            let error = decode_image("cut.jpg", &bytes[..length]).expect_err("truncated");
            let said = error.to_string();
            let expected = "cut.jpg is a damaged JPEG image: ";
            assert!(said.starts_with(expected), "{name} cut at {length}: {said}");
        }
        decode_image("cut.jpg", &bytes[..whole]).expect("the end marker was the last thing needed");
    }
}

#[test]
fn damaged_files_give_an_image_or_an_error() {
    for (_, bytes) in ["jpg", "gif", "tif"].into_iter().flat_map(fixture_files) {
        // One byte becomes another one, differently each time.
        for at in (2..bytes.len()).step_by(11) {
            let mut damaged = bytes.clone();
            damaged[at] = damaged[at].wrapping_mul(31).wrapping_add(at as u8 | 1);
            if let Ok(image) = decode_image("flipped", &damaged) {
                let (width, height) = image.dimensions();
                assert!(width > 0 && height > 0);
            }
        }
    }
}

#[test]
fn an_image_without_pixels_is_an_error() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("empty.gif");
    let (_, mut bytes) = fixture_files("gif").into_iter().next().expect("a file");
    // The height of the screen and that of the image, whose descriptor follows a colour table and
    // maybe an extension.
    bytes[8..10].fill(0);
    let image = bytes.windows(5).position(|at| at == [b',', 0, 0, 0, 0]).expect("an image");
    bytes[image + 7..image + 9].fill(0);
    fs::write(&path, &bytes).expect("writable");
    let said = message(open_image(&path), &folder);
    assert!(said.starts_with("DIR/empty.gif is a damaged GIF image: "), "{said}");
}

#[test]
fn memory_is_not_reserved_for_sizes_claimed_by_small_jpegs() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("huge.jpg");
    let (_, bytes) = fixture_files("jpg").into_iter().next().expect("a file");
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame header");
    for (size, expected) in [
        ([0x20, 0x00, 0x20, 0x00], "DIR/huge.jpg is a damaged JPEG image: it is truncated"),
        (
            [0xff; 4],
            "DIR/huge.jpg is a JPEG image of 65535×65535 pixels, more than the 178956970 that are decoded",
        ),
    ] {
        let mut huge = bytes.clone();
        huge[frame + 5..frame + 9].copy_from_slice(&size);
        fs::write(&path, huge).expect("writable");
        assert_eq!(message(open_image(&path), &folder), expected);
    }
}

#[test]
fn unsupported_jpeg_kinds_are_reported() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("unusual.jpg");
    let (_, bytes) = fixture_files("jpg").into_iter().next().expect("a file");
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame header");
    for (offset, value, reason) in [
        (1, 0xc3, "lossless JPEG"),
        (1, 0xc6, "hierarchical JPEG"),
        (1, 0xc9, "arithmetic coding"),
        (4, 12, "samples of other than 8 bits"),
    ] {
        let mut unusual = bytes.clone();
        unusual[frame + offset] = value;
        fs::write(&path, unusual).expect("writable");
        let error = open_image(&path).expect_err("not read");
        assert_eq!(
            error.to_string(),
            format!("{} is a JPEG image of a kind that is not read: {reason}", path.display())
        );
    }
}

/// A PNG of some bits of grey, with nothing to decode in it.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = [size.as_slice(), &[1, 0, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n".as_slice(), &chunk(*b"IHDR", &header), &chunk(*b"IDAT", b"x")].concat()
}

/// A RIFF file with one chunk.
fn webp(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).expect("short").to_le_bytes();
    let chunk = |&(kind, body): &(&[u8; 4], &[u8])| {
        [kind.as_slice(), &length(body.len()), body, &vec![0; body.len() % 2]].concat()
    };
    let chunks: Vec<u8> = chunks.iter().flat_map(chunk).collect();
    [b"RIFF".as_slice(), &length(4 + chunks.len()), b"WEBP", &chunks].concat()
}

/// A TIFF whose tags have one number each, of 32 bits, and whose one strip holds some bytes.
fn tiff(tags: &[(u16, u32)], strip: &[u8]) -> Vec<u8> {
    let count = u16::try_from(tags.len() + 2).expect("few") as usize;
    let (place, length) = (10 + 12 * count as u32 + 4, strip.len() as u32);
    let mut tags = [tags, &[(273, place), (279, length)]].concat();
    tags.sort_unstable();
    let entry = |(tag, number): (u16, u32)| {
        [&tag.to_le_bytes()[..], &[4, 0, 1, 0, 0, 0], &number.to_le_bytes()].concat()
    };
    let entries: Vec<u8> = tags.into_iter().flat_map(entry).collect();
    let count = count as u16;
    [b"II*\0\x08\0\0\0".as_slice(), &count.to_le_bytes(), &entries, &[0; 4], strip].concat()
}

#[test]
fn images_of_too_many_pixels_are_rejected_before_decoding() {
    let mut bmp = b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend(30_000_u32.to_le_bytes());
    bmp.extend(30_000_u32.to_le_bytes());
    bmp.extend([1, 0, 24, 0]);
    bmp.extend([0; 24 + 16]);
    let screen = |side: u16| {
        [b"GIF89a".as_slice(), &side.to_le_bytes(), &side.to_le_bytes(), &[0, 0, 0]].concat()
    };
    let frame = [
        b",\0\0\0\0".as_slice(),
        &[0x30, 0x75, 0x30, 0x75],
        &[0x80, 0, 0, 0, 9, 9, 9, 2, 1, 0, 0, b';'],
    ]
    .concat();
    // Lossy: a frame tag, the start code and two sides of 14 bits. Lossless: a signature, and sides less one.
    let lossy = |side: u16| {
        let side = side.to_le_bytes();
        [[0, 0, 0, 0x9D, 0x01, 0x2A].as_slice(), &side, &side, &[0; 8]].concat()
    };
    let mut canvas = vec![0; 10];
    canvas[4..7].copy_from_slice(&29_999_u32.to_le_bytes()[..3]);
    canvas[7..10].copy_from_slice(&29_999_u32.to_le_bytes()[..3]);
    let cases = [
        ("PNG", "30000×30000", png_header(30_000, 30_000)),
        ("PNG", "1×200000000", png_header(1, 200_000_000)),
        ("BMP", "30000×30000", bmp),
        ("GIF", "30000×30000", [screen(30_000), frame.clone()].concat()),
        ("GIF", "30000×30000", [screen(10), frame].concat()),
        ("TIFF", "30000×30000", tiff(&[(256, 30_000), (257, 30_000)], b"")),
        ("TIFF", "1×200000000", tiff(&[(256, 1), (257, 200_000_000)], b"")),
        ("WEBP", "16383×16383", webp(&[(b"VP8 ", &lossy(16_383))])),
        ("WEBP", "16383×16383", webp(&[(b"VP8L", &[0x2F, 0xFE, 0xBF, 0xFF, 0x0F, 0, 0, 0])])),
        ("WEBP", "30000×30000", webp(&[(b"VP8X", &canvas), (b"VP8 ", &lossy(10))])),
    ];
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("huge");
    for (format, size, bytes) in cases {
        fs::write(&path, bytes).expect("writable");
        let error = open_image(&path).expect_err("too large");
        let said = error.to_string().replace(&folder.path().display().to_string(), "DIR");
        let expected = format!(
            "DIR/huge is a {format} image of {size} pixels, more than the 178956970 that are decoded"
        );
        assert_eq!(said, expected);
    }
}

#[test]
fn compressed_png_metadata_is_not_decompressed() {
    let image = ImageBuffer::from_fn(3, 1, |x, _| Rgb([10 * x as u8, 0, 0]));
    let plain = encode(&DynamicImage::ImageRgb8(image), ImageFormat::Png);
    // Longer than the memory that reading an image of three pixels may take.
    let zeros = vec![0; 1 << 20];
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..300 {
        std::io::Write::write_all(&mut packed, &zeros).expect("in memory");
    }
    let packed = packed.finish().expect("in memory");
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("bomb.png");
    for (kind, key) in [
        (*b"iCCP", b"icc\0\0".as_slice()),
        (*b"zTXt", b"Comment\0\0"),
        (*b"zTXt", b"Raw profile type exif\0\0"),
        (*b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0"),
    ] {
        let body = [key, &packed].concat();
        for at in [8 + 25, plain.len() - 12] {
            let bytes = [&plain[..at], &chunk(kind, &body), &plain[at..]].concat();
            fs::write(&path, &bytes).expect("writable");
            assert_eq!(pixels(&path), [[0, 0, 0], [10, 0, 0], [20, 0, 0]]);
        }
    }
}

#[test]
fn unsupported_image_formats_are_reported_by_name() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("photo.jpg");
    let cases: [(&[u8], &str); 7] = [
        (b"\0\0\x01\0\x01\0\x10\x10", "ICO"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf\0\0", "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic\0\0", "HEIC"),
        (b"\xFF\x0A\0\0", "JPEG XL"),
        (b"<?xml version=\"1.0\"?><svg/>", "SVG"),
        (b"P6\n3 2\n255\n", "PNM"),
    ];
    for (bytes, format) in cases {
        fs::write(&path, bytes).expect("writable");
        let error = open_image(&path).expect_err("not read");
        assert_eq!(
            error.to_string(),
            format!(
                "{} is a {format} image, a format that is not read (PNG, JPEG, WebP, BMP, GIF and TIFF are)",
                path.display()
            )
        );
    }
}

#[test]
fn data_after_the_end_of_a_jpeg_is_not_read() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("film.jpg");
    let (_, bytes) = fixture_files("jpg").into_iter().next().expect("a file");
    fs::write(&path, &bytes).expect("writable");
    let alone = open_image(&path).expect("an image");
    // A hole of 8 GiB.
    let file = fs::OpenOptions::new().write(true).open(&path).expect("writable");
    file.set_len(1 << 33).expect("a hole");
    assert_eq!(open_image(&path).expect("an image"), alone);
    // Before the image there may be much, but not everything.
    let segment = [[0xFF, 0xE5, 0xFF, 0xFF].as_slice(), &vec![0; 0xFFFF - 2]].concat();
    let long = [&bytes[..2], &segment.repeat(600), &bytes[2..]].concat();
    fs::write(&path, long).expect("writable");
    let said = message(open_image(&path), &folder);
    assert_eq!(said, "DIR/film.jpg is a damaged JPEG image: no image begins in its first 32 MiB");
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    let error = open_image(Path::new("/dev/zero")).expect_err("no file");
    assert_eq!(error.to_string(), "/dev/zero is not an image: it is a device");
}

#[test]
fn what_the_system_refuses_is_the_cause() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("photo.png/nested");
    fs::write(folder.path().join("photo.png"), "").expect("writable");
    let error = open_image(&path).expect_err("a file is no folder");
    assert_eq!(error.path(), path);
    assert!(matches!(error, ImageError::Io { .. }));
    let cause = std::error::Error::source(&error).expect("the system's reason");
    assert!(error.to_string().ends_with(&cause.to_string()), "{error}");
}

#[test]
fn forms_of_tiff_that_are_not_read_are_named() {
    // Of these numbers each case changes some.
    let plain = [(256, 2), (257, 2), (258, 8), (259, 1), (262, 1), (277, 1)];
    let cases: [(&[(u16, u32)], &str); 18] = [
        (&[(259, 4)], "CCITT fax compression"),
        (&[(259, 6)], "old-style JPEG compression"),
        (&[(259, 50_000)], "Zstandard compression"),
        (&[(259, 12)], "compression 12"),
        (&[(258, 12)], "samples of 12 bits"),
        (&[(339, 2)], "samples with a sign"),
        (&[(258, 32), (339, 3)], "floating-point samples"),
        (&[(262, 8)], "CIE L*a*b* colours"),
        (&[(262, 6), (277, 3)], "YCbCr without JPEG compression"),
        (&[(262, 32_803)], "the raw image of a camera"),
        (&[(262, 2)], "1 samples per pixel of this colour"),
        (&[(277, 2)], "2 samples per pixel of this colour"),
        (&[(277, 7)], "7 samples per pixel"),
        (&[(262, 2), (277, 3), (258, 4)], "colours of 4 bits"),
        (&[(259, 5), (258, 4), (317, 2)], "differences of 4 bits"),
        (&[(259, 5), (317, 3)], "predictor of floating-point numbers"),
        (&[(259, 7), (258, 16)], "JPEG compression of other than grey and three colours"),
        (&[(284, 3)], "planar configuration 3"),
    ];
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("form.tif");
    for (changes, reason) in cases {
        let changed = |(tag, _): &(u16, u32)| !changes.iter().any(|(other, _)| other == tag);
        let tags = [&plain.into_iter().filter(changed).collect::<Vec<_>>(), changes].concat();
        fs::write(&path, tiff(&tags, &[0; 64])).expect("writable");
        let expected = format!("DIR/form.tif is a TIFF image of a kind that is not read: {reason}");
        assert_eq!(message(open_image(&path), &folder), expected);
        assert_eq!(message(check_image(&path), &folder), expected);
    }
    fs::write(&path, tiff(&plain, &[0, 85, 170, 255])).expect("writable");
    assert_eq!(pixels(&path), [[0; 3], [85; 3], [170; 3], [255; 3]]);
    check_image(&path).expect("a form that is read");
}

#[test]
fn a_tiff_may_not_hide_a_small_image_in_huge_tiles() {
    let tags = [(256, 1), (257, 1), (258, 8), (262, 1)];
    let tags = [&tags[..], &[(322, 60_000), (323, 60_000), (324, 8), (325, 1)]].concat();
    let mut bytes = tiff(&tags, b"");
    // What the helper says about a strip gets a tag of no meaning.
    for tag in [273_u16, 279] {
        let entries = bytes[10..].chunks_exact_mut(12);
        let entry = entries.into_iter().find(|entry| entry[..2] == tag.to_le_bytes());
        entry.expect("the helper writes it")[..2].copy_from_slice(&(tag + 40_000).to_le_bytes());
    }
    let error = decode_image("tiles.tif", &bytes).expect_err("60,000 by 60,000 for one pixel");
    assert!(error.to_string().ends_with("tiles that are much larger than the image"), "{error}");
}

/// A thousand strips of a row each, which all begin with the same 64 KiB of blocks that hold nothing.
#[test]
fn strips_of_a_tiff_that_lie_on_top_of_each_other_are_bounded() {
    const STRIPS: u32 = 1000;
    let zlib =
        [b"\x78\x01".as_slice(), &[0, 0, 0, 0xFF, 0xFF].repeat(13_000), &[1, 1, 0, 0xFE, 0xFF, 7]];
    // The checksum of a 7.
    let packed = [zlib.concat().as_slice(), &[0, 8, 0, 8]].concat();
    let tags = [(256, 1), (257, STRIPS), (258, 8), (259, 8), (262, 1), (278, 1)];
    let place = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a small file");
    let mut bytes = tiff(&tags, &packed);
    let strip = place(&bytes) - place(&packed);
    for (tag, number) in [(273_u16, strip), (279, place(&packed))] {
        let list = place(&bytes).to_le_bytes();
        let entries = bytes[10..].chunks_exact_mut(12);
        let entry = entries.into_iter().find(|entry| entry[..2] == tag.to_le_bytes());
        let entry = entry.expect("the helper writes it");
        entry[4..8].copy_from_slice(&STRIPS.to_le_bytes());
        entry[8..].copy_from_slice(&list);
        bytes.extend(number.to_le_bytes().repeat(STRIPS as usize));
    }
    let error = decode_image("strips.tif", &bytes).expect_err("65 MB for a thousand pixels");
    assert!(error.to_string().contains("longer than what they hold"), "{error}");
}

#[test]
fn a_tiff_may_say_where_more_strips_are_than_it_has() {
    let tags = [(256, 2), (257, 1), (258, 8), (259, 32_773), (262, 1)];
    let mut bytes = tiff(&tags, &[1, 7, 9]);
    let entries = bytes[10..].chunks_exact_mut(12);
    let entry = entries.into_iter().find(|entry| entry[..2] == 273_u16.to_le_bytes());
    let entry = entry.expect("the helper writes it");
    // Two offsets of 16 bits, of one length.
    let place = u16::from_le_bytes([entry[8], entry[9]]);
    entry[2..8].copy_from_slice(&[3, 0, 2, 0, 0, 0]);
    entry[8..10].copy_from_slice(&place.to_le_bytes());
    let image = decode_image("strips.tif", &bytes).expect("one strip is enough");
    assert_eq!(image.as_raw(), &[7, 7, 7, 9, 9, 9]);
}

#[test]
fn rows_of_a_tiff_are_unpacked_in_pieces() {
    // 16-bit differences, wider than what is unpacked at once.
    let (width, height) = (10_007_u32, 2);
    let differences: Vec<u8> = (0..3 * width * height)
        .map(|at| (at % 700 * 31) as u16)
        .flat_map(u16::to_le_bytes)
        .collect();
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &differences).expect("in memory");
    let packed = packed.finish().expect("in memory");
    let tags = [(256, width), (257, height), (258, 16), (259, 8), (262, 2), (277, 3), (317, 2)];
    let image = decode_image("wide.tif", &tiff(&tags, &packed)).expect("an image");
    for y in 0..height {
        let mut sums = [0_u16; 3];
        for x in 0..width {
            for (channel, sum) in sums.iter_mut().enumerate() {
                let at = 3 * (y * width + x) + channel as u32;
                *sum = sum.wrapping_add((at % 700 * 31) as u16);
            }
            assert_eq!(image.get_pixel(x, y).0, sums.map(|sum| sum.to_be_bytes()[0]), "{x}, {y}");
        }
    }
}

#[test]
fn every_truncated_tiff_is_an_error() {
    for (name, bytes) in fixture_files("tif") {
        // Its second image is not needed.
        if name.ends_with("two_images.tif") {
            continue;
        }
        for length in (4..bytes.len() - 1).step_by(17) {
            // Bytes behind the samples and tags may be missing.
            let Err(error) = decode_image("cut.tif", &bytes[..length]) else {
                assert!(length + 16 > bytes.len(), "{name} cut at {length}");
                continue;
            };
            let said = error.to_string();
            assert!(said.starts_with("cut.tif is a damaged TIFF image: "), "{name}: {said}");
        }
    }
}
