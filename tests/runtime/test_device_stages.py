"""From vision to decoder, features, guide and visual tokens stay where they were computed."""

from __future__ import annotations

import numpy as np
import pytest
from tensorrt_stand_in import OpenMemory, stand_in_backend

from hicom_edge import engines
from hicom_edge.bundle import Bundle
from hicom_edge.engines.device_array import DeviceArray
from hicom_edge.engines.ort import engine as onnxruntime_engine
from hicom_edge.export.export_options import OnnxDecoderOptions
from hicom_edge.runtime.qa import VideoQA

CPU, STAND_IN = "onnxruntime-cpu", "tensorrt"
QUESTIONS = ("What is there?", "Why is it dark?")
FRAMES = np.random.default_rng(2).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)


@pytest.fixture(params=["concat", "scatter"])
def bundle(request: pytest.FixtureRequest, variant_bundle) -> Bundle:
    return variant_bundle("release", language_model=OnnxDecoderOptions(request.param))


def test_onnx_runtime_reads_each_stage_where_the_last_one_wrote(reference_bundle) -> None:
    read: list[tuple[str, object]] = []
    bind_input = onnxruntime_engine.bind_input

    def watched(binding, name, array, *rest):
        read.append((name, array))
        bind_input(binding, name, array, *rest)

    with VideoQA(reference_bundle, CPU) as qa, pytest.MonkeyPatch.context() as patch:
        clip = qa.watch(FRAMES)
        patch.setattr(onnxruntime_engine, "bind_input", watched)
        answer = qa.ask(clip, QUESTIONS[0], max_new_tokens=2)
    given = dict(read)
    assert list(given) == ["guide_input_ids", "features", "embeddings", "guide"]
    assert given["features"] is clip.maps.features
    assert given["embeddings"] is clip.maps.embeddings
    assert isinstance(given["guide"], DeviceArray)
    assert isinstance(answer.visual_tokens, np.ndarray)


def test_answers_through_device_memory_are_those_of_the_cpu(bundle, monkeypatch) -> None:
    """The TensorRT engines' own code, ONNX Runtime for kernels, and memory that is elsewhere."""
    memory = OpenMemory()
    backend = stand_in_backend(STAND_IN, lambda: memory, max_frames=8)
    monkeypatch.setitem(engines._BACKENDS, STAND_IN, lambda: backend)
    with VideoQA(bundle, CPU) as qa:
        clip = qa.watch(FRAMES)
        expected = [qa.ask(clip, q, max_new_tokens=6).token_ids for q in QUESTIONS]
    with VideoQA(bundle, STAND_IN) as qa:
        clip = qa.watch(FRAMES)
        assert clip.maps.features.memory is memory
        kept = {clip.maps.features.shape, clip.maps.embeddings.shape}
        memory.uploads.clear()
        answers = [qa.ask(clip, q, max_new_tokens=6) for q in QUESTIONS]
        assert [a.token_ids for a in answers] == expected
        assert not kept & set(memory.uploads)
        assert answers[0].visual_tokens.shape not in memory.uploads
        guide = bundle.manifest.graphs["guide"].outputs[0].shape
        assert guide not in memory.uploads
        del clip
    if "decoder_scatter" in bundle.manifest.graphs:
        assert memory.launches == 2 * (6 - 2)
