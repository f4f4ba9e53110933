"""Exceptions: one class for each kind of failure, all of them ``FisaoError``."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Optional, Tuple, Type


class FisaoError(Exception):
    """A failure of fisao.

    ``message`` says what is wrong, ``hint`` what to do about it, ``code`` is the server's name for
    it, and ``log`` the end of what the program wrote to its standard error.
    """

    #: The protocol's code of this kind of failure.
    code: Optional[str] = None

    def __init__(
        self,
        message: str,
        *,
        hint: Optional[str] = None,
        code: Optional[str] = None,
        log: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log = log
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        text = self.message
        if self.hint:
            text += f"\nhint: {self.hint}"
        return text

    def __reduce__(self) -> Tuple[Any, ...]:
        fields = {"hint": self.hint, "code": self.code, "log": self.log}
        return _rebuild, (type(self), self.message, fields)


def _rebuild(kind: Type[FisaoError], message: str, fields: Dict[str, Any]) -> FisaoError:
    return kind(message, **fields)


class InvalidJson(FisaoError):
    """The server could not read a line. A mistake of this package."""

    code = "invalid-json"


class UnsupportedProtocol(FisaoError):
    """Package and binary speak different versions of the protocol."""

    code = "unsupported-protocol"


class UnknownMethod(FisaoError):
    """The binary does not have a method."""

    code = "unknown-method"


class InvalidParams(FisaoError, ValueError):
    """An argument is missing, unknown, out of range or of another kind."""

    code = "invalid-params"


class InvalidImage(FisaoError, ValueError):
    """An image cannot be read."""

    code = "invalid-image"


class TooLarge(FisaoError, ValueError):
    """A request, an image or a prompt is longer than allowed."""

    code = "too-large"


class Unavailable(FisaoError):
    """What was asked for needs a model, a verifier or a calibration that was not given."""

    code = "unavailable"


class Busy(FisaoError):
    """Too many requests are waiting."""

    code = "busy"


class DeadlineExceeded(FisaoError):
    """A request took longer than the server allows."""

    code = "deadline-exceeded"


class InternalError(FisaoError):
    """An internal error of the server."""

    code = "internal"


class RequestTimeout(FisaoError, TimeoutError):
    """No answer within ``timeout`` seconds."""


class ServerDied(FisaoError):
    """The server ended before it answered."""


class StartFailed(FisaoError):
    """The server ended before it was ready: a file or an option was refused."""


class CommandFailed(FisaoError):
    """A command of the binary ended with an error. ``exit_code`` is 1 for invalid input."""

    exit_code: int = 1


class BinaryNotFound(FisaoError, FileNotFoundError):
    """The ``fisao`` binary is not installed."""


class TokenizerMismatch(FisaoError, ValueError):
    """Token ids do not spell the completion: they are of another tokenizer."""


_KINDS: Dict[str, Type[FisaoError]] = {
    kind.code: kind
    for kind in (
        InvalidJson,
        UnsupportedProtocol,
        UnknownMethod,
        InvalidParams,
        InvalidImage,
        TooLarge,
        Unavailable,
        Busy,
        DeadlineExceeded,
        InternalError,
    )
    if kind.code is not None
}


def from_reply(error: Dict[str, Any], log: str = "") -> FisaoError:
    """The exception for the ``error`` of a reply."""
    code = str(error.get("code", "internal"))
    kind = _KINDS.get(code, FisaoError)
    hint = error.get("hint")
    message = str(error.get("message", "the server gave no reason"))
    return kind(message, hint=None if hint is None else str(hint), code=code, log=log)


_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def reason_in(log: str) -> Tuple[Optional[str], Optional[str]]:
    """Message and hint of the last ``error:`` of a program's standard error."""
    lines = _ESCAPE.sub("", log).splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("error: ")]
    if not starts:
        return None, None
    message: List[str] = [lines[starts[-1]][len("error: ") :]]
    hint: List[str] = []
    target = message
    for line in lines[starts[-1] + 1 :]:
        if line.startswith(("hint: ", "  tip: ")):
            target = hint
            target.append(line.split(": ", 1)[1].strip())
        elif not line.strip() or line.startswith(("Usage:", "For more information")):
            if target is hint:
                break
        else:
            target.append(line.strip())
    return " ".join(message), " ".join(hint) or None
