"""Peak memory and time of `hicom-edge export` on checkpoints of real sizes with random weights.

    python benchmarks/export_memory.py                      # 0.5B with all layers, 7B with 2 layers
    python benchmarks/export_memory.py --shape 0.5b --dtype fp16

Each checkpoint is written in shards, exported by a fresh process, and deleted. Export holds one
tensor at a time, so the number of layers costs time and disk but no memory: the 7B shape with two
layers has all the large tensors of the whole model.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hicom_edge.model.config import HicomConfig
from hicom_edge.model.loading import expected_shapes

SHARD_BYTES = 400 << 20
GIB = 2**30
TOKENIZERS = Path(__file__).parent.parent / "tests/reference/ckpt_small"
TOWER = "siglip"
PREFIXES = {
    "vision": "model.vision_tower.vision_tower.vision_model.",
    "guide": "model.vision_tower.guide_encoder.text_model.",
    "compressor": "model.mm_projector.",
    "llm": "",
}
SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
}
TOWER_CONFIG = {
    "model_type": "siglip",
    "vision_config": {**SO400M, "image_size": 384, "patch_size": 14},
    "text_config": {**SO400M, "vocab_size": 32000, "max_position_embeddings": 64},
}
SHAPES: dict[str, dict[str, Any]] = {
    "0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "num_hidden_layers": 24,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "num_hidden_layers": 28,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
}
HICOM = {
    "model_type": "hicom_qwen2",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 32768,
    "mm_vision_tower": TOWER,
    "mm_projector_type": "local43_global32_coarse",
    "mm_hidden_size": 1152,
    "mm_vision_select_layer": -2,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_newline_position": "no_token",
    "image_aspect_ratio": "pad",
    "use_guide": "direct",
    "num_frames": 32,
}

# Run in a process of its own: samples its own memory while it exports.
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
bundle = export_bundle(sys.argv[1], sys.argv[2], dtype=sys.argv[3])
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
    parser.add_argument("--shape", choices=SHAPES, help="default: 0.5b whole, 7b with 2 layers")
    parser.add_argument("--layers", type=int, help="layers of the language model")
    parser.add_argument("--dtype", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--directory", type=Path, help="where to write; default: the system's")
    options = parser.parse_args()
    runs = [(options.shape, options.layers)] if options.shape else [("0.5b", None), ("7b", 2)]
    results = [measure(shape, layers, options) for shape, layers in runs]
    print_table(results)
    print(json.dumps(results))


def measure(shape: str, layers: int | None, options: argparse.Namespace) -> dict[str, Any]:
    """Write a checkpoint, export it in a fresh process and return what that took."""
    config = {**HICOM, **SHAPES[shape]}
    config["num_hidden_layers"] = layers or config["num_hidden_layers"]
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        checkpoint = Path(directory) / "checkpoint"
        largest = write_checkpoint(checkpoint, config)
        size = sum(p.stat().st_size for p in checkpoint.rglob("*.safetensors"))
        arguments = [str(checkpoint), f"{directory}/bundle", options.dtype]
        child = [sys.executable, "-c", CHILD, *arguments]
        answer = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {
        "shape": shape,
        "layers": config["num_hidden_layers"],
        "dtype": options.dtype,
        "checkpoint_bytes": size,
        "largest_tensor_bytes": largest,
        **json.loads(answer.splitlines()[-1]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def write_checkpoint(directory: Path, config: dict[str, Any]) -> int:
    """Write random bf16 shards in the authors' layout; the bytes of the largest tensor."""
    tower = directory / TOWER
    tower.mkdir(parents=True)
    copy_tokenizers(directory, tower)
    (directory / "config.json").write_text(json.dumps(config))
    (tower / "config.json").write_text(json.dumps(TOWER_CONFIG))
    index, largest = {}, 0
    for number, shard in enumerate(shards(HicomConfig(config, TOWER_CONFIG))):
        name = f"model-{number:05}.safetensors"
        tensors = {n: random_tensor(s) for n, s in shard.items()}
        largest = max(largest, *(t.numel() * t.itemsize for t in tensors.values()))
        save_file(tensors, directory / name)
        index.update(dict.fromkeys(shard, name))
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return largest


def copy_tokenizers(directory: Path, tower: Path) -> None:
    """Tokenizers of a small vocabulary: text is not what is measured."""
    config_files = ("config.json", "model.safetensors")
    for source, target in (
        (TOKENIZERS / "release", directory),
        (next((TOKENIZERS / "playground/models").iterdir()), tower),
    ):
        for path in source.iterdir():
            if path.is_file() and path.name not in config_files:
                shutil.copyfile(path, target / path.name)


def shards(hicom: HicomConfig) -> Iterator[dict[str, tuple[int, ...]]]:
    """Names and shapes of all tensors, in groups of at most SHARD_BYTES where possible."""
    shard: dict[str, tuple[int, ...]] = {}
    for part, shapes in expected_shapes(hicom).items():
        for name, shape in shapes.items():
            if shard and 2 * sum(map(math.prod, [*shard.values(), shape])) > SHARD_BYTES:
                yield shard
                shard = {}
            shard[PREFIXES[part] + name] = tuple(shape)
    yield shard


def random_tensor(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02)


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
