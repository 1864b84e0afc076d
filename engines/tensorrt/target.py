"""Chooses what engines are built for: a library, a GPU or any, and the plugin compiled for it."""

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
    """Library and device that engines are built for.

    Attributes:
        gpu: the machine's GPU; None for engines that are finished on the machine that runs them.
        plugin: the plugin's library, or None to build without it.
        place: part of the engine directory's name that says which devices the engines are for.
    """

    flavour: Flavour
    api: Any
    gpu: Gpu | None
    plugin: Path | None
    place: str

    @property
    def portable(self) -> bool:
        """Whether the engines run on other kinds of GPU too."""
        return self.place in (ANY_DEVICE, AMPERE_AND_LATER)

    @property
    def takes_scatter(self) -> bool:
        """Whether the decoder's scatter form can be built."""
        return takes_scatter(self.flavour, self.api.__version__)

    def expected(self, source_sha256: str) -> Expected:
        """Properties that a finished engine of a source must have to be kept."""
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
    """Choose the target of a machine.

    Args:
        remark: called with one line if the plugin could be used but does not compile.

    Raises:
        EngineError: the library or a GPU is missing, or does not support the settings.
    """
    api, gpu = load_api(flavour), _gpu(flavour, settings, machine)
    if gpu is None:
        return BuildTarget(flavour, api, None, None, ANY_DEVICE)
    if settings.hardware_compatible:  # the plugin is compiled for one compute capability
        return BuildTarget(flavour, api, gpu, None, AMPERE_AND_LATER)
    # The plugin is compiled for one version of TensorRT; a later one would miss it.
    plugin = None if settings.version_compatible else _plugin(flavour, api, gpu, remark)
    return BuildTarget(flavour, api, gpu, plugin, gpu.folder)


def _gpu(flavour: Flavour, settings: BuilderSettings, machine: Machine) -> Gpu | None:
    """The GPU to build for; None for engines that are finished on the machine that runs them.

    Raises:
        EngineError: there is no GPU, and the flavour times its kernels on one.
    """
    if flavour.portable:
        if settings.version_compatible:
            raise EngineError(
                f"{flavour.name} has no version-compatible engines; leave version_compatible out",
                "version_compatible",
            )
        return None
    gpu = machine.gpu
    if gpu is None:
        raise EngineError(
            f"{flavour.name} builds on the GPU that will run the engine, and the CUDA driver shows "
            "none; build on that machine, or use the engine tensorrt-rtx, which builds without one"
        )
    if settings.hardware_compatible and gpu.compute_capability < (8, 0):
        raise EngineError(
            f"{gpu.name} is older than the Ampere generation, for which hardware-compatible "
            "engines are built; leave hardware_compatible out",
            "hardware_compatible",
        )
    return gpu


def _plugin(
    flavour: Flavour, api: Any, gpu: Gpu, remark: Callable[[str], None] | None
) -> Path | None:
    """The plugin's library; without it the graph's local function is built instead."""
    try:
        return compile_plugin(flavour.name, api.__version__, gpu)
    except EngineError as error:
        if remark is not None:
            remark(f"note: grouped attention is built without the plugin: {error}")
        return None
