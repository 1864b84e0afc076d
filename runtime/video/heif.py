"""Photos in the HEIF container: HEIC, which needs an optional library, and AVIF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.errors import VideoError

if TYPE_CHECKING:
    from PIL.Image import Image

HEAD_BYTES = 256
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_GENERIC_BRANDS = frozenset({b"mif1", b"msf1", b"miaf"})


def brands(head: bytes) -> tuple[bytes, ...]:
    """Brands in the first box of a file, the major one first; empty where it has no such box."""
    if head[4:8] != b"ftyp":
        return ()
    size = min(int.from_bytes(head[:4], "big"), len(head))
    places = [8, *range(16, size - 3, 4)]  # a version stands between major and compatible ones
    return tuple(head[place : place + 4] for place in places)


def is_heif(head: bytes) -> bool:
    """Whether a file's first bytes name a brand of pictures, or of pictures before a video."""
    known = _HEIC_BRANDS | _AVIF_BRANDS | _GENERIC_BRANDS
    found = brands(head)
    return bool(found) and (found[0] in known or not known.isdisjoint(found[1:]))


def is_heic(path: Path) -> bool:
    """Whether a file is a HEIF picture that Pillow alone does not read."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return is_heif(head) and _AVIF_BRANDS.isdisjoint(brands(head))


def open_heic(path: Path) -> Image:
    """Open a HEIC photo with pillow-heif, tiles joined. Raises VideoError where it is missing."""
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError as error:
        raise VideoError(
            f"{path}: is a HEIC photo, which needs the package pillow-heif; install "
            "hicom-edge[heif] or convert the photo to JPEG"
        ) from error
    open_file: Callable[[Path], Image] = HeifImageFile
    return open_file(path)
