"""What a machine allows follows from its facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hicom_edge.planning.gpus import Gpu, find_gpus
from hicom_edge.planning.machine import Machine, this_machine

GIB = 1 << 30
ORIN = Gpu("Orin", (8, 7), 16 * GIB, 8, integrated=True)
H200 = Gpu("NVIDIA H200", (9, 0), 140 * GIB, 132)


@pytest.mark.parametrize(
    ("gpu", "available", "allowed"),
    [
        (ORIN, 12 * GIB, 12 * GIB),  # the GPU works in main memory, which other programs use too
        (ORIN, 20 * GIB, 16 * GIB),
        (ORIN, None, 16 * GIB),
        (H200, 12 * GIB, 140 * GIB),
    ],
)
def test_device_memory_is_main_memory_where_the_gpu_has_none(
    gpu: Gpu, available: int | None, allowed: int
) -> None:
    assert Machine(gpus=(gpu,), available_bytes=available).device_bytes == allowed


def test_a_machine_without_a_gpu_has_no_device_memory() -> None:
    assert (Machine().gpu, Machine(available_bytes=GIB).device_bytes) == (None, None)


def test_a_build_may_use_swap() -> None:
    machine = Machine(available_bytes=3 * GIB, free_swap_bytes=2 * GIB)
    assert machine.build_bytes == 5 * GIB
    assert replace(machine, available_bytes=None).build_bytes is None


def test_a_gpu_names_the_folder_of_its_engines() -> None:
    assert ORIN.folder == "orin-8-multiprocessors-sm87"
    assert replace(ORIN, name="Orin (nvgpu)").folder == "orin-nvgpu-8-multiprocessors-sm87"
    assert H200.folder == "nvidia-h200-132-multiprocessors-sm90"
    assert (ORIN.model, ORIN.capability) == ("Orin, 8 multiprocessors", "8.7")


def test_this_machine_is_looked_at() -> None:
    machine = this_machine()
    assert machine.gpus == find_gpus()
    assert machine.memory_bytes is None or machine.memory_bytes > GIB >> 2
