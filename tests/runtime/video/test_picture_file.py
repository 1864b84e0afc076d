"""Pictures of every depth, with transparency, palettes and in HEIF: right as 8-bit RGB."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from heif_grid import photo_of_tiles
from numpy.typing import NDArray
from PIL import Image, features

from hicom_edge.errors import VideoError
from hicom_edge.runtime.video import FrameSampling, read_frames

FOUR = FrameSampling(4)


def pixels(path: Path) -> NDArray[np.uint8]:
    frames = read_frames(path, FOUR)
    assert (frames.modality, len(frames)) == ("image", 1)
    (frame,) = frames
    assert (frame.dtype, frame.shape[2]) == (np.uint8, 3)
    return frame


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_of_grey_are_scaled(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    Image.fromarray(np.tile(ramp, (4, 1))).save(tmp_path / f"grey.{suffix}")
    expected = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (4, 1, 3))
    np.testing.assert_array_equal(pixels(tmp_path / f"grey.{suffix}"), expected)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_of_colour_are_scaled(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"colour.{suffix}"
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    image = np.stack([np.tile(ramp, (8, 1)), np.tile(ramp[::-1], (8, 1)), np.full((8, 256), 32896)])
    with av.open(str(path), "w", format="image2") as container:
        stream: Any = container.add_stream("png" if suffix == "png" else "tiff")
        stream.width, stream.height = 256, 8
        stream.pix_fmt = "rgb48be" if suffix == "png" else "rgb48le"
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(image.transpose(1, 2, 0).astype(np.uint16)), format="rgb48le"
        )
        container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    expected = (image.transpose(1, 2, 0) / 257).round()
    assert np.abs(pixels(path).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.25, 0.5, 1.0], [0, 64, 128, 255]),
        ([0.0, 10.0, 100.0, 255.0], [0, 10, 100, 255]),
        ([0.0, 257.0, 25700.0, 65535.0], [0, 1, 100, 255]),
        ([-1.0, 0.0, 0.5, 1.0], [0, 128, 191, 255]),
        ([0.0, 1e5, 5e5, 1e6], [0, 26, 128, 255]),
        ([7.0, float("nan"), float("inf"), 7.0], [7, 0, 0, 7]),
    ],
    ids=["0..1", "0..255", "0..65535", "signed", "wide", "no numbers"],
)
def test_floats_are_scaled_by_their_range(
    tmp_path: Path, values: list[float], expected: list[int]
) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "float.tiff")
    assert pixels(tmp_path / "float.tiff")[0, :, 0].tolist() == expected


def test_32_bit_integers_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 25700, 65535]], np.int32)).save(tmp_path / "int.tiff")
    assert pixels(tmp_path / "int.tiff")[0, :, 0].tolist() == [0, 1, 100, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_transparent_parts_show_white(tmp_path: Path, mode: str) -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[..., :3] = 0, 200, 0
    rgba[4:8, 4:8] = 80, 80, 80, 255
    image = Image.fromarray(rgba)
    path = tmp_path / "cutout.png"
    if mode == "P":
        image = Image.new("P", (16, 16), 0)
        image.putpalette([0, 200, 0, 80, 80, 80])
        image.paste(1, (4, 4, 8, 8))
        image.save(path, transparency=0)
    else:
        image.convert(mode).save(tmp_path / ("cutout.tiff" if mode == "PA" else "cutout.png"))
        path = tmp_path / ("cutout.tiff" if mode == "PA" else "cutout.png")
    frame = pixels(path)
    assert frame[0, 0].tolist() == [255, 255, 255]
    assert frame[5, 5].tolist() == [80, 80, 80]


def test_half_transparent_parts_are_blended_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 100, 200, 51)).save(tmp_path / "veil.png")
    assert pixels(tmp_path / "veil.png")[0, 0].tolist() == [204, 224, 244]


def test_an_animation_with_transparent_parts_shows_white(tmp_path: Path) -> None:
    images = [Image.new("RGBA", (8, 8), (0, 0, 0, 0)) for _ in range(3)]
    for k, image in enumerate(images):
        image.paste((200, 0, 0, 255), (k, 0, k + 1, 8))
    path = tmp_path / "clip.png"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, blend=0, disposal=1)
    for k, frame in enumerate(read_frames(path, FrameSampling(3))):
        assert frame[0, k].tolist() == [200, 0, 0]
        assert frame[0, 7].tolist() == [255, 255, 255]


@pytest.mark.parametrize("codec", ["png", "qtrle", "prores_ks"])
def test_a_video_with_transparent_parts_shows_white(tmp_path: Path, codec: str) -> None:
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[8:24, 8:24] = 200, 0, 0, 255
    path = tmp_path / "clip.mov"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = {"png": "rgba", "qtrle": "argb"}.get(codec, "yuva444p10le")
        if codec == "prores_ks":
            stream.codec_context.options = {"profile": "4444"}
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    for shown in read_frames(path, FrameSampling(3)):
        assert shown[0, 0].tolist() == pytest.approx([255, 255, 255], abs=3)
        assert shown[16, 16].tolist() == pytest.approx([200, 0, 0], abs=8)


def test_a_fourth_byte_that_is_never_used_is_no_transparency(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("rawvideo", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "bgra"
        image = np.zeros((16, 16, 4), np.uint8)
        image[..., 2] = 200
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgra")))
        container.mux(stream.encode())
    (shown,) = read_frames(path, FrameSampling(1))
    assert shown[0, 0].tolist() == [200, 0, 0]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (16, 16), (255, 0, 255, 0)).save(path, quality=100)
    with Image.open(path) as image:
        np.testing.assert_array_equal(pixels(path), np.asarray(image.convert("RGB")))
    assert pixels(path)[0, 0].tolist() == pytest.approx([0, 255, 0], abs=3)


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv444p12le", "gray12le"])
def test_more_than_8_bits_of_video_are_scaled(tmp_path: Path, pixel_format: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16)[None, :, None], (64, 1, 3))
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 256, 64, pixel_format
        frame = av.VideoFrame.from_ndarray(ramp, format="rgb48le")
        container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode())
    (shown,) = read_frames(path, FrameSampling(1))
    assert np.abs(shown[0].astype(int) - np.arange(256)[:, None]).max() <= 3


def test_the_default_image_of_an_animated_png_is_no_frame(tmp_path: Path) -> None:
    colours = [(255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = [Image.new("RGB", (16, 16), colour) for colour in colours]
    path = tmp_path / "clip.png"
    images[0].save(
        path, save_all=True, append_images=images[1:], default_image=True, duration=500, loop=0
    )
    frames = read_frames(path, FrameSampling(3))
    assert frames.num_available == 3
    assert [tuple(frame[0, 0].tolist()) for frame in frames] == colours[1:]
    assert frames.timestamps == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize("suffix", ["ppm", "jp2", "tga"])
def test_pictures_of_other_formats_are_images(tmp_path: Path, suffix: str) -> None:
    if suffix == "jp2" and not features.check("jpg_2000"):
        pytest.skip("this Pillow writes no JPEG 2000")
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    path = tmp_path / f"picture.{suffix}"
    options: dict[str, Any] = {"irreversible": False} if suffix == "jp2" else {}
    Image.fromarray(image).save(path, **options)
    np.testing.assert_array_equal(pixels(path), image)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
def test_an_avif_photo_is_an_image(tmp_path: Path) -> None:
    path = tmp_path / "photo.avif"
    Image.new("RGB", (64, 48), (200, 30, 30)).save(path)
    assert pixels(path).shape == (48, 64, 3)
    assert pixels(path)[0, 0].tolist() == pytest.approx([200, 30, 30], abs=4)


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"heix"])
def test_a_heic_photo_is_read_whole_whatever_its_brand(tmp_path: Path, brand: bytes) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    image = np.zeros((128, 192, 3), np.uint8)
    image[:64, :96] = 255, 0, 0
    image[64:, 96:] = 0, 0, 255
    path = tmp_path / "photo.heic"
    try:
        pillow_heif.from_pillow(Image.fromarray(image)).save(path, quality=95)
    except RuntimeError:
        pytest.skip("this pillow-heif cannot write")
    data = path.read_bytes()
    path.write_bytes(data[:8] + brand + data[12:])
    assert np.abs(pixels(path).astype(int) - image).mean() < 4


@pytest.mark.skipif("libx265" not in av.codecs_available, reason="this FFmpeg writes no HEVC")
def test_the_tiles_of_a_heic_photo_are_joined(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    path = tmp_path / "photo.heic"
    path.write_bytes(photo_of_tiles(colours))
    frame = pixels(path)
    assert frame.shape == (128, 128, 3)
    for tile, colour in enumerate(colours):
        middle = frame[32 + 64 * (tile // 2), 32 + 64 * (tile % 2)]
        assert middle.tolist() == pytest.approx(colour, abs=6)


def test_a_heic_photo_is_refused_by_name_without_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    path = tmp_path / "photo.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(VideoError, match=r"is a HEIC photo, which needs the package pillow-heif; "):
        read_frames(path, FOUR)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "gif", "avif", "jp2"])
def test_a_damaged_picture_is_read_or_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    needed = {"avif": "avif", "jp2": "jpg_2000"}.get(suffix)
    if needed and not features.check(needed):
        pytest.skip("this Pillow does not write it")
    random = np.random.default_rng(0)
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(40):
        damaged = data.copy()
        damaged[random.integers(0, len(data), 5)] = random.integers(0, 256, 5)
        path.write_bytes(damaged.tobytes())
        try:
            assert len(list(read_frames(path, FOUR))) in {1, 4}
        except VideoError as error:
            assert "\n" not in str(error)
