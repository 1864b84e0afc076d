"""Building with TensorRT-RTX, which needs no GPU: every graph, precision and opset family."""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import json
import os
import re
import shutil
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from reference_data import read_json

from hicom_edge.bundle import Bundle
from hicom_edge.cli import main
from hicom_edge.engines import why_not
from hicom_edge.engines.engine_files import EngineFiles
from hicom_edge.engines.tensorrt import graph_build as tensorrt_workplace
from hicom_edge.engines.tensorrt.api import (
    TENSORRT,
    TENSORRT_RTX,
    link_rtx_library,
    load_api,
    why_not_installed,
)
from hicom_edge.engines.tensorrt.build import BuildOptions, build_engines
from hicom_edge.engines.tensorrt.logger import logger_of
from hicom_edge.engines.tensorrt.network import (
    BuilderSettings,
    builder_config,
    parse_network,
    write_engine,
)
from hicom_edge.engines.tensorrt.parser_input import model_for_parser
from hicom_edge.errors import EngineError, InputError, ResourceError
from hicom_edge.export import save
from hicom_edge.export.decoder_graph import build_decoder_graph, plan_decoder
from hicom_edge.export.export_options import ExportOptions, OnnxDecoderOptions
from hicom_edge.export.exporter import export_bundle
from hicom_edge.export.opsets import CURRENT, Precision
from hicom_edge.export.save import graph_entry
from hicom_edge.planning.machine import Machine
from hicom_edge.planning.profiles import Limits, limits_from_manifest, profiles_of
from hicom_edge.progress import no_progress

RTX = "tensorrt-rtx"
DEMO_CHECKPOINT = Path(__file__).parents[3] / "demo" / "checkpoint"
GRAPHS = ["vision", "guide", "compressor", "decoder"]
needs_rtx = [
    pytest.mark.tensorrt,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx_bindings") is None,
        reason="TensorRT-RTX is not installed (pip install '.[tensorrt-rtx]')",
    ),
]


def copy_of(bundle: Bundle, directory: Path) -> Bundle:
    shutil.copytree(bundle.path, directory / "bundle")
    return replace(bundle, path=directory / "bundle")


@pytest.fixture
def bundle(reference_bundle, tmp_path: Path) -> Bundle:
    return copy_of(reference_bundle, tmp_path)


@dataclass(frozen=True)
class Constant:
    """A weight that is made when it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def load(self) -> torch.Tensor:
        return torch.full(self.shape, 0.01)


class TestWithRtx:
    pytestmark = needs_rtx

    @pytest.mark.slow
    @pytest.mark.parametrize("form", ["concat", "scatter"])
    @pytest.mark.parametrize("opset", [23, 20])
    @pytest.mark.parametrize("dtype", ["fp32", "fp16"])
    @pytest.mark.parametrize("model", ["demo", "release"])
    def test_all_graphs_build(
        self, reference_checkpoint, tmp_path: Path, model: str, dtype: str, opset: int, form: str
    ) -> None:
        checkpoint = DEMO_CHECKPOINT if model == "demo" else reference_checkpoint
        options = ExportOptions(dtype, opset, OnnxDecoderOptions(form))
        bundle = export_bundle(checkpoint, tmp_path / "bundle", options).bundle
        built = build_engines(bundle, BuildOptions(RTX))
        last = "decoder_scatter" if form == "scatter" else "decoder"
        assert [engine.graph for engine in built] == [*GRAPHS[:3], last]
        for engine in built:
            sidecar = EngineFiles(engine.path.parent, engine.graph).read_sidecar()
            assert sidecar.precision == dtype
            assert sidecar.device is None
            assert engine.size_bytes == engine.path.stat().st_size > 0
        assert Bundle.open(bundle.path).manifest == bundle.manifest

    @pytest.mark.slow
    def test_the_scatter_form_builds_over_the_weights_of_the_other(
        self, reference_checkpoint, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.setattr(save, "_INLINE_BYTES", 0)  # as a decoder of real size
        options = ExportOptions("fp16", language_model=OnnxDecoderOptions("scatter"))
        bundle = export_bundle(reference_checkpoint, tmp_path / "bundle", options).bundle
        built = build_engines(bundle, BuildOptions(RTX, max_frames=8))[-1]
        assert built.graph == "decoder_scatter"
        assert built.size_bytes > bundle.manifest.files["decoder.onnx.data"].size / 2
        sidecar = EngineFiles(built.path.parent, built.graph).read_sidecar()
        past = sidecar.profiles[0]["past_key_values.0.key"]
        capacity = limits_from_manifest(bundle.manifest, 8).capacity
        assert past.minimum[2] == past.maximum[2] == capacity
        longer = build_engines(bundle, BuildOptions(RTX, max_frames=16))[-1]
        assert not longer.kept  # the capacity is part of the engine

    @pytest.mark.slow
    @pytest.mark.parametrize("precision", list(Precision))
    def test_the_scatter_form_builds_at_the_heads_of_the_7b_model(
        self, tmp_path: Path, precision: Precision
    ) -> None:
        """28 query heads over 4 of 128 channels, and the capacity of 128 frames."""
        from transformers import Qwen2Config, Qwen2ForCausalLM

        config = Qwen2Config(
            hidden_size=3584,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=28,
            num_key_value_heads=4,
            vocab_size=64,
        )
        with torch.device("meta"):
            tensors = Qwen2ForCausalLM(config).state_dict()
        weights = {name: Constant(tuple(tensor.shape)) for name, tensor in tensors.items()}
        plan = plan_decoder(config.to_dict(), weights)
        graph = build_decoder_graph(weights, plan, precision, CURRENT, "scatter")
        path, name = tmp_path / "decoder_scatter.onnx", "decoder_scatter"
        save.save_graph(graph, path)
        limits = Limits(32, 128, 64, 808, 3136, 3648)
        profiles = profiles_of(name, graph_entry(graph, path.name, precision), limits)
        api = load_api(TENSORRT_RTX)
        logger = logger_of(api)
        builder = api.Builder(logger)
        model = model_for_parser(path, name, profiles[0], TENSORRT_RTX, api.__version__, False)
        network = parse_network(api, builder, path, logger, model)
        settings = builder_config(api, builder, profiles, BuilderSettings(), no_progress)
        assert write_engine(api, builder, network, settings, tmp_path / "e"), logger.errors

    @pytest.mark.slow
    @pytest.mark.parametrize("name", read_json("e2e/small_variants.json")["configs"])
    def test_bundles_of_every_kind_build(self, variant_bundle, tmp_path: Path, name: str) -> None:
        bundle = copy_of(variant_bundle(name, dtype="fp16"), tmp_path)
        built = build_engines(bundle, BuildOptions(RTX, max_frames=16))
        assert [engine.graph for engine in built] == list(bundle.manifest.graphs)

    @pytest.mark.slow
    def test_what_fits_is_kept_and_what_does_not_is_built_again(self, bundle) -> None:
        options = BuildOptions(RTX, max_frames=16)
        first = build_engines(bundle, options)
        assert not any(engine.kept for engine in first)
        first[1].path.write_bytes(b"half")
        again = build_engines(bundle, options)
        assert [engine.kept for engine in again] == [True, False, True, True]
        longer = build_engines(bundle, replace(options, max_frames=24))
        assert [engine.kept for engine in longer] == [True, True, False, False]

    @pytest.mark.slow
    def test_an_interrupted_build_leaves_nothing_and_goes_on(self, bundle) -> None:
        options, seen = BuildOptions(RTX, max_frames=8), []

        def interrupt(task: str, done: int, total: int, unit: str) -> None:
            graph = task.partition(":")[0]
            seen.append(graph)
            if graph == "guide":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_engines(bundle, options, interrupt)
        (directory,) = (bundle.path / "engines").iterdir()
        assert {path.name for path in directory.iterdir()} <= {
            "vision.engine",
            "vision.json",
            "timing.cache",
        }
        assert seen[0] == "vision"
        again = build_engines(bundle, options)
        assert [engine.kept for engine in again] == [True, False, False, False]

    def test_a_signal_ends_a_build_whose_callbacks_would_swallow_it(self, bundle) -> None:
        """No progress is shown: TensorRT calls the logger alone, and prints what that raises."""
        before, place = threading.main_thread().ident, bundle.path / "engines" / "tensorrt-rtx-any"

        def interrupt() -> None:
            while not list(place.glob(".guide.engine.partial-*/*")):
                time.sleep(0.01)
            signal.pthread_kill(before, signal.SIGINT)

        watcher = threading.Thread(target=interrupt, daemon=True)
        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            build_engines(bundle, BuildOptions(RTX, max_frames=8))
        assert [path.name for path in sorted(place.iterdir())] == ["vision.engine", "vision.json"]

    @pytest.mark.slow
    def test_what_a_killed_build_left_is_cleared(self, bundle) -> None:
        options = BuildOptions(RTX, max_frames=8)
        left = bundle.path / "engines" / "tensorrt-rtx-any" / ".vision.engine.partial-x"
        left.mkdir(parents=True)
        build_engines(bundle, options)
        assert not left.exists()

    @pytest.mark.slow
    def test_another_build_of_the_same_engines_is_left_alone(self, bundle) -> None:
        options = BuildOptions(RTX, max_frames=8)
        unfinished = bundle.path / "engines" / "tensorrt-rtx-any" / ".vision.engine.partial-x"
        unfinished.mkdir(parents=True)
        lock = os.open(unfinished.parent, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EngineError, match=r"another build writes engines into .*; wait until"):
            build_engines(bundle, options)
        assert [path.name for path in unfinished.parent.iterdir()] == [unfinished.name]
        os.close(lock)
        assert not any(engine.kept for engine in build_engines(bundle, options))

    @pytest.mark.parametrize(
        ("number", "error", "message"),
        [
            (errno.ENOSPC, ResourceError, r"the disk of .*bundle is full .*build again"),
            (errno.EROFS, EngineError, r"bundle cannot be written .*build in a copy of it"),
        ],
    )
    def test_a_disk_that_does_not_take_engines_is_one_line(
        self, bundle, monkeypatch, number: int, error: type[Exception], message: str
    ) -> None:
        def fail(*arguments: object) -> bool:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(tensorrt_workplace, "write_engine", fail)
        with pytest.raises(error, match=message):
            build_engines(bundle, BuildOptions(RTX, max_frames=8))
        assert not list((bundle.path / "engines").rglob("*.engine"))

    @pytest.mark.parametrize(
        ("said", "error", "advice"),
        [
            ("Cuda Runtime (out of memory)", ResourceError, "smaller workspace_mib or max_frames"),
            ("no implementation", EngineError, "opset 20 at export, .* a larger workspace_mib"),
        ],
    )
    def test_a_build_that_fails_is_one_line_with_advice(
        self, bundle, monkeypatch, said: str, error: type[Exception], advice: str
    ) -> None:
        def fail(*arguments: object) -> bool:
            logger_of(load_api(TENSORRT_RTX)).errors.append(said)
            return False

        monkeypatch.setattr(tensorrt_workplace, "write_engine", fail)
        match = rf"vision\.onnx does not build in TensorRT .*: {re.escape(said)}; .*{advice}"
        with pytest.raises(error, match=match):
            build_engines(bundle, BuildOptions(RTX, max_frames=8))

    def test_a_graph_that_tensorrt_does_not_take_is_named(self, bundle) -> None:
        import onnx

        path = bundle.path / "guide.onnx"
        model = onnx.load(path)
        attention = next(node for node in model.graph.node if node.op_type == "Attention")
        attention.attribute.append(onnx.helper.make_attribute("softmax_precision", 1))
        onnx.save(model, path)
        with pytest.raises(
            EngineError,
            match=r"guide\.onnx is not a graph that TensorRT .* supports: Attention "
            r"encoder\.layers\.0\.self_attn/Attention: .*softmax.*opset 20",
        ):
            build_engines(bundle, BuildOptions(RTX, max_frames=8))

    @pytest.mark.slow
    def test_the_command_builds_and_says_what_it_built(self, bundle, capsys) -> None:
        command = ["build", str(bundle.path), "--engine", RTX, "--max-frames", "8"]
        assert main(command) == 0
        assert "vision.engine" in capsys.readouterr().out
        assert main([*command, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [engine["kept"] for engine in told] == [True] * 4

    def test_memory_that_does_not_suffice_is_refused_before_the_build(self, bundle, capsys) -> None:
        command = ["build", str(bundle.path), "--engine", RTX, "--device-memory", "0.01"]
        assert main(command) == 2
        assert "of device memory before activations" in capsys.readouterr().err
        assert not (bundle.path / "engines").exists()

    def test_version_compatible_is_refused(self, bundle) -> None:
        options = BuildOptions(RTX, version_compatible=True)
        with pytest.raises(EngineError, match="tensorrt-rtx has no version-compatible engines"):
            build_engines(bundle, options)

    def test_the_missing_link_is_made(self) -> None:
        import tensorrt_rtx_libs

        link_rtx_library()
        link_rtx_library()
        assert (Path(tensorrt_rtx_libs.__file__).parent / "libtensorrt_rtx.so").exists()


def test_a_build_that_main_memory_cannot_hold_is_refused(bundle) -> None:
    if why_not_installed_rtx():
        pytest.skip("TensorRT-RTX is not installed")
    with pytest.raises(ResourceError, match="building vision takes about"):
        build_engines(bundle, BuildOptions(RTX), machine=Machine(available_bytes=1 << 20))
    assert not (bundle.path / "engines").exists()


def why_not_installed_rtx() -> bool:
    return importlib.util.find_spec("tensorrt_rtx_bindings") is None


@pytest.mark.skipif(why_not_installed(TENSORRT) is None, reason="TensorRT is installed")
def test_without_tensorrt_the_message_says_where_it_comes_from(bundle) -> None:
    with pytest.raises(EngineError, match=r"tensorrt is not installed \(on a Jetson it comes with"):
        load_api(TENSORRT)
    with pytest.raises(EngineError, match="tensorrt is not installed"):
        build_engines(bundle, BuildOptions())


@pytest.mark.parametrize("engine", ["tensorrt", RTX])
def test_without_a_gpu_nothing_runs_in_tensorrt(engine: str) -> None:
    assert why_not(engine, Machine()) == "no NVIDIA GPU: the CUDA driver shows none"


def test_an_engine_that_is_not_built_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match="engine is 'warp'; pass one of tensorrt, tensorrt-rtx"):
        BuildOptions("warp")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("max_frames", "pass 1 or more"),
        ("workspace_mib", "pass 1 or more"),
        ("device_memory_gb", "pass above 0"),
    ],
)
def test_sizes_of_nothing_are_refused(name: str, expected: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 0; {expected}"):
        BuildOptions(**{name: 0})
