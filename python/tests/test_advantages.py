"""Advantages of tokens, against the Rust sources and by hand."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any, Dict, List

import pytest

from fisao import InvalidParams
from fisao.trl import token_advantages

CASES: List[Dict[str, Any]] = json.loads(
    (Path(__file__).parent / "fixtures" / "group_advantages.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("case", CASES)
def test_advantages_equal_those_of_align_bit_for_bit(case: Dict[str, Any]) -> None:
    options = {name: case[name] for name in ("gamma", "baseline", "whiten")}
    found = token_advantages(case["rewards"], case["group_size"], **options)
    assert found == [array("f", row).tolist() for row in case["advantages"]]


def test_advantages_by_hand() -> None:
    # Returns: 2, 2 | 3, 2, 4 with gamma 0.5; the first has ended where the second's last token is.
    rewards = [[1.0, 2.0], [2.0, 0.0, 4.0]]
    found = token_advantages(rewards, 2, gamma=0.5, whiten="none")
    assert found == [[2.0 - 3.0, 2.0 - 2.0], [3.0 - 2.0, 2.0 - 2.0, 4.0 - 0.0]]


def test_whole_credit_is_that_of_leave_one_out() -> None:
    # γ = 1 and one reward at the end: what RLOO gives every token.
    rewards = [[0.0, 0.0, 3.0], [0.0, 0.0, 1.0], [0.0, 0.0, 2.0]]
    found = token_advantages(rewards, 3, gamma=1.0, whiten="none")
    assert found == [[1.5] * 3, [-1.5] * 3, [0.0] * 3]


def test_scaling_keeps_the_sign_of_every_token() -> None:
    rewards = [[0.0, 3.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0], [0.0]]
    plain = token_advantages(rewards, 2, whiten="none")
    scaled = token_advantages(rewards, 2)
    for before, after in zip(plain, scaled):
        for one, other in zip(before, after):
            assert (one > 0, one < 0) == (other > 0, other < 0)


def test_groups_do_not_touch_each_other() -> None:
    first, second = [[1.0], [2.0]], [[5.0], [7.0]]
    together = token_advantages(first + second, 2, whiten="none")
    apart = [row for group in (first, second) for row in token_advantages(group, 2, whiten="none")]
    assert together == apart


def test_equal_rewards_are_not_divided_by_nothing() -> None:
    assert token_advantages([[1.0, 0.0], [1.0, 0.0]], 2) == [[0.0, 0.0], [0.0, 0.0]]
    assert token_advantages([], 4) == []
    assert token_advantages([[], []], 2) == [[], []]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"group_size": 2}, "3 completions are no groups of 2"),
        ({"group_size": 0}, "no groups of 0"),
        ({"group_size": 3, "gamma": 1.5}, "gamma is 1.5"),
        ({"group_size": 3, "baseline": "mean"}, "baseline is 'mean'"),
        ({"group_size": 3, "whiten": "group"}, "whiten is 'group'"),
    ],
)
def test_options_out_of_range_are_refused(options: Dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidParams, match=what):
        token_advantages([[1.0], [2.0], [3.0]], **options)
