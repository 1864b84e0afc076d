"""Whether a value that a caller passed can be used at all.

It knows Python's types and text. It does not know what a value is for, beyond its name in messages.
"""

from __future__ import annotations

import math
import numbers
from typing import TypeGuard

from hicom_edge.errors import PromptError


def is_integer(value: object) -> TypeGuard[int]:
    """A whole number of Python's or NumPy's; True and False are none, and neither is 5.0."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """A real number of Python's or NumPy's that a float holds; True and False are none."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def check_question(question: str) -> None:
    """Refuse what cannot be asked.

    Raises:
        PromptError: no text, no words, or text that is not valid Unicode.
    """
    check_text(question, "the question")
    if not question.strip():
        raise PromptError("the question is empty; ask something about the video")


def check_text(text: object, what: str) -> None:
    """Refuse what is no text, or has no UTF-8 form (lone surrogates, as from a bad argument).

    Raises:
        PromptError: names `what`, and where it is not Unicode.
    """
    if not isinstance(text, str):
        raise PromptError(f"{what} is {text!r}; pass text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{what} is not valid Unicode: {text[error.start]!r} at character {error.start}; "
            "pass text in UTF-8"
        ) from error
