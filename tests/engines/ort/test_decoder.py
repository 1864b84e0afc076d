"""The decoder's cache carries every embedding seen, whichever way it was cut into steps."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from cancelling import MOST_SECONDS, seconds_until_stopped
from hypothesis import given, settings
from hypothesis import strategies as st
from outlier_models import HEAD_DIM, KV_HEADS, VOCAB, WIDTH, tiny_decoder
from tiny_graphs import write_bundle

from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_decoder
from hicom_edge.engines.base import EngineOptions
from hicom_edge.engines.cancel import CancelToken
from hicom_edge.errors import BundleError, EngineError, InputError

LONG_PROMPT = 3000


def expected_logits(embeddings: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What the tiny decoder graph says after all of these embeddings."""
    return embeddings[-1] @ weight + (len(embeddings) - 1) + embeddings.sum()


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_prefill_and_steps_equal_one_prefill(tiny_bundle, tiny_weight, cuts: list[int]) -> None:
    embeddings = np.random.default_rng(2).normal(size=(sum(cuts), 4)).astype(np.float32)
    with load_decoder(tiny_bundle) as decoder:
        pieces = np.split(embeddings, np.cumsum(cuts)[:-1])
        sequence = decoder.start()
        for piece in pieces:
            logits = sequence.append(piece)
        assert sequence.length == len(embeddings)
    np.testing.assert_allclose(logits, expected_logits(embeddings, tiny_weight), atol=1e-4)


def test_sequences_do_not_see_each_other(tiny_bundle, tiny_weight) -> None:
    first, second = np.ones((5, 4), np.float32), np.full((2, 4), 2, np.float32)
    with load_decoder(tiny_bundle) as decoder:
        one, other = decoder.start(), decoder.start()
        one.append(first)
        logits = other.append(second)
        assert (one.length, other.length) == (5, 2)
        both = one.append(second)
    np.testing.assert_allclose(logits, expected_logits(second, tiny_weight), rtol=1e-5)
    joined = np.concatenate([first, second])
    np.testing.assert_allclose(both, expected_logits(joined, tiny_weight), rtol=1e-5)


def test_a_batch_of_steps_equals_the_steps_one_by_one(tiny_bundle) -> None:
    rng = np.random.default_rng(4)
    prompts = [rng.normal(size=(length, 4)).astype(np.float32) for length in (3, 1, 6)]
    row = rng.normal(size=(1, 4)).astype(np.float32)
    with load_decoder(tiny_bundle) as decoder:
        alone, together = ([decoder.start() for _ in prompts] for _ in range(2))
        for sequences in (alone, together):
            for sequence, prompt in zip(sequences, prompts, strict=True):
                sequence.append(prompt)
        expected = np.stack([sequence.append(row) for sequence in alone])
        found = decoder.step_batch([(sequence, row) for sequence in together])
        assert [sequence.length for sequence in together] == [4, 2, 7]
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None)
@given(length=st.integers(1, 6), kept=st.integers(0, 6))
def test_a_cut_sequence_goes_on_from_there(tiny_bundle, tiny_weight, length, kept) -> None:
    embeddings = np.random.default_rng(5).normal(size=(length + 1, 4)).astype(np.float32)
    with load_decoder(tiny_bundle) as decoder:
        sequence = decoder.start()
        sequence.append(embeddings[:length])
        if kept > length:
            with pytest.raises(InputError, match=rf"of {length} tokens was to be cut to {kept}"):
                sequence.truncate(kept)
            return
        sequence.truncate(kept)
        assert sequence.length == kept
        logits = sequence.append(embeddings[length:])
    left = np.concatenate([embeddings[:kept], embeddings[length:]])
    np.testing.assert_allclose(logits, expected_logits(left, tiny_weight), atol=1e-4)


def test_logits_at_gives_a_row_for_each_index(tiny_bundle, tiny_weight) -> None:
    embeddings = np.random.default_rng(3).normal(size=(4, 4)).astype(np.float32)
    with load_decoder(tiny_bundle) as decoder:
        logits = decoder.start().logits_at(embeddings, np.array([0, 3]))
    places = np.array([[0.0], [3.0]])
    expected = embeddings[[0, 3]] @ tiny_weight + places + embeddings.sum()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_a_closed_sequence_says_so(tiny_bundle) -> None:
    with load_decoder(tiny_bundle) as decoder:
        with decoder.start() as sequence:
            sequence.append(np.ones((5, 4), np.float32))
        sequence.close()
        with pytest.raises(EngineError, match="decoder: this sequence is closed; start another"):
            sequence.append(np.ones((1, 4), np.float32))


def test_a_sequence_of_a_decoder_that_was_freed_is_refused(tiny_bundle) -> None:
    with load_decoder(tiny_bundle) as decoder:
        sequence = decoder.start()
    with pytest.raises(EngineError, match="decoder is not loaded"):
        sequence.append(np.ones((1, 4), np.float32))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3, 5), "float32"), ((0, 4), "float32"), ((3, 4), "float16"), ((4,), "f")]
)
def test_embeddings_that_do_not_fit_are_refused(tiny_bundle, shape, dtype) -> None:
    with (
        load_decoder(tiny_bundle) as decoder,
        pytest.raises(EngineError, match=r"decoder: embeddings are .*expected float32 \(l, 4\)"),
    ):
        decoder.start().append(np.zeros(shape, dtype))


def test_a_decoder_outside_with_is_refused(tiny_bundle) -> None:
    with pytest.raises(EngineError, match="decoder is not loaded; run it inside"):
        load_decoder(tiny_bundle).start()


def test_a_decoder_of_another_form_is_refused(tiny_bundle) -> None:
    graphs = {"decoder": tiny_bundle.graph("vision")}
    odd = replace(tiny_bundle, manifest=replace(tiny_bundle.manifest, graphs=graphs))
    with pytest.raises(BundleError, match=r"its decoder takes \['pixel_values'\], expected"):
        load_decoder(odd)


@pytest.fixture(scope="module")
def larger_bundle(tmp_path_factory) -> Bundle:
    """A decoder of eight layers with random weights; a prefill of LONG_PROMPT takes a second."""
    from onnx_ir import to_proto

    model, layers = to_proto(tiny_decoder(layers=8)), 8
    bundle = write_bundle(tmp_path_factory.mktemp("larger") / "bundle", {"decoder": model})
    sizes = {"llm_dim": WIDTH, "vocab_size": VOCAB, "num_layers": layers}
    sizes |= {"num_kv_heads": KV_HEADS, "head_dim": HEAD_DIM}
    spec = replace(bundle.manifest.model, **sizes)
    return replace(bundle, manifest=replace(bundle.manifest, model=spec))


@pytest.mark.slow
def test_a_long_prefill_stops_soon_after_it_is_cancelled(larger_bundle) -> None:
    rows = np.random.default_rng(0).normal(size=(LONG_PROMPT, WIDTH)).astype(np.float32)
    with load_decoder(larger_bundle, options=EngineOptions(threads=1)) as decoder:
        started = time.perf_counter()
        with decoder.start() as sequence:
            expected = sequence.append(rows)
        whole = time.perf_counter() - started

        def prefill(cancel: CancelToken) -> None:
            with decoder.start() as sequence:
                sequence.append(rows, cancel)

        delays = [seconds_until_stopped(prefill, part * whole) for part in (0.05, 0.2, 0.4, 0.6)]
        assert min(delays) < MOST_SECONDS  # of four, because other programs may have the cores
        with decoder.start() as sequence:
            np.testing.assert_array_equal(sequence.append(rows), expected)
