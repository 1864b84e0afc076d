"""One graph in ONNX Runtime: right numbers for what fits, one line for what does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.bundle.manifest import GraphEntry, TensorSpec
from hicom_edge.engines import load_engine
from hicom_edge.engines.base import EngineOptions
from hicom_edge.engines.ort.sessions import one_line_errors
from hicom_edge.errors import EngineError, ResourceError


@pytest.mark.parametrize("frames", [1, 5])
def test_infer_computes_the_graph_for_any_number_of_frames(tiny_bundle, frames: int) -> None:
    pixel_values = np.random.default_rng(1).random((frames, 3, 2, 2), dtype=np.float32)
    with load_engine(tiny_bundle, "vision") as engine:
        outputs = engine.infer({"pixel_values": pixel_values})
    assert list(outputs) == ["features"]
    np.testing.assert_allclose(outputs["features"], pixel_values.mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_threads_do_not_change_the_result(tiny_bundle, threads: int | None) -> None:
    pixel_values = np.ones((2, 3, 2, 2), np.float32)
    with load_engine(tiny_bundle, "vision", options=EngineOptions(threads)) as engine:
        outputs = engine.infer({"pixel_values": pixel_values})
    assert (outputs["features"] == 1).all()


def test_a_wrong_name_is_refused_with_the_names_that_fit(tiny_bundle) -> None:
    with (
        load_engine(tiny_bundle, "vision") as engine,
        pytest.raises(
            EngineError, match=r"vision: got inputs \['pixels'\], expected \['pixel_values'\]"
        ),
    ):
        engine.infer({"pixels": np.zeros((1, 3, 2, 2), np.float32)})


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 3, 2, 3), "float32"), ((1, 3, 2, 2), "float64"), ((3, 2, 2), "float32")],
)
def test_a_wrong_shape_or_dtype_is_refused_with_what_fits(tiny_bundle, shape, dtype) -> None:
    with (
        load_engine(tiny_bundle, "vision") as engine,
        pytest.raises(EngineError, match=r"expected float32 \('t', 3, 2, 2\)"),
    ):
        engine.infer({"pixel_values": np.zeros(shape, dtype)})


def test_the_dtype_of_an_input_can_be_asked_for(tiny_bundle) -> None:
    engine = load_engine(tiny_bundle, "vision")
    assert engine.input_dtype("pixel_values") == "float32"
    with pytest.raises(EngineError, match=r"vision has no tensor 'x'; it has \['pixel_values'\]"):
        engine.input_dtype("x")


def test_an_engine_outside_with_is_refused(tiny_bundle) -> None:
    engine = load_engine(tiny_bundle, "vision")
    with pytest.raises(EngineError, match="vision is not loaded; run it inside"):
        engine.infer({"pixel_values": np.zeros((1, 3, 2, 2), np.float32)})


def test_an_engine_can_be_activated_again(tiny_bundle) -> None:
    engine = load_engine(tiny_bundle, "vision")
    for _ in range(2):
        with engine:
            engine.activate()
            feed = {"pixel_values": np.ones((1, 3, 2, 2), np.float32)}
            assert engine.infer(feed)["features"].shape == (1, 2, 2)


def test_too_little_memory_is_one_line_with_advice(tiny_bundle, capfd) -> None:
    with (
        load_engine(tiny_bundle, "greedy_memory") as engine,
        pytest.raises(ResourceError, match="not enough memory; use fewer frames") as caught,
    ):
        engine.infer({"shape": np.array([1 << 46])})
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # ONNX Runtime keeps its own words to itself


def test_what_the_graph_itself_refuses_is_one_line(tiny_bundle) -> None:
    with (
        load_engine(tiny_bundle, "greedy_memory") as engine,
        pytest.raises(EngineError, match="greedy_memory does not run in onnxruntime: ") as caught,
    ):
        engine.infer({"shape": np.array([-1])})
    assert "\n" not in str(caught.value)


def with_graph(bundle: Bundle, entry: GraphEntry) -> Bundle:
    return Bundle(bundle.path, replace(bundle.manifest, graphs={"vision": entry}))


def test_a_file_that_is_no_graph_is_one_line(tiny_bundle) -> None:
    entry = replace(tiny_bundle.graph("vision"), file="tokenizer.json")
    with (
        pytest.raises(EngineError, match=r"tokenizer\.json does not load in onnxruntime") as caught,
        load_engine(with_graph(tiny_bundle, entry), "vision"),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_an_operator_that_onnxruntime_lacks_is_one_line_with_what_mends_it() -> None:
    """As that of an INT8 graph of opset 23 in 1.23, the last version for Python 3.10."""
    said = "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for"
    with (
        pytest.raises(
            EngineError, match=r"implementation for QuantizeLinear\(23\).*; onnxruntime 1\.24"
        ),
        one_line_errors("vision.cpu.onnx does not load"),
    ):
        raise RuntimeError(f"{said} QuantizeLinear(23) node with name {'x' * 300}")


def test_a_graph_that_differs_from_its_manifest_is_refused(tiny_bundle) -> None:
    extra = TensorSpec("embeddings", "float32", ("t", 2, 2))
    entry = tiny_bundle.graph("vision")
    entry = replace(entry, outputs=(*entry.outputs, extra))
    with (
        pytest.raises(EngineError, match=r"its manifest says .*embeddings.*export the bundle"),
        load_engine(with_graph(tiny_bundle, entry), "vision"),
    ):
        pass


def test_weights_beside_the_graph_are_found(tiny_bundle, tiny_weight, tmp_path) -> None:
    proto = onnx.load(tiny_bundle.file("decoder.onnx"))
    onnx.save(
        proto,
        tmp_path / "decoder.onnx",
        save_as_external_data=True,
        location="decoder.onnx.data",
        size_threshold=100,  # the weight; shapes have to stay inside
    )
    assert (tmp_path / "decoder.onnx.data").stat().st_size >= tiny_weight.nbytes
    moved = Bundle(tmp_path, tiny_bundle.manifest)
    with load_engine(moved, "decoder") as engine:
        feed = {
            spec.name: np.zeros([s if isinstance(s, int) else 1 for s in spec.shape], spec.dtype)
            for spec in engine.inputs
        }
        feed["inputs_embeds"][:] = 1
        logits = engine.infer(feed)["logits"]
    np.testing.assert_allclose(logits[0, 0], tiny_weight.sum(axis=0) + 4, rtol=1e-5)
