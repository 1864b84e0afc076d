"""Several sequences in one run of the decoder: each gets the bits that it gets alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_decoder
from hicom_edge.engines.base import DecoderEngine
from hicom_edge.engines.cancel import CancelToken
from hicom_edge.engines.ort.kv_rows import BUCKET
from hicom_edge.engines.sequences import TokenSequence
from hicom_edge.errors import Cancelled, EngineError

CPU = "onnxruntime-cpu"
# below, at and above the first bucket's end, several buckets, and one beyond 256 entries, where
# ONNX Runtime begins a second piece of a long sum
LENGTHS = (5, 63, 64, 37, 129, 200, 300, 21)
STEPS = 4


@pytest.fixture(params=[23, 20], scope="module")
def decoder(variant_bundle, request) -> Iterator[DecoderEngine]:
    """Attention as one node (opset 23), and out of MatMul and Softmax (20)."""
    with load_decoder(variant_bundle("release", opset=request.param), CPU) as decoder:
        yield decoder


@pytest.fixture(scope="module")
def texts() -> list[np.ndarray]:
    """A prompt and STEPS further embeddings for every sequence: (length + STEPS, Dl)."""
    rng = np.random.default_rng(3)
    return [rng.normal(size=(length + STEPS, 64)).astype(np.float32) for length in LENGTHS]


def alone(decoder: DecoderEngine, text: np.ndarray) -> np.ndarray:
    """Logits (STEPS, V) of a sequence that nothing runs beside."""
    with decoder.start() as sequence:
        sequence.append(text[:-STEPS])
        return np.stack([sequence.append(row[None]) for row in text[-STEPS:]])


def prefilled(decoder: DecoderEngine, texts: list[np.ndarray]) -> list[TokenSequence]:
    sequences = [decoder.start() for _ in texts]
    for sequence, text in zip(sequences, texts, strict=True):
        sequence.append(text[:-STEPS])
    return sequences


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_row_has_the_bits_that_it_has_alone(decoder, texts, count) -> None:
    texts = texts[-count:]
    sequences = prefilled(decoder, texts)
    for step in range(STEPS):
        rows = [text[len(text) - STEPS + step][None] for text in texts]
        logits = decoder.step_batch(list(zip(sequences, rows, strict=True)))
        for text, found in zip(texts, logits, strict=True):
            assert np.array_equal(found, alone(decoder, text)[step])
    lengths = [len(text) for text in texts]
    assert [sequence.length for sequence in sequences] == lengths


def test_a_batch_larger_than_one_run_takes_is_cut(decoder, texts) -> None:
    more = texts + [text + 1 for text in texts[:3]]
    sequences = prefilled(decoder, more)
    assert len(sequences) > decoder.max_batch
    logits = decoder.step_batch(
        [(s, t[-STEPS][None]) for s, t in zip(sequences, more, strict=True)]
    )
    for text, found in zip(more, logits, strict=True):
        assert np.array_equal(found, alone(decoder, text)[0])


def test_sequences_join_leave_and_go_on_alone(decoder, texts) -> None:
    """Also in another order, and after a step by themselves."""
    expected = [alone(decoder, text) for text in texts]
    sequences = prefilled(decoder, texts)
    done = [0] * len(texts)

    def run(*chosen: int) -> None:
        steps = [(sequences[i], texts[i][len(texts[i]) - STEPS + done[i]][None]) for i in chosen]
        for i, logits in zip(chosen, decoder.step_batch(steps), strict=True):
            assert np.array_equal(logits, expected[i][done[i]]), (i, done[i])
            done[i] += 1

    run(0, 1, 2)
    run(2, 1, 0)
    run(2, 6, 0, 4)
    sequences[6].close()
    row = texts[1][len(texts[1]) - STEPS + 2][None]
    assert np.array_equal(sequences[1].append(row), expected[1][2])
    done[1] += 1
    run(4, 5, 1, 7)


def test_a_truncated_sequence_goes_on_as_if_the_rest_had_never_been(decoder, texts) -> None:
    short, long = texts[1], texts[6]
    with decoder.start() as first, decoder.start() as second:
        first.append(short[:-STEPS])
        second.append(long[:-STEPS])
        decoder.step_batch([(first, short[-STEPS][None]), (second, long[-STEPS][None])])
        first.append(long[:BUCKET])  # something else, more than a bucket, discarded again
        first.truncate(len(short) - STEPS)
        assert first.length == len(short) - STEPS
        assert np.array_equal(first.append(short[-STEPS][None]), alone(decoder, short)[0])


def test_threads_may_use_sequences_that_were_in_one_batch(decoder, texts) -> None:
    pair = texts[4:6]
    sequences = prefilled(decoder, pair)
    expected = [alone(decoder, text) for text in pair]
    decoder.step_batch([(s, t[-STEPS][None]) for s, t in zip(sequences, pair, strict=True)])
    found: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def go_on(index: int) -> None:
        for step in range(1, STEPS):
            row = pair[index][len(pair[index]) - STEPS + step][None]
            found[index].append(sequences[index].append(row))

    threads = [threading.Thread(target=go_on, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in (0, 1):
        assert np.array_equal(found[index], expected[index][1:])


def test_what_does_not_fit_is_refused_before_anything_runs(decoder, texts) -> None:
    first, second = prefilled(decoder, texts[:2])
    row, token = texts[0][-1:], CancelToken()
    with pytest.raises(EngineError, match=r"embeddings are float32 \(1, 3\), expected float32"):
        decoder.step_batch([(first, row), (second, row[:, :3])])
    second.close()
    with pytest.raises(EngineError, match="this sequence is closed"):
        decoder.step_batch([(first, row), (second, row)])
    token.cancel()
    with pytest.raises(Cancelled):
        decoder.step_batch([(first, row)], token)
    assert first.length == LENGTHS[0]


def test_a_bundle_without_a_batch_axis_runs_one_sequence_a_run(tiny_bundle: Bundle) -> None:
    with load_decoder(tiny_bundle, CPU) as decoder:
        assert decoder.max_batch == 1
        rows = np.ones((2, decoder.llm_dim), np.float32)
        sequences = [decoder.start(), decoder.start()]
        together = decoder.step_batch([(s, rows[:1]) for s in sequences])
        assert np.array_equal(together[0], together[1])
