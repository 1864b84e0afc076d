"""The whole PyTorch model against the authors': visual tokens, prefill logits, greedy tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from reference_data import (
    EndToEndCase,
    end_to_end_cases,
    pixel_values,
    read_arrays,
    read_json,
    reference_dir,
)

from hicom_edge.model import HicomModel, load_checkpoint

LOGITS_TOLERANCE = 2e-4  # absolute; the logits' standard deviation is 3.8
TOKENS_TOLERANCE = 2e-5  # of the largest visual token

CASES = end_to_end_cases()


@pytest.fixture(scope="module")
def model_of(variant_checkpoint: Callable[[str], Path]) -> Callable[[str], HicomModel]:
    return lru_cache(maxsize=2)(lambda name: load_checkpoint(variant_checkpoint(name)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_model_equals_the_authors(case: EndToEndCase, model_of: Callable) -> None:
    model = model_of(case.config)
    visual_tokens = [
        model.visual_tokens(pixel_values(frames), guide, modality)
        for frames, guide, modality in zip(case.videos, case.guide_input_ids, case.modalities)
    ]
    if len(visual_tokens) == 1:
        expected = case.array("visual_tokens")
        error = (visual_tokens[0] - expected).abs().max() / expected.abs().max()
        assert error <= TOKENS_TOLERANCE, f"visual tokens: largest difference {error:.1e}"

    input_ids = torch.tensor(case.values["input_ids"])
    expected = case.array("prefill_logits")
    logits = model.logits(input_ids, visual_tokens)[-len(expected) :]
    error = (logits - expected).abs().max()
    assert error <= LOGITS_TOLERANCE, f"prefill logits: largest difference {error:.1e}"
    assert_greedy_tokens(model, case, input_ids, visual_tokens)


def assert_greedy_tokens(model, case, input_ids, visual_tokens) -> None:
    for name, penalty in (("greedy_default", None), ("greedy_rep1", 1.0)):
        if name in case.values:
            expected = case.values[name]["tokens"]
            tokens = model.generate(
                input_ids,
                visual_tokens,
                max_new_tokens=len(expected),
                repetition_penalty=penalty,
            )
            assert tokens == expected, name


def towers() -> list[dict]:
    return read_json("e2e/small_release.json")["towers"]


@pytest.mark.parametrize("tower", towers(), ids=lambda t: t["key"])
@torch.no_grad()
def test_the_towers_equal_the_authors(tower: dict, model_of: Callable) -> None:
    arrays = read_arrays("e2e/small_release.npz")
    model = model_of("release")
    features, embeddings = model.vision_tower(pixel_values(arrays[tower["frames"]]))
    guide = model.guide_encoder(torch.tensor(tower["guide_input_ids"]))
    found = {"image_features": features, "image_embeds": embeddings, "text_embeds": guide}
    for name, value in found.items():
        expected = torch.from_numpy(arrays[f"{tower['key']}/{name}"])
        error = (value - expected).abs().max() / expected.abs().max()
        assert error <= TOKENS_TOLERANCE, f"{name}: largest difference {error:.1e}"


def test_a_prompt_of_text_alone_needs_no_video(model_of: Callable) -> None:
    cases = {c["key"]: c for c in read_json("e2e/small_release.json")["cases"]}
    if "release/text_only" not in cases:
        pytest.skip(f"{reference_dir()} has no text-only case")
    case = cases["release/text_only"]
    expected = torch.from_numpy(
        read_arrays("e2e/small_release.npz")["release/text_only/prefill_logits"]
    )
    logits = model_of("release").logits(torch.tensor(case["input_ids"]))
    assert (logits[-len(expected) :] - expected).abs().max() <= LOGITS_TOLERANCE
