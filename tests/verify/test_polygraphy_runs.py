"""The layers of a graph compared in Polygraphy, by the commands that verify writes."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.cli import main
from hicom_edge.engines.tensorrt.api import TENSORRT_RTX, load_api, why_not_installed
from hicom_edge.verify import polygraphy_hooks

pytest.importorskip("polygraphy", reason="needs Polygraphy (pip install '.[polygraphy]')")

NAMES = ["vision", "guide", "compressor", "decoder_prefill", "decoder_step"]
FORMS = [("fp32", 20), ("fp32", 23), ("fp16", 20), ("fp16", 23)]
# Attention in fp32 is the hardest: it is decomposed, and what is shown must not stand in its way
BUILDS = [(name, "fp32", 23) for name in NAMES] + [
    ("vision", "fp16", 23),
    ("compressor", "fp16", 20),
    ("decoder_step", "fp16", 20),
]
needs_rtx = pytest.mark.skipif(
    why_not_installed(TENSORRT_RTX) is not None,
    reason="needs TensorRT-RTX (pip install '.[tensorrt-rtx]')",
)


@pytest.fixture(scope="module")
def saved(variant_bundle, reference_checkpoint: Path, tmp_path_factory):
    """A function (dtype, opset) → (bundle, the directory that verify wrote)."""
    written: dict[tuple[str, int], tuple[Bundle, Path]] = {}

    def save(dtype: str, opset: int) -> tuple[Bundle, Path]:
        if (dtype, opset) not in written:
            bundle = variant_bundle("release", dtype=dtype, opset=opset)
            directory = tmp_path_factory.mktemp("seen with space") / "new"
            options = ["--checkpoint", str(reference_checkpoint), "--max-new-tokens", "1"]
            options += ["--num-frames", "3", "--question", "how many?"]
            assert (
                main(["verify", str(bundle.path), *options, "--save-inputs", str(directory)]) == 0
            )
            written[dtype, opset] = bundle, directory
        return written[dtype, opset]

    return save


def run(script: Path, *options: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script as a user runs it, in an environment with Polygraphy's command."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["sh", script, *map(str, options)],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path} | environment,
    )


def test_verify_writes_inputs_and_says_what_to_do_with_them(
    reference_bundle, reference_checkpoint, tmp_path, capsys
):
    options = ["--checkpoint", str(reference_checkpoint), "--max-new-tokens", "1"]
    target = tmp_path / "seen"
    assert main(["verify", str(reference_bundle.path), *options, "--save-inputs", str(target)]) == 0
    assert sorted(p.name for p in target.iterdir()) == sorted(
        f"{name}.{kind}" for name in NAMES for kind in ("json", "sh")
    )
    said = capsys.readouterr().err
    assert f"has the inputs of {', '.join(NAMES)}; to compare layers: sh " in said


def test_without_polygraphy_it_says_what_to_install(
    reference_bundle, reference_checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    options = ["--checkpoint", str(reference_checkpoint), "--save-inputs", str(tmp_path / "seen")]
    assert main(["verify", str(reference_bundle.path), *options]) == 2
    said = capsys.readouterr().err
    assert (
        "polygraphy is not installed, which this command needs; pip install '.[polygraphy]'" in said
    )
    assert not (tmp_path / "seen").exists()


def test_profiles_are_the_engines_up_to_what_the_inputs_need(saved):
    """A step is built for the typical past, and for the one row that it has."""
    _, directory = saved("fp32", 20)
    text = (directory / "decoder_step.sh").read_text()
    shapes = [line for line in text.splitlines() if "-shapes" in line]
    assert [line.split()[0] for line in shapes] == [
        f"--trt-{e}-shapes" for e in ("min", "opt", "max")
    ]
    assert "'past_key_values.0.key:[1,2,1,16]'" in shapes[0]
    assert all("'inputs_embeds:[1,1,64]'" in line for line in shapes)
    prefill = (directory / "decoder_prefill.sh").read_text().splitlines()
    past = [line for line in prefill if "-shapes" in line]
    assert ["past_key_values.0.key:[1,2,1,16]" in line for line in past] == [False, False, True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "opset"),
    [(name, *form) for name, form in zip(NAMES, [*FORMS, FORMS[0]], strict=True)],
)
def test_onnx_runtime_agrees_with_itself_unoptimised(saved, tmp_path, name, dtype, opset):
    """The graph's custom node, its external weights and an empty past are all within reach."""
    bundle, directory = saved(dtype, opset)
    golden = tmp_path / "golden.json"
    done = run(directory / f"{name}.sh", "--onnxrt", "--save-outputs", golden)
    assert done.returncode == 0, done.stdout + done.stderr
    plain = ("--graph-optimization-level", "ORT_DISABLE_ALL")
    done = run(directory / f"{name}.sh", "--onnxrt", *plain, "--load-outputs", golden)
    assert done.returncode == 0, done.stdout + done.stderr
    graph = bundle.file(bundle.graph(name.partition("_")[0]).file)
    assert f"{len(layer_names(graph))} tensors compared, 0 out of tolerance" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("opset", [20, 23])
def test_a_changed_weight_is_found_at_its_layer(saved, tmp_path, opset):
    bundle, directory = saved("fp32", opset)
    script, golden = directory / "compressor.sh", tmp_path / "golden.json"
    assert run(script, "--onnxrt", "--save-outputs", golden).returncode == 0
    damaged = tmp_path / "damaged.onnx"
    model = ir.load(bundle.file("compressor.onnx"))
    weight = model.graph.initializers["local_compressor.readout.2.weight"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * 1.01, name=weight.name)
    ir.save(model, damaged)
    done = run(script, "--onnxrt", "--load-outputs", golden, GRAPH=str(damaged))
    assert done.returncode == 1
    assert "the first is local_compressor.readout.2/MatMul" in done.stdout


@needs_rtx
@pytest.mark.slow
@pytest.mark.tensorrt
@pytest.mark.parametrize(("name", "dtype", "opset"), BUILDS)
def test_tensorrt_rtx_builds_an_engine_that_shows_its_layers(saved, tmp_path, name, dtype, opset):
    """Without a GPU the command ends after the engine is built, which is before it runs."""
    _, directory = saved(dtype, opset)
    # Polygraphy imports the bindings by a name that another package gives them
    (tmp_path / "tensorrt_rtx.py").write_text(
        "from tensorrt_rtx_bindings import *\nfrom tensorrt_rtx_bindings import __version__\n"
    )
    engine = tmp_path / "layers.engine"
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {"POLYGRAPHY_USE_TENSORRT_RTX": "1", "PYTHONPATH": paths}
    options = ("--trt", "--save-engine", engine, "--verbosity", "INFO")
    done = run(directory / f"{name}.sh", *options, **environment)
    assert engine.is_file(), done.stdout + done.stderr
    assert engine.stat().st_size > 10_000
    assert "Flags                  | [STRONGLY_TYPED]" in done.stdout  # and no TF32


@needs_rtx
@pytest.mark.tensorrt
@pytest.mark.parametrize(("dtype", "opset"), FORMS)
@pytest.mark.parametrize("graph", ["vision", "guide", "compressor", "decoder"])
def test_every_layer_of_the_graph_has_a_counterpart_in_tensorrt(
    variant_bundle, graph, dtype, opset
):
    api = load_api(TENSORRT_RTX)
    bundle = variant_bundle("release", dtype=dtype, opset=opset)
    path = bundle.file(bundle.graph(graph).file)
    logger = api.Logger(api.Logger.ERROR)
    builder = api.Builder(logger)
    network = builder.create_network(0)
    parser = api.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path))
    polygraphy_hooks.mark_layers(network)
    shown = {network.get_output(i).name for i in range(network.num_outputs)}
    assert layer_names(path) <= shown


def test_layers_are_compared_relative_to_their_scale(capsys):
    reference = {"a": np.array([0.0, 1000.0], np.float32), "b": np.array([1.0, 2.0], np.float32)}
    tested = {"b": np.array([1.0, 2.1], np.float32), "a": np.array([0.5, 1000.0], np.float32)}
    assert polygraphy_hooks.compare_fp32(tested, reference) == {"a": True, "b": False}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("b: OUT OF TOLERANCE, largest difference 0.1")
    assert lines[1] == "2 tensors compared, 1 out of tolerance; the first is b"
    assert polygraphy_hooks.compare_quantized(tested, reference) == {"a": True, "b": True}


def test_infinities_of_a_mask_agree_and_others_do_not():
    mask = {"mask": np.array([0, -np.inf], np.float16)}
    assert polygraphy_hooks.compare_fp16(mask, mask) == {"mask": True}
    for wrong in (np.nan, np.inf, 0):
        tested = {"mask": np.array([0, wrong], np.float16)}
        assert polygraphy_hooks.compare_fp16(tested, mask) == {"mask": False}


def test_nothing_in_common_is_no_agreement():
    one, empty = np.ones(1, np.float32), np.ones(0, np.float32)
    assert not all(polygraphy_hooks.compare_fp32({"a": one}, {"b": one}).values())
    assert not all(polygraphy_hooks.compare_fp32({"a": empty}, {"a": empty}).values())


def test_the_inputs_are_arrays_in_polygraphys_json(saved):
    """Read without Polygraphy: a list of one feed, of arrays as base64 of NumPy's format."""
    _, directory = saved("fp32", 20)
    (feed,) = json.loads((directory / "guide.json").read_text())
    ids = np.load(io.BytesIO(base64.b64decode(feed["guide_input_ids"]["array"])))
    assert ids.dtype == np.int64
    assert ids.ndim == 1


def layer_names(path: Path) -> set[str]:
    """The tensors that the nodes of an ONNX graph compute."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return {name for node in nodes if node.op_type != "Constant" for name in node.output if name}
