//! `fisao scenes export`: the built-in synthetic dataset as images with COCO's annotations, for any other program.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use fisao_align::config::LARGEST_SEED;
use fisao_formats::documents::{check_output_folder, write_json};
use fisao_runs::world::reference_captions;
use fisao_runs::{Reporter, locks};
use fisao_scenes::{CATEGORIES, IMAGE_SIZE, PlacedObject, Split, World};
use serde::Serialize;

use crate::arguments::{MOST, WorldArguments, WorldSplit, from_to};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct ScenesArguments {
    #[command(subcommand)]
    command: ScenesCommand,
}

/// What to do with the built-in synthetic dataset.
#[derive(Debug, Subcommand)]
enum ScenesCommand {
    /// Write its images, with boxes and captions in COCO's format
    Export(ExportArguments),
}

#[derive(Debug, Args)]
struct ExportArguments {
    /// Folder for images/, instances.json and captions.json
    #[arg(value_name = "FOLDER")]
    output: PathBuf,
    #[command(flatten)]
    world: WorldArguments,
    /// Which scenes
    #[arg(long, value_name = "SPLIT", default_value = "test")]
    split: WorldSplit,
    /// How many scenes
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = from_to::<usize>(1, MOST))]
    count: usize,
    /// Seed of the scenes
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = from_to::<u64>(0, LARGEST_SEED))]
    seed: u64,
}

pub(crate) fn run(arguments: &ScenesArguments, reporter: &Reporter) -> anyhow::Result<()> {
    match &arguments.command {
        ScenesCommand::Export(arguments) => export(arguments, reporter),
    }
}

/// A file of COCO's annotations.
#[derive(Serialize)]
struct Annotated<A> {
    info: Info,
    images: Vec<ImageRow>,
    annotations: Vec<A>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<CategoryRow>,
}

#[derive(Clone, Serialize)]
struct Info {
    description: String,
    /// Whose drawings the objects are.
    contributor: &'static str,
}

#[derive(Clone, Serialize)]
struct ImageRow {
    id: u64,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct CategoryRow {
    id: usize,
    name: &'static str,
}

#[derive(Serialize)]
struct Instance {
    id: usize,
    image_id: u64,
    category_id: usize,
    /// Left, top, width, height, pixels; what lies outside the image is cut off.
    bbox: [u32; 4],
    area: u32,
    iscrowd: u8,
}

#[derive(Serialize)]
struct CaptionRow {
    id: usize,
    image_id: u64,
    caption: String,
}

fn export(arguments: &ExportArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let folder = &arguments.output;
    check_output_folder(folder)?;
    let _lock = locks::lock(folder, reporter)?;
    let images = folder.join("images");
    fs::create_dir_all(&images).with_context(|| format!("cannot create {}", images.display()))?;
    let (world, split) = (World::of(arguments.world.kind()), Split::from(arguments.split));
    let (mut rows, mut instances, mut captions) = (Vec::new(), Vec::new(), Vec::new());
    let progress = reporter.phase("drawing images", arguments.count as u64);
    for id in 0..arguments.count as u64 {
        let scene = world.scene(split, arguments.seed, id);
        let file_name = format!("{}.png", world.image_id(split, id));
        let path = images.join(&file_name);
        let image = world.render(&scene);
        image.save(&path).with_context(|| format!("cannot write {}", path.display()))?;
        rows.push(ImageRow { id, file_name, width: IMAGE_SIZE, height: IMAGE_SIZE });
        for object in &scene.objects {
            let bbox = visible_box(object);
            instances.push(Instance {
                id: instances.len(),
                image_id: id,
                category_id: object.category + 1,
                bbox,
                area: bbox[2] * bbox[3],
                iscrowd: 0,
            });
        }
        for caption in reference_captions(&world, split, arguments.seed, id) {
            captions.push(CaptionRow { id: captions.len(), image_id: id, caption });
        }
        progress.advance(1);
    }
    progress.finish();
    let info = Info {
        description: format!(
            "FiSAO's built-in synthetic dataset, {} scenes of seed {}",
            world.kind().name(),
            arguments.seed
        ),
        contributor: World::sprite_attribution(),
    };
    let named = |(at, category): (usize, &fisao_scenes::Category)| CategoryRow {
        id: at + 1,
        name: category.name(),
    };
    let categories = CATEGORIES.iter().enumerate().map(named).collect();
    let [boxes, texts] = ["instances.json", "captions.json"].map(|name| folder.join(name));
    let of_captions = Annotated {
        info: info.clone(),
        images: rows.clone(),
        annotations: captions,
        categories: Vec::new(),
    };
    write_json(&texts, &of_captions)?;
    write_json(&boxes, &Annotated { info, images: rows, annotations: instances, categories })?;
    output::line(format!("{} images: {}", arguments.count, folder.display()))
}

/// The part of an object's box that lies in the image.
fn visible_box(object: &PlacedObject) -> [u32; 4] {
    let side = |start: i32, length: u32| {
        let end = (i64::from(start) + i64::from(length)).clamp(0, i64::from(IMAGE_SIZE)) as u32;
        let start = start.max(0).unsigned_abs().min(end);
        (start, end - start)
    };
    let ((x, width), (y, height)) = (side(object.x, object.width), side(object.y, object.height));
    [x, y, width, height]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounding_boxes_are_clipped_to_the_image() {
        let object = |x, y| PlacedObject {
            category: 0,
            sprite: 0,
            x,
            y,
            width: 20,
            height: 30,
            size: 0,
            flipped: false,
            brightness: 100,
            opacity: 100,
        };
        let edge = IMAGE_SIZE as i32;
        assert_eq!(visible_box(&object(3, 4)), [3, 4, 20, 30]);
        assert_eq!(visible_box(&object(-5, edge - 10)), [0, IMAGE_SIZE - 10, 15, 10]);
    }
}
