"""What stands in for TensorRT-LLM: checkpoints of zeros, `trtllm-build`, and the executor.

Nothing here is TensorRT-LLM. The executor takes the arguments that the public source names and no
others, looks prompts up as its embedding layer does, penalises repetition as its kernel does, and
lets a decoder of ours compute the logits.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from hicom_edge.bundle import Bundle
from hicom_edge.bundle.manifest import FileEntry, LanguageModelEntry
from hicom_edge.engines.base import DecoderEngine

SIGNATURES = json.loads(
    (Path(__file__).parent / "engines" / "tensorrt_llm" / "signatures.json").read_text()
)["versions"]
DTYPES = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)}


def arguments_of(version: str, what: str) -> set[str]:
    """The argument names that a version has, by the public source."""
    entries = SIGNATURES[version]
    keys = [key for key in entries if key.split()[0] == what]  # "build", "build plugins"
    return {name for key in keys for name in entries[key]["arguments"]}


def write_checkpoint(directory: Path, **changes: Any) -> dict[str, Any]:
    """A checkpoint of zeros: two layers of a Qwen2 with 7 tokens, for tp_size times pp_size."""
    sizes = {"tp_size": 1, "pp_size": 1, "dtype": "float16", "quant_algo": None, **changes}
    tp_size, pp_size = sizes.pop("tp_size"), sizes.pop("pp_size")
    quant_algo, dtype = sizes.pop("quant_algo"), sizes.pop("dtype")
    mapping = {"world_size": tp_size * pp_size, "tp_size": tp_size, "pp_size": pp_size}
    config = {
        "architecture": "Qwen2ForCausalLM",
        "dtype": dtype,
        "vocab_size": 7,
        "hidden_size": 4,
        "intermediate_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_size": 64,
        "attn_bias": False,
        "mlp_bias": False,
        "mapping": mapping,
        "quantization": {"quant_algo": quant_algo, "kv_cache_quant_algo": None},
        **sizes,
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    for rank in range(tp_size * pp_size):
        shapes = rank_shapes(config, rank // tp_size, tp_size, pp_size)
        write_safetensors(directory / f"rank{rank}.safetensors", shapes, dtype)
    return config


def rank_shapes(
    config: dict[str, Any], stage: int, tp_size: int, pp_size: int
) -> dict[str, tuple[int, ...]]:
    """Tensor name → shape of one rank."""
    dim, inner, vocab = (config[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
    heads = config["num_attention_heads"] + 2 * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {}
    if stage == 0:
        shapes["transformer.vocab_embedding.weight"] = (vocab, dim)
    for layer in range(config["num_hidden_layers"] // pp_size):
        layer_shapes = {
            "input_layernorm": (dim,),
            "attention.qkv": (heads * config["head_size"] // tp_size, dim),
            "attention.dense": (
                dim,
                config["num_attention_heads"] * config["head_size"] // tp_size,
            ),
            "post_layernorm": (dim,),
            "mlp.fc": (inner // tp_size, dim),
            "mlp.gate": (inner // tp_size, dim),
            "mlp.proj": (dim, inner // tp_size),
        }
        for name, shape in layer_shapes.items():
            shapes[f"transformer.layers.{layer}.{name}.weight"] = shape
    if stage == pp_size - 1:
        shapes["transformer.ln_f.weight"] = (dim,)
        shapes["lm_head.weight"] = (vocab // tp_size, dim)
    return shapes


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str) -> None:
    """A safetensors file of zeros (its specification: length, JSON header, data)."""
    code, item = DTYPES[dtype]
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + int(np.prod(shape)) * item
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


def with_language_model(
    bundle: Bundle, directory: Path, version: str = "0.12", **changes: Any
) -> Bundle:
    """A bundle in `directory` with the manifest of another and a checkpoint of zeros in llm/."""
    write_checkpoint(directory / "llm", **changes)
    files = {
        path.relative_to(directory).as_posix(): FileEntry(path.stat().st_size, "a" * 64)
        for path in sorted((directory / "llm").iterdir())
    }
    entry = LanguageModelEntry("tensorrt-llm", version, "llm", "fp16", None, 1, 1)
    manifest = replace(bundle.manifest, files=files, language_model=entry)
    return Bundle(directory, manifest)


BUILD_SCRIPT = """#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
runs = here / "runs.json"
known = json.loads(runs.read_text()) if runs.exists() else []
runs.write_text(json.dumps([*known, sys.argv[1:]]))
behaviour = json.loads((here / "behaviour.json").read_text())
model = json.loads((pathlib.Path(arguments["--checkpoint_dir"]) / "config.json").read_text())
output = pathlib.Path(arguments["--output_dir"])
output.mkdir()
print("building rank 0")
ranks = model["mapping"]["world_size"] - behaviour.get("ranks_missing", 0)
for rank in range(ranks):
    (output / f"rank{{rank}}.engine").write_bytes(b"engine" * (rank + 1))
pathlib.Path(arguments["--output_timing_cache"]).write_bytes(b"timings")
if behaviour.get("status"):
    print("[E] Engine building failed, please check error log.\\n")
    sys.exit(behaviour["status"])
limits = {{n: int(arguments["--" + n]) for n in
          ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens")}}
limits["max_prompt_embedding_table_size"] = int(arguments["--max_multimodal_len"])
limits.update(behaviour.get("limits", {{}}))
config = {{"version": behaviour.get("version", "0.12.0"), "build_config": limits,
          "pretrained_config": model}}
(output / "config.json").write_text(json.dumps(config))
"""


class BuildCommand:
    """A script in place of `trtllm-build` that records its arguments and writes small files."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "trtllm-build"
        self.path.write_text(BUILD_SCRIPT.format(python=sys.executable))
        self.path.chmod(0o755)
        self.behave()

    def behave(self, **behaviour: Any) -> None:
        """What the next runs do: status, version, limits, ranks_missing."""
        (self.path.parent / "behaviour.json").write_text(json.dumps(behaviour))

    @property
    def runs(self) -> list[list[str]]:
        """The arguments of every run."""
        runs = self.path.parent / "runs.json"
        return json.loads(runs.read_text()) if runs.exists() else []


class HostTensor:
    """torch's tensor, as far as a prompt table needs one."""

    def __init__(self, array: np.ndarray, on_device: bool = False) -> None:
        self.array, self.on_device = array, on_device

    def to(self, dtype: str) -> HostTensor:
        return HostTensor(self.array.astype(dtype))

    def cuda(self) -> HostTensor:
        return HostTensor(self.array, on_device=True)


TORCH = SimpleNamespace(from_numpy=HostTensor, float32="float32", float16="float16")


def bindings(version: str) -> SimpleNamespace:
    """The executor's module: every class takes the arguments of that version and no others."""

    def record(name: str) -> Any:
        known = set(SIGNATURES[version][name]["arguments"])

        def make(**given: Any) -> SimpleNamespace:
            unknown = set(given) - known
            assert not unknown, f"{name} of {version} has no {unknown}"
            return SimpleNamespace(**given)

        return make

    names = [name for name in SIGNATURES[version] if name[0].isupper() and "." not in name]
    return SimpleNamespace(
        **{name: record(name) for name in names},
        ModelType=SimpleNamespace(DECODER_ONLY="decoder-only"),
        CommunicationType=SimpleNamespace(MPI="mpi"),
        CommunicationMode=SimpleNamespace(LEADER="leader", ORCHESTRATOR="orchestrator"),
    )


class HostExecutor:
    """TensorRT-LLM's executor over a decoder of ours; answers come in pieces of two tokens."""

    def __init__(self, decoder: DecoderEngine, embedding: np.ndarray, returns_end: bool) -> None:
        self.decoder, self.embedding, self.returns_end = decoder, embedding, returns_end
        self.requests: dict[int, Any] = {}
        self.waiting: dict[int, list[Any]] = {}
        self.cancelled: list[int] = []
        self.is_shut_down = False

    def enqueue_request(self, request: Any) -> int:
        request_id = len(self.requests)
        self.requests[request_id] = request
        self.waiting[request_id] = responses_of(self._tokens(request))
        return request_id

    def await_responses(self, id: int) -> list[Any]:
        return [self.waiting[id].pop(0)]

    def cancel_request(self, id: int) -> None:
        self.cancelled.append(id)

    def shutdown(self) -> None:
        self.is_shut_down = True

    def _tokens(self, request: Any) -> list[int]:
        ids, table = request.input_token_ids, request.prompt_tuning_config.embedding_table.array
        vocab = len(self.embedding)
        rows = [table[i - vocab] if i >= vocab else self.embedding[i] for i in ids]
        sequence = self.decoder.start()
        logits = sequence.append(np.array(rows, self.decoder.dtype))
        most = getattr(request, "max_new_tokens", None) or request.max_tokens
        stops = [request.end_id, *(word[0] for word in request.stop_words or [])]
        counted, tokens = {i for i in ids if i < vocab}, []
        while len(tokens) < most:
            token = int(penalised(logits, counted, request.sampling_config).argmax())
            if token in stops:
                return [*tokens, token] if self.returns_end else tokens
            tokens.append(token)
            counted.add(token)
            logits = sequence.append(self.embedding[token : token + 1])
        return tokens


def penalised(logits: np.ndarray, counted: set[int], sampling: Any) -> np.ndarray:
    """What batchApplyPenalty does: prompt and answer count, ids beyond the vocabulary do not."""
    penalty, scores = getattr(sampling, "repetition_penalty", 1.0), logits.copy()
    old = scores[sorted(counted)]
    scores[sorted(counted)] = np.where(old < 0, old * penalty, old / penalty)
    return scores


def responses_of(tokens: list[int]) -> list[Any]:
    """Pieces of two tokens, the last one marked."""
    pieces = [tokens[i : i + 2] for i in range(0, len(tokens), 2)] or [[]]
    return [response(piece, is_final=piece is pieces[-1]) for piece in pieces]


def response(tokens: list[int], is_final: bool, error: str | None = None) -> Any:
    return SimpleNamespace(
        has_error=lambda: error is not None,
        error_msg=error,
        result=SimpleNamespace(is_final=is_final, output_token_ids=[tokens]),
    )


def install_tensorrt_llm(directory: Path, version: str) -> None:
    """Make a directory of Python's path say that this TensorRT-LLM is installed."""
    info = directory / "tensorrt_llm-0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: {version}\n"
    )
