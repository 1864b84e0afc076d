from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from hicom_edge.shapes.wording import every_text
from hicom_edge.training.demo_tokenizers import Tokenizers
from hicom_edge.training.guide_tokenizer import (
    EOS_ID,
    UNK_ID,
    GuideTokenizer,
    canonical,
    train_guide_tokenizer,
)
from hicom_edge.training.language_tokenizer import (
    SPECIAL_TOKENS,
    tokenizer_files,
    train_language_tokenizer,
)

TEXTS = every_text()
TOKENIZERS = Tokenizers.train(32)
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT)
def test_any_unicode_text_survives_the_language_tokenizer(text: str) -> None:
    tokenizer = TOKENIZERS.language
    normalised = tokenizer.normalizer.normalize_str(text)
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == normalised


def test_words_of_the_demo_are_single_tokens() -> None:
    language, guide = TOKENIZERS.language, TOKENIZERS.guide
    question = "which way does the red circle move"
    assert len(language.encode("\n" + question).ids) == 1 + len(question.split())
    assert (guide.encode(question) != EOS_ID).sum() == len(question.split())


def test_special_tokens_are_never_split() -> None:
    ids = TOKENIZERS.language.encode("".join(SPECIAL_TOKENS)).ids
    assert [TOKENIZERS.language.id_to_token(i) for i in ids] == list(SPECIAL_TOKENS)


def test_training_twice_gives_the_same_bytes() -> None:
    assert train_guide_tokenizer(TEXTS) == train_guide_tokenizer(reversed(TEXTS))
    files = [tokenizer_files(train_language_tokenizer(t), 512) for t in (TEXTS, TEXTS[::-1])]
    assert files[0] == files[1]


def test_the_written_tokenizer_is_read_back_equal(tmp_path: Path) -> None:
    for name, content in tokenizer_files(TOKENIZERS.language, 512).items():
        (tmp_path / name).write_bytes(content)
    again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "<|im_start|>user\nIs there a star? 🙂 Größe<|im_end|>"
    assert again.encode(text).ids == TOKENIZERS.language.encode(text).ids
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["eos_token"] == "<|im_end|>"


def test_transformers_reads_both_tokenizers_with_equal_ids(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from hicom_edge.training.demo_options import DemoOptions
    from hicom_edge.training.siglip_files import tower_config, tower_files

    language, tower = tmp_path / "language", tmp_path / "tower"
    language.mkdir()
    tower.mkdir()
    for name, content in tokenizer_files(TOKENIZERS.language, 512).items():
        (language / name).write_bytes(content)
    config = tower_config(DemoOptions(), TOKENIZERS.guide.vocab_size)
    for name, content in tower_files(config, TOKENIZERS.spiece).items():
        (tower / name).write_bytes(content)
    qwen = transformers.AutoTokenizer.from_pretrained(language)
    siglip = transformers.AutoTokenizer.from_pretrained(tower)
    for text in ("Which way does the Red circle move?", "zebra é go-ing 🙂", "", "A  b!"):
        assert qwen(text).input_ids == TOKENIZERS.language.encode(text).ids
        ids = siglip(text, padding="max_length", max_length=32, truncation=True).input_ids
        assert ids == TOKENIZERS.guide.encode(text).tolist()
    turns = [{"role": "user", "content": "hi"}]
    chat = qwen.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert chat == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@settings(max_examples=100, deadline=None)
@given(ANY_TEXT)
def test_guide_ids_are_padded_to_their_length(text: str) -> None:
    tokenizer = GuideTokenizer(TOKENIZERS.spiece, 16)
    ids = tokenizer.encode(text)
    assert ids.shape == (16,)
    assert ids[-1] == EOS_ID
    assert ids.min() >= EOS_ID
    assert ids.max() < tokenizer.vocab_size


def test_guide_text_loses_case_punctuation_and_spaces() -> None:
    assert canonical("  What's  THE color?! ") == "whats the color"
    encode = TOKENIZERS.guide.encode
    assert encode("Is it RED?").tolist() == encode("is it  red").tolist()
    assert UNK_ID in encode("日本")
