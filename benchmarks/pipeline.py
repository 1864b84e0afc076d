"""The whole pipeline at the released sizes: comparison with PyTorch, and times of all stages.

    python benchmarks/pipeline.py --language-model 0.5b --frames 8
    python benchmarks/pipeline.py --language-model 7b --dtype fp16 --engine onnxruntime-cuda
    python benchmarks/pipeline.py --language-model 7b --dtype fp16 --engine tensorrt --opset 20

Writes a checkpoint with random weights, exports it, builds engines if TensorRT runs them, compares
every stage with PyTorch in float32 on new frames (exit status 1 if one differs), and then measures
times as `hicom-edge bench` does. On a GPU it also counts the bytes copied between host and device.
`--directory` keeps the checkpoint and the bundle for the next run. The last line of the output is
JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import real_sizes  # type: ignore[import-not-found]  # beside this script
import torch

from hicom_edge.bench.stage_times import BenchOptions, StageTimes, time_stages
from hicom_edge.bundle import Bundle
from hicom_edge.commands.bench import print_times
from hicom_edge.commands.verification_table import print_table
from hicom_edge.engines.cuda.device import CudaDevice
from hicom_edge.engines.tensorrt.api import FLAVOURS
from hicom_edge.engines.tensorrt.build import BuildOptions, build_engines
from hicom_edge.export.export_options import ExportOptions, OnnxDecoderOptions
from hicom_edge.export.exporter import export_bundle
from hicom_edge.planning.gpus import find_gpus
from hicom_edge.verify.reference import CheckpointReference
from hicom_edge.verify.verification import VerifyOptions, verify_bundle

SIDE = 384
QUESTIONS = ("What does the person in the red coat put on the table?", "Where is the dog?")


def main() -> None:
    options = arguments()
    with directory_for(options) as directory:
        checkpoint, bundle = prepare(directory, options)
        differing = compare_with_pytorch(checkpoint, bundle, options)
        times, copied = measure(bundle, options)
    report(times, copied, options)
    sys.exit(1 if differing else 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--language-model", choices=real_sizes.LANGUAGE_MODELS, default="0.5b")
    parser.add_argument("--layers", type=int, help="of the language model; default: all")
    parser.add_argument("--engine", default="onnxruntime-cpu", help="as for hicom-edge ask")
    parser.add_argument("--dtype", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--opset", type=int, default=23)
    parser.add_argument("--decoder-form", choices=("concat", "scatter"), default="concat")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where to keep checkpoint and bundle")
    return parser.parse_args()


@contextmanager
def directory_for(options: argparse.Namespace) -> Iterator[Path]:
    """The directory of `--directory`, or a temporary one."""
    if options.directory is not None:
        options.directory.mkdir(parents=True, exist_ok=True)
        yield options.directory
        return
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def prepare(directory: Path, options: argparse.Namespace) -> tuple[Path, Bundle]:
    """Checkpoint, bundle and engines; existing ones are reused."""
    name = f"{options.language_model}-{options.layers or 'all'}"
    checkpoint = directory / name
    if not checkpoint.is_dir():
        unfinished = directory / f".{name}.partial"
        shutil.rmtree(unfinished, ignore_errors=True)
        sizes = real_sizes.released(options.language_model, options.layers)
        real_sizes.write_checkpoint(unfinished, sizes)
        unfinished.rename(checkpoint)
    form = OnnxDecoderOptions(options.decoder_form)
    export = ExportOptions(options.dtype, options.opset, form)
    path = directory / "-".join(map(str, (name, export.dtype, export.opset, form.form)))
    exists = path.is_dir()
    bundle = Bundle.open(path) if exists else export_bundle(checkpoint, path, export).bundle
    if options.engine in FLAVOURS:
        build = BuildOptions(options.engine, max_frames=max(options.frames, 32))
        for built in build_engines(bundle, build):
            print(f"{built.graph}: {built.size_bytes / 1e6:.0f} MB in {built.seconds:.0f} s")
    return checkpoint, bundle


def compare_with_pytorch(checkpoint: Path, bundle: Bundle, options: argparse.Namespace) -> bool:
    """Print the comparison of every stage; returns whether one is out of tolerance."""
    results = verify_bundle(
        bundle,
        CheckpointReference(checkpoint),
        fresh_frames(options.frames),
        QUESTIONS[:1],
        VerifyOptions(options.frames, engine=options.engine),
        remark=print,
    )
    print_table(results)
    return not all(result.ok for result in results)


def measure(bundle: Bundle, options: argparse.Namespace) -> tuple[StageTimes, dict[str, int]]:
    """Times of all stages, and the bytes copied between host and device for one question."""
    with counted_copies() as copied:
        times = time_stages(
            bundle,
            fresh_frames(options.frames),
            QUESTIONS[-1],
            BenchOptions(
                engine=options.engine,
                num_frames=options.frames,
                max_new_tokens=options.new_tokens,
                repeats=options.repeats,
            ),
        )
    return times, {way: count // (options.repeats + 1) for way, count in copied.items()}


def fresh_frames(count: int) -> np.ndarray:
    """Random frames (t, h, w, 3) uint8, different in every run."""
    random = np.random.default_rng()
    shades = random.integers(0, 192, (count, 12, 12, 3)).repeat(SIDE // 12, 1).repeat(SIDE // 12, 2)
    return (shades + random.integers(0, 64, (count, SIDE, SIDE, 1))).astype(np.uint8)


@contextmanager
def counted_copies() -> Iterator[Counter[str]]:
    """Counts the bytes that our own copies move between host and device inside the context."""
    copied: Counter[str] = Counter()
    upload, download = CudaDevice.upload, CudaDevice.download

    def counting_upload(self: CudaDevice, array: Any, address: int) -> None:
        copied["to the device"] += array.nbytes
        upload(self, array, address)

    def counting_download(self: CudaDevice, address: int, array: Any) -> None:
        copied["to the host"] += array.nbytes
        download(self, address, array)

    CudaDevice.upload, CudaDevice.download = counting_upload, counting_download  # type: ignore[method-assign]
    try:
        yield copied
    finally:
        CudaDevice.upload, CudaDevice.download = upload, download  # type: ignore[method-assign]


def report(times: StageTimes, copied: dict[str, int], options: argparse.Namespace) -> None:
    """Print a table for people and a line of JSON for programs."""
    gpus = find_gpus()
    machine = {
        "gpu": gpus[0].name if gpus else None,
        "cpu": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    print(f"{options.language_model}, {options.dtype}, {options.frames} frames")
    print_times(times)
    for way, nbytes in copied.items():
        print(f"copied {way} for frames and question: {nbytes / 1e6:.2f} MB")
    context = {"benchmark": "pipeline", "date": time.strftime("%Y-%m-%d"), "machine": machine}
    asked = {name: str(value) for name, value in vars(options).items()}
    print(json.dumps({**context, "options": asked, "times": asdict(times), "copied": copied}))


if __name__ == "__main__":
    main()
