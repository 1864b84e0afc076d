"""Every compressor of the reference, within the tolerance that the reference states."""

from __future__ import annotations

import functools

import pytest
import torch
from reference_data import COMPONENTS, ComponentCase, component, component_cases, read_json

from hicom_edge.errors import InputError
from hicom_edge.model.compressor import build_compressor
from hicom_edge.model.projector_type import parse_projector_type

TOLERANCE = 2e-5  # of the largest output: the reference's own statement for float32

CASES = [case for group in COMPONENTS for case in component_cases(group)]
cached_component = functools.lru_cache(maxsize=None)(component)


@pytest.mark.parametrize("case", CASES, ids=str)
@torch.no_grad()
def test_compressor_equals_the_authors(case: ComponentCase) -> None:
    compressor = cached_component(case.group, case.values["model"])
    tokens = compressor(
        case.argument("frames_feature"),
        case.argument("frames_embed"),
        case.argument("guide_embed"),
        case.values["args"]["modal"],
        case.argument("image_newline"),
    )
    expected = case.expected
    assert tokens.shape == expected.shape
    error = (tokens - expected).abs()
    scale = expected.abs().max()
    assert error.max() <= TOLERANCE * scale, (
        f"{case}: largest difference {error.max() / scale:.1e}, mean {error.mean() / scale:.1e}"
    )


@pytest.mark.parametrize("name", ["direct", "coarse"])
def test_a_batch_is_its_videos_one_by_one(name: str) -> None:
    compressor = cached_component("local", name)
    generator = torch.Generator().manual_seed(0)
    features, embeddings = torch.randn(2, 3, 5, 7, 9, 64, generator=generator)
    guide = torch.randn(3, 64, generator=generator)
    with torch.no_grad():
        together = compressor(features, embeddings, guide)
        alone = [compressor(f, e, g) for f, e, g in zip(features, embeddings, guide)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "use_guide"),
    [
        ("local43_global4", "direct"),
        ("local43adaptqkvg_global4adaptg", "coarse"),
        ("local43_global4", "fine"),
    ],
)
@torch.no_grad()
def test_several_questions_about_each_video_are_those_questions_one_by_one(
    kind: str, use_guide: str
) -> None:
    torch.manual_seed(0)
    compressor = build_compressor(kind, use_guide, 128, 128, 32, newline_position="no_token")
    for parameter in compressor.parameters():
        parameter.normal_(std=0.2)
    features, embeddings = torch.randn(2, 3, 5, 7, 9, 128)
    guide = torch.randn(3 * 2, 6, 128) if use_guide == "fine" else torch.randn(3 * 2, 128)
    together = compressor(features, embeddings, guide)
    alone = [compressor(features[i // 2], embeddings[i // 2], guide[i]) for i in range(6)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_as_many_questions_about_every_video_are_needed() -> None:
    compressor = build_compressor("local43_global4", "direct", 128, 128, 32)
    features, embeddings = torch.randn(2, 3, 5, 7, 9, 128)
    with pytest.raises(InputError, match=r"4 guides for 3 videos, expected as many for every"):
        compressor(features, embeddings, torch.randn(4, 128))


def frame_counts_where_the_authors_fail() -> list[dict]:
    return [e for e in read_json("components/local.json")["errors"] if e["model"] == "direct"]


@pytest.mark.parametrize("case", frame_counts_where_the_authors_fail(), ids=lambda c: c["name"])
@torch.no_grad()
def test_grids_where_the_authors_code_fails_are_answered(case: dict) -> None:
    t, h, w = case["T"], case["H"], case["W"]
    features, embeddings = torch.randn(2, t, h, w, 64)
    tokens = cached_component("local", "direct")(features, embeddings, torch.randn(64))
    windows = -(-t // 4) * -(-h // 3) * -(-w // 3)
    assert tokens.shape == (windows, 48)
    assert tokens.isfinite().all()


@torch.no_grad()
def test_direct_injection_makes_all_global_tokens_equal() -> None:
    tokens = cached_component("projector", "release")(
        torch.randn(8, 9, 9, 128), torch.randn(8, 9, 9, 128), torch.randn(128)
    )
    global_tokens = tokens[-32:]
    assert (global_tokens == global_tokens[0]).all()
    assert not (tokens[0] == tokens[1]).all()


def test_an_unknown_injection_is_refused_by_name() -> None:
    from hicom_edge.model import build_compressor

    compressor = build_compressor("local43_guidenone", "direct", 64, 64, 48)
    with pytest.raises(InputError, match=r"injection 'none', expected one of \['direct'"):
        compressor(torch.zeros(1, 9, 9, 64), torch.zeros(1, 9, 9, 64), torch.zeros(64))


def test_pooled_guide_under_fine_injection_is_refused() -> None:
    compressor = cached_component("local", "fine")
    features = torch.zeros(1, 9, 9, 128)
    with pytest.raises(InputError, match=r"fine injection got a guide of .* expected \(l, d\)"):
        compressor(features, features, torch.zeros(128))


def test_token_counts_are_the_papers() -> None:
    for case in read_json("components/token_counts.json"):
        if not isinstance(case["tokens"], int):
            continue
        spec = parse_projector_type(case["mm_projector_type"], "direct")
        count = 0
        if spec.local is not None:
            kt = 1 if case["modal"] == "image" or case["T"] == 1 else spec.local.temporal_kernel
            count += -(-case["T"] // kt) * (-(-27 // spec.local.spatial_kernel)) ** 2
        if spec.global_ is not None:
            count += spec.global_.num_queries
        assert count == case["tokens"], case
