"""Reads the authors' configuration files: language model, towers and compressor.

Sizes come from these files and from tensor shapes, never from the name of a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from transformers import CLIPConfig, LlamaConfig, PretrainedConfig, Qwen2Config, SiglipConfig
from transformers.utils import logging

from hicom_edge.errors import CheckpointError
from hicom_edge.model.injection import NO_INJECTION
from hicom_edge.model.projector_type import ProjectorSpec, parse_projector_type
from hicom_edge.model.token_layout import TokenLayout

T = TypeVar("T")

LLM_CONFIGS: dict[str, type[PretrainedConfig]] = {
    "hicom_qwen2": Qwen2Config,
    "hicom_llama": LlamaConfig,
}
TOWER_CONFIGS: dict[str, type[PretrainedConfig]] = {"siglip": SiglipConfig, "clip": CLIPConfig}
# Types of HICom's own keys in config.json; null counts as absent.
_TYPES: dict[str, type] = {
    "_name_or_path": str,
    "image_aspect_ratio": str,
    "mm_newline_position": str,
    "mm_patch_merge_type": str,
    "mm_projector_type": str,
    "mm_vision_select_feature": str,
    "mm_vision_select_layer": int,
    "mm_vision_tower": str,
    "num_frames": int,
    "use_clip_scale": str,
    "use_guide": str,
}


def check_types(values: dict[str, Any]) -> None:
    """Check the types of HICom's own keys.

    Raises:
        CheckpointError: one has not.
    """
    for key, kind in _TYPES.items():
        value = values.get(key)
        if value is not None and type(value) is not kind:
            raise CheckpointError(
                f"config.json has {key} {value!r}, expected {'a number' if kind is int else 'text'}"
            )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' warnings about default token ids that SigLIP's text tower ignores."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@dataclass(frozen=True)
class TowerSizes:
    """Sizes of the vision tower and of the joint text-image space."""

    image_size: int
    patch_size: int
    vision_dim: int
    joint_dim: int
    guide_length: int

    @property
    def grid(self) -> tuple[int, int]:
        """Patches per frame: (h, w)."""
        side = self.image_size // self.patch_size
        return side, side


@dataclass(frozen=True)
class HicomConfig:
    """A checkpoint's config.json together with its tower's."""

    values: dict[str, Any]
    tower_values: dict[str, Any]

    def llm(self) -> PretrainedConfig:
        """The language model's configuration.

        Raises:
            CheckpointError: a model type other than hicom_qwen2 and hicom_llama, or values that
                transformers does not take.
        """
        kind = self.values.get("model_type")
        if kind not in LLM_CONFIGS:
            raise CheckpointError(
                f"config.json has model_type {kind!r}, expected one of {sorted(LLM_CONFIGS)}"
            )
        own = {k: v for k, v in self.values.items() if k not in ("model_type", "torch_dtype")}
        with _config_errors("config.json", "a language model"):
            return LLM_CONFIGS[kind].from_dict(own)

    def tower(self) -> PretrainedConfig:
        """The tower's configuration, completed with its family's defaults.

        Raises:
            CheckpointError: a tower other than SigLIP and CLIP, or values that transformers does
                not take.
        """
        kind = self.tower_values.get("model_type")
        if kind not in TOWER_CONFIGS:
            raise CheckpointError(
                f"the tower's config.json has model_type {kind!r}, "
                f"expected one of {sorted(TOWER_CONFIGS)}"
            )
        with quiet_transformers(), _config_errors("the tower's config.json", "a tower"):
            return TOWER_CONFIGS[kind].from_dict(self.tower_values)

    @property
    def sizes(self) -> TowerSizes:
        """Tower sizes, read from the tower's configuration."""
        tower = self.tower()
        vision, text = tower.vision_config, tower.text_config
        joint = vision.hidden_size if tower.model_type == "siglip" else tower.projection_dim
        return TowerSizes(
            vision.image_size,
            vision.patch_size,
            vision.hidden_size,
            joint,
            text.max_position_embeddings,
        )

    @property
    def use_guide(self) -> str | None:
        """Output of the text tower: pooled for "direct" and "coarse", every token for "fine"."""
        value: str | None = self.values.get("use_guide")
        return value

    @property
    def uses_guide(self) -> bool:
        """Whether compression depends on the question."""
        return self.use_guide not in NO_INJECTION and self.projector.baseline is None

    @property
    def projector(self) -> ProjectorSpec:
        """The compressor's structure."""
        return parse_projector_type(self.projector_type, self.use_guide)

    @property
    def projector_type(self) -> str:
        """The compressor's structure as the authors' string."""
        return self._value("mm_projector_type", "linear")

    @property
    def layout(self) -> TokenLayout:
        """The token layout, with the defaults of the authors' code."""
        return TokenLayout(
            self._value("mm_patch_merge_type", "flat"),
            self._value("mm_newline_position", "one_token"),
        )

    @property
    def select_layer(self) -> int:
        """Index of the hidden state that becomes the feature map."""
        return self._value("mm_vision_select_layer", -2)

    @property
    def has_newline(self) -> bool:
        """Whether the model has a learned newline token."""
        return "anyres" in (self.values.get("image_aspect_ratio") or "")

    def _value(self, key: str, default: T) -> T:
        """The value in config.json, or the default of the authors' code."""
        value: T | None = self.values.get(key)
        return default if value is None else value

    def check(self) -> None:
        """Refuse combinations that the model cannot compute, before anything is loaded.

        Raises:
            CheckpointError: such a combination.
        """
        check_types(self.values)
        feature = self._value("mm_vision_select_feature", "patch")
        if feature != "patch":
            raise CheckpointError(f"mm_vision_select_feature is {feature!r}, expected 'patch'")
        self._check_injections()
        self._check_widths()

    def _check_injections(self) -> None:
        spec = self.projector
        kinds = {part.injection for part in (spec.local, spec.global_) if part is not None}
        kinds -= set(NO_INJECTION)
        given = {"fine": {"fine"}, "direct": {"direct", "coarse"}, "coarse": {"direct", "coarse"}}
        possible = given.get(self.use_guide or "off", set())
        if not kinds <= possible:
            raise CheckpointError(
                f"mm_projector_type {self.projector_type!r} asks for injection "
                f"{sorted(map(str, kinds - possible))}, but use_guide {self.use_guide!r} provides "
                f"{sorted(possible) or 'no guide'}; correct one of them in config.json"
            )

    def _check_widths(self) -> None:
        """Refuse local queries made of features that do not fit keys made of embeddings."""
        local, sizes = self.projector.local, self.sizes
        if local is None or not self.uses_guide or local.injection == "direct":
            return
        if sizes.vision_dim != sizes.joint_dim:
            raise CheckpointError(
                f"mm_projector_type {self.projector_type!r} with use_guide {self.use_guide!r} "
                f"compares features of {sizes.vision_dim} channels with embeddings of "
                f"{sizes.joint_dim}; this tower can do local compression under direct injection "
                "(local43_guidedirect) or without a guide alone"
            )


@contextmanager
def _config_errors(where: str, what: str) -> Iterator[None]:
    """Turn the many kinds of errors that transformers raises on bad values into one."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{where} does not describe {what} ({reason})") from error
