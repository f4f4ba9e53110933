"""Token rewards for verl 0.9.

::

    python -m verl.trainer.main_ppo … \\
        reward.num_workers=1 \\
        reward.reward_manager.source=importlib \\
        reward.reward_manager.module.path=pkg://fisao.verl \\
        reward.reward_manager.name=TokenRewardManager \\
        +reward.reward_kwargs.fisao.verifier=openai/clip-vit-large-patch14-336 \\
        +reward.reward_kwargs.fisao.calibration=calibration.json

verl calls ``assemble_rm_scores`` where it scores whole batches (``compute_rm_score``). Where it
scores responses while others are still sampled, it has room for one number for each response, and
gets the sum of the token rewards, which it puts on the last token.
"""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ._errors import FisaoError, InvalidParams
from ._images import Image
from ._spans import text_tokenizer
from ._verifier import Verifier
from .trl import is_truncated

if TYPE_CHECKING:
    import torch

__all__ = ["TokenRewardManager", "TokenRewards"]


class TokenRewards(float):
    """Rewards of the tokens of one response. As a number it is their sum."""

    token_rewards: List[float]

    def __new__(cls, token_rewards: Sequence[float]) -> TokenRewards:
        """From one reward for each token."""
        value = super().__new__(cls, sum(token_rewards))
        value.token_rewards = [float(reward) for reward in token_rewards]
        return value

    def __reduce__(self) -> Tuple[Any, ...]:
        return TokenRewards, (self.token_rewards,)


class TokenRewardManager:
    """A reward manager of verl, with the methods of its ``RewardManagerBase``.

    ``config.reward.reward_kwargs.fisao`` holds the arguments of ``fisao.Verifier``. Each process
    starts one verifier: set ``reward.num_workers`` accordingly. The image is the first of the
    columns ``images``, ``image`` or ``multi_modal_data``, or of the prompt.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any = None,
        reward_router_address: Optional[str] = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        self.config = config
        self.tokenizer = text_tokenizer(tokenizer)
        self.verifier = _verifier(_options(config))

    @classmethod
    def init_class(cls, config: Any, tokenizer: Any) -> None:
        """Nothing is shared."""

    async def run_single(self, data: Any) -> Dict[str, Any]:
        """Rewards of the last response of ``data``, a ``DataProto``."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._reward, data[-1:][0])

    def _reward(self, item: Any) -> Dict[str, Any]:
        responses = item.batch["responses"]
        length = int(item.batch["attention_mask"][-responses.shape[-1] :].sum())
        ids = responses[:length].tolist()
        image = first_image(item.non_tensor_batch)
        truncated = is_truncated(ids, self.tokenizer)
        completion = self.verifier.rewarded_completions(
            [image], None, [ids], self.tokenizer, [truncated]
        )[0]
        mentions = [each for each in completion.mentions if each.p_hallucinated is not None]
        likely = sum(each.p_hallucinated or 0.0 for each in mentions)
        return {
            "reward_score": TokenRewards(completion.rewards),
            "reward_extra_info": {
                "fisao_mentions": len(mentions),
                "fisao_hallucinated": likely,
                "fisao_truncated": float(truncated),
            },
        }

    @classmethod
    def assemble_rm_scores(cls, data: Any, scores: Sequence[float]) -> torch.Tensor:
        """Rewards of all tokens, ``(B, T)``: zero where a response has none, and on padding.

        * ``data``: a batch with ``prompts``, ``responses`` and ``attention_mask``.
        * ``scores``: ``TokenRewards``, or numbers, which go to the last token.
        """
        import torch

        responses = data.batch["responses"]
        prompt_length = data.batch["prompts"].size(1)
        lengths = data.batch["attention_mask"][:, prompt_length:].sum(dim=1).tolist()
        if len(scores) != len(lengths):
            raise FisaoError(f"there are {len(scores)} scores for {len(lengths)} responses")
        rm_scores = torch.zeros_like(responses, dtype=torch.float32)
        for row, (score, length) in enumerate(zip(scores, lengths)):
            rewards = getattr(score, "token_rewards", None)
            if rewards is None:
                rm_scores[row, length - 1] = score
            elif len(rewards) != length:
                raise FisaoError(
                    f"response {row} has {length} tokens and {len(rewards)} rewards",
                    hint="score responses after they were truncated, not before",
                )
            else:
                rm_scores[row, :length] = rm_scores.new_tensor(rewards)
        return rm_scores


def first_image(columns: Mapping[str, Any]) -> Image:
    """The image of a sample: of its columns, or of the messages of its prompt."""
    data = columns.get("multi_modal_data")
    found = data.get("images") if isinstance(data, Mapping) else None
    for images in (columns.get("images"), columns.get("image"), found):
        if images is None:
            continue
        if not isinstance(images, (list, tuple)):
            return images
        if images:
            return images[0]
    for message in columns.get("raw_prompt", ()):
        content = message.get("content")
        for part in content if isinstance(content, (list, tuple)) else ():
            if isinstance(part, Mapping) and part.get("type") == "image":
                image = part.get("image", part)
                if isinstance(image, str) and image.startswith("file://"):
                    return image[len("file://") :]
                return image
    raise InvalidParams(
        "a sample has no image",
        hint="the data needs a column 'images' (data.image_key), and <image> in its prompts",
    )


def _options(config: Any) -> Dict[str, Any]:
    reward = config.get("reward") or {}
    options = (reward.get("reward_kwargs") or {}).get("fisao") or {}
    if hasattr(options, "items") and not isinstance(options, dict):
        from omegaconf import OmegaConf

        options = OmegaConf.to_container(options, resolve=True)
    return dict(options)


_verifiers: Dict[str, Verifier] = {}
_lock = threading.Lock()


def _verifier(options: Mapping[str, Any]) -> Verifier:
    """The verifier of this process with these options."""
    key = json.dumps(options, sort_keys=True)
    with _lock:
        if key not in _verifiers:
            _verifiers[key] = Verifier(**options)
        return _verifiers[key]
