"""Which decoder is run and built, and which files its weights are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hicom_edge.bundle.manifest import FileEntry
from hicom_edge.engines.engine_files import graph_sha256
from hicom_edge.export.export_options import OnnxDecoderOptions
from hicom_edge.planning.decoder_form import decoder_graph, graphs_to_run
from hicom_edge.planning.engine_memory import kv_cache_bytes, run_need, weight_bytes
from hicom_edge.planning.profiles import limits_from_manifest, profiles_of


@pytest.fixture(scope="module")
def both(variant_bundle):
    return variant_bundle("release", language_model=OnnxDecoderOptions("scatter"))


def test_an_engine_runs_one_form_and_all_other_graphs(both, reference_bundle) -> None:
    assert list(both.manifest.graphs)[-2:] == ["decoder", "decoder_scatter"]
    others = ("vision", "guide", "compressor")
    assert graphs_to_run(both.manifest, takes_scatter=True) == (*others, "decoder_scatter")
    assert graphs_to_run(both.manifest, takes_scatter=False) == (*others, "decoder")
    assert decoder_graph(reference_bundle.manifest, takes_scatter=True) == "decoder"


def test_a_form_over_weights_that_were_quantised_since_is_not_run(both) -> None:
    graphs = dict(both.manifest.graphs)
    graphs["decoder"] = replace(graphs["decoder"], quantization="int8")
    manifest = replace(both.manifest, graphs=graphs)
    assert decoder_graph(manifest, takes_scatter=True) == "decoder"


def test_the_forms_share_weights_and_a_change_of_them_is_seen_in_both(both) -> None:
    files = {**both.manifest.files, "decoder.onnx.data": FileEntry(100, "a" * 64)}
    manifest = replace(both.manifest, files=files)
    assert manifest.files_of("decoder") == ("decoder.onnx", "decoder.onnx.data")
    scatter = manifest.files_of("decoder_scatter")
    assert scatter == ("decoder.onnx.data", "decoder_scatter.onnx")
    size = both.manifest.files["decoder_scatter.onnx"].size
    assert weight_bytes(manifest, "decoder_scatter") == size + 100
    others = {**files, "decoder.onnx.data": FileEntry(100, "b" * 64)}
    changed = replace(manifest, files=others)
    for graph in ("decoder", "decoder_scatter"):
        assert graph_sha256(changed, graph) != graph_sha256(manifest, graph)
    assert graph_sha256(changed, "vision") == graph_sha256(manifest, "vision")


def test_a_cache_in_place_is_counted_once(both) -> None:
    manifest, limits = both.manifest, limits_from_manifest(both.manifest, 8)
    once = kv_cache_bytes(manifest, limits.capacity)
    for takes_scatter, buffers in ((True, 1), (False, 2)):
        names = graphs_to_run(manifest, takes_scatter)
        profiles = {name: profiles_of(name, both.graph(name), limits) for name in names}
        assert run_need(both, limits, profiles).kv_cache == buffers * once
