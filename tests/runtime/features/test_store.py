"""The feature store stays within its bytes and lets the least recently used go first."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hicom_edge.engines.cancel import CancelToken
from hicom_edge.errors import Cancelled, VideoError
from hicom_edge.runtime.features.store import (
    FeatureKey,
    FeatureStore,
    VisionMaps,
    default_capacity_bytes,
)


def key(name: str) -> FeatureKey:
    return FeatureKey(name, "224", "f00")


def maps(size: int) -> VisionMaps:
    return VisionMaps(np.zeros(size, np.uint8), None)


def test_maps_are_found_again_under_their_key() -> None:
    store, kept = FeatureStore(100), maps(10)
    store.put(key("a"), kept)
    assert store.get(key("a")) is kept
    assert store.get(key("b")) is None


@pytest.mark.parametrize("field", ["frames", "preprocess", "vision_graph"])
def test_every_part_of_the_key_matters(field: str) -> None:
    store = FeatureStore(100)
    store.put(FeatureKey("a", "b", "c"), maps(10))
    other = {"frames": "a", "preprocess": "b", "vision_graph": "c", field: "other"}
    assert store.get(FeatureKey(**other)) is None


def test_the_least_recently_used_leaves_first() -> None:
    store = FeatureStore(30)
    for name in "abc":
        store.put(key(name), maps(10))
    store.get(key("a"))
    store.put(key("d"), maps(10))
    assert [name for name in "abcd" if store.get(key(name))] == ["a", "c", "d"]


def test_both_maps_count() -> None:
    both = VisionMaps(np.zeros(10, np.float32), np.zeros(5, np.float16))
    assert both.nbytes == 50


def test_what_exceeds_the_capacity_alone_is_not_kept_and_drives_nothing_out() -> None:
    store = FeatureStore(30)
    store.put(key("a"), maps(10))
    store.put(key("b"), maps(31))
    assert store.get(key("a")) is not None
    assert store.get(key("b")) is None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 40)), max_size=30))
def test_the_bytes_never_exceed_the_capacity(puts: list[tuple[str, int]]) -> None:
    store = FeatureStore(64)
    for name, size in puts:
        store.put(key(name), maps(size))
        assert store.nbytes <= 64
        assert store.get(key(name)) is not None


@pytest.mark.parametrize(
    ("memory", "capacity"),
    [(8 << 30, 256 << 20), (24 << 30, 768 << 20), (64 << 30, 1 << 30), (None, 256 << 20)],
)
def test_the_default_capacity_depends_on_the_memory(memory, capacity) -> None:
    assert default_capacity_bytes(memory) == capacity


def in_threads(works) -> list:
    """What each function returns or raises, each run in a thread of its own."""
    outcomes: list = [None] * len(works)

    def run(index: int) -> None:
        try:
            outcomes[index] = works[index]()
        except Exception as error:
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_threads_that_want_the_same_maps_make_them_once() -> None:
    store, made, started = FeatureStore(100), [], threading.Event()

    def make(cancel: CancelToken) -> VisionMaps:
        started.set()
        time.sleep(0.05)
        made.append(maps(10))
        return made[-1]

    outcomes = in_threads([lambda: store.get_or_make(key("a"), make)] * 8)
    assert len(made) == 1
    assert all(found is made[0] for found, _ in outcomes)
    assert sorted(reused for _, reused in outcomes) == [False] + [True] * 7


def test_maps_are_made_on_until_nobody_wants_them() -> None:
    store, release, tokens = FeatureStore(100), threading.Event(), []
    first, second = CancelToken(), CancelToken()

    def make(cancel: CancelToken) -> VisionMaps:
        tokens.append(cancel)
        with cancel.calling(release.set):
            release.wait()
            cancel.check()
        return maps(10)

    def scenario() -> None:
        while not tokens:
            time.sleep(0.001)
        first.cancel()  # the thread that makes them goes on for the second
        time.sleep(0.05)
        assert not tokens[0].is_cancelled
        second.cancel()

    def later() -> object:
        while not tokens:
            time.sleep(0.001)
        return store.get_or_make(key("a"), make, second)

    outcomes = in_threads([lambda: store.get_or_make(key("a"), make, first), later, scenario])
    assert isinstance(outcomes[0], Cancelled)
    assert isinstance(outcomes[1], Cancelled)
    assert len(tokens) == 1
    assert tokens[0].is_cancelled
    assert len(store) == 0
    release.set()
    assert store.get_or_make(key("a"), lambda cancel: maps(5))[1] is False


def test_after_a_failure_another_thread_tries() -> None:
    store, calls = FeatureStore(100), []

    def make(cancel: CancelToken) -> VisionMaps:
        calls.append(1)
        time.sleep(0.02)
        if len(calls) == 1:
            raise VideoError("damaged")
        return maps(10)

    outcomes = in_threads([lambda: store.get_or_make(key("a"), make)] * 4)
    assert sum(isinstance(outcome, VideoError) for outcome in outcomes) == 1
    assert len(calls) == 2
