"""benchmarks/trtllm_smoke.py sees what it should; stand-ins take the place of TensorRT-LLM."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tensorrt_llm_stand_in import (
    TORCH,
    BuildCommand,
    HostExecutor,
    bindings,
    install_tensorrt_llm,
)

from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_decoder
from hicom_edge.engines.tensorrt_llm import session as tensorrt_llm_session
from hicom_edge.engines.tensorrt_llm.session import ExecutorSession
from hicom_edge.planning import machine as planning_machine
from hicom_edge.planning.gpus import Gpu
from hicom_edge.runtime.token_embedding import open_token_embedding

SAME = ["--max-new-tokens", "6"]
DEMO = Path(__file__).resolve().parents[3] / "demo" / "bundle"
SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "trtllm_smoke.py"


@pytest.fixture(scope="module")
def smoke() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trtllm_smoke", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def work(smoke: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared directory: bundle, clip, PyTorch's answers."""
    directory: Path = tmp_path_factory.mktemp("smoke") / "work"
    assert smoke.main([str(directory), *SAME, "--prepare"]) == 0
    return directory


@pytest.fixture
def stand_ins(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build command that writes small files, and an executor over our own decoder in fp32."""
    BuildCommand(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(planning_machine, "find_gpus", lambda: (Gpu("Orin", (8, 7), 32 << 30, 16),))
    monkeypatch.syspath_prepend(str(tmp_path))
    install_tensorrt_llm(tmp_path, "0.12.0")
    demo = Bundle.open(DEMO)
    decoder = load_decoder(demo, "onnxruntime-cpu")
    decoder.activate()
    embedding = np.array(open_token_embedding(demo), np.float32)

    def open_session(directory, names, limits, model) -> ExecutorSession:
        assert model.world_size == 1
        executor = HostExecutor(decoder, embedding, returns_end=True)
        return ExecutorSession(bindings("0.12"), TORCH, executor, names, model)

    monkeypatch.setattr(tensorrt_llm_session.ExecutorSession, "open", open_session)


def test_without_tensorrt_llm_it_says_what_is_missing(
    smoke: ModuleType, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smoke.main([str(work), *SAME]) == 2
    assert "error: no NVIDIA GPU" in capsys.readouterr().err


def test_what_was_prepared_for_other_options_is_prepared_again(
    smoke: ModuleType, work: Path, tmp_path: Path
) -> None:
    shutil.copytree(work, tmp_path / "work")
    before = (tmp_path / "work" / "expected.json").stat().st_mtime_ns
    arguments = [str(tmp_path / "work"), *SAME, "--prepare"]
    assert smoke.main(arguments) == 0
    assert (tmp_path / "work" / "expected.json").stat().st_mtime_ns == before
    assert smoke.main([*arguments, "--trtllm-version", "1.x"]) == 0
    assert Bundle.open(tmp_path / "work" / "bundle").manifest.language_model.version == "1.x"


@pytest.mark.usefixtures("stand_ins")
def test_equal_answers_pass_and_one_other_token_fails(
    smoke: ModuleType, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smoke.main([str(work), *SAME]) == 0
    assert "PASS: 4 answers" in capsys.readouterr().out
    expected = work / "expected.json"
    text = expected.read_text()
    content = json.loads(text)
    content["cases"][2]["token_ids"][0] += 1
    expected.write_text(json.dumps(content))
    try:
        assert smoke.main([str(work), *SAME]) == 1
    finally:
        expected.write_text(text)
    shown = capsys.readouterr().out
    assert "penalty 1.0: token 0 differs" in shown
    assert shown.endswith("FAIL\n")
