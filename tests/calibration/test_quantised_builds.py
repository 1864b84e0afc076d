"""Every quantised graph builds in TensorRT: all dtypes, families and forms, real sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from hicom_edge.calibration.calibrate import calibrate
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.graphs.int8 import quantise_int8
from hicom_edge.calibration.graphs.linears import find_linears, quantisable
from hicom_edge.calibration.graphs.weight_only import quantise_blocks
from hicom_edge.engines.tensorrt.api import TENSORRT_RTX, load_api, why_not_installed
from hicom_edge.engines.tensorrt.build import BuildOptions, build_engines
from hicom_edge.engines.tensorrt.logger import logger_of
from hicom_edge.engines.tensorrt.network import (
    BuilderSettings,
    builder_config,
    parse_network,
    write_engine,
)
from hicom_edge.engines.tensorrt.parser_input import model_for_parser
from hicom_edge.export.decoder_graph import build_decoder_graph, plan_decoder
from hicom_edge.export.export_options import OnnxDecoderOptions
from hicom_edge.export.opsets import CURRENT, Precision
from hicom_edge.export.save import graph_entry
from hicom_edge.export.tower_nodes import TowerSizes
from hicom_edge.export.vision_graph import VisionPlan, build_vision_graph
from hicom_edge.planning.decoder_form import CONCAT_GRAPH, DECODER_GRAPHS, SCATTER_GRAPH
from hicom_edge.planning.profiles import Limits, profiles_of
from hicom_edge.progress import no_progress

pytestmark = [
    pytest.mark.slow,
    pytest.mark.tensorrt,
    pytest.mark.skipif(
        why_not_installed(TENSORRT_RTX) is not None,
        reason="TensorRT-RTX is not installed (pip install '.[tensorrt-rtx]')",
    ),
]
SIDE, PATCH, WIDTH, INNER, HEADS = 27, 14, 1152, 4304, 16  # SigLIP so400m
LIMITS = Limits(32, 128, 64, 808, 3136, 3648)


@dataclass(frozen=True)
class Drawn:
    """A weight that is made when it is read: random numbers, over and over."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def load(self) -> torch.Tensor:
        numbers = np.random.default_rng(self.shape).standard_normal(65_537, np.float32)
        return torch.from_numpy(np.resize(numbers * np.float32(0.02), self.shape))


@pytest.mark.parametrize(
    ("dtype", "opset", "decoder", "block", "form"),
    [
        ("fp32", 23, "int8", 32, "concat"),
        ("fp32", 20, "int4", 128, "concat"),
        ("fp16", 23, "int4", 32, "scatter"),
        ("fp16", 20, "int8", 32, "scatter"),
    ],
)
def test_a_calibrated_bundle_builds(
    variant_bundle,
    little_data: CalibrationData,
    tmp_path: Path,
    dtype: str,
    opset: int,
    decoder: str,
    block: int,
    form: str,
) -> None:
    """Also with the output layer quantised, and with factors folded in."""
    language_model = OnnxDecoderOptions(form)
    bundle = variant_bundle("release", dtype=dtype, opset=opset, language_model=language_model)
    options = CalibrationOptions(decoder=decoder, block=block, lm_head=True)
    data = CalibrationData(little_data.calibration[:1], little_data.held_out[:1])
    done = calibrate(bundle, tmp_path / "out", data, options).bundle
    assert None not in {entry.quantization for entry in done.manifest.graphs.values()}
    built = build_engines(done, BuildOptions(TENSORRT_RTX.name, max_frames=8))
    others = [name for name in done.manifest.graphs if name not in DECODER_GRAPHS]
    last = SCATTER_GRAPH if form == "scatter" else CONCAT_GRAPH
    assert [engine.graph for engine in built] == [*others, last]


def test_a_vision_layer_of_real_size_builds_in_int8(tmp_path: Path) -> None:
    sizes = TowerSizes("siglip", WIDTH, 1, HEADS, "gelu_pytorch_tanh", 1e-6)
    plan = VisionPlan(sizes, SIDE * PATCH, PATCH, 1, True, WIDTH)
    model = build_vision_graph(vision_weights(), plan, Precision.FP16, CURRENT)
    assert_builds("vision", in_int8("vision", model), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["int8", "int4"])
def test_a_decoder_layer_of_real_size_builds(tmp_path: Path, form: str) -> None:
    """One layer of Qwen2.5 7B; the vocabulary is small, for the output layer stays as it is."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=1,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=64,
    )
    with torch.device("meta"):
        tensors = Qwen2ForCausalLM(config).state_dict()
    weights = {name: Drawn(tuple(tensor.shape)) for name, tensor in tensors.items()}
    plan = plan_decoder(config.to_dict(), weights)
    model = build_decoder_graph(weights, plan, Precision.FP16, CURRENT)
    names = [linear.name for linear in quantisable("decoder", find_linears(model))]
    assert len(names) == 7
    if form == "int8":
        quantised = in_int8("decoder", model)
    else:
        quantised = quantise_blocks(model, names, bits=4, block=128)
    assert_builds("decoder", quantised, tmp_path)


def in_int8(graph: str, model: ir.Model) -> ir.Model:
    linears = quantisable(graph, find_linears(model))
    names = [linear.name for linear in linears]
    return quantise_int8(model, {linear.input: 4.0 for linear in linears}, names)


def vision_weights() -> dict[str, Drawn]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embedding.bias": (WIDTH,),
        "embeddings.position_embedding.weight": (SIDE * SIDE, WIDTH),
    }
    layer = "encoder.layers.0"
    norms = ("post_layernorm", "head.layernorm", f"{layer}.layer_norm1", f"{layer}.layer_norm2")
    for norm in norms:
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
        name = f"{layer}.self_attn.{part}"
        shapes |= {f"{name}.weight": (WIDTH, WIDTH), f"{name}.bias": (WIDTH,)}
    for mlp in ("head.mlp", f"{layer}.mlp"):
        shapes |= {f"{mlp}.fc1.weight": (INNER, WIDTH), f"{mlp}.fc1.bias": (INNER,)}
        shapes |= {f"{mlp}.fc2.weight": (WIDTH, INNER), f"{mlp}.fc2.bias": (WIDTH,)}
    return {name: Drawn(shape) for name, shape in shapes.items()}


def assert_builds(name: str, model: ir.Model, directory: Path) -> None:
    path = directory / f"{name}.onnx"
    ir.save(model, path, external_data=f"{path.name}.data")
    profiles = profiles_of(name, graph_entry(model, path.name, Precision.FP16), LIMITS)
    api = load_api(TENSORRT_RTX)
    logger = logger_of(api)
    builder = api.Builder(logger)
    ready = model_for_parser(path, name, profiles[0], TENSORRT_RTX, api.__version__, False)
    network = parse_network(api, builder, path, logger, ready)
    settings = builder_config(api, builder, profiles, BuilderSettings(), no_progress)
    engine = directory / "engine"
    assert write_engine(api, builder, network, settings, engine), logger.errors
    stored = (directory / f"{path.name}.data").stat().st_size
    assert engine.stat().st_size < 1.5 * stored  # integers stay integers in the engine
