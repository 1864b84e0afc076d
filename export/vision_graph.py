"""The vision graph: pixel values → features V, and embeddings E when a guide is used.

The vision towers of SigLIP and of CLIP are supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch

from hicom_edge.errors import ExportError
from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.opsets import Family, Precision
from hicom_edge.export.tower_nodes import TowerSizes, encoder_layer, mlp, tower_sizes
from hicom_edge.export.weights import WeightSource


@dataclass(frozen=True)
class VisionPlan:
    """Sizes of the tower, and the hidden state that becomes the features."""

    sizes: TowerSizes
    image_size: int
    patch_size: int
    feature_layer: int
    embeddings: bool
    embedding_dim: int

    @property
    def side(self) -> int:
        """Patches per side of the grid."""
        return self.image_size // self.patch_size

    @property
    def num_layers(self) -> int:
        """Layers to export: without embeddings, those after the features are not used."""
        return self.sizes.num_layers if self.embeddings else self.feature_layer


def plan_vision(
    tower_config: Mapping[str, Any], select_layer: int, select_feature: str, embeddings: bool
) -> VisionPlan:
    """Read the sizes of the tower and the layer of the features.

    `select_layer` indexes the hidden states as in Python: 0 is the embedded patches, -1 the last
    layer's output.

    Raises:
        ExportError: a layer that does not exist, or features other than those of the patches.
    """
    sizes, vision = tower_sizes(tower_config, "vision_config"), tower_config["vision_config"]
    count = sizes.num_layers
    if not -count - 1 <= select_layer <= count:
        raise ExportError(
            f"mm_vision_select_layer is {select_layer}; expected a hidden state of the tower, "
            f"{-count - 1} to {count}; correct config.json"
        )
    if select_feature != "patch":
        raise ExportError(f"mm_vision_select_feature is {select_feature!r}; expected 'patch'")
    clip = sizes.family == "clip"
    return VisionPlan(
        sizes=sizes,
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        feature_layer=select_layer % (count + 1),
        embeddings=embeddings,
        embedding_dim=tower_config["projection_dim"] if clip else sizes.hidden_size,
    )


def build_vision_graph(
    weights: Mapping[str, WeightSource], plan: VisionPlan, precision: Precision, family: Family
) -> ir.Model:
    """pixel_values (t, 3, S, S) float32 → features (t, h, w, Dv), embeddings (t, h, w, Dt)."""
    b = GraphBuilder("vision", precision, family, weights)
    size = plan.image_size
    pixels = b.input("pixel_values", ir.DataType.FLOAT, ("num_frames", 3, size, size))
    states = [_embed_patches(b, b.from_float32(pixels), plan)]
    for index in range(plan.num_layers):
        states.append(encoder_layer(b, states[-1], index, plan.sizes))
    features = _patches(b, states[plan.feature_layer], plan)
    _output_map(b, "features", features, plan.side, plan.sizes.hidden_size)
    if plan.embeddings:
        embeddings = _embeddings(b, states[-1], plan)
        _output_map(b, "embeddings", embeddings, plan.side, plan.embedding_dim)
    return b.build()


def _embed_patches(b: GraphBuilder, pixels: ir.Value, plan: VisionPlan) -> ir.Value:
    """(t, 3, S, S) → (t, tokens, hidden_size); CLIP has a class token in front."""
    count, width, patch = plan.side**2, plan.sizes.hidden_size, plan.patch_size
    name = "embeddings.patch_embedding"
    inputs = [pixels, b.weight(f"{name}.weight")]
    if b.has_weight(f"{name}.bias"):
        inputs.append(b.weight(f"{name}.bias"))
    with b.scope("embeddings"):
        x = b.op("Conv", *inputs, kernel_shape=(patch, patch), strides=(patch, patch))
        x = b.op("Transpose", b.reshape(x, (0, width, count)), perm=(0, 2, 1))
        if plan.sizes.family == "siglip":
            return b.op("Add", x, b.weight("embeddings.position_embedding.weight"))
        x = b.op("Add", _room_for_class_token(b, x), _clip_positions(b))
    return b.layer_norm(x, "pre_layrnorm", plan.sizes.layer_norm_eps)


def _room_for_class_token(b: GraphBuilder, x: ir.Value) -> ir.Value:
    """Add a row of zeros before the patches; the class token is part of the position table."""
    return b.op("Pad", x, b.constant((0, 1, 0, 0, 0, 0)))


def _clip_positions(b: GraphBuilder) -> ir.Value:
    def combine(positions: torch.Tensor, class_token: torch.Tensor) -> torch.Tensor:
        first = positions[:1] + class_token
        return torch.cat([first, positions[1:]])

    sources = ("embeddings.position_embedding.weight", "embeddings.class_embedding")
    return b.derived_weight("embeddings.positions_with_class_token", sources, combine)


def _embeddings(b: GraphBuilder, last: ir.Value, plan: VisionPlan) -> ir.Value:
    """SigLIP's pooling-head MLP, or CLIP's projection, on every patch of the last layer.

    transformers applies the final norm to SigLIP's last_hidden_state, but not to CLIP's.
    """
    if plan.sizes.family == "clip":
        return b.linear(_patches(b, last, plan), "visual_projection")
    x = b.layer_norm(last, "post_layernorm", plan.sizes.layer_norm_eps)
    normed = b.layer_norm(x, "head.layernorm", plan.sizes.layer_norm_eps)
    return b.op("Add", x, mlp(b, normed, "head.mlp", plan.sizes.hidden_act))


def _patches(b: GraphBuilder, x: ir.Value, plan: VisionPlan) -> ir.Value:
    """Drop CLIP's class token."""
    if plan.sizes.family == "siglip":
        return x
    starts, ends = b.constant((1,)), b.constant((plan.side**2 + 1,))
    return b.op("Slice", x, starts, ends, b.constant((1,)))


def _output_map(b: GraphBuilder, name: str, x: ir.Value, side: int, width: int) -> None:
    b.output(name, b.reshape(x, (0, side, side, width)), ("num_frames", side, side, width))
