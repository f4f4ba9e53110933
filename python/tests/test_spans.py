"""Spans of tokens, with real tokenizers and with decoders made for the purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List, Sequence

import pytest

from fisao import TokenizerMismatch, token_spans
from fisao._spans import WINDOW, _prefix_progress, _windowed_progress, spans_of_tokens

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

MODEL = Path(__file__).resolve().parents[2] / "crates" / "fisao-demo-llava" / "model"

TEXTS = [
    "A dog on a sofa, next to two cats.",
    "a dog",
    "",
    " leading and  double   spaces ",
    "Ein Café mit Hündchen: 🐶 und 🐈‍⬛, naïve.",
    "一只狗坐在沙发上。猫在哪里？",
    "line\nbreaks\n\n\tand tabs",
    "👩‍👩‍👧‍👦👩‍👩‍👧‍👦 🏳️‍🌈",
    "don't can't they're , . ! ? it 's",
    "x" * 50 + " 🐕" * 40 + " end",
]


def fast(tokenizer: Any, **options: Any) -> Any:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", bos_token="<s>", **options
    )


def byte_level() -> Any:
    """Byte-level BPE as GPT-2, Llama 3 and Qwen have it; characters are split over tokens."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(["a dog and a cat on the sofa"] * 5, trainer)
    return fast(model, clean_up_tokenization_spaces=False)


def metaspace() -> Any:
    """BPE with ▁ for spaces and bytes for unknown characters, as Llama 2 has it."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True, unk_token="<unk>"))
    normalizers, decoders = tokenizers.normalizers, tokenizers.decoders
    model.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    model.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>", *fallback],
        show_progress=False,
    )
    model.train_from_iterator(["A dog on a sofa, next to two cats."] * 5, trainer)
    # Only the first four are special; bytes are tokens like others.
    vocabulary = model.get_vocab()
    merges = [tuple(pair) for pair in _merges(model)]
    bpe = tokenizers.models.BPE(
        vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True
    )
    plain = tokenizers.Tokenizer(bpe)
    plain.normalizer, plain.decoder = model.normalizer, model.decoder
    plain.add_special_tokens(["<unk>", "<s>", "</s>", "<pad>"])
    return fast(plain, unk_token="<unk>", clean_up_tokenization_spaces=False)


def _merges(tokenizer: Any) -> List[Sequence[str]]:
    import json

    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


def unigram() -> Any:
    """SentencePiece's Unigram with a prefix space, as T5 has it."""
    model = tokenizers.Tokenizer(tokenizers.models.Unigram())
    model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    model.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=["<s>", "</s>", "<pad>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    model.train_from_iterator(TEXTS * 3, trainer)
    return fast(model, unk_token="<unk>", clean_up_tokenization_spaces=False)


def cleaning_up() -> Any:
    """WordPiece, whose decoder takes spaces before punctuation away again."""
    words = [
        "<s>",
        "</s>",
        "<pad>",
        "<unk>",
        "a",
        "dog",
        "and",
        "cat",
        ",",
        ".",
        "##s",
        "don",
        "'t",
    ]
    vocabulary = {word: at for at, word in enumerate(words)}
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.decoder = tokenizers.decoders.WordPiece(cleanup=True)
    return fast(model, unk_token="<unk>", clean_up_tokenization_spaces=True)


def embedded() -> Any:
    if not MODEL.is_dir():
        pytest.skip("the built-in model's tokenizer is not here")
    return transformers.AutoTokenizer.from_pretrained(str(MODEL))


KINDS: List[Callable[[], Any]] = [byte_level, metaspace, unigram, embedded]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_spans_cover_the_text_in_order(kind: Callable[[], Any], text: str) -> None:
    tokenizer = kind()
    ids = tokenizer.encode(text, add_special_tokens=False)
    expected = tokenizer.decode(ids, skip_special_tokens=True)
    decoded, spans = token_spans(ids, tokenizer, expected)
    assert decoded == expected
    assert len(spans) == len(ids)
    covered = 0
    for start, end in spans:
        assert start <= covered <= max(covered, end) <= len(decoded)
        assert start in (covered, covered - 1)
        covered = max(covered, end)
    assert covered == len(decoded)


@pytest.mark.parametrize("kind", [byte_level, metaspace, embedded])
@pytest.mark.parametrize("text", TEXTS[:2] + TEXTS[4:])
def test_spans_agree_with_the_tokenizers_offsets(kind: Callable[[], Any], text: str) -> None:
    tokenizer = kind()
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    if tokenizer.decode(ids, skip_special_tokens=True) != text:
        pytest.skip("this tokenizer does not hold this text")
    if any(token.startswith("<0x") for token in tokenizer.convert_ids_to_tokens(ids)):
        pytest.skip("offsets count bytes that stand for unknown characters as characters")
    _, spans = token_spans(ids, tokenizer, text)
    for token, (start, end), (first, past) in zip(ids, spans, encoded["offset_mapping"]):
        if tokenizer.convert_ids_to_tokens(token) == "▁" and start == end == 0:
            continue  # The space that is put before the text; offsets give it the first character.
        # Offsets may leave a token's leading space out, and give all tokens that spell parts of a
        # character the whole of it.
        assert text[start:end].strip() == text[first:past].strip(), (start, end, first, past)


def test_character_of_several_tokens_is_shared_by_them() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("a 🐶 dog", add_special_tokens=False)
    text, spans = token_spans(ids, tokenizer)
    pieces = [text[start:end] for start, end in spans]
    # No merges of its bytes were learnt: one token for each, the first perhaps with the space.
    assert [piece.strip() for piece in pieces].count("🐶") == 4
    assert spans[0] == (0, 1)
    assert "".join(piece for piece in pieces if "🐶" not in piece).strip() == "a  dog".strip()


def test_leading_space_of_sentencepiece_is_not_spelled() -> None:
    tokenizer = metaspace()
    ids = tokenizer.encode("A dog", add_special_tokens=False)
    text, spans = token_spans(ids, tokenizer, "A dog")
    assert spans[0][0] == 0
    assert "".join(text[start:end] for start, end in spans) == "A dog"


def test_special_tokens_spell_nothing_wherever_they_are() -> None:
    tokenizer = byte_level()
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    dog = tokenizer.encode("a dog", add_special_tokens=False)
    cat = tokenizer.encode(" cat", add_special_tokens=False)
    text, spans = token_spans([bos, *dog, pad, *cat, eos, pad], tokenizer, "a dog cat")
    empty = [at for at, (start, end) in enumerate(spans) if start == end]
    assert empty == [0, 1 + len(dog), len(spans) - 2, len(spans) - 1]
    assert spans[0] == (0, 0)
    assert spans[1 + len(dog)] == (5, 5)
    assert spans[-1] == (len(text), len(text))


def test_only_special_tokens_and_no_tokens() -> None:
    tokenizer = byte_level()
    assert token_spans([tokenizer.eos_token_id], tokenizer, "") == ("", [(0, 0)])
    assert token_spans([], tokenizer, "") == ("", [])


@pytest.mark.parametrize("kind", [byte_level, metaspace])
def test_text_that_ends_within_a_character(kind: Callable[[], Any]) -> None:
    tokenizer = kind()
    ids = tokenizer.encode("a 🐶", add_special_tokens=False)[:-2]
    text, spans = token_spans(ids, tokenizer)
    assert text.startswith("a ")
    assert max(end for _, end in spans) == len(text)


def test_decoder_that_changes_what_it_wrote() -> None:
    tokenizer = cleaning_up()
    ids = [
        tokenizer.convert_tokens_to_ids(word)
        for word in ["a", "dog", "##s", ",", "and", "a", "cat", "."]
    ]
    text, spans = token_spans(ids, tokenizer)
    assert text == "a dogs, and a cat."
    pieces = [text[start:end].strip() for start, end in spans]
    assert pieces == ["a", "dog", "s", ",", "and", "a", "cat", "."]


def test_ids_of_another_tokenizer_are_refused() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("a dog on the sofa", add_special_tokens=False)
    with pytest.raises(TokenizerMismatch) as caught:
        token_spans(ids, tokenizer, "a dog on the chair")
    assert "sofa" in str(caught.value) and "chair" in str(caught.value)
    assert "hint:" in str(caught.value)


def test_processor_stands_for_its_tokenizer() -> None:
    class Processor:
        tokenizer = byte_level()

    ids = Processor.tokenizer.encode("a dog", add_special_tokens=False)
    assert token_spans(ids, Processor())[0] == "a dog"


def _words(ids: Sequence[int]) -> str:
    """Words joined by a space, or bytes where the id is above 1000, as Llama's decoder would."""
    data = b"".join(
        bytes([token - 1000]) if token >= 1000 else f" w{token}".encode() for token in ids
    )
    text = data.decode("utf-8", "replace")
    return text[1:] if text.startswith(" ") else text


def test_windowed_spans_equal_prefix_spans_at_linear_cost() -> None:
    character = [1000 + byte for byte in "叫".encode()]
    ids = [token for at in range(300) for token in (*character * (at % 2), at)]
    text = _words(ids)
    decoded = 0

    def counting(tokens: Sequence[int]) -> str:
        nonlocal decoded
        decoded += len(tokens)
        return _words(tokens)

    windowed = _windowed_progress(ids, text, counting)
    assert decoded <= 2 * WINDOW * len(ids)
    assert windowed == _prefix_progress(ids, text, _words)


def test_decoder_that_looks_far_back_has_every_prefix_decoded() -> None:
    # Every token is spelled as the number of tokens before it.
    def numbers(tokens: Sequence[int]) -> str:
        return "".join(f"{at};" for at in range(len(tokens)))

    text = numbers([7] * 60)
    start, end = spans_of_tokens([7] * 60, text, numbers)[59]
    assert text[start:end] == "59;"
