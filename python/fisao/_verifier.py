"""The verifier: a server that is started once and asked many times."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from tempfile import NamedTemporaryFile
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from ._binary import find_binary
from ._client import Client
from ._errors import FisaoError, InvalidParams, TokenizerMismatch
from ._images import Image, encode_image, encode_images, image_list
from ._results import (
    Caption,
    Mention,
    NameScore,
    RewardedCompletion,
    VerifiedCaption,
    VerifiedCaptions,
)
from ._spans import token_spans

PathOrName = Union[str, "os.PathLike[str]"]
#: A name (``coco``, ``everyday``, ``world``), a file, or categories with their surface forms.
Vocabulary = Union[PathOrName, Mapping[str, Sequence[str]]]

#: Samples in a request, and bytes of their images, at most.
MOST_SAMPLES = 16
MOST_BYTES = 8_000_000


class Verifier:
    """Scores what texts say of images, by ``fisao serve``.

    ::

        with fisao.Verifier("openai/clip-vit-large-patch14-336", calibration="c.json") as verifier:
            verifier.verify("photo.jpg", "A dog on a sofa.")

    * ``verifier``: a CLIP, SigLIP or BLIP-2 checkpoint, a folder or a name on the Hub; or
      ``"decoder"``, for the decoder of ``model``.
    * ``model``, ``adapter``: a vision-language checkpoint and a LoRA adapter, for ``caption``.
    * ``calibration``: a file of ``fisao calibrate``. Probabilities and rewards need it.
    * ``vocabulary``: the object names: a list's name, a file, or ``{category: [form, …]}``.
    * ``settings``: of scores and rewards, ``{"reward.repetition-penalty": 0.5}`` or nested.
    * ``device``: ``"cpu"``, or what the binary was built with.
    * ``arguments``: further arguments of ``fisao serve``.
    * ``start_timeout``, ``timeout``: seconds for loading, and for each request; ``None`` waits for
      as long as the server runs.

    Without any of the first four it is the built-in synthetic dataset's small pair of model and
    verifier. The server starts at once. It ends with ``close``, at the end of a ``with`` block, or
    with Python. A process that was forked, or that unpickled a verifier, starts its own when it
    first needs one. Several threads may use one verifier.
    """

    def __init__(
        self,
        verifier: Optional[PathOrName] = None,
        *,
        model: Optional[PathOrName] = None,
        adapter: Optional[PathOrName] = None,
        calibration: Optional[PathOrName] = None,
        vocabulary: Optional[Vocabulary] = None,
        settings: Optional[Mapping[str, Any]] = None,
        device: Optional[str] = None,
        arguments: Sequence[str] = (),
        binary: Optional[PathOrName] = None,
        start_timeout: Optional[float] = None,
        timeout: Optional[float] = None,
    ) -> None:
        self._options: List[Tuple[str, Optional[PathOrName]]] = [
            ("--model", model),
            ("--adapter", adapter),
            ("--verifier", verifier),
            ("--calibration", calibration),
            ("--device", device),
        ]
        self._vocabulary = vocabulary
        self._settings = setting_arguments(settings or {})
        self._arguments = list(arguments)
        self._binary = binary
        self._start_timeout = start_timeout
        self._timeout = timeout
        self._lock = threading.Lock()
        self._closed = False
        self._running: Optional[Client] = None
        self._client()

    def __getstate__(self) -> Dict[str, Any]:
        state = dict(self.__dict__)
        del state["_lock"], state["_running"]
        return state

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _running=None)

    def _client(self) -> Client:
        with self._lock:
            if self._closed:
                raise FisaoError("the verifier is closed", hint="make a new Verifier")
            if self._running is None or not self._running.belongs_here:
                self._running = self._start()
            return self._running

    def _start(self) -> Client:
        command = [find_binary(self._binary), "serve", "--stdio"]
        for option, value in self._options:
            if value is not None:
                command += [option, os.fspath(value)]
        command += self._settings + self._arguments
        with vocabulary_file(self._vocabulary) as vocabulary:
            if vocabulary is not None:
                command += ["--vocabulary", vocabulary]
            return Client(command, start_timeout=self._start_timeout, timeout=self._timeout)

    def close(self) -> None:
        """Ends the server."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
        if running is not None:
            running.close()

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        given = [f"{option[2:]}={os.fspath(value)!r}" for option, value in self._options if value]
        return f"Verifier({', '.join(given)}{', closed' if self._closed else ''})"

    @property
    def info(self) -> Dict[str, Any]:
        """The server's greeting: version, what is loaded, unit of scores, methods."""
        return dict(self._client().greeting)

    @property
    def log(self) -> str:
        """The end of what the server wrote to its standard error."""
        return self._client().log

    def token_rewards(
        self,
        images: Union[Image, Sequence[Image]],
        completions: Optional[Sequence[Any]],
        completion_ids: Sequence[Sequence[int]],
        tokenizer: Any,
        truncated: Optional[Sequence[bool]] = None,
    ) -> List[List[float]]:
        """One reward for each token of each completion.

        * ``images``: an image for each completion, or one for all of them.
        * ``completions``: texts, or lists of messages whose last one is the text; ``None`` takes
          what ``completion_ids`` spell.
        * ``completion_ids``: their tokens, special tokens included.
        * ``tokenizer``: the transformers tokenizer, or processor, that they were sampled with.
        * ``truncated``: whether each was cut off by its length budget. Default: none was.

        Raises ``TokenizerMismatch`` if ids do not spell their completion.
        """
        rewarded = self.rewarded_completions(
            images, completions, completion_ids, tokenizer, truncated
        )
        return [completion.rewards for completion in rewarded]

    def rewarded_completions(
        self,
        images: Union[Image, Sequence[Image]],
        completions: Optional[Sequence[Any]],
        completion_ids: Sequence[Sequence[int]],
        tokenizer: Any,
        truncated: Optional[Sequence[bool]] = None,
    ) -> List[RewardedCompletion]:
        """Like ``token_rewards``, with the mentions that the rewards are for."""
        count = len(completion_ids)
        for name, values in (("completions", completions), ("truncated", truncated)):
            if values is not None and len(values) != count:
                raise InvalidParams(f"there are {len(values)} {name} for {count} completion_ids")
        encoded = encode_images(image_list(images, count))
        samples = []
        for at, ids in enumerate(completion_ids):
            text = None if completions is None else completion_text(completions[at])
            try:
                text, spans = token_spans(ids, tokenizer, text)
            except TokenizerMismatch as error:
                message = f"completions[{at}]: {error.message}"
                raise TokenizerMismatch(message, hint=error.hint) from None
            sample: Dict[str, Any] = {"image": encoded[at], "text": text, "token_spans": spans}
            if truncated is not None:
                sample["truncated"] = bool(truncated[at])
            samples.append(sample)
        return [
            RewardedCompletion(
                [float(reward) for reward in sample["rewards"]],
                [Mention.from_json(mention) for mention in sample["mentions"]],
            )
            for sample, _ in self._in_parts("token_rewards", samples, {})
        ]

    def verify(
        self,
        images: Union[Image, Sequence[Image]],
        captions: Union[str, Sequence[str]],
        *,
        threshold: float = 0.5,
        heat_maps: bool = False,
    ) -> VerifiedCaptions:
        """Finds the mentions of captions and says which are hallucinated.

        * ``images``: an image for each caption, or one for all of them.
        * ``threshold``: from this probability on a mention counts as hallucinated.
        * ``heat_maps``: add to each mention where in the image it is seen.
        """
        captions = [captions] if isinstance(captions, str) else list(captions)
        encoded = encode_images(image_list(images, len(captions)))
        samples = [
            {"image": image, "caption": caption} for image, caption in zip(encoded, captions)
        ]
        params = {"threshold": threshold, "heat_maps": heat_maps}
        return VerifiedCaptions(
            VerifiedCaption.from_json(sample, result["unit"])
            for sample, result in self._in_parts("verify", samples, params)
        )

    def score(self, image: Image, names: Union[str, Sequence[str]]) -> List[NameScore]:
        """Scores names with an image, in the unit of ``info["unit"]``."""
        names = [names] if isinstance(names, str) else list(names)
        params = {"image": encode_image(image), "names": names}
        result = self._client().request("score", params)
        return [
            NameScore(score["name"], score["score"], score.get("p_hallucinated"))
            for score in result["scores"]
        ]

    def mentions(self, texts: Union[str, Sequence[str]]) -> List[List[Mention]]:
        """The mentions of objects in texts, without any image."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        result = self._client().request("mentions", {"texts": texts})
        return [[Mention.from_json(mention) for mention in text] for text in result["mentions"]]

    def caption(
        self,
        images: Union[Image, Sequence[Image]],
        *,
        prompt: Optional[str] = None,
        max_new_tokens: Optional[int] = None,
        temperature: Optional[float] = None,
        seed: Optional[int] = None,
        samples: Optional[int] = None,
        adapter: Optional[bool] = None,
    ) -> List[List[Caption]]:
        """Describes images with the model: for each image a list of ``samples`` captions.

        * ``prompt``: what to ask; default "Describe the image."
        * ``max_new_tokens``: the longest caption; default 96.
        * ``temperature``: 0, the default, takes the most likely token.
        * ``seed``: of sampling; default 0. The place of an image in ``images`` counts, too.
        * ``samples``: captions of each image; default 1.
        * ``adapter``: ``False`` leaves the adapter off.
        """
        options = {
            "prompt": prompt,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "seed": seed,
            "samples": samples,
            "adapter": adapter,
        }
        params: Dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        encoded = encode_images(images if isinstance(images, (list, tuple)) else [images])
        parts = [encoded]
        if not temperature:
            parts = [[each["image"] for each in part] for part in _parts(_samples(encoded))]
        # With sampling in one request: an image's random numbers are those of its place in it.
        requests = ({"images": part, **params} for part in parts)
        return [
            [Caption.from_json(text) for text in captions]
            for result in self._client().requests("caption", requests)
            for captions in result["captions"]
        ]

    def _in_parts(
        self, method: str, samples: Sequence[Dict[str, Any]], params: Dict[str, Any]
    ) -> Iterator[Tuple[Dict[str, Any], Dict[str, Any]]]:
        """Each sample's part of the result, and the result that it is a part of."""
        parts = list(_parts(samples))
        requests = ({"samples": part, **params} for part in parts)
        for part, result in zip(parts, self._client().requests(method, requests)):
            answers = result["samples"]
            if len(answers) != len(part):
                raise FisaoError(f"{method}: {len(answers)} answers to {len(part)} samples")
            for answer in answers:
                yield answer, result


def verify(
    images: Union[Image, Sequence[Image]],
    captions: Union[str, Sequence[str]],
    *,
    verifier: Optional[PathOrName] = None,
    calibration: Optional[PathOrName] = None,
    threshold: float = 0.5,
    heat_maps: bool = False,
    **options: Any,
) -> VerifiedCaptions:
    """Finds hallucinated mentions in captions, once. ``options`` are those of ``Verifier``.

    Loads the verifier anew in each call; ``Verifier`` keeps it loaded.
    """
    with Verifier(verifier, calibration=calibration, **options) as loaded:
        return loaded.verify(images, captions, threshold=threshold, heat_maps=heat_maps)


def completion_text(completion: Any) -> str:
    """The text of a completion: a string, or messages of which the last is the text."""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Mapping):
        completion = [completion]
    if isinstance(completion, (list, tuple)) and completion:
        content = completion[-1].get("content", "")
        if isinstance(content, str):
            return content
        if content is None:
            return ""
        return "".join(part.get("text", "") for part in content if part.get("type") == "text")
    raise InvalidParams(
        f"a completion is {completion!r}", hint="give a string or a list of messages"
    )


def setting_arguments(settings: Mapping[str, Any], prefix: str = "") -> List[str]:
    """``--set KEY=VALUE`` for each setting; tables may be nested."""
    arguments: List[str] = []
    for key, value in settings.items():
        name = prefix + key
        if isinstance(value, Mapping):
            arguments += setting_arguments(value, name + ".")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            arguments += ["--set", f"{name}={text}"]
    return arguments


@contextlib.contextmanager
def vocabulary_file(vocabulary: Optional[Vocabulary]) -> Iterator[Optional[str]]:
    """A vocabulary as the binary takes it: a name or a path, for the length of a ``with`` block."""
    if not isinstance(vocabulary, Mapping):
        yield None if vocabulary is None else os.fspath(vocabulary)
        return
    forms = {category: list(names) for category, names in vocabulary.items()}
    with NamedTemporaryFile("w", suffix=".json", delete=False, encoding="utf-8") as file:
        json.dump(forms, file)
    try:
        yield file.name
    finally:
        os.unlink(file.name)


def _samples(images: Sequence[Dict[str, str]]) -> List[Dict[str, Any]]:
    return [{"image": image} for image in images]


def _parts(samples: Sequence[Dict[str, Any]]) -> Iterator[List[Dict[str, Any]]]:
    """Samples in parts of a bounded number and size, so that no request is too large."""
    part: List[Dict[str, Any]] = []
    size = 0
    for sample in samples:
        own = len(sample["image"].get("base64", ""))
        if part and (len(part) == MOST_SAMPLES or size + own > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(sample)
        size += own
    if part:
        yield part
