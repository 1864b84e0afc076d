"""Frames from directories, pictures, animations and arrays, and the contract of Frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hicom_edge.errors import InputError, VideoError
from hicom_edge.runtime.video import FrameSampling, ReadingOptions, read_frames

FOUR = FrameSampling(num_frames=4)


def _flat(value: int, height: int = 6, width: int = 8) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def _write_frames(folder: Path, pattern: str, values: range) -> Path:
    folder.mkdir()
    for value in values:
        Image.fromarray(_flat(value)).save(folder / (pattern % value))
    return folder


def _values(source: Any, options: FrameSampling) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in read_frames(source, options)]


def test_a_directory_is_read_in_natural_order(tmp_path: Path) -> None:
    folder = _write_frames(tmp_path / "frames", "frame_%d.png", range(20))
    assert _values(folder, FrameSampling(num_frames=20)) == list(range(20))
    assert _values(str(folder), FrameSampling(num_frames=8)) == [1, 4, 6, 8, 11, 13, 15, 18]


def test_a_directory_has_three_frames_per_second(tmp_path: Path) -> None:
    folder = _write_frames(tmp_path / "frames", "%04d.png", range(30))
    frames = read_frames(folder, FrameSampling(num_frames=8, start=2.0, end=5.0))
    assert [int(frame[0, 0, 0]) for frame in frames] == frames.indices.tolist()
    assert frames.indices.tolist() == [6, 7, 8, 9, 11, 12, 13, 14]
    assert frames.source_fps == 3.0
    assert frames.duration_seconds == 10.0
    assert frames.timestamps is not None
    np.testing.assert_allclose(frames.timestamps, frames.indices / 3)
    assert (frames.width, frames.height, frames.modality) == (8, 6, "video")


def test_a_directory_of_one_image_is_a_video_that_repeats_it(tmp_path: Path) -> None:
    folder = _write_frames(tmp_path / "frames", "%d.png", range(7, 8))
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.png").write_bytes(b"")
    assert _values(folder, FOUR) == [7, 7, 7, 7]


def test_a_directory_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a frame")
    with pytest.raises(VideoError, match=r"a directory without images; expected frames named"):
        read_frames(tmp_path, FOUR)


def test_a_damaged_image_in_a_directory_is_named(tmp_path: Path) -> None:
    folder = _write_frames(tmp_path / "frames", "%d.png", range(4))
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:40])
    frames = read_frames(folder, FOUR, reading=ReadingOptions(strict=True))
    with pytest.raises(VideoError, match=r"2\.png: cannot be read as an image"):
        list(frames)


@pytest.mark.parametrize("damaged", [0, 2])
def test_a_damaged_image_in_a_directory_is_replaced(tmp_path: Path, damaged: int) -> None:
    folder = _write_frames(tmp_path / "frames", "%d.png", range(4))
    (folder / f"{damaged}.png").write_bytes((folder / f"{damaged}.png").read_bytes()[:40])
    frames = read_frames(folder, FOUR)
    taken = {0: [1, 1, 2, 3], 2: [0, 1, 1, 3]}[damaged]
    assert [int(frame[0, 0, 0]) for frame in frames] == taken
    assert (frames.width, frames.height) == (8, 6)
    assert frames.replaced == 1
    assert frames.remarks == (
        "1 of 4 frames cannot be decoded; the nearest ones that can were taken instead",
    )


def test_a_directory_of_damaged_images_is_refused(tmp_path: Path) -> None:
    folder = _write_frames(tmp_path / "frames", "%d.png", range(2))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(VideoError, match=r"0\.png: cannot be read as an image"):
        read_frames(folder, FOUR)


def test_a_window_of_damaged_images_is_refused(tmp_path: Path) -> None:
    folder = _write_frames(tmp_path / "frames", "%d.png", range(9))
    for number in (6, 7, 8):  # from 2 s on
        (folder / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(VideoError, match=r"\d\.png: cannot be read as an image"):
        list(read_frames(folder, FrameSampling(2, start=2.0)))


@pytest.mark.parametrize("target", ["gone.png", "1.png"], ids=["broken", "to itself"])
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, target: str) -> None:
    folder = _write_frames(tmp_path / "frames", "%d.png", range(1))
    (folder / "1.png").symlink_to(target)
    with pytest.raises(VideoError, match=r"1\.png: cannot be read \(.*\); restore or remove it"):
        read_frames(folder, FOUR)


def test_a_folder_among_the_frames_is_no_frame(tmp_path: Path) -> None:
    folder = _write_frames(tmp_path / "frames", "%d.png", range(3))
    (folder / "more.png").mkdir()
    assert _values(folder, FrameSampling(num_frames=3)) == [0, 1, 2]


def test_a_directory_that_cannot_be_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:  # permissions do not bind every user that runs tests
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(VideoError, match=r"the directory cannot be read \(Permission denied\)"):
        read_frames(tmp_path, FOUR)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tiff"])
def test_a_still_image_is_one_frame(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(_flat(90)).save(path)
    frames = read_frames(path, FrameSampling(num_frames=32))
    assert [frame.shape for frame in frames] == [(6, 8, 3)]
    assert (frames.modality, len(frames), frames.timestamps) == ("image", 1, None)
    np.testing.assert_array_equal(next(iter(frames)), np.asarray(Image.open(path)))


def test_an_image_is_put_on_white_and_turned_upright(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    image = Image.fromarray(pixels).convert("RGBA")
    image.putalpha(Image.new("L", (4, 4), 128))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    (frame,) = read_frames(tmp_path / "turned.png", FOUR)
    on_white = (pixels.astype(int) * 128 + 255 * 127 + 127) // 255
    np.testing.assert_array_equal(frame, np.rot90(on_white, -1))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_an_animation_is_a_video_with_its_own_times(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"animation.{suffix}"
    shades = [20, 60, 100, 140, 180]
    first, *rest = [Image.fromarray(_flat(shade)) for shade in shades]
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    durations = [100, 200, 300, 200, 200]
    first.save(path, save_all=True, append_images=rest, duration=durations, **options)
    frames = read_frames(path, FrameSampling(num_frames=5))
    assert [int(frame[0, 0, 0]) for frame in frames] == shades
    assert frames.modality == "video"
    assert frames.source_fps == 5.0
    assert frames.timestamps is not None
    np.testing.assert_allclose(frames.timestamps, [0.0, 0.1, 0.3, 0.6, 0.8])
    assert _values(path, FrameSampling(num_frames=2)) == [60, 140]


def test_a_gif_of_one_frame_is_an_image(tmp_path: Path) -> None:
    Image.fromarray(_flat(90)).save(tmp_path / "one.gif")
    frames = read_frames(tmp_path / "one.gif", FOUR)
    assert (frames.modality, len(frames)) == ("image", 1)


def test_a_damaged_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"no more")
    with pytest.raises(VideoError, match=r"broken\.png: cannot be read as an image \(.*replace"):
        read_frames(path, FOUR)


@pytest.mark.parametrize("count", [1, 3, 70])
def test_an_array_is_used_frame_for_frame(count: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    frames = read_frames(array, FrameSampling(num_frames=4))
    np.testing.assert_array_equal(np.stack(list(frames)), array)
    assert (frames.timestamps, frames.duration_seconds, frames.source_fps) == (None, None, 0.0)
    assert (frames.width, frames.height, frames.num_available) == (5, 4, count)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 3), np.float32),
    ],
)
def test_an_array_of_another_kind_is_refused(array: Any) -> None:
    expected = r"an array of shape \(.*\) and type \w+ was given; expected frames \(t, h, w, 3\)"
    with pytest.raises(InputError, match=expected):
        read_frames(array, FOUR)


def test_a_window_of_an_array_is_refused() -> None:
    with pytest.raises(InputError, match="an array, which has no clock; slice the array"):
        read_frames(np.zeros((2, 4, 4, 3), np.uint8), FrameSampling(4, start=1.0))


def test_what_is_no_source_is_refused() -> None:
    source: Any = 5
    with pytest.raises(InputError, match="a video of type int was given; expected a path, a URL"):
        read_frames(source, FOUR)


def test_frames_can_be_iterated_again_and_report_progress() -> None:
    array = np.arange(3 * 48, dtype=np.uint8).reshape(3, 4, 4, 3)
    seen: list[tuple[str, int, int, str]] = []
    frames = read_frames(array, FOUR, progress=lambda *step: seen.append(step))
    assert len(list(frames)) == len(list(frames)) == len(frames) == 3
    assert seen == [("watching", done, 3, "frame") for done in (1, 2, 3)] * 2


def test_runs_are_the_distinct_frames_with_their_repeats(tmp_path: Path) -> None:
    folder = _write_frames(tmp_path / "frames", "%d.png", range(3))
    seen: list[tuple[str, int, int, str]] = []
    options = FrameSampling(num_frames=7)
    frames = read_frames(folder, options, progress=lambda *step: seen.append(step))
    runs = [(int(frame[0, 0, 0]), count) for frame, count in frames.runs()]
    assert [value for value, count in runs for _ in range(count)] == frames.indices.tolist()
    assert [value for value, _ in runs] == [0, 1, 2]
    assert [done for _, done, _, _ in seen] == np.cumsum([count for _, count in runs]).tolist()
    assert seen[-1] == ("watching", 7, 7, "frame")


def test_the_fingerprint_follows_the_pixels_and_the_frames(tmp_path: Path) -> None:
    array = np.zeros((3, 4, 4, 3), np.uint8)
    before = read_frames(array, FOUR).fingerprint
    assert read_frames(array.copy(), FOUR).fingerprint == before
    array[2, 3, 3, 2] = 1
    assert read_frames(array, FOUR).fingerprint != before

    folder = _write_frames(tmp_path / "frames", "%d.png", range(9))
    four = read_frames(folder, FOUR).fingerprint
    assert read_frames(folder, FOUR).fingerprint == four
    assert read_frames(folder, FrameSampling(num_frames=5)).fingerprint != four
    Image.fromarray(_flat(200, 30)).save(folder / "1.png")
    assert read_frames(folder, FOUR).fingerprint != four
