"""Speed of the exported compressor and of the authors' formulation, at the released sizes.

    python benchmarks/compressor.py [--frames 32] [--threads 2]

Both run in this process on the same random weights and inputs, and their outputs are compared. The
hardware limit is the time to read features and embeddings once at the measured memory bandwidth,
plus the readout MLPs at the measured rate of matrix products. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

from hicom_edge.export.compressor_graph import build_compressor_graph
from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.opsets import CURRENT, Precision
from hicom_edge.model import HicomConfig
from hicom_edge.model.hicom import build_compressor_from
from hicom_edge.model.stored_tensors import StoredTensor

SIDE, DIM, LLM_DIM = 27, 1152, 3584
PROJECTORS = {
    "released (direct)": "local43_global32_coarse",
    "paper's mix (direct local, coarse global)": "local43_guidedirect_global32_guidecoarse",
    "adaptkv": "local43_adaptkv_global32_coarse",
}
TOWER = {
    "model_type": "siglip",
    "vision_config": {"hidden_size": DIM, "image_size": 14 * SIDE, "patch_size": 14},
    "text_config": {"hidden_size": DIM},
}


def main() -> None:
    """Measure every projector and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = {"cpu": processor(), "threads": args.threads, "frames": args.frames}
    machine |= {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    limit = limit_ms(args.frames, args.threads)
    rows = [measure(name, args) | {"limit_ms": limit} for name in PROJECTORS]
    print(f"{args.frames} frames of {SIDE}x{SIDE} patches, fp32, {args.threads} threads")
    print(machine["cpu"])
    print(f"{'projector':44} {'authors ms':>11} {'exported ms':>12} {'ratio':>6} {'limit ms':>9}")
    for row in rows:
        print(
            f"{row['projector']:44} {row['authors_ms']:11.0f} {row['exported_ms']:12.0f} "
            f"{row['ratio']:6.1f} {row['limit_ms']:9.0f}"
        )
    print(json.dumps({"benchmark": "compressor", "machine": machine, "rows": rows}))


def measure(name: str, args: argparse.Namespace) -> dict[str, float | str]:
    """Median times of both forms, measured alternately."""
    values = {
        "model_type": "hicom_qwen2",
        "hidden_size": LLM_DIM,
        "mm_projector_type": PROJECTORS[name],
        "use_guide": "direct",
        "mm_newline_position": "no_token",
    }
    hicom = HicomConfig(values, TOWER)
    torch.manual_seed(0)
    compressor = build_compressor_from(hicom, DIM, DIM).eval().requires_grad_(False)
    features, embeddings = torch.randn(2, args.frames, SIDE, SIDE, DIM)
    guide = torch.randn(DIM)
    graph = exported(hicom, compressor, args.threads)
    feed = {
        "features": features.numpy(),
        "embeddings": embeddings.numpy(),
        "guide": guide.numpy(),
    }
    expected = compressor(features, embeddings, guide).numpy()
    actual = graph.run(None, feed)[0]
    error = float(np.abs(actual - expected).max() / np.abs(expected).max())
    assert error < 1e-5, f"{name}: the two forms differ by {error:.1e}"
    authors, ours = in_turn(
        lambda: compressor(features, embeddings, guide),
        lambda: graph.run(None, feed),
        args.repeats,
    )
    return {
        "projector": name,
        "authors_ms": authors,
        "exported_ms": ours,
        "ratio": authors / ours,
        "largest_relative_difference": error,
    }


def exported(
    hicom: HicomConfig, compressor: torch.nn.Module, threads: int
) -> onnxruntime.InferenceSession:
    """The compressor's graph in ONNX Runtime."""
    stored = {
        name: StoredTensor(tuple(t.shape), t.dtype, lambda t=t: t)  # type: ignore[misc]
        for name, t in compressor.state_dict().items()
    }
    checkpoint = SimpleNamespace(
        hicom=hicom,
        spec=hicom.projector,
        config=hicom.values,
        uses_guide=True,
        part=lambda _: stored,
    )
    model = build_compressor_graph(checkpoint, Precision.FP32, CURRENT)  # type: ignore[arg-type]
    return session(model, threads)


def in_turn(
    first: Callable[[], object], second: Callable[[], object], repeats: int
) -> tuple[float, float]:
    """Median milliseconds of two functions, called alternately after one warm-up of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for function, record in zip((first, second), times):
            elapsed = timed(function)
            if repeat:
                record.append(elapsed)
    return statistics.median(times[0]), statistics.median(times[1])


def limit_ms(frames: int, threads: int) -> float:
    """Least milliseconds: read both maps once, and compute the readout of the local tokens."""
    tokens = -(-frames // 4) * 9 * 9 + 1
    b = GraphBuilder("readout", Precision.FP32, CURRENT)
    shapes = {"x": (tokens, DIM), "w1": (DIM, LLM_DIM), "w2": (LLM_DIM, LLM_DIM)}
    x, w1, w2 = (b.input(name, None, shape) for name, shape in shapes.items())
    b.output("y", b.op("MatMul", b.op("MatMul", x, w1), w2), (tokens, LLM_DIM))
    readout = session(b.build(), threads)
    feed = {name: np.random.rand(*shape).astype(np.float32) for name, shape in shapes.items()}
    maps = torch.randn(2, frames, SIDE, SIDE, DIM)
    readout_ms = min(timed(lambda: readout.run(None, feed)) for _ in range(10))
    maps_ms = min(timed(maps.sum) for _ in range(10))
    return readout_ms + maps_ms


def timed(function: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def session(model: ir.Model, threads: int) -> onnxruntime.InferenceSession:
    """A graph in ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    data = ir.serde.serialize_model(model).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
