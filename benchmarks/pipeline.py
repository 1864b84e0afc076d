"""The whole pipeline at the released sizes: is it the PyTorch model, and how long does it take?

    python benchmarks/pipeline.py --language-model 0.5b --frames 8
    python benchmarks/pipeline.py --language-model 7b --dtype fp16 --engine onnxruntime-cuda
    python benchmarks/pipeline.py --language-model 7b --dtype fp16 --engine tensorrt --opset 20

Writes a checkpoint with random weights, exports it, builds engines where TensorRT runs them, holds
every stage against PyTorch in float32 on fresh frames (exit status 1 if one differs), and then
times watching and asking. Beside each stage is the machine's limit from the same run: its products
at the rate of one large matrix product, or its weights and maps at the rate of reading memory,
whichever takes longer. On a GPU it also counts the bytes that go between host and device.
`--directory` keeps checkpoint and bundle for the next run. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine_limits  # type: ignore[import-not-found]  # beside this script
import numpy as np
import onnxruntime
import real_sizes  # type: ignore[import-not-found]  # beside this script
import torch

from hicom_edge.bundle import Bundle
from hicom_edge.engines.cuda_driver import find_gpus
from hicom_edge.engines.cuda_memory import CudaDevice
from hicom_edge.engines.device_array import CUDA_PLACE, DeviceArray
from hicom_edge.engines.trt.api import FLAVOURS
from hicom_edge.engines.trt.build import BuildOptions, build_engines
from hicom_edge.evaluation.reference import CheckpointReference
from hicom_edge.evaluation.verify import print_table, verify_bundle
from hicom_edge.export.exporter import export_bundle
from hicom_edge.runtime.answer import Answer, Clip
from hicom_edge.runtime.qa import VideoQA

SIDE = 384
QUESTIONS = ("What does the person in the red coat put on the table?", "Where is the dog?")
BYTES = {"fp32": 4, "fp16": 2}
STAGES = ("vision", "guide", "compress", "prefill", "each new token")


def main() -> None:
    options = arguments()
    with directory_for(options) as directory:
        checkpoint, bundle = prepare(directory, options)
        differing = compare_with_pytorch(checkpoint, bundle, options)
        rows, copied = measure(bundle, options)
    report(rows, copied, options)
    sys.exit(1 if differing else 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--language-model", choices=real_sizes.LANGUAGE_MODELS, default="0.5b")
    parser.add_argument("--layers", type=int, help="of the language model; default: all")
    parser.add_argument("--engine", default="onnxruntime-cpu", help="as for hicom-edge ask")
    parser.add_argument("--dtype", choices=BYTES, default="fp32")
    parser.add_argument("--opset", type=int, default=23)
    parser.add_argument("--decoder-form", choices=("concat", "scatter"), default="concat")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where to keep checkpoint and bundle")
    return parser.parse_args()


@contextmanager
def directory_for(options: argparse.Namespace) -> Iterator[Path]:
    """The directory that was asked for, or one that goes afterwards."""
    if options.directory is not None:
        options.directory.mkdir(parents=True, exist_ok=True)
        yield options.directory
        return
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def prepare(directory: Path, options: argparse.Namespace) -> tuple[Path, Bundle]:
    """Checkpoint, bundle and engines; what is there is kept."""
    name = f"{options.language_model}-{options.layers or 'all'}"
    checkpoint = directory / name
    if not checkpoint.is_dir():
        sizes = real_sizes.released(options.language_model, options.layers)
        real_sizes.write_checkpoint(checkpoint, sizes)
    form = {name: getattr(options, name) for name in ("dtype", "opset", "decoder_form")}
    path = directory / "-".join(map(str, (name, *form.values())))
    bundle = Bundle.open(path) if path.is_dir() else export_bundle(checkpoint, path, **form)
    if options.engine in FLAVOURS:
        build = BuildOptions(options.engine, max_frames=max(options.frames, 32))
        for built in build_engines(bundle, build):
            print(f"{built.graph}: {built.size_bytes / 1e6:.0f} MB in {built.seconds:.0f} s")
    return checkpoint, bundle


def compare_with_pytorch(checkpoint: Path, bundle: Bundle, options: argparse.Namespace) -> bool:
    """Print every stage beside PyTorch's; whether one differs by more than its tolerance."""
    results = verify_bundle(
        bundle,
        CheckpointReference(checkpoint),
        fresh_frames(options.frames),
        QUESTIONS[:1],
        num_frames=options.frames,
        engine=options.engine,
        remark=print,
    )
    print_table(results)
    return not all(result.ok for result in results)


def measure(
    bundle: Bundle, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Medians of all stages in ms beside their limits, and the bytes copied for one question."""
    runs, copied = [], Counter[str]()
    with VideoQA.load(bundle.path, options.engine) as qa:
        watch_and_ask(qa, options)  # the first run loads kernels and takes memory
        for _ in range(options.repeats):
            with counted_copies() as copied:
                runs.append(watch_and_ask(qa, options))
    on_gpu = is_on_gpu(runs[-1][0])
    limits = limits_ms(bundle, runs[-1], options, on_gpu)
    times = [milliseconds(*run) for run in runs]
    rows = [
        {
            "stage": stage,
            "median_ms": statistics.median(run[stage] for run in times),
            "limit_ms": limits[stage],
        }
        for stage in STAGES
    ]
    return rows, dict(copied)


def watch_and_ask(qa: VideoQA, options: argparse.Namespace) -> tuple[Clip, Answer]:
    """One question about frames that were not seen before."""
    clip = qa.watch(fresh_frames(options.frames), num_frames=options.frames)
    return clip, qa.ask(clip, QUESTIONS[-1], max_new_tokens=options.new_tokens)


def milliseconds(clip: Clip, answer: Answer) -> dict[str, float]:
    """What each stage took; a new token by the mean of its answer."""
    took = answer.timings
    return {
        "vision": clip.timings.vision_ms,
        "guide": took.guide_ms,
        "compress": took.compress_ms,
        "prefill": took.prefill_ms,
        "each new token": took.generate_ms / max(1, took.decode_steps),
    }


def limits_ms(
    bundle: Bundle, run: tuple[Clip, Answer], options: argparse.Namespace, on_gpu: bool
) -> dict[str, float]:
    """Linear layers at the rate of one large product, or weights and maps read once: the longer.

    Attention is left out, and products where PyTorch does not reach the GPU.
    """
    clip, answer = run
    size, vocabulary = BYTES[options.dtype], bundle.manifest.model.vocab_size
    weights = {name: graph_bytes(bundle, name) for name in ("vision", "guide", "decoder")}
    maps = sum(m.nbytes for m in (clip.maps.features, clip.maps.embeddings) if m is not None)
    # Only the last position of a prompt goes through the output layer.
    before_output = weights["decoder"] - size * vocabulary * answer.visual_tokens.shape[1]
    text = real_sizes.TOWER_CONFIG["text_config"]
    weights["guide"] -= size * text["vocab_size"] * text["hidden_size"]  # a table of few rows read
    guide_tokens = text["max_position_embeddings"]
    bytes_and_products = {
        "vision": (weights["vision"], weights["vision"] / size * clip.patch_tokens),
        "guide": (weights["guide"], weights["guide"] / size * guide_tokens),
        "compress": (maps, 0),
        "prefill": (weights["decoder"], before_output / size * answer.timings.prompt_tokens),
        "each new token": (weights["decoder"], weights["decoder"] / size),
    }
    reading = machine_limits.bytes_per_second(on_gpu)
    products = machine_limits.products_per_second(options.dtype, on_gpu) or float("inf")
    return {
        stage: 1e3 * max(nbytes / reading, count / products)
        for stage, (nbytes, count) in bytes_and_products.items()
    }


def graph_bytes(bundle: Bundle, name: str) -> int:
    """Bytes of a graph and its weights."""
    file = bundle.manifest.graphs[name].file
    return sum(f.size for path, f in bundle.manifest.files.items() if path.startswith(file))


def fresh_frames(count: int) -> np.ndarray:
    """Frames (t, h, w, 3) uint8 of noise on random shades: no two runs see the same."""
    random = np.random.default_rng()
    shades = random.integers(0, 192, (count, 12, 12, 3)).repeat(SIDE // 12, 1).repeat(SIDE // 12, 2)
    return (shades + random.integers(0, 64, (count, SIDE, SIDE, 1))).astype(np.uint8)


@contextmanager
def counted_copies() -> Iterator[Counter[str]]:
    """Counts bytes that go between host and device by our own copies while the context is open."""
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


def is_on_gpu(clip: Clip) -> bool:
    """Whether the maps stayed on the device."""
    features = clip.maps.features
    return isinstance(features, DeviceArray) and features.memory.place == CUDA_PLACE


def report(
    rows: list[dict[str, Any]], copied: dict[str, float], options: argparse.Namespace
) -> None:
    """The table for people and the line for programs."""
    gpus = find_gpus()
    machine = {
        "gpu": gpus[0].name if gpus else None,
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    print(f"{options.language_model}, {options.dtype}, {options.frames} frames, {options.engine}")
    print(f"{'stage':16} {'median ms':>10} {'limit ms':>10} {'of limit':>9}")
    for row in rows:
        took, limit = row["median_ms"], row["limit_ms"]
        print(f"{row['stage']:16} {took:10.1f} {limit:10.1f} {limit / took:9.0%}")
    for direction, nbytes in copied.items():
        print(f"copied {direction} for frames and question: {nbytes / 1e6:.2f} MB")
    options.directory = None if options.directory is None else str(options.directory)
    told = {"benchmark": "pipeline", "date": time.strftime("%Y-%m-%d"), "machine": machine}
    print(json.dumps({**told, "options": vars(options), "rows": rows, "copied": copied}))


if __name__ == "__main__":
    main()
