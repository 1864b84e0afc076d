"""Graphs of the released sizes build ahead of time in TensorRT-RTX, in every form.

Random weights at the widths of SigLIP so400m and the heads of a 7B language model; layers, inner
sizes and vocabulary are small, because the builder looks at each layer by itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.engines.tensorrt.api import TENSORRT_RTX
from hicom_edge.engines.tensorrt.graph_build import EngineBuilder
from hicom_edge.engines.tensorrt.network import BuilderSettings
from hicom_edge.engines.tensorrt.target import choose_target
from hicom_edge.export.export_options import ExportOptions, OnnxDecoderOptions
from hicom_edge.export.exporter import export_bundle
from hicom_edge.planning.decoder_form import CONCAT_GRAPH, SCATTER_GRAPH
from hicom_edge.planning.machine import Machine
from hicom_edge.planning.profiles import limits_from_manifest, profiles_of
from hicom_edge.progress import no_progress

pytestmark = [pytest.mark.tensorrt, pytest.mark.slow]
pytest.importorskip(
    "tensorrt_rtx_bindings", reason="needs TensorRT-RTX (pip install '.[tensorrt-rtx]')"
)

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of those sizes, as the benchmarks write them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import real_sizes
    widths = real_sizes.released("7b", layers=1, mm_projector_type="local43_global32_direct")
    directory = tmp_path_factory.mktemp("real") / "checkpoint"
    real_sizes.write_checkpoint(
        directory, real_sizes.cut(widths, tower_layers=2, vocabulary=1024, inner=512)
    )
    return directory


@pytest.mark.parametrize("opset", [23, 20])
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_all_graphs_and_both_caches_build(
    checkpoint: Path, tmp_path: Path, dtype: str, opset: int
) -> None:
    options = ExportOptions(dtype, opset, OnnxDecoderOptions("scatter"))
    bundle = export_bundle(checkpoint, tmp_path / "bundle", options).bundle
    assert bundle.manifest.model.grid == (27, 27)
    assert (bundle.manifest.model.num_kv_heads, bundle.manifest.model.head_dim) == (4, 128)
    assert set(bundle.manifest.graphs) == {
        *("vision", "guide", "compressor"),
        *(CONCAT_GRAPH, SCATTER_GRAPH),
    }
    for graph, size in built_sizes(bundle).items():
        assert size > 50_000, graph


def built_sizes(bundle: Bundle) -> dict[str, int]:
    """Bytes of the engine of every graph, of both forms of the decoder."""
    settings = BuilderSettings()
    target = choose_target(TENSORRT_RTX, settings, Machine())
    builder = EngineBuilder(bundle, settings, target, None)
    limits = limits_from_manifest(bundle.manifest, 128)
    return {
        name: builder.build(name, profiles_of(name, entry, limits), no_progress).size_bytes
        for name, entry in bundle.manifest.graphs.items()
    }
