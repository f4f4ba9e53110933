"""Which characters of a decoded text each token spells.

The same definition as in the Rust sources (``fisao-formats``, ``tokenizer/spans.rs``), in
characters instead of bytes. A decoder is a function from tokens to text: it strips a leading
space, joins the bytes of a character that several tokens spell, drops special tokens. So spans
come from decoding prefixes. What the text of the first *i* tokens has in common with the whole
text is settled, and what token *i* adds to the settled part is its own. A prefix that ends within
a character shows replacement characters instead; such a token is *open* and shares the character
with those that complete it.
"""

from __future__ import annotations

from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

from ._errors import TokenizerMismatch

#: First character and the one after the last.
Span = Tuple[int, int]

#: Tokens decoded again for each new one. Decoding every prefix in full would be quadratic.
WINDOW = 16


class _Progress(NamedTuple):
    """How far the text is after a token."""

    common: int
    """Characters that the text so far has in common with the whole text."""
    open: bool
    """Whether the text so far continues differently: it ends within a character."""


def text_tokenizer(tokenizer: Any) -> Any:
    """The tokenizer of a processor, or the tokenizer itself."""
    inner = getattr(tokenizer, "tokenizer", None)
    return tokenizer if inner is None else inner


def token_spans(
    ids: Sequence[int], tokenizer: Any, text: Optional[str] = None
) -> Tuple[str, List[Span]]:
    """The text that ``ids`` spell, and for each token the characters that are its own.

    * ``ids``: tokens of a completion, special tokens included.
    * ``tokenizer``: a tokenizer of transformers, or a processor with one.
    * ``text``: the completion, without special tokens, to be compared with what ``ids`` spell.

    Spans are in order and together cover the text. A token that spells nothing, such as a special
    one, has an empty span. Raises ``TokenizerMismatch`` if ``ids`` do not spell ``text``.
    """
    tokenizer = text_tokenizer(tokenizer)
    ids = [int(token) for token in ids]
    special = frozenset(tokenizer.all_special_ids)

    def decode(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    decoded = decode(ids)
    if text is not None and text != decoded:
        raise TokenizerMismatch(
            f"the token ids spell {_excerpt(decoded, text)} where the completion says "
            f"{_excerpt(text, decoded)}",
            hint="give the tokenizer that the model was sampled with, and completions decoded by "
            "it with skip_special_tokens=True",
        )
    spelled = [token for token in ids if token not in special]
    own = spans_of_tokens(spelled, decoded, decode)
    spans: List[Span] = []
    at = 0
    for token in ids:
        if token in special:
            start = own[at][0] if at < len(own) else len(decoded)
            spans.append((start, start))
        else:
            spans.append(own[at])
            at += 1
    return decoded, spans


def spans_of_tokens(
    tokens: Sequence[int], text: str, decode: Callable[[Sequence[int]], str]
) -> List[Span]:
    """The span of each token of a text of which every token is decoded."""
    progress = _windowed_progress(tokens, text, decode)
    if progress is None:
        progress = _prefix_progress(tokens, text, decode)
    return _spans(text, progress)


def _progress(so_far: str, text: str, start: int = 0) -> _Progress:
    room = min(len(so_far), len(text) - start)
    if text.startswith(so_far[:room], start):
        common = room
    else:
        common = next(at for at in range(room) if so_far[at] != text[start + at])
    return _Progress(start + common, common < len(so_far))


def _prefix_progress(
    tokens: Sequence[int], text: str, decode: Callable[[Sequence[int]], str]
) -> List[_Progress]:
    """The definition: every prefix decoded in full."""
    return [_progress(decode(tokens[:end]), text) for end in range(1, len(tokens) + 1)]


def _windowed_progress(
    tokens: Sequence[int], text: str, decode: Callable[[Sequence[int]], str]
) -> Optional[List[_Progress]]:
    """The same from a window of tokens: what the window's text adds to that of its first part.

    ``None`` if the decoder looks further back than that.
    """
    progress: List[_Progress] = []
    window = 0
    # Text of the window's first part, and where that part ends in the whole text.
    context, settled = "", 0
    for end in range(1, len(tokens) + 1):
        decoded = decode(tokens[window:end])
        if not decoded.startswith(context):
            return None
        step = _progress(decoded[len(context) :], text, settled)
        progress.append(step)
        if end - window >= WINDOW and not step.open:
            first = end - WINDOW // 2
            before = progress[first - 1]
            part = decode(tokens[first:end])
            # The part keeps its leading space only if something stands before it, so its text has
            # to be what the whole text has there, but for that space.
            whole = text[min(before.common, step.common) : step.common]
            if before.open or not part or part.lstrip() != whole.lstrip():
                continue
            window, context, settled = first, part, step.common
    complete = not progress or (not progress[-1].open and progress[-1].common == len(text))
    return progress if complete else None


def _spans(text: str, progress: Sequence[_Progress]) -> List[Span]:
    # Text is settled only if no later token changes it again.
    ends = [step.common for step in progress]
    for at in range(len(ends) - 1, 0, -1):
        ends[at - 1] = min(ends[at - 1], ends[at])
    spans, start = [], 0
    for end, step in zip(ends, progress):
        unfinished = (step.open or end < step.common) and end < len(text)
        spans.append((start, end + int(unfinished)))
        start = end
    return spans


def _excerpt(text: str, other: str) -> str:
    """The part of a text where it first differs from another."""
    same = next((at for at, (a, b) in enumerate(zip(text, other)) if a != b), None)
    same = min(len(text), len(other)) if same is None else same
    start, end = max(0, same - 20), same + 20
    return ("…" if start else "") + repr(text[start:end]) + ("…" if end < len(text) else "")
