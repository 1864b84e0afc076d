from __future__ import annotations

import gc
import math
import sys
from contextlib import nullcontext

import pytest
from tensorrt_stand_in import HostMemory

from hicom_edge.bench.machine_limits import (
    MachineLimits,
    gpu_copy_rate,
    gpu_product_rate,
    measure_limits,
)


@pytest.mark.slow
def test_this_machine_is_measured() -> None:
    measured = measure_limits(on_gpu=False)
    assert 1e8 < measured.multiply_adds_per_s < 1e14
    assert 1e8 < measured.bytes_per_s < 1e13


def test_the_slower_of_reading_and_computing_is_the_limit() -> None:
    machine = MachineLimits(multiply_adds_per_s=1e9, bytes_per_s=1e8)
    assert machine.ms(1e8) == pytest.approx(1000)
    assert machine.ms(0, 2e9) == pytest.approx(2000)
    assert machine.ms(1e8, 2e9) == pytest.approx(2000)


def test_an_unknown_rate_limits_nothing() -> None:
    assert MachineLimits(1e9, 0).ms(1e8) is None
    assert MachineLimits(math.inf, 1e8).ms(1e8) == pytest.approx(1000)
    assert MachineLimits(math.inf, 1e8).ms(1e8, 1) is None


def test_a_pytorch_that_lacks_a_library_leaves_products_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For example a wheel for another board."""

    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "torch":
                raise OSError("libcublas.so.12: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert gpu_product_rate(half=False) == math.inf


@pytest.mark.parametrize("room", [1, 2])
def test_blocks_that_a_gpu_was_measured_with_are_given_back(room: int) -> None:
    memory = HostMemory(room)
    with pytest.raises(MemoryError) if room == 1 else nullcontext():
        gpu_copy_rate(memory, block_bytes=4096)
    gc.collect()
    assert not memory.live
