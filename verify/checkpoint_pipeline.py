"""The stages of one question in PyTorch in float32, as the reference for bundles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from hicom_edge.model.hicom import IMAGE_TOKEN_ID, VIDEO_TOKEN_ID
from hicom_edge.runtime.features.encoding import frame_chunks
from hicom_edge.verify.pipeline import Pipeline, Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hicom_edge.model.hicom import HicomModel

    Array = NDArray[Any]

PLACEHOLDERS = {"image": IMAGE_TOKEN_ID, "video": VIDEO_TOKEN_ID}


class CheckpointPipeline(Pipeline):
    """A loaded checkpoint on one video."""

    def __init__(
        self,
        model: HicomModel,
        pixel_values: NDArray[np.float32],
        modality: str,
        stop_token_ids: Sequence[int],
    ) -> None:
        self._model, self._modality, self._stops = model, modality, stop_token_ids
        with torch.no_grad():
            runs = [model.vision_tower(torch.from_numpy(c)) for c in frame_chunks(pixel_values)]
        features, embeddings = zip(*runs, strict=True)
        self._features = torch.cat(features)
        self._embeddings = torch.cat(embeddings) if embeddings[0] is not None else None

    def maps(self) -> dict[str, Array]:
        maps = {"features": self._features, "embeddings": self._embeddings}
        return {name: tensor.numpy() for name, tensor in maps.items() if tensor is not None}

    def guide(self, prompt: Prompt) -> Array | None:
        if prompt.guide_input_ids is None:
            return None
        with torch.no_grad():
            guide = self._model.encode_guide(torch.from_numpy(prompt.guide_input_ids))
        return None if guide is None else guide.numpy()

    def visual_tokens(self, guide: Array | None) -> Array:
        given = None if guide is None else torch.from_numpy(guide)
        with torch.no_grad():
            tokens = self._model.compressor(self._features, self._embeddings, given, self._modality)
        result: Array = tokens.numpy()
        return result

    def logits(self, prompt: Prompt, visual_tokens: Array, answer: Sequence[int] = ()) -> Array:
        ids = torch.cat([self._ids(prompt), torch.tensor(list(answer), dtype=torch.int64)])
        result: Array = self._model.logits(ids, [torch.from_numpy(visual_tokens)])[-1].numpy()
        return result

    def greedy(self, prompt: Prompt, visual_tokens: Array, max_new_tokens: int) -> list[int]:
        token_ids = self._model.generate(
            self._ids(prompt),
            [torch.from_numpy(visual_tokens)],
            max_new_tokens=max_new_tokens,
            repetition_penalty=1.0,
        )
        ends = [i for i, token in enumerate(token_ids) if token in self._stops]
        return token_ids[: ends[0]] if ends else token_ids

    def _ids(self, prompt: Prompt) -> torch.Tensor:
        parts, visual = prompt.parts, PLACEHOLDERS[self._modality]
        return torch.tensor([*parts.prefix_ids, visual, *parts.suffix_ids], dtype=torch.int64)
