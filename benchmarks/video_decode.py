"""Sampled frames of a video, beside plain PyAV, decord2 and OpenCV where these are installed.

    python benchmarks/video_decode.py [--repeat 3] [--frames 8 32 64 128] [VIDEO ...]
    python benchmarks/video_decode.py --watches 10000

Without videos it makes 60 s clips of 1080p and 360p with short and long groups of pictures. Every
reader opens the file, finds out how many frames it has and gives the same frames as RGB arrays;
they take turns, so that other load on the machine meets all of them. What counts are the ratios of
our shortest time to that of the fastest other reader, by the clock and in processor time. Our
frames are checked to equal those of a full decode. The last line is JSON.

--watches opens and reads a small clip so many times, and reports memory and open files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from hicom_edge.runtime.video import FrameSampling, read_frames

NUM_FRAMES = (8, 32, 64, 128)
FPS, SECONDS = 30, 60
SIZES = ((1920, 1080), (640, 360))
GROUPS = (30, 250)

Reader = Callable[[Path, int], int]
"""Reads so many frames of a video, spread evenly, and returns how many it got."""


def main() -> None:
    """Measure every video with every number of frames."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--frames", type=int, nargs="+", default=NUM_FRAMES)
    parser.add_argument("--watches", type=int, help="read a clip so often and watch for growth")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.watches:
            print(json.dumps(growth(Path(temporary), arguments.watches)))
            return
        videos = arguments.videos or list(write_clips(Path(temporary)))
        readers = installed_readers()
        print(f"{os.cpu_count()} CPUs; shortest of {arguments.repeat}; ms")
        heads = (*readers, "ratio", "cpu ratio")
        print(f"{'video':<18}{'frames':>8}" + "".join(f"{head:>10}" for head in heads))
        rows = [
            measure(video, num_frames, arguments.repeat, readers)
            for video in videos
            for num_frames in arguments.frames
        ]
    print(json.dumps(rows))


def measure(
    video: Path, num_frames: int, repeat: int, readers: dict[str, Reader]
) -> dict[str, Any]:
    """The shortest times of every reader, and ours as a part of the fastest other's."""
    check(video, num_frames)
    wall_ms, cpu_ms = (dict.fromkeys(readers, float("inf")) for _ in range(2))
    for _ in range(repeat):
        for name, read in readers.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            assert read(video, num_frames) == num_frames
            cpu_ms[name] = min(cpu_ms[name], (time.process_time() - cpu_start) * 1e3)
            wall_ms[name] = min(wall_ms[name], (time.perf_counter() - start) * 1e3)
    row = {
        "video": video.name,
        "frames": num_frames,
        "ms": {name: round(ms, 1) for name, ms in wall_ms.items()},
        "ratio": ratio_of_ours(wall_ms),
        "cpu_ratio": ratio_of_ours(cpu_ms),
    }
    print(
        f"{video.name:<18}{num_frames:>8}"
        + "".join(f"{ms:>10.1f}" for ms in wall_ms.values())
        + f"{row['ratio']:>10}{row['cpu_ratio']:>10}",
        flush=True,
    )
    return row


def ratio_of_ours(times_ms: dict[str, float]) -> float:
    """Our time divided by that of the fastest other reader."""
    others = min(ms for name, ms in times_ms.items() if name != "ours")
    return round(times_ms["ours"] / others, 2)


def check(video: Path, num_frames: int) -> None:
    """Compare our frames with a full decode."""
    frames = read_frames(video, FrameSampling(num_frames))
    expected = decode_all(video, set(frames.indices.tolist()))
    for number, frame in zip(frames.indices.tolist(), frames, strict=True):
        if not np.array_equal(frame, expected[number]):
            raise SystemExit(f"{video}: frame {number} differs from a full decode")


def installed_readers() -> dict[str, Reader]:
    """Ours and those of other libraries."""
    readers: dict[str, Reader] = {"ours": read_ours, "pyav": read_pyav}
    for name, module, reader in (
        ("decord2", "decord", read_decord),
        ("opencv", "cv2", read_opencv),
    ):
        try:
            __import__(module)
        except ImportError:
            continue
        readers[name] = reader
    return readers


def wanted_of(count: int, num_frames: int) -> list[int]:
    """The frames that we choose of ``count``."""
    middles = (2 * np.arange(num_frames) + 1) * (count - 1) + num_frames
    return [int(number) for number in middles // (2 * num_frames)]


def read_ours(video: Path, num_frames: int) -> int:
    """As `VideoQA.watch` reads."""
    return len(list(read_frames(video, FrameSampling(num_frames))))


def read_pyav(video: Path, num_frames: int) -> int:
    """Decode on with frame threads up to the last frame, as most code with PyAV does."""
    with av.open(str(video)) as container:
        count = container.streams.video[0].frames
    return len(decode_all(video, set(wanted_of(count, num_frames))))


def read_decord(video: Path, num_frames: int) -> int:
    """The frames in one batch, which seeks."""
    import decord

    reader = decord.VideoReader(str(video), num_threads=os.cpu_count() or 1)
    return len(reader.get_batch(wanted_of(len(reader), num_frames)).asnumpy())


def read_opencv(video: Path, num_frames: int) -> int:
    """Skipped frames are grabbed but not converted, because its seeks are inexact."""
    import cv2

    capture = cv2.VideoCapture(str(video))
    wanted = wanted_of(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), num_frames)
    found, place = [], -1
    for number in wanted:
        while place < number:
            capture.grab()
            place += 1
        found.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return len(found)


def decode_all(video: Path, wanted: set[int]) -> dict[int, Any]:
    """Decode up to the last wanted frame without skipping."""
    found = {}
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found[number] = frame.to_ndarray(format="rgb24")
            if number == max(wanted):
                break
    return found


def growth(folder: Path, watches: int) -> dict[str, Any]:
    """Resident memory and open files after a tenth of so many readings and after all."""
    path = folder / "clip.mp4"
    write_clip(path, 320, 180, 30, seconds=2)
    seen = []
    for number in range(1, watches + 1):
        read_ours(path, 8)
        if number in (max(1, watches // 10), watches):
            seen.append(
                {"readings": number, "rss_mb": round(rss_mb(), 1), "open_files": open_files()}
            )
            print(seen[-1])
    return {"watches": watches, "seen": seen}


def rss_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def open_files() -> int:
    """File descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def write_clips(folder: Path) -> Iterable[Path]:
    """Clips of a drifting, noisy pattern."""
    for width, height in SIZES:
        for group in GROUPS:
            path = folder / f"{height}p-gop{group}.mp4"
            write_clip(path, width, height, group)
            yield path


def write_clip(path: Path, width: int, height: int, group: int, seconds: int = SECONDS) -> None:
    """One H.264 clip with B-frames."""
    random = np.random.default_rng(0)
    pattern = random.integers(0, 256, (height // 8 + 1, width // 8, 3), np.uint8)
    pattern = pattern.repeat(8, 0).repeat(8, 1)[:height] // 2
    noise = random.integers(0, 24, (4, height, width, 3), np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "sc_threshold": "0"}
        stream: Any = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = group
        for number in range(FPS * seconds):
            image = np.roll(pattern, 2 * number % width, axis=1) + noise[number % 4]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
