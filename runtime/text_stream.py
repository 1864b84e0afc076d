"""Token ids to text, piece by piece, without ever cutting a character in half.

It knows how tokenizers spell characters as bytes. It does not know where the ids come from.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class _Decoder(Protocol):
    def push(self, token_id: int, token: str) -> str:
        """The text that `token_id` completes."""

    def finish(self) -> str:
        """What was held back."""


class TextStream:
    """Decodes one answer. The pieces joined equal `tokenizer.decode(all ids)`, in linear time.

    Special tokens and ids that the tokenizer does not have give no text, as in its own decoding.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        from tokenizers.decoders import ByteLevel

        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = {index for index, token in added.items() if token.special}
        byte_level = isinstance(tokenizer.decoder, ByteLevel)
        self._decoder: _Decoder = _ByteLevel() if byte_level else _Window(tokenizer)

    def push(self, token_id: int) -> str:
        """The text that can be shown now that `token_id` is known; may be empty."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None or token_id in self._special:
            return ""
        return self._decoder.push(token_id, token)

    def finish(self) -> str:
        """The rest: bytes of a character that never became whole, as U+FFFD."""
        return self._decoder.finish()

    def pieces(self, token_ids: Iterable[int]) -> Iterator[str]:
        """All non-empty pieces of a whole stream of ids."""
        for token_id in token_ids:
            if piece := self.push(int(token_id)):
                yield piece
        if piece := self.finish():
            yield piece


class _ByteLevel:
    """Tokens spell bytes as printable characters (GPT-2, Qwen, Llama 3)."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int, token: str) -> str:
        try:
            spelled = bytes(map(_BYTE_OF.__getitem__, token))
        except KeyError:
            # An added token that holds a space, for example, stands for itself.
            spelled = token.encode()
        return self._utf8.decode(spelled)

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class _Window:
    """Any other decoder: decodes the newest tokens after those whose text is already out.

    The context keeps decoders honest that treat the first token differently. Byte tokens <0xNN> are
    held until their run ends, because one wrong byte changes the text of the whole run.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._context: list[int] = []
        self._pending: list[int] = []

    def push(self, token_id: int, token: str) -> str:
        self._pending.append(token_id)
        return "" if _BYTE_TOKEN.fullmatch(token) else self.finish()

    def finish(self) -> str:
        before = self._tokenizer.decode(self._context)
        after = self._tokenizer.decode(self._context + self._pending)
        if len(after) > len(before):
            self._context, self._pending = self._pending, []
        return after[len(before) :]


def _byte_of() -> dict[str, int]:
    """GPT-2's spelling: printable Latin-1 stands for itself, the other bytes for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    spelled = {chr(byte): byte for byte in printable}
    return spelled | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_of()
