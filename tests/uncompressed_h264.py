"""H.264 streams of flat grey pictures, coded without compression: as frames or as pairs of fields.

Each macroblock is I_PCM (ITU-T H.264, section 7.3.5), so that a picture's shade is known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

SIDE = 4
"""Macroblocks in a row and in a column of a frame: 64 x 64 pixels."""


def luma_of(number: int) -> int:
    """The shade of frame ``number``: 25 shades in turn."""
    return 16 + 8 * (number % 25)


def stream(are_fields: Sequence[bool], group: int = 12) -> bytes:
    """An annex B stream; frame k is two field pictures where ``are_fields[k]``."""
    out = bytearray()
    for number, in_fields in enumerate(are_fields):
        place = number % group
        for field in (0, 1) if in_fields else (None,):
            out += _unit(0, 9, b"\xf0")  # access unit delimiter
            if place == 0 and field in (None, 0):
                out += _unit(1, 7, _sequence_parameters()) + _unit(1, 8, _picture_parameters())
            is_idr = place == 0 and field != 1
            kind = 5 if is_idr else 1
            out += _unit(1, kind, _picture(number, place, field, number // group % 2, is_idr))
    return bytes(out)


def _unit(importance: int, kind: int, payload: bytes) -> bytes:
    body, zeros = bytearray(), 0
    for byte in payload:
        if zeros == 2 and byte <= 3:
            body.append(3)
            zeros = 0
        body.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\0\0\0\1" + bytes([importance << 5 | kind]) + bytes(body)


def _sequence_parameters() -> bytes:
    bits = _Bits("010011010000000000011110")  # main profile, level 3
    bits.golomb(0, 0, 0, 4, 1)  # id, 4-bit frame numbers, order type 0 of 8 bits, 1 reference
    bits.add(0, 1)
    bits.golomb(SIDE - 1, SIDE // 2 - 1)
    bits.add(0, 1)  # fields are allowed
    bits.add(0b0101, 4)  # not adaptive by macroblock, direct 8x8, no cropping, extra information
    bits.add(0b00001, 5)
    bits.add(1, 32)
    bits.add(50, 32)  # fields per second
    bits.add(0b1000, 4)
    bits.add(0b11, 2)
    bits.golomb(0, 0, 16, 16, 0, 1)  # nothing is reordered
    return bits.closed()


def _picture_parameters() -> bytes:
    bits = _Bits()
    bits.golomb(0, 0)
    bits.add(0, 2)
    bits.golomb(0, 0, 0)
    bits.add(0, 3)
    bits.golomb(0, 0, 0)
    bits.add(0b100, 3)
    return bits.closed()


def _picture(number: int, place: int, field: int | None, idr_id: int, is_idr: bool) -> bytes:
    bits = _Bits()
    bits.golomb(0, 7, 0)  # first macroblock, intra slice, parameter set
    bits.add(place % 16, 4)
    bits.add(field is not None, 1)
    if field is not None:
        bits.add(field, 1)
    if is_idr:
        bits.golomb(idr_id)
    bits.add(2 * place + (field or 0), 8)
    bits.add(0, 2 if is_idr else 1)
    bits.golomb(0, 1)  # quantiser, no deblocking
    macroblock = bytes([luma_of(number)]) * 256 + bytes([128]) * 128
    for _ in range(SIDE * SIDE // (1 if field is None else 2)):
        bits.golomb(25)
        bits.align()
        bits.text.append("".join(f"{byte:08b}" for byte in macroblock))
    return bits.closed()


class _Bits:
    def __init__(self, text: str = "") -> None:
        self.text = [text]

    def add(self, value: int, count: int) -> None:
        self.text.append(f"{value:0{count}b}")

    def golomb(self, *values: int) -> None:
        for value in values:
            code = f"{value + 1:b}"
            self.text.append("0" * (len(code) - 1) + code)

    def align(self) -> None:
        text = "".join(self.text)
        self.text = [text + "0" * (-len(text) % 8)]

    def closed(self) -> bytes:
        self.text.append("1")
        self.align()
        text = self.text[0]
        return int(text, 2).to_bytes(len(text) // 8, "big")
