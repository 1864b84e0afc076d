"""How an engine is opened and closed, in a stand-in for the library."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from tensorrt_rtx_stand_in import API, Config

from hicom_edge.engines.tensorrt.jit import JitOptions
from hicom_edge.engines.tensorrt.session import TensorRtSession
from hicom_edge.errors import EngineError, ResourceError


class Library:
    """A module of TensorRT that notes what it frees; `fails`: what returns null there."""

    DynamicShapesKernelSpecializationStrategy = API.DynamicShapesKernelSpecializationStrategy
    CudaGraphStrategy = API.CudaGraphStrategy

    class ILogger:
        class Severity:
            INTERNAL_ERROR, ERROR = range(2)

    def __init__(self, fails: str = "") -> None:
        self.freed: list[str] = []
        self.given: list[tuple[Any, ...]] = []
        library = self

        class Freed:
            def __init__(self, name: str) -> None:
                self.name = name

            def __del__(self) -> None:
                library.freed.append(self.name)

        class Engine(Freed):
            def create_runtime_config(self) -> Config:
                return Config()

            def create_execution_context(self, *config: Any) -> Freed | None:
                library.given.append(config)
                if fails == "context":
                    library.logger.errors.append("Cuda Runtime (out of memory)")
                    return None
                return Freed("context")

        class Runtime(Freed):
            def __init__(self, logger: Any) -> None:
                super().__init__("runtime")
                library.logger = logger

            def deserialize_cuda_engine(self, data: Any) -> Engine | None:
                assert bytes(data) == b"engine"
                return None if fails == "engine" else Engine("engine")

        self.Runtime = Runtime
        self.logger: Any = None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "guide.engine").write_bytes(b"engine")
    return tmp_path / "guide.engine"


def test_the_context_is_freed_before_the_engine(path: Path) -> None:
    api = Library()
    session = TensorRtSession.open("guide", path, api, 7, host_code=False)
    assert api.given == [()]  # as every TensorRT takes it
    assert not session.captures
    session.close()
    session.close()
    assert api.freed[0] == "context"
    assert sorted(api.freed) == ["context", "engine", "runtime"]


def test_what_is_compiled_is_kept_when_it_is_there_and_when_it_ends(path: Path) -> None:
    kernels, api = path.with_name("guide.gpu.kernels"), Library()
    options = JitOptions(kernels, cuda_graphs=True)
    session = TensorRtSession.open("guide", path, api, 7, False, options)
    ((config,),) = api.given
    assert session.captures
    assert kernels.read_bytes() == b"1.7:"
    config.cache.kernels = b"gemm"
    session.close()
    assert kernels.read_bytes() == b"1.7:gemm"


@pytest.mark.parametrize(
    ("fails", "error", "message"),
    [
        ("engine", EngineError, r"guide\.engine does not load in TensorRT: no reason given"),
        ("context", ResourceError, r"guide\.engine cannot be run: not enough device memory; use"),
    ],
)
def test_what_does_not_open_is_one_line_and_leaves_nothing(path, fails, error, message) -> None:
    api = Library(fails)
    with pytest.raises(error, match=message):
        TensorRtSession.open("guide", path, api, 7, host_code=False)
    gc.collect()
    assert "runtime" in api.freed
    assert ("engine" in api.freed) == (fails == "context")
