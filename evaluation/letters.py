"""Reading the chosen letter out of a model's free text, by the rules of published benchmarks.

The same outputs score 40 to 67 % depending on the rule, so each rule is kept under its own name and
behaves exactly as in its source, defects included. `strict` is our own: an output that does not
clearly name a letter is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hicom_edge.errors import InputError

How = Literal["letter", "text", "fallback", "random", "none"]

LETTERS = "ABCDEFGH"
_FALLBACK = "C"
"""The authors' scripts count an unreadable output as the third option."""
_DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Reading:
    """What a rule made of one output.

    Attributes:
        letter: the option, or None where the rule names none or would draw one at random.
        how: "letter" (a letter was read), "text" (an option's text was recognised), "fallback" (the
            rule's constant), "random" (the source draws a random letter) or "none".
        right_for: the letters for which the source scores this output as right. Two rules compare
            the output with the right answer and accept several letters at once.
    """

    letter: str | None
    how: How
    right_for: tuple[str, ...] = ()


Rule = Callable[[str, Sequence[str]], Reading]


def parse(output: str, options: Sequence[str], rule: str = "strict") -> str | None:
    """The letter that a rule reads in an output, or None.

    Args:
        output: the model's text.
        options: the options' texts in order, without letters.
        rule: one of `RULES`.

    Raises:
        InputError: no such rule, or no or too many options.
    """
    return read(output, options, rule).letter


def read(output: str, options: Sequence[str], rule: str = "strict") -> Reading:
    """As `parse`, with how the letter was read and for which letters it counts as right."""
    if rule not in RULES:
        raise InputError(f"there is no letter rule {rule!r}; the rules are {', '.join(RULES)}")
    if not 2 <= len(options) <= len(LETTERS):
        raise InputError(f"{len(options)} options were given; pass 2 to {len(LETTERS)}")
    reading = RULES[rule](output, options)
    asked = tuple(letter for letter in reading.right_for if letter in LETTERS[: len(options)])
    return replace(reading, right_for=asked)  # some rules also read letters that no option has


def _letter(letter: str | None, how: How = "letter") -> Reading:
    if letter is None:
        return Reading(None, "none")
    return Reading(letter, how, (letter,))


def _option_in(output: str, options: Sequence[str], digits_as_words: bool) -> str | None:
    """The first option whose text the output contains, whatever the case."""
    text = output.lower()
    for letter, option in zip(LETTERS, options):
        forms = [option.lower()]
        if digits_as_words and option.isdecimal() and len(option) == 1:
            forms.append(_DIGIT_WORDS[int(option)])
        if any(form in text for form in forms):
            return letter
    return None


def _without_answer(output: str) -> str:
    """The capital A of "Answer" would be read as a letter."""
    return output.replace("answer", "").replace("Answer", "")


def hicom_videomme(output: str, options: Sequence[str]) -> Reading:
    """The first capital A to D anywhere, also inside a word; else an option's text; else C."""
    text = _without_answer(output)
    if match := re.search("[A-D]", text):
        return _letter(match[0])
    by_text = _option_in(text, options, digits_as_words=True)
    return _letter(by_text, "text") if by_text else _letter(_FALLBACK, "fallback")


def hicom_mvbench_mlvu(output: str, options: Sequence[str]) -> Reading:
    """The first run of brackets, commas, blanks and one letter; unless it is clean, C."""
    text, last = _without_answer(output), LETTERS[len(options) - 1]
    match = re.search(rf"[(, ]*[A-{last}][), ]*", text)
    if match is None:
        by_text = _option_in(text, options, digits_as_words=False)
        return _letter(by_text, "text") if by_text else _letter(_FALLBACK, "fallback")
    return _letter_of_run(match[0])


def hicom_egoschema(output: str, options: Sequence[str]) -> Reading:
    """As `hicom_mvbench_mlvu` with five letters, no comma in the run and no option texts."""
    match = re.search(r"[( ]*[A-E][) ]*", _without_answer(output))
    return _letter_of_run(match[0]) if match else _letter(_FALLBACK, "fallback")


def _letter_of_run(run: str) -> Reading:
    bare = run.strip().strip("()")
    return _letter(bare) if len(bare) == 1 else _letter(_FALLBACK, "fallback")


def official_videomme(output: str, options: Sequence[str]) -> Reading:
    """The first capital A to D anywhere, "Answer:" left out."""
    # Of the source's lead-ins only this has a capital A to D: the others change nothing.
    match = re.search("[A-D]", output.replace("Answer:", ""))
    return _letter(match[0] if match else None)


def lmms_longvideobench(output: str, options: Sequence[str]) -> Reading:
    """The first capital A to E anywhere, "Best answer:" and "Best option:" left out."""
    match = re.search("[A-E]", output.replace("Best answer:", "").replace("Best option:", ""))
    return _letter(match[0]) if match else Reading(None, "random")


_LEAD_INS = (
    *("answer is", "correct option is", "best option is", "choice is"),
    *("i choose", "i select", "i pick", "옵션", "정답은", "답은", "답:"),
    *("答案是", "答案为", "选", "答えは"),
)
"""Only the first occurrence of each counts; longer phrases of the source end in one of these."""


def lmms_videomme_mlvu(output: str, options: Sequence[str]) -> Reading:
    """The letter in the most telling form; between equal forms the later one."""
    text = output.strip()
    for character in ",.!?;:'\"":
        text = text.strip(character)
    bare, padded = text.strip(), f" {text} "
    candidates: list[tuple[int, int, str]] = []  # (weight of the form, position, letter)
    for letter in LETTERS[:4]:
        forms = ((6, f"({letter})"), (5, f"{letter}."), (4, f"{letter}:"), (3, f"{letter})"))
        for weight, form in (*forms, (2, f"{letter} ")):
            if form in padded:
                candidates.append((weight, padded.rfind(form), letter))
        for lead_in in _LEAD_INS:
            start = padded.lower().find(lead_in)
            position = padded.find(letter, start + len(lead_in)) if start >= 0 else -1
            if position >= 0:
                candidates.append((7, position, letter))
        if bare.startswith(letter) and not bare[1:2].isalpha():
            candidates.append((10, 0, letter))
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            candidates.append((9, len(padded) - 1, letter))
    if not candidates:  # any letter, also inside a word
        candidates = [(0, padded.rfind(c), c) for c in LETTERS[:4] if c in padded]
    if not candidates:
        return _letter(None)
    # max() keeps the first of equals, which is the earlier letter, as the source's stable sort does
    return _letter(max(candidates, key=lambda candidate: candidate[:2])[2])


_REMOVED_OR_BLANK = (";", "/", *'[]"{}()=+\\_-><@`,?!')


def lmms_mvbench(output: str, options: Sequence[str]) -> Reading:
    """`A. text` at the start; else the first letter a to e that stands alone, in any case."""
    if match := re.match(r"([A-E])\.\s*.+$", output.strip(), re.IGNORECASE):
        return _letter(match[1].upper())
    text = output.replace("\n", " ").replace("\t", " ").strip()
    for mark in _REMOVED_OR_BLANK:
        beside_blank = f"{mark} " in text or f" {mark}" in text or re.search(r"\d,\d", text)
        text = text.replace(mark, "" if beside_blank else " ")
    text = re.sub(r"\.(?!\d)", "", text, count=32)  # the source passes a flag as the count
    match = re.search(r"\b[A-E]\b", text, re.IGNORECASE)
    return _letter(match[0].upper() if match else None)


def lmms_egoschema(output: str, options: Sequence[str]) -> Reading:
    """The earliest of "(A)", "A " and "A."; in a longer text without them, an option's text."""
    text = _stripped_and_padded(output)
    forms = [f(c) for f in ("({})".format, "{} ".format, "{}.".format) for c in LETTERS[:5]]
    present = [form for form in forms if form in text]
    if present:
        return _letter(min(present, key=text.rfind).strip("(). "))
    return _by_option_text(text, options, min)


def lmms_nextqa(output: str, options: Sequence[str]) -> Reading:
    """The latest of "(A)", if there is none of "A ", if there is none of "A."."""
    text = _stripped_and_padded(output)
    for form, searched in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        present = [c for c in LETTERS[:5] if form.format(c) in text]
        if present:
            return _letter(_latest(text, {c: searched.format(c) for c in present}))
    return _by_option_text(text, options, max)


def _latest(text: str, forms: dict[str, str]) -> str:
    return max(forms, key=lambda letter: text.rfind(forms[letter]))


def _stripped_and_padded(output: str) -> str:
    for character in ",.!?;:'":
        output = output.strip(character)
    return f" {output} "


def _by_option_text(text: str, options: Sequence[str], choose: Callable[..., str]) -> Reading:
    lower = text.lower()
    texts = {c: option.strip().lower() for c, option in zip(LETTERS, options)}
    present = [c for c in texts if texts[c] in lower] if len(text.split()) > 5 else []
    if not present:
        return Reading(None, "random")
    return _letter(choose(present, key=lambda c: lower.rfind(texts[c])), "text")


def vlmevalkit_videomme(output: str, options: Sequence[str]) -> Reading:
    """As `official_videomme`. Its second try gets no options, and so never recognises one."""
    return official_videomme(output, options)


def vlmevalkit_mvbench(output: str, options: Sequence[str]) -> Reading:
    """The first word inside "(x)", or around it, is right; else an exact reading.

    An empty output is inside everything, and right whatever the answer is.
    """
    word = output.lower().strip().split(" ")[0]
    right = [
        letter
        for letter, _ in zip(LETTERS, options)
        if word.replace(".", "") in f"({letter.lower()})" or f"({letter.lower()})" in word
    ]
    exact = _exact(output, options)
    if exact.letter and exact.letter not in right:
        right.append(exact.letter)
    return _reading_of(right, "letter" if exact.how == "none" else exact.how)


def vlmevalkit_mlvu(output: str, options: Sequence[str]) -> Reading:
    """The character before the first ")", or the whole output; else an exact reading."""
    letter, text = _before_bracket(output, options), output
    if ")" in output:
        text = output[max(output.index(")") - 1, 0) : output.index(")")]
    exact = _exact(output, options)
    right = [c for c in (letter, exact.letter) if c]
    return _reading_of(list(dict.fromkeys(right)), "letter" if text in right else exact.how)


def official_mlvu(output: str, options: Sequence[str]) -> Reading:
    """The character before the first ")", or the whole output, must be the letter."""
    return _letter(_before_bracket(output, options))


def _before_bracket(output: str, options: Sequence[str]) -> str | None:
    end = output.find(")")
    text = output if end < 0 else output[end - 1 : end]
    return text if len(text) == 1 and text in LETTERS[: len(options)] else None


def _reading_of(right: list[str], how: How) -> Reading:
    letter = right[0] if len(right) == 1 else None
    return Reading(letter, how if right else "none", tuple(sorted(right)))


def _exact(output: str, options: Sequence[str]) -> Reading:
    """Exactly one letter among the last words, "answer is X", or exactly one option's text."""
    letters = LETTERS[: len(options)]
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", output).split()
    present = [c for c in letters if c in words]
    if len(present) == 1 and words.index(present[0]) > len(words) - 5:
        return _letter(present[0])
    named = re.search(r"answer\s+is\s+\**([A-D])\**", output, re.IGNORECASE)
    if named and named[1].upper() in letters:
        return _letter(named[1].upper())
    if len(output) > 2 * sum(map(len, options)):  # too long to be an option
        return _letter(None)
    by_text = [c for c, option in zip(letters, options) if option.lower() in output.lower()]
    return _letter(by_text[0], "text") if len(by_text) == 1 else _letter(None)


def strict(output: str, options: Sequence[str]) -> Reading:
    """Ours: exactly one letter is named, or the whole output is one option's text.

    A letter is named where it stands alone, starts the output ("B.", "B, because"), is in brackets,
    follows "answer", "option" or "choice", ends the output, or is joined to another by "or" or
    "and". Several different letters are no answer.
    """
    letters, text = LETTERS[: len(options)], output.strip()
    named = {letter for form in _NAMED for letter in re.findall(form, text) if letter in letters}
    bare = text.strip(" .\n*\"'").lower()
    same = [
        letter
        for letter, option in zip(letters, options)
        if bare in (plain := option.strip(" .").lower(), f"{letter.lower()} {plain}")
    ]
    if len(named) == 1:
        return _letter(*named)
    return _letter(same[0], "text") if not named and len(same) == 1 else _letter(None)


_NAMED = (
    r"^\W*([A-H])(?=$|[^\w\s'])",
    r"\(([A-H])\)",
    r"(?i:answer|option|choice)(?i:\W+is)?\W*([A-H])\b",
    r"(?<![\w'])([A-H])\W*$",
    r"\b([A-H])\W+(?:or|and)\W+[A-H]\b",
)

RULES: dict[str, Rule] = {
    "strict": strict,
    "hicom_videomme": hicom_videomme,
    "hicom_mvbench_mlvu": hicom_mvbench_mlvu,
    "hicom_egoschema": hicom_egoschema,
    "official_videomme": official_videomme,
    "official_mlvu_correct_for": official_mlvu,
    "lmms_videomme_mlvu": lmms_videomme_mlvu,
    "lmms_mvbench_correct_for": lmms_mvbench,
    "lmms_egoschema": lmms_egoschema,
    "lmms_nextqa": lmms_nextqa,
    "lmms_longvideobench": lmms_longvideobench,
    "vlmevalkit_videomme": vlmevalkit_videomme,
    "vlmevalkit_mvbench_correct_for": vlmevalkit_mvbench,
    "vlmevalkit_mlvu_correct_for": vlmevalkit_mlvu,
}
"""By the names of the columns of `parse_cases.jsonl` (tests/reference)."""
