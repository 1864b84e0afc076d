"""Read and write TensorRT calibration caches, for versions up to 10 (JetPack 6 has 10.3).

The text format has a header with TensorRT's version and the kind of calibrator, then one line per
tensor with its scale amax / 127 as the hexadecimal digits of a big-endian float32.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from hicom_edge.errors import InputError
from hicom_edge.files import replace_file

JETPACK6_TENSORRT = "10.3.0"
_LARGEST_LEVEL = 127
_HEADER = re.compile(r"TRT-(\d{4,6})-(\w+)")
_LINE = re.compile(r"(.+): ([0-9a-f]{8})")
_KIND = "EntropyCalibration2"
_FIRST_TEN = 100000


@dataclass(frozen=True)
class CalibrationCache:
    """The content of a calibration cache.

    Attributes:
        version: TensorRT's version, such as "10.3.0".
        kind: of calibrator; TensorRT reads a cache only with a calibrator of the same kind.
        amax: the largest magnitude that INT8 represents, by tensor name.
    """

    version: str
    kind: str
    amax: dict[str, float]


def cache_text(amax: Mapping[str, float], version: str = JETPACK6_TENSORRT) -> str:
    """The cache of one network as text.

    Args:
        amax: symmetric ranges by tensor name, above 0.
        version: of the TensorRT that will read the cache; it refuses caches of other versions.

    Raises:
        InputError: the format cannot hold a range or a name, or the version has no caches.
    """
    lines = [f"TRT-{_version_number(version)}-{_KIND}"]
    lines += [f"{_name(tensor)}: {_hex_scale(tensor, value)}" for tensor, value in amax.items()]
    return "\n".join(lines) + "\n"


def read_cache(text: str, where: str = "the calibration cache") -> CalibrationCache:
    """Read a cache written by TensorRT or by `write_cache`; `where` names it in messages.

    Raises:
        InputError: the text is not a calibration cache.
    """
    first, *lines = text.splitlines() or [""]
    header = _HEADER.fullmatch(first.strip())
    if header is None:
        raise InputError(
            f"{where} starts with {first[:60]!r}, expected a line such as "
            f"TRT-100300-{_KIND}; pass a calibration cache of TensorRT"
        )
    amax: dict[str, float] = {}
    for number, line in enumerate(lines, start=2):
        if line.strip():
            tensor, value = _read_line(line, f"{where}, line {number}")
            amax[tensor] = value
    return CalibrationCache(_version_text(int(header[1])), header[2], amax)


def write_cache(
    path: str | os.PathLike[str], amax: Mapping[str, float], version: str = JETPACK6_TENSORRT
) -> None:
    """Write a cache atomically; see `cache_text`."""
    replace_file(path, cache_text(amax, version))


def _version_number(version: str) -> int:
    """As NV_TENSORRT_VERSION: 8.5.1 is 8501, 10.3.0 is 100300."""
    parts = version.split(".")
    if not 2 <= len(parts) <= 4 or not all(part.isdecimal() for part in parts):
        raise InputError(f"TensorRT version {version!r}, expected one such as {JETPACK6_TENSORRT}")
    major, minor, patch = (int(part) for part in (*parts, "0")[:3])
    if not 7 <= major <= 10:
        raise InputError(
            f"TensorRT {version} reads no calibration cache, versions 7 to 10 do; "
            "build from the quantised graphs, which hold their scales in Q/DQ nodes"
        )
    return major * (10000 if major == 10 else 1000) + minor * 100 + patch


def _version_text(number: int) -> str:
    thousands = 10000 if number >= _FIRST_TEN else 1000
    return f"{number // thousands}.{number % thousands // 100}.{number % 100}"


def _name(tensor: str) -> str:
    if not tensor or tensor != tensor.strip() or len(tensor.splitlines()) != 1:
        raise InputError(
            f"tensor name {tensor!r} cannot be written to a calibration cache; "
            "export the bundle again, so that names have no line breaks"
        )
    return tensor


def _hex_scale(tensor: str, amax: float) -> str:
    if not (math.isfinite(amax) and amax > 0):
        raise InputError(f"the range of {tensor} is {amax}, expected a finite number above 0")
    try:
        packed = struct.pack(">f", amax / _LARGEST_LEVEL)
    except OverflowError as error:
        raise InputError(f"the range of {tensor} is {amax}, beyond float32") from error
    if struct.unpack(">f", packed)[0] == 0:
        raise InputError(f"the range of {tensor} is {amax}, too small for a float32 scale")
    return packed.hex()


def _read_line(line: str, where: str) -> tuple[str, float]:
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise InputError(
            f"{where}: {line[:60]!r}, expected a tensor, ': ' and 8 hexadecimal digits; "
            "write the cache again"
        )
    scale = struct.unpack(">f", bytes.fromhex(match[2]))[0]
    return match[1], scale * _LARGEST_LEVEL
