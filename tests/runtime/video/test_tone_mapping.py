"""HDR: told to the user, and tone-mapped on request to known values."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from hicom_edge.runtime.video import FrameSampling, ReadingOptions, read_frames
from hicom_edge.runtime.video.tone_mapping import HLG, PQ, sdr_rgb

TWO = FrameSampling(num_frames=2)


def pq(nits: float) -> float:
    """The inverse of SMPTE ST 2084, 0 to 1."""
    m1, m2 = 2610 / 16384, 2523 / 32
    c1, c2, c3 = 3424 / 4096, 2413 / 128, 2392 / 128
    power = (nits / 10000) ** m1
    return float(((c1 + c2 * power) / (1 + c3 * power)) ** m2)


def grey_frame(level: float, transfer: int) -> av.VideoFrame:
    """A 10-bit frame of one grey, level 0 to 1, in the nominal range."""
    frame = av.VideoFrame(16, 16, "yuv420p10le")
    for plane, value in zip(frame.planes, (round(64 + 876 * level), 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, value, "<u2").tobytes())
    frame.color_trc, frame.colorspace, frame.color_primaries = transfer, 9, 9
    return frame


@pytest.mark.parametrize(
    ("nits", "expected"),
    [
        (0, 0.0),
        (50.0, 255 * (50 / 203) ** (1 / 2.4)),  # below the knee: the same light
        (100.0, 255 * (100 / 203) ** (1 / 2.4)),
        (1000.0, 255.0),  # the peak
    ],
)
def test_pq_greys_keep_their_light_below_the_knee(nits: float, expected: float) -> None:
    pixels = sdr_rgb(grey_frame(pq(nits), PQ))
    np.testing.assert_allclose(pixels, expected, atol=2)


def test_brighter_stays_brighter() -> None:
    for transfer in (PQ, HLG):
        greys = [int(sdr_rgb(grey_frame(x, transfer))[8, 8, 1]) for x in np.linspace(0, 0.75, 40)]
        assert greys == sorted(greys)
        assert greys[-1] > 200


def write_hdr(path: Path, transfer: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=10, options={"x265-params": "log-level=0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.colorspace, context.color_primaries = transfer, 9, 9
        for number in range(4):
            frame = grey_frame(pq(100.0), transfer).reformat(64, 64)
            frame.color_trc, frame.colorspace, frame.color_primaries = transfer, 9, 9
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("transfer", "name"), [(PQ, "PQ"), (HLG, "HLG")])
def test_an_hdr_video_is_remarked_and_can_be_mapped(
    tmp_path: Path, transfer: int, name: str
) -> None:
    path = write_hdr(tmp_path / "clip.mp4", transfer)
    as_it_is = read_frames(path, TWO)
    (remark,) = as_it_is.remarks
    assert remark.startswith(f"the video is HDR ({name}) and looks pale and dim as it is; the opt")
    mapped = read_frames(path, TWO, reading=ReadingOptions(tone_map=True))
    assert mapped.remarks == ()
    if transfer == PQ:
        right = 255 * (100 / 203) ** (1 / 2.4)
        assert float(next(iter(mapped)).mean()) == pytest.approx(right, abs=4)
        assert float(next(iter(as_it_is)).mean()) < right - 30
