"""Frames in colours that nobody names, for stage 0: a shape is its outline in any colour.

It knows linear maps of RGB that turn hues and pale or deepen them. It does not know losses. Of the
named colours alone the towers learn a shape for each apart, and fail on a pair of colour and shape
that they never saw. A map is drawn so that it never shows such a held-out pair either.
"""

from __future__ import annotations

import numpy as np

from hicom_edge.shapes.clips import RGB
from hicom_edge.shapes.scene import HELD_OUT_COMBINATIONS, Scene

_LUMA = np.array([0.299, 0.587, 0.114])
_TRIALS = 8
_FAR = 70.0
"""Distance in RGB (0 to 255) from which colours look different; a colour's own jitter is 16."""


def draw_turn(scene: Scene, rng: np.random.Generator) -> np.ndarray | None:
    """A map of RGB (3, 3) that makes no object look like a held-out pair; None if none is found."""
    for _ in range(_TRIALS):
        turn = _turn(rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.1), rng.uniform(0.75, 1.1))
        if all(_is_allowed(turn @ RGB[item.colour], item.shape) for item in scene.objects):
            return turn
    return None


def turned(frame: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """A frame (s, s, 3) uint8 under a map."""
    return np.clip(np.rint(frame @ turn.T), 0, 255).astype(np.uint8)


def _turn(angle: float, saturation: float, brightness: float) -> np.ndarray:
    """Turn the colours about the axis of greys; the luma only follows the brightness."""
    axis = np.ones((3, 3)) / 3
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    rotation = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) * axis + np.sin(angle) * cross
    grey = np.ones((3, 1)) * _LUMA
    chroma = rotation @ (np.eye(3) - grey)
    return brightness * (grey + saturation * (chroma - np.ones((3, 1)) * (_LUMA @ chroma)))


def _is_allowed(colour: np.ndarray, shape: str) -> bool:
    held_out = [RGB[name] for name, partner in HELD_OUT_COMBINATIONS if partner == shape]
    return all(np.linalg.norm(np.clip(colour, 0, 255) - other) > _FAR for other in held_out)
