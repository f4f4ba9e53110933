"""What the verifier says, as Python values that show themselves in a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple


@dataclass(frozen=True)
class Mention:
    """A mention of an object in a text. ``text[start:end]`` is how the text spells it."""

    start: int
    end: int
    text: str
    category: str
    form: str
    """The name that is scored."""
    negated: bool = False
    """Whether the text says that the object is absent; such a mention has no probability."""
    score: Optional[float] = None
    """Score of the name with the image, in the verifier's ``unit``."""
    p_hallucinated: Optional[float] = None
    """Calibrated probability that the object is not in the image."""
    hallucinated: Optional[bool] = None
    """Whether ``p_hallucinated`` is at least the threshold."""
    tokens: Optional[Tuple[int, int]] = None
    """Tokens that spell it: the first, and the one after the last."""
    heat_map: Optional[Dict[str, Any]] = None
    """Where in the image it is seen, if heat maps were asked for."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Mention:
        """From a mention of a reply."""
        tokens = value.get("tokens")
        return cls(
            start=value["start"],
            end=value["end"],
            text=value["text"],
            category=value["category"],
            form=value["form"],
            negated=value.get("negated", False),
            score=value.get("score"),
            p_hallucinated=value.get("p_hallucinated"),
            hallucinated=value.get("hallucinated"),
            tokens=None if tokens is None else (tokens[0], tokens[1]),
            heat_map=value.get("heat_map"),
        )


@dataclass(frozen=True)
class VerifiedCaption:
    """A caption with the verdict on each of its mentions. A notebook shows it in colours."""

    caption: str
    mentions: List[Mention]
    hallucinated: Optional[int] = None
    """Mentions that count as hallucinated; ``None`` without a calibration."""
    unit: str = "cosine"
    """What scores are."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any], unit: str) -> VerifiedCaption:
        """From a sample of a reply."""
        mentions = [Mention.from_json(mention) for mention in value["mentions"]]
        return cls(value["caption"], mentions, value.get("hallucinated"), unit)

    def _repr_html_(self) -> str:
        return f'<div style="{_BLOCK}">{caption_html(self)}</div>'


class VerifiedCaptions(List[VerifiedCaption]):
    """A list of verified captions. A notebook shows it in colours."""

    def _repr_html_(self) -> str:
        rows = "".join(f'<li style="margin:.4em 0">{caption_html(row)}</li>' for row in self)
        return f'<div style="{_BLOCK}"><ol style="padding-left:2em">{rows}</ol>{_LEGEND}</div>'


@dataclass(frozen=True)
class NameScore:
    """Score of a name with an image."""

    name: str
    score: float
    p_hallucinated: Optional[float] = None


@dataclass(frozen=True)
class RewardedCompletion:
    """Rewards of the tokens of a completion, and the mentions that they are for."""

    rewards: List[float]
    mentions: List[Mention]


@dataclass(frozen=True)
class CaptionToken:
    """A token that the model wrote."""

    id: int
    text: str
    """What it spells in the caption; empty for the end token."""
    logprob: float


@dataclass(frozen=True)
class Caption:
    """A caption that the model wrote."""

    text: str
    tokens: List[CaptionToken] = field(repr=False)
    finish_reason: str = "stop"
    """``stop``, or ``length`` if it was truncated."""

    def __str__(self) -> str:
        return self.text

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Caption:
        """From a caption of a reply."""
        tokens = [
            CaptionToken(token["id"], token["text"], token["logprob"]) for token in value["tokens"]
        ]
        return cls(value["text"], tokens, value["finish_reason"])


_BLOCK = "font-family:system-ui,sans-serif;line-height:1.7;max-width:60em"
_LEGEND = (
    '<p style="opacity:.7;font-size:.85em">Background: probability that the object is not in the '
    "image, green 0, red 1; underlined without a calibration; grey for negated mentions.</p>"
)


def caption_html(verified: VerifiedCaption) -> str:
    """A caption as inline HTML, its mentions coloured by their probability."""
    text, parts, at = verified.caption, [], 0
    for mention in _disjoint(verified.mentions):
        parts.append(_escape(text[at : mention.start]))
        style, title = _style(mention), _title(mention, verified.unit)
        spelled = _escape(text[mention.start : mention.end])
        parts.append(f'<span style="{style}" title="{html.escape(title)}">{spelled}</span>')
        at = mention.end
    parts.append(_escape(text[at:]))
    return "".join(parts)


def _disjoint(mentions: Sequence[Mention]) -> List[Mention]:
    kept: List[Mention] = []
    for mention in sorted(mentions, key=lambda mention: (mention.start, mention.end)):
        if not kept or mention.start >= kept[-1].end:
            kept.append(mention)
    return kept


def _escape(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


def _style(mention: Mention) -> str:
    if mention.negated:
        return "padding:0 .2em;border-radius:.2em;background:rgba(128,128,128,.25)"
    if mention.p_hallucinated is None:
        return "border-bottom:2px solid rgba(128,128,128,.6)"
    # From green (hue 120) to red (hue 0), readable on light and dark backgrounds.
    hue = round(120 * (1 - min(1.0, max(0.0, mention.p_hallucinated))))
    weight = ";font-weight:600" if mention.hallucinated else ""
    return f"padding:0 .2em;border-radius:.2em;background:hsla({hue},75%,45%,.35){weight}"


def _title(mention: Mention, unit: str) -> str:
    parts = [mention.category]
    if mention.negated:
        parts.append("negated")
    elif mention.p_hallucinated is not None:
        parts.append(f"p(hallucinated) {mention.p_hallucinated:.2f}")
    if mention.score is not None and not mention.negated:
        parts.append(f"{unit} {mention.score:.3f}")
    return ", ".join(parts)
