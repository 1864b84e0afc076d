"""Small random towers and decoders, what flows in them, and outliers as real models have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

from hicom_edge.calibration.graphs.linears import find_linears
from hicom_edge.calibration.scales.absorbers import smoothing_groups
from hicom_edge.export.decoder_graph import DecoderPlan, build_decoder_graph
from hicom_edge.export.export_options import CONCAT
from hicom_edge.export.opsets import CURRENT, Family, Precision
from hicom_edge.export.tower_nodes import TowerSizes
from hicom_edge.export.vision_graph import VisionPlan, build_vision_graph

OUTLIERS = 4
TIMES = 50.0

WIDTH, INNER, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 128, 256, 4, 2, 32, 64
SIDE, PATCH = 3, 4


@dataclass(frozen=True)
class Stored:
    """A tensor of a checkpoint that is already there."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def load(self) -> torch.Tensor:
        return self.tensor


@dataclass(frozen=True)
class Seen:
    """What was seen of one linear input."""

    amax: np.ndarray
    mean: np.ndarray
    rows: np.ndarray


class RandomWeights:
    """Tensors named as a checkpoint's: linears keep the scale of what goes through them."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.tensors: dict[str, Stored] = {}

    def linear(self, name: str, width_in: int, width_out: int, bias: bool = True) -> None:
        self._add(f"{name}.weight", (width_out, width_in), width_in**-0.5)
        if bias:
            self._add(f"{name}.bias", (width_out,), 0.1)

    def norm(self, name: str, bias: bool) -> None:
        self._add(f"{name}.weight", (WIDTH,), 0.1, 1.0)
        if bias:
            self._add(f"{name}.bias", (WIDTH,), 0.1)

    def _add(self, name: str, shape: tuple[int, ...], scale: float, mean: float = 0.0) -> None:
        values = self._rng.normal(mean, scale, shape).astype(np.float32)
        self.tensors[name] = Stored(torch.from_numpy(values))


def tiny_decoder(
    seed: int = 0,
    precision: Precision = Precision.FP32,
    family: Family = CURRENT,
    kv_heads: int = KV_HEADS,
    layers: int = 2,
    form: str = CONCAT,
) -> ir.Model:
    """A Qwen2 decoder with grouped heads and biases on q, k and v."""
    w = RandomWeights(seed)
    for index in range(layers):
        name = f"model.layers.{index}"
        w.norm(f"{name}.input_layernorm", bias=False)
        w.linear(f"{name}.self_attn.q_proj", WIDTH, HEADS * HEAD_DIM)
        w.linear(f"{name}.self_attn.k_proj", WIDTH, kv_heads * HEAD_DIM)
        w.linear(f"{name}.self_attn.v_proj", WIDTH, kv_heads * HEAD_DIM)
        w.linear(f"{name}.self_attn.o_proj", HEADS * HEAD_DIM, WIDTH, bias=False)
        w.norm(f"{name}.post_attention_layernorm", bias=False)
        w.linear(f"{name}.mlp.gate_proj", WIDTH, INNER, bias=False)
        w.linear(f"{name}.mlp.up_proj", WIDTH, INNER, bias=False)
        w.linear(f"{name}.mlp.down_proj", INNER, WIDTH, bias=False)
    w.norm("model.norm", bias=False)
    w.linear("lm_head", WIDTH, VOCAB, bias=False)
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    plan = DecoderPlan(
        WIDTH, layers, HEADS, kv_heads, HEAD_DIM, VOCAB, 64, 1e-6, "silu", False, rope
    )
    return build_decoder_graph(w.tensors, plan, precision, family, form)


def tiny_vision(
    seed: int = 0, precision: Precision = Precision.FP32, family: Family = CURRENT
) -> ir.Model:
    """A SigLIP tower of two layers with its pooling head's MLP."""
    w = RandomWeights(seed)
    values = np.random.default_rng(seed).normal(0, 0.2, (WIDTH, 3, PATCH, PATCH))
    convolution = torch.from_numpy(values.astype(np.float32))
    w.tensors["embeddings.patch_embedding.weight"] = Stored(convolution)
    w.linear("embeddings.position_embedding", WIDTH, SIDE**2, bias=False)
    for index in range(2):
        name = f"encoder.layers.{index}"
        w.norm(f"{name}.layer_norm1", bias=True)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            w.linear(f"{name}.self_attn.{part}", WIDTH, WIDTH)
        w.norm(f"{name}.layer_norm2", bias=True)
        w.linear(f"{name}.mlp.fc1", WIDTH, INNER)
        w.linear(f"{name}.mlp.fc2", INNER, WIDTH)
    for name in ("post_layernorm", "head.layernorm"):
        w.norm(name, bias=True)
    w.linear("head.mlp.fc1", WIDTH, INNER)
    w.linear("head.mlp.fc2", INNER, WIDTH)
    sizes = TowerSizes("siglip", WIDTH, 2, HEADS, "gelu_pytorch_tanh", 1e-6)
    plan = VisionPlan(sizes, SIDE * PATCH, PATCH, 1, True, WIDTH)
    return build_vision_graph(w.tensors, plan, precision, family)


def vision_feed(seed: int, frames: int = 4) -> dict[str, np.ndarray]:
    """Random pixels for `tiny_vision`."""
    shape = (frames, 3, SIDE * PATCH, SIDE * PATCH)
    return {"pixel_values": np.random.default_rng(seed).normal(size=shape).astype(np.float32)}


def decoder_feed(
    seed: int,
    length: int = 48,
    dtype: type[np.floating] = np.float32,
    kv_heads: int = KV_HEADS,
    layers: int = 2,
) -> dict[str, np.ndarray]:
    """A prefill of random embeddings for `tiny_decoder`, with logits wanted at every place."""
    empty = np.zeros((1, kv_heads, 0, HEAD_DIM), dtype)
    past = {f"past_key_values.{i}.{k}": empty for i in range(layers) for k in ("key", "value")}
    embeds = np.random.default_rng(seed).normal(size=(1, length, WIDTH)).astype(dtype)
    places = np.arange(length)
    positions = {"position_ids": places[None], "logit_indices": places}
    return {"inputs_embeds": embeds, **positions, "past_lengths": np.array([0]), **past}


def plant_outliers(model: ir.Model, seed: int) -> ir.Model:
    """A copy in which a few channels of every norm are TIMES as large as they were.

    The rows of the weights that read them are TIMES ** 0.5 smaller, so that these channels carry as
    much of the output as all others together, and do not drown them. It is another function than
    before, with the statistics of a large model's.
    """
    rng = np.random.default_rng(seed)
    planted = model.clone()
    for group in smoothing_groups(model):
        absorber = group.absorbed_by
        if absorber is None or "norm" not in absorber.parameters[0]:
            continue
        s = np.ones(WIDTH, np.float32)
        s[rng.choice(WIDTH, OUTLIERS, replace=False)] = TIMES
        _scale(planted, absorber.parameters[0], s)
        for linear in group.linears:
            _scale(planted, linear.weight, s[:, None] ** -0.5)
    return planted


def _scale(model: ir.Model, name: str, by: np.ndarray) -> None:
    value = model.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * by, name=name)


def run(
    model: ir.Model, feed: Mapping[str, np.ndarray], also: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """The outputs of a graph in ONNX Runtime, and tensors inside it, by name."""
    proto = ir.to_proto(model)
    known = {output.name for output in proto.graph.output} | set(feed)
    for name in dict.fromkeys(also):
        if name not in known:
            proto.graph.output.add(name=name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # By default 4-bit weights meet activations that are rounded to 8 bits on the way.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


def seen_inputs(model: ir.Model, feed: Mapping[str, np.ndarray]) -> dict[str, Seen]:
    """Statistics of every tensor that linears read."""
    wanted = [linear.input for linear in find_linears(model)]
    tensors = {**feed, **run(model, feed, wanted)}
    seen = {}
    for name in wanted:
        rows = tensors[name].reshape(-1, tensors[name].shape[-1]).astype(np.float32)
        seen[name] = Seen(np.abs(rows).max(0), np.abs(rows).mean(0), rows)
    return seen
