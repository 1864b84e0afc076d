"""Answers through the contract of TensorRT-LLM, with a stand-in executor: it does not run here.

The stand-in takes the arguments of the public source alone and counts the prompt in its repetition
penalty, as TensorRT-LLM does, so equal answers mean that prompt, table and penalty are as ours.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorrt_llm_stand_in import TORCH, HostExecutor, arguments_of, bindings, response

from hicom_edge import VideoQA
from hicom_edge.bundle import Bundle
from hicom_edge.bundle.manifest import LanguageModelEntry
from hicom_edge.engines import load_decoder, load_text_generator
from hicom_edge.engines.tensorrt_llm.api import names_of
from hicom_edge.engines.tensorrt_llm.generator import TensorRtLlmGenerator
from hicom_edge.engines.tensorrt_llm.prompt import table_prompt
from hicom_edge.engines.tensorrt_llm.session import (
    ExecutorSession,
    cache_arguments,
    sampling_arguments,
)
from hicom_edge.engines.text_generator import VISUAL, GenerationRequest
from hicom_edge.errors import Cancelled, EngineError, InputError, PromptError, ResourceError
from hicom_edge.planning.llm.config import CheckpointConfig
from hicom_edge.planning.llm.limits import LlmLimits, llm_limits
from hicom_edge.runtime import engine_set
from hicom_edge.runtime.prompt import PromptBuilder
from hicom_edge.runtime.token_embedding import open_token_embedding

ENTRY = LanguageModelEntry("tensorrt-llm", "0.12", "llm", "fp32", None, 1, 1)
QUESTIONS = ("What is there?", "And how many of them?")
VERSIONS = ("0.12", "1.x")


@pytest.fixture(scope="module")
def usual(reference_bundle: Bundle) -> Iterator[VideoQA]:
    with VideoQA.load(reference_bundle.path, engine="onnxruntime-cpu") as loaded:
        yield loaded


def generator_of(bundle: Bundle, version: str = "0.12", **how: Any) -> TensorRtLlmGenerator:
    """The generator over a stand-in executor, which has a decoder of ours inside."""
    model, names = bundle.manifest.model, names_of(version)
    limits = how.pop("limits", llm_limits(bundle.manifest, 8, 16))
    returns_end = how.pop("returns_end", True)
    embedding = np.array(open_token_embedding(bundle), np.float32)
    sizes = (len(embedding), model.llm_dim, 4 * model.llm_dim, model.num_layers, 4)
    config = CheckpointConfig("float32", *sizes, 2, 8, 1, 1, None, None)

    def open_session() -> ExecutorSession:
        decoder = load_decoder(bundle, "onnxruntime-cpu")
        decoder.activate()
        executor = HostExecutor(decoder, embedding, returns_end)
        return ExecutorSession(bindings(version), TORCH, executor, names, config)

    return TensorRtLlmGenerator("model", config, limits, open_session)


@pytest.fixture
def qa_with(usual: VideoQA, monkeypatch: pytest.MonkeyPatch):
    """A function that opens the reference bundle as if its language model were TensorRT-LLM's."""
    opened: list[VideoQA] = []

    def open_qa(version: str = "0.12", **how: Any) -> VideoQA:
        whole = usual.bundle
        graphs = {n: g for n, g in whole.manifest.graphs.items() if n != "decoder"}
        generation = replace(whole.manifest.generation, **how.pop("generation", {}))
        manifest = replace(
            whole.manifest, graphs=graphs, language_model=ENTRY, generation=generation
        )
        generator = generator_of(whole, version, **how)
        monkeypatch.setattr(engine_set, "load_text_generator", lambda bundle: generator)
        opened.append(VideoQA(Bundle(whole.path, manifest), "onnxruntime-cpu"))
        return opened[-1]

    yield open_qa
    for qa in opened:
        qa.close()


def executor_of(qa: VideoQA) -> HostExecutor:
    generator = qa._stages.engines.language_model
    assert isinstance(generator, TensorRtLlmGenerator)
    assert generator._session is not None
    executor = generator._session.executor
    assert isinstance(executor, HostExecutor)
    return executor


def frames(seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (5, 40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("penalty", [None, 1.0, 1.7])
def test_answers_are_those_of_our_own_decoder(usual, qa_with, version, penalty) -> None:
    qa = qa_with(version)
    for question in QUESTIONS:
        options = {"max_new_tokens": 12, "repetition_penalty": penalty}
        expected = usual.ask(usual.watch(frames()), question, **options)
        answer = qa.ask(qa.watch(frames()), question, **options)
        assert (answer.token_ids, answer.text) == (expected.token_ids, expected.text)
        assert answer.finish_reason == expected.finish_reason


def test_the_executors_own_penalty_would_count_the_prompt(usual, qa_with) -> None:
    """Without the whole prompt in the table, the answer differs: the trick is needed."""
    qa = qa_with()
    clip = qa.watch(frames())
    answer = qa.ask(clip, QUESTIONS[0], max_new_tokens=12, repetition_penalty=30.0)
    executor = executor_of(qa)
    request = executor.requests[0]
    vocab, table = len(executor.embedding), request.prompt_tuning_config.embedding_table.array
    assert executor._tokens(request)[: len(answer.token_ids)] == list(answer.token_ids)
    parts = PromptBuilder(qa.bundle).build(QUESTIONS[0], "video")
    ends = (len(parts.prefix_ids), len(table) - len(parts.suffix_ids))
    request.input_token_ids = [
        *parts.prefix_ids.tolist(),
        *range(vocab + ends[0], vocab + ends[1]),
        *parts.suffix_ids.tolist(),
    ]
    assert executor._tokens(request)[: len(answer.token_ids)] != list(answer.token_ids)


@pytest.mark.parametrize("returns_end", [True, False])
def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(usual, qa_with, returns_end) -> None:
    usual_clip = usual.watch(frames())
    ids = usual.ask(usual_clip, QUESTIONS[0], max_new_tokens=6, repetition_penalty=1.0).token_ids
    stop = next(i for i in reversed(ids) if i != ids[0])
    for stops in ((stop,), (usual.bundle.manifest.model.vocab_size - 1, stop)):
        qa = qa_with(returns_end=returns_end, generation={"stop_token_ids": stops})
        answer = qa.ask(qa.watch(frames()), QUESTIONS[0], max_new_tokens=6, repetition_penalty=1.0)
        assert answer.token_ids == ids[: ids.index(stop)]
        assert answer.finish_reason == "stop"


def test_many_questions_are_on_their_way_at_once(usual, qa_with) -> None:
    qa, options = qa_with(), {"max_new_tokens": 8}
    clip = qa.watch(frames())
    expected = [qa.ask(clip, question, **options).token_ids for question in QUESTIONS]
    answers = qa.ask_many([(clip, question) for question in QUESTIONS], **options)
    assert [answer.token_ids for answer in answers] == expected
    assert executor_of(qa).cancelled == []


def test_a_cancelled_answer_cancels_its_request(qa_with) -> None:
    qa = qa_with()
    stream = qa.stream(qa.watch(frames()), QUESTIONS[0], max_new_tokens=8)
    next(stream)
    stream.cancel()
    with pytest.raises(Cancelled):
        list(stream)
    assert executor_of(qa).cancelled == [0]


def test_a_conversation_sends_the_whole_prompt(usual, qa_with) -> None:
    qa, options = qa_with(), {"max_new_tokens": 6}
    ours, theirs = usual.conversation(usual.watch(frames())), qa.conversation(qa.watch(frames()))
    for question in QUESTIONS:
        expected = ours.ask(question, **options)
        answer = theirs.ask(question, **options)
        assert answer.token_ids == expected.token_ids
        assert answer.timings.reused_tokens == 0


def test_streams_read_in_turn_do_not_disturb_each_other(usual, qa_with) -> None:
    qa = qa_with()
    clip = qa.watch(frames())
    expected = [qa.ask(clip, q, max_new_tokens=8).text for q in QUESTIONS]
    streams = [qa.stream(clip, q, max_new_tokens=8) for q in QUESTIONS]
    firsts = [next(stream) for stream in streams]
    texts = [first + "".join(stream) for first, stream in zip(firsts, streams)]
    assert texts == expected


def test_a_closed_stream_cancels_its_request_and_a_finished_one_does_not(qa_with) -> None:
    qa = qa_with()
    clip = qa.watch(frames())
    qa.ask(clip, QUESTIONS[0], max_new_tokens=8)
    stream = qa.stream(clip, QUESTIONS[0], max_new_tokens=8)
    next(stream)
    stream.close()
    assert executor_of(qa).cancelled == [1]


def test_1_x_gets_a_hash_for_every_row(qa_with) -> None:
    qa = qa_with("1.x")
    answers = [
        qa.ask(qa.watch(frames(seed)), QUESTIONS[0], max_new_tokens=1, repetition_penalty=1.0)
        for seed in (5, 6, 5)
    ]
    first, other, again = (
        request.prompt_tuning_config.input_token_extra_ids
        for request in executor_of(qa).requests.values()
    )
    assert sum(extra > 0 for extra in first) == len(answers[0].visual_tokens)
    assert len(first) == answers[0].timings.prompt_tokens
    assert again == first
    assert not ({*first} & {*other}) - {0}


def model_of(**changes: Any) -> CheckpointConfig:
    sizes = {"vocab_size": 7, "hidden_size": 4, "intermediate_size": 6, "num_layers": 2}
    heads = {"num_heads": 2, "num_kv_heads": 2, "head_size": 64, "tp_size": 1, "pp_size": 1}
    plain = {"dtype": "float16", "quant_algo": None, "kv_quant_algo": None}
    return CheckpointConfig(**{**sizes, **heads, **plain, **changes})


@pytest.mark.parametrize("version", VERSIONS)
def test_the_engine_is_opened_with_names_that_the_version_has(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, limits = bindings(version), LlmLimits(2, 100, 130, 101, 200)
    monkeypatch.setitem(sys.modules, "tensorrt_llm.bindings.executor", module)
    session = ExecutorSession.open(tmp_path, names_of(version), limits, model_of())
    assert session.executor.model_path == tmp_path
    config = session.executor.executor_config
    assert config.kv_cache_config.max_tokens >= 260
    assert config.enable_chunked_context is False

    def no_room(**given: Any) -> None:
        raise RuntimeError("[TensorRT-LLM][ERROR] CUDA runtime error: out of memory")

    module.Executor = no_room
    with pytest.raises(ResourceError, match=r"out of memory; build the engine with a smaller"):
        ExecutorSession.open(tmp_path, names_of(version), limits, model_of())


@pytest.mark.parametrize("version", VERSIONS)
def test_several_ranks_get_a_process_each(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, limits = bindings(version), LlmLimits(1, 100, 130, 100, 100)
    monkeypatch.setitem(sys.modules, "tensorrt_llm.bindings.executor", module)
    package = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    monkeypatch.setitem(sys.modules, "tensorrt_llm", package)
    monkeypatch.setitem(sys.modules, "torch", TORCH)
    prompt = table_prompt(np.array([1, VISUAL]), np.zeros((2, 4), np.float32), 7, "", False)
    with pytest.raises(EngineError, match=r"has no .*bin/executorWorker, which runs a rank"):
        ExecutorSession.open(tmp_path, names_of(version), limits, model_of(tp_size=2, pp_size=2))
    worker = tmp_path / "bin" / "executorWorker"
    worker.parent.mkdir()
    worker.touch()
    session = ExecutorSession.open(
        tmp_path, names_of(version), limits, model_of(tp_size=2, pp_size=2)
    )
    parallel = session.executor.executor_config.parallel_config
    assert parallel.communication_mode == "orchestrator"
    assert parallel.orchestrator_config.is_orchestrator
    assert parallel.orchestrator_config.worker_executable_path == str(worker)
    assert parallel.device_ids == [0, 1, 2, 3]
    assert not session._request(request_of(), prompt).prompt_tuning_config.embedding_table.on_device
    alone = ExecutorSession.open(tmp_path, names_of(version), limits, model_of())
    assert not hasattr(alone.executor.executor_config, "parallel_config")
    assert alone._request(request_of(), prompt).prompt_tuning_config.embedding_table.on_device


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("method", ["enqueue_request", "await_responses", "cancel_request"])
def test_the_stand_in_takes_what_the_executor_takes(version: str, method: str) -> None:
    taken = set(inspect.signature(getattr(HostExecutor, method)).parameters) - {"self"}
    assert taken <= arguments_of(version, f"Executor.{method}")


def test_without_tensorrt_llm_the_reason_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"TensorRT-LLM does not load .*reinstall it"):
        ExecutorSession.open(tmp_path, names_of("0.12"), LlmLimits(1, 2, 3, 2, 2), model_of())


def test_the_cache_holds_every_sequence_and_no_more_than_two_blocks_beside() -> None:
    limits = LlmLimits(3, 100, 130, 102, 300)
    tokens = cache_arguments(names_of("0.12"), limits, model_of())["max_tokens"]
    assert 3 * 130 <= tokens <= 3 * (130 + 2 * 64)


def request_of(**changes: Any) -> GenerationRequest:
    ids = np.array([1, VISUAL, 2])
    return GenerationRequest(ids, np.zeros((3, 4), np.float32), (0,), 4, **changes)


@pytest.mark.parametrize("version", VERSIONS)
def test_sampling_is_said_in_the_versions_words(version: str) -> None:
    names, sampling = names_of(version), bindings(version).SamplingConfig
    assert sampling_arguments(names, request_of()) == {"beam_width": 1, "top_k": 1}
    drawn = sampling_arguments(names, request_of(temperature=0.7, top_p=0.9, top_k=5, seed=3))
    assert drawn == {
        "beam_width": 1,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        names.seed: 3,
    }
    sampling(**drawn, repetition_penalty=1.2)
    seeds = {sampling_arguments(names, request_of(temperature=1.0))[names.seed] for _ in range(3)}
    assert len(seeds) == 3
    with pytest.raises(InputError, match=r"top_k is 2000; TensorRT-LLM draws among at most 1024"):
        sampling_arguments(names, request_of(temperature=1.0, top_k=2000))
    with pytest.raises(InputError, match=r"the seed is 18446744073709551616; .* below 2\*\*64"):
        sampling_arguments(names, request_of(temperature=1.0, seed=1 << 64))


def test_what_the_engine_was_not_built_for_is_refused(qa_with) -> None:
    qa = qa_with(limits=LlmLimits(1, 20, 30, 20, 20))
    with pytest.raises(PromptError, match=r"the engine was built for 20 and 30 in all"):
        qa.ask(qa.watch(frames()), QUESTIONS[0], max_new_tokens=4)


def test_a_failure_of_the_runtime_is_one_line(usual: VideoQA) -> None:
    generator = generator_of(usual.bundle)
    dim = usual.bundle.manifest.model.llm_dim
    ids, rows = np.array([1, 2]), np.zeros((2, dim), np.float32)
    with pytest.raises(EngineError, match=r"is not loaded; use it in a with statement"):
        generator.generate(GenerationRequest(ids, rows, (0,), 4))
    with generator:
        executor = generator._session.executor  # type: ignore[union-attr]
        for message, kind in (("it broke\nbadly", EngineError), ("CUDA out of memory", None)):
            tokens = generator.generate(GenerationRequest(ids, rows, (0,), 4))
            executor.await_responses = lambda id, m=message: [response([], False, m)]
            with pytest.raises(kind or ResourceError, match=message.replace("\n", " ")):
                next(tokens)
        with pytest.raises(EngineError, match=r"\(2,\) token ids with float16"):
            generator.generate(GenerationRequest(ids, rows.astype(np.float16), (0,), 4))
        assert executor.cancelled == []
    assert executor.is_shut_down


def test_a_bundle_without_a_language_model_for_another_runtime_is_refused(usual: VideoQA) -> None:
    with pytest.raises(EngineError, match=r"has no language model for another runtime"):
        load_text_generator(usual.bundle)
    manifest = replace(usual.bundle.manifest, language_model=replace(ENTRY, runtime="other"))
    with pytest.raises(EngineError, match=r"for 'other'; this hicom-edge runs tensorrt-llm only"):
        load_text_generator(Bundle(usual.bundle.path, manifest))
    manifest = replace(usual.bundle.manifest, language_model=replace(ENTRY, version="9"))
    with pytest.raises(EngineError, match=r"for TensorRT-LLM '9'; known are 0.12, 1.x"):
        load_text_generator(Bundle(usual.bundle.path, manifest))
