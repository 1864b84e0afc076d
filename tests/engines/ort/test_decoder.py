"""The decoder's cache carries every embedding seen, whichever way it was cut into steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hicom_edge.engines import load_decoder
from hicom_edge.errors import BundleError, EngineError


def expected_logits(embeddings: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What the tiny decoder graph says after all of these embeddings."""
    return embeddings[-1] @ weight + (len(embeddings) - 1) + embeddings.sum()


@given(cuts=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_prefill_and_steps_equal_one_prefill(tiny_bundle, tiny_weight, cuts: list[int]) -> None:
    embeddings = np.random.default_rng(2).normal(size=(sum(cuts), 4)).astype(np.float32)
    with load_decoder(tiny_bundle) as decoder:
        pieces = np.split(embeddings, np.cumsum(cuts)[:-1])
        logits = decoder.prefill(pieces[0])
        for piece in pieces[1:]:
            logits = decoder.step(piece)
        assert decoder.length == len(embeddings)
    np.testing.assert_allclose(logits, expected_logits(embeddings, tiny_weight), atol=1e-4)


def test_prefill_starts_anew(tiny_bundle, tiny_weight) -> None:
    first, second = np.ones((5, 4), np.float32), np.full((2, 4), 2, np.float32)
    with load_decoder(tiny_bundle) as decoder:
        decoder.prefill(first)
        logits = decoder.prefill(second)
        assert decoder.length == 2
    np.testing.assert_allclose(logits, expected_logits(second, tiny_weight), rtol=1e-5)


def test_logits_at_gives_a_row_for_each_index(tiny_bundle, tiny_weight) -> None:
    embeddings = np.random.default_rng(3).normal(size=(4, 4)).astype(np.float32)
    with load_decoder(tiny_bundle) as decoder:
        logits = decoder.logits_at(embeddings, np.array([0, 3]))
    places = np.array([[0.0], [3.0]])
    expected = embeddings[[0, 3]] @ tiny_weight + places + embeddings.sum()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_reset_empties_the_cache(tiny_bundle) -> None:
    with load_decoder(tiny_bundle) as decoder:
        decoder.prefill(np.ones((5, 4), np.float32))
        decoder.reset()
        assert decoder.length == 0


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3, 5), "float32"), ((0, 4), "float32"), ((3, 4), "float16"), ((4,), "f")]
)
def test_embeddings_that_do_not_fit_are_refused(tiny_bundle, shape, dtype) -> None:
    with (
        load_decoder(tiny_bundle) as decoder,
        pytest.raises(EngineError, match=r"decoder: embeddings are .*expected float32 \(l, 4\)"),
    ):
        decoder.prefill(np.zeros(shape, dtype))


def test_a_decoder_outside_with_is_refused(tiny_bundle) -> None:
    with pytest.raises(EngineError, match="decoder is not loaded; run it inside"):
        load_decoder(tiny_bundle).prefill(np.zeros((1, 4), np.float32))


def test_a_decoder_of_another_form_is_refused(tiny_bundle) -> None:
    graphs = {"decoder": tiny_bundle.graph("vision")}
    odd = replace(tiny_bundle, manifest=replace(tiny_bundle.manifest, graphs=graphs))
    with pytest.raises(BundleError, match=r"its decoder takes \['pixel_values'\], expected"):
        load_decoder(odd)
