"""A bundle whose language model is a TensorRT-LLM checkpoint: exporter, manifest, command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tensorrt_llm_forward import NumpyTensorRTLLM

from hicom_edge.bundle import Bundle
from hicom_edge.bundle.manifest import LanguageModelEntry
from hicom_edge.cli import main
from hicom_edge.errors import BundleError, ExportError
from hicom_edge.export.export_options import TensorRTLLMOptions
from hicom_edge.export.exporter import export_bundle
from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.model.loading import load_checkpoint
from hicom_edge.planning.llm.checkpoint import check_checkpoint

LLM = ["--llm", "tensorrt-llm"]


@pytest.fixture(scope="module")
def bundle(variant_bundle):
    return variant_bundle("release", language_model=TensorRTLLMOptions("0.12", "fp32", tp_size=2))


def test_the_language_model_stands_in_for_the_decoder_graph(bundle):
    manifest = Bundle.open(bundle.path).manifest
    assert list(manifest.graphs) == ["vision", "guide", "compressor"]
    assert manifest.language_model == LanguageModelEntry(
        "tensorrt-llm", "0.12", "llm", "fp32", None, tp_size=2, pp_size=1
    )
    assert manifest.extra == {"opset_family": "current"}
    written = {f"llm/{name}" for name in ("config.json", "rank0.safetensors", "rank1.safetensors")}
    assert {name for name in manifest.files if name.startswith("llm/")} == written
    assert manifest.token_embedding in manifest.files
    assert (manifest.model.vocab_size, manifest.model.num_layers) == (448, 2)


def test_the_other_graphs_are_those_of_any_bundle(bundle, reference_bundle):
    for name in ("vision.onnx", "guide.onnx", "compressor.onnx", "token_embedding.npy"):
        assert bundle.manifest.files[name] == reference_bundle.manifest.files[name]


def test_the_files_answer_as_the_checkpoint_does(bundle, variant_checkpoint):
    check_checkpoint(bundle.path / "llm")
    input_ids = torch.arange(7, 27)
    llm = load_checkpoint(variant_checkpoint("release")).llm
    with torch.inference_mode():
        expected = llm(input_ids=input_ids[None]).logits[0].numpy()
    logits = NumpyTensorRTLLM(bundle.path / "llm").logits(input_ids.numpy())
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


def test_progress_counts_up_to_the_total(variant_checkpoint, tmp_path):
    seen = []
    export_bundle(
        variant_checkpoint("release"),
        tmp_path / "bundle",
        progress=lambda *step: seen.append(step),
        language_model=TensorRTLLMOptions(dtype="bf16"),
    )
    done = [step[1] for step in seen]
    assert done == sorted(done)
    assert {step[2] for step in seen} == {done[-1]}
    assert seen[-1][0] == "writing done"
    assert "writing lm_head.weight" in [step[0] for step in seen]


def calibrated(bundle: Bundle, checkpoint: Checkpoint, directory) -> Bundle:
    """A bundle with scales of 1, as a calibration leaves it."""
    shutil.copytree(bundle.path, directory / "int8")
    (directory / "int8/calibration").mkdir()
    scales = {}
    for name, tensor in checkpoint.part("llm").items():
        if name.endswith("_proj.weight"):
            linear = name.removesuffix(".weight")
            scales[f"{linear}.smoothing"] = torch.ones(tensor.shape[1])
            scales[f"{linear}.input_amax"] = torch.tensor(8.0)
            layer = linear.rsplit(".", 1)[0]
            if layer.endswith("self_attn"):
                scales[f"{layer}.qkv_amax"] = torch.tensor(8.0)
    save_file(scales, directory / "int8/calibration/decoder_scales.safetensors")
    return rewritten(directory / "int8", bundle.manifest)


def rewritten(path, manifest) -> Bundle:
    """The manifest again, over the files that lie there now."""
    from hicom_edge.bundle import sha256_of
    from hicom_edge.bundle.manifest import FileEntry

    names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
    files = {
        name: FileEntry((path / name).stat().st_size, sha256_of(path / name))
        for name in names
        if name != "manifest.json"
    }
    (path / "manifest.json").write_text(replace(manifest, files=files).to_json())
    return Bundle.open(path)


def test_scales_come_out_of_a_calibrated_bundle(reference_bundle, variant_checkpoint, tmp_path):
    source = variant_checkpoint("release")
    scales = calibrated(reference_bundle, Checkpoint.open(source), tmp_path)
    options = TensorRTLLMOptions(
        quantization="W8A8_SQ_PER_CHANNEL", int8_kv_cache=True, scales=scales.path
    )
    bundle = export_bundle(source, tmp_path / "out", language_model=options).bundle
    check_checkpoint(bundle.path / "llm")
    config = json.loads((bundle.path / "llm/config.json").read_text())
    assert config["quantization"]["quant_algo"] == "W8A8_SQ_PER_CHANNEL"
    assert config["quantization"]["kv_cache_quant_algo"] == "INT8"
    assert bundle.manifest.language_model.quantization == "W8A8_SQ_PER_CHANNEL"


def test_scales_of_another_checkpoint_are_refused(reference_bundle, variant_checkpoint, tmp_path):
    source = variant_checkpoint("release")
    scales = calibrated(reference_bundle, Checkpoint.open(source), tmp_path)
    provenance = replace(scales.manifest.provenance, checkpoint_sha256="0" * 64)
    rewritten(scales.path, replace(scales.manifest, provenance=provenance))
    options = TensorRTLLMOptions(int8_kv_cache=True, scales=scales.path)
    with pytest.raises(ExportError, match="were measured on another checkpoint than"):
        export_bundle(source, tmp_path / "out", language_model=options)
    assert not (tmp_path / "out").exists()


def test_a_bundle_without_scales_is_refused(reference_bundle, variant_checkpoint, tmp_path):
    options = TensorRTLLMOptions(int8_kv_cache=True, scales=reference_bundle.path)
    with pytest.raises(BundleError, match=r"has no calibration/decoder_scales\.safetensors"):
        export_bundle(variant_checkpoint("release"), tmp_path / "out", language_model=options)


def test_the_command_line_writes_it(variant_checkpoint, tmp_path, capsys):
    source, target = str(variant_checkpoint("release")), str(tmp_path / "bundle")
    given = ["--trtllm-version", "1.x", "--dtype", "bf16", "--tp-size", "1", "--pp-size", "2"]
    given += ["--quantization", "W4A16", "--json"]
    assert main(["export", source, "-o", target, *LLM, *given]) == 0
    shown = capsys.readouterr()
    printed = json.loads(shown.out)
    assert printed["bundle"] == target
    parts = Checkpoint.open(source).parts
    foreign = [f"{part}: {name}" for part in parts if part != "llm" for name in parts[part]]
    assert sorted(printed["left_out"]) == sorted(foreign)
    assert f"{len(parts['vision'])} of vision (" in shown.err
    assert f"{len(parts['compressor'])} of compressor (" in shown.err
    manifest = Bundle.open(target).manifest
    assert manifest.language_model == LanguageModelEntry(
        "tensorrt-llm", "1.x", "llm", "bf16", "W4A16", tp_size=1, pp_size=2
    )
    assert {graph.precision for graph in manifest.graphs.values()} == {"fp32"}
    check_checkpoint(tmp_path / "bundle/llm")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--llm", "vllm"], "language model is 'vllm'; expected onnx, tensorrt-llm, tensorrt-edge"),
        (["--tp-size", "2"], "tp_size: no option of the language model 'onnx'"),
        (["--int8-kv-cache"], "int8_kv_cache: no option of the language model 'onnx'"),
        ([*LLM, "--int8-kv-cache"], "an INT8 KV cache needs calibrated scales; pass as scales"),
        ([*LLM, "--dtype", "fp8"], "--dtype is 'fp8'; pass one of fp32, fp16, bf16"),
        (["--dtype", "bf16"], "--dtype is 'bf16'; pass one of fp32, fp16"),
        ([*LLM, "--decoder-form", "scatter"], "form: no option of the language model 'tensorrt-ll"),
        (["--decoder-form", "ring"], "--decoder-form is 'ring'; pass one of concat, scatter"),
        (["--scales", "x"], "scales: no option of the language model 'onnx'"),
        ([*LLM, "--tp-size", "3"], "num_attention_heads is 4, which 3 ranks cannot share"),
    ],
)
def test_options_that_do_not_fit_are_one_line(variant_checkpoint, tmp_path, capsys, given, message):
    source, target = str(variant_checkpoint("release")), tmp_path / "bundle"
    assert main(["export", source, "-o", str(target), *given]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert not target.exists()
