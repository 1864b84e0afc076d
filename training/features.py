"""The vision tower's outputs for every training clip, computed once and cached on disk in float16.

The cache has two maps per clip: the features V, and the last hidden state, which the pooling head
turns into embeddings E. The cache stops before the head because the head continues to learn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hicom_edge.files import replacing
from hicom_edge.training.corpus import CHUNK, Corpus
from hicom_edge.training.tower_model import pixels

SELECT_LAYER = -2
"""mm_vision_select_layer of the demo, as in the authors' checkpoints."""
_BATCH = 16


@torch.no_grad()
def encode_frames(vision_model: Any, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
    """Frames (n, 3, s, s) to features V and last hidden states, each (n, patches, d)."""
    hidden = vision_model.embeddings(pixel_values)
    states = [hidden]
    for layer in vision_model.encoder.layers:
        states.append(layer(states[-1], attention_mask=None))
    return states[SELECT_LAYER], vision_model.post_layernorm(states[-1])


@dataclass(frozen=True)
class FeatureCache:
    """The cached maps of a corpus; `width` is the tower's d."""

    directory: Path
    corpus: Corpus
    width: int

    def prepare(
        self, vision_model: nn.Module, device: torch.device, report: Callable[[int], None]
    ) -> None:
        """Compute the missing chunks; `report` is called with the number of finished clips."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for chunk in self.corpus.chunks:
            if not self._file(chunk).exists():
                self._compute_chunk(vision_model, device, chunk, report)
            report(self.corpus.clips_of(chunk).stop)

    def _compute_chunk(
        self,
        vision_model: nn.Module,
        device: torch.device,
        chunk: int,
        report: Callable[[int], None],
    ) -> None:
        corpus = self.corpus
        clips = corpus.clips_of(chunk)
        shape = (len(clips), 2, corpus.num_frames, corpus.patches**2, self.width)
        maps = np.empty(shape, np.float16)
        for start in range(0, len(clips), _BATCH):
            report(clips.start + start)
            part = clips[start : start + _BATCH]
            # the frames of all clips side by side: (b·t, 3, s, s)
            frames = pixels(np.concatenate([corpus.frames(clip) for clip in part]))
            for which, values in enumerate(encode_frames(vision_model, frames.to(device))):
                rows = values.reshape(len(part), *shape[2:])
                maps[start : start + len(part), which] = rows.cpu().numpy()
        with replacing(self._file(chunk), durable=False) as path:
            np.save(path, maps)

    def _file(self, chunk: int) -> Path:
        return self.directory / f"features-{chunk:05d}.npy"

    @cached_property
    def _maps(self) -> list[np.ndarray]:
        return [np.load(self._file(chunk), mmap_mode="r") for chunk in self.corpus.chunks]

    def maps(self, index: int) -> np.ndarray:
        """(2, t, patches², d) float16: V, and the last hidden states."""
        return np.asarray(self._maps[index // CHUNK][index % CHUNK])
