//! What of a run changes, to be saved and restored.

use std::collections::BTreeMap;

use fisao_models::adamw::Moments;
use fisao_models::parameters::Parameters;
use serde::{Deserialize, Serialize};

use super::Trainer;
use crate::error::AlignError;
use crate::guards::Baseline;
use crate::length::LengthController;
use crate::ppo::KlController;
use crate::recall::RecallController;

/// Everything that changes during a run; together with configuration and data it determines the rest
/// of the run bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Iterations done.
    pub iteration: usize,
    /// Values of adapter and value head by name.
    pub parameters: BTreeMap<String, Vec<f32>>,
    /// First and second moments of the optimiser by name.
    pub moments: BTreeMap<String, (Vec<f32>, Vec<f32>)>,
    /// Optimiser steps done.
    pub optimiser_steps: u64,
    /// Of these, those that updated each parameter; empty in states of earlier versions, which counted all for every one.
    #[serde(default)]
    pub parameter_steps: BTreeMap<String, u64>,
    /// β and its controller, for objectives that have it.
    pub kl: Option<KlController>,
    /// What metrics are compared with.
    pub baseline: Option<Baseline>,
    /// Recall of the base model on the validation tasks.
    pub base_recall: Option<f64>,
    /// Expected correct mentions of the base model per caption of the validation tasks.
    #[serde(default)]
    pub base_correct: Option<f64>,
    /// The recall constraint, for runs that have it.
    #[serde(default)]
    pub recall: Option<RecallController>,
    /// The length constraint, for runs that have it.
    #[serde(default)]
    pub length: Option<LengthController>,
    /// Iterations in a row, up to now, that gave reason to stop.
    #[serde(alias = "hopeless")]
    pub unrecoverable: usize,
    /// Whether int8 weights are no longer sampled with, as `guards.sampler-kl` was exceeded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub int8_sampling_left: bool,
}

impl TrainerState {
    /// That it is consistent: moments belong to parameters and have their size, and tensors and recall constraint are finite.
    ///
    /// # Errors
    /// [`AlignError::State`] names the first tensor or number that is not.
    pub fn check(&self) -> Result<(), AlignError> {
        let wrong = |what: String| Err(AlignError::State(what));
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        for (name, values) in &self.parameters {
            if !finite(values) {
                return wrong(format!("tensor `{name}` holds NaN or infinite values"));
            }
        }
        for (name, (first, second)) in &self.moments {
            let Some(values) = self.parameters.get(name) else {
                return wrong(format!("it has moments of `{name}`, but no such tensor"));
            };
            if first.len() != values.len() || second.len() != values.len() {
                let (first, second, values) = (first.len(), second.len(), values.len());
                return wrong(format!(
                    "the moments of `{name}` have {first} and {second} values for {values}"
                ));
            }
            if !finite(first) || !finite(second) || second.iter().any(|&value| value < 0.0) {
                return wrong(format!("the moments of `{name}` are not those of an optimiser"));
            }
        }
        if let Some(name) =
            self.parameter_steps.keys().find(|name| !self.moments.contains_key(*name))
        {
            return wrong(format!("it counts steps of `{name}`, which has no moments"));
        }
        if self.parameter_steps.values().any(|&steps| steps > self.optimiser_steps) {
            return wrong("it counts more steps of a tensor than of the optimiser".to_owned());
        }
        let recall = self.recall.is_none_or(|recall| recall.is_finite());
        let base = [self.base_recall, self.base_correct].into_iter().flatten().all(f64::is_finite);
        if !recall || !base {
            return wrong("its recall constraint holds NaN or infinite values".to_owned());
        }
        if self.length.is_some_and(|length| !length.is_finite()) {
            return wrong("its length constraint holds NaN or infinite values".to_owned());
        }
        Ok(())
    }
}

impl Trainer<'_> {
    /// Everything that changes.
    pub fn state(&self) -> TrainerState {
        let mut parameters = BTreeMap::new();
        self.learner.clone().visit_mut("", &mut |name, parameter| {
            parameters.insert(name.to_owned(), parameter.values());
        });
        let moments = self.optimiser.moments.iter();
        TrainerState {
            iteration: self.iteration,
            parameters,
            moments: moments
                .clone()
                .map(|(name, m)| (name.clone(), (m.first.clone(), m.second.clone())))
                .collect(),
            optimiser_steps: self.optimiser.step,
            parameter_steps: moments.map(|(name, m)| (name.clone(), m.steps)).collect(),
            kl: self.kl.clone(),
            baseline: self.baseline,
            base_recall: self.base_recall,
            base_correct: self.base_correct,
            recall: self.recall,
            length: self.length,
            unrecoverable: self.unrecoverable,
            int8_sampling_left: self.int8_sampling_left,
        }
    }

    /// Restores a saved state.
    ///
    /// # Errors
    /// [`AlignError::State`] when tensors are missing, have another size or hold NaN or infinite values. The run is as before then.
    pub fn restore(&mut self, state: TrainerState) -> Result<(), AlignError> {
        state.check()?;
        self.check_parameters(&state)?;
        let iterations = self.config.align.iterations;
        if state.iteration > iterations {
            return Err(AlignError::State(format!(
                "{} iterations are done, more than align.iterations = {iterations}",
                state.iteration
            )));
        }
        self.learner.visit_mut("", &mut |name, mut parameter| {
            if let Some(values) = state.parameters.get(name) {
                parameter.set_values(values.clone());
            }
        });
        self.optimiser.step = state.optimiser_steps;
        self.optimiser.moments = state
            .moments
            .into_iter()
            .map(|(name, (first, second))| {
                let steps = state.parameter_steps.get(&name).copied();
                let steps = steps.unwrap_or(state.optimiser_steps);
                (name, Moments { first, second, steps })
            })
            .collect();
        self.iteration = state.iteration;
        self.kl = state.kl;
        self.baseline = state.baseline;
        self.base_recall = state.base_recall;
        self.base_correct = state.base_correct;
        self.unrecoverable = state.unrecoverable;
        self.int8_sampling_left = state.int8_sampling_left;
        if let (Some(controller), Some(saved)) = (&mut self.recall, state.recall) {
            *controller = saved;
        }
        // A run of an earlier version goes on without the constraint, as it began.
        if self.length.is_some() {
            self.length = state.length;
        }
        self.follow_recall()
    }

    /// That a state holds the parameters of this run, each of its size, and no others.
    fn check_parameters(&self, state: &TrainerState) -> Result<(), AlignError> {
        let mut wrong = None;
        let mut found = 0;
        self.learner.clone().visit_mut("", &mut |name, parameter| {
            let expected: usize = parameter.shape().iter().product();
            match state.parameters.get(name).map(Vec::len) {
                Some(values) if values == expected => found += 1,
                Some(values) => {
                    wrong = Some(format!("tensor `{name}` has {values} values for {expected}"));
                }
                None => wrong = Some(format!("tensor `{name}` is missing")),
            }
        });
        if let Some(wrong) = wrong {
            return Err(AlignError::State(wrong));
        }
        if found != state.parameters.len() {
            return Err(AlignError::State("it holds tensors this run does not have".to_owned()));
        }
        Ok(())
    }
}
