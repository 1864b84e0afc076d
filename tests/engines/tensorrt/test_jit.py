"""What TensorRT-RTX compiled is kept between starts; a stand-in is its runtime configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorrt_rtx_stand_in import API, Config, Engine, Strategy

from hicom_edge.engines.tensorrt import jit as tensorrt_jit
from hicom_edge.engines.tensorrt.jit import JitConfig, JitOptions


def start(path: Path, **options: bool) -> JitConfig:
    return JitConfig(API, Engine(), JitOptions(path, **options))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "decoder.gpu.kernels"


def test_the_next_start_has_what_the_last_compiled(path: Path) -> None:
    first = start(path)
    first.config.cache.kernels = b"gemm"
    first.save()
    assert start(path).config.cache.kernels == b"gemm"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("foreign", [b"1.6:gemm", b"", b"\0" * 99])
def test_what_is_foreign_or_damaged_is_replaced(path: Path, foreign: bytes) -> None:
    path.write_bytes(foreign)
    jit = start(path)
    assert jit.config.cache.kernels == b""
    jit.save()
    assert path.read_bytes() == b"1.7:"


def test_it_is_written_only_when_something_was_compiled(path: Path) -> None:
    path.write_bytes(b"1.7:gemm")
    path.touch()
    before, jit = path.stat().st_ino, start(path)
    jit.save()
    assert path.stat().st_ino == before
    jit.config.cache.kernels += b" attention"
    jit.save()
    assert path.read_bytes() == b"1.7:gemm attention"


def test_a_bundle_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    start(tmp_path / "file" / "decoder.gpu.kernels").save()
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_file_that_has_grown_too_large_is_begun_anew(path: Path, monkeypatch) -> None:
    path.write_bytes(b"1.7:gemm")
    monkeypatch.setattr(tensorrt_jit, "_MOST_BYTES", 7)
    assert start(path).config.cache.kernels == b""


def test_a_cache_that_cannot_be_made_or_written_out_is_done_without(path: Path) -> None:
    class Without(Config):
        def create_runtime_cache(self) -> None:
            return None

    JitConfig(API, Engine(Without), JitOptions(path)).save()
    jit = start(path)
    jit._cache.serialize = lambda: None
    jit.save()
    assert not path.exists()


def test_strategies_follow_the_shapes(path: Path) -> None:
    config = start(path).config
    assert config.dynamic_shapes_kernel_specialization_strategy is Strategy.LAZY
    assert config.cuda_graph_strategy is Strategy.DISABLED
    growing = start(path, shapes_recur=False)
    assert growing.config.dynamic_shapes_kernel_specialization_strategy is Strategy.NONE
    assert not growing.captures
    fixed = start(path, cuda_graphs=True)
    assert fixed.config.cuda_graph_strategy is Strategy.WHOLE_GRAPH_CAPTURE
    assert fixed.captures


def test_before_1_2_it_captures_nothing(path: Path) -> None:
    class Older:
        create_runtime_cache = Config.create_runtime_cache
        set_runtime_cache = Config.set_runtime_cache

    assert not JitConfig(API, Engine(Older), JitOptions(path, cuda_graphs=True)).captures


@pytest.mark.tensorrt
def test_the_binding_has_what_the_stand_in_has() -> None:
    """Names alone: an engine to ask for a configuration needs a GPU."""
    api = pytest.importorskip("tensorrt_rtx_bindings")
    names = {name for name in vars(Config) if not name.startswith("_")} - {"cache"}
    assert names <= set(dir(api.IRuntimeConfig))
    assert {"serialize", "deserialize"} <= set(dir(api.IRuntimeCache))
    assert hasattr(api.ICudaEngine, "create_runtime_config")
    assert "runtime_config" in api.ICudaEngine.create_execution_context.__doc__
    assert hasattr(api.DynamicShapesKernelSpecializationStrategy, "NONE")
    assert hasattr(api.CudaGraphStrategy, "WHOLE_GRAPH_CAPTURE")
