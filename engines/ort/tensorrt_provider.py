"""Options of ONNX Runtime's TensorRT provider: precision, profiles, and the engines' directory.

    BUNDLE/engines/onnxruntime-tensorrt-<device>/<versions>/<graph>-<digest>/

ONNX Runtime writes the files in this directory (onnxruntime.ai, "TensorRT Execution Provider"). It
names an engine after the graph's file, its nodes and the version of ONNX Runtime, but not after the
weights or the version of TensorRT, whose engines no other version reads. So a directory belongs to
one digest of graph and weights and to the versions of both. Not yet run on a device.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.engines.engine_files import engine_directory, graph_sha256
from hicom_edge.engines.ort.cuda_libraries import loads
from hicom_edge.errors import EngineError
from hicom_edge.planning.decoder_form import SCATTER_GRAPH
from hicom_edge.planning.engine_memory import weight_bytes
from hicom_edge.planning.profiles import (
    Profile,
    ShapeRange,
    limits_from_manifest,
    profiles_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hicom_edge.bundle import Bundle
    from hicom_edge.planning.gpus import Gpu

ENGINE = "onnxruntime-tensorrt"
# ONNX Runtime's provider is linked to TensorRT 10 (up to 1.31).
_LIBRARIES = ("libnvinfer.so.10", "nvinfer_10.dll")
# The provider passes a graph to TensorRT as one protobuf message, weights included.
_LARGEST_GRAPH = 2**31 - 1


def provider_options(bundle: Bundle, graph: str, gpu: Gpu) -> dict[str, str]:
    """The options of the TensorRT provider for one graph; creates its engine directory.

    Raises:
        EngineError: the bundle cannot be written, or the graph is too large for the provider.
    """
    too_large = why_too_large(bundle, graph)
    if too_large is not None:
        raise EngineError(f"{too_large}; use the engine tensorrt or onnxruntime-cuda")
    directory = cache_directory(bundle, graph, gpu)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"{directory} cannot be made ({error.strerror}); {ENGINE} keeps its engines in the "
            "bundle: make it writable, or use another engine"
        ) from error
    entry = bundle.graph(graph)
    profile = _union(profiles_of(graph, entry, limits_from_manifest(bundle.manifest)))
    return {
        "device_id": "0",
        "trt_fp16_enable": str(entry.precision == "fp16"),  # must be "True" or "False"
        "trt_int8_enable": str(entry.quantization == "int8"),  # needed for Q/DQ nodes
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(directory),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(directory.parent),
        "trt_profile_min_shapes": _shapes(profile, "minimum"),
        "trt_profile_opt_shapes": _shapes(profile, "typical"),
        "trt_profile_max_shapes": _shapes(profile, "maximum"),
    }


def cache_directory(bundle: Bundle, graph: str, gpu: Gpu) -> Path:
    """The directory of the engines of one graph with its present weights."""
    import onnxruntime

    versions = f"onnxruntime-{onnxruntime.__version__}-tensorrt-{_tensorrt_version()}"
    digest = graph_sha256(bundle.manifest, graph)[:12]
    return engine_directory(bundle, ENGINE, gpu.folder) / versions / f"{graph}-{digest}"


def why_too_large(bundle: Bundle, graph: str) -> str | None:
    """Why the provider cannot pass a graph to TensorRT, or None if it can."""
    size = weight_bytes(bundle.manifest, graph)
    if size <= _LARGEST_GRAPH:
        return None
    return f"{graph} has {size / 1e9:.1f} GB; {ENGINE} takes graphs of at most 2.1 GB"


def why_not_built(bundle: Bundle, gpu: Gpu) -> str | None:
    """A reason that names the first graph without an engine, or None if all have one.

    Engines of another ONNX Runtime or TensorRT do not count.
    """
    for graph in bundle.manifest.graphs:
        if graph == SCATTER_GRAPH:  # ONNX Runtime runs the other form of the decoder
            continue
        if not any(cache_directory(bundle, graph, gpu).glob("*.engine")):
            return f"{ENGINE} has built no engine of {graph} yet, which takes minutes"
    return None


def why_no_library() -> str | None:
    """The reason why the provider cannot load TensorRT, or None."""
    from hicom_edge.engines.tensorrt.api import TENSORRT, why_not_installed

    reason = why_not_installed(TENSORRT)  # the Python package, once imported, brings its libraries
    if any(map(loads, _LIBRARIES)):
        return None
    return reason or (
        "the TensorRT that is installed is not 10, which ONNX Runtime's provider is built with "
        "(pip install 'tensorrt<11')"
    )


def _tensorrt_version() -> str:
    """The version of the library that is loaded, such as "10.13.3", or "none"."""
    for name in filter(loads, _LIBRARIES):
        number = ctypes.CDLL(name).getInferLibVersion()  # as NvInferRuntime.h numbers TensorRT 10
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return "none"


def _union(profiles: Sequence[Profile]) -> Profile:
    """One profile that covers all, because the provider uses only the first.

    Typical shapes are those of the last profile, the decoder's step.
    """
    return {
        name: ShapeRange(
            tuple(map(min, *(p[name].minimum for p in (*profiles, profiles[0])))),
            profiles[-1][name].typical,
            tuple(map(max, *(p[name].maximum for p in (*profiles, profiles[0])))),
        )
        for name in profiles[0]
    }


def _shapes(profile: Profile, which: str) -> str:
    """Shapes in the syntax of the provider's options: `name:1x2x3,other:4x5`."""
    pairs = ((name, getattr(shapes, which)) for name, shapes in profile.items())
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in pairs if shape)
