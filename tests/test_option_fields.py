"""Options are checked by the declarations on their fields."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from hicom_edge.errors import BundleError, ExportError, InputError
from hicom_edge.option_fields import (
    check_fields,
    option,
    option_fields,
    options_from,
    seconds_from_text,
)


@dataclass(frozen=True)
class Options:
    """Every kind of option."""

    frames: int = option(8, "Frames.", minimum=1, maximum=99)
    limit: int | None = option(None, "Limit.", minimum=0, minimum_means="off")
    rate: float | None = option(None, "Rate.", above=0)
    share: float = option(0.5, "Share.", above=0, maximum=1)
    start: float | None = option(None, "Start.", unit="seconds")
    method: Literal["mse", "minmax"] = option("mse", "Method.")
    block: Literal[32, 64] = option(64, "Block.")
    smoothing: float | Literal["search"] | None = option(
        "search", "Smoothing.", minimum=0, maximum=1, none_text="off"
    )
    fast: bool = option(False, "Fast.")
    name: str | None = option(None, "Name.")
    keep: tuple[str, ...] = option((), "Keep.")
    place: Path | None = option(None, "Place.")
    other: object = None

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frames": 0}, "frames is 0; pass 1 to 99, a whole number"),
        ({"frames": 100}, "frames is 100; pass 1 to 99, a whole number"),
        ({"frames": True}, "frames is True; pass 1 to 99, a whole number"),
        ({"frames": 2.0}, r"frames is 2\.0; pass 1 to 99, a whole number"),
        ({"frames": None}, "frames is None; pass 1 to 99"),
        ({"frames": "8"}, "frames is '8'; pass 1 to 99"),
        ({"limit": -1}, r"limit is -1; pass 0 \(off\) or more, a whole number"),
        ({"rate": 0}, "rate is 0; pass above 0"),
        ({"rate": float("nan")}, "rate is nan; pass above 0"),
        ({"rate": 10**400}, "rate is 1000.*…; pass above 0"),
        ({"rate": 10**5000}, "rate is a number of thousands of digits; pass above 0"),
        ({"share": 1.5}, "share is 1.5; pass above 0 and at most 1"),
        ({"start": "5"}, "start is '5'; pass a number of seconds"),
        ({"method": "max"}, "method is 'max'; pass one of mse, minmax"),
        ({"method": ["mse"]}, r"method is \['mse'\]; pass one of mse, minmax"),
        ({"block": 48}, "block is 48; pass one of 32, 64"),
        ({"block": 64.0}, "block is 64.0; pass one of 32, 64"),
        ({"smoothing": "find"}, "smoothing is 'find'; pass one of search, or 0 to 1"),
        ({"smoothing": 2}, "smoothing is 2; pass one of search, or 0 to 1"),
        ({"fast": 1}, "fast is 1; pass True or False"),
        ({"name": 5}, "name is 5; pass text"),
        ({"keep": "vision"}, "keep is 'vision'; pass a list of texts"),
        ({"place": 5}, "place is 5; pass a path"),
    ],
)
def test_bad_values_are_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as raised:
        Options(**values)
    assert raised.value.options == tuple(values)


def test_numbers_of_numpy_become_plain_ones() -> None:
    options = Options(frames=np.int64(2), rate=np.float32(0.5), block=np.int32(32), share=1)
    assert [type(value) for value in (options.frames, options.rate, options.block)] == [
        int,
        float,
        int,
    ]
    assert (options.frames, options.rate, options.block, options.share) == (2, 0.5, 32, 1)


def test_valid_values_are_kept() -> None:
    options = Options(smoothing=None, keep=["vision"], place="a", other=object())
    assert (options.smoothing, options.keep, options.place) == (None, ("vision",), "a")


def test_a_class_chooses_its_error() -> None:
    @dataclass(frozen=True)
    class Export:
        opset: Literal[23, 20] = option(23, "Opset.")

        def __post_init__(self) -> None:
            check_fields(self, ExportError)

    with pytest.raises(ExportError, match="opset is 7; pass one of 23, 20"):
        Export(7)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="unknown options frmaes; expected frames, limit, rate"):
        options_from(Options, {"frmaes": 8})
    assert options_from(Options, {"frames": 3}).frames == 3


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("frames", "3", 3),
        ("rate", "2.5", 2.5),
        ("start", "1:02:03.5", 3723.5),
        ("method", "minmax", "minmax"),
        ("block", "32", 32),
        ("smoothing", "search", "search"),
        ("smoothing", "0.25", 0.25),
        ("smoothing", "off", None),
        ("name", "3", "3"),
        ("place", "a/b", Path("a/b")),
    ],
)
def test_text_of_the_command_line_is_read_by_type(name: str, text: str, value: object) -> None:
    (field,) = (field for field in option_fields(Options) if field.name == name)
    assert field.from_text(text) == value


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("frames", "frames is 'x'; pass 1 to 99, a whole number"),
        ("start", "start is 'x'; pass a number of seconds"),
        ("method", "method is 'x'; pass one of mse, minmax"),
        ("smoothing", "smoothing is 'x'; pass one of search, or 0 to 1"),
    ],
)
def test_text_of_another_type_is_refused_in_the_same_words(name: str, message: str) -> None:
    (field,) = (field for field in option_fields(Options) if field.name == name)
    with pytest.raises(InputError, match=message):
        field.from_text("x")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("-3", -3), ("1:30", 90), ("90:00", 5400), ("01:00:00.25", 3600.25)],
)
def test_times_are_seconds_or_clock_times(text: str, seconds: float) -> None:
    assert seconds_from_text(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "a", "1:60", "1:-2", "-1:30", "1:60:00", "1:2:3:4", ":", "1:"]
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"could not convert|invalid literal|^[-\d:]+$"):
        seconds_from_text(text)


def test_an_error_with_options_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BundleError("bad", "name")))
    assert (str(error), error.options, type(error)) == ("bad", ("name",), BundleError)
