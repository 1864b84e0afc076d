"""Decoding of sampled frames: skipping to keyframes compared with decoding everything.

    python benchmarks/video_decode.py [--repeat 3] [VIDEO ...]

Without videos it writes 60 s clips with short and long groups of pictures. Each row checks that
both ways give the same pixels. The ratios are of wall times, and of processor times, which other
load on the machine does not disturb. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hicom_edge.runtime.preprocess import Preprocessor
from hicom_edge.runtime.video import FrameSampling, read_frames

NUM_FRAMES = (8, 32, 128)
SIZE = 384
FPS, SECONDS = 30, 60
COLUMNS = (
    "frames",
    "index_ms",
    "decode_ms",
    "full_ms",
    "ratio",
    "cpu_ratio",
    "preprocess_ms",
)


def main() -> None:
    """Measure every video with every number of frames."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        videos = arguments.videos or list(write_clips(Path(temporary)))
        print(f"{os.cpu_count()} CPUs; best of {arguments.repeat}; ms")
        print(f"{'video':<20}" + "".join(f"{column:>14}" for column in COLUMNS))
        rows = [
            measure(video, num_frames, arguments.repeat)
            for video in videos
            for num_frames in NUM_FRAMES
        ]
    print(json.dumps(rows))


def measure(video: Path, num_frames: int, repeat: int) -> dict[str, Any]:
    """Times of one video: index, sampled decode, full decode, preprocessing per frame."""
    frames = read_frames(video, FrameSampling(num_frames))
    wanted = set(frames.indices.tolist())
    preprocess = Preprocessor(SIZE)
    sampled = list(frames)
    expected = decode_all(video, wanted)
    for number, frame in zip(frames.indices.tolist(), sampled, strict=True):
        if not np.array_equal(frame, expected[number]):
            raise SystemExit(f"{video}: frame {number} differs from a full decode")
    index, decode, full, prepare = best_ms(
        repeat,
        lambda: read_frames(video, FrameSampling(num_frames)),
        lambda: list(frames),
        lambda: decode_all(video, wanted),
        lambda: preprocess(sampled[0]),
    )
    row = {
        "video": video.name,
        "frames": num_frames,
        "index_ms": index.wall_ms,
        "decode_ms": decode.wall_ms,
        "full_ms": full.wall_ms,
        "ratio": round(decode.wall_ms / full.wall_ms, 2),
        "cpu_ratio": round(decode.cpu_ms / full.cpu_ms, 2),
        "preprocess_ms": prepare.wall_ms,
    }
    print(f"{row['video']:<20}" + "".join(f"{row[column]:>14}" for column in COLUMNS))
    return row


class Timing(NamedTuple):
    """The shortest wall time and processor time (all threads) of several runs."""

    wall_ms: float
    cpu_ms: float


def best_ms(repeat: int, *works: Callable[[], Any]) -> list[Timing]:
    """Time the works alternately, so that other load on the machine affects all of them."""
    best = [Timing(float("inf"), float("inf"))] * len(works)
    for _ in range(repeat):
        for place, work in enumerate(works):
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            cpu_ms = round((time.process_time() - cpu) * 1e3, 1)
            wall_ms = round((time.perf_counter() - wall) * 1e3, 1)
            best[place] = Timing(min(best[place].wall_ms, wall_ms), min(best[place].cpu_ms, cpu_ms))
    return best


def decode_all(video: Path, wanted: set[int]) -> dict[int, Any]:
    """Decode up to the last wanted frame without skipping, with the same frame threads."""
    import av

    found = {}
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found[number] = frame.to_ndarray(format="rgb24")
            if number == max(wanted):
                break
    return found


def write_clips(folder: Path) -> Iterable[Path]:
    """Clips of a drifting, noisy pattern: 360p and 720p, with short and long groups."""
    for width, height in ((640, 360), (1280, 720)):
        for gop in (30, 250):
            path = folder / f"{height}p-gop{gop}.mp4"
            write_clip(path, width, height, gop)
            yield path


def write_clip(path: Path, width: int, height: int, gop: int) -> None:
    """One H.264 clip with B-frames."""
    import av

    random = np.random.default_rng(0)
    pattern = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    pattern = pattern.repeat(8, 0).repeat(8, 1) // 2
    noise = random.integers(0, 24, (4, height, width, 3), np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "sc_threshold": "0"}
        stream: Any = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = gop
        for number in range(FPS * SECONDS):
            image = np.roll(pattern, 2 * number % width, axis=1) + noise[number % 4]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
