"""Find and remove object hallucinations of vision-language models, from Python.

::

    import fisao

    fisao.chair(captions, ground_truth)                    # CHAIR, with intervals and protocol
    with fisao.Verifier("openai/clip-vit-large-patch14-336", calibration="c.json") as verifier:
        verifier.verify("photo.jpg", "A dog on a sofa.")   # which mentions are hallucinated
        verifier.token_rewards(images, completions, completion_ids, tokenizer)

``fisao.trl`` and ``fisao.verl`` hold rewards for these trainers. Everything is computed by the
``fisao`` binary, which comes with this package; ``python -m fisao`` runs it.
"""

from __future__ import annotations

from importlib import metadata as _metadata

from . import trl, verl
from ._binary import find_binary
from ._errors import (
    BinaryNotFound,
    Busy,
    CommandFailed,
    DeadlineExceeded,
    FisaoError,
    InternalError,
    InvalidImage,
    InvalidJson,
    InvalidParams,
    RequestTimeout,
    ServerDied,
    StartFailed,
    TokenizerMismatch,
    TooLarge,
    Unavailable,
    UnknownMethod,
    UnsupportedProtocol,
)
from ._evaluation import AmberResult, ChairResult, PopeResult, amber, chair, pope
from ._results import (
    Caption,
    CaptionToken,
    Mention,
    NameScore,
    RewardedCompletion,
    VerifiedCaption,
    VerifiedCaptions,
)
from ._spans import token_spans
from ._verifier import Verifier, verify

try:
    __version__ = _metadata.version("fisao")
except _metadata.PackageNotFoundError:  # Imported from the sources.
    __version__ = "0+unknown"

__all__ = [
    "AmberResult",
    "BinaryNotFound",
    "Busy",
    "Caption",
    "CaptionToken",
    "ChairResult",
    "CommandFailed",
    "DeadlineExceeded",
    "FisaoError",
    "InternalError",
    "InvalidImage",
    "InvalidJson",
    "InvalidParams",
    "Mention",
    "NameScore",
    "PopeResult",
    "RequestTimeout",
    "RewardedCompletion",
    "ServerDied",
    "StartFailed",
    "TokenizerMismatch",
    "TooLarge",
    "Unavailable",
    "UnknownMethod",
    "UnsupportedProtocol",
    "VerifiedCaption",
    "VerifiedCaptions",
    "Verifier",
    "__version__",
    "amber",
    "chair",
    "find_binary",
    "pope",
    "token_spans",
    "trl",
    "verify",
    "verl",
]
