"""The choice of layers that stay in floating point, and its JSON document.

Layers are ranked by measured sensitivity; bisection finds how many of the worst must stay in
floating point until the quality passes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hicom_edge.calibration.layers.sensitivity import LayerSensitivity, layer_key
from hicom_edge.errors import InputError

FORMAT = "hicom-edge-precision-choice"
FORMAT_VERSION = 1
FLOAT = "float"

Passes = Callable[[frozenset[str]], bool]
"""passes(keys of the layers left in floating point) -> whether the quality is good enough"""


@dataclass(frozen=True)
class PrecisionChoice:
    """The form of each layer by graph and layer: "int8", "int4-block32" or "float".

    reasons: why layers are in floating point, by `layer_key`.
    """

    graphs: dict[str, dict[str, str]]
    reasons: dict[str, str]

    @property
    def kept(self) -> frozenset[str]:
        """Keys of the layers in floating point."""
        return frozenset(
            layer_key(graph, layer)
            for graph, layers in self.graphs.items()
            for layer, precision in layers.items()
            if precision == FLOAT
        )

    def quantised(self, graph: str) -> tuple[str, ...]:
        """The layers of a graph that are quantised."""
        layers = self.graphs.get(graph, {})
        return tuple(layer for layer, precision in layers.items() if precision != FLOAT)

    def to_json(self) -> str:
        """The choice as a JSON document that a later run can use."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(body, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> PrecisionChoice:
        """Read a choice; `where` names it in messages.

        Raises:
            InputError: the text is not such a document, or has another format version.
        """
        try:
            body = json.loads(text)
        except ValueError as error:
            raise InputError(
                f"{where} is not valid JSON ({error}); pass the "
                "precision_choice.json of a calibration"
            ) from error
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            raise InputError(
                f"{where} is not a {FORMAT} document; pass the precision_choice.json of a "
                "calibration"
            )
        if body.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{where} has format version {body.get('format_version')}, this hicom-edge reads "
                f"version {FORMAT_VERSION}; calibrate again with this version"
            )
        return cls(_texts(body, "graphs", where, depth=2), _texts(body, "reasons", where, depth=1))


def choose_layers(
    sensitivities: Sequence[LayerSensitivity],
    passes: Passes,
    *,
    also: Mapping[str, Mapping[str, str]] | None = None,
) -> PrecisionChoice:
    """Leave as few of the worst layers in floating point as `passes` needs.

    Bisects over the ranking, so that n layers take about log2(n) + 1 evaluations, beginning with no
    layer kept. All layers kept is the floating-point bundle and is not evaluated. Keeping more
    layers is assumed to pass if keeping fewer does; the returned choice itself was evaluated.

    Args:
        also: the forms of layers that were not ranked.
    """
    ranking = worst_first(sensitivities)
    count = _fewest(len(ranking), lambda kept: passes(frozenset(o.key for o in ranking[:kept])))
    graphs = {graph: dict(layers) for graph, layers in (also or {}).items()}
    kept = {layer.key for layer in ranking[:count]}
    for layer in sensitivities:
        precision = FLOAT if layer.key in kept else layer.precision
        graphs.setdefault(layer.graph, {})[layer.layer] = precision
    return PrecisionChoice(graphs, {layer.key: _reason(layer) for layer in ranking[:count]})


def worst_first(sensitivities: Iterable[LayerSensitivity]) -> tuple[LayerSensitivity, ...]:
    """Sorted by KL divergence of the first token, then by visual tokens, then by output noise.

    A measure is used only if every layer has it.
    """
    ranked = tuple(sensitivities)
    by_kl = all(layer.logit_kl is not None for layer in ranked)
    by_cosine = all(layer.token_cosine is not None for layer in ranked)

    def badness(layer: LayerSensitivity) -> tuple[float, float, float]:
        kl = layer.logit_kl if by_kl and layer.logit_kl is not None else 0.0
        cosine = layer.token_cosine if by_cosine and layer.token_cosine is not None else 1.0
        return kl, 1 - cosine, -layer.sqnr_db

    return tuple(sorted(ranked, key=badness, reverse=True))


def check_choice(choice: PrecisionChoice, layers: Mapping[str, Mapping[str, str]]) -> None:
    """Check that a pinned choice names exactly the layers that can be quantised.

    Args:
        layers: the quantised form of each layer, by graph and layer.

    Raises:
        InputError: a layer is unknown, missing, or has another form than this run would give it.
    """
    expected, found = _by_key(layers), _by_key(choice.graphs)
    check_names(choice, expected)
    _refuse("lacks", expected.keys() - found)
    for key, form in found.items():
        if form not in (FLOAT, expected[key]):
            raise InputError(
                f"the pinned choice stores {key} as {form!r}, expected {expected[key]!r} or "
                f"{FLOAT!r}; calibrate with the options that it was made with"
            )


def check_names(choice: PrecisionChoice, keys: Collection[str]) -> None:
    """Check that a pinned choice names only layers with these keys.

    Raises:
        InputError: a layer is unknown.
    """
    _refuse("names", _by_key(choice.graphs).keys() - set(keys))


def _by_key(graphs: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {layer_key(g, n): form for g, layers in graphs.items() for n, form in layers.items()}


def _refuse(what: str, keys: Collection[str]) -> None:
    if keys:
        raise InputError(
            f"the pinned choice {what} {sorted(keys)[0]} ({len(keys)} such), which does not "
            "fit the bundle's layers; pin a choice made for this bundle and these options"
        )


def _fewest(total: int, holds: Callable[[int], bool]) -> int:
    """The smallest count for which `holds` is true; `total` is assumed to hold."""
    if total == 0 or holds(0):
        return 0
    failed, held = 0, total
    while held - failed > 1:
        middle = (failed + held) // 2
        if holds(middle):
            held = middle
        else:
            failed = middle
    return held


def _reason(layer: LayerSensitivity) -> str:
    parts = [f"{layer.sqnr_db:.1f} dB at its output"]
    if layer.token_cosine is not None:
        parts.append(f"cosine of the visual tokens {layer.token_cosine:.5f}")
    if layer.logit_kl is not None:
        parts.append(f"first-token KL {layer.logit_kl:.2g}")
    return f"among the worst in {layer.precision}: {', '.join(parts)}"


def _texts(body: Mapping[str, Any], key: str, where: str, depth: int) -> Any:
    def fits(value: Any, depth: int) -> bool:
        if depth == 0:
            return isinstance(value, str)
        return isinstance(value, dict) and all(fits(v, depth - 1) for v in value.values())

    if not fits(body.get(key), depth):
        raise InputError(f"{where}: {key} does not map names to texts; pass the file unchanged")
    return body[key]
