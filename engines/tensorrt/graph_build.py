"""Builds the engine of one graph, or keeps an engine that fits."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from hicom_edge.engines.engine_files import (
    BuiltEngine,
    EngineFiles,
    engine_directory,
    graph_sha256,
)
from hicom_edge.engines.sidecar import FORMAT_VERSION, Expected, OptionValue, Sidecar
from hicom_edge.engines.tensorrt.interruptible import run_aside
from hicom_edge.engines.tensorrt.logger import logger_of, make_with, memory_ran_out, reason_of
from hicom_edge.engines.tensorrt.network import (
    BuilderSettings,
    builder_config,
    parse_network,
    uses_plugin,
    write_engine,
)
from hicom_edge.engines.tensorrt.parser_input import model_for_parser
from hicom_edge.engines.tensorrt.plugin import load_plugin
from hicom_edge.engines.tensorrt.timing_cache import timing_cache
from hicom_edge.errors import EngineError, ResourceError
from hicom_edge.progress import Progress, within

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.tensorrt.target import BuildTarget
    from hicom_edge.planning.profiles import Profile

_TIMING_CACHE = "timing.cache"
_LONGEST_REASON = 400


class EngineBuilder:
    """Builds the engines of one bundle for one target, each into the same directory."""

    def __init__(
        self,
        bundle: Bundle,
        settings: BuilderSettings,
        target: BuildTarget,
        cuda_version: str | None,
    ) -> None:
        self._bundle, self._settings, self._target = bundle, settings, target
        self._cuda_version = cuda_version
        self._directory = engine_directory(bundle, target.flavour.name, target.place)

    def fits(self, graph: str, profiles: tuple[Profile, ...]) -> bool:
        """Whether an engine of the same source, profiles, options and target is there."""
        files = EngineFiles(self._directory, graph)
        try:
            sidecar = files.read_sidecar()
        except EngineError:
            return False
        same = sidecar.profiles == profiles and sidecar.options == self._recorded_options()
        return same and self._expected(graph).difference(sidecar) is None

    def build(self, graph: str, profiles: tuple[Profile, ...], progress: Progress) -> BuiltEngine:
        """Build one engine, or keep it if it fits.

        Raises:
            EngineError: TensorRT does not support the graph, or another build is running.
            ResourceError: device memory is too small.
        """
        files, start = EngineFiles(self._directory, graph), time.perf_counter()
        kept = self.fits(graph, profiles)
        if not kept:
            with files.replacement() as new:
                build = partial(self._build, graph, profiles, new.path, progress)
                plugin = run_aside(build)
                content = files.describe(new.path)
                files.publish(new, self._sidecar(graph, profiles, content, plugin))
        sidecar = files.read_sidecar()
        seconds = time.perf_counter() - start
        with_plugin = sidecar.plugin_sha256 is not None
        return BuiltEngine(graph, files.engine, sidecar.size, seconds, kept, with_plugin)

    def _build(
        self,
        graph: str,
        profiles: tuple[Profile, ...],
        path: Path,
        progress: Progress,
        stop: Event,
    ) -> bool:
        """Write the engine to `path` and return whether it calls the plugin."""
        api, plugin = self._target.api, self._target.plugin
        if plugin is not None:
            load_plugin(api, plugin)
        logger = logger_of(api)
        builder = make_with(api.Builder, logger)
        source = self._bundle.file(self._bundle.graph(graph).file)
        version, flavour = api.__version__, self._target.flavour
        model = model_for_parser(
            source, graph, profiles[0], flavour, version, plugin=plugin is not None
        )
        network = parse_network(api, builder, source, logger, model)
        report = within(progress, graph)
        config = builder_config(api, builder, profiles, self._settings, report, stop)
        with self._timings(config):
            done = write_engine(api, builder, network, config, path)
        if not done:
            reason = reason_of(logger.errors)
            what = f"{source} does not build in TensorRT {api.__version__}"
            if memory_ran_out(reason):
                raise ResourceError(
                    f"{what}: {reason[:_LONGEST_REASON]}; close other programs that use the GPU, "
                    "or try a smaller workspace_mib or max_frames",
                    "workspace_mib",
                    "max_frames",
                )
            raise EngineError(
                f"{what}: {reason[:_LONGEST_REASON]}; try opset 20 at export, a "
                "smaller max_frames, or a larger workspace_mib",
                "workspace_mib",
                "max_frames",
            )
        return uses_plugin(api, network)

    def _timings(self, config: Any) -> AbstractContextManager[None]:
        if self._target.flavour.portable:  # kernels are chosen on the machine that runs it
            return nullcontext()
        return timing_cache(config, self._directory / _TIMING_CACHE)

    def _sidecar(
        self,
        graph: str,
        profiles: tuple[Profile, ...],
        files: dict[str, tuple[int, str]],
        plugin: bool,
    ) -> Sidecar:
        expected = self._expected(graph)
        gpu = None if self._target.portable else self._target.gpu
        return Sidecar(
            format_version=FORMAT_VERSION,
            source=graph,
            source_sha256=expected.source_sha256,
            engine=expected.engine,
            engine_version=self._target.api.__version__,
            cuda_version=self._cuda_version,
            device=None if gpu is None else gpu.model,
            compute_capability=None if gpu is None else gpu.capability,
            precision=self._bundle.graph(graph).precision,
            plugin_sha256=expected.plugin_sha256 if plugin else None,
            version_compatible=self._settings.version_compatible,
            options=self._recorded_options(),
            profiles=profiles,
            files=files,
        )

    def _expected(self, graph: str) -> Expected:
        return self._target.expected(graph_sha256(self._bundle.manifest, graph))

    def _recorded_options(self) -> dict[str, OptionValue]:
        """Options that a later build compares; a plugin counts even if no node became one."""
        settings = {**asdict(self._settings), "plugin_offered": self._target.plugin is not None}
        return {name: int(value) for name, value in settings.items() if value is not None}
