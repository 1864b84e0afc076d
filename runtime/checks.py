"""Checks of what a caller asks."""

from __future__ import annotations

from typing import Any

from hicom_edge.errors import InputError, PromptError


def check_question(question: str) -> None:
    """Refuse what cannot be asked.

    Raises:
        PromptError: no text, no words, or text that is not valid Unicode.
    """
    check_text(question, "the question")
    if not question.strip():
        raise PromptError("the question is empty; ask something about the video")


def check_pair(item: Any) -> tuple[Any, Any]:
    """Refuse what is not a clip with a question.

    Raises:
        InputError: not a tuple or list of two.
    """
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    raise InputError(
        f"a {type(item).__name__} was given; pass a list of pairs, each a clip and a question"
    )


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
