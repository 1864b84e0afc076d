"""The NAL units of H.264 and HEVC packets, as far as telling fields from frames needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

_HEADER_BYTES = 64
"""More than any slice header needs up to its field flag."""
_H264_SLICES, _H264_SPS = frozenset({1, 2, 5}), 7
_HEVC_PICTURES = 32
"""HEVC types below this one are slices."""
_HIGH_PROFILES = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})


@dataclass(frozen=True)
class NalUnits:
    """Splits packets into NAL units; how is said by the stream's extradata.

    Packets of MP4 and Matroska files give the length before each unit (ISO/IEC 14496-15), others
    put start codes between them (annex B).
    """

    codec: str
    extradata: bytes

    @property
    def length_bytes(self) -> int:
        """Size of the length before each unit, 0 where start codes separate them."""
        place = 4 if self.codec == "h264" else 21
        if len(self.extradata) <= place or self.extradata[:3] in {b"\0\0\1", b"\0\0\0"}:
            return 0
        return (self.extradata[place] & 3) + 1

    def of(self, data: memoryview) -> Iterator[bytes]:
        """The first bytes of each unit of a packet."""
        size = self.length_bytes
        return _by_length(data, size) if size else _by_start_code(bytes(data))


class SequenceParameters(NamedTuple):
    """What a slice header's length depends on (H.264, section 7.3.2.1)."""

    may_hold_fields: bool
    separate_planes: bool
    frame_number_bits: int


def is_picture_unit(codec: str, unit: bytes) -> bool:
    """Whether a NAL unit is a slice of a picture."""
    if not unit:
        return False
    return unit[0] & 31 in _H264_SLICES if codec == "h264" else unit[0] >> 1 & 63 < _HEVC_PICTURES


def h264_field_reader(units: NalUnits, extradata: bytes) -> Callable[[memoryview], bool] | None:
    """Tells whether a packet is a single field; None where the stream's parameters rule that out.

    A packet of both fields is a frame.
    """
    sets = [one for one in _parameter_sets(units, extradata) if one.may_hold_fields]
    if not sets:
        return None

    def is_single_field(data: memoryview) -> bool:
        slices = (unit for unit in units.of(data) if is_picture_unit("h264", unit))
        return len({_field(unit, sets[0]) for unit in slices} - {None}) == 1

    return is_single_field


def _parameter_sets(units: NalUnits, extradata: bytes) -> Iterator[SequenceParameters]:
    if not units.length_bytes:
        found = [unit for unit in _by_start_code(extradata) if unit[0] & 31 == _H264_SPS]
    else:
        found, place = [], 6  # avcC: a count, then sets of two length bytes each
        for _ in range(extradata[5] & 31):
            size = int.from_bytes(extradata[place : place + 2], "big")
            found.append(extradata[place + 2 : place + 2 + size])
            place += 2 + size
    for unit in found:
        try:
            yield _sequence_parameters(unit)
        except IndexError:  # cut short
            continue


def _sequence_parameters(unit: bytes) -> SequenceParameters:
    bits = _Bits(unit[1:])
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    separate = False
    if profile in _HIGH_PROFILES:
        separate = _chroma_and_scaling(bits)
    frame_number_bits = bits.golomb() + 4
    _picture_order(bits)
    bits.golomb()  # reference frames
    bits.take(1)
    bits.golomb(), bits.golomb()  # width, height
    return SequenceParameters(not bits.take(1), separate, frame_number_bits)


def _chroma_and_scaling(bits: _Bits) -> bool:
    """Read past the fields of the high profiles; whether colour planes are coded separately."""
    chroma = bits.golomb()
    separate = bool(bits.take(1)) if chroma == 3 else False
    bits.golomb(), bits.golomb(), bits.take(1)
    if bits.take(1):
        for i in range(8 if chroma != 3 else 12):
            if bits.take(1):
                _scaling_list(bits, 16 if i < 6 else 64)
    return separate


def _scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed_golomb()) % 256
        last = following or last


def _picture_order(bits: _Bits) -> None:
    kind = bits.golomb()
    if kind == 0:
        bits.golomb()
    elif kind == 1:
        bits.take(1), bits.golomb(), bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()


def _field(unit: bytes, parameters: SequenceParameters) -> int | None:
    """bottom_field_flag of a slice header, None for a slice of a frame (H.264, section 7.3.3)."""
    try:
        bits = _Bits(unit[1:])
        bits.golomb(), bits.golomb(), bits.golomb()  # first macroblock, type, parameter set
        bits.take(2 * parameters.separate_planes + parameters.frame_number_bits)
        return bits.take(1) if bits.take(1) else None
    except IndexError:
        return None


def _by_length(data: memoryview, size: int) -> Iterator[bytes]:
    place = 0
    while place + size < len(data):
        length = int.from_bytes(data[place : place + size], "big")
        place += size
        yield bytes(data[place : place + min(length, _HEADER_BYTES)])
        place += length


def _by_start_code(data: bytes) -> Iterator[bytes]:
    place = data.find(b"\0\0\1")
    while place >= 0:
        start = place + 3
        place = data.find(b"\0\0\1", start)
        end = len(data) if place < 0 else place
        if end > start:
            yield data[start : min(end, start + _HEADER_BYTES)]


class _Bits:
    """Bits of a NAL unit's payload, without the bytes that prevent start codes in it."""

    def __init__(self, payload: bytes) -> None:
        data = payload.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """The next bits as a number. Raises IndexError past the end."""
        if count > self._left:
            raise IndexError("the unit ends within a field")
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """An unsigned Exp-Golomb code."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed_golomb(self) -> int:
        """A signed Exp-Golomb code."""
        code = self.golomb()
        return (code + 1) // 2 if code % 2 else -code // 2
