"""A HEIC photo of 2 x 2 tiles, as phones store theirs (ISO/IEC 23008-12)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import av
import numpy as np

TILE = 64


def photo_of_tiles(colours: Sequence[tuple[int, int, int]]) -> bytes:
    """The file; colours: of the four tiles, row by row."""
    config, tiles = _coded(colours)
    count = len(tiles)
    grid = bytes([0, 0, 1, 1]) + _numbers(2, 2 * TILE, 2 * TILE)
    start = 0
    for _ in range(2):  # the first time, to learn how long the tables are
        head = _box(b"ftyp", b"heic" + bytes(4) + b"mif1heic") + _meta(config, tiles, grid, start)
        start = len(head) + 8
    assert count == 4
    return head + _box(b"mdat", b"".join(tiles))


def _coded(colours: Sequence[tuple[int, int, int]]) -> tuple[bytes, list[bytes]]:
    """The decoder's configuration, and one intra picture for each tile."""
    file = io.BytesIO()
    options = {"x265-params": "log-level=none:keyint=1:bframes=0:info=0"}
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx265", rate=1, options=options)
        stream.width = stream.height = TILE
        stream.pix_fmt, stream.codec_context.codec_tag = "yuv420p", "hvc1"
        for colour in colours:
            image = np.full((TILE, TILE, 3), colour, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        stream = container.streams.video[0]
        return stream.codec_context.extradata, [bytes(p) for p in container.demux(stream) if p.size]


def _meta(config: bytes, tiles: list[bytes], grid: bytes, start: int) -> bytes:
    count = len(tiles)
    whole = count + 1
    items = [
        _full(b"infe", 2, _numbers(2, number, 0) + b"hvc1\0", flags=1) for number in range(1, whole)
    ]
    items.append(_full(b"infe", 2, _numbers(2, whole, 0) + b"grid\0"))
    references = _box(b"dimg", _numbers(2, whole, count, *range(1, whole)))
    sizes = [_full(b"ispe", 0, _numbers(4, side, side)) for side in (TILE, 2 * TILE)]
    properties = _box(b"ipco", _box(b"hvcC", config) + b"".join(sizes))
    owners = b"".join(_numbers(2, number) + b"\2\x81\2" for number in range(1, whole))
    owners += _numbers(2, whole) + b"\1\3"
    places, at = b"", start
    for number, tile in enumerate(tiles, start=1):
        places += _numbers(2, number, 0, 0, 1) + _numbers(4, at, len(tile))
        at += len(tile)
    places += _numbers(2, whole, 1, 0, 1) + _numbers(4, 0, len(grid))
    return _full(
        b"meta",
        0,
        _full(b"hdlr", 0, bytes(4) + b"pict" + bytes(13))
        + _full(b"pitm", 0, _numbers(2, whole))
        + _full(b"iloc", 1, b"\x44\0" + _numbers(2, whole) + places)
        + _full(b"iinf", 0, _numbers(2, whole) + b"".join(items))
        + _full(b"iref", 0, references)
        + _box(b"iprp", properties + _full(b"ipma", 0, _numbers(4, whole) + owners))
        + _box(b"idat", grid),
    )


def _numbers(size: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(size, "big") for value in values)


def _box(kind: bytes, content: bytes) -> bytes:
    return _numbers(4, 8 + len(content)) + kind + content


def _full(kind: bytes, version: int, content: bytes, flags: int = 0) -> bytes:
    return _box(kind, _numbers(4, version << 24 | flags) + content)
