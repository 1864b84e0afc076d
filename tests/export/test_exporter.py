from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from hicom_edge.bundle import Bundle
from hicom_edge.errors import BundleError, CheckpointError, ExportError, ResourceError
from hicom_edge.export import exporter
from hicom_edge.export.export_options import EdgeLLMOptions, OnnxDecoderOptions
from hicom_edge.export.exporter import export_bundle
from hicom_edge.model.checkpoint import Checkpoint

PIPELINE = ["vision", "guide", "compressor", "decoder"]


@pytest.fixture
def checkpoint(variant_checkpoint, tmp_path) -> Path:
    """A copy of the tiny checkpoint that a test may damage."""
    source = variant_checkpoint("release").parent
    shutil.copytree(source, tmp_path / "copy")
    return tmp_path / "copy/release"


def change_config(checkpoint: Path, **changes: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def left_over(directory: Path) -> list[str]:
    return [p.name for p in directory.iterdir()]


def test_a_bundle_opens_with_all_checks(reference_bundle):
    bundle = Bundle.open(reference_bundle.path)
    assert list(bundle.manifest.graphs) == PIPELINE
    assert bundle.manifest == reference_bundle.manifest


def test_the_export_checks_ids_against_the_embedding_table(checkpoint, tmp_path):
    path = checkpoint / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [151645]}))
    with pytest.raises(ExportError, match=r"the stop tokens \[151645\]"):
        export_bundle(checkpoint, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("llm", [False, True])
def test_a_configuration_with_which_no_bundle_opens_is_refused_before_weights_are_written(
    checkpoint, tmp_path, llm
):
    path = checkpoint / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"top_p": 0.0}))
    written = []
    with pytest.raises(BundleError, match=r"^release: generation.top_p is 0.0, expected .*correct"):
        export_bundle(
            checkpoint,
            tmp_path / "bundle",
            language_model=EdgeLLMOptions() if llm else OnnxDecoderOptions(),
            progress=lambda *told: written.append(told),
        )
    assert not written
    assert left_over(tmp_path) == ["copy"]


def test_the_manifest_says_the_models_sizes(reference_bundle, reference_checkpoint):
    manifest = reference_bundle.manifest
    config = json.loads((reference_checkpoint / "config.json").read_text())
    model = manifest.model
    assert model.kind == config["model_type"]
    assert model.projector_type == config["mm_projector_type"]
    assert (model.local_injection, model.global_injection) == ("direct", "direct")
    assert (model.vision_dim, model.joint_dim, model.llm_dim) == (256, 256, 64)
    assert (model.grid, model.temporal_kernel, model.spatial_kernel) == ((9, 9), 4, (3, 3))
    assert (model.global_tokens, model.vocab_size, model.max_context) == (32, 448, 32768)
    assert (model.num_layers, model.num_kv_heads, model.head_dim) == (2, 2, 16)
    frames = manifest.frames
    assert (frames.num_frames, frames.image_size) == (32, 126)
    assert (frames.mean, frames.std, frames.resample) == ((0.5,) * 3, (0.5,) * 3, "bicubic")
    assert (frames.rescale_factor, frames.aspect) == (1 / 255, "pad")


def test_provenance_names_the_checkpoint_and_no_place_on_this_machine(
    reference_bundle, reference_checkpoint
):
    provenance = reference_bundle.manifest.provenance
    assert provenance.checkpoint == "release"
    assert len(provenance.checkpoint_sha256) == 64
    assert any("all 32 global tokens are equal" in note for note in provenance.notes)
    assert "torch" in provenance.created_with
    text = (reference_bundle.path / "manifest.json").read_text()
    assert str(reference_bundle.path.parent) not in text
    assert str(reference_checkpoint.parent) not in text


def test_the_token_embedding_is_the_checkpoints(reference_bundle, reference_checkpoint):
    path = reference_bundle.file(reference_bundle.manifest.token_embedding)
    table = np.load(path, mmap_mode="r", allow_pickle=False)
    stored = load_file(reference_checkpoint / "model.safetensors")["model.embed_tokens.weight"]
    np.testing.assert_array_equal(table, stored.float().numpy())


@pytest.mark.parametrize("opset", [18, 20, 23])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_every_graph_passes_the_onnx_checker(variant_bundle, opset, dtype):
    bundle = variant_bundle("release", opset=opset, dtype=dtype)
    for entry in bundle.manifest.graphs.values():
        path = bundle.path / entry.file
        onnx.checker.check_model(str(path), full_check=True)
        assert (entry.opset, entry.precision) == (opset, dtype)
        model = onnx.load(str(path), load_external_data=False)
        assert model.opset_import[0].version == opset
        assert [i.name for i in model.graph.input] == [i.name for i in entry.inputs]
        assert [o.name for o in model.graph.output] == [o.name for o in entry.outputs]


@pytest.mark.parametrize("opset", [18, 19, 20])
def test_the_plain_family_has_no_operator_that_old_tensorrt_lacks(variant_bundle, opset):
    bundle, used = variant_bundle("release", opset=opset), set()
    for entry in bundle.manifest.graphs.values():
        model = onnx.load(str(bundle.path / entry.file), load_external_data=False)
        bodies = [model.graph, *model.functions]
        used |= {node.op_type for body in bodies for node in body.node}
    assert not used & {"Attention", "RMSNormalization", "RotaryEmbedding", "Gelu", "TensorScatter"}


def test_two_exports_write_the_same_bytes(variant_checkpoint, reference_bundle, tmp_path):
    second = export_bundle(variant_checkpoint("release"), tmp_path / "again").bundle
    assert second.manifest == reference_bundle.manifest
    for name in second.manifest.files:
        assert second.file(name).read_bytes() == reference_bundle.file(name).read_bytes()


def test_without_a_guide_there_is_no_guide_graph(variant_bundle):
    bundle = variant_bundle("mlp2x_gelu")
    graphs = bundle.manifest.graphs
    assert "guide" not in graphs
    assert bundle.manifest.guide is None
    assert [o.name for o in graphs["vision"].outputs] == ["features"]
    assert "compressor_image" in graphs  # images are not pooled 2x2


def test_float16_is_half_the_size(variant_bundle, reference_bundle):
    half = variant_bundle("release", dtype="fp16")
    name = half.manifest.token_embedding
    assert np.load(half.file(name)).dtype == np.float16
    sizes = [b.manifest.files["decoder.onnx"].size for b in (half, reference_bundle)]
    assert sizes[0] < 0.6 * sizes[1]


def test_an_opened_checkpoint_and_a_name_are_accepted(variant_checkpoint, tmp_path):
    checkpoint = Checkpoint.open(variant_checkpoint("release"))
    bundle = export_bundle(checkpoint, tmp_path / "bundle", name="my-model").bundle
    assert bundle.manifest.name == "my-model"
    assert bundle.manifest.provenance.checkpoint == "release"


def test_progress_counts_up_to_the_total(variant_checkpoint, tmp_path):
    seen = []
    export_bundle(
        variant_checkpoint("release"), tmp_path / "b", progress=lambda *step: seen.append(step)
    )
    done = [step[1] for step in seen]
    totals = {step[2] for step in seen}
    assert done == sorted(done)
    assert totals == {done[-1]}
    assert seen[-1][0] == "writing done"
    assert "writing token_embedding.npy" in [step[0] for step in seen]


def test_an_existing_bundle_is_replaced_only_on_request(variant_checkpoint, tmp_path):
    source, target = variant_checkpoint("release"), tmp_path / "bundle"
    export_bundle(source, target, name="first")
    with pytest.raises(BundleError, match=r"already holds a bundle; .* or overwrite"):
        export_bundle(source, target, name="second")
    assert Bundle.open(target).manifest.name == "first"
    export_bundle(source, target, name="second", overwrite=True)
    assert Bundle.open(target).manifest.name == "second"
    assert left_over(tmp_path) == ["bundle"]


def test_a_foreign_directory_is_never_replaced(variant_checkpoint, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        export_bundle(variant_checkpoint("release"), tmp_path / "mine", overwrite=True)
    assert left_over(tmp_path / "mine") == ["thesis.tex"]


def test_a_weight_beyond_float16_leaves_nothing_behind(checkpoint, tmp_path):
    path, name = checkpoint / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    state = load_file(path)
    state[name][3, 3] = 1e5
    save_file(state, path)
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match=rf"{name} holds 99840, .*export with dtype fp32"):
        export_bundle(checkpoint, tmp_path / "out/bundle", dtype="fp16")
    assert left_over(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window is true"),
        ({"hidden_act": "gelu_fast"}, "activation 'gelu_fast' is not supported"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "rope type 'yarn' is not supported",
        ),
    ],
)
def test_a_model_that_no_graph_expresses_is_refused(checkpoint, tmp_path, changes, message):
    change_config(checkpoint, **changes)
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match=message):
        export_bundle(checkpoint, tmp_path / "out/bundle")
    assert left_over(tmp_path / "out") == []


def test_a_missing_checkpoint_is_one_line(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        export_bundle(tmp_path / "nowhere", tmp_path / "bundle")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_too_little_disk_is_refused_before_writing(variant_checkpoint, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(exporter.shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    message = r"has 0\.0 GB free, the bundle takes 0\.1 GB; free some space"
    with pytest.raises(ResourceError, match=message):
        export_bundle(variant_checkpoint("release"), tmp_path / "bundle")
    assert left_over(tmp_path) == []


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(
    variant_checkpoint, tmp_path, monkeypatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporter, "write_token_embedding", full)
    with pytest.raises(ResourceError, match=r"is full .*; nothing was kept, free some space"):
        export_bundle(variant_checkpoint("release"), tmp_path / "bundle")
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(("option", "value"), [("dtype", "bf16"), ("opset", 17)])
def test_bad_options_are_refused_before_the_checkpoint_is_read(tmp_path, option, value):
    with pytest.raises(ExportError, match=str(value)):
        export_bundle(tmp_path / "nowhere", tmp_path / "bundle", **{option: value})


@pytest.mark.slow
def test_export_runs_no_pytorch_module(variant_checkpoint, tmp_path):
    """PyTorch judges the graphs, so it must not have made them: forward is never called."""
    script = """
import sys, torch
from hicom_edge.export.exporter import export_bundle
def forbidden(*_, **__): raise RuntimeError("a module was called")
torch.nn.Module.__call__ = forbidden
export_bundle(sys.argv[1], sys.argv[2])
"""
    arguments = [str(variant_checkpoint("release")), str(tmp_path / "bundle")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
    assert (tmp_path / "bundle/manifest.json").is_file()


def test_tensors_are_read_one_at_a_time(variant_checkpoint, tmp_path, monkeypatch):
    """No tensor is read before the one before it was written, and none is kept."""
    import weakref

    from hicom_edge.model.stored_tensors import StoredTensor

    alive: list[weakref.ref] = []
    load, most = StoredTensor.load, 0

    def watched(self: StoredTensor) -> torch.Tensor:
        nonlocal most
        tensor = load(self)
        alive.append(weakref.ref(tensor))
        most = max(most, sum(ref() is not None for ref in alive))
        return tensor

    monkeypatch.setattr(StoredTensor, "load", watched)
    export_bundle(variant_checkpoint("release"), tmp_path / "bundle")
    assert len(alive) > 100
    assert most <= 2  # the one being read while its predecessor is let go
