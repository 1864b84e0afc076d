"""Decode steps of 1, 2, 4 and 8 sequences in one run, in ONNX Runtime on the CPU.

python benchmarks/batched_decoding.py [--shape demo 0.5b] [--past 300] [--rounds 15]

The demo's decoder has its own weights, the 0.5B one random weights of Qwen2.5-0.5B's shape (fp32,
2 GB in a temporary folder). Sequences have different lengths. Batch sizes take turns, and each
one's fastest round counts, because other programs on the machine can only make a round slower.
Before timing, each sequence's logits in a batch are compared bit by bit with those it gets alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import real_sizes  # type: ignore[import-not-found]  # beside this script
import torch

from hicom_edge.bundle import Bundle
from hicom_edge.bundle.manifest import FileEntry
from hicom_edge.engines import load_decoder
from hicom_edge.engines.base import DecoderEngine, EngineOptions
from hicom_edge.engines.sequences import TokenSequence
from hicom_edge.export.decoder_graph import EMBEDDING, DecoderPlan, build_decoder_graph
from hicom_edge.export.opsets import CURRENT, Precision
from hicom_edge.export.save import graph_entry, save_graph
from hicom_edge.runtime.qa import DEMO_BUNDLE

BATCHES = (1, 2, 4, 8)
GRAPH = "decoder"


@dataclass(frozen=True)
class RandomWeight:
    """A tensor of a checkpoint that is drawn when it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def load(self) -> torch.Tensor:
        """Values that keep the scale of activations."""
        if len(self.shape) == 1:
            return torch.ones(self.shape)
        generator = torch.Generator().manual_seed(self.shape[0])
        return torch.randn(self.shape, generator=generator) / math.sqrt(self.shape[1])


def main() -> None:
    """Print a table for each shape, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    shapes = ("demo", *real_sizes.LANGUAGE_MODELS)
    parser.add_argument("--shape", nargs="+", choices=shapes, default=["demo", "0.5b"])
    parser.add_argument("--past", type=int, default=300, help="tokens of the shortest sequence")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each batch and round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as directory:
        for shape in options.shape:
            bundle = bundle_of(shape, Path(directory))
            results[shape] = measure(bundle, options)
            print_table(shape, results[shape])
    machine = {"processor": platform.processor() or platform.machine(), "threads": options.threads}
    versions = {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()}
    print(json.dumps({"past": options.past, **machine, **versions, "results": results}))


def bundle_of(shape: str, directory: Path) -> Bundle:
    """The demo bundle, or one that holds nothing but a decoder with random weights."""
    demo = Bundle.open(DEMO_BUNDLE)
    if shape == "demo":
        return demo
    sizes = real_sizes.LANGUAGE_MODELS[shape]
    plan, file = decoder_plan(sizes), f"{shape}.onnx"
    weights = random_weights(plan, sizes["intermediate_size"])
    model = build_decoder_graph(weights, plan, Precision.FP32, CURRENT)
    save_graph(model, directory / file)
    spec = replace(
        demo.manifest.model,
        llm_dim=plan.hidden_size,
        vocab_size=plan.vocab_size,
        num_layers=plan.num_layers,
        num_kv_heads=plan.num_kv_heads,
        head_dim=plan.head_dim,
    )
    graphs = {GRAPH: graph_entry(model, file, Precision.FP32)}
    files = {path.name: FileEntry(path.stat().st_size, "") for path in directory.iterdir()}
    return Bundle(directory, replace(demo.manifest, model=spec, graphs=graphs, files=files))


def decoder_plan(sizes: dict[str, Any]) -> DecoderPlan:
    """The decoder of a released language model."""
    heads, width = sizes["num_attention_heads"], sizes["hidden_size"]
    return DecoderPlan(
        hidden_size=width,
        num_layers=sizes["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=sizes["num_key_value_heads"],
        head_dim=width // heads,
        vocab_size=sizes["vocab_size"],
        max_context=32768,
        rms_norm_eps=1e-6,
        hidden_act="silu",
        tied=True,
        rope={"rope_type": "default", "rope_theta": 1e6},
    )


def random_weights(plan: DecoderPlan, inner: int) -> dict[str, RandomWeight]:
    """All tensors of a Qwen2 language model: linears are (out, in)."""
    width, kv_width = plan.hidden_size, plan.num_kv_heads * plan.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDING: (plan.vocab_size, width),
        "model.norm.weight": (width,),
    }
    for layer in range(plan.num_layers):
        name = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{name}.{norm}.weight"] = (width,)
        for part, rows in (("q_proj", width), ("k_proj", kv_width), ("v_proj", kv_width)):
            shapes[f"{name}.self_attn.{part}.weight"] = (rows, width)
            shapes[f"{name}.self_attn.{part}.bias"] = (rows,)
        shapes[f"{name}.self_attn.o_proj.weight"] = (width, width)
        shapes[f"{name}.mlp.gate_proj.weight"] = (inner, width)
        shapes[f"{name}.mlp.up_proj.weight"] = (inner, width)
        shapes[f"{name}.mlp.down_proj.weight"] = (width, inner)
    return {name: RandomWeight(shape) for name, shape in shapes.items()}


def measure(bundle: Bundle, options: argparse.Namespace) -> dict[int, dict[str, float]]:
    """Batch size → milliseconds of a step, and tokens per second as a ratio to batch 1."""
    with load_decoder(bundle, "onnxruntime-cpu", EngineOptions(options.threads)) as decoder:
        sequences = prefilled(decoder, options.past)
        check_bits(decoder, sequences)
        seconds = timed(decoder, sequences, options.rounds, options.steps)
    fastest = {batch: min(rounds) for batch, rounds in seconds.items()}
    return {
        batch: {
            "ms": fastest[batch] * 1000,
            "tokens_per_second": batch / fastest[batch],
            "ratio": batch * fastest[1] / fastest[batch],
        }
        for batch in BATCHES
    }


def prefilled(decoder: DecoderEngine, past: int) -> list[TokenSequence]:
    """Sequences of `past` tokens and more, each 7 longer than the one before."""
    rng, sequences = np.random.default_rng(0), [decoder.start() for _ in range(max(BATCHES))]
    for index, sequence in enumerate(sequences):
        rows = rng.normal(size=(past + 7 * index, decoder.llm_dim))
        sequence.append(rows.astype(decoder.dtype))
    return sequences


def check_bits(decoder: DecoderEngine, sequences: list[TokenSequence]) -> None:
    """A step of all sequences together gives each the bits of a step alone."""
    row = np.random.default_rng(1).normal(size=(1, decoder.llm_dim)).astype(decoder.dtype)
    together = decoder.step_batch([(sequence, row) for sequence in sequences])
    for sequence, expected in zip(sequences, together, strict=True):
        sequence.truncate(sequence.length - 1)
        if not np.array_equal(sequence.append(row), expected):
            raise SystemExit("a sequence gets other logits in a batch than alone")


def timed(
    decoder: DecoderEngine, sequences: list[TokenSequence], rounds: int, steps: int
) -> dict[int, list[float]]:
    """Batch size → seconds of one step, a mean over `steps` of them, for every round."""
    row = np.random.default_rng(2).normal(size=(1, decoder.llm_dim)).astype(decoder.dtype)
    found: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    for _ in range(rounds):
        for batch in BATCHES:
            inputs = [(sequence, row) for sequence in sequences[:batch]]
            decoder.step_batch(inputs)  # gathers the sequences' caches in one block
            started = time.perf_counter()
            for _ in range(steps):
                decoder.step_batch(inputs)
            found[batch].append((time.perf_counter() - started) / steps)
    return found


def print_table(shape: str, result: dict[int, dict[str, float]]) -> None:
    """One line for each batch size."""
    print(f"{shape}: sequences   ms a step   tokens/s   beside one")
    for batch, row in result.items():
        values = f"{row['ms']:>12.1f}{row['tokens_per_second']:>11.1f}{row['ratio']:>13.2f}"
        print(f"{'':<{len(shape) + 1}}{batch:>10}{values}")


if __name__ == "__main__":
    main()
