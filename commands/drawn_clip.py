"""Video for `verify` and `bench`: the given file, or a temporary drawn clip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

QUESTIONS = ("What happens in this video?", "How many objects are there?")


@contextmanager
def video_or_drawn_clip(video: str | None, num_frames: int = 8) -> Iterator[str]:
    """The given video, or a temporary clip of moving shapes."""
    if video is not None:
        yield video
        return
    from tempfile import TemporaryDirectory

    from hicom_edge.shapes.clips import write_scene
    from hicom_edge.shapes.scene import sample_scene

    with TemporaryDirectory() as directory:
        path = Path(directory) / "clip.mp4"
        write_scene(sample_scene(0, "train", 0), path, side=168, num_frames=num_frames)
        yield str(path)
