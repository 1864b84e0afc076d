from __future__ import annotations

import numpy as np
import pytest
import torch

from hicom_edge.errors import ExportError
from hicom_edge.export.opsets import CURRENT, Precision
from hicom_edge.export.vision_graph import build_vision_graph, plan_vision


def frames(num_frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_frames)
    return torch.randn(num_frames, 3, 42, 42, generator=generator)


def layers_of(model) -> set[str]:
    names = model.graph.initializers
    return {name.split(".")[2] for name in names if name.startswith("encoder.layers.")}


@pytest.mark.parametrize("select_layer", [-2, -1, 1, 0])
def test_siglip_maps_equal_transformers(siglip, form, run, assert_close, select_layer):
    plan = plan_vision(siglip.config, select_layer, "patch", embeddings=True)
    model = build_vision_graph(siglip.vision_part, plan, *form)
    for num_frames in (1, 3):
        pixels = frames(num_frames)
        maps = run(model, {"pixel_values": pixels.numpy()})
        out = siglip.vision(pixels, output_hidden_states=True)
        x, head = out.last_hidden_state, siglip.vision.head
        grid = (num_frames, 3, 3, 48)
        features = out.hidden_states[select_layer].reshape(grid)
        assert_close("features", maps["features"], features, form[0])
        embeddings = (x + head.mlp(head.layernorm(x))).reshape(grid)
        assert_close("embeddings", maps["embeddings"], embeddings, form[0])
        assert maps["features"].dtype == maps["embeddings"].dtype == form[0].numpy


@pytest.mark.parametrize("select_layer", [-2, 2])
def test_clip_maps_leave_the_class_token_out(clip, form, run, assert_close, select_layer):
    plan = plan_vision(clip.config, select_layer, "patch", embeddings=True)
    model = build_vision_graph(clip.vision_part, plan, *form)
    pixels = frames(2)
    maps = run(model, {"pixel_values": pixels.numpy()})
    out = clip.vision(pixels, output_hidden_states=True)
    features = out.hidden_states[select_layer][:, 1:].reshape(2, 3, 3, 48)
    assert_close("features", maps["features"], features, form[0])
    embeddings = clip.vision.visual_projection(out.last_hidden_state[:, 1:]).reshape(2, 3, 3, 56)
    assert_close("embeddings", maps["embeddings"], embeddings, form[0])


def test_without_a_guide_layers_after_the_features_are_not_exported(siglip):
    plan = plan_vision(siglip.config, -2, "patch", embeddings=False)
    model = build_vision_graph(siglip.vision_part, plan, Precision.FP32, CURRENT)
    assert layers_of(model) == {"0", "1"}
    assert [output.name for output in model.graph.outputs] == ["features"]
    assert not any(name.startswith(("head.", "post_")) for name in model.graph.initializers)


def test_with_a_guide_all_layers_are_exported_and_the_pooling_probe_is_not(siglip):
    plan = plan_vision(siglip.config, -2, "patch", embeddings=True)
    model = build_vision_graph(siglip.vision_part, plan, Precision.FP32, CURRENT)
    assert layers_of(model) == {"0", "1", "2"}
    assert "head.probe" not in model.graph.initializers


def test_frames_do_not_influence_each_other(siglip, run):
    plan = plan_vision(siglip.config, -2, "patch", embeddings=True)
    model = build_vision_graph(siglip.vision_part, plan, Precision.FP32, CURRENT)
    pixels = frames(3).numpy()
    together = run(model, {"pixel_values": pixels})["embeddings"]
    alone = run(model, {"pixel_values": pixels[1:2]})["embeddings"]
    np.testing.assert_allclose(together[1:2], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("select_layer", [4, -5])
def test_a_layer_that_does_not_exist_is_refused(siglip, select_layer):
    message = (
        rf"mm_vision_select_layer is {select_layer}; expected a hidden state of the tower, -4 to 3"
    )
    with pytest.raises(ExportError, match=message):
        plan_vision(siglip.config, select_layer, "patch", embeddings=True)


def test_only_patch_features_are_handled(siglip):
    with pytest.raises(ExportError, match="mm_vision_select_feature is 'cls_patch'"):
        plan_vision(siglip.config, -2, "cls_patch", embeddings=True)


def test_a_foreign_tower_is_refused(siglip):
    with pytest.raises(ExportError, match="model_type is 'dinov2'; expected siglip, clip"):
        plan_vision({**siglip.config, "model_type": "dinov2"}, -2, "patch", embeddings=False)
