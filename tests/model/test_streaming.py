"""A language model that is larger than the memory answers like one that is not."""

from __future__ import annotations

import pytest
import torch

from hicom_edge.model import load_checkpoint
from hicom_edge.model.stored_tensors import StoredTensor

PROMPT = torch.arange(20)


def test_a_streamed_model_computes_the_same(reference_checkpoint) -> None:
    held, streamed = (load_checkpoint(reference_checkpoint, stream=s) for s in (False, True))
    assert torch.equal(streamed.logits(PROMPT), held.logits(PROMPT))
    assert streamed.generate(PROMPT, max_new_tokens=6) == held.generate(PROMPT, max_new_tokens=6)


def test_one_layer_is_in_memory_at_a_time(
    reference_checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_checkpoint(reference_checkpoint, stream=True)
    layers = model.llm.model.layers
    load, most = StoredTensor.load, 0

    def watched(tensor: StoredTensor) -> torch.Tensor:
        nonlocal most
        most = max(most, len(held()))
        return load(tensor)

    def held() -> list[int]:
        return [
            i for i, layer in enumerate(layers) if any(not p.is_meta for p in layer.parameters())
        ]

    monkeypatch.setattr(StoredTensor, "load", watched)
    model.logits(PROMPT)
    assert (most, held()) == (0, [])  # while a layer is read, no other is there
