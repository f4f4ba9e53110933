//! An adapter's folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fisao_formats::adapter::Adapter;
use fisao_formats::adapter::{ADAPTER_WEIGHTS_FILE, LinearUpdate};
use fisao_formats::weights::Layout;
use fisao_formats::weights::LoadDtype;
use fisao_formats::weights::SafetensorsSource;
use fisao_runs::Reporter;

use super::{Inspection, Part, Use, Weighed, weigh};

pub(super) fn inspect(
    folder: &Path,
    check: bool,
    reporter: &Reporter,
) -> anyhow::Result<Inspection> {
    let adapter = Adapter::read(folder)?;
    let path = folder.join(ADAPTER_WEIGHTS_FILE);
    let weights = SafetensorsSource::open_file(&path, Layout::CONTRASTIVE, LoadDtype::AsStored)?;
    let Weighed { dtypes, files, bytes } = weigh(&weights, check, reporter)?;
    let parts = parts(&adapter);
    Ok(Inspection {
        path: folder.display().to_string(),
        kind: "adapter".to_owned(),
        architecture: architecture(&adapter),
        parameters: parts.iter().map(|part| part.parameters).sum(),
        parts,
        dtypes,
        files,
        bytes,
        naming: "PEFT".to_owned(),
        unused: Vec::new(),
        uses: uses(&adapter),
    })
}

fn parts(adapter: &Adapter) -> Vec<Part> {
    let mut parts = BTreeMap::<&str, u64>::new();
    for (name, update) in &adapter.updates {
        let layer = name.rsplit('.').next().unwrap_or(name);
        let size = |shape: &[usize]| shape.iter().product::<usize>() as u64;
        *parts.entry(layer).or_default() += size(update.a.shape()) + size(update.b.shape());
    }
    let parts = parts.into_iter();
    parts.map(|(name, parameters)| Part { name: name.to_owned(), parameters }).collect()
}

fn architecture(adapter: &Adapter) -> String {
    let ranks: BTreeSet<usize> = adapter.updates.values().map(LinearUpdate::rank).collect();
    let ranks: Vec<String> = ranks.iter().map(ToString::to_string).collect();
    let base = adapter.base_model().unwrap_or("an unnamed model");
    format!(
        "LoRA of rank {} on {} linear layers of {base}",
        ranks.join(", "),
        adapter.updates.len()
    )
}

fn uses(adapter: &Adapter) -> Vec<Use> {
    let tower = adapter.vision_layers();
    let note = if tower == 0 {
        "with its base as --model".to_owned()
    } else {
        format!(
            "with its base as --model, and --allow-vision-adapter: {tower} of its layers are of the vision \
             tower"
        )
    };
    vec![Use::with("caption", note.clone()), Use::with("merge", note)]
}
