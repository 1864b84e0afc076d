"""The authors' checkpoint layout: files, and the tensors of each part of the model.

`Checkpoint.open` locates the language model, the tower and the compressor, and checks that no
tensor is missing, unknown or misshapen, without reading weights. The authors' tensor names appear
only in this module.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hicom_edge.errors import CheckpointError
from hicom_edge.model.config import HicomConfig, check_types, quiet_transformers
from hicom_edge.model.foreign_checkpoints import refuse_adapter, refuse_quantised
from hicom_edge.model.locations import find_checkpoint, find_related
from hicom_edge.model.projector_type import ProjectorSpec
from hicom_edge.model.stored_tensors import (
    FLOATS,
    PROJECTOR_FILE,
    StoredTensor,
    Tensors,
    projector_file_in,
    safetensors_in,
    shard_files,
)

PARTS = ("vision", "guide", "compressor", "llm")
_TOWER = "model.vision_tower."
# prefix in a checkpoint → (part, prefix inside the part); the first match counts
_CHECKPOINT_PREFIXES = {
    _TOWER + "vision_tower.vision_model.": ("vision", ""),
    _TOWER + "vision_tower.visual_projection.": ("vision", "visual_projection."),
    _TOWER + "guide_encoder.text_model.": ("guide", ""),
    _TOWER + "guide_encoder.text_projection.": ("guide", "text_projection."),
    "model.mm_projector.": ("compressor", ""),
    "model.image_newline": ("compressor", "image_newline"),
    "model.layers.": ("llm", "model.layers."),
    "model.embed_tokens.": ("llm", "model.embed_tokens."),
    "model.norm.": ("llm", "model.norm."),
    "lm_head.": ("llm", "lm_head."),
}
_TOWER_PREFIXES = {
    "vision_model.": ("vision", ""),
    "visual_projection.": ("vision", "visual_projection."),
    "text_model.": ("guide", ""),
    "text_projection.": ("guide", "text_projection."),
}
# buffers that older versions of the libraries saved, and scalars that HICom does not use
_DERIVED = ("position_ids", "rotary_emb.inv_freq", "logit_scale", "logit_bias")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint, whose tensors fit its configuration.

    `directory` holds config.json; `llm_directory` is the same, or the base language model of a
    stage-1 or stage-2 output; `tower_directory` holds the tower's configuration and tokenizer.
    """

    directory: Path
    llm_directory: Path
    tower_directory: Path
    hicom: HicomConfig
    generation_config: dict[str, Any]
    image_processor: dict[str, Any]
    parts: dict[str, dict[str, StoredTensor]]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        base_llm: str | os.PathLike[str] | None = None,
        vision_tower: str | os.PathLike[str] | None = None,
    ) -> Checkpoint:
        """Open a checkpoint: a local directory or the name of a repository on the hub.

        Args:
            path: a full checkpoint, or the output of stage 1 or 2 (compressor alone).
            base_llm: the language model under the latter; default: the one in config.json.
            vision_tower: default: the one in config.json (mm_vision_tower).

        Raises:
            CheckpointError: a file or tensor is missing, foreign, misshapen or unsafe to read.
        """
        directory = find_checkpoint(path)
        values = _configuration(directory)
        named = vision_tower or values.get("mm_vision_tower")
        tower_directory = _tower_directory(directory, named, weights=False)
        hicom = HicomConfig(values, _read_json(tower_directory / "config.json"))
        hicom.check()
        own = safetensors_in(directory)
        refuse_quantised(directory, own, values)
        files, llm_directory = list(shard_files(directory)), directory
        if not own:
            llm_directory = _base_directory(directory, values, base_llm)
            own = _stage_tensors(directory, llm_directory)
            files += [directory / PROJECTOR_FILE, *shard_files(llm_directory)]
        parts, foreign = _sorted_into_parts(own, _CHECKPOINT_PREFIXES)
        notes = []
        if lacking := _lacking_towers(parts, hicom):
            tower_directory = _tower_directory(directory, named, weights=True)
            notes.append(_add_towers(parts, tower_directory, lacking))
            files += shard_files(tower_directory)
        notes += _drop_unused(parts, hicom)
        _check_tensors(directory, parts, foreign, hicom)
        return cls(
            directory,
            llm_directory,
            tower_directory,
            hicom,
            _generation_config(directory) or _generation_config(llm_directory),
            _read_json(tower_directory / "preprocessor_config.json", optional=True),
            parts,
            tuple(files),
            (*notes, *injection_notes(hicom, parts["compressor"])),
        )

    @property
    def text_directory(self) -> Path:
        """Directory of the language model's tokenizer: the checkpoint's or the base model's."""
        own = any((self.directory / name).is_file() for name in ("tokenizer.json", "vocab.json"))
        return self.directory if own else self.llm_directory

    @property
    def config(self) -> dict[str, Any]:
        """The values of config.json."""
        return self.hicom.values

    @property
    def tower_config(self) -> dict[str, Any]:
        """The tower's config.json, completed with its family's defaults."""
        with quiet_transformers():
            config: dict[str, Any] = self.hicom.tower().to_dict()
        return config

    @property
    def spec(self) -> ProjectorSpec:
        """The compressor's structure."""
        return self.hicom.projector

    @property
    def uses_guide(self) -> bool:
        """Whether compression depends on the question."""
        return self.hicom.uses_guide

    def part(self, name: str) -> Tensors:
        """The tensors of "vision", "guide", "compressor" or "llm", by names without prefix."""
        return self.parts[name]

    def sha256(self) -> str:
        """One hash over config.json and all weight files."""
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for path in self.files:
            with path.open("rb") as file:
                while chunk := file.read(1 << 22):
                    digest.update(chunk)
        return digest.hexdigest()


def _configuration(directory: Path) -> dict[str, Any]:
    """The checked values of config.json."""
    refuse_adapter(directory)
    values = _read_json(directory / "config.json")
    check_types(values)
    return values


def injection_notes(hicom: HicomConfig, tensors: Iterable[str]) -> list[str]:
    """Notes on the injection that the weights contain, and on suffixes without effect."""
    spec, names = hicom.projector, list(tensors)
    if spec.baseline is not None:
        return [f"projector {hicom.projector_type}: no instruction is injected"]
    used = []
    for part, options in (("local", spec.local), ("global", spec.global_)):
        if options is not None:
            found = [k for k in ("coarse", "fine") if _has(names, part, f"{k}_proj.")]
            kind = found[0] if found else options.injection or "off"
            used.append(f"{part} {kind}")
    line = f"injection in use, read from the weights: {', '.join(used)}"
    if spec.ignored:
        line += f"; the suffix {spec.ignored} of mm_projector_type has no effect"
    if spec.identical_global_tokens and spec.global_ is not None:
        line += f"; all {spec.global_.num_queries} global tokens are equal"
    return [line]


def _has(names: list[str], part: str, piece: str) -> bool:
    return any(n.startswith(f"{part}_compressor.guide_injector.{piece}") for n in names)


def _base_directory(
    directory: Path, values: dict[str, Any], base_llm: str | os.PathLike[str] | None
) -> Path:
    """The base language model of a stage-1 or stage-2 output."""
    if (directory / PROJECTOR_FILE).is_file():
        named = base_llm or values.get("_name_or_path")
        return find_related(directory, named, "the base LLM", "--base-llm (base_llm=)")
    pickled = sorted(p.name for p in directory.glob("pytorch_model*.bin"))
    found = f"only {pickled}, which is never unpickled" if pickled else "no weights"
    raise CheckpointError(
        f"{directory} holds {found}; expected *.safetensors or {PROJECTOR_FILE}: "
        "save the model again with safe_serialization=True"
    )


def _stage_tensors(directory: Path, base: Path) -> dict[str, StoredTensor]:
    """The compressor of a stage-1 or stage-2 output on top of its base language model."""
    tensors = safetensors_in(base)
    if not tensors:
        raise CheckpointError(f"{base} has no *.safetensors; expected the base language model")
    llm = {n: t for n, t in tensors.items() if _match(n, _CHECKPOINT_PREFIXES)[0] == "llm"}
    stage = projector_file_in(directory)
    return {**llm, **{_without_wrappers(name): tensor for name, tensor in stage.items()}}


def _without_wrappers(name: str) -> str:
    """Tensor name without prefixes of training wrappers, as the authors' loader ignores them."""
    place = name.find("mm_projector.")
    return name if place < 0 else "model." + name[place:]


def _tower_directory(directory: Path, named: str | os.PathLike[str] | None, weights: bool) -> Path:
    option = "--vision-tower (vision_tower=)"
    return find_related(directory, named, "the vision tower", option, weights)


def _lacking_towers(parts: dict[str, dict[str, StoredTensor]], hicom: HicomConfig) -> list[str]:
    """Towers to load from the tower's directory: none if the checkpoint has a vision tower."""
    if parts["vision"]:
        return []
    return ["vision", "guide"] if hicom.uses_guide and not parts["guide"] else ["vision"]


def _add_towers(
    parts: dict[str, dict[str, StoredTensor]], directory: Path, lacking: list[str]
) -> str:
    """Add towers from their own directory to the parts; returns a note about it."""
    parts |= _tower_parts(directory, lacking)
    whose = "the vision tower's" if parts["guide"] and len(lacking) == 1 else "the tower's"
    return f"{whose} weights come from {directory.name}"


def _generation_config(directory: Path) -> dict[str, Any]:
    return _read_json(directory / "generation_config.json", optional=True)


def _tower_parts(directory: Path, lacking: list[str]) -> dict[str, dict[str, StoredTensor]]:
    tensors = safetensors_in(directory)
    if not tensors:
        raise CheckpointError(
            f"the checkpoint holds no vision tower, and {directory} has no *.safetensors; "
            "expected the tower's weights in one of the two: save them again with "
            "safe_serialization=True"
        )
    parts, _ = _sorted_into_parts(tensors, _TOWER_PREFIXES)
    return {part: parts[part] for part in lacking}


def _sorted_into_parts(
    tensors: Tensors, prefixes: dict[str, tuple[str, str]]
) -> tuple[dict[str, dict[str, StoredTensor]], list[str]]:
    parts: dict[str, dict[str, StoredTensor]] = {part: {} for part in PARTS}
    foreign = []
    for name, tensor in tensors.items():
        part, inner = _match(name, prefixes)
        if part in parts and not (inner.endswith(_DERIVED) and part != "compressor"):
            parts[part][inner] = tensor
        elif part not in parts and not name.endswith(_DERIVED):
            foreign.append(name)
    return parts, foreign


def _match(name: str, prefixes: dict[str, tuple[str, str]]) -> tuple[str, str]:
    for prefix, (part, inner) in prefixes.items():
        if name.startswith(prefix):
            return part, inner + name[len(prefix) :]
    return "", name


def _drop_unused(parts: dict[str, dict[str, StoredTensor]], hicom: HicomConfig) -> list[str]:
    """Drop tensors that this configuration does not use; returns notes about them."""
    notes = []
    if not hicom.uses_guide and parts["guide"]:
        parts["guide"] = {}
        notes.append("the guide encoder's tensors are not used: no instruction is injected")
    if not hicom.uses_guide:
        parts["vision"].pop("visual_projection.weight", None)
    if hicom.llm().tie_word_embeddings:
        parts["llm"].pop("lm_head.weight", None)
    return notes


def _check_tensors(
    directory: Path,
    parts: dict[str, dict[str, StoredTensor]],
    foreign: list[str],
    hicom: HicomConfig,
) -> None:
    from hicom_edge.model.parts import expected_shapes

    missing, extra, misshapen, not_float = [], list(foreign), [], []
    for part, expected in expected_shapes(hicom).items():
        found = parts[part]
        missing += [f"{part}: {n}" for n in expected if n not in found]
        extra += [f"{part}: {n}" for n in found if n not in expected]
        misshapen += [
            f"{part}: {n} is {found[n].shape}, expected {shape}"
            for n, shape in expected.items()
            if n in found and found[n].shape != shape
        ]
        not_float += [
            f"{part}: {n} is {found[n].dtype}"
            for n in expected
            if n in found and found[n].dtype not in FLOATS
        ]
    problems = {"missing": missing, "extra": extra, "misshapen": misshapen}
    problems["not floating-point"] = not_float
    listed = "; ".join(f"{kind} ({len(v)}): {', '.join(v)}" for kind, v in problems.items() if v)
    if listed:
        raise CheckpointError(
            f"the tensors of {directory} do not fit its config.json "
            f"(mm_projector_type {hicom.projector_type!r}, "
            f"use_guide {hicom.use_guide!r}): {listed}"
        )


def _read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if optional:
            return {}
        raise CheckpointError(
            f"{path} does not exist; expected a checkpoint in the authors' layout"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds {type(data).__name__}, expected an object")
    return data
