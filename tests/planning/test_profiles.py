"""Profiles cover every size that the runtime asks for, and nothing beyond the model's context."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_graphs
from hypothesis import given
from hypothesis import strategies as st

from hicom_edge.errors import BundleError, InputError
from hicom_edge.export.export_options import OnnxDecoderOptions
from hicom_edge.planning.profiles import (
    FRAMES_PER_RUN,
    PREFILL,
    STEP,
    ShapeRange,
    limits_from_manifest,
    profiles_of,
)
from hicom_edge.runtime.features import encoding as vision


def test_the_fixed_cache_is_whole_in_both_profiles_and_its_step_is_one_row(variant_bundle) -> None:
    bundle = variant_bundle("release", language_model=OnnxDecoderOptions("scatter"))
    limits = limits_from_manifest(bundle.manifest, 16)
    profiles = profiles_of("decoder_scatter", bundle.graph("decoder_scatter"), limits)
    for profile in profiles:
        past = profile["past_key_values.0.key"]
        assert {shape[2] for shape in past} == {limits.capacity}
    assert profiles[PREFILL]["inputs_embeds"].maximum[1] == limits.max_prompt
    assert {shape[1] for shape in profiles[STEP]["inputs_embeds"]} == {1}


@given(max_frames=st.integers(1, 300), max_context=st.integers(64, 40000))
def test_ranges_are_ordered_and_stay_in_the_context(
    reference_bundle, max_frames: int, max_context: int
) -> None:
    manifest = reference_bundle.manifest
    manifest = replace(manifest, model=replace(manifest.model, max_context=max_context))
    limits = limits_from_manifest(manifest, max_frames)
    assert limits.max_prompt < limits.capacity <= max_context
    for name, entry in manifest.graphs.items():
        for profile in profiles_of(name, entry, limits):
            assert set(profile) == {spec.name for spec in entry.inputs}
            for shapes in profile.values():
                assert shapes.covers(shapes.typical)
                assert shapes.covers(shapes.minimum)
                assert shapes.covers(shapes.maximum)


def test_the_decoder_has_a_profile_for_prefill_and_one_for_steps(reference_bundle) -> None:
    limits = limits_from_manifest(reference_bundle.manifest, 32)
    entry = reference_bundle.graph("decoder")
    profiles = profiles_of("decoder", entry, limits)
    past = "past_key_values.0.key"
    assert profiles[PREFILL]["inputs_embeds"].maximum[1] == limits.max_prompt
    assert profiles[PREFILL][past].minimum[2] == profiles[PREFILL][past].typical[2] == 0
    assert profiles[STEP]["inputs_embeds"].typical[1] == 1
    assert profiles[STEP][past].maximum[2] == limits.capacity - 1


def test_vision_is_built_for_the_runs_of_the_runtime(reference_bundle) -> None:
    limits = limits_from_manifest(reference_bundle.manifest, 128)
    (profile,) = profiles_of("vision", reference_bundle.graph("vision"), limits)
    assert profile["pixel_values"].maximum[0] == FRAMES_PER_RUN == vision.FRAMES_PER_RUN


def test_more_frames_than_128_are_built_for_when_the_bundle_says_so(reference_bundle) -> None:
    manifest = reference_bundle.manifest
    assert limits_from_manifest(manifest).max_frames == 128
    longer = replace(manifest, frames=replace(manifest.frames, num_frames=200))
    assert limits_from_manifest(longer).max_frames == 200


@pytest.mark.parametrize("shape", [(0, 4), (9, 4), (3, 5), (3,)])
def test_a_range_covers_only_what_lies_between(shape: tuple[int, ...]) -> None:
    assert not ShapeRange((1, 4), (2, 4), (8, 4)).covers(shape)


def test_no_frames_at_all_are_refused(reference_bundle) -> None:
    with pytest.raises(InputError, match="max_frames is 0; pass 1 or more"):
        limits_from_manifest(reference_bundle.manifest, 0)


def test_a_graph_with_an_unknown_axis_is_refused(reference_bundle) -> None:
    limits = limits_from_manifest(reference_bundle.manifest)
    with pytest.raises(BundleError, match=r"pixel_values has dynamic axes \['t'\], engines are"):
        profiles_of("vision", tiny_graphs.entry("vision", tiny_graphs.vision_graph()), limits)
