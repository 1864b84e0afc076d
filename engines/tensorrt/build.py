"""Bundle → engines of this machine, graph by graph.

It knows the order of the work: estimate, refuse what will not fit, then build or keep one engine
after the other. How an engine is built and published, `workplace` knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hicom_edge.engines.engine_files import BuiltEngine, explained_disk_errors
from hicom_edge.engines.tensorrt.api import flavour_named
from hicom_edge.engines.tensorrt.graph_build import EngineBuilder
from hicom_edge.engines.tensorrt.network import BuilderSettings
from hicom_edge.engines.tensorrt.target import choose_target
from hicom_edge.errors import InputError
from hicom_edge.planning.decoder_form import graphs_to_run
from hicom_edge.planning.engine_memory import (
    check_build,
    check_disk,
    check_run,
    run_need,
)
from hicom_edge.planning.machine import Machine, this_machine
from hicom_edge.planning.profiles import limits_from_manifest, profiles_of
from hicom_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.planning.gpus import Gpu


@dataclass(frozen=True)
class BuildOptions:
    """What `hicom-edge build` may say.

    Attributes:
        engine: "tensorrt" or "tensorrt-rtx".
        max_frames: frames of the longest video; None: 128, or the bundle's own if more.
        workspace_mib: the most memory that one layer may work in, in MiB.
        device_memory_gb: device memory that the engines may take, in GB; None: all of it.
        version_compatible, hardware_compatible: run in later versions, on other GPUs; both without
            the plugin, which is compiled for one of each.
    """

    engine: str = "tensorrt"
    max_frames: int | None = None
    workspace_mib: int | None = None
    device_memory_gb: float | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        for name in ("max_frames", "workspace_mib", "device_memory_gb"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name} is {value}; pass a number above 0, or leave it out")

    @property
    def settings(self) -> BuilderSettings:
        """What the builder is told."""
        workspace = None if self.workspace_mib is None else self.workspace_mib << 20
        return BuilderSettings(workspace, self.version_compatible, self.hardware_compatible)


def build_engines(
    bundle: Bundle,
    options: BuildOptions,
    progress: Progress = no_progress,
    remark: Callable[[str], None] | None = None,
    machine: Machine | None = None,
) -> list[BuiltEngine]:
    """Build the engines of all graphs for a machine's GPU, or keep those that fit.

    Of two forms of the decoder, that which this TensorRT runs better is built.

    An interrupted build goes on where it stopped; nothing half-written counts.

    Args:
        progress: of each phase of each graph; its tasks are "graph: phase".
        remark: told in one line why the plugin is not used, where it could be.
        machine: the machine that builds, by default this one.

    Raises:
        EngineError: the library or the GPU is not there, or does not take a graph.
        ResourceError: memory is too small, by estimate, before anything is built.
    """
    settings, machine = options.settings, machine or this_machine()
    target = choose_target(flavour_named(options.engine), settings, machine, remark)
    manifest, limits = bundle.manifest, limits_from_manifest(bundle.manifest, options.max_frames)
    names = graphs_to_run(manifest, target.takes_scatter)
    profiles = {name: profiles_of(name, manifest.graphs[name], limits) for name in names}
    need = run_need(bundle, limits, profiles)
    check_run(manifest, need, limits, _budget(target.gpu, options, machine))
    builder = EngineBuilder(bundle, settings, target, machine.cuda_version)
    missing = [name for name in profiles if not builder.fits(name, profiles[name])]
    if missing:
        check_disk(manifest, missing, bundle.path)
        shared = target.gpu is not None and target.gpu.integrated
        check_build(manifest, missing, machine.build_bytes, shared)
    with explained_disk_errors(bundle):
        return [builder.build(name, profiles[name], progress) for name in profiles]


def _budget(gpu: Gpu | None, options: BuildOptions, machine: Machine) -> int | None:
    """Device memory in bytes that the engines may take; None when nothing says."""
    if options.device_memory_gb is not None:
        return int(options.device_memory_gb * 1e9)
    return None if gpu is None else machine.device_bytes
