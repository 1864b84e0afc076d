"""The guide tokenizer of the runtime refuses what it cannot encode exactly."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from hicom_edge.bundle.manifest import GuideSpec
from hicom_edge.errors import BundleError, PromptError
from hicom_edge.runtime.guide.charsmap import Charsmap
from hicom_edge.runtime.guide.tokenizer import GuideTokenizer
from hicom_edge.runtime.guide.unigram import Unigram

PIECES = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁", -3.0], ["▁a", -1.0], ["b", -2.0]]


def tokenizer_json(charsmap: bytes = b"") -> dict[str, object]:
    mapped = base64.b64encode(charsmap).decode()
    token = {"single_word": False, "lstrip": True, "rstrip": True, "special": True}
    return {
        "added_tokens": [{"id": 1, "content": "</s>", **token}],
        "normalizer": {
            "normalizers": [{"type": "Lowercase"}]
            + ([{"type": "Precompiled", "precompiled_charsmap": mapped}] if charsmap else [])
        },
        "post_processor": {"special_tokens": {"</s>": {"ids": [1]}}},
        "model": {"unk_id": 2, "vocab": PIECES, "byte_fallback": False},
    }


def opened(directory: Path, data: object, family: str = "siglip", pad: int = 1) -> GuideTokenizer:
    (directory / "guide.json").write_text(json.dumps(data))
    manifest = SimpleNamespace(guide=GuideSpec("guide.json", family, 6, pad))
    return GuideTokenizer(
        SimpleNamespace(path=directory, manifest=manifest, file=lambda name: directory / name)
    )


def test_text_is_canonical_then_cut_then_ended_and_padded(tmp_path: Path) -> None:
    guide = opened(tmp_path, tokenizer_json())
    assert guide.encode("A-b,\n\tA!").tolist() == [4, 5, 4, 1, 1, 1]
    assert guide.encode("a a a a a a a a").tolist() == [4, 4, 4, 4, 4, 1]
    assert guide.encode("aq").tolist() == [4, 2, 1, 1, 1, 1]
    assert guide.encode("").tolist() == [1] * 6


def test_an_end_token_that_is_typed_last_is_not_doubled(tmp_path: Path) -> None:
    guide = opened(tmp_path, tokenizer_json(), pad=0)
    assert guide.encode("a </s>").tolist() == [4, 1, 0, 0, 0, 0]
    assert guide.encode("a").tolist() == [4, 1, 0, 0, 0, 0]


def test_a_bundle_without_a_guide_says_so(tmp_path: Path) -> None:
    bundle = SimpleNamespace(path=tmp_path, manifest=SimpleNamespace(guide=None))
    with pytest.raises(BundleError, match="has no guide: its checkpoint compresses without the q"):
        GuideTokenizer(bundle)


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"family 'bert' is unknown, expected one of \['clip', "):
        opened(tmp_path, tokenizer_json(), "bert")


@pytest.mark.parametrize(("data", "family"), [({}, "siglip"), ([], "siglip"), ({}, "clip")])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, data: object, family: str) -> None:
    with pytest.raises(BundleError, match=f"is not a {family} guide tokenizer .*export the bundle"):
        opened(tmp_path, data, family)


@pytest.mark.parametrize("compiled", [b"\0", b"\x08\0\0\0abcd", b"\x03\0\0\0abcdefgh\0"])
def test_a_broken_character_map_is_refused(tmp_path: Path, compiled: bytes) -> None:
    with pytest.raises(BundleError, match=r"character map \(\d+ bytes\) is not a compiled map"):
        opened(tmp_path, tokenizer_json(compiled))


def test_text_without_a_utf8_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"the guide text is not valid Unicode: '\\ud800' at cha"):
        opened(tmp_path, tokenizer_json()).encode("a\ud800")


def test_spaces_are_collapsed_and_marked() -> None:
    assert Charsmap(b"").normalize("  a  b ") == "a▁b"
    assert Charsmap(b"").normalize("   ") == ""


def test_unknown_characters_are_one_token_or_their_bytes() -> None:
    pieces = [("a", -1.0), ("ab", -1.5)]
    assert Unigram(pieces).tokenize("abxya") == ["ab", "xy", "a"]
    assert Unigram(pieces, byte_fallback=True).tokenize("aé") == ["a", "<0xC3>", "<0xA9>"]


def test_pieces_without_a_probability_match_no_text() -> None:
    assert Unigram([("a", -1.0), ("aa", 0.0)]).tokenize("aa") == ["a", "a"]
