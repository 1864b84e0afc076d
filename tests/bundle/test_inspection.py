from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from hicom_edge.bundle.inspection import BundleDescription, describe_bundle
from hicom_edge.commands.description_tables import description_tables
from hicom_edge.export.export_options import TensorRTLLMOptions


@pytest.fixture
def text(reference_bundle) -> str:
    return shown(describe_bundle(reference_bundle))


def shown(description: BundleDescription) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(*description_tables(description))
    return console.file.getvalue()


def test_a_description_has_everything_and_fits_into_json(reference_bundle):
    description = describe_bundle(reference_bundle)
    data = json.loads(json.dumps(description.to_dict()))
    assert data["model"]["global_tokens"] == 32
    assert [g["name"] for g in data["graphs"]] == ["vision", "guide", "compressor", "decoder"]
    assert data["size_bytes"] == sum(data["files"].values())
    assert data["graphs"][3]["entry"]["inputs"][0]["name"] == "inputs_embeds"


def test_nodes_are_counted_by_operator(reference_bundle):
    counts = describe_bundle(reference_bundle).graphs[0].node_counts
    assert counts is not None
    assert (counts["Attention"], counts["Conv"]) == (3, 1)
    assert list(counts.values()) == sorted(counts.values(), reverse=True)


def test_a_graphs_size_includes_its_external_data(reference_bundle):
    files = reference_bundle.manifest.files
    for graph in describe_bundle(reference_bundle).graphs:
        parts = [n for n in files if n.startswith(graph.entry.file)]
        assert graph.size_bytes == sum(files[n].size for n in parts)


def test_a_quantised_graph_says_what_in(reference_bundle) -> None:
    manifest = reference_bundle.manifest
    decoder = replace(manifest.graphs["decoder"], quantization="int4-block64")
    graphs = {**manifest.graphs, "decoder": decoder}
    bundle = replace(reference_bundle, manifest=replace(manifest, graphs=graphs))
    assert shown(describe_bundle(bundle)).count("int4-block64 in fp32") == 1


@pytest.mark.parametrize(
    "words",
    [
        "hicom_qwen2, local43_global32_coarse",
        "local direct, global direct",
        "4 x 3 x 3, 32 global",
        "all 32 global tokens are equal",
        "pixel_values",
        "num_frames x 9 x 9 x 256",
        "past_key_values.0.key",
        "token_embedding.npy",
        "hicom.edge::GroupedAttention",
        "opset_family",
    ],
)
def test_people_see(text, words):
    assert words in text


def test_caches_are_shown_once(text):
    assert "past_key_values.1.key" not in text


def test_a_language_model_for_another_runtime_is_shown(variant_bundle):
    options = TensorRTLLMOptions("1.x", "bf16", pp_size=2, quantization="W4A16")
    bundle = variant_bundle("release", language_model=options)
    description = describe_bundle(bundle)
    model = description.language_model
    assert model.entry == bundle.manifest.language_model
    written = bundle.path / "llm"
    assert model.size_bytes == sum(path.stat().st_size for path in written.iterdir())
    assert json.loads(json.dumps(description.to_dict()))["language_model"]["entry"]["pp_size"] == 2
    text = shown(description)
    for words in ("tensorrt-llm 1.x", "bf16", "W4A16", "2 (1 share a layer, 2 in a row)", "llm/"):
        assert words in text


def test_inspect_works_without_pytorch_and_without_onnx(reference_bundle):
    script = """
import sys
for name in ("torch", "transformers", "onnx", "onnx_ir", "onnxruntime"):
    sys.modules[name] = None
from hicom_edge.bundle import Bundle
from hicom_edge.bundle.inspection import describe_bundle
from hicom_edge.commands.description_tables import description_tables
from hicom_edge.commands.terminal import show
show(*description_tables(describe_bundle(Bundle.open(sys.argv[1]))))
"""
    run = [sys.executable, "-c", script, str(reference_bundle.path)]
    output = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert "install onnx to count" in output
