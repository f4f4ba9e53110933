//! A checkpoint's weights as the models ask for them: by canonical name and expected shape.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use fisao_models::weights::{Init, WeightError, WeightSource};
use serde::{Deserialize, Serialize};

use super::layout::{Layout, is_constant};
use super::mapped_file::{MappedFile, StoredTensor};
use super::writer::WEIGHTS_FILE;
use crate::FormatError;
use crate::documents::read_json;

/// The list of shards of a checkpoint in several files.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";
/// What the list of shards is called in errors.
pub(crate) const SHARD_LIST: &str = "list of weight files";
/// Files that hold weights as Python pickles.
pub(crate) const PICKLES: [&str; 3] =
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"];

/// The precision weights are given to the model in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LoadDtype {
    /// As the file holds them.
    #[default]
    AsStored,
    /// Widened to f32, whatever the file holds.
    F32,
    /// Rounded to bf16.
    Bf16,
    /// Rounded to f16.
    F16,
}

/// The weights of a checkpoint in one or several safetensors files.
#[derive(Debug)]
pub struct SafetensorsSource {
    layout: Layout,
    /// The one file, or the folder of several.
    origin: PathBuf,
    files: Vec<MappedFile>,
    /// Canonical name → file and key in it.
    places: HashMap<String, Place>,
    used: HashSet<String>,
    dtype: LoadDtype,
}

#[derive(Clone, Debug)]
struct Place {
    file: usize,
    /// Among the file's tensors, in the order of their data.
    position: usize,
    key: String,
}

/// What the list of shards says.
#[derive(Deserialize)]
pub(crate) struct ShardIndex {
    /// Key → file name.
    pub(crate) weight_map: HashMap<String, String>,
}

impl ShardIndex {
    /// Reads a list of shards; refuses one without any, and shards that are anywhere but beside it.
    pub(crate) fn read(path: &Path) -> Result<Self, FormatError> {
        let index: Self = read_json(SHARD_LIST, path)?;
        let malformed =
            |reason| FormatError::Malformed { what: SHARD_LIST, path: path.into(), reason };
        if index.weight_map.is_empty() {
            return Err(malformed("it names no tensor".to_owned()));
        }
        let beside = |name: &&String| Path::new(name).file_name() == Some(name.as_ref());
        match index.weight_map.values().find(|name| !beside(name)) {
            Some(name) => Err(malformed(format!("`{name}` is not the name of a file beside it"))),
            None => Ok(index),
        }
    }
}

impl SafetensorsSource {
    /// Opens the weights of a checkpoint folder: `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// There are none, or only pickles; a file is truncated or damaged; two keys are one tensor; a
    /// shard lacks a tensor that the index promises.
    pub fn open(folder: &Path, layout: Layout, dtype: LoadDtype) -> Result<Self, FormatError> {
        let single = folder.join(WEIGHTS_FILE);
        let index = folder.join(INDEX_FILE);
        if single.exists() || !index.exists() {
            if !single.exists() {
                refuse_pickles(folder)?;
            }
            return Self::open_file(&single, layout, dtype);
        }
        let index = ShardIndex::read(&index)?;
        let mut names = index.weight_map.values().collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        let files = names
            .iter()
            .map(|name| MappedFile::open(&folder.join(name)))
            .collect::<Result<Vec<_>, _>>()?;
        for (tensor, name) in &index.weight_map {
            let file = names.binary_search(&name).expect("every file of the index was opened");
            if files[file].tensor(tensor).is_none() {
                return Err(FormatError::MissingTensor {
                    path: files[file].path().to_owned(),
                    tensor: tensor.clone(),
                });
            }
        }
        Self::new(folder.to_owned(), files, layout, dtype)
    }

    /// Opens one safetensors file.
    ///
    /// # Errors
    /// It is absent, truncated or damaged, or two of its keys are one tensor.
    pub fn open_file(path: &Path, layout: Layout, dtype: LoadDtype) -> Result<Self, FormatError> {
        Self::new(path.to_owned(), vec![MappedFile::open(path)?], layout, dtype)
    }

    fn new(
        origin: PathBuf,
        files: Vec<MappedFile>,
        layout: Layout,
        dtype: LoadDtype,
    ) -> Result<Self, FormatError> {
        let mut places = HashMap::<String, Place>::new();
        for (index, file) in files.iter().enumerate() {
            for (position, key) in file.keys().into_iter().enumerate() {
                let canonical = layout.canonical(&key);
                if let Some(first) = places.get(&canonical) {
                    return Err(FormatError::DuplicateTensor {
                        path: file.path().to_owned(),
                        first: first.key.clone(),
                        second: key,
                        canonical,
                    });
                }
                places.insert(canonical, Place { file: index, position, key });
            }
        }
        Ok(Self { layout, origin, files, places, used: HashSet::new(), dtype })
    }

    /// Whether there is a tensor of this canonical name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Canonical name, stored type ("BF16") and shape of every tensor, sorted by name.
    pub fn inventory(&self) -> Vec<(&str, String, &[usize])> {
        let tensors = self.sizes().into_iter().map(|(name, dtype, _, shape)| (name, dtype, shape));
        let mut tensors = tensors.collect::<Vec<_>>();
        tensors.sort_unstable();
        tensors
    }

    /// Canonical name, stored type ("BF16"), bytes and shape of every tensor, in the order in which they
    /// are stored.
    pub fn sizes(&self) -> Vec<(&str, String, u64, &[usize])> {
        let sizes = self.names().into_iter().filter_map(|name| {
            let tensor = self.stored(name)?;
            Some((name, tensor.dtype_name(), tensor.bytes().len() as u64, tensor.shape()))
        });
        sizes.collect()
    }

    /// Path and length of every file.
    pub fn files(&self) -> Vec<(&Path, u64)> {
        self.files.iter().map(|file| (file.path(), file.length())).collect()
    }

    /// The release whose names the tensors are stored under.
    pub fn naming(&self) -> &'static str {
        self.layout.release(&self.places.values().map(|place| place.key.as_str()))
    }

    /// Reads every value and refuses a tensor with one that is NaN or infinite. `advance` is told
    /// how many more bytes have been read.
    ///
    /// # Errors
    /// [`FormatError::NotFinite`] for the first such tensor.
    pub fn check_finite(&self, advance: &mut dyn FnMut(u64)) -> Result<(), FormatError> {
        for name in self.names() {
            self.check_length(name)?;
            let tensor = self.stored(name).expect("the name is one of the file's");
            let count = tensor.count_not_finite();
            if count > 0 {
                let (path, key) = self.place(name).expect("the name is one of the file's");
                let (path, tensor) = (path.to_owned(), key.to_owned());
                return Err(FormatError::NotFinite { path, tensor, count });
            }
            advance(tensor.bytes().len() as u64);
        }
        Ok(())
    }

    /// Canonical name of every tensor, in the order in which they are stored.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut places = self.places.iter().collect::<Vec<_>>();
        places.sort_unstable_by_key(|(_, place)| (place.file, place.position));
        places.into_iter().map(|(name, _)| name.as_str()).collect()
    }

    /// A tensor as it is stored.
    pub(crate) fn stored(&self, name: &str) -> Option<StoredTensor<'_>> {
        let place = self.places.get(name)?;
        self.files[place.file].tensor(&place.key)
    }

    /// Refuses to read on in a tensor's file if somebody has shortened it.
    pub(crate) fn check_length(&self, name: &str) -> Result<(), FormatError> {
        self.places.get(name).map_or(Ok(()), |place| self.files[place.file].check_length())
    }

    /// The file that a tensor is in, and its key there.
    pub(crate) fn place(&self, name: &str) -> Option<(&Path, &str)> {
        let place = self.places.get(name)?;
        Some((self.files[place.file].path(), &place.key))
    }

    /// The stored keys that the model has not asked for, sorted; constants that old releases stored
    /// are not counted. Call it when the model is built: a long list means that the checkpoint is of
    /// another architecture than the configuration says.
    pub fn finish(self) -> Vec<String> {
        let mut unused = self
            .places
            .into_iter()
            .filter(|(name, place)| !self.used.contains(name) && !is_constant(&place.key))
            .map(|(_, place)| place.key)
            .collect::<Vec<_>>();
        unused.sort_unstable();
        unused
    }

    /// What has packed a matrix that is not there as such, by the tensors that are there in its place.
    fn quantised_by(&self, name: &str) -> Option<&'static str> {
        let map = name.strip_suffix(".weight")?;
        let packed = [
            ("qweight", "GPTQ or AWQ"),
            ("weight_packed", "compressed-tensors"),
            ("weight_scale", "FP8 or compressed-tensors"),
            ("weight.absmax", "bitsandbytes"),
            ("SCB", "bitsandbytes"),
        ];
        let there = packed.iter().find(|(ending, _)| self.contains(&format!("{map}.{ending}")));
        there.map(|&(_, by)| by)
    }

    /// A model's complaint about these weights, with the file it is about.
    pub fn explain(&self, error: WeightError) -> FormatError {
        let place = |name: &str| match self.places.get(name) {
            Some(place) => (self.files[place.file].path().to_owned(), place.key.clone()),
            None => (self.origin.clone(), name.to_owned()),
        };
        match error {
            WeightError::Missing { name } => match self.quantised_by(&name) {
                Some(by) => FormatError::Quantised { path: self.origin.clone(), by: by.to_owned() },
                None => FormatError::MissingTensor { path: self.origin.clone(), tensor: name },
            },
            WeightError::Shape { name, expected, found } => {
                let (path, tensor) = place(&name);
                FormatError::TensorShape { path, tensor, expected, found }
            }
            WeightError::Dtype { name, found } => {
                let (path, tensor) = place(&name);
                match self.quantised_by(&name) {
                    Some(by) => FormatError::Quantised { path, by: by.to_owned() },
                    None => FormatError::TensorDtype { path, tensor, found },
                }
            }
            WeightError::Other(reason) => {
                FormatError::Weights { path: self.origin.clone(), reason }
            }
        }
    }
}

impl WeightSource for SafetensorsSource {
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        _init: Init,
    ) -> Result<TensorData, WeightError> {
        let Some(stored) = self.stored(name) else {
            return Err(WeightError::Missing { name: name.to_owned() });
        };
        self.check_length(name).map_err(|error| WeightError::Other(error.to_string()))?;
        // A single value may be stored as a scalar or as a vector of one.
        let single = |shape: &[usize]| shape.len() <= 1 && shape.iter().product::<usize>() == 1;
        if stored.shape() != shape && !(single(stored.shape()) && single(shape)) {
            return Err(WeightError::Shape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: stored.shape().to_vec(),
            });
        }
        let data = match self.dtype {
            LoadDtype::AsStored => stored.as_stored(shape),
            LoadDtype::F32 => stored.converted(shape, DType::F32),
            LoadDtype::Bf16 => stored.converted(shape, DType::BF16),
            LoadDtype::F16 => stored.converted(shape, DType::F16),
        };
        let Some(data) = data else {
            return Err(WeightError::Dtype { name: name.to_owned(), found: stored.dtype_name() });
        };
        self.used.insert(name.to_owned());
        Ok(data)
    }
}

/// An error if the folder has weights, but none that are safe to open.
fn refuse_pickles(folder: &Path) -> Result<(), FormatError> {
    for file in PICKLES {
        if folder.join(file).exists() {
            return Err(FormatError::PickleOnly { path: folder.into(), file: file.into() });
        }
    }
    Ok(())
}
