//! The captions that are shown on the page: the most doubtful ones.

use std::path::{Path, PathBuf};

use crate::bundle::LoadedVerifier;
use crate::scorer::{ScoredCaption, ScoredMention, Scorer};
use fisao_formats::images::open_image;
use fisao_verifier::scorer::HeatMap;

use super::Judged;
use fisao_report::verdicts::{CaptionCard, VerdictPage, VerdictWord};

/// Captions of a bounded number, those kept whose most doubtful word is the most doubtful.
pub(super) struct Doubtful {
    most: usize,
    /// Captions seen, kept or not.
    seen: usize,
    kept: Vec<KeptMention>,
}

struct KeptMention {
    image_id: String,
    file: PathBuf,
    scored: ScoredCaption,
    doubt: f64,
}

/// How doubtful a caption's most doubtful word is: by probability, or by score where there is none.
fn doubt(scored: &ScoredCaption) -> f64 {
    let of_word = |mention: &ScoredMention| mention.p_hallucinated.unwrap_or(-mention.score);
    let words = scored.mentions.iter().filter(|mention| !mention.negated);
    words.map(of_word).fold(f64::NEG_INFINITY, f64::max)
}

impl Doubtful {
    pub(super) fn new(most: usize) -> Self {
        Self { most, seen: 0, kept: Vec::new() }
    }

    pub(super) fn add(&mut self, image_id: &str, file: &Path, scored: ScoredCaption) {
        self.seen += 1;
        if self.most == 0 {
            return;
        }
        let doubt = doubt(&scored);
        self.kept.push(KeptMention {
            image_id: image_id.to_owned(),
            file: file.to_owned(),
            scored,
            doubt,
        });
        // Sorting now and then is cheaper than finding each one's place.
        if self.kept.len() >= 2 * self.most {
            self.trim();
        }
    }

    /// Most doubtful first; of equals, the one that came first.
    fn trim(&mut self) {
        self.kept.sort_by(|a, b| b.doubt.total_cmp(&a.doubt));
        self.kept.truncate(self.most);
    }

    /// The page as HTML. Images are opened again, as keeping them all would take too much memory.
    pub(super) fn page(
        mut self,
        loaded: &LoadedVerifier,
        scorer: &Scorer,
        threshold: f64,
        summary: &str,
    ) -> anyhow::Result<String> {
        self.trim();
        let cards = self
            .kept
            .iter()
            .map(|kept| card(kept, loaded, scorer, threshold))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let page = VerdictPage {
            summary: summary.to_owned(),
            left_out: self.seen - cards.len(),
            calibrated: scorer.is_calibrated(),
            cards,
        };
        Ok(page.render())
    }
}

fn card(
    kept: &KeptMention,
    loaded: &LoadedVerifier,
    scorer: &Scorer,
    threshold: f64,
) -> anyhow::Result<CaptionCard> {
    let whole = loaded.views.of(&open_image(&kept.file)?).swap_remove(0);
    let maps = scorer.heat_maps(&whole, &kept.scored)?;
    let word = |(at, mention): (usize, &ScoredMention)| {
        let map: Option<HeatMap> = maps.as_ref().map(|maps| maps[at].clone());
        let judged = Judged::new(mention.clone(), threshold);
        VerdictWord {
            bytes: mention.bytes.clone(),
            category: mention.category.clone(),
            negated: mention.negated,
            score: mention.score,
            p_hallucinated: judged.p_hallucinated,
            hallucinated: judged.hallucinated,
            heat_map: map,
        }
    };
    Ok(CaptionCard {
        image_id: kept.image_id.clone(),
        image: loaded.views.shown(&whole),
        caption: kept.scored.caption.clone(),
        words: kept.scored.mentions.iter().enumerate().map(word).collect(),
    })
}
