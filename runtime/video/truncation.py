"""Whether a file is shorter than its own header says.

Reads the outermost size field of RIFF (AVI) and EBML (Matroska, WebM) files, whose demuxers end
silently where the file was cut. A size that a writer could not go back and fill in is unknown, and
not evidence of anything. MP4 is checked elsewhere: its sample table is compared with its packets.
"""

from __future__ import annotations

from pathlib import Path

UNKNOWN_RIFF_SIZE = 0xFFFF_FF00
"""From here on a size stands for none: writers that cannot seek leave the largest there, or 0."""

EBML_SEGMENT = b"\x18\x53\x80\x67"
HEAD_BYTES = 4096


def missing_bytes(path: Path) -> int:
    """Bytes that the header of ``path`` promises and the file lacks; 0 when none or not known."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    promised = _riff_size(head) or _ebml_size(head) or 0
    return max(0, promised - path.stat().st_size)


def _riff_size(head: bytes) -> int | None:
    """Total bytes of a RIFF file, None where its writer left the size open."""
    size = int.from_bytes(head[4:8], "little")
    return size + 8 if head[:4] == b"RIFF" and 0 < size < UNKNOWN_RIFF_SIZE else None


def _ebml_size(head: bytes) -> int | None:
    """Offset at which the segment ends; None when the writer left its length open."""
    found = head.find(EBML_SEGMENT)
    start = found + len(EBML_SEGMENT)
    if not head.startswith(b"\x1a\x45\xdf\xa3") or found < 0 or start >= len(head):
        return None
    length = 9 - head[start].bit_length()  # bytes of a variable-length integer
    if not 1 <= length <= 8 or start + length > len(head):
        return None
    bits = 7 * length
    size = int.from_bytes(head[start : start + length], "big") & ((1 << bits) - 1)
    return None if size == (1 << bits) - 1 else start + length + size
