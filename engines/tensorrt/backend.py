"""TensorRT and TensorRT-RTX as backends: whether they can run here, and which engines fit.

It knows that engines are built beforehand (`hicom-edge build`) and refuses those that are stale or
foreign. What is run, `engine` and `decoder` know.
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
from hicom_edge.planning.gpus import find_gpus

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.cuda.device import DeviceMemory
    from hicom_edge.engines.engine_files import EngineFiles, Expected, Sidecar
    from hicom_edge.engines.tensorrt.jit import JitOptions
    from hicom_edge.engines.tensorrt.session import TensorRtSession
    from hicom_edge.planning.gpus import Gpu

# Where TensorRT-RTX 1.7's portable engines run: no Jetson Orin, no H100, and no Turing, for which
# it builds engines of their own only.
_RTX_CAPABILITIES = ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1))


def find_engine(bundle: Bundle, graph: str, expected: Expected) -> tuple[EngineFiles, Sidecar]:
    """The engine of a graph that fits this machine: its own, or a portable one.

    Raises:
        EngineError: none is there, or it was built from or for something else; the message says
            how to build it.
    """
    from hicom_edge.engines.engine_files import EngineFiles, engine_directory

    reasons: list[str] = []
    for place in _places(expected):
        files = EngineFiles(engine_directory(bundle, expected.engine, place), graph)
        try:
            sidecar = files.read_sidecar()
        except EngineError as error:
            is_there = not isinstance(error.__cause__, FileNotFoundError)
            reasons.insert(0 if is_there else len(reasons), str(error))
            continue
        difference = expected.difference(sidecar)
        if difference is None:
            return files, sidecar
        reasons.insert(0, f"{files.engine} was built from or for {difference}")
    command = f"hicom-edge build {bundle.path} --engine {expected.engine}"
    raise EngineError(f"{reasons[0]}; build it: {command}")


def unavailable(flavour: Flavour) -> str | None:
    """Why engines of this flavour cannot run on this machine, or None when they can."""
    gpus = find_gpus()
    if not gpus:
        return "no NVIDIA GPU: the CUDA driver shows none"
    if flavour.portable and gpus[0].compute_capability not in _RTX_CAPABILITIES:
        major, minor = gpus[0].compute_capability
        return f"TensorRT-RTX's engines do not run on {gpus[0].name} (sm_{major}{minor})"
    return why_not_installed(flavour)


def _places(expected: Expected) -> list[str]:
    from hicom_edge.engines.engine_files import AMPERE_AND_LATER, ANY_DEVICE, place_of

    if expected.device is None or expected.compute_capability is None:
        return [ANY_DEVICE]
    own = place_of(expected.device, expected.compute_capability)
    is_ampere = float(expected.compute_capability) >= 8
    return [own, AMPERE_AND_LATER, ANY_DEVICE] if is_ampere else [own, ANY_DEVICE]


def _expected(bundle: Bundle, graph: str, flavour: Flavour, gpu: Gpu) -> Expected:
    from hicom_edge.bundle import sha256_of
    from hicom_edge.engines.engine_files import (
        Expected,
        capability_text,
        device_name,
        graph_sha256,
    )
    from hicom_edge.engines.tensorrt.plugin import installed_plugin

    version = load_api(flavour).__version__
    plugin = installed_plugin(flavour.name, version, gpu)
    return Expected(
        graph_sha256=graph_sha256(bundle.manifest, graph),
        engine=flavour.name,
        engine_version=version,
        device=device_name(gpu),
        compute_capability=capability_text(gpu),
        plugin_sha256=None if plugin is None else sha256_of(plugin),
    )


def _scatters(flavour: Flavour) -> bool:
    return takes_scatter(flavour, load_api(flavour).__version__)


def _find(bundle: Bundle, graph: str, flavour: Flavour) -> tuple[EngineFiles, Sidecar]:
    bundle.graph(graph)
    return find_engine(bundle, graph, _expected(bundle, graph, flavour, find_gpus()[0]))


def _unfit(flavour: Flavour, bundle: Bundle) -> str | None:
    try:
        for graph in graphs_to_run(bundle.manifest, _scatters(flavour)):
            _find(bundle, graph, flavour)
    except EngineError as error:
        return str(error)
    return None


def _load_engine(flavour: Flavour, bundle: Bundle, graph: str, options: EngineOptions) -> Engine:
    from hicom_edge.engines.cuda.device import CudaDevice
    from hicom_edge.engines.tensorrt.engine import TensorRtEngine

    del options  # threads are the CPU's
    files, sidecar = _find(bundle, graph, flavour)
    opener = partial(_open_session, flavour, files, sidecar)
    return TensorRtEngine(bundle, graph, sidecar.profiles[0], CudaDevice, opener)


def _load_decoder(flavour: Flavour, bundle: Bundle, options: EngineOptions) -> DecoderEngine:
    from hicom_edge.engines.cuda.device import CudaDevice
    from hicom_edge.engines.tensorrt.decoder import TensorRtDecoder

    del options
    graph = decoder_graph(bundle.manifest, _scatters(flavour))
    files, sidecar = _find(bundle, graph, flavour)
    opener = partial(_open_session, flavour, files, sidecar)
    return TensorRtDecoder(bundle, sidecar.profiles, CudaDevice, opener, graph)


def _open_session(
    flavour: Flavour, files: EngineFiles, sidecar: Sidecar, device: DeviceMemory
) -> TensorRtSession:
    from hicom_edge.engines.tensorrt.plugin import installed_plugin, load_plugin
    from hicom_edge.engines.tensorrt.session import TensorRtSession

    api, gpu = load_api(flavour), find_gpus()[0]
    files.check_content(sidecar)
    plugin = installed_plugin(flavour.name, api.__version__, gpu)
    if sidecar.plugin_sha256 is not None and plugin is not None:
        load_plugin(api, plugin)
    jit = _jit(files, gpu) if flavour.portable else None
    return TensorRtSession.open(
        files.graph, files.engine, api, device.stream, sidecar.version_compatible, jit
    )


def _jit(files: EngineFiles, gpu: Gpu) -> JitOptions:
    from hicom_edge.engines.engine_files import device_place
    from hicom_edge.engines.tensorrt.jit import JitOptions

    return JitOptions(
        files.kernels(device_place(gpu)),
        shapes_return=files.graph != CONCAT_GRAPH,  # its cache grows from run to run
        cuda_graphs=files.graph == SCATTER_GRAPH,
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
