"""The feature store stays within its bytes and lets the least recently used go first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hicom_edge.runtime.features.store import FeatureKey, FeatureStore, VisionMaps


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
