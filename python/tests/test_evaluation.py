"""CHAIR, POPE and AMBER by the real binary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

import pytest

import fisao

CAPTIONS = {"a.png": "A dog and a cat on a sofa.", "b.png": "Two dogs.", "c.png": "Nothing."}
OBJECTS = {"a.png": ["dog", "couch"], "b.png": ["dog", "car"], "c.png": []}


def strict(binary: str, captions: Any = CAPTIONS, objects: Any = OBJECTS, **options: Any) -> Any:
    return fisao.chair(captions, objects, rules="strict", binary=binary, **options)


def test_chair_by_hand(binary: str) -> None:
    result = strict(binary)
    # Mentions: dog, cat, couch, dog; the cat is hallucinated. Objects: dog, couch, dog, car.
    assert result.chair_i == pytest.approx(1 / 4)
    assert result.chair_s == pytest.approx(1 / 3)
    assert result.recall == pytest.approx(3 / 4)
    assert result.f1 == pytest.approx(3 / 4)
    assert result.length == pytest.approx((8 + 2 + 1) / 3)
    assert set(result.intervals) == {"chair_i", "chair_s", "recall", "f1", "mean_length"}
    low, high = result.intervals["chair_i"]
    assert low <= result.chair_i <= high
    assert result.protocol["rules"] == "strict" and result.protocol["captions"] == 3
    assert {"fisao", "vocabulary_sha256", "image_ids_sha256"} <= set(result.protocol)
    assert "25.0 %" in result._repr_html_()


def test_rows_of_every_form_are_the_same(binary: str, tmp_path: Path) -> None:
    expected = strict(binary).raw
    rows = [{"image_id": name, "caption": text} for name, text in CAPTIONS.items()]
    truth = [{"image_id": name, "objects": tuple(names)} for name, names in OBJECTS.items()]
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    forms = [
        (rows, truth),
        (list(CAPTIONS.items()), OBJECTS),
        (str(tmp_path / "captions.json"), {name: set(each) for name, each in OBJECTS.items()}),
        (tmp_path / "captions.json", truth),
    ]
    for captions, objects in forms:
        assert strict(binary, captions, objects).raw == expected


def test_several_files_are_averaged(binary: str, tmp_path: Path) -> None:
    for name, text in (("one", "A dog."), ("two", "A cat.")):
        row = {"image_id": "a.png", "caption": text}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    result = strict(binary, [tmp_path / "one.jsonl", tmp_path / "two.jsonl"])
    assert result.chair_i == pytest.approx(0.5)
    assert result.protocol["rules"] == "strict"
    assert len(result.raw["files"]) == 2


def test_no_mention_has_no_rate(binary: str) -> None:
    result = strict(binary, {"a.png": "Nothing."})
    assert result.chair_i is None and result.f1 is None and result.chair_s == 0.0
    assert "–" in result._repr_html_()


def test_protocol_and_verdicts_travel_with_the_numbers(binary: str) -> None:
    result = strict(binary, per_image=True, protocol={"prompt": "Describe."})
    assert result.protocol["prompt"] == "Describe."
    verdicts = {row["image_id"]: row["mentions"] for row in result.raw["per_image"]}
    assert [mention["hallucinated"] for mention in verdicts["a.png"]] == [False, True, False]


def test_reference_rules_ask_for_the_published_list(binary: str) -> None:
    with pytest.warns(UserWarning, match="synonyms"):
        assert fisao.chair(CAPTIONS, OBJECTS, binary=binary).protocol["rules"] == "reference"
    words = {"dog": ["dog", "puppy"], "couch": ["couch", "sofa"], "car": ["car"]}
    result = fisao.chair(CAPTIONS, OBJECTS, vocabulary=words, binary=binary)
    assert result.chair_i == 0.0


def test_unknown_images_are_refused_or_skipped(binary: str) -> None:
    captions = {**CAPTIONS, "unknown.png": "A dog."}
    with pytest.raises(fisao.CommandFailed, match="without ground truth") as caught:
        strict(binary, captions)
    assert "the given captions" in str(caught.value) and "/tmp" not in str(caught.value)
    assert caught.value.exit_code == 1
    with pytest.warns(UserWarning, match="the given captions: 1 captions of images without"):
        result = strict(binary, captions, skip_unknown_images=True)
    assert result.chair_i == strict(binary).chair_i


def test_rows_of_another_form_are_refused(binary: str) -> None:
    with pytest.raises(fisao.InvalidParams, match="row 0 is 7"):
        strict(binary, [7])


QUESTIONS = [
    {"question_id": 1, "image": "a.png", "text": "Is there a dog in the image?", "label": "yes"},
    {"question_id": 2, "image": "a.png", "text": "Is there a cat in the image?", "label": "no"},
    {"question_id": 3, "image": "b.png", "text": "Is there a car in the image?", "label": "yes"},
    {"question_id": 4, "image": "b.png", "text": "Is there a cup in the image?", "label": "no"},
]


def test_pope_by_hand(binary: str) -> None:
    answers = {1: "Yes", 2: "Yes", 3: "No, there is not.", 4: "No"}
    result = fisao.pope(QUESTIONS, answers, binary=binary, protocol={"model": "m"})
    numbers = (result.accuracy, result.precision, result.recall, result.f1, result.yes_ratio)
    assert numbers == pytest.approx((0.5, 0.5, 0.5, 0.5, 0.5))
    assert result.protocol["questions"] == 4 and result.protocol["model"] == "m"
    assert len(result.splits) == 1


def test_pope_with_files_for_splits(binary: str, tmp_path: Path) -> None:
    files: Dict[str, Path] = {}
    for name, rows in (
        ("random", QUESTIONS[:2]),
        ("popular", QUESTIONS[2:]),
        ("a", [{"question_id": 1, "text": "Yes"}, {"question_id": 2, "text": "No"}]),
        ("b", [{"question_id": 3, "text": "No"}, {"question_id": 4, "text": "No"}]),
    ):
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = fisao.pope(
        [files["random"], files["popular"]], [files["a"], files["b"]], binary=binary
    )
    assert result.accuracy == pytest.approx(0.75)
    assert {name: split["accuracy"] for name, split in result.splits.items()} == {
        "random": 1.0,
        "popular": 0.5,
    }


def test_amber_by_hand(binary: str, tmp_path: Path) -> None:
    query = tmp_path / "data" / "query"
    query.mkdir(parents=True)
    files = {
        "annotations.json": [
            {"id": 1, "type": "generative", "truth": ["tree", "dog"], "hallu": ["cat"]},
            {"id": 2, "type": "discriminative-hallucination", "truth": "no"},
        ],
        "relation.json": {"tree": [], "dog": ["puppy"], "cat": []},
        "query/query_all.json": [
            {"id": 1, "image": "a.jpg", "query": "Describe this image."},
            {"id": 2, "image": "a.jpg", "query": "Is there a cat?"},
        ],
    }
    for name, value in files.items():
        (tmp_path / "data" / name).write_text(json.dumps(value))
    (tmp_path / "data" / "safe_words.txt").write_text("car\n")
    result = fisao.amber(tmp_path, {1: "A dog and a cat.", 2: "No"}, binary=binary)
    assert (result.chair, result.cover, result.hal, result.cog) == (0.5, 0.5, 1.0, 1.0)
    assert (result.accuracy, result.f1) == (1.0, 1.0)
    assert result.protocol["plurals"] == "official"
