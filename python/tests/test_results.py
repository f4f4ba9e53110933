"""Verified captions as HTML."""

from __future__ import annotations

import html.parser
from typing import Any, Dict, List, Optional, Tuple

from fisao import Mention, VerifiedCaption, VerifiedCaptions


def mention(text: str, name: str, **fields: Any) -> Mention:
    start = text.index(name)
    return Mention(start, start + len(name), name, name, name, **fields)


class Reader(html.parser.HTMLParser):
    """Collects the text and the spans of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: List[str] = []
        self.spans: List[Dict[str, Optional[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.tags.append(tag)
        if tag == "span":
            self.spans.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_and_names_are_escaped() -> None:
    text = "<script>alert('x')</script> a \"dog\" & more"
    hostile = Mention(30, 35, '"dog"', '"><img src=x>', "dog", score=0.1, p_hallucinated=0.2)
    page = VerifiedCaption(text, [hostile])._repr_html_()
    reader = Reader(page)
    assert reader.text == text
    assert set(reader.tags) == {"div", "span"}
    assert reader.spans[0]["title"] == '"><img src=x>, p(hallucinated) 0.20, cosine 0.100'


def test_colour_follows_the_probability() -> None:
    text = "a dog, a cat, no car and a cup"
    page = VerifiedCaption(
        text,
        [
            mention(text, "dog", score=0.5, p_hallucinated=0.0, hallucinated=False),
            mention(text, "cat", score=0.1, p_hallucinated=1.0, hallucinated=True),
            mention(text, "car", negated=True, score=0.3),
            mention(text, "cup", score=0.3),
        ],
        hallucinated=1,
    )._repr_html_()
    styles = [span["style"] or "" for span in Reader(page).spans]
    assert "hsla(120," in styles[0] and "font-weight" not in styles[0]
    assert "hsla(0," in styles[1] and "font-weight" in styles[1]
    assert "rgba(128" in styles[2] and "background" in styles[2]
    assert "border-bottom" in styles[3]
    titles = [span["title"] for span in Reader(page).spans]
    assert titles[2] == "car, negated"


def test_mentions_that_overlap_and_characters_beyond_ascii() -> None:
    text = "Café 🐶: a hot dog"
    overlapping = [mention(text, "dog", score=0.1), mention(text, "hot dog", score=0.2)]
    reader = Reader(VerifiedCaption(text, overlapping)._repr_html_())
    assert reader.text == text
    assert len(reader.spans) == 1


def test_list_of_captions_is_a_page() -> None:
    rows = VerifiedCaptions([VerifiedCaption("a dog", []), VerifiedCaption("a\ncat", [])])
    page = rows._repr_html_()
    assert page.count("<li") == 2 and "a<br>cat" in page
    assert rows[0].caption == "a dog" and len(rows) == 2
    assert "http" not in page
