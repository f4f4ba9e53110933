"""Rewards, token advantages and the CHAIR callback in TRL's trainer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List

import pytest
from test_client import TOKENIZER

import fisao
import fisao.trl

MODEL = Path(__file__).resolve().parents[2] / "crates" / "fisao-demo-llava" / "model"

IDS = [[1, 2, 4, 1, 3, 0], [1, 2]]
TEXTS = ["a dog anda cat", "a dog"]


class Trainer:
    """What a reward function sees of a trainer: a bound method."""

    processing_class = SimpleNamespace(tokenizer=TOKENIZER)

    def __init__(self) -> None:
        self.logged: Dict[str, float] = {}

    def log_metric(self, name: str, value: float) -> None:
        self.logged[name] = value


def test_reward_is_the_sum_of_token_rewards(verifier: fisao.Verifier) -> None:
    trainer = Trainer()
    rewards = fisao.trl.reward_func(verifier)(
        prompts=["x", "x"],
        completions=TEXTS,
        completion_ids=IDS,
        image=["a.png", "b.png"],
        trainer_state=object(),
        log_extra=None,
        log_metric=trainer.log_metric,
    )
    # The second did not end: it is truncated.
    assert rewards == [0.0, -9.0]
    assert trainer.logged == {"fisao/mentions": 1.5, "fisao/hallucinated_fraction": 1 / 3}


def test_conversational_completions_and_columns_of_images(verifier: fisao.Verifier) -> None:
    reward = fisao.trl.reward_func(verifier, TOKENIZER, name="mine")
    assert reward.__name__ == "mine"
    completions = [[{"role": "assistant", "content": text}] for text in TEXTS]
    for column in ({"images": [["a.png"], ["a.png", "b.png"]]}, {"image": ["a.png", "a.png"]}):
        rewards = reward(prompts=["", ""], completions=completions, completion_ids=IDS, **column)
        assert rewards == [0.0, -9.0]


def test_what_is_missing_is_named(verifier: fisao.Verifier) -> None:
    reward = fisao.trl.reward_func(verifier, TOKENIZER)
    with pytest.raises(fisao.InvalidParams, match="no column 'image'"):
        reward(prompts=["", ""], completions=TEXTS, completion_ids=IDS)
    with pytest.raises(fisao.InvalidParams, match="row 1 of the batch has no image"):
        reward(prompts=["", ""], completions=TEXTS, completion_ids=IDS, image=["a.png", None])
    with pytest.raises(fisao.FisaoError, match="tokenizer"):
        fisao.trl.reward_func(verifier)(
            prompts=["", ""], completions=TEXTS, completion_ids=IDS, image=["a.png"] * 2
        )


def test_texts_that_were_parsed_are_taken_from_their_ids(verifier: fisao.Verifier) -> None:
    class Parsing(type(TOKENIZER)):  # type: ignore[misc]
        response_schema = {"type": "object"}

    reward = fisao.trl.reward_func(verifier, Parsing())
    rewards = reward(
        prompts=[""], completions=["parsed"], completion_ids=[[1, 2, 0]], image=["a.png"]
    )
    assert rewards == [1.0]


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        fisao.trl.nothing  # noqa: B018


torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")

# The models are so small that threads wait for each other most of the time.
torch.set_num_threads(1)


def settings(folder: Path, **options: Any) -> Dict[str, Any]:
    """Arguments of a trainer of the built-in model, two steps long."""
    if not MODEL.is_dir():
        pytest.skip("the built-in model is not here")
    from PIL import Image

    images = [Image.new("RGB", (96, 96), (40 * at, 90, 120)) for at in range(4)]
    question = [{"role": "user", "content": "Describe the image."}]
    given: Dict[str, Any] = {
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 24,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        **options,
    }
    return {
        "model": transformers.AutoModelForImageTextToText.from_pretrained(
            str(MODEL), dtype=torch.float32
        ),
        "processing_class": transformers.AutoProcessor.from_pretrained(str(MODEL)),
        "args": trl.GRPOConfig(str(folder), **given),
        "train_dataset": datasets.Dataset.from_dict(
            {"prompt": [question] * 4, "image": images}
        ).cast_column("image", datasets.Image()),
        "peft_config": peft.LoraConfig(
            r=4, target_modules=r".*language_model.*\.(q|v)_proj", task_type="CAUSAL_LM"
        ),
    }


def last_token_reward(completion_ids: List[List[int]], **_: Any) -> List[float]:
    return [float(len(ids) % 3) for ids in completion_ids]


@pytest.mark.parametrize("steps_per_generation", [1, 2])
def test_trainer_has_the_advantages_of_tokens(
    make_verifier: Callable[..., fisao.Verifier],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps_per_generation: int,
) -> None:
    verifier = make_verifier()
    made: List[List[List[float]]] = []

    def rewarded(images: Any, texts: Any, ids: Any, *_: Any) -> List[fisao.RewardedCompletion]:
        # Any reward will do; what counts is that every token's advantage is its own.
        made.append([[float((token + at) % 5) for at, token in enumerate(row)] for row in ids])
        return [fisao.RewardedCompletion(row, []) for row in made[-1]]

    monkeypatch.setattr(verifier, "rewarded_completions", rewarded)
    trainer = fisao.trl.TokenRewardGRPOTrainer(
        reward_funcs=[last_token_reward],
        verifier=verifier,
        gamma=0.5,
        **settings(tmp_path, steps_per_generation=steps_per_generation, reward_weights=[2.0, 0.25]),
    )
    outputs: List[Dict[str, Any]] = []
    original = trainer._generate_and_score_completions

    def noted(inputs: Any) -> Dict[str, Any]:
        outputs.append(original(inputs))
        return outputs[-1]

    trainer._generate_and_score_completions = noted
    trainer.train()
    assert len(outputs) == len(made) >= 1
    for rewards, output in zip(made, outputs):
        weighted = [[2.0 * reward for reward in row] for row in rewards]
        for row in weighted:
            row[-1] += 0.25 * (len(row) % 3)
        expected = fisao.trl.token_advantages(weighted, 4, gamma=0.5)
        advantages = output["advantages"]
        assert advantages.shape == output["completion_ids"].shape
        for row, own, mask in zip(expected, advantages, output["completion_mask"]):
            assert own[: len(row)].tolist() == row
            assert mask.sum() == len(row)
            assert not own[len(row) :].any()
    logged = trainer.state.log_history[0]
    means = [sum(row) for row in made[0]]
    assert logged["rewards/fisao/mean"] == pytest.approx(sum(means) / len(means), rel=1e-5)
    assert "rewards/last_token_reward/mean" in logged


def test_trainer_refuses_what_it_does_not_support(verifier: fisao.Verifier, tmp_path: Path) -> None:
    with pytest.raises(fisao.InvalidParams, match="tools"):
        fisao.trl.TokenRewardGRPOTrainer("m", verifier=verifier, tools=[print])
    with pytest.raises(fisao.InvalidParams, match="gamma"):
        fisao.trl.TokenRewardGRPOTrainer("m", verifier=verifier, gamma=2.0)


def test_both_trainers_with_the_real_verifier(binary: str, world: Path, tmp_path: Path) -> None:
    images = sorted((world / "test" / "images").iterdir())
    calibration = world / "calibration.json"
    with fisao.Verifier(calibration=calibration, binary=binary) as verifier:
        for kind in ("token", "completion"):
            options = settings(tmp_path / kind, max_completion_length=48)
            if kind == "token":
                trainer = fisao.trl.TokenRewardGRPOTrainer(verifier=verifier, **options)
            else:
                reward = fisao.trl.reward_func(verifier)
                trainer = trl.GRPOTrainer(reward_funcs=[reward], **options)
            chair = fisao.trl.ChairCallback(
                trainer,
                {image.name: image for image in images},
                world / "test" / "instances.json",
                every=2,
                rules="strict",
                vocabulary="world",
                batch_size=3,
                binary=binary,
            )
            trainer.add_callback(chair)
            trainer.train()
            assert [step for step, _ in chair.history] == [0, 2]
            first = chair.history[0][1]
            assert first.protocol["decoding"] == "greedy" and first.protocol["captions"] == 8
            assert first.recall is not None and first.recall > 0.5
            logs = trainer.state.log_history
            assert logs[0]["chair_i"] == pytest.approx(first.chair_i)
            assert "fisao/hallucinated_fraction" in logs[1] and "chair_i" not in logs[1]
            assert logs[2]["chair_i"] == pytest.approx(chair.history[1][1].chair_i)


def test_callback_captions_equal_those_of_the_binary(
    binary: str, world: Path, tmp_path: Path, make_verifier: Callable[..., fisao.Verifier]
) -> None:
    images = sorted((world / "test" / "images").iterdir())
    trainer = fisao.trl.TokenRewardGRPOTrainer(verifier=make_verifier(), **settings(tmp_path))
    callback = fisao.trl.ChairCallback(trainer, {}, {}, max_new_tokens=96, batch_size=3)
    found = callback.captions([(image.name, image) for image in images])
    with fisao.Verifier(calibration=world / "calibration.json", binary=binary) as verifier:
        expected = [captions[0].text for captions in verifier.caption(images)]
    equal = sum(text == other for (_, text), other in zip(found, expected))
    # Greedy ties may fall either way by rounding.
    assert equal >= len(images) - 1
