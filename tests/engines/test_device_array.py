"""Arrays that stay on a device: which bytes they are, and that no stage copies them."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from tensorrt_stand_in import HostMemory

from hicom_edge.bundle.manifest import TensorSpec
from hicom_edge.engines import load_decoder, load_engine
from hicom_edge.engines.base import Engine
from hicom_edge.engines.device_array import (
    MAIN_MEMORY,
    Allocation,
    DeviceArray,
    MainMemory,
    as_dtype,
    empty,
    joined,
    placed,
    write,
)
from hicom_edge.errors import EngineError

ROWS = np.arange(24, dtype=np.float32).reshape(4, 2, 3)


@pytest.fixture(params=[MainMemory, HostMemory], ids=["main", "elsewhere"])
def memory(request: pytest.FixtureRequest) -> MainMemory | HostMemory:
    return request.param()


def test_what_is_written_comes_back(memory) -> None:
    array = empty(ROWS.shape, "float32", memory)
    write(ROWS, array)
    np.testing.assert_array_equal(array, ROWS)
    assert (array.ndim, array.nbytes, len(array)) == (3, ROWS.nbytes, 4)


def test_rows_are_a_part_of_the_same_memory(memory) -> None:
    array = empty(ROWS.shape, "float32", memory)
    write(ROWS, array)
    write(np.zeros((2, 2, 3), np.float32), array.rows(1, 3))
    np.testing.assert_array_equal(array.rows(1, 3), np.zeros((2, 2, 3)))
    np.testing.assert_array_equal(array.numpy()[[0, 3]], ROWS[[0, 3]])
    assert array.rows(3, 9).shape == (1, 2, 3)


def test_a_host_array_is_a_view_in_main_memory_and_keeps_it_alive() -> None:
    array = empty((3,), "float16", MAIN_MEMORY)
    view = array.numpy()
    view[:] = 7
    assert view.ctypes.data == array.address
    np.testing.assert_array_equal(array.rows(1, 2), np.array([7], np.float16))
    del array
    gc.collect()
    np.testing.assert_array_equal(view, np.full(3, 7, np.float16))


def test_a_host_array_is_in_its_place_already() -> None:
    assert placed(ROWS, MAIN_MEMORY).address == ROWS.ctypes.data
    array = placed(ROWS, MAIN_MEMORY)
    assert placed(array, MAIN_MEMORY) is array


def test_an_array_goes_from_one_memory_to_another() -> None:
    device = HostMemory()
    there = placed(ROWS, device)
    assert there.memory is device
    np.testing.assert_array_equal(placed(there, MAIN_MEMORY), ROWS)


def test_bytes_come_back_once_when_no_array_needs_them() -> None:
    device = HostMemory()
    rows = empty((4, 2), "float32", device).rows(1, 2)
    assert len(device.live) == 1
    del rows
    assert not device.live
    allocation = Allocation(device, 8)
    allocation.release()
    allocation.release()
    device.close()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_arrays_are_joined_where_they_are_wanted(memory, dtype: str) -> None:
    host = ROWS[:, 0].astype(dtype)
    parts = [host[:1], placed(host[1:3], memory), host[3:]]
    whole = joined(parts, memory)
    assert isinstance(whole, DeviceArray) == (memory.place == "elsewhere")
    np.testing.assert_array_equal(whole, host)


def test_an_array_that_does_not_fit_is_refused() -> None:
    target = empty((2, 3), "float32", MAIN_MEMORY)
    with pytest.raises(EngineError, match=r"float32 \(4, 2, 3\) does not fit into DeviceArray\(fl"):
        write(ROWS, target)
    with pytest.raises(EngineError, match=r"float16 \(2, 3\) does not fit"):
        write(np.zeros((2, 3), np.float16), target)


def test_a_dtype_that_fits_changes_nothing() -> None:
    array = placed(ROWS, MAIN_MEMORY)
    assert as_dtype(array, "float32") is array
    assert as_dtype(array, "float16").dtype == np.float16


def ramp(*shape: int) -> np.ndarray:
    return np.sin(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)


def test_onnx_runtime_reads_and_writes_by_address(reference_bundle) -> None:
    size = reference_bundle.manifest.frames.image_size
    pixel_values = ramp(3, 3, size, size)
    with load_engine(reference_bundle, "vision") as engine:
        expected = engine.infer({"pixel_values": pixel_values})
        maps = {s.name: empty((5, *s.shape[1:]), s.dtype, engine.memory) for s in engine.outputs}
        given = placed(pixel_values, engine.memory)
        out = {name: array.rows(1, 4) for name, array in maps.items()}
        made = engine.infer_on_device({"pixel_values": given}, out)
        assert made == out
        for name, array in expected.items():
            np.testing.assert_array_equal(maps[name].numpy()[1:4], array)
        pixel_values[:] = 0  # what is read is this array, not a copy of it
        dark = engine.infer({"pixel_values": pixel_values})
        again = engine.infer_on_device({"pixel_values": given})
        np.testing.assert_array_equal(again["features"], dark["features"])


def test_outputs_outlive_the_engine_that_made_them(reference_bundle) -> None:
    size = reference_bundle.manifest.frames.image_size
    with load_engine(reference_bundle, "vision") as engine:
        feed = {"pixel_values": ramp(2, 3, size, size)}
        expected, made = engine.infer(feed), engine.infer_on_device(feed)
    gc.collect()
    np.testing.assert_array_equal(made["features"], expected["features"])


def test_the_stages_hand_on_what_they_made(reference_bundle) -> None:
    """Vision, guide and compressor by address equal the same by way of host arrays."""
    size = reference_bundle.manifest.frames.image_size
    pixel_values, ids = ramp(3, 3, size, size), np.arange(1, 9)
    names = ("vision", "guide", "compressor")
    vision, guide, compressor = (load_engine(reference_bundle, name) for name in names)
    with vision, guide, compressor:
        host = {**vision.infer({"pixel_values": pixel_values})}
        host |= guide.infer({"guide_input_ids": ids})
        expected = compressor.infer(host)["visual_tokens"]
        kept = {**vision.infer_on_device({"pixel_values": pixel_values})}
        kept |= guide.infer_on_device({"guide_input_ids": ids})
        found = compressor.infer_on_device(kept)["visual_tokens"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("place", [MAIN_MEMORY, HostMemory()], ids=["here", "elsewhere"])
def test_embeddings_on_a_device_are_prefilled(reference_bundle, place) -> None:
    embeddings = ramp(7, reference_bundle.manifest.model.llm_dim) / 10
    with load_decoder(reference_bundle) as decoder:
        here, there = decoder.start(), decoder.start()
        given = placed(embeddings, place)
        for start, stop in ((0, 5), (5, 7)):
            expected = here.append(embeddings[start:stop])
            np.testing.assert_array_equal(there.append(given.rows(start, stop)), expected)
        assert there.length == 7


def test_a_place_for_an_output_that_does_not_fit_is_refused(reference_bundle) -> None:
    size = reference_bundle.manifest.frames.image_size
    feed = {"pixel_values": ramp(2, 3, size, size)}
    with load_engine(reference_bundle, "vision") as engine:
        spec = engine.outputs[0]
        shape = (2, *spec.shape[1:])
        foreign = empty(shape, spec.dtype, HostMemory())
        with pytest.raises(
            EngineError, match=r"features cannot be written to .* in elsewhere\), e"
        ):
            engine.infer_on_device(feed, {"features": foreign})
        with pytest.raises(
            EngineError, match=r"written to DeviceArray\(float16 .*expected float32"
        ):
            engine.infer_on_device(feed, {"features": empty(shape, "float16", MAIN_MEMORY)})
        with pytest.raises(EngineError, match=r"vision has no tensor 'x'"):
            engine.infer_on_device(feed, {"x": foreign})


class Doubling(Engine):
    """An engine that knows host arrays alone."""

    name = "doubling"
    inputs = (TensorSpec("x", "float32", ("n", 2, 3)),)
    outputs = (TensorSpec("y", "float32", ("n", 2, 3)),)

    def activate(self) -> None: ...

    def deactivate(self) -> None: ...

    def _infer(self, feed_dict, cancel):
        return {"y": feed_dict["x"] * 2}


def test_an_engine_of_host_arrays_takes_and_gives_device_arrays() -> None:
    engine, given = Doubling(), placed(ROWS, HostMemory())
    np.testing.assert_array_equal(engine.infer_on_device({"x": given})["y"], ROWS * 2)
    target = empty(ROWS.shape, "float32", MAIN_MEMORY)
    assert engine.infer_on_device({"x": ROWS}, {"y": target})["y"] is target
    np.testing.assert_array_equal(target, ROWS * 2)
