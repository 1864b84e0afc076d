"""The memory tables of docs/jetson.md: the needs of the released sizes on boards of 8 to 64 GB.

    python benchmarks/jetson_memory.py

Nothing is measured. The graphs are built and quantised at full size from checkpoints whose weights
are holes in a sparse file, so no weight is read or stored. The sizes of their tensors go through
the same estimate as in `hicom-edge build` (planning/engine_memory.py).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
import real_sizes  # type: ignore[import-not-found]  # beside this script

from hicom_edge.bundle import Bundle
from hicom_edge.bundle.manifest import FileEntry, Manifest, Provenance
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.graphs.int8 import quantise_int8
from hicom_edge.calibration.graphs.linears import FLOATS, find_linears, quantisable
from hicom_edge.calibration.graphs.weight_only import quantise_blocks
from hicom_edge.export.description import frame_spec, model_spec
from hicom_edge.export.export_options import ExportOptions, Opset
from hicom_edge.export.export_plan import Plan, plan_export
from hicom_edge.export.save import graph_entry
from hicom_edge.export.save import weight_bytes as graph_bytes
from hicom_edge.export.text_files import write_text_files
from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.planning.decoder_form import CONCAT_GRAPH
from hicom_edge.planning.engine_memory import (
    RunNeed,
    build_host_bytes,
    map_bytes,
    run_need,
    weight_bytes,
)
from hicom_edge.planning.profiles import limits_from_manifest, profiles_of

MODELS = {"7B": "7b", "0.5B": "0.5b"}
FORMS = ("fp16", "int8", "int4")
BLOCK = CalibrationOptions().block
INT4 = f"int4-block{BLOCK}"
FRAMES = (32, 64, 128)
TYPICAL_FRAMES = 64
BOARDS_GB = (8, 16, 32, 64)
# Assumed: memory for the system without a desktop, for Python and for TensorRT's activations.
RESERVE_GB = 2
OPSET: Opset = 20  # for JetPack 6; quantisation raises the opset where it has to


@dataclass(frozen=True)
class Case:
    """A released size in one form.

    Attributes:
        bundle: only its manifest exists.
        float_bytes: size of the tensors that stay in floating point, without scales.
    """

    model: str
    form: str
    bundle: Bundle
    float_bytes: int


def main() -> None:
    print("\n\n".join(tables()))


def tables() -> list[str]:
    """All tables of the page, in Markdown."""
    cases = [case for model in MODELS for case in cases_of(model)]
    return [
        frames_table(cases[0].bundle),
        weights_table(cases),
        running_table(cases),
        building_table(cases),
    ]


def cases_of(model: str) -> Iterator[Case]:
    """A released size in every form."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "checkpoint"
        real_sizes.write_hollow_checkpoint(path, real_sizes.released(MODELS[model]))
        plan = plan_export(Checkpoint.open(path), ExportOptions("fp16", OPSET))
        for form in FORMS:
            graphs = {name: in_form(form, name, graph) for name, graph in plan.graphs.items()}
            bundle = Bundle(Path(directory), manifest_of(plan, form, graphs, Path(directory)))
            yield Case(model, form, bundle, sum(map(float_bytes, graphs.values())))


def in_form(form: str, name: str, graph: ir.Model) -> ir.Model:
    """The graph as `hicom-edge calibrate` stores it; scales and ranges do not change the size."""
    if form == "fp16":
        return graph
    linears = quantisable(name, find_linears(graph))
    layers = [linear.name for linear in linears]
    if quantization_of(form, name) == INT4:
        return quantise_blocks(graph, layers, bits=4, block=BLOCK)
    return quantise_int8(graph, {linear.input: 1.0 for linear in linears}, layers)


def float_bytes(graph: ir.Model) -> int:
    """Size of the floating-point tensors without scales."""
    tensors = [value.const_value for value in graph.graph.initializers.values()]
    return sum(
        tensor.nbytes
        for tensor in tensors
        if tensor is not None and tensor.dtype in FLOATS and not str(tensor.name).endswith("/scale")
    )


def quantization_of(form: str, name: str) -> str | None:
    """The manifest's `quantization` of a graph."""
    if form == "fp16":
        return None
    return INT4 if form == "int4" and name == CONCAT_GRAPH else "int8"


def manifest_of(plan: Plan, form: str, graphs: dict[str, ir.Model], directory: Path) -> Manifest:
    """The manifest of a bundle with these graphs; a graph's file has the size of its tensors."""
    opened = plan.checkpoint
    entries = {n: graph_entry(graph, f"{n}.onnx", plan.precision) for n, graph in graphs.items()}
    forms = {n: replace(e, quantization=quantization_of(form, n)) for n, e in entries.items()}
    tokenizer, guide, chat, generation = write_text_files(opened, directory)
    return Manifest(
        name=directory.name,
        model=model_spec(opened, plan.vision, plan.decoder),
        frames=frame_spec(opened.config, opened.image_processor, plan.vision),
        guide=guide,
        chat=chat,
        generation=generation,
        tokenizer=tokenizer,
        token_embedding="",
        graphs=forms,
        files={f"{n}.onnx": FileEntry(graph_bytes(graph), "") for n, graph in graphs.items()},
        provenance=Provenance("", "", {}),
    )


def frames_table(bundle: Bundle) -> str:
    """Sizes that grow with `--max-frames` and are equal in every form."""
    manifest, rows = bundle.manifest, []
    for frames in FRAMES:
        need, limits = need_of(bundle, frames), limits_from_manifest(manifest, frames)
        sizes = (need.kv_cache, need.maps, map_bytes(manifest, frames))
        tokens = manifest.model.visual_tokens(frames)
        rows.append([str(frames), str(tokens), str(limits.capacity), *map(gb, sizes)])
    titles = ("visual tokens", "capacity", "KV cache", "maps", "feature store, per video")
    return markdown(["`--max-frames`", *titles], rows)


def weights_table(cases: Sequence[Case]) -> str:
    """Size of every graph, and of the part that stays in floating point."""
    rows = []
    for case in cases:
        manifest = case.bundle.manifest
        sizes = [weight_bytes(manifest, name) for name in manifest.graphs]
        rows.append([case.model, case.form, *map(gb, [*sizes, sum(sizes), case.float_bytes])])
    graphs = cases[0].bundle.manifest.graphs
    return markdown(["language model", "form", *graphs, "sum", "in fp16"], rows)


def running_table(cases: Sequence[Case]) -> str:
    """Which boards can run each form."""
    rows = []
    for case in cases:
        need = run_gb(case)
        places = (fits(need, board) for board in BOARDS_GB)
        rows.append([case.model, case.form, f"{need:.1f} GB", *places])
    return markdown(["language model", "form", "running takes", *boards()], rows)


def building_table(cases: Sequence[Case]) -> str:
    """Which boards can build each form's engines, and with how much swap."""
    rows = []
    for case in cases:
        need = build_gb(case)
        places = (builds(run_gb(case), need, board) for board in BOARDS_GB)
        rows.append([case.model, case.form, f"{need:.1f} GB", *places])
    return markdown(["language model", "form", "building takes", *boards()], rows)


def need_of(bundle: Bundle, frames: int) -> RunNeed:
    """The memory of a running bundle, as `hicom-edge build --max-frames` estimates it."""
    limits = limits_from_manifest(bundle.manifest, frames)
    graphs = bundle.manifest.graphs.items()
    return run_need(bundle, limits, {name: profiles_of(name, e, limits) for name, e in graphs})


def run_gb(case: Case) -> float:
    return need_of(case.bundle, TYPICAL_FRAMES).total / 1e9


def build_gb(case: Case) -> float:
    """Memory for building the largest graph where GPU and CPU share the memory."""
    manifest = case.bundle.manifest
    return max(build_host_bytes(manifest, name, shared=True) for name in manifest.graphs) / 1e9


def fits(need: float, board: int) -> str:
    """Whether a board has enough memory to run: with the reserve, without it, or not at all."""
    if need > board:
        return "no"
    return "too tight" if need > board - RESERVE_GB else "yes"


def builds(running: float, building: float, board: int) -> str:
    """Whether a board has enough memory to build and run, and how much swap building needs."""
    if fits(running, board) != "yes":
        return fits(running, board)
    missing = building - (board - RESERVE_GB)
    return "yes" if missing <= 0 else f"swap {math.ceil(missing)} GB"


def boards() -> list[str]:
    return [f"{board} GB" for board in BOARDS_GB]


def gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB"


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (titles, *rows)]
    return "\n".join([lines[0], "|---" * len(titles) + "|", *lines[1:]])


if __name__ == "__main__":
    main()
