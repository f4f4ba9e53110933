//! The built-in synthetic dataset: small images composed from emoji sprites, with captions whose truth is known.
//!
//! A [`World`] draws a [`Scene`] from (split, seed, index), renders it to a [`IMAGE_SIZE`]² image and knows
//! exactly which objects can be seen in it. [`clean_caption`] describes a scene truthfully; [`biased_caption`]
//! uses the same sentences but adds objects that typically go with what is there ([`companions`]): a model
//! tuned on such captions learns to name what it expects instead of what it sees.
//!
//! There are two of them ([`WorldKind`]): the clear one, and a hard one whose images are made hard to see by a few numbers
//! ([`Difficulty`]). What is in an image is known exactly in both.
//!
//! The sprites are Twemoji graphics, see [`World::sprite_attribution`].

mod background;
mod caption;
mod category;
mod difficulty;
mod graphics;
mod insertion;
mod layout;
mod look_alike;
mod noun;
mod phrase;
pub mod recipe;
mod scene;
mod sensor;
mod setting;
mod split;
mod sprite;
mod theme;
mod vocabulary;
mod world;

pub use background::{Background, Colour, Pattern};
pub use caption::{Caption, PROMPTS, biased_caption, clean_caption};
pub use category::{CATEGORIES, Category, SpriteRegion, SpriteSource};
pub use difficulty::{Difficulty, WorldKind};
pub use insertion::Insertion;
pub use noun::Noun;
pub use phrase::phrase;
pub use scene::{Place, PlacedObject, Scene};
pub use split::Split;
pub use theme::{Companion, Theme, companions};
pub use vocabulary::vocabulary;
pub use world::World;

/// Width and height of a rendered scene in pixels.
pub const IMAGE_SIZE: u32 = 96;
