"""The guide of a training prompt: the question alone, without options and format instructions.

Training data contain many forms of multiple choice. This follows the authors' training code
(`extract_guided_prompt`), oddities included, because the released weights were trained with it. At
inference `runtime.guide.text` extracts the guide.
"""

from __future__ import annotations

import re

_TAGS = ("<video>", "<image>")
_ONE_PHRASE = "Answer the question using a single word or phrase."
_LETTER_WANTED = (
    "Please provide your answer by stating the letter followed by the full option.",
    "Please respond with only the letter of the correct answer.",
)
_CATEGORY_WANTED = re.compile(
    r"(?:Choose|Pick|Select|Identify) the [^.\n]*category[^.\n]* from the [^.\n]*options\."
)
_SEVERAL_WANTED = "Select one or more correct answers from following:"
_OPTIONS = "Options:"


def guide_of_prompt(prompt: str) -> str:
    """The part of a training prompt that steers the compression."""
    text = prompt
    for tag in _TAGS:
        text = text.replace(tag, "")
    text = text.strip().replace(_ONE_PHRASE, "")
    if any(phrase in text for phrase in _LETTER_WANTED):
        return text.split("\nA.")[0]
    if category := _CATEGORY_WANTED.search(text):
        return text[: category.start()]
    if f"\n{_OPTIONS}" in text and text.startswith("Question:"):
        # as in the authors' code, this strips these letters, not the word: "estimate" → "mate"
        return text.split(f"\n{_OPTIONS}")[0].lstrip("Question: ")
    if f"\n{_OPTIONS}\nA." in text:
        return text.split(f"\n{_OPTIONS}")[0]
    if f"{_OPTIONS}\n(A)" in text:
        return text.split(_OPTIONS)[0].split("Question: ")[-1]
    return text.split(_SEVERAL_WANTED)[0]
