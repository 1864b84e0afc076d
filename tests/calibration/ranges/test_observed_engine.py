"""An observed graph computes what it computed before, and shows what its layers read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.graphs.linears import find_linears
from hicom_edge.calibration.memory_engine import HostDecoder
from hicom_edge.calibration.ranges.observed_engine import ObservedEngine
from hicom_edge.engines import load_decoder, load_engine
from hicom_edge.errors import EngineError, InputError
from hicom_edge.runtime.qa import DEMO_BUNDLE

CPU = "onnxruntime-cpu"
GRAPHS = ("vision", "guide", "compressor")
FAMILIES = {"current": {}, "plain": {"opset": 20}, "fp16": {"dtype": "fp16"}}


class Recorder:
    """Keeps everything it is shown."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[str, str], list[np.ndarray]] = {}

    def __call__(self, graph: str, tensor: str, array: np.ndarray) -> None:
        self.arrays.setdefault((graph, tensor), []).append(np.array(array))

    def whole(self, graph: str, tensor: str) -> np.ndarray:
        return np.concatenate(self.arrays[graph, tensor])


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle.open(DEMO_BUNDLE)


@pytest.fixture(params=FAMILIES)
def bundle(request: pytest.FixtureRequest, variant_bundle) -> Bundle:
    return variant_bundle("release", **FAMILIES[request.param])


def model_of(bundle: Bundle, graph: str) -> ir.Model:
    return ir.load(bundle.file(bundle.graph(graph).file))


def feed_of(bundle: Bundle, graph: str, rows: int = 5) -> dict[str, np.ndarray]:
    """A feed of random numbers; dynamic axes get `rows`."""
    rng, feed = np.random.default_rng(3), {}
    for spec in bundle.graph(graph).inputs:
        shape = [rows if isinstance(size, str) else size for size in spec.shape]
        if spec.dtype == "int64":
            length = bundle.manifest.guide.max_length
            feed[spec.name] = rng.integers(2, 20, length)
        else:
            feed[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
    return feed


@pytest.mark.parametrize("graph", GRAPHS)
def test_outputs_stay_and_layers_read_what_is_shown(bundle: Bundle, graph: str) -> None:
    model, seen, feed = model_of(bundle, graph), Recorder(), feed_of(bundle, graph)
    linears = find_linears(model)
    tensors = [name for linear in linears for name in (linear.input, linear.output)]
    with ObservedEngine(bundle, graph, tensors, seen) as observed:
        found = observed.infer(feed)
    with load_engine(bundle, graph, CPU) as plain:
        expected = plain.infer(feed)
    assert found.keys() == expected.keys()
    exact = 2e-2 if bundle.graph(graph).precision == "fp16" else 1e-4
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=exact, atol=exact, err_msg=name)
    for linear in linears:
        weight = model.graph.initializers[linear.weight].const_value.numpy().astype(np.float32)
        product = seen.whole(graph, linear.input).astype(np.float32) @ weight
        shown = seen.whole(graph, linear.output).astype(np.float32)
        np.testing.assert_allclose(shown, product, rtol=exact, atol=exact, err_msg=linear.name)


def test_frames_may_run_a_few_at_a_time(demo: Bundle) -> None:
    tensor = "encoder.layers.1/Gelu"
    whole, parts, feed = Recorder(), Recorder(), feed_of(demo, "vision")
    with ObservedEngine(demo, "vision", [tensor], whole) as engine:
        expected = engine.infer(feed)
    with ObservedEngine(demo, "vision", [tensor], parts, rows_per_run=2) as engine:
        found = engine.infer(feed)
    assert [len(part) for part in parts.arrays["vision", tensor]] == [2, 2, 1]
    np.testing.assert_allclose(
        parts.whole("vision", tensor), whole.whole("vision", tensor), atol=1e-5
    )
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)


def test_inputs_and_outputs_of_the_graph_can_be_observed(demo: Bundle) -> None:
    seen, feed = Recorder(), feed_of(demo, "compressor", 4)
    tensors = ["features", "visual_tokens", "features"]
    with ObservedEngine(demo, "compressor", tensors, seen) as engine:
        outputs = engine.infer(feed)
    assert list(seen.arrays) == [("compressor", "features"), ("compressor", "visual_tokens")]
    np.testing.assert_array_equal(seen.whole("compressor", "features"), feed["features"])
    np.testing.assert_array_equal(
        seen.whole("compressor", "visual_tokens"), outputs["visual_tokens"]
    )


def test_external_weights_are_read_where_they_lie(demo: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "bundle"
    shutil.copytree(demo.path, root)
    ir.save(
        ir.load(demo.file("vision.onnx")),
        root / "vision.onnx",
        external_data="vision.onnx.data",
        size_threshold_bytes=1024,
    )
    assert (root / "vision.onnx").stat().st_size < 100_000
    large = Bundle(root, demo.manifest)
    before = sorted(path.name for path in root.iterdir())
    seen, feed = Recorder(), feed_of(demo, "vision")
    with ObservedEngine(large, "vision", ["encoder.layers.0/Gelu"], seen) as engine:
        found = engine.infer(feed)
        assert sorted(path.name for path in root.iterdir()) == before
    with load_engine(demo, "vision", CPU) as plain:
        expected = plain.infer(feed)
    np.testing.assert_allclose(found["features"], expected["features"], atol=1e-5)


def test_the_observed_decoder_decodes_as_the_bundles_own(bundle: Bundle) -> None:
    rng, seen = np.random.default_rng(0), Recorder()
    linears = find_linears(model_of(bundle, "decoder"))
    tensors = [*(linear.input for linear in linears), "present.0.key"]
    with (
        HostDecoder(bundle, ObservedEngine(bundle, "decoder", tensors, seen)) as observed,
        load_decoder(bundle, CPU) as plain,
    ):
        embeds = rng.standard_normal((12, plain.llm_dim)).astype(plain.dtype)
        assert (observed.dtype, observed.llm_dim) == (plain.dtype, plain.llm_dim)
        tolerance = 3e-2 if plain.dtype == "float16" else 1e-4
        for text in (embeds, embeds[::-1]):
            sequences = observed.start(), plain.start()
            for rows in (text[:9], text[9:10], text[10:]):
                logits = [sequence.append(rows) for sequence in sequences]
                np.testing.assert_allclose(*logits, atol=tolerance)
            assert [sequence.length for sequence in sequences] == [12, 12]
    keys = seen.arrays["decoder", "present.0.key"]
    assert [key.shape[2] for key in keys] == [9, 10, 12] * 2
    first = seen.arrays["decoder", linears[0].input]
    assert [rows.shape[1] for rows in first] == [9, 1, 2] * 2


def test_a_tensor_that_is_not_there_is_refused(demo: Bundle) -> None:
    with (
        pytest.raises(InputError, match=r"guide\.onnx has no tensor nothing; pass tensors of"),
        ObservedEngine(demo, "guide", ["nothing"], Recorder()),
    ):
        pass


def test_it_must_be_loaded(demo: Bundle) -> None:
    engine = ObservedEngine(demo, "guide", [], Recorder())
    with pytest.raises(EngineError, match="guide is not loaded"):
        engine.infer(feed_of(demo, "guide"))
