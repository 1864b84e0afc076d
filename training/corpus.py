"""The training clips on disk: frames as decoded from H.264, and what each patch shows.

Knows chunks of clips, how to make the missing ones with several processes, and how to read any
clip back. Refuses to know what the frames are used for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from hicom_edge.shapes.clips import decoded_scene
from hicom_edge.shapes.scene import MAX_OBJECTS, Scene, sample_scene

CHUNK = 250
"""Clips in one file: small enough that an interrupted run loses seconds."""


@dataclass(frozen=True)
class Corpus:
    """The first `clips` scenes of the training split of `seed`, rendered for one model size."""

    directory: Path
    seed: int
    clips: int
    side: int
    patches: int
    num_frames: int
    _scenes: dict[int, Scene] = field(default_factory=dict, repr=False, compare=False)

    def scene(self, index: int) -> Scene:
        """What clip `index` shows; drawn once and kept."""
        if index not in self._scenes:
            self._scenes[index] = sample_scene(self.seed, "train", index)
        return self._scenes[index]

    @property
    def chunks(self) -> range:
        return range(-(-self.clips // CHUNK))

    def prepare(self, report: Callable[[int], None], workers: int | None = None) -> None:
        """Make the chunks that are missing; `report` is told how many clips are ready."""
        self.directory.mkdir(parents=True, exist_ok=True)
        missing = [chunk for chunk in self.chunks if not self._file("frames", chunk).exists()]
        report((len(self.chunks) - len(missing)) * CHUNK)
        for done, _ in enumerate(self._map(missing, workers), start=1):
            report(min((len(self.chunks) - len(missing) + done) * CHUNK, self.clips))

    def _map(self, missing: list[int], workers: int | None) -> Iterator[None]:
        count = min(workers or os.cpu_count() or 1, len(missing))
        if count < 2:
            yield from map(self.make_chunk, missing)
            return
        # spawn: forking a process that already runs PyTorch's threads can deadlock
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            yield from pool.map(self.make_chunk, missing)

    def make_chunk(self, chunk: int) -> None:
        """Render, encode, decode and store one chunk; `frames` comes last and marks it whole."""
        indices = range(chunk * CHUNK, min((chunk + 1) * CHUNK, self.clips))
        shape = (len(indices), self.num_frames)
        frames = np.empty((*shape, self.side, self.side, 3), np.uint8)
        coverage = np.zeros((*shape, self.patches**2, MAX_OBJECTS), np.float16)
        for row, index in enumerate(indices):
            frames[row], seen = decoded_scene(
                self.scene(index), self.side, self.num_frames, self.patches
            )
            coverage[row, :, :, : seen.shape[-1]] = seen
        for name, values in (("coverage", coverage), ("frames", frames)):
            target = self._file(name, chunk)
            partial = target.with_suffix(".partial.npy")
            np.save(partial, values)
            partial.replace(target)

    def _file(self, name: str, chunk: int) -> Path:
        return self.directory / f"{name}-{chunk:05d}.npy"

    @cached_property
    def _frames(self) -> list[np.ndarray]:
        return [np.load(self._file("frames", c), mmap_mode="r") for c in self.chunks]

    @cached_property
    def _coverages(self) -> list[np.ndarray]:
        return [np.load(self._file("coverage", c), mmap_mode="r") for c in self.chunks]

    def frames(self, index: int) -> np.ndarray:
        """(t, side, side, 3) uint8."""
        return np.asarray(self._frames[index // CHUNK][index % CHUNK])

    def coverage(self, index: int) -> np.ndarray:
        """(t, patches², MAX_OBJECTS) float16: the share of each patch where each object is seen."""
        return np.asarray(self._coverages[index // CHUNK][index % CHUNK])
