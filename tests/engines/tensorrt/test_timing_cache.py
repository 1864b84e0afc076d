"""Timings are kept between builds, and replaced where TensorRT does not take them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hicom_edge.engines.tensorrt.timing_cache import timing_cache


@dataclass
class Cache:
    """ITimingCache: what it was made of, and what a build added."""

    content: bytes

    def serialize(self) -> bytes:
        return self.content


@dataclass
class Config:
    """IBuilderConfig of version 2: it makes nothing of what is damaged, and refuses version 1."""

    used: Cache | None = None
    tried: list[bytes] = field(default_factory=list)

    def create_timing_cache(self, content: bytes) -> Cache | None:
        self.tried.append(content)
        return None if content.startswith(b"damaged") else Cache(content or b"2:")

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.content.startswith(b"1:"):
            return False
        self.used = cache
        return True


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (None, b"2:new"),
        (b"2:known ", b"2:known new"),
        (b"1:old ", b"2:new"),
        (b"damaged", b"2:new"),
    ],
)
def test_what_is_not_taken_is_replaced(tmp_path: Path, stored: bytes | None, expected) -> None:
    path, config = tmp_path / "timing.cache", Config()
    if stored is not None:
        path.write_bytes(stored)
    with timing_cache(config, path):
        assert config.used is not None, "a build without a cache"
        config.used.content += b"new"
    assert path.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [path]


def test_a_build_that_is_ended_has_timed_something(tmp_path: Path) -> None:
    path, config = tmp_path / "timing.cache", Config()
    with pytest.raises(KeyboardInterrupt), timing_cache(config, path):
        assert config.used is not None
        config.used.content += b"half"
        raise KeyboardInterrupt
    assert path.read_bytes() == b"2:half"


def test_a_place_that_cannot_be_written_costs_no_engine(tmp_path: Path) -> None:
    with timing_cache(Config(), tmp_path / "missing" / "timing.cache"):
        pass


def test_a_builder_without_a_cache_builds(tmp_path: Path) -> None:
    class Without(Config):
        def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
            return False

    with timing_cache(Without(), tmp_path / "timing.cache"):
        pass
    assert not list(tmp_path.iterdir())
