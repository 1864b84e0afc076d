"""Builds the TensorRT engines of a bundle: estimates memory, then builds graph by graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hicom_edge.engines.engine_files import BuiltEngine, explained_disk_errors
from hicom_edge.engines.tensorrt.api import FLAVOURS
from hicom_edge.engines.tensorrt.graph_build import EngineBuilder
from hicom_edge.engines.tensorrt.network import BuilderSettings
from hicom_edge.engines.tensorrt.target import choose_target
from hicom_edge.option_fields import check_fields, option
from hicom_edge.planning.decoder_form import graphs_to_run
from hicom_edge.planning.engine_memory import (
    check_build,
    check_disk,
    check_run,
    run_need,
)
from hicom_edge.planning.machine import Machine, this_machine
from hicom_edge.planning.profiles import (
    DEVICE_MEMORY_GB,
    MAX_FRAMES,
    limits_from_manifest,
    profiles_of,
)
from hicom_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.planning.gpus import Gpu


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build.

    Attributes:
        engine: "tensorrt" or "tensorrt-rtx".
        max_frames: frames of the longest video; None: 128, or the bundle's own number if larger.
        workspace_mib: limit of the scratch memory of one layer, in MiB; None: TensorRT's own.
        device_memory_gb: device memory that the engines may take, in GB; None: all of it.
        version_compatible, hardware_compatible: engines that run in later versions, on other GPUs;
            both do without the plugin, which is compiled for one version and one GPU.
    """

    engine: Literal["tensorrt", "tensorrt-rtx"] = option("tensorrt", "Engine to build for.")
    max_frames: int | None = option(None, **MAX_FRAMES)
    workspace_mib: int | None = option(
        None, "Maximum scratch memory of one layer, in MiB.", minimum=1
    )
    device_memory_gb: float | None = option(None, **DEVICE_MEMORY_GB)
    version_compatible: bool = option(
        False, "Build engines that later TensorRT versions also run; without the plugin."
    )
    hardware_compatible: bool = option(
        False, "Build engines for any GPU from Ampere on; without the plugin."
    )

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def settings(self) -> BuilderSettings:
        """Settings of TensorRT's builder."""
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

    Of the two forms of the decoder, the one that this TensorRT runs better is built. Finished
    engines are kept when a build is interrupted, so that the next one continues.

    Args:
        progress: of each phase of each graph; its tasks are "graph: phase".
        remark: called with one line if the plugin could be used but does not compile.
        machine: the machine that builds; None is this one.

    Raises:
        EngineError: the library or a GPU is missing, or TensorRT does not accept a graph.
        ResourceError: memory or disk is too small, by estimate, before anything is built.
    """
    settings, machine = options.settings, machine or this_machine()
    target = choose_target(FLAVOURS[options.engine], settings, machine, remark)
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
    """Device memory in bytes that the engines may take; None if unlimited."""
    if options.device_memory_gb is not None:
        return int(options.device_memory_gb * 1e9)
    return None if gpu is None else machine.device_bytes
