//! The clipped surrogate without a value head: responses to one image are each other's baseline (RLOO, arXiv 2402.14740).

use super::definition::{
    AdvantageInputs, Advantages, Data, LossInputs, ObjectiveDefinition, ObjectiveLoss,
};
use super::ppo::surrogate;
use crate::error::AlignError;
use crate::group::{GroupBaseline, GroupRelativeConfig, group_advantages};
use crate::ppo::KlConfig;

impl ObjectiveDefinition for GroupRelativeConfig {
    fn name(&self) -> &'static str {
        "group-relative"
    }

    fn data(&self) -> Data {
        Data::Sampled
    }

    fn validate(&self) -> Result<(), AlignError> {
        Self::validate(self)
    }

    fn compares_responses(&self) -> bool {
        self.baseline == GroupBaseline::LeaveOneOut
    }

    fn maximises_reward(&self) -> bool {
        true
    }

    fn kl(&self) -> Option<&KlConfig> {
        Some(&self.kl)
    }

    fn kl_mut(&mut self) -> Option<&mut KlConfig> {
        Some(&mut self.kl)
    }

    fn advantages(&self, inputs: &AdvantageInputs<'_>) -> Option<Advantages> {
        let mut advantages = Vec::with_capacity(inputs.responses.rewards.len());
        for &size in inputs.responses.groups {
            let rows = &inputs.responses.rewards[advantages.len()..][..size];
            advantages.extend(group_advantages(rows, self.gamma, self.baseline));
        }
        Some(Advantages { advantages, critic: None, whiten: self.whiten })
    }

    fn loss(&self, inputs: LossInputs<'_>) -> ObjectiveLoss {
        surrogate(inputs, self.clip(), self.entropy_coefficient)
    }
}
