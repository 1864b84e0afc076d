"""Options as fields of frozen dataclasses, each with its help text, choices and range.

A class declares its options with `option(...)` and calls `check_fields(self)` in `__post_init__`.
The command line derives its options from the same fields.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard, TypeVar

from hicom_edge.errors import HicomEdgeError, InputError

T = TypeVar("T")

_KEY = "hicom_edge.option"
_LONGEST_SHOWN = 60


@dataclass(frozen=True)
class OptionInfo:
    """What is known of an option besides its name, type and default.

    Attributes:
        help: one sentence for --help.
        minimum, maximum: the range, ends included.
        above: a lower end that is excluded.
        minimum_means: what the minimum stands for, such as "greedy" or "off".
        unit: "seconds" for times, which the command line also reads as h:mm:ss.
        default_means: the default in words, where the value itself does not explain it.
        none_text: how None is written on the command line, such as "off".
        short: a short flag besides the long one, such as "-b".
    """

    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    minimum_means: str = ""
    unit: str = ""
    default_means: str = ""
    none_text: str = ""
    short: str = ""


def option(default: Any, help: str, **details: Any) -> Any:
    """A dataclass field that is an option; `details` are the other fields of OptionInfo."""
    return dataclasses.field(default=default, metadata={_KEY: OptionInfo(help, **details)})


@dataclass(frozen=True)
class OptionField:
    """An option of a class with its type resolved.

    Attributes:
        kind: int, float, str, bool, Path, tuple (of texts), or None if only `choices` are valid.
        choices: the values of a Literal.
    """

    name: str
    info: OptionInfo
    default: Any
    kind: type | None
    choices: tuple[Any, ...]
    is_optional: bool

    @property
    def expected(self) -> str:
        """The valid values in words, such as "1 or more, a whole number"."""
        choices = f"one of {', '.join(map(str, self.choices))}" if self.choices else ""
        words: str = {
            type(None): "",
            int: f"{self.limits or 'any'}, a whole number",
            float: self.limits or f"a number{' of ' if self.info.unit else ''}{self.info.unit}",
            str: "text",
            bool: "True or False",
            Path: "a path",
            tuple: "a list of texts",
        }[self.kind or type(None)]
        return f"{choices}, or {words}" if choices and words else choices or words

    @property
    def limits(self) -> str:
        """The range in words, such as "1 or more"; empty if there is none."""
        info = self.info
        if info.above is not None:
            most = "" if info.maximum is None else f" and at most {_number(info.maximum)}"
            return f"above {_number(info.above)}{most}"
        if info.minimum is None:
            return "" if info.maximum is None else f"at most {_number(info.maximum)}"
        meaning = f" ({info.minimum_means})" if info.minimum_means else ""
        least = _number(info.minimum) + meaning
        if info.maximum is None:
            return f"{least} or more"
        return f"{least} to {_number(info.maximum)}"

    def checked(self, value: Any, error: type[HicomEdgeError] = InputError) -> Any:
        """The value as a plain Python object.

        Raises:
            error: the value is of another type, outside the range or none of the choices.
        """
        if value is None and self.is_optional:
            return None
        if isinstance(value, str) or is_integer(value):
            for choice in self.choices:
                if value == choice:
                    return choice
        if self.kind is not None and _is_of(self.kind, value) and self._is_in_range(value):
            return _plain(self.kind, value)
        raise self.refusal(value, error)

    def refusal(self, value: Any, error: type[HicomEdgeError] = InputError) -> HicomEdgeError:
        """The error for a bad value."""
        return error(f"{self.name} is {_shown(value)}; pass {self.expected}", self.name)

    def _is_in_range(self, value: Any) -> bool:
        if self.kind not in (int, float):
            return True
        info = self.info
        return (
            (info.minimum is None or value >= info.minimum)
            and (info.maximum is None or value <= info.maximum)
            and (info.above is None or value > info.above)
        )

    def from_text(self, text: str) -> Any:
        """A value from the command line; its range is not checked.

        Raises:
            InputError: the text is not of the option's type.
        """
        if self.info.none_text and text == self.info.none_text:
            return None
        for choice in self.choices:
            if text == str(choice):
                return choice
        try:
            if self.kind is int:
                return int(text)
            if self.kind is float:
                return seconds_from_text(text) if self.info.unit == "seconds" else float(text)
        except ValueError:
            raise self.refusal(text) from None
        if self.kind is None:
            raise self.refusal(text)
        return self.kind(text)


def option_fields(cls: type[Any]) -> tuple[OptionField, ...]:
    """The options of a class, in order."""
    hints = typing.get_type_hints(cls)
    return tuple(
        _resolved(field, hints[field.name])
        for field in dataclasses.fields(cls)
        if _KEY in field.metadata
    )


def check_fields(options: Any, error: type[HicomEdgeError] = InputError) -> None:
    """Check every option of a dataclass instance; numbers of NumPy become Python's.

    Raises:
        error: a value is of another type, outside its range or none of the choices.
    """
    for field in option_fields(options.__class__):
        value = getattr(options, field.name)
        object.__setattr__(options, field.name, field.checked(value, error))


def options_from(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of a dataclass of options.

    Raises:
        InputError: a name that is no option of the class.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise InputError(f"unknown options {', '.join(unknown)}; expected {', '.join(known)}")
    return cls(**values)


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number of Python or NumPy; True, False and 5.0 are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a real number of Python or NumPy that fits a float; True is not."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def seconds_from_text(text: str) -> float:
    """Seconds from "90", "1.5", "mm:ss" or "h:mm:ss".

    Raises:
        ValueError: other text.
    """
    *larger, seconds = text.split(":")
    if not larger:
        return float(seconds)
    parts = [int(part) for part in larger]
    is_valid = len(parts) <= 2 and 0 <= float(seconds) < 60 and all(part >= 0 for part in parts)
    if not is_valid or (len(parts) == 2 and parts[1] >= 60):
        raise ValueError(text)
    hours, minutes = (0, *parts)[-2:]
    return hours * 3600 + minutes * 60 + float(seconds)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _resolved(field: dataclasses.Field[Any], hint: Any) -> OptionField:
    parts = _parts(hint)
    choices = tuple(c for part in parts if _is_literal(part) for c in typing.get_args(part))
    kinds = [_kind(part) for part in parts if not _is_literal(part) and part is not type(None)]
    kind = Path if Path in kinds else kinds[0] if kinds else None
    assert choices or kind, f"{field.name}: no option can have the type {hint}"
    is_optional = type(None) in parts or None in choices
    choices = tuple(choice for choice in choices if choice is not None)
    return OptionField(field.name, field.metadata[_KEY], field.default, kind, choices, is_optional)


def _parts(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _is_literal(hint: Any) -> bool:
    return typing.get_origin(hint) is Literal


def _kind(hint: Any) -> type:
    kind = typing.get_origin(hint) or hint
    if isinstance(kind, type) and issubclass(kind, os.PathLike):
        return Path
    assert kind in (int, float, str, bool, tuple), hint
    return typing.cast(type, kind)


def _is_of(kind: type, value: object) -> bool:
    if kind is int:
        return is_integer(value)
    if kind is float:
        return is_finite(value)
    if kind is Path:
        return isinstance(value, str | os.PathLike)
    if kind is tuple:
        return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
    return isinstance(value, kind)


def _plain(kind: type, value: Any) -> Any:
    if kind is int and type(value) is not int:
        return int(value)
    if kind is float and type(value) not in (int, float):
        return float(value)
    return tuple(value) if kind is tuple else value
