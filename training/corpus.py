"""The training clips on disk: frames as decoded from H.264, and the objects in each patch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from hicom_edge.files import replacing
from hicom_edge.shapes.clips import decoded_scene
from hicom_edge.shapes.scene import MAX_OBJECTS, Scene, sample_scene
from hicom_edge.training.clip_processes import Tick, run_in_processes

CHUNK = 250
"""Clips per file: few enough that an interrupted run loses only seconds."""


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
        """The scene of clip `index`, sampled once and cached."""
        if index not in self._scenes:
            self._scenes[index] = sample_scene(self.seed, "train", index)
        return self._scenes[index]

    @property
    def chunks(self) -> range:
        return range(-(-self.clips // CHUNK))

    def clips_of(self, chunk: int) -> range:
        """Indices of the clips in a chunk."""
        return range(chunk * CHUNK, min((chunk + 1) * CHUNK, self.clips))

    def prepare(self, report: Callable[[int], None], processes: int | None = None) -> None:
        """Draw the missing chunks; `report` is called with the number of finished clips.

        processes: by default one for each CPU.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        missing = [chunk for chunk in self.chunks if not self._file("frames", chunk).exists()]
        done = self.clips - sum(len(self.clips_of(chunk)) for chunk in missing)
        report(done)

        def tick() -> None:
            nonlocal done
            done += 1
            report(done)

        count = min(processes or os.cpu_count() or 1, len(missing))
        if count > 1:
            run_in_processes(self.draw_chunk, missing, count, tick)
        else:
            for chunk in missing:
                self.draw_chunk(chunk, tick)

    def draw_chunk(self, chunk: int, tick: Tick) -> None:
        """Render, encode, decode and store one chunk; calls `tick` for every clip.

        The file of frames is written last: its presence marks the chunk as complete.
        """
        indices = self.clips_of(chunk)
        shape = (len(indices), self.num_frames)
        frames = np.empty((*shape, self.side, self.side, 3), np.uint8)
        coverage = np.zeros((*shape, self.patches**2, MAX_OBJECTS), np.float16)
        for row, index in enumerate(indices):
            frames[row], seen = decoded_scene(
                self.scene(index), self.side, self.num_frames, self.patches
            )
            coverage[row, :, :, : seen.shape[-1]] = seen  # scenes with fewer objects keep zeros
            tick()
        for name, values in (("coverage", coverage), ("frames", frames)):
            with replacing(self._file(name, chunk), durable=False) as path:
                np.save(path, values)

    def frames(self, index: int) -> np.ndarray:
        """(t, side, side, 3) uint8."""
        return np.asarray(self._frames[index // CHUNK][index % CHUNK])

    def coverage(self, index: int) -> np.ndarray:
        """(t, patches², MAX_OBJECTS) float16: the share of each patch that each object covers."""
        return np.asarray(self._coverages[index // CHUNK][index % CHUNK])

    def _file(self, name: str, chunk: int) -> Path:
        return self.directory / f"{name}-{chunk:05d}.npy"

    @cached_property
    def _frames(self) -> list[np.ndarray]:
        return [np.load(self._file("frames", c), mmap_mode="r") for c in self.chunks]

    @cached_property
    def _coverages(self) -> list[np.ndarray]:
        return [np.load(self._file("coverage", c), mmap_mode="r") for c in self.chunks]
