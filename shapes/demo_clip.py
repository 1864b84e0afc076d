"""The clip of the README's example question: docs/demo.mp4.

python -m hicom_edge.shapes.demo_clip docs/demo.mp4
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hicom_edge.shapes.clips import write_scene
from hicom_edge.shapes.held_out import HELD_OUT_SEED
from hicom_edge.shapes.scene import Scene, sample_scene

QUESTION = "which way does the red circle move"
ANSWER = "right"


def demo_scene() -> Scene:
    """The first held-out scene with five objects of which only the red circle moves right."""
    index = 0
    while True:
        scene = sample_scene(HELD_OUT_SEED, "held-out", index)
        if len(scene.objects) == 5 and not scene.is_staggered and _fits(scene):
            return scene
        index += 1


def write_demo_clip(target: Path, side: int = 336, num_frames: int = 8) -> None:
    """Write the clip at a size that is pleasant to watch; the model resizes it."""
    write_scene(demo_scene(), target, side, num_frames, crf=30)


def _fits(scene: Scene) -> bool:
    goes_right = [item.name for item in scene.objects if item.direction == ANSWER]
    return goes_right == ["red circle"] and len({item.direction for item in scene.objects}) > 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Write the README's clip of moving shapes.")
    parser.add_argument("target", type=Path)
    write_demo_clip(parser.parse_args(arguments).target)


if __name__ == "__main__":
    main()
