"""Rewards, token advantages and a CHAIR callback for TRL's ``GRPOTrainer``.

::

    verifier = fisao.Verifier("openai/clip-vit-large-patch14-336", calibration="c.json")
    GRPOTrainer(model, reward_funcs=[fisao.trl.reward_func(verifier)], …)
    fisao.trl.TokenRewardGRPOTrainer(model, verifier=verifier, …)    # advantages of tokens
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence

from ._advantages import token_advantages
from ._errors import FisaoError, InvalidParams
from ._images import Image
from ._results import RewardedCompletion
from ._spans import text_tokenizer
from ._verifier import Verifier

if TYPE_CHECKING:
    from ._chair_callback import ChairCallback
    from ._grpo_trainer import TokenRewardGRPOTrainer

__all__ = ["ChairCallback", "TokenRewardGRPOTrainer", "reward_func", "token_advantages"]


def __getattr__(name: str) -> Any:
    # These need TRL, which is imported only for them.
    if name == "TokenRewardGRPOTrainer":
        from ._grpo_trainer import TokenRewardGRPOTrainer

        return TokenRewardGRPOTrainer
    if name == "ChairCallback":
        from ._chair_callback import ChairCallback

        return ChairCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def reward_func(
    verifier: Verifier, tokenizer: Any = None, *, name: str = "fisao"
) -> Callable[..., List[float]]:
    """A reward function for ``GRPOTrainer``: the sum of a completion's token rewards.

    * ``verifier``: with a calibration.
    * ``tokenizer``: the policy's tokenizer or processor. Default: that of the trainer that calls.
    * ``name``: what the trainer logs it as.

    The data set needs a column ``image`` or ``images``; of several images of one prompt the first
    counts. Also logs ``mentions`` and ``hallucinated_fraction``, the mean probability that a
    mention is hallucinated.
    """

    def reward(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        log_metric: Optional[Callable[[str, float], None]] = None,
        **columns: Any,
    ) -> List[float]:
        processing_class = tokenizer
        if processing_class is None:
            # TRL passes a method of the trainer, and no tokenizer.
            trainer = getattr(log_metric, "__self__", None)
            processing_class = getattr(trainer, "processing_class", None)
        if processing_class is None:
            raise FisaoError(
                "the reward function does not know the policy's tokenizer",
                hint="write reward_func(verifier, tokenizer)",
            )
        rewarded = rewarded_completions(
            verifier, processing_class, completions, completion_ids, columns
        )
        if log_metric is not None:
            for key, value in mention_metrics(rewarded).items():
                log_metric(f"{name}/{key}", value)
        return [sum(completion.rewards) for completion in rewarded]

    reward.__name__ = reward.__qualname__ = name
    return reward


def rewarded_completions(
    verifier: Verifier,
    tokenizer: Any,
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    columns: Mapping[str, Any],
) -> List[RewardedCompletion]:
    """Token rewards of what a trainer sampled."""
    inner = text_tokenizer(tokenizer)
    # With a template of responses, TRL takes texts apart, and they are no longer what ids spell.
    taken_apart = any(
        getattr(inner, name, None) is not None for name in ("response_template", "response_schema")
    )
    return verifier.rewarded_completions(
        first_images(columns, len(completion_ids)),
        None if taken_apart else completions,
        completion_ids,
        tokenizer,
        [is_truncated(ids, inner) for ids in completion_ids],
    )


def first_images(columns: Mapping[str, Any], count: int) -> List[Image]:
    """The first image of each row of a batch."""
    images = columns.get("images")
    if images is None:
        images = columns.get("image")
    if images is None:
        raise InvalidParams(
            "the data set has no column 'image' or 'images'",
            hint="add one, and set remove_unused_columns=False if the trainer drops it",
        )
    first = [row[0] if isinstance(row, (list, tuple)) and row else row for row in images]
    missing = [at for at, image in enumerate(first) if image is None or image == []]
    if missing or len(first) != count:
        what = f"row {missing[0]} of the batch has" if missing else f"{count} completions have"
        raise InvalidParams(f"{what} no image")
    return first


def is_truncated(ids: Sequence[int], tokenizer: Any) -> bool:
    """Whether a completion did not end by itself: its last token is neither end nor padding."""
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    return len(ids) > 0 and int(ids[-1]) not in ends


def mention_metrics(rewarded: Sequence[RewardedCompletion]) -> Dict[str, float]:
    """Mentions in a completion, and how probable it is that one is hallucinated."""
    mentions = [mention for completion in rewarded for mention in completion.mentions]
    metrics = {"mentions": len(mentions) / max(1, len(rewarded))}
    known = [each.p_hallucinated for each in mentions if each.p_hallucinated is not None]
    if known:
        metrics["hallucinated_fraction"] = sum(known) / len(known)
    return metrics
