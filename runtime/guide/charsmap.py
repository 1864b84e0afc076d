"""SentencePiece's text normaliser: a compiled map of characters, applied longest match first.

Reads the binary form of `precompiled_charsmap`, a double-array trie followed by the replacement
texts, and treats spaces as SentencePiece does. The `tokenizers` library applies the same map per
grapheme and by the shortest match, which loses accents and joiners in some texts.
"""

from __future__ import annotations

import struct
from array import array

from hicom_edge.errors import BundleError

SPACE = "▁"
"""What SentencePiece writes for a space."""

_LEAF, _LABEL, _VALUE = 1 << 8, 0x800000FF, 0x7FFFFFFF


class Charsmap:
    """Normalises text as a SentencePiece model does.

    Args:
        compiled: the model's `precompiled_charsmap`; empty for the identity.

    Raises:
        BundleError: the bytes are not a compiled map.
    """

    def __init__(self, compiled: bytes) -> None:
        self._units, self._texts = _split(compiled) if compiled else (array("I"), b"")

    def normalize(self, text: str) -> str:
        """Replace by the map, collapse runs of spaces, drop outer ones, write the rest as ▁."""
        data, position, parts = text.encode(), 0, [" "]
        while position < len(data):
            replacement, length = self._longest_match(data, position)
            position += length
            # A space after a space is dropped; the first part makes leading ones go too.
            parts.append(replacement.lstrip(" ") if parts[-1].endswith(" ") else replacement)
            if not parts[-1]:
                parts.pop()
        return "".join(parts)[1:].replace(" ", SPACE).rstrip(SPACE)

    def _longest_match(self, data: bytes, start: int) -> tuple[str, int]:
        """The replacement at `start` and how many bytes it stands for."""
        found = self._search(data, start) if self._units else None
        if found is None:
            length = _character_length(data[start])
            return data[start : start + length].decode(), length
        offset, length = found
        return self._texts[offset : self._texts.index(b"\0", offset)].decode(), length

    def _search(self, data: bytes, start: int) -> tuple[int, int] | None:
        """Walk the trie: (offset of the replacement, bytes matched) of the longest key."""
        units, found = self._units, None
        node = _offset(units[0])
        for end in range(start, len(data)):
            node ^= data[end]
            unit = units[node]
            if unit & _LABEL != data[end]:
                break
            node ^= _offset(unit)
            if unit & _LEAF:
                found = units[node] & _VALUE, end + 1 - start
        return found


def _split(compiled: bytes) -> tuple[array[int], bytes]:
    """The trie's units and the NUL-terminated replacement texts."""
    size = struct.unpack_from("<I", compiled)[0] if len(compiled) >= 4 else 0
    if size == 0 or size % 4 or 4 + size >= len(compiled) or compiled[-1] != 0:
        raise BundleError(
            f"the guide tokenizer's character map ({len(compiled)} bytes) is not a compiled map; "
            "export the bundle again"
        )
    units = array("I", struct.unpack_from(f"<{size // 4}I", compiled, 4))
    return units, compiled[4 + size :]


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & (1 << 9)) >> 6)


def _character_length(lead: int) -> int:
    """The length in bytes of the UTF-8 character that starts with `lead`."""
    return 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
