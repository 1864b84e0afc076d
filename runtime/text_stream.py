"""Decodes token ids to text incrementally, in pieces of whole characters."""

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
        """The text that is complete with `token_id`; may be empty."""

    def finish(self) -> str:
        """The text of the tokens held back."""


class TextStream:
    """Decodes one answer in linear time. The joined pieces equal `tokenizer.decode(all ids)`.

    As in that method, special tokens and unknown ids give no text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        from tokenizers.decoders import ByteLevel

        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = {index for index, token in added.items() if token.special}
        byte_level = isinstance(tokenizer.decoder, ByteLevel)
        self._decoder: _Decoder = _ByteLevel() if byte_level else _Window(tokenizer)

    def push(self, token_id: int) -> str:
        """The text that is complete with `token_id`; may be empty."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None or token_id in self._special:
            return ""
        return self._decoder.push(token_id, token)

    def finish(self) -> str:
        """The rest: bytes of an incomplete character, as U+FFFD."""
        return self._decoder.finish()

    def pieces(self, token_ids: Iterable[int]) -> Iterator[str]:
        """The non-empty pieces of all ids."""
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
            # Added tokens are not byte-encoded, for example those with a space.
            spelled = token.encode()
        return self._utf8.decode(spelled)

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class _Window:
    """Any other tokenizer: decodes new tokens together with those before them.

    The tokens before are needed because some decoders treat the first token differently. Byte
    tokens <0xNN> are held back until their run ends, because one wrong byte changes the text of the
    whole run.
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
    """GPT-2's byte encoding: printable Latin-1 is itself, other bytes are U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    spelled = {chr(byte): byte for byte in printable}
    return spelled | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_of()
