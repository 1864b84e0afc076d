"""A loaded TensorRT engine, which runs on device addresses that its caller owns.

Written against the documented interface of TensorRT 10.3 to 11 and TensorRT-RTX, and tested with a
stand-in for the execution context. Not yet run on a device.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hicom_edge.engines.tensorrt.jit import JitConfig
from hicom_edge.engines.tensorrt.logger import logger_of, make_with, memory_ran_out, reason_of
from hicom_edge.errors import EngineError, ResourceError

if TYPE_CHECKING:
    from hicom_edge.engines.tensorrt.jit import JitOptions
    from hicom_edge.planning.profiles import Shape

_LONGEST_REASON = 300


class TensorRtSession:
    """Execution context of an engine; tensors are given by name, shape and address."""

    def __init__(
        self,
        name: str,
        context: Any,
        stream: int,
        errors: list[str],
        jit: JitConfig | None = None,
    ) -> None:
        self.name, self._jit = name, jit
        self._context, self._stream, self._errors = context, stream, errors
        self._profile = 0
        self._keep: tuple[Any, ...] = ()

    @classmethod
    def open(
        cls,
        name: str,
        path: Path,
        api: Any,
        stream: int,
        host_code: bool,
        jit: JitOptions | None = None,
    ) -> TensorRtSession:
        """Deserialize an engine file and create its execution context.

        Args:
            host_code: the engine contains its own runtime (version-compatible).
            jit: for TensorRT-RTX, which compiles kernels when it loads an engine.

        Raises:
            EngineError: TensorRT does not accept the file.
            ResourceError: not enough device memory.
        """
        logger = logger_of(api)
        runtime = make_with(api.Runtime, logger)
        if host_code:
            runtime.engine_host_code_allowed = True
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise _failure(f"{path} does not load", logger.errors)
        made = None if jit is None else JitConfig(api, engine, jit)
        config = () if made is None else (made.config,)
        context = engine.create_execution_context(*config)
        if context is None:
            raise _failure(f"{path} cannot be run", logger.errors)
        if made is not None:
            made.save()  # at once, in case the process is killed later
        session = cls(name, context, stream, logger.errors, made)
        session._keep = (engine, runtime, logger)  # the context uses them
        return session

    @property
    def captures(self) -> bool:
        """Whether the library captures CUDA graphs itself, so that the caller must not."""
        return self._jit is not None and self._jit.captures

    def select_profile(self, index: int) -> None:
        """Use the optimization profile `index` from now on."""
        if index == self._profile:
            return
        try:
            self._context.set_optimization_profile_async(index, self._stream)
        except RuntimeError as error:  # other methods of the binding return False instead
            raise _failure(f"{self.name}: profile {index} cannot be used", self._errors) from error
        self._profile = index

    def set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        """Set the shapes of all inputs."""
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise _failure(f"{self.name}: {name} cannot be {shape}", self._errors)

    def shape(self, name: str) -> Shape:
        """Shape of an output, given the inputs' shapes."""
        try:
            shape = tuple(self._context.get_tensor_shape(name))
        except ValueError as error:  # an unknown rank, which is -1
            raise _failure(f"{self.name}: {name} has no shape", self._errors) from error
        if min(shape, default=0) < 0:
            raise EngineError(f"{self.name}: the shape of {name} is not known before it runs")
        return shape

    def run(self, addresses: Mapping[str, int]) -> None:
        """Queue one run, with a device address for every input and output."""
        for name, address in addresses.items():
            self._context.set_tensor_address(name, address)
        if not self._context.execute_async_v3(self._stream):
            raise _failure(f"{self.name} does not run", self._errors)

    def close(self) -> None:
        """Free the context, store the kernels compiled for it, then free the engine."""
        self._context = None
        if self._jit is not None:
            self._jit.save()
            self._jit = None
        self._keep = ()


def _failure(what: str, errors: list[str]) -> EngineError | ResourceError:
    reason = reason_of(errors)
    errors.clear()
    if memory_ran_out(reason):
        return ResourceError(
            f"{what}: not enough device memory; use fewer frames, build with a smaller "
            "max_frames, or close other programs that use the GPU",
            "max_frames",
        )
    return EngineError(f"{what} in TensorRT: {reason[:_LONGEST_REASON]}")
