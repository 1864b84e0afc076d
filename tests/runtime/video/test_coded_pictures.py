"""Streams whose packets are not one shown frame each: all frames that the decoder gives."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from uncompressed_h264 import luma_of, stream

from hicom_edge.runtime.video import FrameSampling, ReadingOptions, read_frames
from hicom_edge.runtime.video.coded_pictures import Coded, packet_reader
from hicom_edge.runtime.video.file import VideoFile

FIELD = Fraction(1, 50)
CONTAINERS = ["ts", "mkv", "mp4"]


def decode_all(path: Path) -> list[NDArray[Any]]:
    """Every frame by plain decoding; packets that the decoder refuses are skipped."""
    frames = []
    with av.open(str(path)) as container:
        stream_ = container.streams.video[0]
        for packet in [p for p in container.demux(stream_) if p.size] + [None]:
            with suppress(av.error.FFmpegError):
                frames += stream_.codec_context.decode(packet)
        return [frame.to_ndarray(format="rgb24") for frame in frames]


def is_counted_by_packets(path: Path) -> bool:
    return VideoFile(str(path), ReadingOptions()).index.frames is not None


def assert_every_frame(path: Path, count: int | None = None) -> None:
    expected = decode_all(path)
    assert count in (None, len(expected))
    for num_frames in (1, 4, len(expected)):
        frames = read_frames(path, FrameSampling(num_frames))
        assert frames.num_available == len(expected)
        for index, frame in zip(frames.indices.tolist(), frames, strict=True):
            np.testing.assert_array_equal(frame, expected[index], err_msg=f"frame {index}")
        assert [remark for remark in frames.remarks if "is interlaced" not in remark] == []


def copied(source: Path, target: Path, packets: Iterable[Any] | None = None) -> Path:
    """Packets of ``source``, or changed ones, in another container."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        out = writing.add_stream_from_template(reading.streams.video[0])
        for packet in packets or [p for p in reading.demux(video=0) if p.size]:
            packet.stream = out
            writing.mux(packet)
    return target


def write_fields(folder: Path, suffix: str, are_fields: Sequence[bool], *, joined: bool) -> Path:
    """Frames of 1/25 s; the fields of a frame are packets of their own unless ``joined``."""
    raw = folder / "raw.264"
    raw.write_bytes(stream(are_fields))
    with av.open(str(raw)) as container:
        data = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    path, at = folder / f"clip.{suffix}", 0
    with av.open(str(raw)) as reading, av.open(str(path), "w") as writing:
        out = writing.add_stream_from_template(reading.streams.video[0])
        pieces = iter(data)
        for in_fields in are_fields:
            mine = [next(pieces) for _ in range(1 + in_fields)]
            for one in [b"".join(mine)] if joined else mine:
                packet = av.Packet(one)
                packet.pts = packet.dts = at
                packet.duration = 2 if len(mine) == 1 or joined else 1
                packet.time_base, packet.stream = FIELD, out
                packet.is_keyframe = at % 24 == 0
                at += packet.duration
                writing.mux(packet)
    return path


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("joined", [False, True], ids=["fields", "pairs"])
@pytest.mark.parametrize(
    "are_fields",
    [[True] * 50, [k % 3 == 1 for k in range(50)], [k >= 30 for k in range(50)]],
    ids=["all", "mixed", "late"],
)
def test_field_pictures_make_frames(
    tmp_path: Path, suffix: str, joined: bool, are_fields: list[bool]
) -> None:
    path = write_fields(tmp_path, suffix, are_fields, joined=joined)
    assert_every_frame(path, 50)
    frames = read_frames(path, FrameSampling(50))
    levels = [float(frame.mean()) for frame in frames]
    assert levels == pytest.approx([(luma_of(k) - 16) * 255 / 219 for k in range(50)], abs=1.5)
    assert frames.timestamps == pytest.approx(np.arange(50) / 25, abs=0.021)
    assert frames.duration_seconds == pytest.approx(2.0, abs=0.05)


def test_streams_that_may_hold_fields_are_decoded_only_where_they_do(tmp_path: Path) -> None:
    for are_fields, joined, counted in (([False] * 9, False, True), ([True] * 9, True, True)):
        path = write_fields(tmp_path, "mp4", are_fields, joined=joined)
        assert is_counted_by_packets(path) == counted


VP9_PICTURES = (
    "c-oU~@@#fuVEDlBjln`iMuLxl!61QwL16#?fBUQq7(`nb8a%5Qniv?^fT9d1|Np;x{SSjk8-v5NISft-49q}LN&El5cQP>"
    "WqX;@Vh=TYZ7&#djc%WJ@A3Xq6#mF!Ts7e8>D(C~y0*BTrhK2)h3(j;jFaY&B@_k_BK<GWRqXA@tBOg#N15mFYgHHgI@Av"
    "@BcQOF-8@Yh|15mR?AdYWfU|@k5vdDn};`R@WYz=UudH*m7qYJ*iz#sq>gSf$w0j>z{sE-R^-f>KTS}BVfnm}a=;K2N!0`"
    "v=m7}T?H2mL)_17wIo{h<I0&i^0RFu=lq1>w+3g$T6_aJ8S6aEU_0!{GtcaR83$jad"
)
"""Pictures of 16x16 pixels, compressed by zlib, each behind a byte of its length: 20 are shown, and
4, which an encoder looking ahead has made, are not."""


def test_hidden_vp9_pictures_in_packets_of_their_own_are_no_frames(tmp_path: Path) -> None:
    data, pictures = zlib.decompress(base64.b85decode(VP9_PICTURES)), []
    while data:
        pictures.append(data[1 : 1 + data[0]])
        data = data[1 + data[0] :]
    assert len(pictures) == 24
    header = struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, b"VP90", 16, 16, 50, 1, 24, 0)
    units = [struct.pack("<IQ", len(one), k) + one for k, one in enumerate(pictures)]
    path = tmp_path / "clip.ivf"
    path.write_bytes(header + b"".join(units))
    assert_every_frame(path, 20)
    assert is_counted_by_packets(path)


@pytest.mark.parametrize("codec", ["libaom-av1", "libsvtav1"])
@pytest.mark.parametrize("suffix", ["mp4", "webm", "obu"])
def test_hidden_av1_pictures_are_no_frames(tmp_path: Path, codec: str, suffix: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip("no encoder")
    path = tmp_path / f"clip.{suffix}"
    fast = {"cpu-used": "8"} if codec == "libaom-av1" else {"preset": "12"}
    with av.open(str(path), "w") as container:
        out: Any = container.add_stream(codec, rate=25, options=fast)
        out.width, out.height, out.pix_fmt, out.bit_rate = 160, 120, "yuv420p", 100_000
        for k in range(50):
            image = np.full((120, 160, 3), 5 * k, np.uint8)
            container.mux(out.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(out.encode())
    assert_every_frame(path, 50)
    assert is_counted_by_packets(path)


def write_mpeg4(path: Path, b_frames: int) -> Path:
    with av.open(str(path), "w") as container:
        out: Any = container.add_stream("mpeg4", rate=25)
        out.width, out.height, out.pix_fmt = 64, 48, "yuv420p"
        out.codec_context.max_b_frames = b_frames
        noise = np.random.default_rng(0).integers(0, 60, (48, 64, 3), np.uint8)
        for k in range(30):
            image = np.roll(noise + np.uint8(6 * k), k, 1)
            container.mux(out.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(out.encode())
    return path


@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_b_frames_packed_into_the_packet_before_are_frames(tmp_path: Path, suffix: str) -> None:
    """As DivX writes AVI: a packet of two pictures, later one that says "not coded"."""
    source = write_mpeg4(tmp_path / "plain.mp4", 1)
    with av.open(str(source)) as container:
        data = [bytes(p) for p in container.demux(video=0) if p.size]
        config = container.streams.video[0].codec_context.extradata
    assert config is not None
    kinds = [one[one.index(b"\0\0\1\xb6") + 4] >> 6 for one in data]  # 0: I, 1: P, 2: B
    data[0] = b"\0\0\1\xb2DivX503b1393p\0" + data[0]  # the mark of a writer that packs
    packed: list[bytes] = []
    for kind, one in zip(kinds, data):
        if kind == 2:
            packed[-1] += one
            packed.append(b"\0\0\1\xb6\x50\x00\x7f")  # a P picture that is not coded
        else:
            packed.append(one)
    path = tmp_path / f"packed.{suffix}"
    with av.open(str(source)) as reading, av.open(str(path), "w") as writing:
        out = writing.add_stream_from_template(reading.streams.video[0])
        for number, one in enumerate(packed):
            packet = av.Packet(one)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 25), out
            packet.is_keyframe = number == 0
            writing.mux(packet)
    assert_every_frame(path)
    frames = read_frames(path, FrameSampling(10))
    assert 28 <= frames.num_available <= 30
    assert frames.duration_seconds == pytest.approx(frames.num_available / 25, abs=0.1)


def test_an_empty_packet_of_an_avi_is_no_frame_and_no_end(tmp_path: Path) -> None:
    path = write_mpeg4(tmp_path / "clip.avi", 0)
    data = bytearray(path.read_bytes())
    expected = decode_all(path)
    index = data.index(b"idx1")
    entries = range(index + 8, index + 8 + 16 * 30, 16)
    movi = data.index(b"movi")
    for number in (10, 11, 20):  # pictures that stay on screen: chunks of no bytes
        at = entries[number]
        offset = movi + int.from_bytes(data[at + 8 : at + 12], "little")
        size = int.from_bytes(data[offset + 4 : offset + 8], "little")
        data[offset + 4 : offset + 8] = bytes(4)
        data[at + 12 : at + 16] = bytes(4)
        filler = size + size % 2 - 8  # the freed bytes become a chunk to pass over
        data[offset + 8 : offset + 16] = b"JUNK" + filler.to_bytes(4, "little")
    path.write_bytes(data)
    frames = read_frames(path, FrameSampling(27))
    assert frames.num_available == 27
    assert frames.timestamps is not None
    shown = (frames.timestamps * 25).round().astype(int).tolist()
    assert shown == [k for k in range(30) if k not in (10, 11, 20)]
    np.testing.assert_array_equal(list(frames)[9], expected[9])
    assert frames.remarks == ()


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_packet_without_a_picture_is_no_frame(tmp_path: Path, suffix: str) -> None:
    """Cameras send packets of messages alone."""
    source = write_fields(tmp_path, "mkv", [False] * 30, joined=False)
    message = b"\x06\x05\x10" + bytes(range(16)) + b"\x80"
    message = len(message).to_bytes(4, "big") + message
    packets = []
    with av.open(str(source)) as container:
        for number, packet in enumerate(p for p in container.demux(video=0) if p.size):
            packet.pts = packet.dts = 4 * number
            packet.time_base = Fraction(1, 100)
            packets.append(packet)
            if number % 5 == 2:
                extra = av.Packet(message)
                extra.pts = extra.dts = 4 * number + 2
                extra.time_base = Fraction(1, 100)
                packets.append(extra)
    path = copied(source, tmp_path / f"messages.{suffix}", packets)
    assert_every_frame(path, 30)


@pytest.mark.parametrize(
    ("codec", "data", "coded"),
    [
        ("libvpx-vp9", b"\x82\x49\x83\x42", Coded.SHOWN),  # keyframe, shown
        ("libvpx-vp9", b"\x84\x00\x00\x00", Coded.HIDDEN),  # inter frame, not shown
        ("libvpx-vp9", b"\x88", Coded.SHOWN),  # shows an earlier picture
        ("libvpx-vp9", b"\x86\x00\x86\x00\xc1\x02\x02\xc1", Coded.UNCLEAR),  # two shown
        ("libvpx-vp9", b"\x84\x00\x86\x00\xc1\x02\x02\xc1", Coded.SHOWN),  # hidden and shown
    ],
)
def test_the_headers_of_vp9(codec: str, data: bytes, coded: Coded) -> None:
    class Stream:
        codec_context = av.CodecContext.create("vp9", "r")

    stream_: Any = Stream()
    assert packet_reader(stream_)(av.Packet(data)) is coded


@pytest.mark.skipif("libx265" not in av.codecs_available, reason="no encoder")
@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("cut", range(26, 31))
def test_a_recording_joined_where_pictures_depend_on_what_was_cut(
    tmp_path: Path, suffix: str, cut: int
) -> None:
    """The decoder gives frames out of the order of their times there, or none."""
    source = tmp_path / "whole.mp4"
    options = {"x265-params": "log-level=none:open-gop=1:keyint=25:bframes=3"}
    with av.open(str(source), "w") as container:
        out: Any = container.add_stream("libx265", rate=25, options=options)
        out.width, out.height, out.pix_fmt = 64, 64, "yuv420p"
        for k in range(80):
            image = np.full((64, 64, 3), 20 + 2 * k, np.uint8)
            image[:, 2 * k % 64] = 255
            container.mux(out.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(out.encode())
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        second = [number for number, packet in enumerate(packets) if packet.is_keyframe][1]
        joined = []
        for at, number in enumerate([*range(cut), *range(second, 80)]):
            packet, step = av.Packet(bytes(packets[number])), 512
            packet.dts = step * at
            packet.pts = packet.dts + packets[number].pts - packets[number].dts
            packet.time_base, packet.duration = packets[number].time_base, step
            packet.is_keyframe = packets[number].is_keyframe
            joined.append(packet)
    path = copied(source, tmp_path / f"joined.{suffix}", joined)
    expected = decode_all(path)
    frames = read_frames(path, FrameSampling(cut + 80 - second))
    shown = list(frames)
    assert len(expected) <= frames.num_available <= cut + 80 - second
    assert frames.replaced == frames.num_available - len(expected)
    if not frames.replaced:
        for index, frame in zip(frames.indices.tolist(), shown, strict=True):
            np.testing.assert_array_equal(frame, expected[index])
