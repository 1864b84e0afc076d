"""An engine that `trtllm-build` wrote is checked before it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorrt_llm_stand_in import write_checkpoint

from hicom_edge.engines.tensorrt_llm.engine_check import check_engine
from hicom_edge.errors import EngineError
from hicom_edge.planning.llm.config import read_config


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    model = write_checkpoint(tmp_path / "llm")
    body = {"version": "0.12.0", "build_config": {"max_seq_len": 64}, "pretrained_config": model}
    built = tmp_path / "engine"
    built.mkdir()
    (built / "config.json").write_text(json.dumps(body))
    (built / "rank0.engine").write_bytes(b"engine")
    return built


def test_a_whole_engine_says_its_version_and_files(engine: Path) -> None:
    config = read_config(engine.parent / "llm")
    assert check_engine(engine, config, {"max_seq_len": 64}) == "0.12.0"


def test_an_engine_that_is_not_what_was_asked_is_refused(engine: Path) -> None:
    config = read_config(engine.parent / "llm")
    with pytest.raises(EngineError, match=r"max_seq_len is 64, asked for was 65"):
        check_engine(engine, config, {"max_seq_len": 65})
    (engine / "rank0.engine").write_bytes(b"")
    with pytest.raises(EngineError, match=r"rank0.engine was not written"):
        check_engine(engine, config, {"max_seq_len": 64})
