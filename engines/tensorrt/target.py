"""What engines are built for: a library, a GPU or any, and the plugin compiled for it.

It knows which combinations there are and refuses the others. It does not build engines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hicom_edge.bundle import sha256_of
from hicom_edge.engines.engine_files import (
    AMPERE_AND_LATER,
    ANY_DEVICE,
)
from hicom_edge.engines.sidecar import Expected
from hicom_edge.engines.tensorrt.api import Flavour, load_api, takes_scatter
from hicom_edge.engines.tensorrt.plugin import compile_plugin
from hicom_edge.errors import EngineError
from hicom_edge.planning.gpus import Gpu
from hicom_edge.planning.machine import Machine

if TYPE_CHECKING:
    from hicom_edge.engines.tensorrt.network import BuilderSettings


@dataclass(frozen=True)
class BuildTarget:
    """What engines are built with and for.

    Attributes:
        gpu: the GPU of this machine; None for engines that are finished where they run.
        plugin: the plugin's library, or None to build without it.
        place: the part of the directory's name that says which devices.
    """

    flavour: Flavour
    api: Any
    gpu: Gpu | None
    plugin: Path | None
    place: str

    @property
    def portable(self) -> bool:
        """Whether the engines are not for this kind of GPU alone."""
        return self.place in (ANY_DEVICE, AMPERE_AND_LATER)

    @property
    def takes_scatter(self) -> bool:
        """Whether the decoder's scatter form can be built."""
        return takes_scatter(self.flavour, self.api.__version__)

    def expected(self, source_sha256: str) -> Expected:
        """What the sidecar of an engine of that graph must say."""
        return Expected(
            source_sha256=source_sha256,
            engine=self.flavour.name,
            engine_version=self.api.__version__,
            gpu=self.gpu,
            plugin_sha256=None if self.plugin is None else sha256_of(self.plugin),
        )


def choose_target(
    flavour: Flavour,
    settings: BuilderSettings,
    machine: Machine,
    remark: Callable[[str], None] | None = None,
) -> BuildTarget:
    """What a machine builds for.

    Args:
        remark: told in one line why the plugin is not used, where it could be.

    Raises:
        EngineError: the library or a GPU is missing, or the settings do not go together with it.
    """
    api, gpu = load_api(flavour), _gpu(flavour, settings, machine)
    if gpu is None:
        return BuildTarget(flavour, api, None, None, ANY_DEVICE)
    if settings.hardware_compatible:  # the plugin is compiled for one compute capability
        return BuildTarget(flavour, api, gpu, None, AMPERE_AND_LATER)
    # The plugin is compiled for one version, and a later TensorRT would not find it.
    plugin = None if settings.version_compatible else _plugin(flavour, api, gpu, remark)
    return BuildTarget(flavour, api, gpu, plugin, gpu.folder)


def _gpu(flavour: Flavour, settings: BuilderSettings, machine: Machine) -> Gpu | None:
    """The GPU to build for; None for engines that are finished where they run.

    Raises:
        EngineError: there is no GPU, and the flavour tries its kernels on one.
    """
    if flavour.portable:
        if settings.version_compatible:
            raise EngineError(
                f"{flavour.name} has no version-compatible engines; leave --version-compatible out"
            )
        return None
    gpu = machine.gpu
    if gpu is None:
        raise EngineError(
            f"{flavour.name} builds on the GPU that will run the engine, and the CUDA driver shows "
            "none; build on that machine, or use --engine tensorrt-rtx, which builds without one"
        )
    if settings.hardware_compatible and gpu.compute_capability < (8, 0):
        raise EngineError(
            f"{gpu.name} is older than the Ampere generation, for which hardware-compatible "
            "engines are built; leave --hardware-compatible out"
        )
    return gpu


def _plugin(
    flavour: Flavour, api: Any, gpu: Gpu, remark: Callable[[str], None] | None
) -> Path | None:
    """The plugin's library; without one the graph's own function is built instead."""
    try:
        return compile_plugin(flavour.name, api.__version__, gpu)
    except EngineError as error:
        if remark is not None:
            remark(f"note: grouped attention is built without the plugin: {error}")
        return None
