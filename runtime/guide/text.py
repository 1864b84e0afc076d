"""The text that steers the compression: a question without its answer options and instructions.

It knows how multiple-choice prompts are written in the data that HICom is trained and judged on
where the text is the question alone. It does not know tokens. The authors' own extraction differs
where it leaves options in, or takes letters from the question; see the table in
tests/runtime/guide/test_text.py.
"""

from __future__ import annotations

import re

_PLACEHOLDER = re.compile(r"<(?:image|video)>")

_OPTIONS_HEADER = re.compile(r"(?:^|(?<=\s))Options:\s.*|(?:^|(?<=\s))Options:$", re.DOTALL)

_OPTION_LINES = re.compile(
    r"(?:^|\n)[ \t]*(?P<open>\(?)A(?P<close>[.):])[ \t]+[^\n]*"
    r"\n[ \t]*(?P=open)B(?P=close)[ \t]+[^\n]*"
    r"(?:\n[ \t]*(?P=open)[C-Z](?P=close)[ \t]+[^\n]*)*"
)
"""A run of lines that starts with A and B: "A. a dog", "(A) a dog" or "A) a dog"."""

_INSTRUCTION = re.compile(
    r"Answer the question (?:using|with) an? (?:single|short|one)[^.\n]{0,200}\."
    r"|Please provide your answer by stating the letter[^.\n]{0,200}\."
    r"|(?:Please )?(?:[Rr]espond|[Aa]nswer) with (?:only )?the (?:option'?s? ?)?letter"
    r"[^.\n]{0,200}\."
    r"|Select one or more correct answers from following:"
    r"|Select the best answer to the following multiple-choice question[^.\n]{0,200}\."
    r"|Only give the best option\."
    r"|(?:The best answer is|Best option): ?\(?$"
    r"|(?:Choose|Pick|Select|Identify|Determine) the [^.\n]{0,200}\bcategory\b[^.\n]{0,200}"
    r"\b(?:options|choices|selection)\b[^.\n]{0,200}\."
)

_QUESTION_LABEL = re.compile(r"(?:^|(?<=\n)|(?<=[.!?:] ))Question: ")
"""At the start of the text, of a line or of a sentence; the last one counts."""


def guide_text(question: str) -> str:
    """The question alone, for the guide; never empty unless `question` is.

    Placeholders, a "Question:" label with what stands before it, answer options and known format
    instructions are removed. If nothing else is left, as little as possible is removed.
    """
    text = _PLACEHOLDER.sub("", question).strip()
    without_options = _OPTION_LINES.sub("", _OPTIONS_HEADER.sub("", text)).strip()
    unlabelled = _QUESTION_LABEL.split(without_options)[-1].strip()
    alone = _INSTRUCTION.sub("", unlabelled).strip()
    return alone or unlabelled or without_options or text
