"""Networks and engines through the parts of the builder's interface that versions differ in."""

from __future__ import annotations

from pathlib import Path

import pytest

from hicom_edge.engines.tensorrt.api import TENSORRT_RTX, load_api
from hicom_edge.engines.tensorrt.logger import logger_of, make_with
from hicom_edge.engines.tensorrt.network import (
    BuilderSettings,
    builder_config,
    parse_network,
    uses_plugin,
    write_engine,
)
from hicom_edge.engines.tensorrt.parser_input import model_for_parser
from hicom_edge.export.export_options import OnnxDecoderOptions
from hicom_edge.planning.profiles import limits_from_manifest, profiles_of
from hicom_edge.progress import no_progress

pytestmark = pytest.mark.tensorrt
pytest.importorskip(
    "tensorrt_rtx_bindings", reason="needs TensorRT-RTX (pip install '.[tensorrt-rtx]')"
)


class OlderBuilder:
    """A builder without streams, as TensorRT's was at first."""

    def __init__(self, builder) -> None:
        self._builder = builder

    def build_serialized_network(self, network, config):
        return self._builder.build_serialized_network(network, config)


@pytest.fixture
def parts(reference_bundle):
    """(api, builder, network, config, errors) of the guide graph."""
    api = load_api(TENSORRT_RTX)
    logger = logger_of(api)
    builder = make_with(api.Builder, logger)
    entry = reference_bundle.graph("guide")
    network = parse_network(api, builder, reference_bundle.file(entry.file), logger)
    limits = limits_from_manifest(reference_bundle.manifest, 8)
    profiles = profiles_of("guide", entry, limits)
    config = builder_config(api, builder, profiles, BuilderSettings(64 << 20), no_progress)
    return api, builder, network, config, logger.errors


@pytest.mark.parametrize("opset", [23, 20])
def test_every_input_is_read_from_the_device(variant_bundle, opset: int) -> None:
    """A shape tensor would be read from main memory, at the address that we give for the device."""
    form = OnnxDecoderOptions("scatter" if opset > 20 else "concat")
    bundle = variant_bundle("release", opset=opset, language_model=form)
    api, limits = load_api(TENSORRT_RTX), limits_from_manifest(bundle.manifest, 8)
    logger, version = logger_of(api), api.__version__
    builder = make_with(api.Builder, logger)
    for graph, entry in bundle.manifest.graphs.items():
        path, profile = bundle.file(entry.file), profiles_of(graph, entry, limits)[0]
        model = model_for_parser(path, graph, profile, TENSORRT_RTX, version, plugin=False)
        network = parse_network(api, builder, path, logger, model)
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        assert {tensor.name for tensor in inputs} == {spec.name for spec in entry.inputs}
        for tensor in inputs:
            assert not tensor.is_shape_tensor, (graph, tensor.name)
            assert tensor.is_execution_tensor


def test_a_builder_without_streams_writes_as_much(parts, tmp_path: Path) -> None:
    api, builder, network, config, errors = parts
    assert write_engine(api, builder, network, config, tmp_path / "streamed")
    assert write_engine(api, OlderBuilder(builder), network, config, tmp_path / "whole")
    streamed, whole = ((tmp_path / name).stat().st_size for name in ("streamed", "whole"))
    assert streamed == pytest.approx(whole, rel=0.01)
    assert errors == []


def test_a_full_disk_is_an_error_of_the_disk(parts) -> None:
    api, builder, network, config, _ = parts
    with pytest.raises(OSError, match="No space left on device"):
        write_engine(api, builder, network, config, Path("/dev/full"))


def test_attention_in_float32_builds_only_when_it_may_be_decomposed(parts, tmp_path: Path) -> None:
    api, builder, network, config, errors = parts
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == api.LayerType.ATTENTION_INPUT:
            layer.__class__ = api.IAttentionInputLayer
            assert layer.attention.decomposable
            layer.attention.decomposable = False
    assert not write_engine(api, builder, network, config, tmp_path / "engine")
    assert "decomposable" in " ".join(errors)


def test_settings_reach_the_configuration(parts) -> None:
    api, _, network, config, _ = parts
    assert config.get_memory_pool_limit(api.MemoryPoolType.WORKSPACE) == 64 << 20
    assert not config.get_flag(api.BuilderFlag.TF32)
    assert config.num_optimization_profiles == 1
    assert not uses_plugin(api, network)
