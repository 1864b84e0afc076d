"""Processors whose byte products saturate are recognised by their features."""

from __future__ import annotations

from pathlib import Path

import pytest

from hicom_edge.planning.processor import byte_sums_saturate


@pytest.mark.parametrize(
    ("machine", "features", "saturates"),
    [
        ("x86_64", "flags : sse4_2 avx2", True),
        ("x86_64", "flags : avx2 avx512f avx512_vnni", False),
        ("x86_64", "flags : avx2 avx_vnni", False),
        ("aarch64", "Features : asimd asimddp", False),
    ],
)
def test_only_x86_without_vnni_saturates(
    machine: str, features: str, saturates: bool, tmp_path: Path
) -> None:
    listed = tmp_path / "cpuinfo"
    listed.write_text(features)
    assert byte_sums_saturate(machine, listed) is saturates


def test_x86_with_unknown_features_gets_the_exact_form(tmp_path: Path) -> None:
    assert byte_sums_saturate("AMD64", tmp_path / "nowhere")
    assert not byte_sums_saturate("aarch64", tmp_path / "nowhere")
