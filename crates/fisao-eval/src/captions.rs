//! Caption metrics against what people wrote: BLEU, ROUGE-L, CIDEr, METEOR.
//!
//! The numbers are those of pycocoevalcap 1.2, the scorer of the COCO caption challenge (Chen et al.,
//! *Microsoft COCO Captions*, 2015): the same tokens ([`caption_tokens`]), the same formulas. The module of each metric
//! states its formula.

mod bleu;
mod cider;
mod input;
mod meteor;
mod ngrams;
mod ptb;
mod report;
mod rouge_l;
mod score;

pub use bleu::BleuCounts;
pub use input::{CaptionInput, CaptionInputError, References, read_caption_rows, read_references};
pub use meteor::{MeteorCounts, MeteorStage, MeteorTableError, MeteorTables, WordCounts};
pub use ptb::{caption_tokens, treebank_tokens};
pub use report::{
    CaptionError, CaptionOptions, CaptionReport, CaptionScores, CaptionTokens, ImageScores,
};
pub use score::{CaptionSums, evaluate, intervals};
