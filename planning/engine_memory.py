"""Estimates of the memory that building and running a bundle's engines takes.

The estimates follow from the sizes of weights, KV cache and feature maps. What a build really needs
also depends on the kernels that TensorRT tries.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.errors import ResourceError
from hicom_edge.planning.decoder_form import DECODER_GRAPHS, SCATTER_GRAPH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import Manifest, TensorSpec
    from hicom_edge.planning.profiles import Limits, Profile

_ITEM_BYTES = {"float32": 4, "float16": 2, "int64": 8, "int32": 4, "bool": 1}
# Peak resident memory of a build, in multiples of the weights: measured as 2.7 to 3.2 with
# TensorRT-RTX 1.7, mapped weight file included (benchmarks/tensorrt_rtx_builds.py), and 3.5 if the
# engine is not written in pieces, as before TensorRT 10.13.
_HOST_COPIES = 3.5
# Extra for 4-bit weights, which are unpacked on the way: from one layer of a 7B model to four,
# each byte of weights took 3.7 bytes (fp16 and INT8: 2.7).
_INT4_COPIES = 0.5
_HOST_BASE = 400 << 20
# CUDA context and TensorRT's code on the device.
_DEVICE_BASE = 500 << 20
# Kernels and network structure in an engine file: 2 to 6 MB in TensorRT-RTX, more in TensorRT.
_ENGINE_OVERHEAD = 32 << 20


@dataclass(frozen=True)
class RunNeed:
    """Device memory in bytes while questions are answered, without TensorRT's activations.

    Attributes:
        weights: of all graphs.
        kv_cache: two buffers, one read and one written by a step; the scatter form has one.
        maps: inputs and outputs of vision, guide and compressor at their largest, which include
            features V and embeddings E of the longest video.
    """

    weights: int
    kv_cache: int
    maps: int

    @property
    def total(self) -> int:
        """Sum, with the CUDA context."""
        return self.weights + self.kv_cache + self.maps + _DEVICE_BASE


def run_need(bundle: Bundle, limits: Limits, profiles: Mapping[str, Iterable[Profile]]) -> RunNeed:
    """Device memory that engines with these profiles hold while they answer."""
    manifest = bundle.manifest
    buffers = (
        input_bytes(manifest.graphs[name].inputs, profile)
        for name, own in profiles.items()
        for profile in own
        if name not in DECODER_GRAPHS
    )
    return RunNeed(
        weights=sum(weight_bytes(manifest, name) for name in profiles),
        kv_cache=(1 if SCATTER_GRAPH in profiles else 2)
        * kv_cache_bytes(manifest, limits.capacity),
        maps=sum(buffers) + map_bytes(manifest, min(8, limits.max_frames)),
    )


def kv_cache_bytes(manifest: Manifest, length: int) -> int:
    """Keys and values of `length` tokens: 2 · layers · kv_heads · head_dim · bytes · length."""
    model, decoder = manifest.model, manifest.graphs.get("decoder")
    if decoder is None:  # another runtime runs the language model
        return 0
    item = _ITEM_BYTES["float16" if decoder.precision == "fp16" else "float32"]
    return 2 * model.num_layers * model.num_kv_heads * model.head_dim * item * length


def map_bytes(manifest: Manifest, frames: int) -> int:
    """Features V and embeddings E of a video: t · h · w · (Dv + Dt) · bytes."""
    model, outputs = manifest.model, manifest.graphs["vision"].outputs
    item = _ITEM_BYTES[outputs[0].dtype]
    width = model.vision_dim + (model.joint_dim if len(outputs) > 1 else 0)
    return frames * math.prod(model.grid) * width * item


def weight_bytes(manifest: Manifest, graph_name: str) -> int:
    """Size of a graph's file and of the weights beside it."""
    return sum(manifest.files[name].size for name in manifest.files_of(graph_name))


def input_bytes(specs: Iterable[TensorSpec], profile: Profile) -> int:
    """Size of all inputs at their largest."""
    return sum(math.prod(profile[s.name].maximum) * _ITEM_BYTES[s.dtype] for s in specs)


def build_host_bytes(manifest: Manifest, graph_name: str, shared: bool = False) -> int:
    """Main memory that the build of a graph takes.

    Args:
        shared: the GPU works in main memory, so its copy of the weights counts too.
    """
    packed = (manifest.graphs[graph_name].quantization or "").startswith("int4")
    copies = _HOST_COPIES + (_INT4_COPIES if packed else 0) + (1 if shared else 0)
    return int(copies * weight_bytes(manifest, graph_name)) + _HOST_BASE


def check_build(
    manifest: Manifest, graph_names: Iterable[str], available: int | None, shared: bool = False
) -> None:
    """Refuse a build for which main memory is too small.

    Raises:
        ResourceError: the graph that needs most needs more than is available.
    """
    needs = {name: build_host_bytes(manifest, name, shared) for name in graph_names}
    name, need = max(needs.items(), key=lambda item: item[1])
    if available is not None and need > available:
        raise ResourceError(
            f"building {name} takes about {_gb(need)} of memory, {_gb(available)} are free; "
            f"{_smaller_weights(manifest)}close other programs, add swap on a disk, or build on a "
            "machine with more memory and the same GPU",
            "dtype",
        )


def check_run(manifest: Manifest, need: RunNeed, limits: Limits, budget: int | None) -> None:
    """Refuse engines that do not fit into device memory.

    Raises:
        ResourceError: they need more than the budget.
    """
    if budget is None or need.total <= budget:
        return
    parts = (
        f"weights {_gb(need.weights)}, KV cache {_gb(need.kv_cache)}, maps {_gb(need.maps)}, "
        f"CUDA {_gb(_DEVICE_BASE)}"
    )
    fewer = f"max_frames below {limits.max_frames}"
    raise ResourceError(
        f"the engines need about {_gb(need.total)} of device memory before activations ({parts}), "
        f"{_gb(budget)} are available; {_smaller_weights(manifest)}use {fewer}, or a larger device",
        "dtype",
        "max_frames",
    )


def check_disk(manifest: Manifest, graph_names: Iterable[str], directory: Path) -> None:
    """Refuse engines for which the disk is too small; an engine is a little over its weights.

    Raises:
        ResourceError: they need more than is free.
    """
    need = sum(weight_bytes(manifest, n) + _ENGINE_OVERHEAD for n in graph_names)
    free = shutil.disk_usage(directory).free
    if need > free:
        raise ResourceError(
            f"the engines take about {_gb(need)}, the disk of {directory} has {_gb(free)} free; "
            "free some space"
        )


def _smaller_weights(manifest: Manifest) -> str:
    wide = any(graph.precision == "fp32" for graph in manifest.graphs.values())
    return "export with dtype fp16, " if wide else ""


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"
