"""The reward manager, on verl's own data where verl is installed, and on a stand-in for it."""

from __future__ import annotations

import asyncio
import functools
import pickle
from typing import Any, Callable, Dict, List

import pytest
from test_client import TOKENIZER

import fisao
import fisao.verl
from fisao.verl import TokenRewardManager, TokenRewards

torch = pytest.importorskip("torch")
numpy = pytest.importorskip("numpy")


class StandIn:
    """As much of verl's ``DataProto`` as its reward managers use."""

    def __init__(self, batch: Dict[str, Any], non_tensor_batch: Dict[str, Any]) -> None:
        self.batch = batch
        self.non_tensor_batch = non_tensor_batch

    def __len__(self) -> int:
        return len(self.batch["responses"])

    def __getitem__(self, at: Any) -> StandIn:
        return StandIn(
            {name: value[at] for name, value in self.batch.items()},
            {name: value[at] for name, value in self.non_tensor_batch.items()},
        )


def objects(values: List[Any]) -> Any:
    array = numpy.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.fixture(params=["stand-in", "verl"])
def padded(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a batch of responses and columns."""
    if request.param == "stand-in":
        return functools.partial(padded_as, StandIn)
    data_proto = pytest.importorskip("verl").DataProto
    return functools.partial(
        padded_as,
        lambda batch, columns: data_proto.from_dict(tensors=batch, non_tensors=columns),
    )


def padded_as(
    kind: Callable[..., Any],
    responses: List[List[int]],
    prompt_length: int = 3,
    **columns: List[Any],
) -> Any:
    width = max(map(len, responses)) + 1
    ids = torch.zeros(len(responses), width, dtype=torch.int64)
    mask = torch.ones(len(responses), prompt_length + width, dtype=torch.int64)
    for row, response in enumerate(responses):
        ids[row, : len(response)] = torch.tensor(response)
        mask[row, prompt_length + len(response) :] = 0
    prompts = torch.ones(len(responses), prompt_length, dtype=torch.int64)
    batch = {"prompts": prompts, "responses": ids, "attention_mask": mask}
    return kind(batch, {name: objects(column) for name, column in columns.items()})


@pytest.fixture
def manager(
    make_verifier: Callable[..., fisao.Verifier], monkeypatch: pytest.MonkeyPatch
) -> TokenRewardManager:
    verifier = make_verifier()
    monkeypatch.setattr(fisao.verl, "_verifier", lambda options: verifier)
    config = {"reward": {"reward_kwargs": {"fisao": {"calibration": "c.json"}}}}
    return TokenRewardManager(config=config, tokenizer=TOKENIZER, compute_score=None)


RESPONSES = [[1, 2, 4, 1, 3, 0], [1, 2, 0], [1, 3]]


def test_rewards_of_a_batch_are_those_of_its_tokens(
    manager: TokenRewardManager, padded: Callable[..., Any]
) -> None:
    data = padded(RESPONSES, images=[["a.png"], ["b.png"], ["c.png"]])

    async def score() -> List[Dict[str, Any]]:
        # As verl's reward loop: every sample by itself, all at once.
        return await asyncio.gather(
            *(manager.run_single(data[at : at + 1]) for at in range(len(data)))
        )

    results = asyncio.run(score())
    scores = [result["reward_score"] for result in results]
    assert scores == [0.0, 1.0, -11.0]
    assert [result["reward_extra_info"]["fisao_truncated"] for result in results] == [0, 0, 1]
    assert len({tuple(result["reward_extra_info"]) for result in results}) == 1
    rm_scores = TokenRewardManager.assemble_rm_scores(data, scores)
    assert rm_scores.shape == data.batch["responses"].shape
    assert rm_scores.tolist() == [
        [0, 1, 0, 0, -1, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [0, -11, 0, 0, 0, 0, 0],
    ]


def test_numbers_go_to_the_last_token(padded: Callable[..., Any]) -> None:
    data = padded(RESPONSES)
    rm_scores = TokenRewardManager.assemble_rm_scores(data, [2.0, 3.0, TokenRewards([1.0, 4.0])])
    assert rm_scores.tolist() == [
        [0, 0, 0, 0, 0, 2, 0],
        [0, 0, 3, 0, 0, 0, 0],
        [1, 4, 0, 0, 0, 0, 0],
    ]


def test_numbers_of_tokens_that_differ_are_refused(padded: Callable[..., Any]) -> None:
    data = padded(RESPONSES)
    with pytest.raises(fisao.FisaoError, match="response 0 has 6 tokens and 1 rewards"):
        TokenRewardManager.assemble_rm_scores(data, [TokenRewards([1.0]), 0.0, 0.0])
    with pytest.raises(fisao.FisaoError, match="1 scores for 3 responses"):
        TokenRewardManager.assemble_rm_scores(data, [0.0])


def test_verl_finds_the_manager_and_puts_numbers_as_it_does(padded: Callable[..., Any]) -> None:
    base = pytest.importorskip("verl.experimental.reward_loop.reward_manager.base")
    methods = {name for name in vars(base.RewardManagerBase) if not name.startswith("_")}
    assert methods <= set(dir(TokenRewardManager))
    data = padded(RESPONSES)
    scores = [2.0, 3.0, -1.0]
    expected = base.RewardManagerBase.assemble_rm_scores(data, scores)
    assert torch.equal(TokenRewardManager.assemble_rm_scores(data, scores), expected)


def test_token_rewards_are_a_number_that_travels() -> None:
    rewards = TokenRewards([0.5, -0.25])
    assert rewards == 0.25 and isinstance(rewards, float)
    again = pickle.loads(pickle.dumps(rewards))
    assert again == 0.25 and again.token_rewards == [0.5, -0.25]
    assert torch.tensor([rewards, 1.0]).tolist() == [0.25, 1.0]
    tensor = torch.zeros(3)
    tensor[-1] = rewards  # Where verl has room for one number.
    assert tensor.tolist() == [0.0, 0.0, 0.25]


@pytest.mark.parametrize(
    "columns",
    [
        {"images": ["a.png", "b.png"]},
        {"image": "a.png"},
        {"multi_modal_data": {"images": ["a.png"]}},
        {
            "images": None,
            "raw_prompt": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}],
        },
        {
            "raw_prompt": [
                {"content": "x"},
                {"content": [{"type": "text"}, {"type": "image", "image": "file://a.png"}]},
            ]
        },
    ],
)
def test_image_is_found(columns: Dict[str, Any]) -> None:
    assert fisao.verl.first_image(columns) == "a.png"


def test_image_of_bytes_in_a_message() -> None:
    part = {"type": "image", "bytes": b"ab"}
    assert fisao.verl.first_image({"raw_prompt": [{"content": [part]}]}) == part


def test_sample_without_image_is_refused() -> None:
    with pytest.raises(fisao.InvalidParams, match="no image"):
        fisao.verl.first_image({"raw_prompt": [{"role": "user", "content": "x"}]})


def test_options_of_omegaconf() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"reward": {"num_workers": 1}})
    assert fisao.verl._options(config) == {}
    config.reward.reward_kwargs = {"fisao": {"verifier": "clip", "settings": {"score.noise": 0}}}
    omegaconf.OmegaConf.set_struct(config, True)
    options = fisao.verl._options(config)
    assert options == {"verifier": "clip", "settings": {"score.noise": 0}}
    assert type(options["settings"]) is dict


def test_one_verifier_for_each_process(fake_binary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fisao.verl, "_verifiers", {})
    options = {"binary": fake_binary, "verifier": "clip"}
    config = {"reward": {"reward_kwargs": {"fisao": options}}}
    first = TokenRewardManager(config, TOKENIZER)
    second = TokenRewardManager(config, TOKENIZER)
    assert first.verifier is second.verifier
    first.verifier.close()
