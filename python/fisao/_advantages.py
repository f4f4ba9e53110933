"""Advantages of tokens without a critic: completions of one prompt are each other's baseline.

Equal to the objective ``group-relative`` of ``fisao align`` (``fisao-align``: ``group.rs``,
``ppo/advantages.rs``), number by number.
"""

from __future__ import annotations

import math
from array import array
from typing import List, Sequence

from ._errors import InvalidParams

#: Smallest standard deviation that advantages are divided by.
SMALLEST_DEVIATION = 1e-8


def token_advantages(
    rewards: Sequence[Sequence[float]],
    group_size: int,
    *,
    gamma: float = 0.95,
    baseline: str = "leave-one-out",
    whiten: str = "scale",
) -> List[List[float]]:
    """One advantage for each token of each completion.

    ::

        G_t = Σ_{k ≥ t} γ^(k−t) r_k              return of token t
        A_t = G_t − mean of the others' G_t      others: completions of the same prompt;
                                                 0 past their ends

    * ``rewards``: one row for each completion, ``[B][T_i]``, those of a prompt adjacent.
    * ``group_size``: completions of each prompt; ``B`` is a multiple of it.
    * ``gamma``: how far credit reaches back, from 0 to 1.
    * ``baseline``: ``"leave-one-out"`` or ``"none"``.
    * ``whiten``: over all tokens of the batch, ``"scale"`` divides by the standard deviation,
      ``"mean-and-scale"`` subtracts the mean first, ``"none"`` does neither.

    Returns ``[B][T_i]``, in single precision.
    """
    if group_size < 1 or len(rewards) % group_size:
        raise InvalidParams(f"{len(rewards)} completions are no groups of {group_size}")
    if not 0.0 <= gamma <= 1.0:
        raise InvalidParams(f"gamma is {gamma}; it must be from 0 to 1")
    for name, value, allowed in (
        ("baseline", baseline, ("leave-one-out", "none")),
        ("whiten", whiten, ("scale", "mean-and-scale", "none")),
    ):
        if value not in allowed:
            raise InvalidParams(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
    advantages: List[List[float]] = []
    for first in range(0, len(rewards), group_size):
        group = [_single(row) for row in rewards[first : first + group_size]]
        advantages += _group_advantages(group, gamma, baseline == "leave-one-out")
    return _whitened(advantages, whiten)


def returns_to_go(rewards: Sequence[float], gamma: float) -> List[float]:
    """Discounted rewards still to come, ``[T]``."""
    returns = [0.0] * len(rewards)
    following = 0.0
    for token in range(len(rewards) - 1, -1, -1):
        following = rewards[token] + gamma * following
        returns[token] = following
    return returns


def _group_advantages(
    rewards: Sequence[Sequence[float]], gamma: float, leave_one_out: bool
) -> List[List[float]]:
    returns = [returns_to_go(row, gamma) for row in rewards]
    others = len(returns) - 1
    if not leave_one_out or others == 0:
        return [_single(row) for row in returns]
    sums = [0.0] * max(len(row) for row in returns)
    for row in returns:  # Not sum(), which rounds differently from Python 3.12 on.
        for token, value in enumerate(row):
            sums[token] += value
    return [
        _single([value - (sums[token] - value) / others for token, value in enumerate(row)])
        for row in returns
    ]


def _whitened(advantages: List[List[float]], mode: str) -> List[List[float]]:
    if mode == "none":
        return advantages
    count = max(1, sum(len(row) for row in advantages))
    total = 0.0
    for row in advantages:
        for advantage in row:
            total += advantage
    mean = total / count
    squares = 0.0
    for row in advantages:
        for advantage in row:
            difference = advantage - mean
            squares += difference * difference
    deviation = math.sqrt(squares / count)
    scale = 1.0 if deviation < SMALLEST_DEVIATION else deviation
    shift = mean if mode == "mean-and-scale" else 0.0
    return [_single([(advantage - shift) / scale for advantage in row]) for row in advantages]


def _single(row: Sequence[float]) -> List[float]:
    """Rounded to single precision."""
    return array("f", row).tolist()
