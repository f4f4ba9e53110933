//! Whether an adapter and a model belong together.

use std::collections::BTreeMap;
use std::path::Path;

use super::names::{Side, is_decoder, is_vision, key, keys};
use super::rules::Rules;
use super::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Adapter, LinearUpdate, VisionAdapter};
use crate::FormatError;
use crate::checkpoint::{FamilyFormat, Naming};

/// The output matrix's canonical name.
const HEAD: &str = "language_model.lm_head";

/// Inputs and outputs of every linear layer of a model, by canonical name.
pub(crate) type LinearSizes = BTreeMap<String, [usize; 2]>;

/// Refuses an adapter that a model of these linear layers cannot take, or that would not compute what PEFT
/// computes with it.
pub(crate) fn check(
    adapter: &Adapter,
    layers: &LinearSizes,
    folder: &Path,
    vision: VisionAdapter,
) -> Result<(), FormatError> {
    let (config, path) = (folder.join(ADAPTER_CONFIG_FILE), folder.join(ADAPTER_WEIGHTS_FILE));
    let rules = adapter.rules(&config)?;
    let updates = &adapter.updates;
    if vision == VisionAdapter::Refuse {
        let touching = updates.iter().filter(|(name, _)| is_vision(name));
        let keys = touching.flat_map(|(_, update)| keys(&update.path)).collect::<Vec<_>>();
        if !keys.is_empty() {
            return Err(FormatError::AdapterTouchesVision { path, keys });
        }
    }
    if updates.contains_key(HEAD) && !layers.contains_key(HEAD) {
        return Err(FormatError::AdapterTied { path });
    }
    check_targets(&rules, layers, &config)?;
    let unmatched = updates.iter().filter(|(name, _)| !layers.contains_key(*name));
    let unmatched = unmatched.flat_map(|(_, update)| keys(&update.path)).collect::<Vec<_>>();
    let missing = missing(&rules, updates, layers)?;
    if !unmatched.is_empty() || !missing.is_empty() || updates.is_empty() {
        return Err(FormatError::AdapterMismatch { path, unmatched, missing });
    }
    for (name, update) in updates {
        check_shapes(&path, update, layers[name])?;
        check_numbers(&path, update)?;
    }
    check_selection(&rules, updates, path)
}

/// Every named target is a linear layer's.
fn check_targets(rules: &Rules, layers: &LinearSizes, config: &Path) -> Result<(), FormatError> {
    let paths =
        layers.keys().flat_map(|name| FamilyFormat::all_namings().map(|naming| naming.path(name)));
    let targets = rules.idle_targets(&paths.collect::<Vec<_>>());
    if targets.is_empty() {
        return Ok(());
    }
    Err(FormatError::AdapterTargets { path: config.to_owned(), targets })
}

/// The keys of linear layers that the configuration selects and the file leaves out.
fn missing(
    rules: &Rules,
    updates: &BTreeMap<String, LinearUpdate>,
    layers: &LinearSizes,
) -> Result<Vec<String>, FormatError> {
    // Patterns are about the names that the trainer's release of transformers had, which the keys
    // tell; where they fit several, a linear layer is missing only if it would be by all of them.
    let fits = |naming: &&Naming| updates.iter().all(|(name, u)| naming.path(name) == u.path);
    let mut namings = FamilyFormat::all_namings().filter(fits).collect::<Vec<_>>();
    if namings.is_empty() {
        namings = FamilyFormat::all_namings().collect();
    }
    // The trained model had no vision tower and no projector where it was the language model alone.
    let alone = namings.iter().all(|naming| naming.is_of_decoder_alone());
    let alone = alone && updates.keys().all(|name| is_decoder(name));
    let expected = |name: &&String| !updates.contains_key(*name) && (!alone || is_decoder(name));
    let mut missing = Vec::new();
    for name in layers.keys().filter(expected) {
        let paths = namings.iter().map(|naming| naming.path(name)).collect::<Vec<_>>();
        let selected =
            paths.iter().map(|path| rules.select(path)).collect::<Result<Vec<_>, _>>()?;
        if selected.iter().all(|selected| *selected) {
            missing.extend(keys(&paths[0]));
        }
    }
    Ok(missing)
}

fn check_shapes(
    path: &Path,
    update: &LinearUpdate,
    [inputs, outputs]: [usize; 2],
) -> Result<(), FormatError> {
    let rank = update.rank();
    let shapes = [
        (Side::A, Some(&update.a), vec![rank, inputs]),
        (Side::B, Some(&update.b), vec![outputs, rank]),
        (Side::Base, update.base.as_ref(), vec![outputs, inputs]),
    ];
    for (side, data, expected) in shapes {
        let Some(data) = data else { continue };
        let tensor = key(&update.path, side);
        let found = data.shape().to_vec();
        if found != expected {
            return Err(FormatError::TensorShape { path: path.into(), tensor, expected, found });
        }
    }
    Ok(())
}

/// A NaN or infinite value makes logits NaN, or a whole row of a merged matrix.
fn check_numbers(path: &Path, update: &LinearUpdate) -> Result<(), FormatError> {
    let matrices = [
        (Side::A, Some(&update.a)),
        (Side::B, Some(&update.b)),
        (Side::Base, update.base.as_ref()),
    ];
    for (side, data) in matrices {
        let values = data.map(|data| data.try_to_vec::<f32>().expect("adapters are read as f32"));
        let count = values.into_iter().flatten().filter(|value| !value.is_finite()).count();
        if count > 0 {
            let tensor = key(&update.path, side);
            return Err(FormatError::NotFinite { path: path.into(), tensor, count });
        }
    }
    Ok(())
}

/// PEFT passes over matrices for a linear layer that its configuration does not select.
fn check_selection(
    rules: &Rules,
    updates: &BTreeMap<String, LinearUpdate>,
    path: std::path::PathBuf,
) -> Result<(), FormatError> {
    let mut unselected = Vec::new();
    for (name, update) in updates {
        let whole = FamilyFormat::all_namings().filter(|naming| !naming.is_of_inner_model());
        let paths = whole.map(|naming| naming.path(name)).chain([update.path.clone()]);
        let selected = paths.map(|path| rules.select(&path)).collect::<Result<Vec<_>, _>>()?;
        if !selected.contains(&true) {
            unselected.extend(keys(&update.path));
        }
    }
    if unselected.is_empty() {
        return Ok(());
    }
    Err(FormatError::AdapterUnselected { path, keys: unselected })
}
