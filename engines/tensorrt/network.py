"""Parses an ONNX graph and builds it with TensorRT's builder (TensorRT 10.3 and later)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, BinaryIO

from hicom_edge.errors import EngineError
from hicom_edge.progress import Progress

if TYPE_CHECKING:
    from hicom_edge.engines.tensorrt.logger import Logger
    from hicom_edge.planning.profiles import Profile

_LONGEST_REASON = 400


@dataclass(frozen=True)
class BuilderSettings:
    """Settings of TensorRT's builder.

    Attributes:
        workspace_bytes: limit of one layer's scratch memory; None leaves it to TensorRT.
        version_compatible: the engine runs in later versions of the same major version.
        hardware_compatible: the engine runs on every GPU of the Ampere generation or later.
    """

    workspace_bytes: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False


def parse_network(
    api: Any, builder: Any, path: Path, logger: Logger, model: bytes | None = None
) -> Any:
    """Parse an ONNX file into a strongly typed network, whose precisions are those of the graph.

    Args:
        model: bytes to parse instead of the file's; weights are read from beside the file.

    Raises:
        EngineError: TensorRT does not support a node; the message names the first.
    """
    # The flag exists in TensorRT 10; in 11 every network is strongly typed.
    flag = getattr(api.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = api.OnnxParser(network, logger)
    where = str(path)
    if not (parser.parse_from_file(where) if model is None else parser.parse(model, where)):
        reasons = [_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
        raise EngineError(
            f"{path} is not a graph that TensorRT {api.__version__} supports: "
            f"{(reasons or ['no reason given'])[0][:_LONGEST_REASON]}; for TensorRT before 10.15 "
            "export with opset 20"
        )
    let_attention_decompose(api, network)
    return network


def uses_plugin(api: Any, network: Any) -> bool:
    """Whether a node became a plugin layer, and not the graph's local function."""
    kinds = [getattr(api.LayerType, name, None) for name in ("PLUGIN_V3", "PLUGIN_V2", "PLUGIN")]
    layers = (network.get_layer(i) for i in range(network.num_layers))
    return any(layer.type in kinds for layer in layers)


def builder_config(
    api: Any,
    builder: Any,
    profiles: Iterable[Profile],
    settings: BuilderSettings,
    progress: Progress,
    stop: Event | None = None,
) -> Any:
    """A configuration with these profiles and settings; setting `stop` ends the build."""
    config = builder.create_builder_config()
    config.clear_flag(api.BuilderFlag.TF32)  # an fp32 graph is computed in fp32
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if settings.version_compatible:
        config.set_flag(api.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = api.HardwareCompatibilityLevel.AMPERE_PLUS
    for profile in profiles:
        own = builder.create_optimization_profile()
        for name, shapes in profile.items():
            own.set_shape(name, shapes.minimum, shapes.typical, shapes.maximum)
        config.add_optimization_profile(own)
    config.progress_monitor = _monitor(api, progress, stop or Event())
    return config


def write_engine(api: Any, builder: Any, network: Any, config: Any, path: Path) -> bool:
    """Build an engine and write it to `path`; False if TensorRT failed (its logger has the reason).

    Raises what the caller's progress function raised, such as KeyboardInterrupt, and OSError if the
    disk is full.
    """
    done = _write_engine(api, builder, network, config, path)
    if config.progress_monitor.interrupted is not None:
        raise config.progress_monitor.interrupted
    return done


def _write_engine(api: Any, builder: Any, network: Any, config: Any, path: Path) -> bool:
    """Write in pieces where the builder can, which saves a copy of the weights in memory."""
    if not hasattr(builder, "build_serialized_network_to_stream"):
        data = builder.build_serialized_network(network, config)
        if data is None:
            return False
        with path.open("wb") as file:
            file.write(data)
        return True
    with path.open("wb") as file:
        writer = _writer(api, file)
        done = builder.build_serialized_network_to_stream(network, config, writer)
        if writer.failed is not None:
            raise writer.failed
        return bool(done)


def _writer(api: Any, file: BinaryIO) -> Any:
    """TensorRT's writer to a file; no exception may leave the callback (see `_monitor`)."""

    class Writer(api.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.failed: OSError | None = None

        def write(self, data: bytes) -> int:
            try:
                file.write(data)
                file.flush()
            except OSError as error:
                self.failed = error
                return 0
            return len(data)

    return Writer()


def let_attention_decompose(api: Any, network: Any) -> None:
    """Allow TensorRT to decompose Attention nodes, which it refuses in float32 otherwise.

    There is no fused kernel in float32. In float16 the fused kernels are still used.
    """
    kind = getattr(api.LayerType, "ATTENTION_INPUT", None)  # from TensorRT 10.14 on
    if kind is None:
        return
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == kind:
            layer.__class__ = api.IAttentionInputLayer  # the binding returns the base class ILayer
            layer.attention.decomposable = True


def _monitor(api: Any, progress: Progress, stop: Event) -> Any:
    """A progress monitor; an exception of `progress`, or setting `stop`, ends the build.

    No exception may leave a callback, because C++ code calls it. It is kept in `interrupted`.
    """

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.interrupted: BaseException | None = None
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps
            self._report(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._report(phase, step + 1)
            return self.interrupted is None and not stop.is_set()

        def phase_finish(self, phase: str) -> None:
            self._report(phase, self._steps.get(phase, 1))

        def _report(self, phase: str, done: int) -> None:
            try:
                progress(phase, done, self._steps.get(phase, done), "step")
            except BaseException as error:
                self.interrupted = error

    return Monitor()


def _parser_error(error: Any) -> str:
    where = error.node_name() if hasattr(error, "node_name") else ""
    kind = error.node_operator() if hasattr(error, "node_operator") else "a node"
    return f"{kind} {where}: {' '.join(str(error.desc()).split())}"
