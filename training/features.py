"""The training clips as the frozen vision tower sees them, computed once and kept on disk.

Knows the two maps per clip: features V, and the last hidden state that the pooling head turns into
embeddings E (kept before the head, because the head goes on learning). Half precision on disk.
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

from hicom_edge.training.corpus import CHUNK, Corpus
from hicom_edge.training.towers import pixels

SELECT_LAYER = -2
"""mm_vision_select_layer of the demo, the authors' own."""
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
    """Cached maps of a corpus."""

    directory: Path
    corpus: Corpus
    width: int

    def prepare(
        self, vision_model: nn.Module, device: torch.device, report: Callable[[int], None]
    ) -> None:
        """Compute the chunks that are missing; `report` is told how many clips are ready."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for chunk in self.corpus.chunks:
            if not self._file(chunk).exists():
                self._make_chunk(vision_model, device, chunk)
            report(min((chunk + 1) * CHUNK, self.corpus.clips))

    def _make_chunk(self, vision_model: nn.Module, device: torch.device, chunk: int) -> None:
        corpus = self.corpus
        clips = range(chunk * CHUNK, min((chunk + 1) * CHUNK, corpus.clips))
        shape = (len(clips), 2, corpus.num_frames, corpus.patches**2, self.width)
        maps = np.empty(shape, np.float16)
        for start in range(0, len(clips), _BATCH):
            part = clips[start : start + _BATCH]
            frames = pixels(np.concatenate([corpus.frames(clip) for clip in part]))
            for which, values in enumerate(encode_frames(vision_model, frames.to(device))):
                rows = values.reshape(len(part), *shape[2:])
                maps[start : start + len(part), which] = rows.cpu().numpy()
        partial = self._file(chunk).with_suffix(".partial.npy")
        np.save(partial, maps)
        partial.replace(self._file(chunk))

    def _file(self, chunk: int) -> Path:
        return self.directory / f"features-{chunk:05d}.npy"

    @cached_property
    def _maps(self) -> list[np.ndarray]:
        return [np.load(self._file(chunk), mmap_mode="r") for chunk in self.corpus.chunks]

    def maps(self, index: int) -> np.ndarray:
        """(2, t, patches², d) float16: features, last hidden states."""
        return np.asarray(self._maps[index // CHUNK][index % CHUNK])
