"""Runs a language model with the weights of one layer at a time in memory.

transformers' models call their layers one after the other, each as a module, so that hooks can read
and drop weights.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from hicom_edge.model.stored_tensors import StoredTensor, Tensors

_LAYERS = "model.layers."


def without_layers(tensors: Tensors) -> dict[str, StoredTensor]:
    """Tensors that stay in memory: the embedding, the last norm and the output layer."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_LAYERS)}


def stream_layers(
    llm: nn.Module, tensors: Tensors, dtype: torch.dtype, device: str | torch.device
) -> None:
    """Let every layer read its weights before it runs and drop them afterwards.

    A 7B in float32 then takes the memory of one layer (0.9 GB), of its embedding and of its output
    layer (4.4 GB) instead of 31 GB; every run reads the checkpoint's layers once.
    """
    layers: Any = llm.get_submodule(_LAYERS.removesuffix("."))
    for index, layer in enumerate(layers):
        prefix = f"{_LAYERS}{index}."
        own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        layer.register_forward_pre_hook(partial(_read, own, dtype, device))
        layer.register_forward_hook(_drop)


def _read(
    own: Tensors, dtype: torch.dtype, device: str | torch.device, layer: nn.Module, _: object
) -> None:
    state = {name: tensor.load().to(device=device, dtype=dtype) for name, tensor in own.items()}
    layer.load_state_dict(state, assign=True)
    layer.requires_grad_(False)


def _drop(layer: nn.Module, *_: object) -> None:
    layer.to("meta")
