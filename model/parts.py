"""The parts of a model: its modules, and the names and shapes of their tensors in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from hicom_edge.model.config import HicomConfig
from hicom_edge.model.hicom import HicomModel


def expected_shapes(hicom: HicomConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shape of every tensor of every part; nothing is allocated."""
    with without_parameters():
        model = HicomModel(hicom, {})
    shapes: dict[str, dict[str, tuple[int, ...]]] = {"guide": {}}
    for part, module in modules_of(model).items():
        state = inner_names(part, module.state_dict())
        shapes[part] = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if is_tied(model):
        shapes["llm"].pop("lm_head.weight", None)
    return shapes


def modules_of(model: HicomModel) -> dict[str, nn.Module]:
    """The modules of a model by the name of their part."""
    modules: dict[str, nn.Module] = {
        "vision": model.vision_tower,
        "compressor": model.compressor,
        "llm": model.llm,
    }
    return modules | ({"guide": model.guide_encoder} if model.guide_encoder is not None else {})


# our modules wrap transformers' towers in one attribute; the checkpoint's parts do not
_WRAPPED = {"vision": "vision_model.", "guide": "text_model."}


def inner_names(part: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors by their names in a checkpoint's part, from those in our module."""
    return {name.removeprefix(_WRAPPED.get(part, "")): t for name, t in state.items()}


def outer_names(part: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `inner_names`."""
    prefix = _WRAPPED.get(part, "")
    projections = ("visual_projection.", "text_projection.")
    return {n if n.startswith(projections) else prefix + n: t for n, t in state.items()}


def is_tied(model: HicomModel) -> bool:
    """Whether the language model's output layer is its token embedding."""
    return bool(model.llm.config.tie_word_embeddings)


@contextmanager
def without_parameters() -> Iterator[None]:
    """Modules created inside get parameters on the meta device; buffers are real."""
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None:
            param = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)
        register(module, name, param)

    nn.Module.register_parameter = register_on_meta  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
