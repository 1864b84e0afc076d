"""Builds graphs of the real geometry with TensorRT-RTX, and measures memory and time.

    python benchmarks/tensorrt_rtx_builds.py
    python benchmarks/tensorrt_rtx_builds.py --dtype fp16 --opset 20
    python benchmarks/tensorrt_rtx_builds.py --dtype fp16 --form int4 --layers 4

The weights are random, in the released sizes (SigLIP so400m, the widths of a 7B language model)
with two tower layers, few decoder layers and a small vocabulary; no GPU is needed. Each bundle is
built by a new process. Its peak memory is compared with the weights of the largest graph.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jetson_memory  # type: ignore[import-not-found]  # beside this script
import onnx_ir as ir
import real_sizes  # type: ignore[import-not-found]

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.derived_bundle import DerivedGraph, derive_bundle
from hicom_edge.export.export_options import GraphDtype, Opset
from hicom_edge.export.exporter import export_bundle

LAYERS, VOCABULARY = 2, 4096
GIB = 2**30

# Runs in a process of its own, so that its peak memory is that of one bundle's builds.
CHILD = """
import json, sys
from pathlib import Path
from hicom_edge.bundle import Bundle
from hicom_edge.engines.tensorrt.build import BuildOptions, build_engines
from hicom_edge.planning.engine_memory import weight_bytes
bundle = Bundle.open(sys.argv[1])


def peak_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


base = peak_bytes()
rows = [
    {
        "graph": built.graph,
        "weight_bytes": weight_bytes(bundle.manifest, built.graph),
        "engine_bytes": built.size_bytes,
        "seconds": built.seconds,
    }
    for built in build_engines(bundle, BuildOptions("tensorrt-rtx"))
]
print(json.dumps({"graphs": rows, "peak_bytes": peak_bytes() - base}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("fp32", "fp16"), help="default: both")
    parser.add_argument("--opset", type=int, choices=(23, 20), help="default: both families")
    parser.add_argument("--form", choices=("int8", "int4"), help="default: floating point")
    parser.add_argument("--layers", type=int, default=1, help="of the decoder")
    parser.add_argument("--directory", type=Path, help="where to write; default: the system's")
    options = parser.parse_args()
    dtypes: list[GraphDtype] = [options.dtype] if options.dtype else ["fp32", "fp16"]
    opsets: list[Opset] = [options.opset] if options.opset else [23, 20]
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        checkpoint = Path(directory) / "checkpoint"
        widths = real_sizes.released("7b", layers=options.layers)
        real_sizes.write_checkpoint(checkpoint, real_sizes.cut(widths, LAYERS, VOCABULARY))
        results = [
            measure(checkpoint, Path(directory) / f"{dtype}-{opset}", dtype, opset, options.form)
            for dtype in dtypes
            for opset in opsets
        ]
    print_table(results)
    print(json.dumps(results))


def measure(
    checkpoint: Path, path: Path, dtype: GraphDtype, opset: Opset, form: str | None
) -> dict[str, Any]:
    """Export, quantise if requested, then build in a new process."""
    bundle = export_bundle(checkpoint, path, dtype=dtype, opset=opset).bundle
    if form is not None:
        bundle = quantised(bundle, form)
    child = [sys.executable, "-c", CHILD, str(bundle.path)]
    answer = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout
    result = json.loads(answer.splitlines()[-1])
    largest = max(row["weight_bytes"] for row in result["graphs"])
    date = time.strftime("%Y-%m-%d")
    return {
        "dtype": dtype,
        "opset": opset,
        "form": form,
        **result,
        "peak_over_weights": result["peak_bytes"] / largest,
        "date": date,
    }


def quantised(bundle: Bundle, form: str) -> Bundle:
    """The bundle in the form of `hicom-edge calibrate`, with arbitrary ranges."""
    graphs = {}
    for name in bundle.manifest.graphs:
        graph = ir.load(bundle.file(bundle.graph(name).file))
        graphs[name] = DerivedGraph(jetson_memory.in_form(form, name, graph), form)
    return derive_bundle(bundle, bundle.path.with_name(f"{bundle.path.name}-{form}"), graphs)


def print_table(results: list[dict[str, Any]]) -> None:
    print("dtype opset graph           weights      engine      time")
    for result in results:
        for row in result["graphs"]:
            print(
                f"{result['dtype']:>5} {result['opset']:>5} {row['graph']:<12}"
                f"{row['weight_bytes'] / 1e6:>8.1f} MB {row['engine_bytes'] / 1e6:>8.1f} MB "
                f"{row['seconds']:>7.1f} s"
            )
        print(
            f"            peak memory {result['peak_bytes'] / GIB:.2f} GiB, "
            f"{result['peak_over_weights']:.1f} times the largest graph's weights"
        )


if __name__ == "__main__":
    main()
