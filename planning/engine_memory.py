"""How much memory building and running engines takes, estimated before it is taken.

It knows sizes of weights, caches and maps. It does not measure: what a build really needs depends
on the kernels that TensorRT tries.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.errors import ResourceError
from hicom_edge.planning.decoder_form import DECODER_GRAPHS, SCATTER_GRAPH, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import Manifest, TensorSpec
    from hicom_edge.planning.profiles import Limits, Profile

_ITEM_BYTES = {"float32": 4, "float16": 2, "int64": 8, "int32": 4, "bool": 1}
# Peak resident memory over the largest graph's weights was 2.7 to 3.2 in TensorRT-RTX 1.7, the
# mapped weight file counted in (benchmarks/tensorrt_rtx_builds.py), and 3.5 where the engine is not
# written piece by piece, as TensorRT does from 10.13 on only.
_HOST_COPIES = 3.5
# More for 4-bit weights, which are unpacked on the way: from one layer of a 7B to four, each byte
# of them took 3.7 more bytes. Of fp16 and INT8 it was 2.7.
_INT4_COPIES = 0.5
_HOST_BASE = 400 << 20
# The CUDA context and TensorRT's own code on the device.
_DEVICE_BASE = 500 << 20
# Kernels and structure of one engine file: 2 to 6 MB in TensorRT-RTX; TensorRT's own carry more.
_ENGINE_OVERHEAD = 32 << 20


@dataclass(frozen=True)
class RunNeed:
    """Device memory in bytes while questions are answered; without TensorRT's activations.

    Attributes:
        weights: of all graphs.
        kv_cache: two buffers of the cache, what a step reads and what it writes; one of the
            scatter form, which writes in place.
        maps: inputs and outputs of vision, guide and compressor at their largest, which hold V
            and E of the longest video.
    """

    weights: int
    kv_cache: int
    maps: int

    @property
    def total(self) -> int:
        """All of it, with the CUDA context."""
        return self.weights + self.kv_cache + self.maps + _DEVICE_BASE


def run_need(bundle: Bundle, limits: Limits, profiles: Mapping[str, Iterable[Profile]]) -> RunNeed:
    """The device memory that engines of these profiles hold while they answer."""
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
    if decoder is None:  # another runtime has the language model and its cache
        return 0
    item = _ITEM_BYTES["float16" if decoder.precision == "fp16" else "float32"]
    return 2 * model.num_layers * model.num_kv_heads * model.head_dim * item * length


def map_bytes(manifest: Manifest, frames: int) -> int:
    """V and E of a video: t · h · w · (Dv + Dt) · bytes."""
    model, outputs = manifest.model, manifest.graphs["vision"].outputs
    item = _ITEM_BYTES[outputs[0].dtype]
    width = model.vision_dim + (model.joint_dim if len(outputs) > 1 else 0)
    return frames * math.prod(model.grid) * width * item


def weight_bytes(manifest: Manifest, graph_name: str) -> int:
    """The bytes of a graph's file and of the weights beside it."""
    return sum(manifest.files[name].size for name in weight_files(manifest, graph_name))


def input_bytes(specs: Iterable[TensorSpec], profile: Profile) -> int:
    """All inputs at their largest."""
    return sum(math.prod(profile[s.name].maximum) * _ITEM_BYTES[s.dtype] for s in specs)


def build_host_bytes(manifest: Manifest, graph_name: str, shared: bool = False) -> int:
    """Main memory that the build of a graph takes; `shared`: the GPU's weights lie there, too."""
    packed = (manifest.graphs[graph_name].quantization or "").startswith("int4")
    copies = _HOST_COPIES + (_INT4_COPIES if packed else 0) + (1 if shared else 0)
    return int(copies * weight_bytes(manifest, graph_name)) + _HOST_BASE


def check_build(
    manifest: Manifest, graph_names: Iterable[str], available: int | None, shared: bool = False
) -> None:
    """Refuse a build that main memory cannot hold.

    Raises:
        ResourceError: the graph that needs most needs more than is available.
    """
    needs = {name: build_host_bytes(manifest, name, shared) for name in graph_names}
    name, need = max(needs.items(), key=lambda item: item[1])
    if available is not None and need > available:
        raise ResourceError(
            f"building {name} takes about {_gb(need)} of memory, {_gb(available)} are free; "
            f"{_smaller_weights(manifest)}close other programs, add swap on a disk, or build on a "
            "machine with more memory and the same GPU"
        )


def check_run(manifest: Manifest, need: RunNeed, limits: Limits, budget: int | None) -> None:
    """Refuse engines that would not fit into the device memory they are meant for.

    Raises:
        ResourceError: they need more than the budget.
    """
    if budget is None or need.total <= budget:
        return
    parts = (
        f"weights {_gb(need.weights)}, KV cache {_gb(need.kv_cache)}, maps {_gb(need.maps)}, "
        f"CUDA {_gb(_DEVICE_BASE)}"
    )
    fewer = f"--max-frames below {limits.max_frames}"
    raise ResourceError(
        f"the engines need about {_gb(need.total)} of device memory before activations ({parts}), "
        f"{_gb(budget)} are there; {_smaller_weights(manifest)}use {fewer}, or a larger device"
    )


def check_disk(manifest: Manifest, graph_names: Iterable[str], directory: Path) -> None:
    """Refuse engines that the disk cannot hold; an engine is a little larger than its weights.

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
    return "export with --dtype fp16, " if wide else ""


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"
