"""Messages of engines name options as the library does; the command line spells them as flags."""

from __future__ import annotations

import pytest

from hicom_edge.commands.flags import with_flags
from hicom_edge.engines.tensorrt.engine import check_covered
from hicom_edge.errors import EngineError, ResourceError
from hicom_edge.planning.engine_memory import check_run, run_need
from hicom_edge.planning.profiles import ShapeRange, limits_from_manifest, profiles_of


def test_a_shape_that_is_too_large_names_the_option() -> None:
    with pytest.raises(EngineError, match=r"build with a larger max_frames$") as caught:
        check_covered("compressor", "features", (25, 4), ShapeRange((1, 4), (8, 4), (24, 4)))
    assert with_flags(caught.value).endswith("build with a larger --max-frames")


def test_device_memory_that_is_too_small_names_the_options(reference_bundle) -> None:
    manifest = reference_bundle.manifest
    limits = limits_from_manifest(manifest, 8)
    profiles = {"vision": profiles_of("vision", reference_bundle.graph("vision"), limits)}
    with pytest.raises(ResourceError, match=r"dtype fp16, use max_frames below 8") as caught:
        check_run(manifest, run_need(reference_bundle, limits, profiles), limits, 1)
    assert "export with --dtype fp16, use --max-frames below 8" in with_flags(caught.value)
