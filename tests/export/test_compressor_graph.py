"""The compressor graph, in its cheap algebra, against the plain form in PyTorch."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor

from hicom_edge.export.compressor_graph import build_compressor_graph, image_graph_differs
from hicom_edge.export.opsets import CURRENT, PLAIN, Family, Precision
from hicom_edge.model import Compressor, HicomConfig
from hicom_edge.model.hicom import build_compressor_from
from hicom_edge.model.stored_tensors import StoredTensor

DIM, LLM_DIM = 128, 48
FRAME_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 13)
# relative to the largest token: the order of float32 sums differs between the two forms
TOLERANCE = {Precision.FP32: 5e-6, Precision.FP16: 1e-2}

PROJECTORS = [
    ("local43_global32_coarse", "direct"),
    ("local43_guidedirect_global32_guidecoarse", "direct"),
    ("local43_guideoff_global8", "direct"),
    ("local43_adaptkvg_global8_adaptg", "direct"),
    ("local43_adaptqkvg_global8_adaptg", "coarse"),
    ("local43_adaptqkvg_global8_adaptg", "fine"),
    ("local43_adaptqkv_global8", None),
    ("local412_global8", "coarse"),
    ("local22", "off"),
    ("global32", "coarse"),
    ("linear", None),
    ("mlp2x_gelu", None),
    ("avgpool423", "off"),
    ("resampler12", "off"),
]


def tower_config(side: int, clip_dim: int | None = None) -> dict:
    sizes = {"hidden_size": DIM, "num_hidden_layers": 1, "num_attention_heads": 4}
    vision = sizes | {"image_size": 14 * side, "patch_size": 14, "intermediate_size": 32}
    text = sizes | {"vocab_size": 50000, "intermediate_size": 32}
    if clip_dim is None:
        return {"model_type": "siglip", "vision_config": vision, "text_config": text}
    return {
        "model_type": "clip",
        "vision_config": vision,
        "text_config": text,
        "projection_dim": clip_dim,
    }


def random_compressor(projector: str, use_guide: str | None, tower: dict, **config: str):
    """A compressor with weights that matter everywhere, and what the graph builder reads of it."""
    values = {
        "model_type": "hicom_qwen2",
        "hidden_size": LLM_DIM,
        "mm_projector_type": projector,
        "use_guide": use_guide,
        "mm_newline_position": "no_token",
        "mm_patch_merge_type": "spatial_unpad",
    } | config
    hicom = HicomConfig(values, tower)
    sizes = hicom.sizes
    compressor = build_compressor_from(hicom, sizes.vision_dim, sizes.joint_dim).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in compressor.named_parameters():
            noise = torch.randn_like(parameter)
            if "alpha" in name:
                parameter.fill_(0.3)
            elif "logit_scale" in name:
                parameter.fill_(1.2)
            elif "norm.weight" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.ndim == 2 and "query" not in name:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)
            else:
                parameter.copy_(0.7 * noise)
    stored = {
        name: StoredTensor(tuple(t.shape), t.dtype, lambda t=t: t)
        for name, t in compressor.state_dict().items()
    }
    checkpoint = SimpleNamespace(
        hicom=hicom,
        spec=hicom.projector,
        config=values,
        uses_guide=hicom.uses_guide,
        part=lambda _: stored,
    )
    return checkpoint, compressor


def session(checkpoint, precision: Precision, family: Family, modality: str = "video"):
    model = build_compressor_graph(checkpoint, precision, family, modality)
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def random_inputs(compressor: Compressor, checkpoint, frames: int, side: int) -> list:
    sizes = checkpoint.hicom.sizes
    torch.manual_seed(frames)
    features = torch.randn(frames, side, side, sizes.vision_dim)
    if not checkpoint.uses_guide:
        return [features, None, None]
    tokens = (16,) if checkpoint.hicom.use_guide == "fine" else ()
    embeddings = torch.randn(frames, side, side, sizes.joint_dim)
    return [features, embeddings, torch.randn(*tokens, sizes.joint_dim)]


def run(graph, precision: Precision, tensors: list[Tensor | None]) -> Tensor:
    given = dict(zip(("features", "embeddings", "guide"), tensors))
    feed = {i.name: given[i.name].numpy().astype(precision.numpy) for i in graph.get_inputs()}
    return torch.from_numpy(graph.run(None, feed)[0].astype(np.float32))


def assert_equal(found: Tensor, expected: Tensor, tolerance: float, what: object) -> None:
    assert found.shape == expected.shape, what
    error = (found - expected).abs() / expected.abs().max()
    assert error.max() <= tolerance, f"{what}: largest {error.max():.1e}, mean {error.mean():.1e}"


@pytest.mark.parametrize("clip_scale", ["", "local,global"])
@pytest.mark.parametrize(
    ("precision", "family", "side"),
    [
        (Precision.FP32, CURRENT, 9),
        (Precision.FP32, PLAIN, 7),
        (Precision.FP32, CURRENT, 4),
        (Precision.FP16, PLAIN, 9),
    ],
    ids=["fp32-9x9", "fp32-plain-7x7", "fp32-4x4", "fp16-plain-9x9"],
)
@pytest.mark.parametrize(("projector", "use_guide"), PROJECTORS)
@torch.no_grad()
def test_the_graph_is_the_compressor_for_every_frame_count(
    projector: str, use_guide: str | None, precision, family, side: int, clip_scale: str
) -> None:
    if clip_scale and use_guide in (None, "off"):
        pytest.skip("clip scale belongs to a guide: without one the scores are not normalised")
    checkpoint, compressor = random_compressor(
        projector, use_guide, tower_config(side), use_clip_scale=clip_scale
    )
    graph = session(checkpoint, precision, family)
    for frames in FRAME_COUNTS:
        inputs = random_inputs(compressor, checkpoint, frames, side)
        found = run(graph, precision, inputs)
        assert_equal(found, compressor(*inputs), TOLERANCE[precision], f"{frames} frames")


@torch.no_grad()
def test_a_joint_space_of_another_size_than_the_features() -> None:
    checkpoint, compressor = random_compressor(
        "local43_global32", "direct", tower_config(6, clip_dim=96)
    )
    inputs = random_inputs(compressor, checkpoint, 6, 6)
    found = run(session(checkpoint, Precision.FP32, CURRENT), Precision.FP32, inputs)
    assert_equal(found, compressor(*inputs), 5e-6, "clip")


@pytest.mark.parametrize("position", ["grid", "frame", "one_token"])
@pytest.mark.parametrize("projector", ["local43_global8", "linear"])
@pytest.mark.parametrize("modality", ["video", "image"])
@torch.no_grad()
def test_newline_tokens_stand_where_the_layout_says(
    projector: str, position: str, modality: str
) -> None:
    checkpoint, compressor = random_compressor(
        projector,
        "direct" if projector != "linear" else None,
        tower_config(6),
        mm_newline_position=position,
        image_aspect_ratio="anyres",
    )
    for frames in (1,) if modality == "image" else (1, 5, 8):
        inputs = random_inputs(compressor, checkpoint, frames, 6)
        graph = session(checkpoint, Precision.FP32, CURRENT, modality)
        found = run(graph, Precision.FP32, inputs)
        assert_equal(found, compressor(*inputs, modality=modality), 5e-6, f"{frames} frames")


@pytest.mark.parametrize(
    ("projector", "differs"),
    [("local43_global32", False), ("mlp2x_gelu", True), ("avgpool43", False)],
)
def test_only_2x2_pooling_needs_a_graph_of_its_own_for_images(
    projector: str, differs: bool
) -> None:
    checkpoint, _ = random_compressor(projector, None, tower_config(6))
    assert image_graph_differs(checkpoint) is differs


def test_inputs_that_the_model_does_not_look_at_are_left_out() -> None:
    def names(projector: str, guide: str | None) -> list[str]:
        checkpoint, _ = random_compressor(projector, guide, tower_config(6))
        model = build_compressor_graph(checkpoint, Precision.FP32, CURRENT)
        return [value.name for value in model.graph.inputs]

    assert names("local43_global32", "direct") == ["features", "embeddings", "guide"]
    assert names("global32", "coarse") == ["features", "guide"]
    assert names("local43_global32", "off") == ["features"]


def test_direct_injection_computes_one_global_query() -> None:
    checkpoint, _ = random_compressor("local43_global32", "direct", tower_config(9))
    model = build_compressor_graph(checkpoint, Precision.FP32, CURRENT)
    assert "global_compressor.query" not in model.graph.initializers


def test_the_grouped_attention_node_carries_what_a_plugin_needs() -> None:
    checkpoint, _ = random_compressor("local43_global32", "direct", tower_config(9))
    model = build_compressor_graph(checkpoint, Precision.FP32, CURRENT)
    (node,) = [n for n in model.graph if n.domain == "hicom.edge"]
    assert node.op_type == "GroupedAttention"
    assert list(node.attributes["kernel"].value) == [4, 3, 3]
    assert node.attributes["scale"].value == pytest.approx(DIM**-0.5)
    assert node.attributes["plugin_version"].value == "1"
    assert node.attributes["plugin_namespace"].value == "hicom.edge"
    assert [f.name for f in model.functions.values()] == ["GroupedAttention"]


@torch.no_grad()
def test_frames_beyond_the_first_table_keep_exact_positions() -> None:
    checkpoint, compressor = random_compressor("global4", "off", tower_config(1))
    inputs = random_inputs(compressor, checkpoint, 700, 1)
    found = run(session(checkpoint, Precision.FP32, CURRENT), Precision.FP32, inputs)
    assert_equal(found, compressor(*inputs), 5e-6, "700 frames")
