"""Whether a packet holds exactly one frame that is shown, read from its first bytes.

Most packets do. Exceptions are known to the coding formats alone: pictures that only others refer
to (VP8, VP9, AV1), single fields of interlaced frames (H.264), several frames in one packet
(MPEG-4 in AVI), and packets without any picture.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from hicom_edge.runtime.video.nal_units import NalUnits, h264_field_reader, is_picture_unit

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

    VideoPacket = Packet[VideoStream]

SMALL_PACKET_BYTES = 1024
"""H.264 and HEVC packets below this size are searched for a picture; larger ones hold one."""
TINY_MPEG4_BYTES = 16
"""MPEG-4 packets below this size may say that nothing is shown."""

_OBU_FRAME_HEADER, _OBU_FRAME = 3, 6


class Coded(Enum):
    """What a packet holds."""

    SHOWN = "one frame that is shown"
    HIDDEN = "nothing that is shown"
    UNCLEAR = "something that only decoding tells"


PacketReader = Callable[["VideoPacket"], Coded]


def packet_reader(stream: VideoStream) -> PacketReader:
    """The function that tells for a packet of this stream what it holds."""
    name = stream.codec_context.name
    if name in {"h264", "hevc"}:
        return _nal_reader(name, stream.codec_context.extradata or b"")
    return _READERS.get(name, _always_shown)


def _always_shown(packet: VideoPacket) -> Coded:
    return Coded.SHOWN


def _nal_reader(name: str, extradata: bytes) -> PacketReader:
    units = NalUnits(name, extradata)
    is_field = h264_field_reader(units, extradata) if name == "h264" else None

    def read(packet: VideoPacket) -> Coded:
        if packet.size < SMALL_PACKET_BYTES and not any(
            is_picture_unit(name, unit) for unit in units.of(memoryview(packet))
        ):
            return Coded.HIDDEN
        if is_field is not None and is_field(memoryview(packet)):
            return Coded.UNCLEAR
        return Coded.SHOWN

    return read


def _read_vp8(packet: VideoPacket) -> Coded:
    """The show_frame bit (RFC 6386, section 9.1)."""
    return Coded.SHOWN if memoryview(packet)[0] >> 4 & 1 else Coded.HIDDEN


def _read_vp9(packet: VideoPacket) -> Coded:
    """The shown frames of a packet, which is one frame or a superframe (VP9, annex B)."""
    data = memoryview(packet)
    shown = sum(_is_shown_vp9(frame) for frame in _vp9_frames(data))
    return (Coded.HIDDEN, Coded.SHOWN)[shown] if shown < 2 else Coded.UNCLEAR


def _vp9_frames(data: memoryview) -> list[memoryview]:
    last = data[-1]
    count, size_bytes = (last & 7) + 1, (last >> 3 & 3) + 1
    index_size = 2 + size_bytes * count
    if last & 0xE0 != 0xC0 or len(data) < index_size or data[-index_size] != last:
        return [data]
    frames, start = [], 0
    for place in range(len(data) - index_size + 1, len(data) - 1, size_bytes):
        size = int.from_bytes(data[place : place + size_bytes], "little")
        frames.append(data[start : start + size])
        start += size
    return [frame for frame in frames if len(frame)]


def _is_shown_vp9(frame: memoryview) -> bool:
    """show_existing_frame or show_frame of the uncompressed header (VP9, section 6.2)."""
    bits = int.from_bytes(bytes(frame[:2]).ljust(2, b"\0"), "big")
    profile = bits >> 13 & 1 | bits >> 11 & 2
    after = 4 if profile < 3 else 5  # bits of marker, profile and, in profile 3, a reserved one
    show_existing = bits >> (15 - after) & 1
    return bool(show_existing or bits >> (13 - after) & 1)


def _read_av1(packet: VideoPacket) -> Coded:
    """The frame headers of a temporal unit that show a frame (AV1, sections 5.3 and 5.9)."""
    data, place, shown = memoryview(packet), 0, 0
    while place < len(data):
        header = data[place]
        kind, has_extension, has_size = header >> 3 & 15, header >> 2 & 1, header >> 1 & 1
        place += 1 + has_extension
        size = len(data) - place
        if has_size:
            size, place = _leb128(data, place)
        if kind in {_OBU_FRAME_HEADER, _OBU_FRAME} and place < len(data):
            first = data[place]
            shown += bool(first >> 7 or first >> 4 & 1)  # show_existing_frame, show_frame
        place += size
    return (Coded.HIDDEN, Coded.SHOWN)[shown] if shown < 2 else Coded.UNCLEAR


def _leb128(data: memoryview, place: int) -> tuple[int, int]:
    """A variable-length integer and the offset behind it (AV1, section 4.10.5)."""
    value = 0
    for i in range(8):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 127) << 7 * i
        if not byte >> 7:
            break
    return value, place


def _read_mpeg4(packet: VideoPacket) -> Coded:
    """UNCLEAR for several pictures in a packet, and for the empty ones that make up for them."""
    if packet.size < TINY_MPEG4_BYTES or bytes(packet).count(b"\0\0\1\xb6") > 1:
        return Coded.UNCLEAR
    return Coded.SHOWN


_READERS: dict[str, PacketReader] = {
    "vp8": _read_vp8,
    "libvpx": _read_vp8,
    "vp9": _read_vp9,
    "libvpx-vp9": _read_vp9,
    "av1": _read_av1,
    "libdav1d": _read_av1,
    "libaom-av1": _read_av1,
    "mpeg4": _read_mpeg4,
}
