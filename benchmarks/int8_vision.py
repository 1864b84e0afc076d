"""Speed of the vision graph in INT8 and in float32 on the CPU, at the sizes of SigLIP so400m.

    python benchmarks/int8_vision.py [--layers 6] [--frames 1] [--threads 2] [--operators]

The weights are random: this measures speed, not quality. All forms run alternately in this process
on the same frames: float32, signed INT8 as for TensorRT, the same with unsigned activations as a
bundle stores it for the CPU, and ONNX Runtime's own dynamic INT8. The graph also has the patch
embedding and an MLP of the pooling head, whose share is too large with few layers; the released
tower has 27. The hardware limit is the time of the linear layers at the rate of one large matrix
product. `--operators` prints the time of each kind of operator. The last line of the output is
JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from onnxruntime import InferenceSession
from onnxruntime.quantization import QuantType, quantize_dynamic

from hicom_edge.calibration.graphs.cpu_variant import cpu_variant
from hicom_edge.calibration.graphs.int8 import quantise_int8
from hicom_edge.calibration.graphs.linears import Linear, find_linears
from hicom_edge.engines.base import EngineOptions
from hicom_edge.engines.ort.sessions import session_options
from hicom_edge.export.opsets import Precision, family_for_opset
from hicom_edge.export.tower_nodes import TowerSizes
from hicom_edge.export.vision_graph import VisionPlan, build_vision_graph
from hicom_edge.model.stored_tensors import StoredTensor

SIDE, PATCH, WIDTH, INNER, HEADS = 27, 14, 1152, 4304, 16
FORMS = ("fp32", "int8 signed", "int8 unsigned", "int8 dynamic")


def main() -> None:
    """Measure all forms and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--opset", type=int, default=23)
    parser.add_argument("--operators", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = tower(args.layers, args.opset)
    size = SIDE * PATCH
    feed = {"pixel_values": torch.randn(args.frames, 3, size, size).clamp(-1, 1).numpy()}
    with tempfile.TemporaryDirectory() as directory:
        sessions = write_forms(model, feed, Path(directory), args.threads)
        rows = measure(sessions, feed, args.repeats)
        if args.operators:
            report_operators(Path(directory), feed, args.threads)
        rates = products_per_second(find_linears(model), Path(directory), args.threads)
    report(rows, rates, multiplications(model, args.frames), args)


def tower(layers: int, opset: int) -> ir.Model:
    """The vision graph with `layers` encoder layers of random weights, and the pooling head."""
    shapes = {
        "embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embedding.bias": (WIDTH,),
        "embeddings.position_embedding.weight": (SIDE * SIDE, WIDTH),
    }
    for norm in ("post_layernorm", "head.layernorm"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    shapes |= mlp("head.mlp")
    for index in range(layers):
        name = f"encoder.layers.{index}"
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{name}.{norm}.weight": (WIDTH,), f"{name}.{norm}.bias": (WIDTH,)}
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{name}.self_attn.{part}", WIDTH, WIDTH)
        shapes |= mlp(f"{name}.mlp")
    weights = {name: stored(shape) for name, shape in shapes.items()}
    sizes = TowerSizes("siglip", WIDTH, layers, HEADS, "gelu_pytorch_tanh", 1e-6)
    plan = VisionPlan(sizes, SIDE * PATCH, PATCH, layers, True, WIDTH)
    return build_vision_graph(weights, plan, Precision.FP32, family_for_opset(opset))


def write_forms(
    model: ir.Model, feed: dict[str, np.ndarray], directory: Path, threads: int
) -> dict[str, InferenceSession]:
    """A session of every form; the INT8 ranges are the largest magnitudes of this feed."""
    paths = {form: directory / f"{form.replace(' ', '_')}.onnx" for form in FORMS}
    linears = find_linears(model)
    ir.save(model, paths["fp32"])
    amax = largest_magnitudes(model, feed, {linear.input for linear in linears}, threads)
    signed = quantise_int8(model, amax, [linear.name for linear in linears])
    ir.save(signed, paths["int8 signed"])
    ir.save(cpu_variant(signed), paths["int8 unsigned"])
    quantize_dynamic(
        paths["fp32"],
        paths["int8 dynamic"],
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    return {form: session(path, threads) for form, path in paths.items()}


def largest_magnitudes(
    model: ir.Model, feed: dict[str, np.ndarray], wanted: set[str], threads: int
) -> dict[str, float]:
    """max|x| of tensors inside the graph."""
    proto = ir.to_proto(model)
    for name in sorted(wanted):
        proto.graph.output.add(name=name)
    opened = session(proto.SerializeToString(), threads)
    values = opened.run(sorted(wanted), feed)
    return {name: float(np.abs(value).max()) for name, value in zip(sorted(wanted), values)}


def measure(
    sessions: dict[str, InferenceSession], feed: dict[str, np.ndarray], repeats: int
) -> list[dict[str, float | str]]:
    """Median milliseconds of all forms, run alternately after a warm-up, and their errors."""
    times: dict[str, list[float]] = {form: [] for form in sessions}
    outputs: dict[str, np.ndarray] = {}
    for repeat in range(repeats + 1):
        for form, opened in sessions.items():
            start = time.perf_counter()
            (outputs[form],) = opened.run(["embeddings"], feed)
            if repeat:
                times[form].append(1e3 * (time.perf_counter() - start))
    exact = outputs["fp32"]
    rows: list[dict[str, float | str]] = []
    for form in sessions:
        error = float(np.linalg.norm(outputs[form] - exact) / np.linalg.norm(exact))
        assert error < 0.1, f"{form} is {error:.2f} away from float32"
        ratios = [a / b for a, b in zip(times["fp32"], times[form])]
        rows.append(
            {
                "form": form,
                "median_ms": statistics.median(times[form]),
                "best_ms": min(times[form]),
                "ratio": statistics.median(ratios),
                "relative_error": error,
            }
        )
    return rows


def report_operators(directory: Path, feed: dict[str, np.ndarray], threads: int) -> None:
    """Print the time of every kind of operator in ms: the sum of its nodes' best times."""
    for form in ("fp32", "int8 unsigned"):
        settings = session_options(EngineOptions(threads=threads))
        settings.enable_profiling = True
        settings.profile_file_prefix = str(directory / "profile")
        path = directory / f"{form.replace(' ', '_')}.onnx"
        opened = InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        for _ in range(5):
            opened.run(["embeddings"], feed)
        best: dict[tuple[str, str], float] = {}
        for event in json.loads(Path(opened.end_profiling()).read_text(encoding="utf-8")):
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                key = (event["args"]["op_name"], event["name"])
                best[key] = min(best.get(key, float("inf")), event["dur"] / 1e3)
        totals: dict[str, float] = defaultdict(float)
        for (operator, _), took in best.items():
            totals[operator] += took
        ranked = sorted(totals.items(), key=lambda item: -item[1])
        listed = ", ".join(f"{operator} {took:.1f}" for operator, took in ranked)
        print(f"{form}: {listed}")


def products_per_second(
    linears: tuple[Linear, ...], directory: Path, threads: int
) -> dict[str, float]:
    """The best rate of multiply-adds in one large layer, by form."""
    layer = max(linears, key=lambda linear: linear.in_features * linear.out_features)
    rows = 4 * SIDE * SIDE
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=[1, "rows", layer.in_features])
    tape = ir.tape.Tape()
    weight = torch.randn(layer.in_features, layer.out_features).numpy()
    stored_weight = tape.initializer(ir.tensor(weight, name="weight"), "weight")
    y = tape.op("MatMul", [x, stored_weight], name="layer/MatMul")
    y.name, y.dtype, y.shape = "y", ir.DataType.FLOAT, ir.Shape([1, "rows", layer.out_features])
    graph = ir.Graph(
        [x], [y], nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": 20}
    )
    model = ir.Model(graph, ir_version=9)
    unsigned = cpu_variant(quantise_int8(model, {"x": 4.0}, ["layer"]))
    feed = {"x": torch.randn(1, rows, layer.in_features).numpy()}
    rates = {}
    for form, each in (("fp32", model), ("int8 unsigned", unsigned)):
        ir.save(each, directory / "layer.onnx")
        opened = session(directory / "layer.onnx", threads)
        best = min(timed(opened, feed) for _ in range(8))
        rates[form] = rows * layer.in_features * layer.out_features / best
    return rates


def report(
    rows: list[dict[str, float | str]],
    rates: dict[str, float],
    count: int,
    args: argparse.Namespace,
) -> None:
    """Print a table for people and a line of JSON for programs."""
    machine = {"cpu": processor(), "threads": args.threads, "onnxruntime": onnxruntime.__version__}
    machine |= {"frames": args.frames, "layers": args.layers, "opset": args.opset}
    limits = {form: 1e3 * count / rate for form, rate in rates.items()}
    print(f"{args.layers} layers, {args.frames} frames of {SIDE}x{SIDE} patches, width {WIDTH}")
    print(f"{machine['cpu']}, {args.threads} threads, onnxruntime {onnxruntime.__version__}")
    print(
        f"{'form':14} {'median ms':>10} {'best ms':>9} {'x fp32':>7} {'limit ms':>9} {'error':>8}"
    )
    for row in rows:
        limit = limits.get(str(row["form"]), limits["int8 unsigned"])
        print(
            f"{row['form']:14} {row['median_ms']:10.0f} {row['best_ms']:9.0f} "
            f"{row['ratio']:7.2f} {limit:9.0f} {row['relative_error']:8.4f}"
        )
    document = {"benchmark": "int8_vision", "machine": machine, "rows": rows, "limit_ms": limits}
    print(json.dumps(document))


def multiplications(model: ir.Model, frames: int) -> int:
    """Multiply-adds of the linear layers for a number of frames."""
    each = sum(linear.in_features * linear.out_features for linear in find_linears(model))
    return each * SIDE * SIDE * frames


def mlp(name: str) -> dict[str, tuple[int, ...]]:
    """The shapes of fc1 and fc2."""
    return linear(f"{name}.fc1", WIDTH, INNER) | linear(f"{name}.fc2", INNER, WIDTH)


def linear(name: str, features_in: int, features_out: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a layer's weight and bias, as a checkpoint stores them."""
    return {f"{name}.weight": (features_out, features_in), f"{name}.bias": (features_out,)}


def stored(shape: tuple[int, ...]) -> StoredTensor:
    """A random tensor of a checkpoint, scaled so that activations keep their scale."""
    tensor = torch.randn(shape) * (np.prod(shape[1:]) if len(shape) > 1 else 100) ** -0.5
    return StoredTensor(shape, torch.float32, lambda: tensor)


def session(model: Path | bytes, threads: int) -> InferenceSession:
    """A graph in ONNX Runtime on the CPU, with the settings of the engine."""
    settings = session_options(EngineOptions(threads=threads))
    return InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def timed(opened: InferenceSession, feed: dict[str, np.ndarray]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    opened.run(None, feed)
    return time.perf_counter() - start


def processor() -> str:
    """The processor's name and its instructions for integer products."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags")).split()
        return " ".join([name, *(f for f in ("avx512_vnni", "avx_vnni", "amx_int8") if f in flags)])
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
