//! The built-in synthetic dataset: what a scene is, and that captions say of it what they claim to say.

mod captions;
mod hard;
mod matcher;
mod nouns;
mod pins;
mod rates;
mod scenes;
mod vocabulary;
