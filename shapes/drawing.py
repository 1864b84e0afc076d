"""Clips of moving shapes as somebody asks for them: which shapes, which background, which size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ImageColor

from hicom_edge.errors import InputError
from hicom_edge.files import Replacement
from hicom_edge.option_fields import check_fields, option
from hicom_edge.shapes.clips import paint_scene, write_mp4
from hicom_edge.shapes.scene import COLOURS, DIRECTIONS, SHAPES, Scene, sample_scene, scene_of

MAX_SHAPES = 6
MAX_PIXELS = 1920 * 1080
MAX_SECONDS = 60.0
BACKGROUNDS = {
    "dark": (44, 42, 50),
    "light": (222, 224, 228),
    "grey": (128, 128, 128),
}
"""Names besides those of CSS; "dark" is what the packaged demo was trained on."""
_FILLER = {"a", "an", "moves", "moving", "stays", "staying", "goes", "going"}


@dataclass(frozen=True)
class ClipStyle:
    """How a drawn clip looks.

    Attributes:
        background: dark, light, grey, a CSS colour name or #rrggbb.
        size: width x height of a frame in pixels, each even and at least 32.
        seconds: length of the clip.
        frame_rate: frames per second.
        seed: decides positions, sizes, noise and, where no shapes are given, the shapes.

    Raises:
        InputError: a value out of range.
    """

    background: str = option("dark", "Background: dark, light, grey, a colour name or #rrggbb.")
    size: str = option("336x336", "Width x height of a frame in pixels.")
    seconds: float = option(
        2.0, "Length of the clip.", above=0, maximum=MAX_SECONDS, unit="seconds"
    )
    frame_rate: float = option(12.0, "Frames per second.", minimum=1, maximum=120)
    seed: int = option(0, "Another seed draws another clip.", minimum=0)

    def __post_init__(self) -> None:
        check_fields(self)
        background_rgb(self.background)
        width, height = self.width_and_height
        if min(width, height) < 32 or width % 2 or height % 2:
            raise InputError(
                f"size is {self.size}; pass even numbers of at least 32 pixels", "size"
            )
        if width * height > MAX_PIXELS:
            raise InputError(
                f"size is {self.size}; pass at most {MAX_PIXELS} pixels, such as 1920x1080", "size"
            )

    @property
    def width_and_height(self) -> tuple[int, int]:
        """In pixels."""
        width, cross, height = self.size.lower().partition("x")
        numbers = f"{width}{height}"
        if not (cross and width and height and numbers.isdecimal() and len(numbers) < 12):
            raise InputError(f"size is {self.size!r}; pass width x height, such as 640x360", "size")
        return int(width), int(height)

    @property
    def num_frames(self) -> int:
        return max(2, round(self.seconds * self.frame_rate))


def draw_clip(output: Path, shapes: str | None, style: ClipStyle) -> Scene:
    """Draw a clip of moving shapes and write it as an H.264 mp4; returns what is in it.

    Args:
        shapes: as `objects_from_text` reads them; None: three to five at random.

    Raises:
        InputError: shapes that cannot be understood, or an output that cannot be written.
    """
    if shapes is None:
        scene = sample_scene(style.seed, "held-out", 0, staggered=0.0)
    else:
        scene = scene_of(objects_from_text(shapes), style.seed)
    width, height = style.width_and_height
    backdrop = np.empty((height, width, 3), np.float32)
    backdrop[:] = background_rgb(style.background)
    rng = np.random.default_rng(scene.noise_seed)
    frames = paint_scene(scene, backdrop, style.num_frames, rng).frames
    with Replacement(output) as new:
        write_mp4(frames, new.path, frame_rate=style.frame_rate)
        new.publish()
    return scene


def objects_from_text(text: str) -> list[tuple[str, str, str]]:
    """(colour, shape, direction) of "red circle right, blue square still".

    The direction may be left out, which means still. An empty text means no shapes.

    Raises:
        InputError: a part that is not a colour, a shape and a direction, or too many parts.
    """
    parts = [part for part in text.replace(";", ",").split(",") if part.strip()]
    if len(parts) > MAX_SHAPES:
        raise InputError(f"{len(parts)} shapes were asked for; at most {MAX_SHAPES} fit a clip")
    return [_object_from_text(part) for part in parts]


def _object_from_text(part: str) -> tuple[str, str, str]:
    words = [word for word in part.lower().split() if word not in _FILLER]
    colour, shape, direction = (*words, "still")[:3] if len(words) in (2, 3) else ("", "", "")
    if colour in COLOURS and shape in SHAPES and direction in DIRECTIONS:
        return colour, shape, direction
    raise InputError(
        f"{part.strip()!r} is not a shape; say a colour ({', '.join(COLOURS)}), "
        f"a shape ({', '.join(SHAPES)}) and a direction ({', '.join(DIRECTIONS)}), "
        "such as 'red circle right'"
    )


def background_rgb(name: str) -> tuple[int, int, int]:
    """The colour of a background by its name.

    Raises:
        InputError: no such colour.
    """
    if name in BACKGROUNDS:
        return BACKGROUNDS[name]
    try:
        red, green, blue, *_ = ImageColor.getrgb(name)
    except ValueError as error:
        raise InputError(
            f"there is no background {name!r}; pass {', '.join(BACKGROUNDS)}, a colour name such "
            "as white or skyblue, or #rrggbb"
        ) from error
    return red, green, blue
