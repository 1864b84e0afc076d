"""Checks of texts that a caller passes."""

from __future__ import annotations

from hicom_edge.errors import PromptError


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
