//! The training loop of both stages: gradients over parts of a batch on all cores, AdamW, cosine
//! schedule, resumable state.

use std::collections::BTreeMap;

use fisao_models::adamw::{AdamW, AdamWConfig};
use fisao_models::muon::{Muon, MuonConfig};
use fisao_models::parallel::{cores, parallel_chunks};
use fisao_models::parameters::{
    GradientMap, ParameterMut, Parameters, SeveredGradient, add_gradients, clip_gradients,
};
use fisao_models::scoring::CudaError;
use fisao_models::text::TextError;
use fisao_models::weights::{WeightError, WeightSource};

/// Joint norm to which gradients are clipped.
const MAX_GRADIENT_NORM: f64 = 1.0;

/// Length and step size of one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageConfig {
    /// Number of updates.
    pub steps: u64,
    /// Scenes per update.
    pub batch: usize,
    /// Highest learning rate of AdamW: embeddings, norms, projections.
    pub learning_rate: f64,
    /// Highest learning rate of Muon: the matrices inside of the layers.
    pub matrix_learning_rate: f64,
    /// Updates over which the rate rises from 0; after that it falls to 0 along a cosine.
    pub warmup: u64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
}

impl StageConfig {
    /// Factor on the learning rates.
    fn schedule(&self, step: u64) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        let done = (step - self.warmup) as f64 / (self.steps - self.warmup).max(1) as f64;
        0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }

    /// AdamW as this stage uses it, with nothing seen.
    pub fn adamw(&self) -> AdamW {
        AdamW::new(AdamWConfig {
            beta2: 0.98,
            weight_decay: self.weight_decay,
            ..AdamWConfig::default()
        })
    }

    /// Muon as this stage uses it, with nothing seen.
    pub fn muon(&self) -> Muon {
        Muon::new(MuonConfig { weight_decay: self.weight_decay, ..MuonConfig::default() })
    }
}

/// Everything a stage needs to go on exactly where it was.
#[derive(Debug, Clone, PartialEq)]
pub struct StageState {
    /// Updates made.
    pub step: u64,
    /// Values of all trained tensors by name.
    pub parameters: BTreeMap<String, Vec<f32>>,
    /// Optimiser of embeddings, norms and projections.
    pub adamw: AdamW,
    /// Optimiser of the matrices inside of the layers.
    pub muon: Muon,
}

/// What a stage begins with.
pub enum Start<'a> {
    /// Random weights.
    Random,
    /// The weights of a model of the same sizes and vocabulary, trained on an easier world.
    Weights(&'a mut dyn WeightSource),
    /// The state in which it was interrupted.
    Saved(StageState),
}

/// Where a stage is.
#[derive(Debug, Clone, Copy)]
pub struct StageProgress {
    /// Updates made.
    pub step: u64,
    /// Updates in all.
    pub steps: u64,
    /// Loss of the last update.
    pub loss: f64,
}

/// What the observer wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Hand over the state through [`Observer::save`], then go on.
    Save,
    /// Hand over the state, then stop.
    SaveAndStop,
}

/// Watches a stage.
pub trait Observer {
    /// Called after every update.
    fn progress(&mut self, progress: StageProgress) -> Verdict;
    /// Receives the state that was asked for.
    ///
    /// # Errors
    /// A message; it ends the stage.
    fn save(&mut self, state: StageState) -> Result<(), String>;
}

/// Why the recipe could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// Building a model failed.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// A text could not be encoded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The card that a model runs on failed.
    #[error(transparent)]
    Card(#[from] CudaError),
    /// Part of the model is cut off from the loss.
    #[error(transparent)]
    Severed(#[from] SeveredGradient),
    /// A tokenizer could not be built.
    #[error("building the tokenizer failed: {0}")]
    Tokenizer(String),
    /// The loss is not a number.
    #[error("the loss became {loss} at update {step}: lower the learning rate")]
    Diverged {
        /// Update.
        step: u64,
        /// Loss.
        loss: f64,
    },
    /// The saved state has other tensors than the model.
    #[error("the saved state does not fit this recipe: {0}")]
    State(String),
    /// The observer asked to stop.
    #[error("stopped at update {step}; the state was saved")]
    Stopped {
        /// Updates made.
        step: u64,
    },
    /// Saving failed.
    #[error("saving the training state failed: {0}")]
    Save(String),
}

/// One stage: how to draw a batch and how to differentiate its loss.
pub(crate) trait Stage: Sync {
    type Model: Parameters + Clone + Send + Sync;
    type Item: Send + Sync;

    /// Whether a tensor is trained.
    fn trains(name: &str) -> bool;
    /// The scene of position `index` in the stream of training scenes, ready to be learned from.
    fn draw(&self, index: u64) -> Result<Self::Item, RecipeError>;
    /// Loss of a part and its gradients; both already divided so that parts add up.
    fn differentiate(
        &self,
        model: &mut Self::Model,
        items: &[Self::Item],
        batch: usize,
    ) -> Result<(f64, GradientMap), RecipeError>;
}

/// Trains `model` until the configured number of updates.
pub(crate) fn train<S: Stage>(
    stage: &S,
    model: &mut S::Model,
    config: &StageConfig,
    state: Option<StageState>,
    observer: &mut dyn Observer,
) -> Result<(), RecipeError> {
    let (mut adamw, mut muon) = (config.adamw(), config.muon());
    if let Some(state) = state {
        restore(model, &state)?;
        (adamw, muon) = (state.adamw, state.muon);
    }
    while adamw.step < config.steps {
        let step = adamw.step;
        let (loss, mut gradients) = differentiate_batch(stage, model, step, config.batch)?;
        if !loss.is_finite() {
            return Err(RecipeError::Diverged { step, loss });
        }
        clip_gradients(&mut gradients, MAX_GRADIENT_NORM);
        let schedule = config.schedule(step);
        let matrix_rate = config.matrix_learning_rate * schedule;
        muon.step(model, &is_inside_a_layer, &gradients, matrix_rate);
        adamw.update(model, &gradients, &|name, parameter| {
            let muons = is_inside_a_layer(name) && matches!(parameter, ParameterMut::Matrix(_));
            (!muons).then_some(config.learning_rate * schedule)
        });
        let verdict =
            observer.progress(StageProgress { step: step + 1, steps: config.steps, loss });
        if verdict != Verdict::Continue {
            observer.save(capture::<S>(model, &adamw, &muon)).map_err(RecipeError::Save)?;
        }
        if verdict == Verdict::SaveAndStop && adamw.step < config.steps {
            return Err(RecipeError::Stopped { step: adamw.step });
        }
    }
    Ok(())
}

fn differentiate_batch<S: Stage>(
    stage: &S,
    model: &S::Model,
    step: u64,
    batch: usize,
) -> Result<(f64, GradientMap), RecipeError> {
    let indices: Vec<u64> = (0..batch as u64).map(|at| step * batch as u64 + at).collect();
    let chunks = parallel_chunks(&indices, cores(), |chunk| {
        let items = chunk.iter().map(|&index| stage.draw(index)).collect::<Result<Vec<_>, _>>()?;
        let mut replica = model.clone();
        replica.train_where(&S::trains);
        stage.differentiate(&mut replica, &items, batch)
    });
    let mut total = GradientMap::new();
    let mut loss = 0.0;
    for chunk in chunks {
        let (chunk_loss, gradients) = chunk?;
        loss += chunk_loss;
        add_gradients(&mut total, &gradients);
    }
    Ok((loss, total))
}

/// Whether a tensor belongs to a layer; Muon trains the matrices of those.
fn is_inside_a_layer(name: &str) -> bool {
    name.contains(".layers.")
}

fn capture<S: Stage>(model: &mut S::Model, adamw: &AdamW, muon: &Muon) -> StageState {
    let mut parameters = BTreeMap::new();
    model.visit_mut("", &mut |name, parameter| {
        if S::trains(name) {
            parameters.insert(name.to_owned(), parameter.values());
        }
    });
    StageState { step: adamw.step, parameters, adamw: adamw.clone(), muon: muon.clone() }
}

fn restore(model: &mut impl Parameters, state: &StageState) -> Result<(), RecipeError> {
    let mut error = None;
    let mut found = 0;
    model.visit_mut("", &mut |name, mut parameter| {
        let Some(values) = state.parameters.get(name) else { return };
        found += 1;
        let expected: usize = parameter.shape().iter().product();
        if values.len() == expected {
            parameter.set_values(values.clone());
        } else {
            error = Some(format!("`{name}` has {} values, not {expected}", values.len()));
        }
    });
    if found != state.parameters.len() {
        error = Some(format!("{found} of {} tensors match", state.parameters.len()));
    }
    error.map_or(Ok(()), |message| Err(RecipeError::State(message)))
}
