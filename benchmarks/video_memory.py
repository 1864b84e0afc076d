"""Memory for a one-hour clip compared with a one-minute clip.

    python benchmarks/video_memory.py [--frames 32] [--keep FOLDER]

Writes both clips, reads and preprocesses the same number of frames from each in a new process, and
prints peak resident memory and time. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

LENGTHS_SECONDS = {"minute": 60, "hour": 3600}
FPS, WIDTH, HEIGHT, GOP = 15, 320, 180, 150
SIZE = 384


def main() -> None:
    """Write the clips, measure each in a process of its own, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=32, help="frames to read of each clip")
    parser.add_argument("--keep", type=Path, help="folder in which the clips are kept")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.frames)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        results = {name: run(folder, name, arguments.frames) for name in LENGTHS_SECONDS}
    report(results)


def run(folder: Path, name: str, num_frames: int) -> dict[str, Any]:
    """Measure one clip in a new process."""
    path = folder / f"{name}.mp4"
    if not path.exists():
        write_clip(path, LENGTHS_SECONDS[name])
    command = [sys.executable, __file__, "--measure", str(path), "--frames", str(num_frames)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def measure(path: Path, num_frames: int) -> dict[str, Any]:
    """Peak memory and time of opening, decoding and preprocessing, in this process."""
    from hicom_edge.runtime.preprocess import Preprocessor
    from hicom_edge.runtime.video import FrameSampling, read_frames

    began = time.perf_counter()
    frames = read_frames(path, FrameSampling(num_frames))
    opened = time.perf_counter()
    pixel_values = Preprocessor(SIZE).batch(frames)
    ended = time.perf_counter()
    return {
        "frames_available": frames.num_available,
        "frames_read": len(pixel_values),
        "file_mb": round(path.stat().st_size / 1e6, 1),
        "index_ms": round((opened - began) * 1e3, 1),
        "decode_ms": round((ended - opened) * 1e3, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def write_clip(path: Path, seconds: int) -> None:
    """A drifting pattern in H.264, with B-frames and a keyframe every ten seconds."""
    import av
    import numpy as np

    pattern = np.random.default_rng(0).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    pattern = pattern.repeat(4, 0).repeat(4, 1)
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as container:
        options = {"preset": "superfast", "sc_threshold": "0"}
        stream: Any = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = GOP
        for number in range(seconds * FPS):
            image = np.roll(pattern, number % WIDTH, axis=1)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    partial.rename(path)


def report(results: dict[str, dict[str, Any]]) -> None:
    """A table for people, then one line of JSON."""
    columns = list(results["minute"])
    print("clip    " + "".join(f"{column:>18}" for column in columns))
    for name, result in results.items():
        print(f"{name:<8}" + "".join(f"{result[column]:>18}" for column in columns))
    growth = results["hour"]["peak_memory_mb"] - results["minute"]["peak_memory_mb"]
    print(f"\n60 times the length: {growth:+.1f} MB of memory")
    print(json.dumps({**results, "growth_mb": round(growth, 1)}))


if __name__ == "__main__":
    main()
