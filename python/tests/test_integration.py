"""The verifier with the real binary and the built-in synthetic dataset's models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Iterator, List

import pytest

import fisao
from fisao.trl import is_truncated

MODEL = Path(__file__).resolve().parents[2] / "crates" / "fisao-demo-llava" / "model"


@pytest.fixture(scope="module")
def verifier(binary: str, world: Path) -> Iterator[fisao.Verifier]:
    calibration = world / "calibration.json"
    with fisao.Verifier(calibration=calibration, binary=binary, timeout=120) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def images(world: Path) -> List[Path]:
    return sorted((world / "test" / "images").iterdir())


@pytest.fixture(scope="module")
def captions(verifier: fisao.Verifier, images: List[Path]) -> List[fisao.Caption]:
    options = {"temperature": 1.0, "seed": 1, "max_new_tokens": 48}
    return [each[0] for each in verifier.caption(images, **options)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    transformers = pytest.importorskip("transformers")
    if not MODEL.is_dir():
        pytest.skip("the built-in model's tokenizer is not here")
    return transformers.AutoTokenizer.from_pretrained(str(MODEL))


def test_greeting(verifier: fisao.Verifier) -> None:
    assert verifier.info["protocol"] == 1
    assert verifier.info["calibrated"] is True
    assert {"caption", "mentions", "score", "token_rewards", "verify"} <= set(
        verifier.info["methods"]
    )


def test_spans_equal_those_of_the_binary(captions: List[fisao.Caption], tokenizer: Any) -> None:
    for caption in captions:
        ids = [token.id for token in caption.tokens]
        text, spans = fisao.token_spans(ids, tokenizer, caption.text)
        assert [text[start:end] for start, end in spans] == [token.text for token in caption.tokens]


def test_token_rewards_lie_on_mentions(
    verifier: fisao.Verifier, images: List[Path], captions: List[fisao.Caption], tokenizer: Any
) -> None:
    ids = [[token.id for token in caption.tokens] for caption in captions]
    texts = [caption.text for caption in captions]
    truncated = [is_truncated(row, tokenizer) for row in ids]
    assert truncated == [caption.finish_reason == "length" for caption in captions]
    rewarded = verifier.rewarded_completions(images, texts, ids, tokenizer, truncated)
    for completion, row, text, cut in zip(rewarded, ids, texts, truncated):
        assert len(completion.rewards) == len(row)
        paid = {at for at, reward in enumerate(completion.rewards) if reward != 0.0}
        ends = set()
        for mention in completion.mentions:
            assert text[mention.start : mention.end] == mention.text
            assert mention.tokens is not None
            ends.add(mention.tokens[1] - 1)
        assert paid <= ends | ({len(row) - 1} if cut else set())
        first = completion.mentions[0]
        assert first.tokens is not None and first.p_hallucinated is not None
        assert (completion.rewards[first.tokens[1] - 1] > 0) == (first.p_hallucinated < 0.5)


def test_rewards_do_not_depend_on_the_batch(
    verifier: fisao.Verifier, images: List[Path], captions: List[fisao.Caption], tokenizer: Any
) -> None:
    ids = [[token.id for token in caption.tokens] for caption in captions]
    texts = [caption.text for caption in captions]
    together = verifier.token_rewards(images * 5, texts * 5, ids * 5, tokenizer)
    alone = [
        verifier.token_rewards([image], [text], [row], tokenizer)[0]
        for image, text, row in zip(images, texts, ids)
    ]
    for found, expected in zip(together, alone * 5):
        assert found == pytest.approx(expected, abs=1e-5)


def test_image_of_every_kind_is_the_same(verifier: fisao.Verifier, images: List[Path]) -> None:
    numpy = pytest.importorskip("numpy")
    pillow = pytest.importorskip("PIL.Image")
    opened = pillow.open(images[0])
    kinds = [images[0], str(images[0]), images[0].read_bytes(), opened, opened.convert("RGB")]
    kinds.append(numpy.asarray(opened.convert("RGB")))
    scores = [verifier.score(image, ["dog"])[0].score for image in kinds]
    assert scores == pytest.approx([scores[0]] * len(scores), abs=1e-6)


def test_verdicts_equal_those_of_the_command(
    verifier: fisao.Verifier,
    binary: str,
    world: Path,
    images: List[Path],
    captions: List[fisao.Caption],
    tmp_path: Path,
) -> None:
    rows = [
        {"image_id": image.name, "caption": caption.text}
        for image, caption in zip(images, captions)
    ]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [binary, "verify", "--captions", str(tmp_path / "captions.jsonl"), "--format", "json"]
    command += ["--images", str(world / "test" / "images")]
    command += ["--calibration", str(world / "calibration.json")]
    printed = subprocess.run(command, check=True, capture_output=True).stdout.splitlines()
    found = verifier.verify(images, [caption.text for caption in captions])
    for row, line in zip(found, printed):
        expected = json.loads(line)
        assert row.caption == expected["caption"] and row.hallucinated == expected["hallucinated"]
        assert [mention.text for mention in row.mentions] == [
            mention["text"] for mention in expected["mentions"]
        ]
        for mention, other in zip(row.mentions, expected["mentions"]):
            assert mention.p_hallucinated == pytest.approx(other["p_hallucinated"], abs=1e-6)


def test_heat_maps(verifier: fisao.Verifier, images: List[Path]) -> None:
    [row] = verifier.verify(images[0], "a dog", heat_maps=True)
    heat_map = row.mentions[0].heat_map
    assert heat_map is not None and len(heat_map["cosines"]) == heat_map["side"] ** 2


def test_mentions_count_characters(verifier: fisao.Verifier) -> None:
    text = "Café 🐶: a dog and no cat"
    [found] = verifier.mentions(text)
    assert [text[each.start : each.end] for each in found] == ["dog", "cat"]
    assert [each.negated for each in found] == [False, True]


def test_greedy_captions_are_repeated(verifier: fisao.Verifier, images: List[Path]) -> None:
    first, second = (verifier.caption(images[:2], samples=2, seed=5, temperature=1.0) for _ in "ab")
    assert first == second and len(first) == 2 and len(first[0]) == 2


def test_errors_have_the_servers_words(
    verifier: fisao.Verifier, images: List[Path], tmp_path: Path
) -> None:
    with pytest.raises(fisao.InvalidImage, match="missing.png"):
        verifier.score(tmp_path / "missing.png", "dog")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(fisao.InvalidImage, match="text.png"):
        verifier.verify(tmp_path / "text.png", "a dog")
    with pytest.raises(fisao.InvalidImage):
        verifier.score(b"no image", "dog")
    with pytest.raises(fisao.InvalidParams, match="threshold"):
        verifier.verify(tmp_path, ["a dog"], threshold=2.0)
    with pytest.raises(fisao.InvalidParams, match="samples"):
        verifier.caption(images[0], samples=0)
    with pytest.raises(fisao.UnknownMethod):
        verifier._client().request("nothing", {})


def test_what_was_not_loaded_is_unavailable(binary: str, images: List[Path]) -> None:
    with fisao.Verifier(binary=binary) as uncalibrated:
        [row] = uncalibrated.verify(images[0], "a dog")
        assert row.hallucinated is None and row.mentions[0].p_hallucinated is None

        class Words:
            all_special_ids: List[int] = []

            def decode(self, ids: List[int], skip_special_tokens: bool) -> str:
                return "dog" * len(ids)

        with pytest.raises(fisao.Unavailable, match="calibration") as caught:
            uncalibrated.token_rewards(images[0], ["dog"], [[0]], Words())
        assert "fisao calibrate" in str(caught.value)


def test_refused_arguments(binary: str, tmp_path: Path) -> None:
    with pytest.raises(fisao.StartFailed, match="nothing"):
        fisao.Verifier(tmp_path / "nothing", binary=binary)
    with pytest.raises(fisao.StartFailed, match="nonsense"):
        fisao.Verifier(settings={"nonsense": 1}, binary=binary)
    with pytest.raises(fisao.StartFailed, match="--nonsense"):
        fisao.Verifier(arguments=["--nonsense"], binary=binary)


def test_settings_change_rewards(
    binary: str, world: Path, images: List[Path], captions: List[fisao.Caption], tokenizer: Any
) -> None:
    ids = [token.id for token in captions[0].tokens]
    sums = []
    for scale in (6, 12):
        with fisao.Verifier(
            calibration=world / "calibration.json",
            settings={"reward.form.scale": scale, "reward.repetition-penalty": 0},
            binary=binary,
        ) as scaled:
            [rewards] = scaled.token_rewards(images[0], [captions[0].text], [ids], tokenizer)
            sums.append(sum(rewards))
    assert sums[1] == pytest.approx(2 * sums[0], rel=1e-4)


def test_killed_server_raises(binary: str, images: List[Path]) -> None:
    with fisao.Verifier(binary=binary) as verifier:
        os.kill(verifier._client().pid, signal.SIGKILL)
        with pytest.raises(fisao.ServerDied, match="killed by signal 9"):
            verifier.score(images[0], "dog")


def test_vocabulary_of_python(binary: str) -> None:
    with fisao.Verifier(vocabulary={"gnome": ["gnome", "dwarf"]}, binary=binary) as verifier:
        [found] = verifier.mentions("two dwarfs and a dog")
        assert [(each.category, each.text) for each in found] == [("gnome", "dwarfs")]
