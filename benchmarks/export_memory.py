"""Peak memory and time of `hicom-edge export` on checkpoints of real sizes with random weights.

    python benchmarks/export_memory.py                      # 0.5B with all layers, 7B with 2 layers
    python benchmarks/export_memory.py --shape 0.5b --dtype fp16

Each checkpoint is written in shards, exported by a new process, and deleted. Export keeps one
tensor in memory at a time, so more layers cost time and disk space but no memory: the 7B shape with
two layers has all the large tensors of the whole model.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import real_sizes  # type: ignore[import-not-found]  # beside this script
import torch

GIB = 2**30

# Runs in a process of its own and samples its own memory while it exports.
CHILD = """
import json, sys, threading, time
from pathlib import Path

def kib(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

peaks, running = {"RssAnon": 0, "RssFile": 0}, True

def sample():
    while running:
        for field in peaks:
            peaks[field] = max(peaks[field], kib(field))
        time.sleep(0.01)

from hicom_edge.export.exporter import export_bundle
imported = kib("VmRSS")
threading.Thread(target=sample, daemon=True).start()
start = time.perf_counter()
bundle = export_bundle(sys.argv[1], sys.argv[2], dtype=sys.argv[3]).bundle
seconds = time.perf_counter() - start
running = False
size = sum(entry.size for entry in bundle.manifest.files.values())
print(json.dumps({
    "seconds": seconds, "bundle_bytes": size, "imported_bytes": imported * 1024,
    "peak_bytes": kib("VmHWM") * 1024,
    "peak_anonymous_bytes": peaks["RssAnon"] * 1024, "peak_file_bytes": peaks["RssFile"] * 1024,
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shape", choices=real_sizes.LANGUAGE_MODELS, help="default: 0.5b whole, 7b with 2 layers"
    )
    parser.add_argument("--layers", type=int, help="layers of the language model")
    parser.add_argument("--dtype", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--directory", type=Path, help="where to write; default: the system's")
    options = parser.parse_args()
    runs = [(options.shape, options.layers)] if options.shape else [("0.5b", None), ("7b", 2)]
    results = [measure(shape, layers, options) for shape, layers in runs]
    print_table(results)
    print(json.dumps(results))


def measure(shape: str, layers: int | None, options: argparse.Namespace) -> dict[str, Any]:
    """Write a checkpoint, export it in a new process, and return its memory and time."""
    sizes = real_sizes.released(shape, layers)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        checkpoint = Path(directory) / "checkpoint"
        largest = real_sizes.write_checkpoint(checkpoint, sizes)
        size = sum(p.stat().st_size for p in checkpoint.rglob("*.safetensors"))
        arguments = [str(checkpoint), f"{directory}/bundle", options.dtype]
        child = [sys.executable, "-c", CHILD, *arguments]
        answer = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {
        "shape": shape,
        "layers": sizes.config["num_hidden_layers"],
        "dtype": options.dtype,
        "checkpoint_bytes": size,
        "largest_tensor_bytes": largest,
        **json.loads(answer.splitlines()[-1]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def print_table(results: list[dict[str, Any]]) -> None:
    sizes = ("checkpoint", "bundle", "peak", "peak_anonymous", "largest_tensor")
    titles = ("checkpoint", "bundle", "peak RSS", "anonymous", "largest tensor")
    print("shape layers dtype      time" + "".join(f"{title:>16}" for title in titles))
    for r in results:
        start = f"{r['shape']:>5} {r['layers']:>6} {r['dtype']:>5} {r['seconds']:>7.1f} s"
        print(start + "".join(f"{r[f'{name}_bytes'] / GIB:>12.2f} GiB" for name in sizes))
    last = results[-1]
    above = (last["peak_bytes"] - last["imported_bytes"]) / last["largest_tensor_bytes"]
    print(
        f"After the imports ({last['imported_bytes'] / GIB:.2f} GiB) the {last['shape']} shape "
        f"took {above:.1f} times its largest stored tensor. A whole 7B checkpoint has the tensors "
        "of the 7b shape, so it exports in the same memory; only disk and time grow with layers."
    )


if __name__ == "__main__":
    main()
