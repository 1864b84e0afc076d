"""What the export writes about text: tokenizers as they are, settings as transformers has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from reference_data import reference_dir

from hicom_edge.bundle.manifest import GenerationSpec, GuideSpec
from hicom_edge.errors import ExportError
from hicom_edge.export.text_files import generation_notes, generation_spec, write_text_files
from hicom_edge.export.vocabulary import check_vocabulary

pytest.importorskip("sentencepiece")


def text_source(directory: Path, **changes: Any) -> SimpleNamespace:
    tower = reference_dir() / "ckpt_small/playground/models/siglip-so400m-patch14-384"
    source = SimpleNamespace(
        text_directory=directory,
        tower_directory=tower,
        config=json.loads((directory / "config.json").read_text()),
        generation_config=json.loads((directory / "generation_config.json").read_text()),
        tower_config=json.loads((tower / "config.json").read_text()),
        uses_guide=True,
    )
    vars(source).update(changes)
    return source


@pytest.fixture
def checkpoint(reference_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the text files that a test may change."""
    copy = tmp_path / "checkpoint"
    copy.mkdir()
    for path in reference_checkpoint.iterdir():
        if path.suffix != ".safetensors":
            shutil.copyfile(path, copy / path.name)
    return copy


def test_the_released_settings_are_written(reference_checkpoint: Path, tmp_path: Path) -> None:
    files = write_text_files(text_source(reference_checkpoint), tmp_path)
    assert files.tokenizer == "tokenizer.json"
    assert files.guide == GuideSpec("guide_tokenizer.json", "siglip", 64, 1)
    assert files.generation == GenerationSpec((400, 401), 1.05, 0.7, 0.8, 20)
    original = (reference_checkpoint / "tokenizer.json").read_bytes()
    assert (tmp_path / "tokenizer.json").read_bytes() == original


def test_without_a_guide_no_guide_tokenizer_is_written(
    reference_checkpoint: Path, tmp_path: Path
) -> None:
    source = text_source(reference_checkpoint, uses_guide=False, tower_directory=tmp_path / "none")
    assert write_text_files(source, tmp_path).guide is None
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_vocabulary_files_become_a_tokenizer_with_equal_ids(
    checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    original = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    (checkpoint / "tokenizer.json").unlink()
    written = []
    for name in "ab":
        (tmp_path / name).mkdir()
        write_text_files(text_source(checkpoint), tmp_path / name)
        written.append((tmp_path / name / "tokenizer.json").read_bytes())
    assert written[0] == written[1]
    converted = Tokenizer.from_file(str(tmp_path / "a/tokenizer.json"))
    for case in json.loads((reference_dir() / "preprocess/tokenize.json").read_text())["llm"]:
        text = case.get("chat_text", case.get("raw_prompt"))
        expected = original.encode(text, add_special_tokens=False).ids
        assert converted.encode(text, add_special_tokens=False).ids == expected


@pytest.mark.parametrize(
    ("settings", "config", "end", "expected"),
    [
        ({}, {"eos_token_id": 7}, 9, GenerationSpec((7,), 1.0, 1.0, 1.0, 50)),
        ({}, {}, 9, GenerationSpec((9,), 1.0, 1.0, 1.0, 50)),
        ({"eos_token_id": 0, "top_k": None}, {}, 9, GenerationSpec((0,), 1.0, 1.0, 1.0, 0)),
        (
            {"eos_token_id": [3, 4], "top_k": 0, "temperature": None},
            {},
            None,
            GenerationSpec((3, 4)),
        ),
    ],
)
def test_what_the_checkpoint_leaves_out_is_as_in_transformers(
    settings: dict[str, Any], config: dict[str, Any], end: int | None, expected: GenerationSpec
) -> None:
    source = SimpleNamespace(text_directory=Path("ckpt"), generation_config=settings, config=config)
    assert generation_spec(source, end) == expected


def test_settings_that_the_runtime_has_not_are_noted() -> None:
    applied = {"repetition_penalty": 1.05, "do_sample": True, "num_beams": 1, "min_p": None}
    assert generation_notes(applied) == ()
    assert generation_notes(applied | {"min_p": 0.1, "suppress_tokens": [3], "min_length": 0}) == (
        "generation_config.json asks for min_p 0.1, suppress_tokens [3], which the runtime does "
        "not support",
    )


def test_a_checkpoint_without_a_stop_token_is_refused() -> None:
    source = SimpleNamespace(text_directory=Path("ckpt"), generation_config={}, config={})
    with pytest.raises(ExportError, match="ckpt names no end token; expected eos_token_id in"):
        generation_spec(source, None)


@pytest.mark.parametrize("stops", ["400", [[400], [401]], ["400"], 400.0, True, [400, None]])
def test_stop_tokens_that_are_no_ids_are_refused(stops: object) -> None:
    settings = {"eos_token_id": stops}
    source = SimpleNamespace(text_directory=Path("ckpt"), generation_config=settings, config={})
    with pytest.raises(
        ExportError, match=r"eos_token_id of ckpt is .*, expected a whole number or"
    ):
        generation_spec(source, None)


def test_ids_beyond_the_embedding_table_are_refused(reference_checkpoint: Path) -> None:
    tokenizer = reference_checkpoint / "tokenizer.json"
    check_vocabulary(tokenizer, (400, 401), 448)
    with pytest.raises(ExportError, match="ids up to 402, but the embedding table has 390 rows"):
        check_vocabulary(tokenizer, (1,), 390)
    with pytest.raises(ExportError, match=r"the stop tokens \[448\] .* are beyond .* of 448 rows"):
        check_vocabulary(tokenizer, (400, 448), 448)


def test_a_missing_tokenizer_is_named(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (checkpoint / name).unlink()
    with pytest.raises(ExportError, match=r"has no tokenizer; expected tokenizer\.json or one of"):
        write_text_files(text_source(checkpoint), tmp_path)


def test_a_broken_tokenizer_is_named(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "tokenizer.json").write_text("{}")
    with pytest.raises(ExportError, match=r"the tokenizer of .* cannot be read"):
        write_text_files(text_source(checkpoint), tmp_path)
    (checkpoint / "tokenizer_config.json").write_text("{")
    with pytest.raises(ExportError, match=r"tokenizer_config\.json is not a JSON object"):
        write_text_files(text_source(checkpoint), tmp_path)
