//! The names under which releases have stored the same tensors.
//!
//! Models ask for one canonical name; keys of every other layout are translated when a file is opened.

/// The family of names a file's keys belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Prefixes of stored keys and what stands for them in the canonical ones; the first that matches is taken, so a prefix
    /// stands before its own beginnings.
    pub(crate) prefixes: &'static [(&'static str, &'static str)],
    /// Prefixes that tell what wrote a file, as a person would say it; the first that occurs is taken.
    pub(crate) releases: &'static [(&'static str, &'static str)],
}

impl Layout {
    /// A CLIP or SigLIP checkpoint; they have only ever had one layout.
    pub const CONTRASTIVE: Self = Self {
        prefixes: &[],
        releases: &[("text_model.", "as published (text_model.*, vision_model.*)")],
    };

    /// A BLIP-2 image–text model; its one layout.
    pub const BLIP2: Self = Self {
        prefixes: &[],
        releases: &[("qformer.", "as published (qformer.*, vision_model.*)")],
    };

    /// The canonical name of a stored key; a key of no known layout is its own.
    pub fn canonical(self, key: &str) -> String {
        self.translated(key).unwrap_or_else(|| key.to_owned())
    }

    /// The canonical name of a stored key with one of the prefixes.
    pub(crate) fn translated(self, key: &str) -> Option<String> {
        self.prefixes.iter().find_map(|(prefix, canonical)| {
            key.strip_prefix(prefix).map(|rest| format!("{canonical}{rest}"))
        })
    }

    /// What wrote tensors under these names, as a person would say it.
    pub(super) fn release<'a>(
        self,
        keys: &(impl Iterator<Item = &'a str> + Clone),
    ) -> &'static str {
        let some = |prefix: &str| keys.clone().any(|key| key.starts_with(prefix));
        self.releases.iter().find(|(prefix, _)| some(prefix)).map_or("unknown", |(_, said)| *said)
    }
}

/// Tensors that old releases stored although they are constants of the architecture.
pub(crate) fn is_constant(key: &str) -> bool {
    key.ends_with(".position_ids") || key.ends_with(".rotary_emb.inv_freq")
}
