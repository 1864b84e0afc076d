"""The stream that a person would see, of several, and side data that PyAV has no name for."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from hicom_edge.runtime.video import FrameSampling, read_frames

FOUR = FrameSampling(4)
DEFAULT = av.stream.Disposition.default
avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")


def write_streams(path: Path, streams: list[tuple[int, int, int, bool]]) -> Path:
    """Several streams of (width, height, shade, default), 10 frames each; 0 x 0 stays empty."""
    with av.open(str(path), "w") as container:
        outs: list[Any] = []
        for width, height, _, is_default in streams:
            out: Any = container.add_stream("libx264", rate=10)
            out.width, out.height, out.pix_fmt = width or 64, height or 64, "yuv420p"
            out.disposition = DEFAULT if is_default else 0
            outs.append(out)
        for _ in range(10):
            for (width, height, shade, _), out in zip(streams, outs):
                if width:
                    image = np.full((height, width, 3), shade, np.uint8)
                    container.mux(out.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for (width, *_), out in zip(streams, outs):
            if width:
                container.mux(out.encode())
    return path


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize(
    ("streams", "width"),
    [
        ([(160, 90, 50, False), (320, 180, 200, True)], 320),
        ([(320, 180, 50, False), (160, 90, 200, True)], 160),
        ([(160, 90, 50, False), (320, 180, 200, False)], 320),
        ([(160, 90, 50, True), (320, 180, 200, True)], 320),
        ([(320, 180, 200, True), (320, 180, 50, True)], 320),
    ],
    ids=["default large", "default small", "size", "two defaults", "first of equals"],
)
def test_the_stream_is_ffmpegs_choice(
    tmp_path: Path, suffix: str, streams: list[tuple[int, int, int, bool]], width: int
) -> None:
    path = write_streams(tmp_path / f"clip.{suffix}", streams)
    if suffix == "mp4":  # FFmpeg writes no flags into it, and reads all tracks as enabled
        with av.open(str(path)) as container:
            if [bool(s.disposition & DEFAULT) for s in container.streams] != [
                stream[3] for stream in streams
            ]:
                pytest.skip("the flags were not kept")
    frames = read_frames(path, FOUR)
    assert (frames.width, frames.num_available) == (width, 10)
    chosen = next(stream for stream in streams if stream[0] == width)
    assert float(next(iter(frames)).mean()) == pytest.approx(chosen[2], abs=3)


def test_an_empty_default_stream_is_passed_over(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "clip.mkv", [(0, 0, 0, True), (160, 90, 200, False)])
    frames = read_frames(path, FOUR)
    assert (frames.width, frames.num_available) == (160, 10)


@avif
def test_the_still_before_an_avif_animation_is_passed_over(tmp_path: Path) -> None:
    images = [Image.new("RGB", (64, 48), (20 * k, 0, 0)) for k in range(10)]
    path = tmp_path / "clip.avif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[100] * 5 + [500] * 5)
    frames = read_frames(path, FrameSampling(10))
    assert (frames.modality, frames.num_available) == ("video", 10)
    reds = [float(frame[..., 0].mean()) for frame in frames]
    assert reds == pytest.approx([20 * k for k in range(10)], abs=4)
    assert frames.timestamps == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 1, 1.5, 2, 2.5])


def orientated_jpeg(orientation: int) -> bytes:
    """A picture of four colours, stored so that the orientation makes it upright."""
    image = Image.new("RGB", (96, 64), (200, 0, 0))
    image.paste((0, 0, 200), (0, 0, 48, 32))
    image.paste((0, 200, 0), (48, 32, 96, 64))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Camera"
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif, quality=95, subsampling=0)
    return out.getvalue()


def upright(jpeg: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), int)


@pytest.mark.parametrize("suffix", ["mjpeg", "avi", "mov", "mkv"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_motion_jpeg_with_exif_is_read_upright(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    jpeg = orientated_jpeg(orientation)
    raw = tmp_path / "raw.mjpeg"
    raw.write_bytes(jpeg * 20)
    path = tmp_path / f"clip.{suffix}"
    if suffix == "mjpeg":
        path = raw
    else:
        with av.open(str(raw)) as source, av.open(str(path), "w") as target:
            out = target.add_stream_from_template(source.streams.video[0])
            for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
                packet.stream, packet.pts, packet.dts = out, number, number
                packet.time_base = out.time_base = out.time_base or source.streams[0].time_base
                target.mux(packet)
    frames = read_frames(path, FrameSampling(8))
    assert frames.num_available == 20
    expected = upright(jpeg)
    assert (frames.height, frames.width) == expected.shape[:2]
    for frame in frames:
        assert np.abs(frame.astype(int) - expected).mean() < 6


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("orientation", [1, 5, 6])
def test_a_photo_is_the_same_by_path_and_by_url(
    tmp_path: Path, served: str, orientation: int
) -> None:
    jpeg = orientated_jpeg(orientation)
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    path = tmp_path / "photo.jpg"
    for source in (path, path.as_uri(), f"{served}/photo.jpg"):
        frames = read_frames(source, FOUR)
        assert (frames.modality, len(frames), frames.timestamps) == ("image", 1, None)
        np.testing.assert_array_equal(next(iter(frames)), upright(jpeg))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_an_animation_is_the_same_by_path_and_by_url(
    tmp_path: Path, served: str, suffix: str
) -> None:
    images = [Image.new("RGB", (16, 16), (20 * k, 0, 0)) for k in range(6)]
    path = tmp_path / f"clip.{suffix}"
    images[0].save(path, save_all=True, append_images=images[1:], duration=200, loop=0)
    here, there = read_frames(path, FOUR), read_frames(f"{served}/{path.name}", FOUR)
    assert here.timestamps == pytest.approx(there.timestamps)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one, other)
