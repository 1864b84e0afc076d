"""Measure the sensitivity of each layer by quantising it alone.

There is one measure at the layer's own output and two at the end of the pipeline: the visual tokens
and the answer's first token.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.calibration.graphs.integer_grids import (
    fake_block_weight,
    fake_int8_activation,
    fake_int8_weight,
    sqnr_db,
)
from hicom_edge.calibration.graphs.linears import Linear, find_linears
from hicom_edge.calibration.graphs.weight_only import block_sizes
from hicom_edge.calibration.layers.end_effect import settled
from hicom_edge.calibration.layers.graph_plan import GraphPlan
from hicom_edge.calibration.scales.absorbers import Array
from hicom_edge.calibration.scales.awq import limited

if TYPE_CHECKING:
    from hicom_edge.calibration.layers.end_effect import EndEffectProbe

_ELEMENTS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class LayerSensitivity:
    """The effect of quantising one layer alone.

    Attributes:
        precision: the form that was tried, such as "int8" or "int4-block32".
        sqnr_db: signal to quantisation noise at its output for sampled rows of its input.
        token_cosine, logit_kl: as in `EndEffect`; None if not measured.
    """

    graph: str
    layer: str
    precision: str
    sqnr_db: float
    token_cosine: float | None = None
    logit_kl: float | None = None

    @property
    def key(self) -> str:
        """The layer's unique name across graphs."""
        return layer_key(self.graph, self.layer)


def layer_key(graph: str, layer: str) -> str:
    """The unique name of a layer across graphs: "vision/encoder.layers.0.mlp.fc1"."""
    return f"{graph}/{layer}"


def measure_sensitivities(
    plans: Sequence[GraphPlan],
    rows: Mapping[str, Mapping[str, Array]],
    *,
    probe: EndEffectProbe | None = None,
    done: Iterable[LayerSensitivity] = (),
    save: Callable[[LayerSensitivity], None] = lambda sensitivity: None,
    directory: Path | None = None,
) -> tuple[LayerSensitivity, ...]:
    """The sensitivity of every layer of every plan, in the plans' order.

    Without `probe` this costs two products of the rows and each weight: on one core a second for a
    vision tower, minutes for a 7B decoder with 256 rows. With it each layer also costs a new
    session of its graph and running all later stages on the probe's samples; for a vision layer
    these are all stages.

    Args:
        rows: sampled inputs (n, in) by graph and tensor, divided by the factors that are folded
            into the plan's model. Layers whose input no sample reached, or that fit no block, are
            left out.
        done: results of an interrupted run, which are used if they have the same form.
        save: called with every newly measured layer.
        directory: where a graph with folded weights is written while the probe runs.
    """
    known = {(old.key, old.precision): old for old in done if _is_whole(old, probe)}
    for plan in plans:
        waiting = [
            (linear, seen)
            for linear, seen in _reached(plan, rows.get(plan.graph, {}))
            if _tried(plan, linear) not in known
        ]
        for new in _measure(plan, waiting, probe, directory):
            known[new.key, new.precision] = new
            save(new)
    keys = [
        _tried(plan, linear)
        for plan in plans
        for linear, _ in _reached(plan, rows.get(plan.graph, {}))
    ]
    return tuple(known[key] for key in keys)


def layer_noise(plan: GraphPlan, linear: Linear, rows: Array) -> float:
    """Noise over signal at the layer's output for rows (n, in), in blocks of columns."""
    tensor = plan.model.graph.initializers[linear.weight].const_value
    assert tensor is not None
    weight, noise, signal = tensor.numpy(), 0.0, 0.0
    x = rows if plan.amax is None else fake_int8_activation(rows, plan.amax[linear.input])
    columns = max(1, _ELEMENTS_AT_ONCE // linear.in_features)
    for start in range(0, linear.out_features, columns):
        part = weight[:, start : start + columns].astype(np.float32)
        exact = rows @ part
        stored = _fake(plan, linear, part, slice(start, start + columns))
        noise += float(np.square(x @ stored - exact).sum(dtype=np.float64))
        signal += float(np.square(exact).sum(dtype=np.float64))
    return noise / signal if signal > 0 else 0.0


def _measure(
    plan: GraphPlan,
    layers: Sequence[tuple[Linear, Array]],
    probe: EndEffectProbe | None,
    directory: Path | None,
) -> Iterator[LayerSensitivity]:
    with tempfile.TemporaryDirectory(prefix="trial-", dir=directory) as written:
        if probe is not None and layers:
            plan = plan.on(settled(plan.model, Path(written)))
        for linear, seen in layers:
            sqnr = sqnr_db(layer_noise(plan, linear, seen))
            effect = probe and probe.effect(plan.graph, plan.quantised([linear.name]))
            ends = (effect.token_cosine, effect.logit_kl) if effect else (None, None)
            form = plan.precision_of(linear.name)
            yield LayerSensitivity(plan.graph, linear.name, form, sqnr, *ends)


def _tried(plan: GraphPlan, linear: Linear) -> tuple[str, str]:
    """A layer's unique name and the form that its plan gives it."""
    return layer_key(plan.graph, linear.name), plan.precision_of(linear.name)


def _is_whole(sensitivity: LayerSensitivity, probe: EndEffectProbe | None) -> bool:
    """Whether it has all measures that this run takes."""
    return probe is None or sensitivity.logit_kl is not None


def _fake(plan: GraphPlan, linear: Linear, weight: Array, columns: slice) -> Array:
    """Some columns of a weight (in, columns), quantised and dequantised."""
    if plan.amax is not None:
        return fake_int8_weight(weight)
    bits = plan.bits_of(linear.name)
    size = block_sizes([linear], bits, plan.block)[linear.name]
    assert size is not None
    if linear.weight in plan.clips:
        weight = limited(weight, plan.clips[linear.weight][:, columns])
    return fake_block_weight(weight, bits, size)


def _reached(plan: GraphPlan, rows: Mapping[str, Array]) -> Iterator[tuple[Linear, Array]]:
    for linear in find_linears(plan.model):
        if linear.name not in plan.layers or not plan.reduces(linear):
            continue
        if len(rows.get(linear.input, ())):
            yield linear, rows[linear.input]
