"""What a GPU session left to the CPU is said, and shapes are no matter for it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from hicom_edge.cli import main
from hicom_edge.engines import load_decoder, load_engine, why_not
from hicom_edge.engines.base import EngineOptions
from hicom_edge.engines.ort.placement import RECORD_PLACEMENT, left_to_cpu, placement_remarks
from hicom_edge.engines.ort.providers import CPU_PROVIDER, CUDA_PROVIDER, SESSION_ENTRIES
from hicom_edge.engines.ort.sessions import open_session, remarks_of, session_options
from hicom_edge.runtime.qa import DEMO_BUNDLE, VideoQA

CLIP = Path(__file__).parents[3] / "docs" / "demo.mp4"


def session(**operators: list[str]) -> SimpleNamespace:
    """A session that says these operators of these providers."""
    groups = [
        SimpleNamespace(
            ep_name=f"{provider}ExecutionProvider",
            get_nodes=lambda names=names: [SimpleNamespace(op_type=name) for name in names],
        )
        for provider, names in operators.items()
    ]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: groups)


def test_only_what_is_no_arithmetic_of_shapes_counts() -> None:
    found = session(CUDA=["MatMul", "Attention"], CPU=["Squeeze", "Attention", "Cos", "Attention"])
    assert left_to_cpu(found) == {"Attention": 2, "Cos": 1}


def test_nodes_on_the_cpu_are_one_line_with_what_mends_it(tiny_bundle) -> None:
    entry = tiny_bundle.graph("decoder")
    (line,) = placement_remarks(session(CPU=["Attention", "Sin", "Attention"]), entry)
    assert line.startswith(f"decoder.onnx: onnxruntime {onnxruntime.__version__} runs 2 Attention,")
    assert (
        "1 Sin on the CPU, because its CUDA provider has no kernel for it: onnxruntime-gpu 1.27"
        in line
    )
    assert placement_remarks(session(CUDA=["Attention"], CPU=["Add"]), entry) == ()


@pytest.mark.parametrize(("opset", "lines"), [(20, 0), (23, 1)])
def test_a_version_that_does_not_say_has_no_kernel_for_attention(
    tiny_bundle, opset: int, lines: int
) -> None:
    entry = replace(tiny_bundle.graph("decoder"), opset=opset)
    assert len(placement_remarks(SimpleNamespace(), entry)) == lines


def test_a_session_of_this_onnxruntime_says_where_nodes_are(tiny_bundle) -> None:
    settings = session_options(EngineOptions())
    settings.add_session_config_entry(RECORD_PLACEMENT, "1")
    opened = onnxruntime.InferenceSession(
        tiny_bundle.file("decoder.onnx"), settings, providers=[CPU_PROVIDER]
    )
    left = left_to_cpu(opened)
    if not hasattr(opened, "get_provider_graph_assignment_info"):
        assert left is None
        return
    assert left is not None
    assert left["ReduceSum"] == 1
    assert remarks_of(opened, tiny_bundle.graph("decoder"), CPU_PROVIDER) == ()
    assert remarks_of(opened, tiny_bundle.graph("decoder"), CUDA_PROVIDER) != ()


def test_a_cuda_session_keeps_weights_out_of_its_arena() -> None:
    """The arena doubles as it grows, and would take up to twice what the weights take."""
    entries = SESSION_ENTRIES[CUDA_PROVIDER]
    assert entries["session.use_device_allocator_for_initializers"] == "1"
    assert entries[RECORD_PLACEMENT] == "1"


def test_a_session_is_told_what_its_provider_needs(tiny_bundle, monkeypatch) -> None:
    monkeypatch.setitem(SESSION_ENTRIES, CPU_PROVIDER, SESSION_ENTRIES[CUDA_PROVIDER])
    opened = open_session(tiny_bundle, "decoder", CPU_PROVIDER, EngineOptions())
    told = opened.get_session_options()
    for name, value in SESSION_ENTRIES[CUDA_PROVIDER].items():
        assert told.get_session_config_entry(name) == value


def test_an_engine_says_it_once_it_is_active(tiny_bundle, monkeypatch) -> None:
    monkeypatch.setattr("hicom_edge.engines.ort.engine.remarks_of", lambda *_: ("slow",))
    monkeypatch.setattr("hicom_edge.engines.ort.decoder.remarks_of", lambda *_: ("slow", "too"))
    engine, decoder = load_engine(tiny_bundle, "vision"), load_decoder(tiny_bundle)
    assert engine.remarks == decoder.remarks == ()
    with engine, decoder:
        assert engine.remarks == ("slow",)
        assert decoder.remarks == ("slow", "too")


def test_whoever_asks_hears_each_remark_once(monkeypatch) -> None:
    monkeypatch.setattr("hicom_edge.engines.ort.engine.remarks_of", lambda *_: ("slow",))
    monkeypatch.setattr("hicom_edge.engines.ort.decoder.remarks_of", lambda *_: ("slow", "too"))
    with VideoQA.load(engine="onnxruntime-cpu") as qa:
        assert qa.remarks == ("slow", "too")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["ask", str(CLIP), "which way does the red circle move"], "note: slow"),
        (["verify", str(DEMO_BUNDLE), "--reference", "other", "--video", str(CLIP)], "slow"),
    ],
    ids=["ask", "verify"],
)
def test_the_command_line_says_it(monkeypatch, capsys, tmp_path, arguments, line: str) -> None:
    monkeypatch.setattr("hicom_edge.engines.ort.engine.remarks_of", lambda *_: ("slow",))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(DEMO_BUNDLE, "other")
    assert main([*arguments, "--engine", "onnxruntime-cpu"]) == 0
    assert capsys.readouterr().err.splitlines().count(line) >= 1


@pytest.mark.gpu
@pytest.mark.skipif(
    why_not("onnxruntime-cuda") is not None, reason=f"needs a GPU: {why_not('onnxruntime-cuda')}"
)
@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_every_node_runs_on_the_gpu(variant_bundle, dtype: str, opset: int) -> None:
    bundle = variant_bundle("release", dtype=dtype, opset=opset)
    for name in bundle.manifest.graphs:
        load = load_decoder if name == "decoder" else load_engine
        arguments = (bundle,) if name == "decoder" else (bundle, name)
        with load(*arguments, "onnxruntime-cuda") as runner:
            assert runner.remarks == (), name
