"""RGB values of decoded frames on this machine, beside those of another.

Run it with --save on one machine and with --beside on the other:

    python benchmarks/pixel_values.py --save x86.npz
    python benchmarks/pixel_values.py --beside x86.npz

For each pixel format it prints the share of values that differ, the largest and the mean
difference: by swscale's defaults, by its accurate rounding, and by hicom_edge; then the time of one
1080p frame by each. The frames are noise, so that every value of a byte occurs.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from hicom_edge.runtime.video.swscale import converted, rgb_of

FORMATS = (
    *("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "nv12", "yuv444p", "yuv420p10le", "p010le"),
    *("yuv422p10le", "yuv444p10le", "yuyv422", "yuv440p", "yuv411p", "gray", "rgb24", "bgra"),
)
SIZES = ((64, 48), (66, 50), (71, 47), (640, 360))
ACCURATE = Interpolation.ACCURATE_RND
REPEATS = 20

Pixels = NDArray[np.uint8]
Conversion = Callable[[av.VideoFrame], Pixels]


def swscale_with(flags: Interpolation | None) -> Conversion:
    def convert(frame: av.VideoFrame) -> Pixels:
        return np.asarray(frame.reformat(format="rgb24", interpolation=flags).to_ndarray())

    return convert


WAYS: dict[str, Conversion] = {
    "swscale": swscale_with(None),
    "accurate_rnd": swscale_with(Interpolation.BILINEAR | ACCURATE),
    "point+accurate_rnd": swscale_with(Interpolation.POINT | ACCURATE),
    "hicom_edge": rgb_of,
}


def noise(pixel_format: str, width: int, height: int) -> av.VideoFrame:
    random = np.random.default_rng(width * height)
    frame = av.VideoFrame(width, height, pixel_format)
    for plane in frame.planes:
        if "10" in pixel_format:
            values = random.integers(0, 1024, plane.buffer_size // 2).astype("<u2")
            values = values << 6 if pixel_format == "p010le" else values
            plane.update(values.tobytes().ljust(plane.buffer_size, b"\0"))
        else:
            plane.update(random.integers(0, 256, plane.buffer_size, dtype=np.uint8).tobytes())
    return frame


def values() -> dict[str, Pixels]:
    return {
        f"{name} {width}x{height} {way}": convert(noise(name, width, height))
        for name in FORMATS
        for width, height in SIZES
        for way, convert in WAYS.items()
    }


def compare(here: dict[str, Pixels], there: dict[str, Pixels]) -> dict[str, dict[str, float]]:
    """Of each format and way: the differing share, the largest and the mean difference."""
    found = {}
    for name in FORMATS:
        for way in WAYS:
            keys = [f"{name} {width}x{height} {way}" for width, height in SIZES]
            parts = [(here[k].astype(int) - there[k].astype(int)).ravel() for k in keys]
            apart = np.abs(np.concatenate(parts))
            found[f"{name} {way}"] = {
                "differing": round(float((apart > 0).mean()), 4),
                "max": float(apart.max()),
                "mean": round(float(apart.mean()), 4),
            }
    return found


def milliseconds(convert: Conversion, frame: av.VideoFrame) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        convert(frame)
        times.append(time.perf_counter() - start)
    return round(1000 * min(times), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--beside", type=Path)
    chosen = parser.parse_args()
    here = values()
    result: dict[str, object] = {"machine": platform.machine(), "av": av.__version__}
    if chosen.save:
        np.savez_compressed(chosen.save, allow_pickle=False, **here)
    if chosen.beside:
        differences = compare(here, dict(np.load(chosen.beside)))
        for name, found in differences.items():
            print(f"{name:32} {found}")
        result["differences"] = differences
    frame = noise("yuv420p", 1920, 1080)
    times = {way: milliseconds(convert, frame) for way, convert in WAYS.items()}
    times["hicom_edge, not x86-64"] = milliseconds(converted, frame)
    for way, took in times.items():
        print(f"{way:32} {took} ms for a frame of 1920x1080")
    print(json.dumps(result | {"milliseconds": times}))


if __name__ == "__main__":
    main()
