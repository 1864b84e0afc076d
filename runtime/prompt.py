"""Token ids of a chat prompt, in two parts around the visual tokens.

Questions and answers are ordinary text: `<video>` or a control token in them has no effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import BundleError, PromptError
from hicom_edge.runtime.checks import check_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from hicom_edge.bundle import Bundle

MODALITIES = ("video", "image")


class PromptParts(NamedTuple):
    """Token ids (n,) int64 before and after the visual tokens."""

    prefix_ids: NDArray[np.int64]
    suffix_ids: NDArray[np.int64]


class Fragment(NamedTuple):
    """A part of the chat text, and whether it comes from the template or from a message."""

    text: str
    is_template: bool


class PromptBuilder:
    """Renders the chat template of a bundle and tokenises it around the visual tokens."""

    def __init__(self, bundle: Bundle) -> None:
        self._path = bundle.file(bundle.manifest.tokenizer)
        self._chat = bundle.manifest.chat
        self._lock = Lock()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The language model's tokenizer, read at first use.

        Raises:
            BundleError: the file is not a tokenizer.
        """
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(self._path))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise BundleError(
                f"{self._path} is not a tokenizer ({reason}); export the bundle again"
            ) from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = False
        return tokenizer

    def build(
        self,
        question: str,
        modality: str = "video",
        history: Iterable[tuple[str, str]] = (),
        system: str | None = None,
    ) -> PromptParts:
        """The prompt of `question` after `history`: (question, answer) pairs about the same clip.

        As in training, the visual tokens and a newline come before the first question, and the text
        on each side is tokenised by itself. `system` None: the system prompt of the template.

        Raises:
            PromptError: an unknown modality, or text that is not valid Unicode.
        """
        if modality not in MODALITIES:
            raise PromptError(f"unknown modality {modality!r}; pass one of {list(MODALITIES)}")
        turns = [text for turn in history for text in turn] + [question]
        for text in [*turns, system or ""]:
            check_text(text, "the prompt")
        before, after = self._render(turns, system)
        return PromptParts(self._encode(before), self._encode(after))

    def _render(
        self, turns: Sequence[str], system: str | None
    ) -> tuple[list[Fragment], list[Fragment]]:
        """The chat before and after the visual tokens; `turns` alternates questions and answers."""
        chat = self._chat
        before = [Fragment(chat.start, True)]
        system = chat.default_system if system is None else system
        if system is not None:
            before += self._message(chat.system, system)
        opening, _, closing = chat.user.partition("{content}")
        before.append(Fragment(opening, True))
        first = "\n" + turns[0]
        after = [Fragment(first.rstrip() if chat.trim else first, False), Fragment(closing, True)]
        for index, text in enumerate(turns[1:]):
            after += self._message(chat.user if index % 2 else chat.assistant, text)
        return before, [*after, Fragment(chat.generation_prompt, True)]

    def _message(self, template: str, content: str) -> list[Fragment]:
        opening, _, closing = template.partition("{content}")
        content = content.strip() if self._chat.trim else content
        return [Fragment(opening, True), Fragment(content, False), Fragment(closing, True)]

    def _encode(self, fragments: Sequence[Fragment]) -> NDArray[np.int64]:
        """Ids of the joined text; only control tokens of the template are encoded as such."""
        controls, control_ids = self._controls, set(self._controls.values())
        written = [part for f in fragments if f.is_template for part in self._split(f.text)[1::2]]
        text = "".join(fragment.text for fragment in fragments)
        with self._lock:
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            if [i for i in ids if i in control_ids] != [controls[part] for part in written]:
                ids = self._encode_literally(fragments)
        return np.array(ids, np.int64)

    def _encode_literally(self, fragments: Sequence[Fragment]) -> list[int]:
        """Ids of a chat with a control token in a message, which is encoded as ordinary text."""
        runs = [""]
        for fragment in fragments:
            parts = self._split(fragment.text) if fragment.is_template else [fragment.text]
            runs[-1] += parts[0]
            runs += parts[1:]
        tokenizer = self.tokenizer
        tokenizer.encode_special_tokens = True
        try:
            ordinary = [tokenizer.encode(run, add_special_tokens=False).ids for run in runs[::2]]
        finally:
            tokenizer.encode_special_tokens = False
        ids: list[int] = list(ordinary[0])
        for control, run_ids in zip(runs[1::2], ordinary[1:]):
            ids += [self._controls[control], *run_ids]
        return ids

    def _split(self, text: str) -> list[str]:
        """Parts of a text: ordinary text at even indices, control tokens at odd ones."""
        return self._control_pattern.split(text) if self._controls else [text]

    @cached_property
    def _controls(self) -> dict[str, int]:
        """Control tokens and their ids, the longest first."""
        added = self.tokenizer.get_added_tokens_decoder()
        found = {token.content: index for index, token in added.items() if token.special}
        return dict(sorted(found.items(), key=lambda item: -len(item[0])))

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        return re.compile("(" + "|".join(map(re.escape, self._controls)) + ")")
