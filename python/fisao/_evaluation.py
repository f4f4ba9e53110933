"""CHAIR, POPE and AMBER: the commands of the binary, on Python values or on files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from ._binary import find_binary
from ._errors import CommandFailed, InvalidParams, reason_in
from ._verifier import PathOrName, Vocabulary, vocabulary_file

#: A file, several files, or rows: ``{id: value}``, ``[(id, value), …]``, ``[{…}, …]``.
Rows = Union[
    PathOrName,
    Sequence[PathOrName],
    Mapping[Any, Any],
    Sequence[Tuple[Any, Any]],
    Sequence[Mapping[str, Any]],
]
# Rows become files of such names; messages name the argument instead.
_PREFIX = "fisao-rows-"
_WRITTEN = re.compile(rf"\S*{_PREFIX}[^/\\]+[/\\](\w+)\.jsonl")

#: A 95 % bootstrap interval.
Interval = Tuple[float, float]


@dataclass(frozen=True)
class _Result:
    intervals: Dict[str, Interval]
    """95 % bootstrap intervals, by the name of the number."""
    protocol: Dict[str, Any]
    """What the numbers depend on. Report it with them."""
    raw: Dict[str, Any] = field(repr=False)
    """The report of the binary."""


@dataclass(frozen=True)
class ChairResult(_Result):
    """CHAIR of captions. Rates are fractions; ``None`` where the denominator is zero."""

    chair_i: Optional[float]
    """Fraction of mentions that are hallucinated."""
    chair_s: Optional[float]
    """Fraction of captions with a hallucinated mention."""
    recall: Optional[float]
    """Fraction of the objects present that are mentioned."""
    f1: Optional[float]
    """Harmonic mean of ``1 - chair_i`` and ``recall``."""
    length: Optional[float]
    """Mean length of the captions, in ``protocol["length_unit"]``."""

    def _repr_html_(self) -> str:
        rates = ("chair_i", "chair_s", "recall", "f1")
        cells = [_cell(name, _percent(getattr(self, name))) for name in rates]
        length = "–" if self.length is None else f"{self.length:.1f}"
        cells.append(_cell(f"length ({self.protocol.get('length_unit', 'words')})", length))
        return f"<table><tr>{''.join(cells)}</tr></table>"


@dataclass(frozen=True)
class PopeResult(_Result):
    """POPE: answers to "is there a … in the image?". Means over the splits."""

    accuracy: Optional[float]
    precision: Optional[float]
    recall: Optional[float]
    f1: Optional[float]
    yes_ratio: Optional[float]
    splits: Dict[str, Dict[str, Any]] = field(repr=False)
    """The same for each file of questions."""


@dataclass(frozen=True)
class AmberResult(_Result):
    """AMBER: descriptions (``chair``, ``cover``, ``hal``, ``cog``) and questions (the rest)."""

    chair: Optional[float]
    cover: Optional[float]
    hal: Optional[float]
    cog: Optional[float]
    accuracy: Optional[float]
    precision: Optional[float]
    recall: Optional[float]
    f1: Optional[float]


def chair(
    captions: Rows,
    ground_truth: Rows,
    rules: str = "reference",
    *,
    vocabulary: Optional[Vocabulary] = None,
    skip_unknown_images: bool = False,
    per_image: bool = False,
    protocol: Optional[Mapping[str, Any]] = None,
    binary: Optional[PathOrName] = None,
) -> ChairResult:
    """CHAIR of captions: which objects they name, and which of them are not in the image.

    * ``captions``: ``{image: caption}``, pairs, rows of ``image_id`` and ``caption``, or a file of
      them; several files, of seeds for instance, are averaged.
    * ``ground_truth``: ``{image: [object, …]}``, pairs, rows of ``image_id`` and ``objects``, or
      files: of these, or COCO's ``instances_*.json`` and ``captions_*.json``.
    * ``rules``: ``"reference"``, bug-for-bug compatible with the published script, or ``"strict"``.
    * ``vocabulary``: the object names. Reference rules want the published list of synonyms; without
      it they take COCO's 80 categories with names of this project, and warn.
    * ``skip_unknown_images``: leave out captions of images without ground truth.
    * ``per_image``: add the verdict on every caption to ``raw["per_image"]``.
    * ``protocol``: whatever else the numbers depend on, such as prompt and decoding; it is kept in
      the result's ``protocol``.
    """
    if rules == "reference" and vocabulary is None:
        warnings.warn(
            'rules="reference" without vocabulary: the numbers are not comparable to a paper\'s; '
            "give the published list of synonyms (synonyms.txt)",
            UserWarning,
            stacklevel=2,
        )
    arguments = ["eval", "chair", "--rules", rules, "--format", "json"]
    arguments += ["--skip-unknown-images"] if skip_unknown_images else []
    arguments += ["--per-image"] if per_image else []
    with _folder() as name, vocabulary_file(vocabulary) as names:
        folder = Path(name)
        arguments += ["--vocabulary", names] if names is not None else []
        arguments += ["--captions", *_files(captions, folder / "captions.jsonl", "caption")]
        truth = _files(ground_truth, folder / "objects.jsonl", "objects")
        raw = run_json([*arguments, "--annotations", *truth], binary)
    about = raw if "files" not in raw else raw["files"][0]
    known = {key: value for key, value in about["protocol"].items() if value is not None}
    known.update({key: about[key] for key in ("made_with",) if key in about})
    known["length_unit"] = about.get("mean_length_unit", "words")
    return ChairResult(
        chair_i=_number(raw, "chair_i"),
        chair_s=_number(raw, "chair_s"),
        recall=_number(raw, "recall"),
        f1=_number(raw, "f1"),
        length=_number(raw, "mean_length"),
        intervals=_intervals(raw),
        protocol={**_protocol(binary), **known, **(protocol or {})},
        raw=raw,
    )


def pope(
    questions: Rows,
    answers: Rows,
    *,
    answer_field: Optional[str] = None,
    per_question: bool = False,
    protocol: Optional[Mapping[str, Any]] = None,
    binary: Optional[PathOrName] = None,
) -> PopeResult:
    """POPE: accuracy of answers to "is there a … in the image?".

    * ``questions``: rows of ``question_id``, ``image``, ``text`` and ``label``, or a file for each
      split.
    * ``answers``: ``{question_id: text}``, rows of ``question_id`` and ``text``, or a file for each
      file of questions, in the same order.
    """
    arguments = ["eval", "pope", "--format", "json"]
    arguments += ["--answer-field", answer_field] if answer_field is not None else []
    arguments += ["--per-question"] if per_question else []
    with _folder() as name:
        folder = Path(name)
        asked = _files(questions, folder / "questions.jsonl", "text", identifier="question_id")
        given = _files(answers, folder / "answers.jsonl", "text", identifier="question_id")
        raw = run_json([*arguments, "--questions", *asked, "--answers", *given], binary)
    names = ("accuracy", "precision", "recall", "f1", "yes_ratio")
    splits = raw.get("splits", [])
    return PopeResult(
        **{name: _number(raw, name) for name in names},
        splits={split["name"]: split for split in splits},
        intervals=_intervals(raw),
        protocol={
            **_protocol(binary),
            "questions": raw.get("questions"),
            "unanswered": raw.get("unanswered"),
            **(protocol or {}),
        },
        raw=raw,
    )


def amber(
    data: PathOrName,
    answers: Rows,
    *,
    plurals: str = "official",
    answer_field: Optional[str] = None,
    protocol: Optional[Mapping[str, Any]] = None,
    binary: Optional[PathOrName] = None,
) -> AmberResult:
    """AMBER: objects described, and asked about.

    * ``data``: the benchmark's folder.
    * ``answers``: ``{id: response}``, rows of ``id`` and ``response``, or a file of them.
    * ``plurals``: ``"official"``, those that the official script finds, or ``"all"``.
    """
    arguments = ["eval", "amber", "--format", "json", "--data", os.fspath(data)]
    arguments += ["--plurals", plurals]
    arguments += ["--answer-field", answer_field] if answer_field is not None else []
    with _folder() as name:
        folder = Path(name)
        given = _files(answers, folder / "answers.jsonl", "response", identifier="id")
        raw = run_json([*arguments, "--answers", *given], binary)
    names = ("chair", "cover", "hal", "cog", "accuracy", "precision", "recall", "f1")
    return AmberResult(
        **{name: _number(raw, name) for name in names},
        intervals=_intervals(raw),
        protocol={**_protocol(binary), "plurals": plurals, **(protocol or {})},
        raw=raw,
    )


def run(arguments: Sequence[str], binary: Optional[PathOrName] = None) -> str:
    """What a command of the binary prints. Its warnings become Python warnings.

    Raises ``CommandFailed`` with the command's own sentence and hint.
    """
    command = [find_binary(binary), *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    log = _WRITTEN.sub(r"the given \1", done.stderr.decode("utf-8", "replace"))
    if done.returncode != 0:
        message, hint = reason_in(log)
        if message is None:
            message = f"{' '.join(arguments[:2])} ended with exit code {done.returncode}"
            hint = log.strip() or None
        failure = CommandFailed(message, hint=hint, log=log)
        failure.exit_code = done.returncode
        raise failure
    for line in log.splitlines():
        if line.startswith("warning: "):
            warnings.warn(line[len("warning: ") :], UserWarning, stacklevel=4)
    return done.stdout.decode("utf-8")


def run_json(arguments: Sequence[str], binary: Optional[PathOrName] = None) -> Dict[str, Any]:
    """The JSON object that a command prints."""
    printed = json.loads(run(arguments, binary))
    if not isinstance(printed, dict):
        raise CommandFailed(f"{' '.join(arguments[:2])} did not print an object")
    return printed


def _protocol(binary: Optional[PathOrName]) -> Dict[str, Any]:
    return {"fisao": run(["--version"], binary).split()[-1]}


def _folder() -> TemporaryDirectory[str]:
    """A folder for rows as files."""
    return TemporaryDirectory(prefix=_PREFIX)


def _files(rows: Rows, path: Path, value: str, identifier: str = "image_id") -> List[str]:
    """Names of files: those given, or one that is written from rows."""
    if isinstance(rows, (str, os.PathLike)):
        return [os.fspath(rows)]
    several: List[Any] = list(rows.items() if isinstance(rows, Mapping) else rows)
    if several and all(isinstance(row, (str, os.PathLike)) for row in several):
        return [os.fspath(row) for row in several]
    with path.open("w", encoding="utf-8") as file:
        for row in _objects(several, value, identifier):
            file.write(json.dumps(row) + "\n")
    return [str(path)]


def _objects(rows: Iterable[Any], value: str, identifier: str) -> Iterator[Dict[str, Any]]:
    for at, row in enumerate(rows):
        if isinstance(row, Mapping):
            yield {key: _plain(item) for key, item in row.items()}
        elif isinstance(row, (tuple, list)) and len(row) == 2:
            name = os.fspath(row[0]) if isinstance(row[0], os.PathLike) else row[0]
            yield {identifier: _plain(name), value: _plain(row[1])}
        else:
            raise InvalidParams(
                f"row {at} is {row!r}",
                hint=f"a row is a pair of {identifier} and {value}, or an object with both",
            )


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: numpy's scalars and arrays, sets and tuples are turned."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return list(value) if isinstance(value, tuple) else value


def _number(raw: Mapping[str, Any], name: str) -> Optional[float]:
    """A number of a report, or its mean over several files."""
    value = raw["mean"].get(name) if "mean" in raw else raw.get(name)
    if isinstance(value, Mapping):
        value = value.get("mean")
    return None if value is None else float(value)


def _intervals(raw: Mapping[str, Any]) -> Dict[str, Interval]:
    known = raw.get("intervals") or {}
    return {name: (each["low"], each["high"]) for name, each in known.items() if each is not None}


def _percent(rate: Optional[float]) -> str:
    return "–" if rate is None else f"{100 * rate:.1f} %"


def _cell(name: str, value: str) -> str:
    return f"<td style='padding:.2em 1em;text-align:right'><small>{name}</small><br>{value}</td>"
