"""Frames in rotated colours, so that the towers learn a shape as an outline of any colour.

With the named colours alone, the towers learn a shape separately for each colour and fail on pairs
of colour and shape that they never saw. A rotation is drawn so that it never produces such a
held-out pair itself.
"""

from __future__ import annotations

import numpy as np

from hicom_edge.shapes.clips import RGB
from hicom_edge.shapes.scene import HELD_OUT_COMBINATIONS, Scene

_LUMA = np.array([0.299, 0.587, 0.114])
_TRIALS = 8
_DISTINCT = 70.0
"""Distance in RGB (0 to 255) from which colours look different; a colour's own jitter is 16."""


def draw_rotation(scene: Scene, rng: np.random.Generator) -> np.ndarray | None:
    """A linear map of RGB (3, 3) under which no object looks like a held-out pair, or None."""
    for _ in range(_TRIALS):
        rotation = _rotation(
            rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.1), rng.uniform(0.75, 1.1)
        )
        if all(_is_allowed(rotation @ RGB[item.colour], item.shape) for item in scene.objects):
            return rotation
    return None


def with_rotated_colours(frame: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """A frame (s, s, 3) uint8 under a map (3, 3)."""
    return np.clip(np.rint(frame @ rotation.T), 0, 255).astype(np.uint8)


def _rotation(angle: float, saturation: float, brightness: float) -> np.ndarray:
    """Rotate the hue about the grey axis; luma follows the brightness alone."""
    axis = np.ones((3, 3)) / 3
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    rotation = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) * axis + np.sin(angle) * cross
    grey = np.ones((3, 1)) * _LUMA
    chroma = rotation @ (np.eye(3) - grey)
    return brightness * (grey + saturation * (chroma - np.ones((3, 1)) * (_LUMA @ chroma)))


def _is_allowed(colour: np.ndarray, shape: str) -> bool:
    held_out = [RGB[name] for name, partner in HELD_OUT_COMBINATIONS if partner == shape]
    return all(np.linalg.norm(np.clip(colour, 0, 255) - other) > _DISTINCT for other in held_out)
