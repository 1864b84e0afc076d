"""Rendering of scenes to frames and H.264 files, and the frames that a model samples from them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from hicom_edge.runtime.video.frame_number_rule import uniform_indices
from hicom_edge.runtime.video.opening import open_container, open_data
from hicom_edge.runtime.video.swscale import rgb_of
from hicom_edge.shapes.scene import MovingObject, Scene

FRAMES_PER_STEP = 3
"""Video frames per frame that the model samples."""
FRAME_RATE = 12

RGB = {
    "red": (222, 40, 40),
    "green": (40, 172, 62),
    "blue": (48, 82, 232),
    "yellow": (238, 218, 52),
    "purple": (150, 56, 190),
    "orange": (242, 134, 28),
    "cyan": (64, 214, 222),
    "white": (236, 236, 236),
}
_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Rendering:
    """A clip before compression.

    Attributes:
        frames: (t, h, w, 3) uint8.
        owners: (t, h, w) int8, the index of the object visible at each pixel, or -1.
    """

    frames: np.ndarray
    owners: np.ndarray


def render(scene: Scene, side: int, num_frames: int) -> Rendering:
    """Draw every video frame of a scene: background, objects from back to front, noise."""
    rng = np.random.default_rng(scene.noise_seed)
    return paint_scene(scene, _dark_background(rng, side), num_frames, rng)


def paint_scene(
    scene: Scene, background: np.ndarray, num_frames: int, rng: np.random.Generator
) -> Rendering:
    """Draw the objects of a scene on a still background (h, w, 3) float32, and add noise.

    Positions are fractions of width and height, sizes are fractions of the shorter side.
    """
    canvas = np.repeat(background[None], num_frames, axis=0)  # (t, h, w, 3)
    owners = np.full(canvas.shape[:3], -1, np.int8)
    for number, item in enumerate(scene.objects):
        _paint(canvas, owners, item, number, rng)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(1, 5))
    return Rendering(np.clip(canvas + noise, 0, 255).astype(np.uint8), owners)


def write_mp4(
    frames: np.ndarray,
    target: Path | BinaryIO,
    crf: int = 20,
    frame_rate: float | Fraction = FRAME_RATE,
) -> None:
    """Write (t, h, w, 3) uint8 frames as an H.264 mp4; `crf` 0-51, higher is coarser."""
    place = str(target) if isinstance(target, Path) else target
    with av.open(place, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(frame_rate).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # Reproducible bytes: x264's vector code reads past the rows of such small frames, and with
        # several threads the output depends on their timing.
        stream.options = {
            "preset": "veryfast",
            "crf": str(crf),
            "threads": "1",
            "x264-params": "no-asm=1",
        }
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def read_mp4(source: Path | BinaryIO, num_frames: int) -> np.ndarray:
    """Decode a whole clip and keep the frames that the model samples: (num_frames, h, w, 3)."""
    if isinstance(source, Path):
        opened = open_container(str(source))
    else:
        opened = open_data(source, "a clip in memory")
    with opened as container:
        frames = [rgb_of(frame) for frame in container.decode(video=0)]
    return np.stack([frames[i] for i in uniform_indices(len(frames), num_frames)])


def write_scene(
    scene: Scene, target: Path | BinaryIO, side: int, num_frames: int, crf: int | None = None
) -> Rendering:
    """Render a scene for a model that samples `num_frames` frames, and write it as an mp4.

    Without `crf`, it is drawn from 16 to 27 by the scene's own seed.
    """
    rendering = render(scene, side, num_frames * FRAMES_PER_STEP)
    chosen = int(np.random.default_rng((*scene.noise_seed, 2)).integers(16, 28))
    write_mp4(rendering.frames, target, chosen if crf is None else crf)
    return rendering


def decoded_scene(
    scene: Scene, side: int, num_frames: int, patches: int
) -> tuple[np.ndarray, np.ndarray]:
    """The model's frames of a scene after H.264, and how much of each patch an object covers.

    Returns:
        frames (num_frames, side, side, 3) uint8 and coverage (num_frames, patches², objects)
        float32, the share of each patch in which each object is visible.
    """
    buffer = BytesIO()
    rendering = write_scene(scene, buffer, side, num_frames)
    buffer.seek(0)
    frames = read_mp4(buffer, num_frames)
    picked = rendering.owners[uniform_indices(len(rendering.owners), num_frames)]
    return frames, _coverage(picked, patches, len(scene.objects))


def _dark_background(rng: np.random.Generator, side: int) -> np.ndarray:
    """The background of the training clips: (side, side, 3) float32."""
    level = rng.uniform(22, 72) + rng.uniform(-8, 8, size=3)
    slope = rng.uniform(-12, 12, size=2)
    ramp = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    shade = slope[0] * ramp[:, None, None] + slope[1] * ramp[None, :, None]
    return (level + shade).astype(np.float32)


def _paint(
    canvas: np.ndarray,
    owners: np.ndarray,
    item: MovingObject,
    number: int,
    rng: np.random.Generator,
) -> None:
    num_frames, height, width = canvas.shape[:3]
    colour = (np.array(RGB[item.colour]) + rng.uniform(-16, 16, size=3)).astype(np.float32)
    mask = _sprite(item.shape, item.radius * min(width, height))
    size = len(mask)
    for frame in range(num_frames):
        if not item.is_visible(frame, num_frames):
            continue
        x, y = item.centre(frame / (num_frames - 1))
        left = min(max(round(x * width - size / 2), 0), width - size)
        top = min(max(round(y * height - size / 2), 0), height - size)
        window = np.s_[frame, top : top + size, left : left + size]
        canvas[window] += mask[..., None] * (colour - canvas[window])
        owners[window][mask > 0.5] = number


def _sprite(shape: str, radius: float) -> np.ndarray:
    """The share of each pixel that the shape covers, by supersampling: (size, size) float32."""
    size = int(np.ceil(2 * radius)) + 1
    fine = (np.arange(size * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - size / 2
    x, y = np.meshgrid(fine / radius, fine / radius)
    inside = _INSIDE[shape](x, y).astype(np.float32)
    return inside.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING).mean((1, 3))


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x * x + y * y <= 0.92**2


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(abs(x), abs(y)) <= 0.82


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (y <= 0.8) & (y >= -0.95 + 1.8 * abs(x))


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.maximum(abs(x), abs(y)) <= 0.95) & (np.minimum(abs(x), abs(y)) <= 0.34)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Five points: straight lines between tips at radius 1 and notches at radius 0.42."""
    sector = np.pi / 5
    angle = np.arctan2(x, -y) % (2 * sector)
    folded = np.minimum(angle, 2 * sector - angle)
    distance = np.hypot(x, y)
    across, along = distance * np.sin(folded), distance * np.cos(folded)
    notch_x, notch_y = 0.42 * np.sin(sector), 0.42 * np.cos(sector)
    return (along - 1) * notch_x - across * (notch_y - 1) <= 0


_INSIDE = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
}


def _coverage(owners: np.ndarray, patches: int, count: int) -> np.ndarray:
    t, side, _ = owners.shape
    patch = side // patches
    cells = owners.reshape(t, patches, patch, patches, patch)  # (t, row, y, column, x)
    shares = [(cells == number).mean((2, 4)) for number in range(count)]
    return np.stack(shares, -1).reshape(t, patches * patches, count).astype(np.float32)
