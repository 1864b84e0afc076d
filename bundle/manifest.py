"""Schema of a bundle's `manifest.json`, specified in `docs/bundle_format.md`.

Unknown, missing and mistyped keys are errors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hicom_edge.errors import BundleError

FORMAT = "hicom-edge-bundle"
FORMAT_VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph; a dimension is a size or the name of a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphEntry:
    """One ONNX graph of the bundle.

    quantization: how its weights are stored, such as "int8" or "int4-block32"; None in a
        floating-point graph.
    variants: files with the same graph in a form that one engine runs faster, by engine name; same
        inputs, outputs and weights.
    """

    file: str
    precision: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    quantization: str | None = None
    variants: dict[str, str] = field(default_factory=dict)

    def file_for(self, engine: str) -> str:
        """The file to run in an engine, by the engine's name."""
        return self.variants.get(engine, self.file)


@dataclass(frozen=True)
class FileEntry:
    """Size and hash of a file of the bundle."""

    size: int
    sha256: str


@dataclass(frozen=True)
class ModelSpec:
    """Sizes of the model (Dv, Dt, Dl, kt, ks and G in the HICom paper) and its language model."""

    kind: str
    projector_type: str
    local_injection: str | None
    global_injection: str | None
    vision_dim: int
    joint_dim: int
    llm_dim: int
    image_size: int
    patch_size: int
    grid: tuple[int, int]
    temporal_kernel: int
    spatial_kernel: tuple[int, int]
    global_tokens: int
    vocab_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    max_context: int

    def visual_tokens(self, num_frames: int) -> int:
        """Number of visual tokens of a video of t frames (arXiv 2503.16036).

        It is ceil(t/kt) · ceil(h/kh) · ceil(w/kw) + G.
        """
        kernel = (self.temporal_kernel, *self.spatial_kernel)
        if 0 in kernel:  # the model has no local compression
            return self.global_tokens
        sizes = zip((num_frames, *self.grid), kernel, strict=True)
        return math.prod(-(-size // k) for size, k in sizes) + self.global_tokens


@dataclass(frozen=True)
class FrameSpec:
    """How frames are chosen and turned into pixel values."""

    num_frames: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale_factor: float
    resample: str
    aspect: str


@dataclass(frozen=True)
class GuideSpec:
    """How the guide text becomes token ids: padded and truncated to `max_length`.

    family: the text tower that the tokenizer belongs to, "siglip" or "clip".
    """

    tokenizer: str
    family: str
    max_length: int
    pad_token_id: int


@dataclass(frozen=True)
class ChatSpec:
    """A chat template as text around the content of each role; `{content}` stands for it.

    start: text before the first message, such as a begin-of-text token.
    trim: strip white space around each content.
    """

    default_system: str | None
    system: str
    user: str
    assistant: str
    generation_prompt: str
    start: str = ""
    trim: bool = False


@dataclass(frozen=True)
class GenerationSpec:
    """The checkpoint's own generation settings."""

    stop_token_ids: tuple[int, ...]
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True)
class LanguageModelEntry:
    """A language model in the format of another runtime, instead of the `decoder` graph.

    runtime: "tensorrt-llm" or "tensorrt-edge-llm".
    version: the version of the runtime that the files are written for, such as "0.12".
    directory: folder of its files in the bundle.
    quantization: the runtime's own name, such as "W4A16_AWQ"; None: floating point.
    """

    runtime: str
    version: str
    directory: str
    dtype: str
    quantization: str | None
    tp_size: int
    pp_size: int


@dataclass(frozen=True)
class Provenance:
    """Origin of a bundle."""

    checkpoint: str
    checkpoint_sha256: str
    created_with: dict[str, str]
    notes: tuple[str, ...] = ()


# Graph that stores no weights → the graph whose weights it uses.
_SHARED_WEIGHTS = {"decoder_scatter": "decoder"}


@dataclass(frozen=True)
class Manifest:
    """The whole manifest of a bundle."""

    name: str
    model: ModelSpec
    frames: FrameSpec
    guide: GuideSpec | None
    chat: ChatSpec
    generation: GenerationSpec
    tokenizer: str
    token_embedding: str
    graphs: dict[str, GraphEntry]
    files: dict[str, FileEntry]
    provenance: Provenance
    extra: dict[str, str] = field(default_factory=dict)
    language_model: LanguageModelEntry | None = None

    def files_of(self, graph_name: str) -> tuple[str, ...]:
        """A graph's own file and the files of its weights, whose names start with the graph's.

        The scatter form of the decoder uses the weights of its concat form.
        """
        graph = self.graphs[graph_name].file
        weights = [f"{graph}."]
        if graph_name in _SHARED_WEIGHTS and _SHARED_WEIGHTS[graph_name] in self.graphs:
            weights.append(f"{self.graphs[_SHARED_WEIGHTS[graph_name]].file}.")
        return tuple(sorted(n for n in self.files if n == graph or n.startswith(tuple(weights))))

    def to_json(self) -> str:
        """The manifest as JSON text, with its format version and digest."""
        body = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **dataclasses.asdict(self),
        }
        return json.dumps({**body, "digest": _digest(body)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Read a manifest; `where` names it in messages.

        Raises:
            BundleError: not JSON, of another format or version, altered, or with a wrong key.
        """
        try:
            body = json.loads(text)
            _canonical(body).encode()  # raises for a lone surrogate, which UTF-8 cannot encode
        except (ValueError, RecursionError) as error:
            raise BundleError(
                f"{where} is not valid JSON ({error}); export or download the bundle again"
            ) from error
        _check_header(body, where)
        digest = body.pop("digest", None)
        if digest != _digest(body):
            raise BundleError(
                f"{where} was altered: its digest does not match its content; "
                "export or download the bundle again"
            )
        del body["format"], body["format_version"]
        return _decode(cls, body, where)


def _check_header(body: Any, where: str) -> None:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise BundleError(f"{where} is not a {FORMAT} manifest; pass the directory of a bundle")
    version = body.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{where} has format version {version}, this hicom-edge reads version "
            f"{FORMAT_VERSION}; export the bundle again with this version"
        )


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(body).encode()).hexdigest()


def _canonical(body: Any) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _decode(cls: type[T], data: Any, where: str) -> T:
    """Build the dataclass `cls` from parsed JSON, key by key, strictly."""
    if not isinstance(data, dict):
        raise BundleError(f"{where}: expected an object for {cls.__name__}, got {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    required = {n for n, f in fields.items() if _is_required(f)}
    missing = sorted(required - set(data))
    if unknown or missing:
        raise BundleError(
            f"{where}: {cls.__name__} has unknown keys {unknown} and lacks {missing}; "
            f"the keys are {sorted(fields)}"
        )
    return cls(**{k: _value(hints[k], v, f"{where}: {cls.__name__}.{k}") for k, v in data.items()})


def _is_required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _union(args, value, where)
    if origin is tuple:
        return _tuple(args, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise BundleError(f"{where}: expected an object, got {value!r}")
        return {k: _value(args[1], v, f"{where}[{k!r}]") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return _decode(typing.cast(type, hint), value, where)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise BundleError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value


def _union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    rest = [o for o in options if o is not type(None)]
    for option in rest:
        if dataclasses.is_dataclass(option) or type(value) is option:
            return _value(option, value, where)
    raise BundleError(f"{where}: expected one of {[o.__name__ for o in rest]}, got {value!r}")


def _tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise BundleError(f"{where}: expected a list, got {value!r}")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_value(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(args):
        raise BundleError(f"{where}: expected {len(args)} items, got {len(value)}")
    return tuple(_value(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value)))
