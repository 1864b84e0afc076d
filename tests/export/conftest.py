"""Tiny random models and the way to run one graph, shared by the export tests."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    SiglipConfig,
    SiglipTextModel,
    SiglipVisionModel,
)

from hicom_edge.export.opsets import CURRENT, Family, Precision
from hicom_edge.export.save import save_graph
from hicom_edge.verify.comparison import compare

IMAGE_SIZE, PATCH_SIZE = 42, 14
EOS, VOCAB, MAX_LENGTH = 59, 60, 16

# Rounding of one small model, measured at 2e-6 (fp32) and 2e-3 (fp16) and given five times that.
TOLERANCE = {Precision.FP32: 1e-5, Precision.FP16: 1e-2}
FORMS = [(p, f) for p in Precision for f in (CURRENT, Family("plain", 18), Family("plain", 20))]

Run = Callable[[ir.Model, Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A checkpoint's tensor that is already there."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def load(self) -> torch.Tensor:
        return self.tensor


@dataclasses.dataclass(frozen=True)
class Towers:
    """A random pair of towers with the configuration and the parts of a checkpoint."""

    config: dict[str, Any]
    vision: torch.nn.Module
    text: torch.nn.Module
    vision_part: dict[str, InMemory]
    text_part: dict[str, InMemory]


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=FORMS, ids=lambda form: f"{form[0].value}-{form[1].name}{form[1].opset}")
def form(request: pytest.FixtureRequest) -> tuple[Precision, Family]:
    """Every precision in every operator family."""
    chosen: tuple[Precision, Family] = request.param
    return chosen


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Save a graph, check it fully, run it in ONNX Runtime: outputs by name."""

    def run_graph(model: ir.Model, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        session = open_session(model, tmp_path)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feed)), strict=True))

    return run_graph


@pytest.fixture
def session(tmp_path: Path) -> Callable[[ir.Model], onnxruntime.InferenceSession]:
    """Save and check a graph and keep it open, for several runs."""
    return lambda model: open_session(model, tmp_path)


@pytest.fixture
def part_of() -> Callable[[torch.nn.Module, str], dict[str, InMemory]]:
    """A module's state dict as the part of a checkpoint."""
    return stored


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """Fail with the tensor's name, the largest and the mean difference."""

    def check(name: str, actual: np.ndarray, expected: torch.Tensor, precision: Precision) -> None:
        result = compare(
            name, actual, expected.detach().numpy(), TOLERANCE[precision], min_cosine=0.999
        )
        assert result.ok, str(result)

    return check


@pytest.fixture(scope="session")
def siglip() -> Towers:
    """Random SigLIP towers of 3 vision and 2 text layers."""
    torch.manual_seed(1)
    config = SiglipConfig(
        vision_config=_vision_sizes(48),
        text_config={**_text_sizes(48), "projection_size": 48},
    )
    vision, text = SiglipVisionModel(config.vision_config), SiglipTextModel(config.text_config)
    return _towers(config, vision, text)


@pytest.fixture(scope="session")
def clip() -> Towers:
    """Random CLIP towers of different widths with a joint space of 56."""
    return make_clip(EOS)


@pytest.fixture(scope="session")
def clip_with_eos() -> Callable[[int], Towers]:
    """CLIP towers with an end-of-text id of one's choice."""
    return make_clip


@pytest.fixture(scope="session")
def reference_directory() -> Path:
    """The full set of reference tensors."""
    if "HICOM_REFERENCE" not in os.environ:
        pytest.skip("HICOM_REFERENCE does not name the reference tensors")
    return Path(os.environ["HICOM_REFERENCE"])


def make_clip(eos_token_id: int) -> Towers:
    torch.manual_seed(2)
    config = CLIPConfig(
        vision_config={**_vision_sizes(48), "projection_dim": 56},
        text_config={**_text_sizes(40), "projection_dim": 56, "eos_token_id": eos_token_id},
        projection_dim=56,
    )
    vision = CLIPVisionModelWithProjection(config.vision_config)
    text = CLIPTextModelWithProjection(config.text_config)
    return _towers(config, vision, text)


def stored(module: torch.nn.Module, prefix: str = "") -> dict[str, InMemory]:
    """A module's tensors, with `prefix` taken off their names."""
    state = module.state_dict()
    return {name.removeprefix(prefix): InMemory(value.detach()) for name, value in state.items()}


def open_session(model: ir.Model, directory: Path) -> onnxruntime.InferenceSession:
    path = directory / "graph.onnx"
    save_graph(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def roughen(module: torch.nn.Module) -> torch.nn.Module:
    """Biases and norms away from 0 and 1, so that leaving one out shows."""
    for parameter in module.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return module.eval().requires_grad_(False)


def _towers(config: Any, vision: torch.nn.Module, text: torch.nn.Module) -> Towers:
    roughen(vision)
    roughen(text)
    return Towers(
        config.to_dict(),
        vision,
        text,
        stored(vision, "vision_model."),
        stored(text, "text_model."),
    )


def _vision_sizes(width: int) -> dict[str, int]:
    sizes = {"image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE, "num_hidden_layers": 3}
    return {**sizes, "hidden_size": width, "intermediate_size": 96, "num_attention_heads": 4}


def _text_sizes(width: int) -> dict[str, int]:
    sizes = {"vocab_size": VOCAB, "max_position_embeddings": MAX_LENGTH, "num_hidden_layers": 2}
    return {**sizes, "hidden_size": width, "intermediate_size": 64, "num_attention_heads": 4}
