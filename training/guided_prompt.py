"""The guide of a training prompt: the question alone, without options and format instructions.

Training data mix many forms of multiple choice. The released weights were trained on guides that
the authors' code takes from them, exactly as here, oddities included. At inference the guide is the
question as it was asked; see hicom_edge.runtime.guide.text.
"""

from __future__ import annotations

_TAGS = ("<image>", "<video>")
_ONE_PHRASE = "Answer the question using a single word or phrase."
_LETTER_WANTED = (
    "Please provide your answer by stating the letter followed by the full option.",
    "Please respond with only the letter of the correct answer.",
)
_LABEL = "Question: "
_BRACKETED_OPTIONS = "Options:\n(A)"

_SEVERAL_WANTED = "Select one or more correct answers from following:\n"
_CATEGORY_WANTED = (
    "Choose the corresponding category that captures this action from the offered options.",
    "Pick the most suitable category that represents the interaction from the provided options.",
    "Select the most accurate category from the available choices.",
    "Identify the most accurate action category from the provided options.",
    "Choose the appropriate action category from the listed choices.",
    "Determine the action category that aligns best with these features from the selection "
    "provided.",
    "Select the category that best characterizes this interaction from the given choices.",
    "Pick the relevant category from the list of options.",
    "Select the fitting category that describes their interaction from the available options.",
    "Determine the best-matching action category from the choices given.",
)
_OPTIONS_BEGIN = (
    _SEVERAL_WANTED,
    *(f"{sentence} Options:\n" for sentence in _CATEGORY_WANTED),
    "\nOptions:\nA. ",
)
"""Where the options of the training sets begin; the first of these that occurs counts."""


def guide_of_prompt(prompt: str) -> str:
    """The part of a training prompt that steers the compression."""
    text = prompt
    for tag in _TAGS:
        text = text.replace(tag, "")
    text = text.strip().replace(_ONE_PHRASE, "")
    if any(sentence in text for sentence in _LETTER_WANTED):
        return text.split("\nA. ")[0]
    if text.startswith(_LABEL):
        # as in the authors' code, this strips these letters, not the word: "estimate" → "mate"
        return text.lstrip(_LABEL).split(f"\n{_BRACKETED_OPTIONS}")[0]
    begin = next((phrase for phrase in _OPTIONS_BEGIN if phrase in text), None)
    if begin is not None:
        text = text.split(begin)[0]
    if _BRACKETED_OPTIONS in text:
        text = text.split(_BRACKETED_OPTIONS)[0].split(_LABEL)[-1]
    return text
