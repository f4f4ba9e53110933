"""A ``GRPOTrainer`` whose advantages are those of tokens. Import it from ``fisao.trl``."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import torch
from accelerate.utils import gather_object
from trl.trainer.grpo_trainer import GRPOTrainer

from ._advantages import token_advantages
from ._errors import InvalidParams
from ._verifier import Verifier
from .trl import mention_metrics, rewarded_completions


class TokenRewardGRPOTrainer(GRPOTrainer):
    """``GRPOTrainer`` with an advantage for each token, by ``fisao.trl.token_advantages``.

    * ``verifier``: with a calibration. Its token rewards are logged as the reward ``fisao``.
    * ``gamma``, ``baseline``, ``whiten``: of ``token_advantages``.
    * ``reward_funcs``: further rewards of whole completions, added at their last token with the
      weights ``args.reward_weights``, whose first is that of the token rewards.

    Everything else is as in ``GRPOTrainer``. ``args.scale_rewards`` and
    ``args.multi_objective_aggregation`` have no effect: advantages are scaled over the batch, never
    within groups. Tools and environments are not supported.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        *args: Any,
        verifier: Verifier,
        gamma: float = 0.95,
        baseline: str = "leave-one-out",
        whiten: str = "scale",
        **kwargs: Any,
    ) -> None:
        for name in ("tools", "environment_factory"):
            if kwargs.get(name):
                raise InvalidParams(f"{name}: TokenRewardGRPOTrainer does not support it")
        token_advantages([], 1, gamma=gamma, baseline=baseline, whiten=whiten)
        self._verifier = verifier
        self._gamma, self._baseline, self._whiten = gamma, baseline, whiten
        # Of the batch that is being scored: rewards of this process's tokens, and of all functions.
        self._token_rewards: List[List[float]] = []
        self._rewards_per_func: Optional[torch.Tensor] = None

        def fisao(
            prompts: Sequence[Any],
            completions: Sequence[Any],
            completion_ids: Sequence[Sequence[int]],
            **columns: Any,
        ) -> List[float]:
            return self._sum_of_token_rewards(completions, completion_ids, columns)

        if reward_funcs is None:
            others: List[Any] = []
        elif isinstance(reward_funcs, (list, tuple)):
            others = list(reward_funcs)
        else:
            others = [reward_funcs]
        functions: List[Any] = [fisao, *others]
        super().__init__(model, functions, *args, **kwargs)

    def _sum_of_token_rewards(
        self,
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        columns: Dict[str, Any],
    ) -> List[float]:
        rewarded = rewarded_completions(
            self._verifier, self.processing_class, completions, completion_ids, columns
        )
        self._token_rewards = [completion.rewards for completion in rewarded]
        for key, value in mention_metrics(rewarded).items():
            columns["log_metric"](f"fisao/{key}", value)
        return [sum(rewards) for rewards in self._token_rewards]

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(*args, **kwargs)
        self._rewards_per_func = rewards
        return rewards

    def _generate_and_score_completions(self, inputs: List[Dict[str, Any]]) -> Dict[str, Any]:
        output: Dict[str, Any] = super()._generate_and_score_completions(inputs)
        model: Any = self.model
        group_size: Any = self.num_generations if model.training else self.num_generations_eval
        # A group may be spread over processes.
        rewards = gather_object(self._token_rewards)
        advantages = token_advantages(
            self._with_other_rewards(rewards),
            group_size,
            gamma=self._gamma,
            baseline=self._baseline,
            whiten=self._whiten,
        )
        own = len(self._token_rewards)
        first = self.accelerator.process_index * own
        padded = torch.zeros_like(output["completion_ids"], dtype=torch.float32)
        for row, values in zip(padded, advantages[first : first + own]):
            row[: len(values)] = torch.tensor(values, device=row.device)
        output["advantages"] = padded
        return output

    def _with_other_rewards(self, rewards: List[List[float]]) -> List[List[float]]:
        assert self._rewards_per_func is not None
        weights = self.reward_weights.to(self._rewards_per_func.device)
        others = (self._rewards_per_func * weights)[:, 1:].nansum(dim=1).tolist()
        weight = float(weights[0])
        weighted = [[weight * reward for reward in row] for row in rewards]
        for row, other in zip(weighted, others):
            if row:
                row[-1] += other
        return weighted
