"""As few layers as the gate needs stay in floating point, and the choice can be pinned."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hicom_edge.calibration.layers.end_effect import OVERFLOW_KL
from hicom_edge.calibration.layers.mixed_precision import (
    PrecisionChoice,
    check_choice,
    choose_layers,
    worst_first,
)
from hicom_edge.calibration.layers.sensitivity import LayerSensitivity
from hicom_edge.errors import InputError


def layers(count: int) -> list[LayerSensitivity]:
    """Layer i is the i-th best."""
    return [
        LayerSensitivity("decoder", f"layer.{i}", "int8", 50.0 - i, 1 - i / 1e3, i / 1e3)
        for i in range(count)
    ]


@given(count=st.integers(0, 40), needed=st.integers(0, 40))
def test_no_more_layers_are_kept_than_the_gate_needs(count: int, needed: int) -> None:
    runs: list[int] = []

    def passes(kept: frozenset[str]) -> bool:
        runs.append(len(kept))
        return len(kept) >= needed

    choice = choose_layers(layers(count), passes)
    expected = min(needed, count)
    worst = {f"decoder/layer.{i}" for i in range(count - expected, count)}
    assert choice.kept == worst
    assert len(runs) <= count.bit_length() + 1
    assert count not in runs or count == 0  # all in floating point is what there was before
    assert len(set(runs)) == len(runs)


def test_the_gate_is_asked_with_the_worst_layers() -> None:
    asked: list[frozenset[str]] = []

    def passes(kept: frozenset[str]) -> bool:
        asked.append(kept)
        return "decoder/layer.3" in kept

    choice = choose_layers(layers(5), passes)
    assert asked[0] == frozenset()
    assert choice.kept == {"decoder/layer.4", "decoder/layer.3"}
    assert choice.kept in asked


def test_what_was_chosen_is_what_the_gate_has_seen() -> None:
    """Also where more layers in floating point happen to be worse."""
    asked: list[tuple[frozenset[str], bool]] = []

    def passes(kept: frozenset[str]) -> bool:
        asked.append((kept, len(kept) in (3, 6)))
        return asked[-1][1]

    choice = choose_layers(layers(9), passes)
    assert (choice.kept, True) in asked or len(choice.kept) == 9


def test_reasons_tell_what_was_measured() -> None:
    choice = choose_layers(layers(3), lambda kept: len(kept) >= 1)
    assert choice.reasons == {
        "decoder/layer.2": "among the worst in int8: 48.0 dB at its output, cosine of the visual "
        "tokens 0.99800, first-token KL 0.002"
    }
    assert choice.quantised("decoder") == ("layer.0", "layer.1")
    assert choice.quantised("vision") == ()


def test_layers_are_ranked_by_the_measure_that_all_have() -> None:
    one = LayerSensitivity("vision", "a", "int8", 30.0, 0.9, 0.1)
    two = LayerSensitivity("vision", "b", "int8", 20.0, 0.8, 0.05)
    three = LayerSensitivity("vision", "c", "int8", 40.0)
    assert [o.layer for o in worst_first([one, two])] == ["a", "b"]
    assert [o.layer for o in worst_first([one, two, three])] == ["b", "a", "c"]


def test_an_overflow_is_the_worst_of_all() -> None:
    bad = LayerSensitivity("decoder", "bad", "int8", 60.0, 1.0, OVERFLOW_KL)
    assert worst_first([*layers(3), bad])[0] == bad


def test_layers_without_a_rank_are_in_the_choice_too() -> None:
    choice = choose_layers(layers(1), lambda kept: True, also={"compressor_image": {"0": "int8"}})
    assert choice.graphs == {"compressor_image": {"0": "int8"}, "decoder": {"layer.0": "int8"}}


def test_a_pinned_choice_is_read_back_as_it_was() -> None:
    choice = choose_layers(layers(4), lambda kept: len(kept) >= 2)
    assert PrecisionChoice.from_json(choice.to_json(), "choice.json") == choice
    check_choice(choice, {"decoder": {f"layer.{i}": "int8" for i in range(4)}})


def test_a_choice_for_other_layers_is_refused() -> None:
    choice = choose_layers(layers(3), lambda kept: True)
    with pytest.raises(InputError, match=r"lacks decoder/layer\.3 \(1 such\), which does not fit"):
        check_choice(choice, {"decoder": {f"layer.{i}": "int8" for i in range(4)}})
    with pytest.raises(InputError, match=r"names decoder/layer\.1 \(2 such\), which does not fit"):
        check_choice(choice, {"decoder": {"layer.0": "int8"}})
    with pytest.raises(InputError, match=r"layer\.0 as 'int8', expected 'int4-block32' or 'float'"):
        check_choice(choice, {"decoder": {f"layer.{i}": "int4-block32" for i in range(3)}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-9], "choice.json is not valid JSON"),
        (lambda text: "[]", "choice.json is not a hicom-edge-precision-choice document"),
        (lambda text: _with(text, format="other"), "is not a hicom-edge-precision-choice"),
        (lambda text: _with(text, format_version=9), "has format version 9, this hicom-edge reads"),
        (lambda text: _with(text, graphs={"a": 1}), "graphs does not map names to texts"),
        (lambda text: _with(text, reasons=None), "reasons does not map names to texts"),
    ],
)
def test_a_document_that_is_no_choice_is_refused(change, message) -> None:
    text = choose_layers(layers(2), lambda kept: True).to_json()
    with pytest.raises(InputError, match=message):
        PrecisionChoice.from_json(change(text), "choice.json")


def _with(text: str, **changes: object) -> str:
    return json.dumps({**json.loads(text), **changes})
