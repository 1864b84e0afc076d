"""The text that steers the compression: a question without its answer options and instructions.

Recognises how multiple-choice prompts are written in the training data and in benchmarks. The
authors' own extraction, which training keeps to, differs where it leaves options in, or takes
letters from the question; see the table in tests/runtime/guide/test_text.py.
"""

from __future__ import annotations

import re

_PLACEHOLDER = re.compile(r"<(?:image|video)>")

_OPTIONS_HEADER = re.compile(
    r"(?:^|(?<=\s))Options:\s.*|(?:^|(?<=\s))Options:$"
    r"|(?:^|(?<=\n))(?:Answer )?(?:[Cc]hoices|[Oo]ptions|[Cc]andidates):\s.*",
    re.DOTALL,
)


def _option_lines(first: str, second: str, others: str, text: str) -> str:
    """A run of lines that begin with labels of one form: "A. a dog", "(A) a dog" or "A) a dog"."""
    opened, closed = r"(?P<open>[(\[（]?)", r"(?P<close>[.):\]）、．])"
    again = rf"\n{{1,2}}[ \t]*(?:[-*•][ \t]*)?(?P=open)%s(?P=close)[ \t]*{text}[^\n]*"
    return (
        rf"(?:^|\n)[ \t]*(?:[-*•][ \t]*)?{opened}{first}{closed}[ \t]*{text}[^\n]*"
        rf"{again % second}(?:{again % others})*"
    )


def _options_in_line(first: str, second: str) -> str:
    """Options that follow their question in its line: "(A) x (B) y", or "A. x B. y" after it."""
    between = r"[^\n]{0,300}?[ \t]"
    after_sentence = (
        rf"(?<=[?!:.])[ \t]*\({first}\){between}\({second}\)[^\n]*"
        rf"|(?<=[?!:.])[ \t]+{first}(?P<dot>[.)])[ \t]+{between}{second}(?P=dot)[ \t]+[^\n]*"
    )
    at_the_end = rf"[ \t\n]\({first}\)[^\n?]{{0,300}}?[ \t]\({second}\)[^\n?]{{0,2000}}(?:$|(?=\n))"
    return f"{after_sentence}|{at_the_end}"


_WORDS = r"(?=\S)"
_NO_DECIMAL = r"(?=[^\s\d])"
_OPTIONS = tuple(
    re.compile(pattern)
    for pattern in (
        _option_lines("A", "B", "[C-Z]", ""),
        _option_lines("a", "b", "[c-z]", _WORDS),
        r"(?<=[\s\S])" + _option_lines("1", "2", r"\d{1,2}", _NO_DECIMAL),
        _options_in_line("A", "B"),
        _options_in_line("a", "b"),
        _options_in_line("1", "2"),
    )
)
"""Each form of options; numbered lines are options only below a question."""

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
    without_options = _OPTIONS_HEADER.sub("", text)
    for form in _OPTIONS:
        without_options = form.sub("", without_options)
    without_options = without_options.strip()
    unlabelled = _QUESTION_LABEL.split(without_options)[-1].strip()
    alone = _INSTRUCTION.sub("", unlabelled).strip()
    return alone or unlabelled or without_options or text
