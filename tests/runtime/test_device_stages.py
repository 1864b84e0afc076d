"""From vision to decoder, features, guide and visual tokens stay where they were computed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tensorrt_stand_in import OpenMemory, stand_in_backend

from hicom_edge.bundle import Bundle
from hicom_edge.engines.device_array import DeviceArray
from hicom_edge.engines.ort import engine as onnxruntime_engine
from hicom_edge.engines.tensorrt import backend as tensorrt_backend
from hicom_edge.errors import EngineError
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
    monkeypatch.setattr(tensorrt_backend, "TENSORRT_BACKEND", backend)
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


@pytest.fixture
def one_cache_qa(bundle, monkeypatch):
    """A VideoQA whose language model has one KV cache, as TensorRT's has."""
    memory = OpenMemory()
    backend = stand_in_backend(STAND_IN, lambda: memory, max_frames=8)
    monkeypatch.setattr(tensorrt_backend, "TENSORRT_BACKEND", backend)
    with VideoQA(bundle, STAND_IN) as qa:
        yield qa


def test_a_conversation_keeps_its_prefix_in_the_only_kv_cache(bundle, one_cache_qa) -> None:
    """Until somebody else asks: then the whole prompt is prefilled again."""
    options = {"max_new_tokens": 6}
    with VideoQA(bundle, CPU) as qa, qa.conversation(qa.watch(FRAMES), "red") as conversation:
        expected = [conversation.ask(q, **options).token_ids for q in (*QUESTIONS, *QUESTIONS)]
    clip = one_cache_qa.watch(FRAMES)
    with one_cache_qa.conversation(clip, "red") as conversation:
        answers = [conversation.ask(question, **options) for question in QUESTIONS]
        assert answers[1].timings.reused_tokens > answers[1].timings.visual_tokens
        one_cache_qa.ask(clip, QUESTIONS[0], **options)
        answers += [conversation.ask(question, **options) for question in QUESTIONS]
        assert answers[2].timings.reused_tokens == 0
        assert answers[3].timings.reused_tokens > answers[3].timings.visual_tokens
    assert [answer.token_ids for answer in answers] == expected


def test_threads_wait_for_the_only_kv_cache(one_cache_qa) -> None:
    clip = one_cache_qa.watch(FRAMES)
    questions = QUESTIONS * 8
    expected = [one_cache_qa.ask(clip, q, max_new_tokens=4).token_ids for q in QUESTIONS] * 8

    def ask(question: str) -> tuple[int, ...]:
        return one_cache_qa.ask(clip, question, max_new_tokens=4).token_ids

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, questions)) == expected
    asked = [(clip, question) for question in QUESTIONS]
    assert [a.token_ids for a in one_cache_qa.ask_many(asked, max_new_tokens=4)] == expected[:2]
    first = one_cache_qa.stream(clip, QUESTIONS[0], max_new_tokens=4)
    next(first)
    with pytest.raises(EngineError, match="close the first answer's stream"):
        one_cache_qa.ask(clip, QUESTIONS[1])
    first.close()
    assert ask(QUESTIONS[1]) == expected[1]
