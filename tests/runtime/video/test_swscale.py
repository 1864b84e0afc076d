"""RGB values: the integers of swscale on x86-64, whatever the processor."""

from __future__ import annotations

import hashlib

import av
import numpy as np
import pytest

from hicom_edge.runtime.video import swscale

X86 = pytest.mark.skipif(
    not swscale.HAS_REFERENCE_CONVERTER, reason="compares with swscale on x86-64"
)
FORMATS = ["yuv420p", "yuvj420p", "yuv422p", "yuvj422p"]


def noise(pixel_format: str, width: int, height: int) -> av.VideoFrame:
    """A frame whose every byte is drawn; values beyond the nominal range are among them."""
    random = np.random.default_rng(width * height)
    frame = av.VideoFrame(width, height, pixel_format)
    for plane in frame.planes:
        plane.update(random.integers(0, 256, plane.buffer_size, dtype=np.uint8).tobytes())
    return frame


@X86
@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("colour_space", [None, 1, 4, 7, 9])
@pytest.mark.parametrize("full_range", [False, True])
def test_equal_to_the_converter_of_x86(
    pixel_format: str, colour_space: int | None, full_range: bool
) -> None:
    for width, height in [(2, 2), (3, 4), (15, 8), (16, 2), (33, 6), (70, 46), (854, 480)]:
        frame = noise(pixel_format, width, height)
        if colour_space is not None:
            frame.colorspace = colour_space
        if full_range:
            frame.color_range = 2
        expected = frame.to_ndarray(format="rgb24")
        np.testing.assert_array_equal(swscale.converted(frame), expected, err_msg=f"{width}")


@X86
def test_blocks_of_rows_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swscale, "_BLOCK_PIXELS", 64 * 10)
    for pixel_format in FORMATS:
        frame = noise(pixel_format, 64, 46)
        expected = frame.to_ndarray(format="rgb24")
        np.testing.assert_array_equal(swscale.converted(frame), expected)


@X86
@pytest.mark.parametrize("size", [(64, 48), (66, 48), (71, 47), (64, 47)])
@pytest.mark.parametrize("pixel_format", [*FORMATS, "nv12", "yuv444p", "yuv420p10le", "gray"])
def test_other_processors_take_the_same_values(
    pixel_format: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = noise(pixel_format, *size)
    expected = swscale.rgb_of(frame)
    monkeypatch.setattr(swscale, "HAS_REFERENCE_CONVERTER", False)
    np.testing.assert_array_equal(swscale.rgb_of(frame), expected)


@X86
@pytest.mark.parametrize("size", [(64, 48), (71, 48), (71, 47)])
def test_transparency_is_kept_on_other_processors(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = noise("yuva420p", *size)
    expected = swscale.rgba_of(frame)
    monkeypatch.setattr(swscale, "HAS_REFERENCE_CONVERTER", False)
    np.testing.assert_array_equal(swscale.rgba_of(frame), expected)


def test_the_values_are_the_same_on_every_machine() -> None:
    """Hashes made on x86-64; on another processor they are what this module is for."""
    digests = [
        hashlib.blake2b(swscale.rgb_of(noise(name, 70, 46)).tobytes(), digest_size=8).hexdigest()
        for name in (*FORMATS, "nv12")
    ]
    assert digests == [
        "bd257de637ce244d",
        "e7de3da5ce283c1e",
        "00f54b2da767b618",
        "b2bf86b05f1b5ce7",
        "2ea463f1e603408f",
    ]
