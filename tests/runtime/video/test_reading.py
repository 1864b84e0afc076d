"""Video files, written here with real encoders: the right frames, and one line for every damage."""

from __future__ import annotations

import gc
import http.server
import io
import os
import re
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hicom_edge.errors import InputError, VideoError
from hicom_edge.runtime.video import Frames, FrameSampling, read_frames
from hicom_edge.runtime.video.decoder import SkippingDecoder
from hicom_edge.runtime.video.file import VideoFile
from hicom_edge.runtime.video.reading_options import ReadingOptions
from hicom_edge.runtime.video.upright import turn

FOUR = FrameSampling(num_frames=4)
FPS = 10
STRICT = ReadingOptions(strict=True)


def write_clip(
    path: Path,
    num_frames: int = 60,
    *,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int = 2,
    options: dict[str, str] | None = None,
    pts_ms: Sequence[int] | None = None,
    faststart: bool = False,
) -> Path:
    """A clip of noise that brightens from frame to frame, (width, height) pixels."""
    flags = {"movflags": "faststart"} if faststart else {}
    tick = Fraction(1, FPS) if pts_ms is None else Fraction(1, 1000)
    random = np.random.default_rng(0)
    with av.open(str(path), "w", options=flags) as container:
        stream: Any = container.add_stream(codec, rate=FPS, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.time_base = tick
        noise = random.integers(0, 60, (8, size[1], size[0], 3), dtype=np.uint8)
        for i in range(num_frames):
            shade = np.uint8(i * 190 // num_frames)
            frame = av.VideoFrame.from_ndarray(noise[i % 8] + shade, format="rgb24")
            frame.pts, frame.time_base = (i if pts_ms is None else pts_ms[i]), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode_all(path: Path) -> list[NDArray[Any]]:
    """Every frame, from the beginning to the end, by the plainest means."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def assert_same(frames: Frames, expected: Sequence[NDArray[Any]]) -> None:
    assert frames.num_available == len(expected)
    count = 0
    for index, frame in zip(frames.indices, frames, strict=True):
        np.testing.assert_array_equal(frame, expected[index], err_msg=f"frame {index}")
        count += 1
    assert count == len(frames)


@pytest.fixture
def skips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The keyframes that decoding skips to, noted while it does so."""
    taken: list[int] = []
    skip_to = SkippingDecoder._skip_to

    def noting(self: SkippingDecoder, key: int) -> bool:
        taken.append(key)
        return skip_to(self, key)

    monkeypatch.setattr(SkippingDecoder, "_skip_to", noting)
    return taken


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 100, faststart=True)


X264_VARIANTS: dict[str, dict[str, Any]] = {
    "long groups": {"gop": 48},
    "short groups": {"gop": 5},
    "one group": {"gop": 1000, "options": {"sc_threshold": "0"}},
    "intra only": {"gop": 1, "b_frames": 0},
    "open groups": {"gop": 30, "b_frames": 3, "options": {"x264-params": "open-gop=1:scenecut=0"}},
    "no b-frames": {"gop": 30, "b_frames": 0},
    "keyframes that lean on others": {
        "gop": 30,
        "b_frames": 0,
        "options": {"x264-params": "intra-refresh=1"},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("variant", X264_VARIANTS)
def test_skipping_gives_the_frames_of_a_full_decode(
    tmp_path: Path, variant: str, container: str, skips: list[int]
) -> None:
    path = write_clip(tmp_path / f"clip.{container}", 150, **X264_VARIANTS[variant])
    expected = decode_all(path)
    assert len(expected) == 150
    for num_frames in (1, 3, 7):
        assert_same(read_frames(path, FrameSampling(num_frames)), expected)
    reorders = container == "avi" and X264_VARIANTS[variant].get("b_frames", 2) > 0
    assert bool(skips) == (variant != "one group" and not reorders)
    assert_same(read_frames(path, FrameSampling(150)), expected)


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("libx265", "mp4"),
        ("libsvtav1", "mp4"),
        ("mpeg4", "mov"),
        ("mpeg4", "avi"),
        ("mpeg2video", "ts"),
        ("mpeg2video", "mpg"),
        ("libvpx", "webm"),
        ("libvpx-vp9", "webm"),
        ("libx264", "h264"),
        ("ffv1", "mkv"),
    ],
)
def test_other_codecs_give_the_frames_of_a_full_decode(
    tmp_path: Path, codec: str, suffix: str
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg cannot write {codec}")
    b_frames = 2 if codec in {"libx265", "mpeg4", "mpeg2video", "libx264"} else 0
    quiet = {"libx265": {"x265-params": "log-level=none"}, "libvpx": {"auto-alt-ref": "1"}}
    path = write_clip(
        tmp_path / f"clip.{suffix}", 50, codec=codec, b_frames=b_frames, options=quiet.get(codec)
    )
    expected = decode_all(path)
    for num_frames in (2, 9, 50):
        assert_same(read_frames(path, FrameSampling(num_frames)), expected)


def test_metadata_of_a_clip(clip: Path) -> None:
    frames = read_frames(clip, FOUR)
    assert frames.indices.tolist() == [12, 37, 62, 87]
    assert frames.timestamps is not None
    np.testing.assert_allclose(frames.timestamps, [1.2, 3.7, 6.2, 8.7])
    assert (frames.source_fps, frames.num_available, frames.duration_seconds) == (10.0, 100, 10.0)
    assert (frames.width, frames.height, frames.modality) == (64, 48, "video")


def test_a_window_and_a_rate_choose_frames_by_seconds(clip: Path) -> None:
    window = read_frames(clip, FrameSampling(3, start=2.0, end=4.0))
    assert window.indices.tolist() == [23, 30, 36]
    assert window.window == (20, 39)
    by_number = FrameSampling(3, start=2.0, end=4.0, rule="frame-numbers")
    assert read_frames(clip, by_number).indices.tolist() == [22, 29, 36]
    assert read_frames(clip, FrameSampling(fps=2)).indices.tolist() == list(range(2, 100, 5))


def test_a_clip_can_be_iterated_twice_and_left_early(clip: Path) -> None:
    frames = read_frames(clip, FOUR)
    first = next(iter(frames))
    for again, frame in zip(frames, list(frames), strict=True):
        np.testing.assert_array_equal(again, frame)
    np.testing.assert_array_equal(first, next(iter(frames)))


def test_the_fingerprint_follows_file_and_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 20)
    four = read_frames(path, FOUR).fingerprint
    assert read_frames(str(path), FOUR).fingerprint == four
    assert read_frames(path, FrameSampling(5)).fingerprint != four
    write_clip(path, 21)
    assert read_frames(path, FOUR).fingerprint != four


def test_variable_frame_rate_has_the_times_of_the_file(tmp_path: Path) -> None:
    gaps = np.random.default_rng(1).integers(5, 300, 80)
    pts_ms = np.cumsum(gaps) - gaps[0]
    path = write_clip(tmp_path / "clip.mkv", 80, gop=20, pts_ms=pts_ms.tolist())
    frames = read_frames(path, FrameSampling(9))
    assert frames.timestamps is not None
    np.testing.assert_allclose(frames.timestamps, pts_ms[frames.indices] / 1000)
    assert frames.source_fps == pytest.approx(79_000 / pts_ms[-1], rel=0.02)
    assert_same(frames, decode_all(path))


def test_an_edit_list_hides_the_frames_before_it(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "cut.mp4"
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(clip)) as source, av.open(str(path), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is None or packet.pts is None or packet.time_base is None:
                continue
            early = int(Fraction(3) / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts - early, packet.dts - early, stream
            target.mux(packet)
    expected = decode_all(path)
    assert len(expected) == 70
    assert_same(read_frames(path, FrameSampling(70)), expected)
    assert_same(read_frames(path, FrameSampling(3)), expected)


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
        ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
        ((0, -1, 1, 0), lambda frame: np.rot90(frame)),
        ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
    ],
    ids=["90", "180", "270", "mirrored"],
)
def test_rotation_is_honoured(tmp_path: Path, matrix: tuple[int, ...], turned: Any) -> None:
    path = write_clip(tmp_path / "clip.mp4", 10)
    expected = [turned(frame) for frame in decode_all(path)]
    data = bytearray(path.read_bytes())
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (entry << 16 for entry in matrix)
    place = data.index(upright, data.index(b"tkhd"))
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    frames = read_frames(path, FOUR)
    assert_same(frames, expected)
    assert (frames.height, frames.width) == expected[0].shape[:2]


def test_an_oblique_rotation_goes_to_the_nearest_quarter() -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(turn(pixels, (10, 60, -60, 10)), np.rot90(pixels, -1))
    np.testing.assert_array_equal(turn(pixels, (60, 10, -10, 60)), pixels)


@pytest.mark.parametrize("claimed", [7, 1000])
def test_a_wrong_frame_count_in_the_header_is_not_believed(tmp_path: Path, claimed: int) -> None:
    path = write_clip(tmp_path / "clip.avi", 40, b_frames=0)
    data = bytearray(path.read_bytes())
    length = data.index(b"strh") + 8 + 32  # dwLength of the stream header
    assert int.from_bytes(data[length : length + 4], "little") == 40
    data[length : length + 4] = claimed.to_bytes(4, "little")
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == claimed
    assert_same(read_frames(path, FOUR), decode_all(path))


def test_a_stream_may_begin_between_keyframes(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.ts", 60, gop=20, options={"sc_threshold": "0"})
    path = tmp_path / "late.ts"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number >= 8 and packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    frames = read_frames(path, FrameSampling(40))
    assert_same(frames, decode_all(whole)[20:])
    assert frames.timestamps is not None
    assert frames.timestamps[0] == 0.0


def test_a_broadcast_may_end_anywhere(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.ts", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = read_frames(path, FrameSampling(60))
    assert 20 < frames.num_available < 40
    assert len(list(frames)) == 60


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (1, 1), (2, 130), (1, 30)])
@pytest.mark.parametrize("num_frames", [1, 2])
def test_tiny_videos_work(tmp_path: Path, size: tuple[int, int], num_frames: int) -> None:
    path = write_clip(tmp_path / "clip.mov", num_frames, size=size, codec="png", b_frames=0)
    frames = read_frames(path, FrameSampling(5))
    assert frames.indices.tolist() == ([0] * 5 if num_frames == 1 else [0, 0, 1, 1, 1])
    assert {frame.shape for frame in frames} == {(size[1], size[0], 3)}
    assert frames.modality == "video"


@pytest.mark.slow
def test_8k_frames_come_one_at_a_time(tmp_path: Path) -> None:
    fast = {"preset": "ultrafast"}
    path = write_clip(tmp_path / "clip.mp4", 3, size=(7680, 4320), gop=1, b_frames=0, options=fast)
    assert [frame.shape for frame in read_frames(path, FrameSampling(3))] == [(4320, 7680, 3)] * 3


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
def test_a_truncated_file_says_how_much_is_left(tmp_path: Path, suffix: str, part: float) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", 100, faststart=suffix == "mp4")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(VideoError) as caught:
        read_frames(path, FOUR, reading=STRICT)
    message = str(caught.value)
    expected = rf"clip\.{suffix}: the file is truncated, \d+ of (\d+ frames|an unknown number) can"
    assert re.search(expected, message)
    assert "\n" not in message
    if suffix == "mp4":
        assert " of 100 frames can be decoded; copy or download it again" in message


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv"])
def test_a_truncated_file_is_read_as_far_as_it_goes(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", 100, faststart=suffix == "mp4", b_frames=0)
    whole, data = decode_all(path), path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    frames = read_frames(path, FrameSampling(5))
    assert 50 < frames.num_available < 90
    assert re.search(r"clip\.\w+: the file is truncated, \d+ of", frames.remarks[0])
    for index, frame in zip(frames.indices.tolist()[:-1], frames):
        np.testing.assert_array_equal(frame, whole[index])


def test_an_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 30)  # the index comes last
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(VideoError, match=r"clip\.mp4: an MP4 file whose index \(moov\) is missing"):
        read_frames(path, FOUR)


@pytest.mark.parametrize("name", ["words.mp4", "words.txt", "words.avi"])
def test_text_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("these are words\n" * 100)
    with pytest.raises(VideoError, match=r"is not a video that FFmpeg can read|is a text file"):
        read_frames(tmp_path / name, FOUR)


def test_a_file_of_zero_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match=r"empty\.mp4: the file is empty \(0 bytes\)"):
        read_frames(tmp_path / "empty.mp4", FOUR)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"gone\.mp4: no such file or directory; expected a video"):
        read_frames(tmp_path / "gone.mp4", FOUR)


@pytest.mark.parametrize("name", ["a:b.mp4", "http:clip.mp4", "pipe:0", "concat:a|b", "50%d.mp4"])
def test_a_name_that_looks_like_a_protocol_is_a_file(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).symlink_to(clip)
    monkeypatch.chdir(tmp_path)
    assert_same(read_frames(name, FrameSampling(3)), decode_all(clip))


def test_a_name_that_is_not_utf8_is_read(tmp_path: Path, clip: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9.mp4"))
    path.write_bytes(clip.read_bytes())
    assert_same(read_frames(path, FrameSampling(3)), decode_all(clip))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "the path of the video is empty; pass a file"),
        ("x" * 300, r"x: cannot be opened \(File name too long\)"),
        ("a\0b", r"cannot be opened \(embedded null byte\)"),
        ("loop", r"loop: cannot be opened \(Too many levels of symbolic links\)"),
        ("pipe", "pipe: is a pipe or a device, but a video is read more than once; save it"),
        ("/dev/null", "is a pipe or a device"),
    ],
)
def test_what_is_no_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")  # opening it would wait for a writer
    with pytest.raises(VideoError, match=message):
        read_frames(path, FOUR)


@pytest.mark.parametrize(
    ("suffix", "codec", "tag"),
    [("mp4", "libx264", b"avc1"), ("avi", "mjpeg", b"MJPG"), ("mkv", "libx264", b"MPEG4/ISO")],
)
def test_a_codec_that_ffmpeg_does_not_know_is_refused(
    tmp_path: Path, suffix: str, codec: str, tag: bytes
) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", 5, codec=codec, b_frames=0)
    path.write_bytes(path.read_bytes().replace(tag, b"Z" * len(tag)))
    with pytest.raises(VideoError, match="in a format that this FFmpeg has no decoder for; re-enc"):
        read_frames(path, FOUR)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(picture, "JPEG")
    content = b"\0image/jpeg\0\3\0" + picture.getvalue()
    frame = b"APIC" + len(content).to_bytes(4, "big") + b"\0\0" + content
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    silence = (b"\xff\xfb\x90\xc4" + bytes(413)) * 20  # frames of 128 kbit/s at 44.1 kHz
    (tmp_path / "song.mp3").write_bytes(b"ID3\3\0\0" + size + frame + silence)
    with pytest.raises(VideoError, match="no video stream, only a cover picture and audio; exp"):
        read_frames(tmp_path / "song.mp3", FOUR)


@pytest.mark.parametrize("suffix", ["mp4", "wav"])
def test_audio_alone_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"sound.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac" if suffix == "mp4" else "pcm_s16le", rate=16000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=16000)
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.sample_rate = 16000
        for part in av.AudioResampler("fltp" if suffix == "mp4" else "s16", "mono").resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="has no video stream, only audio; expected a file with"):
        read_frames(path, FOUR)


def damaged_clip(path: Path, numbers: range) -> Path:
    """40 frames that stand on their own, some of which are zeros in the file."""
    write_clip(path, 40, codec="mjpeg", b_frames=0, gop=1)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)]
    data = bytearray(path.read_bytes())
    for number in numbers:
        place = data.index(packets[number])
        data[place : place + len(packets[number])] = bytes(len(packets[number]))
    path.write_bytes(data)
    return path


def test_damage_inside_is_an_error_of_strict_reading(tmp_path: Path) -> None:
    path = damaged_clip(tmp_path / "clip.mkv", range(20, 21))
    undamaged = read_frames(path, FrameSampling(4), reading=STRICT)
    assert len(list(undamaged)) == 4
    with pytest.raises(VideoError, match=r"frame 20 of 40 cannot be decoded, the file is damaged"):
        list(read_frames(path, FrameSampling(40), reading=STRICT))


@pytest.mark.parametrize("numbers", [range(20, 21), range(17, 24), range(5), range(30, 40)])
@pytest.mark.parametrize("sampled", [40, 13, 1])
def test_a_damaged_frame_is_replaced_by_the_nearest(
    tmp_path: Path, numbers: range, sampled: int
) -> None:
    path = tmp_path / "clip.mkv"
    whole = decode_all(write_clip(path, 40, codec="mjpeg", b_frames=0, gop=1))
    frames = read_frames(damaged_clip(path, numbers), FrameSampling(sampled))
    sound = [number for number in range(40) if number not in numbers]
    if frames.num_available < 40:  # a damaged beginning is decoded to be counted
        assert numbers.start == 0
        assert_same(frames, [whole[number] for number in sound])
        return
    replaced = 0
    for index, frame in zip(frames.indices.tolist(), frames, strict=True):
        nearest = min(sound, key=lambda number: (abs(number - index), number))
        np.testing.assert_array_equal(frame, whole[nearest])
        replaced += index in numbers
    assert frames.replaced == replaced
    if replaced:
        assert frames.remarks[-1].startswith(f"{replaced} of {sampled} frames cannot be decoded")
    else:
        assert frames.remarks == ()


def test_a_window_of_which_nothing_can_be_decoded_is_refused(tmp_path: Path) -> None:
    path = damaged_clip(tmp_path / "clip.mkv", range(20, 30))
    with pytest.raises(VideoError, match=r"frame 2\d of 40 cannot be decoded"):
        list(read_frames(path, FrameSampling(3, start=2.1, end=2.9)))
    (frame,) = read_frames(path, FrameSampling(1, start=2.1, end=3.1))  # frame 30 is sound
    np.testing.assert_array_equal(frame, list(read_frames(path, FrameSampling(40)))[30])


def test_frames_are_let_go_while_decoding(clip: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in read_frames(clip, FrameSampling(100)):
            pass
        alive = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
    finally:
        gc.enable()
    assert alive <= 3


def test_opening_a_video_keeps_none_of_its_frames(clip: Path) -> None:
    gc.collect()
    frames = [read_frames(clip, FOUR) for _ in range(20)]
    assert sum(type(thing) is av.VideoFrame for thing in gc.get_objects()) <= 3
    assert len(frames) == 20


def test_a_video_of_which_nothing_can_be_decoded_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", 2, codec="mjpeg", b_frames=0, gop=1)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for packet in packets:
        place = data.index(packet)
        data[place : place + len(packet)] = bytes(len(packet))
    path.write_bytes(data)
    with pytest.raises(VideoError, match="none of the 2 packets of its video can be decoded"):
        read_frames(path, FOUR)


def test_the_index_of_an_hour_is_small(clip: Path) -> None:
    index = VideoFile(str(clip), ReadingOptions()).index.frames
    assert index is not None
    assert index.pts.nbytes == 8 * 100
    assert index.keyframes.nbytes + index.keyframe_dts.nbytes <= 16 * 100


@pytest.fixture
def served(clip: Path) -> Iterator[str]:
    """The address of a server of the clip's folder, which cannot serve parts of files."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(clip.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_url_is_read_as_its_file(served: str, clip: Path) -> None:
    frames = read_frames(f"{served}/{clip.name}", FrameSampling(3))
    assert_same(frames, decode_all(clip))
    assert frames.fingerprint == read_frames(f"{served}/{clip.name}", FrameSampling(3)).fingerprint


def test_a_url_that_does_not_answer_is_refused(served: str) -> None:
    with pytest.raises(VideoError, match=r"gone\.mp4: cannot be opened \(.*check the address"):
        read_frames(f"{served}/gone.mp4", FOUR)


def test_a_url_of_something_else_is_not_blamed_on_the_network(served: str, clip: Path) -> None:
    (clip.parent / "page.html").write_text("<html></html>")
    with pytest.raises(VideoError, match=r"page\.html: is not a video that FFmpeg can read"):
        read_frames(f"{served}/page.html", FOUR)


def test_a_password_in_a_url_is_not_repeated(served: str, clip: Path) -> None:
    for url in (f"{served}/gone.mp4", f"{served}/page.html", "rtsp://127.0.0.1:1/camera"):
        (clip.parent / "page.html").write_text("<html></html>")
        with pytest.raises(InputError, match=r"^\w+://me:\*\*\*@127") as raised:
            read_frames(url.replace("//", "//me:pass@word@"), FOUR)
        assert "word" not in str(raised.value)


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[str]:
    """The address of a live stream: whoever connects is sent the clip from its beginning."""
    data = write_clip(tmp_path / "live.ts", 60).read_bytes()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.sendall(data)
                except OSError:  # the watcher has seen enough
                    continue

    threading.Thread(target=serve, daemon=True).start()
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


def test_a_live_stream_is_watched_for_some_seconds(camera: str, tmp_path: Path) -> None:
    frames = read_frames(camera, FrameSampling(4, end=3.0))
    expected = decode_all(tmp_path / "live.ts")
    assert frames.indices.tolist() == [3, 11, 18, 26]
    for index, frame in zip(frames.indices, frames, strict=True):
        np.testing.assert_array_equal(frame, expected[index])
    assert read_frames(camera, FrameSampling(4, end=3.0)).fingerprint != frames.fingerprint


def test_a_live_stream_needs_an_end(camera: str) -> None:
    with pytest.raises(InputError, match="a live stream has no end; say how many seconds to watch"):
        read_frames(camera, FOUR)


def test_a_live_stream_that_stops_early_is_an_error(camera: str) -> None:
    with pytest.raises(VideoError, match=r"the stream ended after 5\.\d s of the 20 s to watch"):
        read_frames(camera, FrameSampling(4, end=20.0))
