from __future__ import annotations

import pytest
import torch

from hicom_edge.export.guide_graph import build_guide_graph, plan_guide
from hicom_edge.export.opsets import CURRENT, Precision

EOS = 59


def text(length: int, end: int) -> torch.Tensor:
    """Random ids with the end of text at `end`."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(3, EOS - 1, (length,), generator=generator)
    ids[end] = EOS
    return ids


@pytest.mark.parametrize("length", [1, 7, 16])
def test_siglip_guide_is_the_head_of_the_last_position(siglip, form, run, assert_close, length):
    ids = text(length, 0)
    model = build_guide_graph(siglip.text_part, plan_guide(siglip.config, pooled=True), *form)
    guide = run(model, {"guide_input_ids": ids.numpy()})["guide"]
    assert_close("guide", guide, siglip.text(ids[None]).pooler_output[0], form[0])


def test_siglip_fine_guide_is_the_head_of_every_token(siglip, form, run, assert_close):
    ids = text(9, 3)
    model = build_guide_graph(siglip.text_part, plan_guide(siglip.config, pooled=False), *form)
    guide = run(model, {"guide_input_ids": ids.numpy()})["guide"]
    expected = siglip.text.head(siglip.text(ids[None]).last_hidden_state[0])
    assert_close("guide", guide, expected, form[0])


@pytest.mark.parametrize(("length", "end"), [(1, 0), (8, 7), (16, 5)])
def test_clip_guide_is_pooled_at_the_end_of_text(clip, form, run, assert_close, length, end):
    ids = text(length, end)
    model = build_guide_graph(clip.text_part, plan_guide(clip.config, pooled=True), *form)
    guide = run(model, {"guide_input_ids": ids.numpy()})["guide"]
    assert_close("guide", guide, clip.text(ids[None]).text_embeds[0], form[0])


def test_clip_fine_guide_projects_every_token(clip, form, run, assert_close):
    ids = text(6, 4)
    model = build_guide_graph(clip.text_part, plan_guide(clip.config, pooled=False), *form)
    guide = run(model, {"guide_input_ids": ids.numpy()})["guide"]
    expected = clip.text.text_projection(clip.text(ids[None]).last_hidden_state[0])
    assert_close("guide", guide, expected, form[0])


@pytest.mark.parametrize("eos_token_id", [2, EOS, 11])
def test_clip_pools_where_transformers_does(clip_with_eos, run, assert_close, eos_token_id):
    """An end-of-text id of 2 is the legacy one: the highest id counts. Padding may repeat it."""
    towers = clip_with_eos(eos_token_id)
    plan = plan_guide(towers.config, pooled=True)
    model = build_guide_graph(towers.text_part, plan, Precision.FP32, CURRENT)
    for ids in ([5, 9, EOS, 11, 11, 2, 2], [11, 7, 7, EOS, EOS, EOS], [8, 3, 2, 5, 11]):
        expected = towers.text(torch.tensor([ids])).text_embeds[0]
        guide = run(model, {"guide_input_ids": torch.tensor(ids).numpy()})["guide"]
        assert_close(f"guide of {ids}", guide, expected, Precision.FP32)


def test_siglip_attends_to_padding_as_in_training(siglip, run):
    """SigLIP sees no mask: a change after the pooled token's left neighbours changes the guide."""
    plan = plan_guide(siglip.config, pooled=False)
    model = build_guide_graph(siglip.text_part, plan, Precision.FP32, CURRENT)
    ids = text(8, 2)
    other = ids.clone()
    other[7] = 4
    first, second = (run(model, {"guide_input_ids": i.numpy()})["guide"] for i in (ids, other))
    assert abs(first[0] - second[0]).max() > 1e-4
