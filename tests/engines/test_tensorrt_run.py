"""The code around a TensorRT context, with ONNX Runtime in its place: same numbers, same rules.

What TensorRT itself computes is not tested here: that needs a GPU.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorrt_stand_in import HostMemory, session_opener

from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_decoder, load_engine
from hicom_edge.engines.tensorrt_decoder import TensorRtDecoder
from hicom_edge.engines.tensorrt_engine import TensorRtEngine
from hicom_edge.engines.tensorrt_profiles import (
    FRAMES_PER_RUN,
    STEP,
    STEP_ROWS,
    limits_from_manifest,
    profiles_of,
)
from hicom_edge.engines.tensorrt_session import TensorRtSession
from hicom_edge.errors import BundleError, EngineError, ResourceError

CPU = "onnxruntime-cpu"
MAX_FRAMES = 24


def make_engine(bundle: Bundle, graph: str, memory: HostMemory) -> tuple[TensorRtEngine, list]:
    limits = limits_from_manifest(bundle.manifest, MAX_FRAMES)
    profiles, contexts = profiles_of(graph, bundle.graph(graph), limits), []
    opener = session_opener(bundle, graph, profiles, contexts)
    return TensorRtEngine(bundle, graph, profiles[0], lambda: memory, opener), contexts


def make_decoder(bundle: Bundle, memory: HostMemory) -> tuple[TensorRtDecoder, list]:
    limits = limits_from_manifest(bundle.manifest, MAX_FRAMES)
    profiles, contexts = profiles_of("decoder", bundle.graph("decoder"), limits), []
    opener = session_opener(bundle, "decoder", profiles, contexts)
    return TensorRtDecoder(bundle, profiles, lambda: memory, opener), contexts


def ramp(*shape: int) -> np.ndarray:
    return np.sin(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)


@pytest.mark.parametrize("frames", [1, FRAMES_PER_RUN, 2 * FRAMES_PER_RUN + 3])
def test_vision_runs_in_pieces_and_equals_one_run(reference_bundle, frames: int) -> None:
    size, memory = reference_bundle.manifest.frames.image_size, HostMemory()
    feed = {"pixel_values": ramp(frames, 3, size, size)}
    with load_engine(reference_bundle, "vision", CPU) as engine:
        expected = engine.infer(feed)
    engine, _ = make_engine(reference_bundle, "vision", memory)
    with engine:
        actual = engine.infer(feed)
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, rtol=1e-5, atol=1e-5)
    assert memory.closed


def test_buffers_grow_and_are_used_again(reference_bundle) -> None:
    h, w = reference_bundle.manifest.model.grid
    dim, memory = reference_bundle.manifest.model.vision_dim, HostMemory()
    engine, _ = make_engine(reference_bundle, "compressor", memory)
    with load_engine(reference_bundle, "compressor", CPU) as other, engine:
        for frames in (3, 12, 5):
            maps = ramp(frames, h, w, dim)
            feed = {"features": maps, "embeddings": maps[::-1], "guide": ramp(dim)}
            expected = other.infer(feed)["visual_tokens"]
            actual = engine.infer(feed)["visual_tokens"]
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
        assert len(memory.live) == 4  # one buffer for each tensor, whatever sizes came
    assert memory.closed


def test_a_video_that_the_engine_was_not_built_for_is_refused(reference_bundle) -> None:
    h, w = reference_bundle.manifest.model.grid
    dim = reference_bundle.manifest.model.vision_dim
    engine, _ = make_engine(reference_bundle, "compressor", HostMemory())
    maps = ramp(MAX_FRAMES + 1, h, w, dim)
    with (
        engine,
        pytest.raises(
            EngineError, match=r"features is \(25, .*built for .*\(24, .*larger --max-frames"
        ),
    ):
        engine.infer({"features": maps, "embeddings": maps, "guide": ramp(dim)})


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, STEP_ROWS + 3), min_size=1, max_size=5))
def test_prefill_and_steps_equal_onnx_runtime(reference_bundle, cuts: list[int]) -> None:
    dim, memory = reference_bundle.manifest.model.llm_dim, HostMemory()
    pieces = np.split(ramp(sum(cuts), dim) / 10, np.cumsum(cuts)[:-1])
    decoder, _ = make_decoder(reference_bundle, memory)
    with load_decoder(reference_bundle, CPU) as other, decoder:
        expected, actual = other.prefill(pieces[0]), decoder.prefill(pieces[0])
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
        for piece in pieces[1:]:
            expected, actual = other.step(piece), decoder.step(piece)
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
        assert decoder.length == sum(cuts)
    assert memory.closed


def test_a_second_prefill_starts_anew(reference_bundle) -> None:
    dim = reference_bundle.manifest.model.llm_dim
    decoder, contexts = make_decoder(reference_bundle, HostMemory())
    with decoder:
        first = decoder.prefill(ramp(5, dim))
        decoder.step(ramp(1, dim))
        assert contexts[0].profile == STEP
        np.testing.assert_array_equal(decoder.prefill(ramp(5, dim)), first)
        assert (decoder.length, decoder.sequence) == (5, 2)
    assert contexts[0].selected == [0, 1, 0]


def test_the_last_place_of_the_cache_is_used_and_no_more(reference_bundle) -> None:
    dim, memory = reference_bundle.manifest.model.llm_dim, HostMemory()
    decoder, _ = make_decoder(reference_bundle, memory)
    with decoder:
        limits = limits_from_manifest(reference_bundle.manifest, MAX_FRAMES)
        decoder.prefill(ramp(limits.max_prompt, dim))
        decoder.step(ramp(limits.capacity - limits.max_prompt, dim))
        assert decoder.length == decoder.capacity == limits.capacity
        with pytest.raises(ResourceError, match=r"1 tokens after \d+ exceed .*fewer frames"):
            decoder.step(ramp(1, dim))
        with pytest.raises(ResourceError, match=r"at once, .*larger --max-frames"):
            decoder.prefill(ramp(limits.max_prompt + 1, dim))


def test_memory_comes_back_when_the_cache_does_not_fit(reference_bundle) -> None:
    memory = HostMemory(room=6)
    decoder, _ = make_decoder(reference_bundle, memory)
    with pytest.raises(MemoryError):
        decoder.activate()
    assert memory.closed


def test_engines_outside_with_are_refused(reference_bundle) -> None:
    size, dim = reference_bundle.manifest.frames.image_size, reference_bundle.manifest.model.llm_dim
    engine, _ = make_engine(reference_bundle, "vision", HostMemory())
    with pytest.raises(EngineError, match="vision is not loaded; run it inside `with engine:`"):
        engine.infer({"pixel_values": ramp(1, 3, size, size)})
    decoder, _ = make_decoder(reference_bundle, HostMemory())
    with pytest.raises(EngineError, match="decoder is not loaded; run it inside `with decoder:`"):
        decoder.prefill(ramp(1, dim))


def test_a_decoder_of_another_form_is_refused(reference_bundle) -> None:
    graphs = {"decoder": reference_bundle.graph("vision")}
    odd = replace(reference_bundle, manifest=replace(reference_bundle.manifest, graphs=graphs))
    with pytest.raises(BundleError, match=r"its decoder takes \['pixel_values'\] in 1 profiles"):
        TensorRtDecoder(odd, ({},), HostMemory, lambda memory: None)


class RefusingContext:
    """A context that fails as TensorRT does: by a return value, with its logger told why."""

    def __init__(self, errors: list[str], reason: str) -> None:
        self._errors, self._reason = errors, reason

    def execute_async_v3(self, stream: int) -> bool:
        self._errors.append(self._reason)
        return False

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 4)


@pytest.mark.parametrize(
    ("reason", "error", "message"),
    [
        ("bad\nnews", EngineError, "guide does not run in TensorRT: bad news"),
        ("CUDA out of memory", ResourceError, "guide does not run: not enough device memory; use"),
    ],
)
def test_what_tensorrt_says_becomes_one_line(reason: str, error, message: str) -> None:
    errors: list[str] = []
    session = TensorRtSession("guide", RefusingContext(errors, reason), 0, errors)
    with pytest.raises(error, match=message):
        session.run({})
    with pytest.raises(EngineError, match="the shape of guide is not known before it runs"):
        session.shape("guide")
