"""The sampler means by its settings what Hugging Face's generation means by them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hicom_edge.bundle.manifest import GenerationSpec
from hicom_edge.errors import EngineError, PromptError
from hicom_edge.runtime.sampling import (
    Sampler,
    SamplingSettings,
    keep_top_k,
    keep_top_p,
    penalise_repetition,
    resolve_settings,
    softmax,
)

torch = pytest.importorskip("torch")
processors = pytest.importorskip("transformers.generation.logits_process")

VOCAB = 50
LOGITS = st.integers(0, 10_000).map(
    lambda seed: np.random.default_rng(seed).normal(0, 4, VOCAB).astype(np.float32)
)


def reference(processor, logits: np.ndarray, generated: tuple[int, ...] = ()) -> np.ndarray:
    ids = torch.tensor([list(generated)], dtype=torch.long)
    return processor(ids, torch.from_numpy(logits.copy())[None])[0].numpy()


@given(LOGITS, st.floats(0.5, 2), st.lists(st.integers(0, VOCAB - 1), max_size=8))
def test_repetition_penalty_equals_transformers(logits, penalty, generated) -> None:
    processor = processors.RepetitionPenaltyLogitsProcessor(penalty)
    expected = reference(processor, logits, generated) if generated else logits
    np.testing.assert_array_equal(penalise_repetition(logits, set(generated), penalty), expected)


@given(LOGITS, st.integers(1, VOCAB + 5))
def test_top_k_equals_transformers(logits, top_k) -> None:
    expected = reference(processors.TopKLogitsWarper(top_k), logits)
    np.testing.assert_array_equal(keep_top_k(logits, top_k), expected)


@given(LOGITS, st.sampled_from([0.05, 0.3, 0.8, 0.95, 0.999]))
def test_top_p_equals_transformers(logits, top_p) -> None:
    expected = reference(processors.TopPLogitsWarper(top_p), logits)
    np.testing.assert_array_equal(keep_top_p(logits, top_p), expected)


@settings(max_examples=20)
@given(LOGITS, st.floats(0.3, 2), st.integers(1, 20), st.floats(0.3, 1), st.floats(1, 1.5))
def test_draws_follow_the_distribution_of_all_settings_in_transformers_order(
    logits, temperature, top_k, top_p, penalty
) -> None:
    generated = (3, 17)
    scores = logits
    for processor in (
        processors.RepetitionPenaltyLogitsProcessor(penalty),
        processors.TemperatureLogitsWarper(temperature),
        processors.TopKLogitsWarper(top_k),
        processors.TopPLogitsWarper(top_p),
    ):
        scores = reference(processor, scores, generated)
    sampler = Sampler(SamplingSettings(temperature, top_k, top_p, penalty, seed=0))
    sampler._generated = set(generated)
    drawn = sampler.choose(logits)
    # The same draw from the reference's distribution: equal unless it sits on a rounding edge.
    expected = np.random.default_rng(0).choice(VOCAB, p=softmax(scores))
    assert np.isfinite(scores[drawn])
    assert drawn == expected


def test_greedy_takes_the_best_and_then_discourages_it() -> None:
    logits = np.array([1.0, 2.0, 1.9], np.float32)
    sampler = Sampler(SamplingSettings(repetition_penalty=1.2))
    assert [sampler.choose(logits) for _ in range(3)] == [1, 2, 1]


def test_a_negative_score_is_pushed_further_down() -> None:
    penalised = penalise_repetition(np.array([-1.0, 1.0], np.float32), {0, 1}, 2.0)
    assert penalised.tolist() == [-2.0, 0.5]


def test_logits_are_not_changed() -> None:
    logits = np.linspace(-1, 1, VOCAB, dtype=np.float32)
    before = logits.copy()
    sampler = Sampler(SamplingSettings(0.7, 5, 0.9, 1.3, seed=1))
    for _ in range(5):
        sampler.choose(logits)
    np.testing.assert_array_equal(logits, before)


def test_a_seed_repeats_the_draws_and_another_does_not() -> None:
    logits = np.zeros(VOCAB, np.float32)

    def draw(seed: int) -> list[int]:
        sampler = Sampler(SamplingSettings(temperature=1.0, seed=seed))
        return [sampler.choose(logits) for _ in range(20)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize("temperature", [1e-4, 1e-50, 1e-320])
@pytest.mark.parametrize("limits", [{}, {"top_k": 3, "top_p": 0.9}])
@pytest.mark.filterwarnings("error")
def test_a_low_temperature_tends_to_greedy(temperature, limits) -> None:
    logits = np.array([-3.0, 250.0, 249.5, 0.0], np.float32)
    sampler = Sampler(SamplingSettings(temperature, seed=0, **limits))
    assert [sampler.choose(logits) for _ in range(20)] == [1] * 20


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(temperature, bad) -> None:
    logits = np.array([0.0, bad, 1.0], np.float32)
    with pytest.raises(EngineError, match=r"not finite numbers; .* export it in fp32"):
        Sampler(SamplingSettings(temperature)).choose(logits)


def test_what_is_not_given_comes_from_the_checkpoint() -> None:
    checkpoint = GenerationSpec((0,), repetition_penalty=1.05, temperature=0.7, top_p=0.8, top_k=20)
    assert resolve_settings(checkpoint) == SamplingSettings(0.0, 20, 0.8, 1.05)
    assert resolve_settings(checkpoint, 0.5, 0, 1.0, 1.0, 7) == SamplingSettings(0.5, 0, 1, 1, 7)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", -0.1, "temperature is -0.1; pass 0 .greedy. or more"),
        ("temperature", float("nan"), "temperature is nan; pass 0 .greedy. or more"),
        ("temperature", float("inf"), "temperature is inf; pass 0 .greedy. or more"),
        ("top_k", -1, "top_k is -1; pass 0 .off. or more"),
        ("top_p", 0.0, "top_p is 0.0; pass above 0 and at most 1"),
        ("top_p", 1.5, "top_p is 1.5; pass above 0 and at most 1"),
        ("repetition_penalty", 0.0, "repetition_penalty is 0.0; pass 0.001 to 1000"),
        ("repetition_penalty", 1e-50, "repetition_penalty is 1e-50; pass 0.001 to 1000"),
        ("repetition_penalty", float("inf"), "repetition_penalty is inf; pass 0.001 to 1000"),
        ("seed", -1, "seed is -1; pass 0 or more"),
        ("temperature", "1", "temperature is '1'; pass 0"),
        ("temperature", None, "temperature is None; pass 0"),
        ("top_k", 5.0, "top_k is 5.0; pass 0 .off. or more, a whole number"),
        ("top_k", True, "top_k is True; pass 0"),
        ("top_p", "a", "top_p is 'a'; pass above 0"),
        ("repetition_penalty", "a", "repetition_penalty is 'a'; pass 0.001 to 1000"),
        ("seed", 1.5, "seed is 1.5; pass 0 or more, a whole number"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(name, value, message) -> None:
    with pytest.raises(PromptError, match=message):
        SamplingSettings(**{name: value})


def test_numbers_of_numpy_are_numbers() -> None:
    settings = SamplingSettings(np.float32(0.5), np.int64(3), np.float64(0.9), seed=np.int32(1))
    assert Sampler(settings).choose(np.array([9, 0, 0, 0], np.float32)) == 0
