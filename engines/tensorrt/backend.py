"""The backends "tensorrt" and "tensorrt-rtx".

Engines are built beforehand (`hicom-edge build`); outdated ones and those of other devices are
refused.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hicom_edge.engines.base import Backend, DecoderEngine, Engine, EngineOptions
from hicom_edge.engines.tensorrt.api import (
    TENSORRT,
    TENSORRT_RTX,
    Flavour,
    load_api,
    takes_scatter,
    why_not_installed,
)
from hicom_edge.errors import EngineError
from hicom_edge.planning.decoder_form import (
    CONCAT_GRAPH,
    SCATTER_GRAPH,
    decoder_graph,
    graphs_to_run,
)
from hicom_edge.planning.machine import NO_GPU, Machine

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.cuda.device import DeviceMemory
    from hicom_edge.engines.engine_files import EngineFiles
    from hicom_edge.engines.sidecar import Expected, Sidecar
    from hicom_edge.engines.tensorrt.jit import JitOptions
    from hicom_edge.engines.tensorrt.session import TensorRtSession
    from hicom_edge.planning.gpus import Gpu

# GPUs that run TensorRT-RTX 1.7's portable engines. Jetson Orin and H100 are not supported, and
# Turing only by engines that are built for it alone.
_RTX_CAPABILITIES = ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1))


def unavailable(flavour: Flavour, machine: Machine) -> str | None:
    """Why engines of this flavour cannot run on a machine, or None when they can."""
    gpu = machine.gpu
    if gpu is None:
        return NO_GPU
    if flavour.portable and gpu.compute_capability not in _RTX_CAPABILITIES:
        major, minor = gpu.compute_capability
        return f"TensorRT-RTX's engines do not run on {gpu.name} (sm_{major}{minor})"
    return why_not_installed(flavour)


def _expected(bundle: Bundle, graph: str, flavour: Flavour, gpu: Gpu) -> Expected:
    from hicom_edge.bundle import sha256_of
    from hicom_edge.engines.engine_files import graph_sha256
    from hicom_edge.engines.sidecar import Expected
    from hicom_edge.engines.tensorrt.plugin import installed_plugin

    version = load_api(flavour).__version__
    plugin = installed_plugin(flavour.name, version, gpu)
    return Expected(
        source_sha256=graph_sha256(bundle.manifest, graph),
        engine=flavour.name,
        engine_version=version,
        gpu=gpu,
        plugin_sha256=None if plugin is None else sha256_of(plugin),
    )


def _scatters(flavour: Flavour) -> bool:
    return takes_scatter(flavour, load_api(flavour).__version__)


def _find(bundle: Bundle, graph: str, flavour: Flavour, gpu: Gpu) -> tuple[EngineFiles, Sidecar]:
    from hicom_edge.engines.engine_files import find_engine

    bundle.graph(graph)
    return find_engine(bundle, graph, _expected(bundle, graph, flavour, gpu))


def _gpu(machine: Machine) -> Gpu:
    if machine.gpu is None:
        raise EngineError(f"{NO_GPU}; use the engine onnxruntime-cpu")
    return machine.gpu


def _unfit(flavour: Flavour, bundle: Bundle, machine: Machine) -> str | None:
    try:
        gpu = _gpu(machine)
        for graph in graphs_to_run(bundle.manifest, _scatters(flavour)):
            _find(bundle, graph, flavour, gpu)
    except EngineError as error:
        return str(error)
    return None


def _load_engine(flavour: Flavour, bundle: Bundle, graph: str, options: EngineOptions) -> Engine:
    from hicom_edge.engines.cuda.device import CudaDevice
    from hicom_edge.engines.tensorrt.engine import TensorRtEngine

    gpu = _gpu(options.on_machine())
    files, sidecar = _find(bundle, graph, flavour, gpu)
    opener = partial(_open_session, flavour, files, sidecar, gpu)
    return TensorRtEngine(bundle, graph, sidecar.profiles[0], CudaDevice, opener)


def _load_decoder(flavour: Flavour, bundle: Bundle, options: EngineOptions) -> DecoderEngine:
    from hicom_edge.engines.cuda.device import CudaDevice
    from hicom_edge.engines.tensorrt.decoder import TensorRtDecoder

    gpu = _gpu(options.on_machine())
    graph = decoder_graph(bundle.manifest, _scatters(flavour))
    files, sidecar = _find(bundle, graph, flavour, gpu)
    opener = partial(_open_session, flavour, files, sidecar, gpu)
    return TensorRtDecoder(bundle, sidecar.profiles, CudaDevice, opener, graph)


def _open_session(
    flavour: Flavour, files: EngineFiles, sidecar: Sidecar, gpu: Gpu, device: DeviceMemory
) -> TensorRtSession:
    from hicom_edge.engines.tensorrt.plugin import installed_plugin, load_plugin
    from hicom_edge.engines.tensorrt.session import TensorRtSession

    api = load_api(flavour)
    files.check_content(sidecar)
    plugin = installed_plugin(flavour.name, api.__version__, gpu)
    if sidecar.plugin_sha256 is not None and plugin is not None:
        load_plugin(api, plugin)
    jit = _jit(files, gpu) if flavour.portable else None
    return TensorRtSession.open(
        files.source, files.engine, api, device.stream, sidecar.version_compatible, jit
    )


def _jit(files: EngineFiles, gpu: Gpu) -> JitOptions:
    from hicom_edge.engines.tensorrt.jit import JitOptions

    return JitOptions(
        files.kernels(gpu.folder),
        shapes_recur=files.source != CONCAT_GRAPH,  # its cache grows with every step
        cuda_graphs=files.source == SCATTER_GRAPH,
    )


def _backend(flavour: Flavour) -> Backend:
    return Backend(
        flavour.name,
        partial(unavailable, flavour),
        partial(_load_engine, flavour),
        partial(_load_decoder, flavour),
        partial(_unfit, flavour),
    )


TENSORRT_BACKEND = _backend(TENSORRT)
TENSORRT_RTX_BACKEND = _backend(TENSORRT_RTX)
