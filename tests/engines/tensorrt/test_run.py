"""The code around a TensorRT context, with ONNX Runtime in its place: same numbers, same rules.

What TensorRT itself computes is not tested here: that needs a GPU.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorrt_stand_in import HostGraph, HostMemory, OpenMemory, session_opener

from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_decoder, load_engine
from hicom_edge.engines.cancel import CancelToken
from hicom_edge.engines.device_array import DeviceArray, empty, placed
from hicom_edge.engines.tensorrt.decoder import TensorRtDecoder
from hicom_edge.engines.tensorrt.engine import TensorRtEngine
from hicom_edge.engines.tensorrt.session import TensorRtSession
from hicom_edge.errors import BundleError, Cancelled, EngineError, ResourceError
from hicom_edge.export.export_options import OnnxDecoderOptions
from hicom_edge.planning.decoder_form import CONCAT_GRAPH, SCATTER_GRAPH
from hicom_edge.planning.profiles import (
    FRAMES_PER_RUN,
    STEP,
    STEP_ROWS,
    limits_from_manifest,
    profiles_of,
)

CPU = "onnxruntime-cpu"
MAX_FRAMES = 24


def make_engine(bundle: Bundle, graph: str, memory: HostMemory) -> tuple[TensorRtEngine, list]:
    limits = limits_from_manifest(bundle.manifest, MAX_FRAMES)
    profiles, contexts = profiles_of(graph, bundle.graph(graph), limits), []
    opener = session_opener(bundle, graph, profiles, contexts)
    return TensorRtEngine(bundle, graph, profiles[0], lambda: memory, opener), contexts


def make_decoder(
    bundle: Bundle, memory: HostMemory, graph: str = "decoder"
) -> tuple[TensorRtDecoder, list]:
    limits = limits_from_manifest(bundle.manifest, MAX_FRAMES)
    profiles, contexts = profiles_of(graph, bundle.graph(graph), limits), []
    opener = session_opener(bundle, graph, profiles, contexts)
    return TensorRtDecoder(bundle, profiles, lambda: memory, opener, graph), contexts


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


def test_stages_hand_on_device_arrays(reference_bundle) -> None:
    """Vision in pieces, guide and compressor by address equal ONNX Runtime on host arrays."""
    size, frames = reference_bundle.manifest.frames.image_size, FRAMES_PER_RUN + 3
    pixel_values = {"pixel_values": ramp(frames, 3, size, size)}
    guide_ids = {"guide_input_ids": np.arange(1, 9)}
    names, memory = ("vision", "guide", "compressor"), OpenMemory()
    with ExitStack() as stack:
        own = [stack.enter_context(make_engine(reference_bundle, n, memory)[0]) for n in names]
        others = [stack.enter_context(load_engine(reference_bundle, n, CPU)) for n in names]
        host = {**others[0].infer(pixel_values), **others[1].infer(guide_ids)}
        kept = {**own[0].infer_on_device(pixel_values), **own[1].infer_on_device(guide_ids)}
        for name, array in kept.items():
            np.testing.assert_allclose(array, host[name], rtol=1e-5, atol=1e-5)
        expected, blocks = others[2].infer(host)["visual_tokens"], len(memory.live)
        tokens = own[2].infer_on_device(kept)["visual_tokens"]
        np.testing.assert_allclose(tokens, expected, rtol=1e-5, atol=1e-5)
        assert len(memory.live) == blocks + 1  # the visual tokens alone: no input was copied
        del tokens, kept, array
    assert not memory.live


def test_rows_at_any_address_are_read_and_written(reference_bundle) -> None:
    """TensorRT wants aligned addresses; rows of an array need not have them."""
    h, w = reference_bundle.manifest.model.grid
    dim, memory = reference_bundle.manifest.model.vision_dim, OpenMemory()
    engine, _ = make_engine(reference_bundle, "compressor", memory)
    flat = placed(ramp(5 * h * w * dim + 1), memory)
    address, shape = flat.address + flat.dtype.itemsize, (5, h, w, dim)
    maps = DeviceArray(address, shape, "float32", memory, flat)
    with engine, load_engine(reference_bundle, "compressor", CPU) as other:
        guide = ramp(dim)
        host = {"features": maps.numpy(), "embeddings": maps.numpy(), "guide": guide}
        expected = other.infer(host)["visual_tokens"]
        rows = empty((len(expected) * dim * 4 + 12,), "float32", memory)
        out = DeviceArray(rows.address + 12, expected.shape, "float32", memory, rows)
        feed = {"features": maps, "embeddings": maps, "guide": guide}
        found = engine.infer_on_device(feed, {"visual_tokens": out})["visual_tokens"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        short = empty((len(expected) - 1, *expected.shape[1:]), "float32", memory)
        with pytest.raises(
            EngineError, match=r"output visual_tokens is \(\d+, \d+\), it cannot be"
        ):
            engine.infer_on_device(feed, {"visual_tokens": short})


def test_embeddings_on_the_device_are_prefilled_there(reference_bundle) -> None:
    dim, memory = reference_bundle.manifest.model.llm_dim, OpenMemory()
    embeddings = ramp(40, dim) / 10
    decoder, _ = make_decoder(reference_bundle, memory)
    with load_decoder(reference_bundle, CPU) as other, decoder:
        given = placed(embeddings, memory)
        memory.uploads.clear()
        own, others = decoder.start(), other.start()
        for start, stop in ((0, 21), (21, 22), (22, 40)):
            expected = others.append(embeddings[start:stop])
            found = own.append(given.rows(start, stop))
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert set(memory.uploads) == {
            (1, 21),
            (1, 1),
            (1, 16),
            (1, 2),
            (1,),
        }  # positions and indices alone


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
            EngineError, match=r"features is \(25, .*built for .*\(24, .*larger max_frames"
        ),
    ):
        engine.infer({"features": maps, "embeddings": maps, "guide": ramp(dim)})


@pytest.fixture(params=[CONCAT_GRAPH, SCATTER_GRAPH], scope="module")
def form(request: pytest.FixtureRequest) -> str:
    """Each form of the decoder."""
    return request.param


@pytest.fixture(scope="module")
def form_bundle(variant_bundle) -> Bundle:
    """A bundle with both forms of the decoder."""
    return variant_bundle("release", language_model=OnnxDecoderOptions("scatter"))


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, STEP_ROWS + 3), min_size=1, max_size=5))
def test_prefill_and_steps_equal_onnx_runtime(form_bundle, form, cuts: list[int]) -> None:
    dim, memory = form_bundle.manifest.model.llm_dim, HostMemory()
    pieces = np.split(ramp(sum(cuts), dim) / 10, np.cumsum(cuts)[:-1])
    decoder, _ = make_decoder(form_bundle, memory, form)
    with load_decoder(form_bundle, CPU) as other, decoder:
        own, others = decoder.start(), other.start()
        for piece in pieces:
            expected, actual = others.append(piece), own.append(piece)
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
        assert own.length == sum(cuts)
    assert memory.closed


def test_a_second_sequence_starts_anew(form_bundle, form) -> None:
    dim = form_bundle.manifest.model.llm_dim
    decoder, contexts = make_decoder(form_bundle, HostMemory(), form)
    with decoder:
        with decoder.start() as sequence:
            first = sequence.append(ramp(5, dim))
            sequence.append(ramp(1, dim))
            assert contexts[0].profile == STEP
        with decoder.start() as sequence:
            np.testing.assert_array_equal(sequence.append(ramp(5, dim)), first)
            assert sequence.length == 5
    assert contexts[0].selected == [0, 1, 0]


def test_the_last_place_of_the_cache_is_used_and_no_more(form_bundle, form) -> None:
    dim, memory = form_bundle.manifest.model.llm_dim, HostMemory()
    decoder, _ = make_decoder(form_bundle, memory, form)
    with decoder:
        limits = limits_from_manifest(form_bundle.manifest, MAX_FRAMES)
        with decoder.start() as sequence:
            sequence.append(ramp(limits.max_prompt, dim))
            sequence.append(ramp(limits.capacity - limits.max_prompt, dim))
            assert sequence.length == decoder.capacity == limits.capacity
            with pytest.raises(ResourceError, match=r"1 tokens after \d+ exceed .*fewer frames"):
                sequence.append(ramp(1, dim))
        with (
            decoder.start() as sequence,
            pytest.raises(ResourceError, match=r"at once, .*larger"),
        ):
            sequence.append(ramp(limits.max_prompt + 1, dim))


def test_single_steps_are_captured_once_and_launched(form_bundle) -> None:
    """Equal logits from a graph, whose capture ends with the sequence."""
    dim, memory = form_bundle.manifest.model.llm_dim, HostMemory()
    decoder, _ = make_decoder(form_bundle, memory, SCATTER_GRAPH)
    rows = ramp(12, dim) / 10
    with load_decoder(form_bundle, CPU) as other, decoder:
        for texts in (1, 2):
            own, others = decoder.start(), other.start()
            np.testing.assert_allclose(own.append(rows[:4]), others.append(rows[:4]), atol=1e-4)
            for place in range(4, 10):
                row = rows[place : place + 1]
                np.testing.assert_allclose(own.append(row), others.append(row), atol=1e-4)
            assert memory.launches == 5 * texts
            assert HostGraph.open_graphs == 1
            two = rows[10:12]  # a run of another shape: the graph is dropped before it
            np.testing.assert_allclose(own.append(two), others.append(two), atol=1e-4)
            assert HostGraph.open_graphs == 0
            if texts == 1:
                own.close()
        own.append(rows[:1])
        own.append(rows[:1])
        assert HostGraph.open_graphs == 1
    assert HostGraph.open_graphs == 0
    assert memory.closed


def test_a_growing_cache_is_not_captured(reference_bundle) -> None:
    dim, memory = reference_bundle.manifest.model.llm_dim, HostMemory()
    decoder, _ = make_decoder(reference_bundle, memory)
    with decoder:
        sequence = decoder.start()
        sequence.append(ramp(3, dim))
        for _ in range(4):
            sequence.append(ramp(1, dim))
        assert memory.launches == 0


@pytest.mark.parametrize("error", [EngineError, ResourceError])
def test_where_capturing_is_refused_steps_run_one_by_one(form_bundle, error) -> None:
    dim, memory = form_bundle.manifest.model.llm_dim, HostMemory()
    decoder, _ = make_decoder(form_bundle, memory, SCATTER_GRAPH)
    asked = []

    def refuse(work: object) -> None:
        asked.append(work)
        raise error("not permitted")

    memory.capture = refuse
    row = ramp(1, dim)
    with load_decoder(form_bundle, CPU) as other, decoder:
        own, others = decoder.start(), other.start()
        for _ in range(5):
            np.testing.assert_allclose(own.append(row), others.append(row), atol=1e-4)
    assert len(asked) == 1


def test_steps_that_the_library_captures_are_not_captured_again(form_bundle, monkeypatch) -> None:
    """TensorRT-RTX knows when the kernels of a shape are ready."""
    dim, memory = form_bundle.manifest.model.llm_dim, HostMemory()
    decoder, _ = make_decoder(form_bundle, memory, SCATTER_GRAPH)
    monkeypatch.setattr(TensorRtSession, "captures", True)
    row = ramp(1, dim)
    with load_decoder(form_bundle, CPU) as other, decoder:
        own, others = decoder.start(), other.start()
        for _ in range(5):
            np.testing.assert_allclose(own.append(row), others.append(row), atol=1e-4)
    assert memory.launches == 0


def test_a_fixed_cache_takes_one_set_of_buffers(form_bundle) -> None:
    sets = {}
    for graph in (CONCAT_GRAPH, SCATTER_GRAPH):
        memory = HostMemory()
        with make_decoder(form_bundle, memory, graph)[0]:
            # beside embeddings, positions, indices and logits, and the concat form's lengths
            sets[graph] = len(memory.live) - (5 if graph == CONCAT_GRAPH else 4)
    layers = form_bundle.manifest.model.num_layers
    assert sets == {CONCAT_GRAPH: 4 * layers, SCATTER_GRAPH: 2 * layers}


def test_memory_comes_back_when_the_cache_does_not_fit(reference_bundle) -> None:
    memory, order = HostMemory(room=6), []
    decoder, _ = make_decoder(reference_bundle, memory)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(TensorRtSession, "close", lambda session: order.append(memory.closed))
        decoder.activate()
    assert memory.closed
    assert order == [False]  # the engine is freed before the device is closed


def test_engines_outside_with_are_refused(reference_bundle) -> None:
    size = reference_bundle.manifest.frames.image_size
    engine, _ = make_engine(reference_bundle, "vision", HostMemory())
    with pytest.raises(EngineError, match="vision is not loaded; run it inside `with engine:`"):
        engine.infer({"pixel_values": ramp(1, 3, size, size)})
    decoder, _ = make_decoder(reference_bundle, HostMemory())
    with pytest.raises(EngineError, match="decoder is not loaded; run it inside `with decoder:`"):
        decoder.start()


def test_a_sequence_that_is_cut_goes_on_as_if_the_rest_had_never_been(form_bundle, form) -> None:
    dim, rows = form_bundle.manifest.model.llm_dim, ramp(12, form_bundle.manifest.model.llm_dim)
    decoder, _ = make_decoder(form_bundle, HostMemory(), form)
    with load_decoder(form_bundle, CPU) as other, decoder:
        own, others = decoder.start(), other.start()
        own.append(rows[:9] / 10)
        own.append(rows[9:10] / 10)
        own.truncate(4)
        others.append(rows[:4] / 10)
        for piece in (rows[5:8] / 10, np.ones((1, dim), np.float32)):
            np.testing.assert_allclose(
                own.append(piece), others.append(piece), rtol=1e-4, atol=1e-4
            )
        assert own.length == others.length == 8


def test_the_only_kv_cache_is_lent_in_the_order_of_asking(form_bundle, form) -> None:
    dim = form_bundle.manifest.model.llm_dim
    decoder, _ = make_decoder(form_bundle, HostMemory(), form)
    served: list[int] = []

    def ask(number: int) -> None:
        with decoder.start() as sequence:
            sequence.append(ramp(2, dim))
            served.append(number)

    with decoder:
        sequence = decoder.start()
        sequence.append(ramp(3, dim))
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for waiting, thread in enumerate(threads, 1):
            thread.start()
            while decoder.num_waiting < waiting:
                time.sleep(0.001)
        with pytest.raises(EngineError, match="holds one sequence at a time, and this thread"):
            decoder.start()
        assert served == []
        sequence.pause()
        assert not sequence.resume()  # the others were there before, and used the cache
        assert sequence.length == 0
        sequence.append(ramp(3, dim))
        sequence.pause()
        assert sequence.resume()
        assert sequence.length == 3
        sequence.close()
        for thread in threads:
            thread.join()
    assert served == [0, 1, 2, 3]


def test_a_cancelled_wait_for_the_kv_cache_leaves_the_queue(form_bundle, form) -> None:
    decoder, _ = make_decoder(form_bundle, HostMemory(), form)
    cancel, raised = CancelToken(), []

    def ask() -> None:
        try:
            decoder.start(cancel)
        except Cancelled as error:
            raised.append(error)

    with decoder:
        with decoder.start():
            thread = threading.Thread(target=ask)
            thread.start()
            while not decoder.num_waiting:
                time.sleep(0.001)
            cancel.cancel()
            thread.join()
            assert decoder.num_waiting == 0
        decoder.start().close()
    assert len(raised) == 1


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


class NoDims:
    """Dims without a number of dimensions, as the binding makes them of a name it does not know."""

    def __len__(self) -> int:
        return -1

    def __getitem__(self, index: int) -> int:
        raise IndexError


def test_an_output_that_the_engine_lacks_is_one_line() -> None:
    context, errors = RefusingContext([], ""), ["no such tensor"]
    context.get_tensor_shape = lambda name: NoDims()
    session = TensorRtSession("guide", context, 0, errors)
    with pytest.raises(EngineError, match="guide: features has no shape in TensorRT: no such ten"):
        session.shape("features")
