"""The limits follow from the manifest: visual tokens, room for a question, the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_graphs import tiny_manifest

from hicom_edge.bundle.manifest import Manifest
from hicom_edge.errors import InputError
from hicom_edge.planning.llm.limits import llm_limits


@pytest.fixture
def manifest() -> Manifest:
    """The released geometry: 27 x 27 patches, kernel 4 x 3 x 3, 32 global tokens."""
    tiny = tiny_manifest({})
    model = replace(tiny.model, grid=(27, 27), max_context=32768)
    return replace(tiny, model=model)


@pytest.mark.parametrize(("frames", "visual"), [(32, 680), (64, 1328), (128, 2624)])
def test_the_prompt_holds_the_papers_visual_tokens(manifest, frames: int, visual: int) -> None:
    limits = llm_limits(manifest, max_frames=frames)
    assert limits.max_input_len == visual + 512
    assert limits.max_seq_len == limits.max_input_len + 512


def test_every_question_has_its_own_table_and_a_step_beside_a_prefill(manifest) -> None:
    one, four = (llm_limits(manifest, 32, max_batch_size=n) for n in (1, 4))
    assert four.max_multimodal_len == 4 * one.max_multimodal_len == 4 * one.max_input_len
    assert (one.max_num_tokens, four.max_num_tokens) == (one.max_input_len, one.max_input_len + 3)


def test_a_long_answer_makes_the_sequence_longer(manifest) -> None:
    short, long = llm_limits(manifest, 32, 1), llm_limits(manifest, 32, 1000)
    assert long.max_seq_len - short.max_seq_len == 999
    assert long.max_input_len == short.max_input_len


def test_a_short_context_takes_room_from_the_text_not_from_the_video(manifest) -> None:
    model = replace(manifest.model, max_context=1000)
    limits = llm_limits(replace(manifest, model=model), 32)
    assert limits.max_seq_len == 1000
    assert limits.max_input_len - 680 == limits.max_seq_len - limits.max_input_len == 160


def test_what_the_context_does_not_hold_is_refused(manifest) -> None:
    small = replace(manifest, model=replace(manifest.model, max_context=700))
    with pytest.raises(InputError, match=r"128 frames make 2624 visual tokens.*context of 700"):
        llm_limits(small)
    with pytest.raises(InputError, match=r"max_batch_size is 0; pass 1 or more"):
        llm_limits(manifest, max_batch_size=0)
