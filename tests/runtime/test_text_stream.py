"""Streamed text equals the tokenizer's own decoding, and no piece holds half a character."""

from __future__ import annotations

import time
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_data import reference_dir
from tokenizers import AddedToken, Tokenizer, decoders, models

from hicom_edge.runtime.text_stream import TextStream


@cache
def byte_level() -> Tokenizer:
    path = reference_dir() / "ckpt_small/release/tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens([AddedToken("<tool call>", special=False)])
    return tokenizer


@cache
def byte_fallback(decoder: str) -> Tokenizer:
    """A Llama 2 kind of tokenizer: ids 1..256 are bytes, then words."""
    words = ["▁a", "b", "▁", "▁the", "cd", "\ufffd", "你"]
    vocab = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256))]
    tokenizer = Tokenizer(models.Unigram(vocab + [(word, -1.0) for word in words], 0, True))
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.decoder = {
        "llama": decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        ),
        "metaspace": decoders.Metaspace(),
    }[decoder]
    return tokenizer


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    return "".join(TextStream(tokenizer).pieces(ids))


@given(st.lists(st.integers(0, 450)))
def test_byte_level_pieces_join_to_the_decoded_text(ids: list[int]) -> None:
    assert streamed(byte_level(), ids) == byte_level().decode(ids)


_BYTES = st.text(st.sampled_from("aé你😀"), max_size=3).map(lambda t: [b + 1 for b in t.encode()])


@pytest.mark.parametrize("decoder", ["llama", "metaspace"])
@given(runs=st.lists(_BYTES | st.lists(st.integers(0, 270), max_size=3)))
def test_byte_fallback_pieces_join_to_the_decoded_text(decoder: str, runs: list[list[int]]) -> None:
    tokenizer = byte_fallback(decoder)
    ids = [index for run in runs for index in run]
    assert streamed(tokenizer, ids) == tokenizer.decode(ids)


@given(st.text(st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"])))
def test_no_piece_of_valid_text_holds_half_a_character(text: str) -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = list(TextStream(tokenizer).pieces(ids))
    assert all(piece and "\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) == tokenizer.decode(ids)


def test_text_comes_as_soon_as_a_character_is_whole() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("a你", add_special_tokens=False).ids
    stream = TextStream(tokenizer)
    pieces = [stream.push(index) for index in ids]
    assert pieces == ["a", "", "", "你"]
    assert stream.finish() == ""


def test_an_unfinished_character_comes_out_at_the_end() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("a你", add_special_tokens=False).ids[:-1]
    stream = TextStream(tokenizer)
    assert "".join(map(stream.push, ids)) == "a"
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""


def test_special_and_unknown_ids_give_no_text() -> None:
    stream = TextStream(byte_level())
    end = byte_level().token_to_id("<|im_end|>")
    assert [stream.push(index) for index in (end, 447, 99_999)] == ["", "", ""]


@pytest.mark.parametrize("tokenizer", [byte_level, lambda: byte_fallback("llama")])
def test_time_is_linear_even_for_bytes_that_are_never_text(tokenizer: object) -> None:
    opened: Tokenizer = tokenizer()  # type: ignore[operator]
    invalid = next(i for i in range(450) if opened.id_to_token(i) in ("ÿ", "<0xFF>"))

    count = 40_000
    start = time.perf_counter()
    assert len(streamed(opened, [invalid] * count)) == count
    # Decoding a growing window each time would take minutes.
    assert time.perf_counter() - start < 10
