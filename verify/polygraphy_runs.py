"""Files of graphs' inputs, with scripts that compare each graph's layers on them in Polygraphy."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.planning.profiles import ShapeRange, limits_from_manifest, profiles_of
from hicom_edge.verify import polygraphy_hooks

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.planning.profiles import Profile, Shape
    from hicom_edge.verify.graph_inputs import GraphInputs


def save_polygraphy_runs(
    bundle: Bundle, inputs: Iterable[GraphInputs], directory: Path
) -> tuple[str, ...]:
    """Write NAME.json and NAME.sh for each of the inputs, and return the names.

    NAME.json has the inputs in the format of Polygraphy's `--load-inputs`. NAME.sh calls
    `polygraphy run` with the graph and the inputs; it accepts the runners (`--trt --onnxrt`) and
    all other options of Polygraphy.

    Raises:
        ModuleNotFoundError: Polygraphy is not installed.
        OSError: the directory cannot be written.
    """
    from polygraphy.json import save_json

    directory.mkdir(parents=True, exist_ok=True)
    names = []
    for run in inputs:
        save_json([run.feed], str(directory / f"{run.name}.json"))
        script = directory / f"{run.name}.sh"
        script.write_text(_script(bundle, run), encoding="utf-8")
        script.chmod(0o755)
        names.append(run.name)
    return tuple(names)


def _script(bundle: Bundle, run: GraphInputs) -> str:
    """The shell script. $GRAPH replaces the graph, for `polygraphy debug reduce`."""
    graph = bundle.file(bundle.graph(run.graph).file).resolve()
    options = " \\\n  ".join(_options(bundle, run))
    return f"""#!/bin/sh
# Compares the layers of {run.graph} on the inputs beside it: sh {run.name}.sh --trt --onnxrt
graph=${{GRAPH:-{shlex.quote(str(graph))}}}
exec polygraphy run "$graph" --quiet --load-inputs "$(dirname "$0")/{run.name}.json" \\
  {options} "$@"
"""


def _options(bundle: Bundle, run: GraphInputs) -> list[str]:
    entry = bundle.graph(run.graph)
    precision = "quantized" if entry.quantization is not None else entry.precision
    profile = _profile(bundle, run)
    hooks = shlex.quote(str(Path(polygraphy_hooks.__file__).resolve()))
    return [
        "--onnx-outputs '*' --strongly-typed",
        *(_shapes(end, profile, place) for place, end in enumerate(("min", "opt", "max"))),
        f"--trt-npps {hooks}:mark_layers",
        f"--trt-cpps {hooks}:without_tf32",
        f"--compare-func-script {hooks}:compare_{precision}",
    ]


def _profile(bundle: Bundle, run: GraphInputs) -> Profile:
    """The profile of the graph's engine, with a maximum that is as small as these inputs allow.

    The typical sizes, for which TensorRT chooses its kernels, are those of the engine. With every
    layer as an output, the engine's maximum would need too much memory.
    """
    limits = limits_from_manifest(bundle.manifest)
    built = profiles_of(run.graph, bundle.graph(run.graph), limits)[run.profile]
    return {name: _enough(shapes, run.feed[name].shape) for name, shapes in built.items()}


def _enough(built: ShapeRange, shape: Shape) -> ShapeRange:
    """At least 1, because TensorRT refuses a maximum of 0."""
    most = tuple(max(1, *sizes) for sizes in zip(built.typical, shape, strict=True))
    return ShapeRange(built.minimum, built.typical, most)


def _shapes(end: str, profile: Profile, place: int) -> str:
    shapes = (
        shlex.quote(f"{name}:[{','.join(map(str, shapes[place]))}]")
        for name, shapes in profile.items()
    )
    return f"--trt-{end}-shapes {' '.join(shapes)}"
