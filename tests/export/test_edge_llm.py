"""The checkpoint for TensorRT-Edge-LLM's exporter: transformers reads the same model from it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tensorrt_llm_models import MODELS, checkpoint_of, logits_of, random_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from hicom_edge.bundle import Bundle
from hicom_edge.cli import main
from hicom_edge.engines import load_text_generator
from hicom_edge.errors import EngineError
from hicom_edge.export.edge_llm import write_edge_llm_checkpoint
from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.model.loading import load_checkpoint

INPUT_IDS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 50, 0, 35, 8])
ARGUMENTS = ["--llm", "tensorrt-edge-llm", "--dtype", "fp16"]


@pytest.fixture(scope="module")
def exported(variant_checkpoint, tmp_path_factory) -> tuple[Path, Path]:
    source = variant_checkpoint("release")
    target = tmp_path_factory.mktemp("edge") / "bundle"
    assert main(["export", str(source), "-o", str(target), *ARGUMENTS]) == 0
    return source, target


@pytest.mark.parametrize("name", MODELS)
def test_transformers_reads_the_same_model(tmp_path, name):
    """Without conversion and with no tensor left over: the names are the checkpoint's own."""
    kind, sizes = MODELS[name]
    model = random_model(kind, torch.float16, **sizes)
    checkpoint = checkpoint_of(model, kind, tmp_path / "model")
    report = write_edge_llm_checkpoint(checkpoint, tmp_path / "llm", lambda *_: None)
    assert report.left_out == {"compressor": ("readout.weight",)}
    read, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "llm",
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    assert not any(info.values()), info
    expected = logits_of(model, INPUT_IDS)
    with torch.no_grad():
        assert torch.equal(logits_of(read, INPUT_IDS), expected)


def test_the_bundle_keeps_the_graphs_before_it_and_says_whose_the_rest_is(exported):
    source, target = exported
    bundle = Bundle.open(target)
    entry = bundle.manifest.language_model
    assert (entry.runtime, entry.version, entry.dtype) == ("tensorrt-edge-llm", "0.11", "fp16")
    assert {"vision", "guide", "compressor"} <= bundle.manifest.graphs.keys()
    assert "decoder" not in bundle.manifest.graphs
    config = json.loads((target / "llm" / "config.json").read_text())
    assert (config["architectures"], config["dtype"]) == (["Qwen2ForCausalLM"], "float16")
    text = "What moves in this video?"
    own = AutoTokenizer.from_pretrained(Checkpoint.open(str(source)).text_directory)
    assert AutoTokenizer.from_pretrained(target / "llm")(text) == own(text)
    with pytest.raises(EngineError, match=r"for 'tensorrt-edge-llm'; this hicom-edge runs"):
        load_text_generator(bundle)


def test_a_whole_checkpoints_language_model_is_read_as_a_plain_one(exported):
    source, target = exported
    plain = AutoModelForCausalLM.from_pretrained(target / "llm", dtype=torch.float32).eval()
    assert type(plain).__name__ == "Qwen2ForCausalLM"
    input_ids = torch.arange(7, 27)[None]
    with torch.inference_mode():
        expected = load_checkpoint(source).llm(input_ids=input_ids).logits
        logits = plain(input_ids=input_ids).logits
    assert (logits - expected).abs().max() < 5e-3 * expected.abs().max()  # stored in float16


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--dtype", "bf16"], "--dtype is 'bf16'; pass one of fp16"),
        (["--tp-size", "2"], "tp_size: no option of the language model 'tensorrt-edge-llm'"),
        (
            ["--decoder-form", "scatter"],
            "form: no option of the language model 'tensorrt-edge-ll",
        ),
        (["--scales", "x"], "scales: no option of the language model 'tensorrt-edge-llm'"),
    ],
)
def test_options_that_it_has_not_are_refused(exported, tmp_path, capsys, given, message):
    arguments = ["export", str(exported[0]), "-o", str(tmp_path / "out"), *ARGUMENTS, *given]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    not (find_spec("tensorrt_edgellm") and find_spec("onnxscript")),
    reason="NVIDIA's exporter (tensorrt-edgellm, onnxscript) is not installed",
)
def test_nvidias_exporter_makes_its_graph_from_it(exported, tmp_path):
    import onnx

    command = ["tensorrt_edgellm.scripts.export", str(exported[1] / "llm"), str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    graph = onnx.load(tmp_path / "out/llm/model.onnx", load_external_data=False).graph
    embeds, model = graph.input[0], Bundle.open(exported[1]).manifest.model
    assert embeds.name == "inputs_embeds"
    assert embeds.type.tensor_type.shape.dim[1].dim_value == model.llm_dim
    attention = [node for node in graph.node if node.op_type == "AttentionPlugin"]
    assert len(attention) == model.num_layers
