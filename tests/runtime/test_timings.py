"""Stages are timed apart, and derived figures follow from the measured ones."""

from __future__ import annotations

import time

import pytest

from hicom_edge.runtime.timings import Stopwatch, Timings, WatchTimings


def timings(**values: float) -> Timings:
    stages = ("guide", "compress", "prefill", "generate")
    measured = {f"{stage}_ms": 1.0 for stage in stages}
    counts = {"visual_tokens": 12, "prompt_tokens": 40, "reused_tokens": 0}
    return Timings(
        **{
            "new_tokens": 5,
            "decode_steps": 4,
            **counts,
            **measured,
            **values,
        }
    )


def test_a_stage_inside_another_counts_only_once() -> None:
    clock, started = Stopwatch(), time.perf_counter()
    with clock("outer"):
        time.sleep(0.01)
        with clock("inner"):
            time.sleep(0.03)
    elapsed_ms = (time.perf_counter() - started) * 1000
    assert clock.ms["inner"] >= 30
    assert 10 <= clock.ms["outer"] <= elapsed_ms - clock.ms["inner"]


def test_a_stage_that_comes_again_adds_up() -> None:
    clock = Stopwatch()
    for _ in range(2):
        with clock("stage"):
            time.sleep(0.01)
    assert clock.ms["stage"] >= 20


def test_a_stage_that_fails_is_counted_too() -> None:
    clock = Stopwatch()
    with pytest.raises(ValueError, match="no"), clock("stage"):
        raise ValueError("no")
    assert clock.ms["stage"] > 0


def test_the_first_token_waits_for_everything_but_generation() -> None:
    assert timings(prefill_ms=10.0).time_to_first_token_ms == 12.0


def test_watching_adds_up() -> None:
    assert WatchTimings(1.0, 2.0, 4.0).total_ms == 7.0


@pytest.mark.parametrize(("decode_steps", "expected"), [(0, 0.0), (4, 4000.0)])
def test_speed_is_that_of_the_steps_after_the_prefill(decode_steps, expected) -> None:
    assert timings(decode_steps=decode_steps).tokens_per_second == expected
