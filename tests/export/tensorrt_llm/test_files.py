"""The rank files: nothing lost, nothing left over, written in little memory, checked as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorrt_llm_models import MODELS, checkpoint_of, config_of, random_model

from hicom_edge.bundle.manifest import LanguageModelEntry
from hicom_edge.errors import BundleError, ExportError
from hicom_edge.export.export_options import TensorRTLLMOptions
from hicom_edge.export.tensorrt_llm.convert import convert_language_model
from hicom_edge.export.tensorrt_llm.safetensors_writer import SafetensorsWriter
from hicom_edge.planning.llm.checkpoint import check_checkpoint
from hicom_edge.planning.llm.layout import Layout

BY_COLUMNS = ("attention.dense.weight", "mlp.proj.weight")


@pytest.fixture(scope="module", params=MODELS)
def checkpoint(request, tmp_path_factory):
    kind, sizes = MODELS[request.param]
    model = random_model(kind, **sizes)
    return checkpoint_of(model, kind, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def llm(tmp_path):
    """A written checkpoint of 2 x 2 ranks that a test may damage."""
    made = checkpoint_of(random_model("hicom_qwen2"), "hicom_qwen2", tmp_path / "model")
    convert_language_model(made, tmp_path / "llm", TensorRTLLMOptions("1.x", "fp16", 2, 2))
    return tmp_path / "llm"


@pytest.mark.parametrize(("tp_size", "pp_size"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_the_ranks_together_are_the_checkpoint_bit_for_bit(checkpoint, tmp_path, tp_size, pp_size):
    options = TensorRTLLMOptions("1.x", "fp32", tp_size, pp_size)
    convert_language_model(checkpoint, tmp_path / "llm", options)
    ranks = [load_file(tmp_path / f"llm/rank{r}.safetensors") for r in range(tp_size * pp_size)]
    stored = {name: tensor.load() for name, tensor in checkpoint.part("llm").items()}
    stored.setdefault("lm_head.weight", stored["model.embed_tokens.weight"])
    rebuilt = reassembled(ranks, tp_size, plan_head_dim(checkpoint))
    assert rebuilt.keys() == stored.keys()
    for name, tensor in stored.items():
        assert torch.equal(rebuilt[name], tensor), name


def plan_head_dim(checkpoint) -> int:
    config = checkpoint.hicom.llm().to_dict()
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def reassembled(ranks, tp_size, head_dim):
    """Hugging Face's tensors out of all ranks, by the documented rules and nothing else."""
    out, layer = {}, 0
    for start in range(0, len(ranks), tp_size):
        stage = ranks[start : start + tp_size]
        indices = {int(n.split(".")[2]) for n in stage[0] if n.startswith("transformer.layers.")}
        assert indices == set(range(len(indices)))
        for index in sorted(indices):
            prefix = f"transformer.layers.{index}."
            inside = [
                {n.removeprefix(prefix): t for n, t in rank.items() if n.startswith(prefix)}
                for rank in stage
            ]
            out |= {f"model.layers.{layer}.{n}": t for n, t in layer_of(inside, head_dim).items()}
            layer += 1
    vocabulary = torch.cat([rank["lm_head.weight"] for rank in ranks[-tp_size:]])
    assert len(vocabulary) % tp_size == 0
    assert not vocabulary[51:].any()
    for rank in ranks[:tp_size]:
        assert torch.equal(
            rank["transformer.vocab_embedding.weight"],
            ranks[0]["transformer.vocab_embedding.weight"],
        )
    return out | {
        "model.embed_tokens.weight": ranks[0]["transformer.vocab_embedding.weight"],
        "model.norm.weight": ranks[-1]["transformer.ln_f.weight"],
        "lm_head.weight": vocabulary[:51],
    }


def layer_of(ranks, head_dim):
    """One layer's tensors; attention of 4 query and 2 key heads."""
    names = {
        "input_layernorm": "input_layernorm",
        "post_layernorm": "post_attention_layernorm",
        "attention.dense": "self_attn.o_proj",
        "mlp.fc": "mlp.gate_proj",
        "mlp.gate": "mlp.up_proj",
        "mlp.proj": "mlp.down_proj",
    }
    out = {}
    for written, stored in names.items():
        for kind in ("weight", "bias"):
            parts = [r[f"{written}.{kind}"] for r in ranks if f"{written}.{kind}" in r]
            if not parts:
                continue
            whole = written.endswith("norm") or (
                kind == "bias" and written.endswith(("dense", "proj"))
            )
            dim = 1 if f"{written}.{kind}" in BY_COLUMNS else 0
            out[f"{stored}.{kind}"] = parts[0] if whole else torch.cat(parts, dim)
    heads, kv_heads = 4 // len(ranks), 2 // len(ranks)
    for kind in ("weight", "bias"):
        if f"attention.qkv.{kind}" in ranks[0]:
            sizes = [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim]
            split = [rank[f"attention.qkv.{kind}"].split(sizes) for rank in ranks]
            for name, parts in zip("qkv", zip(*split, strict=True), strict=True):
                out[f"self_attn.{name}_proj.{kind}"] = torch.cat(parts)
    return out


def test_the_report_says_what_was_written_and_what_was_left_behind(checkpoint, tmp_path):
    options = TensorRTLLMOptions("0.12", "bf16", 2)
    report = convert_language_model(checkpoint, tmp_path / "llm", options)
    assert report.entry == LanguageModelEntry(
        "tensorrt-llm", "0.12", "llm", "bf16", None, tp_size=2, pp_size=1
    )
    assert report.left_out == {"compressor": ("readout.weight",)}
    files = [load_file(tmp_path / f"llm/rank{r}.safetensors") for r in range(2)]
    assert report.tensors == sum(map(len, files))
    assert report.nbytes == sum(t.nbytes for file in files for t in file.values())
    assert not any("readout" in name for file in files for name in file)


def test_progress_adds_up_to_all_bytes(checkpoint, tmp_path):
    seen = []
    report = convert_language_model(
        checkpoint, tmp_path / "llm", TensorRTLLMOptions(tp_size=2), lambda *x: seen.append(x)
    )
    assert sum(nbytes for _, nbytes in seen) == report.nbytes
    assert "transformer.layers.0.attention.qkv.weight" in [name for name, _ in seen]


@pytest.mark.parametrize("missing", ["rank0.safetensors", "rank3.safetensors"])
def test_a_missing_rank_file_is_found(llm, missing):
    check_checkpoint(llm)
    (llm / missing).unlink()
    with pytest.raises(BundleError, match=rf"lacks the rank files \['{missing}'\].*dummy weights"):
        check_checkpoint(llm)


def test_a_rank_file_too_many_is_found(llm):
    (llm / "rank4.safetensors").write_bytes((llm / "rank3.safetensors").read_bytes())
    with pytest.raises(BundleError, match=r"has \['rank4\.safetensors'\] beyond its configuration"):
        check_checkpoint(llm)


def change_tensors(change):
    def damage(llm: Path) -> None:
        tensors = load_file(llm / "rank1.safetensors")
        change(tensors)
        save_file(tensors, llm / "rank1.safetensors")

    return damage


def change_config(change):
    def damage(llm: Path) -> None:
        config = json.loads((llm / "config.json").read_text())
        change(config)
        (llm / "config.json").write_text(json.dumps(config))

    return damage


def cut_short(llm: Path) -> None:
    data = (llm / "rank1.safetensors").read_bytes()
    (llm / "rank1.safetensors").write_bytes(data[:-2])


NORM = "transformer.layers.0.input_layernorm.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_tensors(lambda t: t.pop(NORM)), r"missing \(1\): transformer\.layers\.0\.input"),
        (change_tensors(lambda t: t.update(x=torch.ones(1))), r"unknown \(1\): x"),
        (
            change_tensors(lambda t: t.update({NORM: t[NORM].float()})),
            r"of another kind \(1\): .* is F32 \(32,\), expected F16 \(32,\)",
        ),
        (
            change_tensors(lambda t: t.update({NORM: t[NORM][:16].clone()})),
            r"is F16 \(16,\), expected F16 \(32,\)",
        ),
        (cut_short, r"rank1\.safetensors has \d+ bytes, its header says \d+"),
        (lambda d: (d / "rank1.safetensors").write_bytes(b""), "is not a safetensors file"),
        (lambda d: (d / "config.json").unlink(), "cannot be read as a TensorRT-LLM configuration"),
        (lambda d: (d / "config.json").write_text("[]"), "has no dtype out of float32, float16"),
        (change_config(lambda c: c.pop("head_size")), r"does not describe .*KeyError: 'head_size'"),
        (change_config(lambda c: c.update(attn_bias=False)), r"unknown \(2\): .*qkv\.bias"),
        (
            change_config(lambda c: c.update(hidden_size=64)),
            r"of another kind \(15\): transformer\.vocab_embedding\.weight is F16 .*, …; run",
        ),
        (change_config(lambda c: c["mapping"].update(pp_size=1)), "beyond its configuration"),
    ],
)
def test_damage_is_found_before_a_build(llm, damage, message):
    damage(llm)
    with pytest.raises(BundleError, match=message) as caught:
        check_checkpoint(llm)
    assert "\n" not in str(caught.value)


def test_an_existing_directory_is_not_written_into(checkpoint, tmp_path):
    (tmp_path / "llm").mkdir()
    with pytest.raises(ExportError, match="exists; pass a new directory"):
        convert_language_model(checkpoint, tmp_path / "llm", TensorRTLLMOptions())


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (1e5, "fp16", r"holds 100000, .*float16's largest value 65504; export with dtype bf16"),
        (float("nan"), "bf16", "holds NaN or infinity"),
    ],
)
def test_a_value_that_does_not_fit_leaves_nothing_behind(tmp_path, value, dtype, message):
    model = random_model("hicom_qwen2")
    model.model.layers[2].mlp.up_proj.weight[3, 3] = value
    made = checkpoint_of(model, "hicom_qwen2", tmp_path / "model")
    message = rf"model\.layers\.2\.mlp\.up_proj\.weight {message}"
    with pytest.raises(ExportError, match=message):
        convert_language_model(made, tmp_path / "out/llm", TensorRTLLMOptions(dtype=dtype))
    assert list((tmp_path / "out").iterdir()) == []


def test_the_writer_makes_files_that_the_library_reads(tmp_path):
    """Tensors that take turns, of odd sizes: every value lands where the header says."""
    tensors = {
        "bytes": torch.arange(-3, 4, dtype=torch.int8).reshape(7, 1),
        "half": torch.arange(15).reshape(5, 3).to(torch.bfloat16),
        "single": torch.rand(3, 2),
        "empty": torch.zeros(0, 4),
    }
    names = {torch.int8: "I8", torch.bfloat16: "BF16", torch.float32: "F32"}
    layouts = {n: Layout(names[t.dtype], tuple(t.shape)) for n, t in tensors.items()}
    with SafetensorsWriter(tmp_path / "file", layouts, lambda *_: None) as writer:
        for row in range(7):
            for name, tensor in tensors.items():
                writer.append(name, tensor[row : row + 1])
    read = load_file(tmp_path / "file")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


_MEMORY = """
import gc, json, sys, torch
from pathlib import Path
from tensorrt_llm_models import opened
from hicom_edge.export.tensorrt_llm import stage
from hicom_edge.export.tensorrt_llm.convert import convert_language_model
from hicom_edge.export.export_options import TensorRTLLMOptions
from hicom_edge.model.stored_tensors import StoredTensor

def peak_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(l for l in lines if l.startswith("VmHWM")).split()[1]) / 1024

directory, keep = Path(sys.argv[1]), sys.argv[2] == "keep"
torch.set_num_threads(1)
checkpoint = opened(directory, json.loads((directory / "config.json").read_text()))
kept, load = [], StoredTensor.load
if keep:
    StoredTensor.load = lambda self: kept.append(load(self)) or kept[-1]
gc.collect()
Path("/proc/self/clear_refs").write_text("5")
before = peak_mb()
convert_language_model(checkpoint, directory / f"llm-{sys.argv[2]}", TensorRTLLMOptions(tp_size=2))
print(peak_mb() - before)
"""


@pytest.fixture(scope="module")
def large_model(tmp_path_factory):
    """96 MB of zeros in float16, the largest tensor 4 MB."""
    directory = tmp_path_factory.mktemp("large")
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 11}
    config = config_of("hicom_qwen2", **sizes, vocab_size=4096).to_dict()
    config["model_type"] = "hicom_qwen2"
    shapes = {"model.embed_tokens.weight": (4096, 512), "lm_head.weight": (4096, 512)}
    shapes["model.norm.weight"] = (512,)
    for i in range(11):
        layer = f"model.layers.{i}"
        for name, rows in (("q", 512), ("k", 256), ("v", 256)):
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = (rows, 512)
            shapes[f"{layer}.self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (512, 512)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (2048, 512)
        shapes[f"{layer}.mlp.up_proj.weight"] = (2048, 512)
        shapes[f"{layer}.mlp.down_proj.weight"] = (512, 2048)
        shapes[f"{layer}.input_layernorm.weight"] = (512,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (512,)
    state = {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
    save_file(state, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize("way", ["stream", "keep"])
def test_memory_stays_near_one_tensor(large_model, way):
    """And the measurement sees it when tensors are kept: both runs, one limit."""
    tests = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(large_model), way],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": tests, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    used_mb, limit_mb = float(done.stdout), 40
    assert (used_mb < limit_mb) == (way == "stream"), used_mb
