"""SentencePiece's unigram segmentation: the most probable way to cut a text into pieces.

Scores have SentencePiece's own precision, so that equally probable cuts are decided alike.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

_UNKNOWN_PENALTY = 10.0


class Unigram:
    """Cuts normalised text into pieces exactly as SentencePiece does, ties included.

    Scores are kept in float32 and compared in float64, as SentencePiece did up to 0.2.1, which the
    authors' models were trained with: the rounding decides between cuts that are equally probable,
    such as "aa|a" and "a|aa". Later versions may choose the other one.

    Args:
        pieces: (text, log probability), in the order of their ids. A log probability of 0 marks a
            piece that no text matches: a control symbol, a byte, the unknown piece.
        byte_fallback: spell unknown characters as bytes `<0xNN>` instead of one unknown token.
    """

    def __init__(self, pieces: Sequence[tuple[str, float]], byte_fallback: bool = False) -> None:
        self._scores = {piece: score for piece, score in pieces if score != 0.0}
        self._longest: dict[str, int] = {}
        for piece in self._scores:
            self._longest[piece[0]] = max(self._longest.get(piece[0], 1), len(piece))
        lowest = min(self._scores.values(), default=0.0)
        self._unknown_score = _float32(_float32(lowest) - _UNKNOWN_PENALTY)
        self._byte_fallback = byte_fallback

    def tokenize(self, text: str) -> list[str]:
        """The pieces of `text`; a run of unknown characters is one token (or its bytes)."""
        tokens: list[str] = []
        after_unknown = False
        for piece in self._cut(text):
            unknown = piece not in self._scores
            if unknown and self._byte_fallback:
                tokens.extend(f"<0x{byte:02X}>" for byte in piece.encode())
            elif unknown and after_unknown:
                tokens[-1] += piece
            else:
                tokens.append(piece)
            after_unknown = unknown
        return tokens

    def _cut(self, text: str) -> list[str]:
        """Viterbi over all cuts: `best[i]` is the score of the best path to character i."""
        best = array("f", bytes(4 * (len(text) + 1)))
        came_from = [-1] * (len(text) + 1)
        for start in range(len(text)):
            for end, score in self._candidates(text, start):
                candidate = score + best[start]
                if came_from[end] < 0 or candidate > best[end]:
                    best[end], came_from[end] = candidate, start
        return _path(text, came_from)

    def _candidates(self, text: str, start: int) -> Iterator[tuple[int, float]]:
        """(end, score) of each piece at `start`, the shortest first, then the unknown one."""
        scores = self._scores
        longest = self._longest.get(text[start], 1)
        for end in range(start + 1, min(start + longest, len(text)) + 1):
            score = scores.get(text[start:end])
            if score is not None:
                yield end, score
        if text[start] not in scores:
            yield start + 1, self._unknown_score


def _path(text: str, came_from: list[int]) -> list[str]:
    pieces, end = [], len(text)
    while end > 0:
        pieces.append(text[came_from[end] : end])
        end = came_from[end]
    return pieces[::-1]


def _float32(value: float) -> float:
    return array("f", [value])[0]
