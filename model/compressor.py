"""The whole compressor: local tokens followed by global ones, or a baseline.

State-dict names are the checkpoint's, relative to `mm_projector`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hicom_edge.errors import InputError
from hicom_edge.model.baselines import build_baseline
from hicom_edge.model.global_compressor import GlobalCompressor
from hicom_edge.model.local_compressor import LocalCompressor
from hicom_edge.model.projector_type import ProjectorSpec, parse_projector_type
from hicom_edge.model.token_layout import TokenLayout, arrange_tokens

MODALITIES = ("video", "image", "text")

AnyResolution = Mapping[str, Tensor | None]


class Inputs(NamedTuple):
    """Inputs of one compression: a batch (b, t, h, w, d), and the layout of its tokens."""

    features: Tensor
    embeddings: Tensor | None
    guide: Tensor | None
    modality: str
    newline: Tensor | None
    anyres: bool = False


class Compressor(nn.Module, ABC):
    """Base of all compressors: (features, embeddings, guide) → visual tokens."""

    spec: ProjectorSpec
    layout: TokenLayout
    image_newline: Tensor | None

    def forward(
        self,
        features: Tensor | AnyResolution,
        embeddings: Tensor | AnyResolution | None = None,
        guide: Tensor | None = None,
        modality: str = "video",
        image_newline: Tensor | None = None,
    ) -> Tensor:
        """Compress one video, or a batch of equally long ones, for one or several questions each.

        Args:
            features: V, (t, h, w, dv) or (b, t, h, w, dv); for an image of any resolution
                {"base": (h, w, dv) or None, "patch": (h, w, dv)}.
            embeddings: E, (t, h, w, dt) likewise; None without a guide.
            guide: c, (dt) pooled, or (l, dt) for fine injection; None without a guide. For a batch
                (b·k, dt) or (b·k, l, dt): k questions about every video, side by side.
            modality: "video" or "image" (an image is never compressed over time).
            image_newline: (dl); by default the model's own, if its layout has newline tokens.

        Returns:
            Visual tokens (n, dl), or (b·k, n, dl) for a batch.

        Raises:
            InputError: ranks that do not fit, or an unknown modality.
        """
        if modality not in MODALITIES:
            raise InputError(f"modality is {modality!r}, expected one of {list(MODALITIES)}")
        newline = self.image_newline if image_newline is None else image_newline
        if isinstance(features, Mapping):
            grids = _grids(features, embeddings, guide, modality, newline)
            return self._compress_any_resolution(grids)[0]
        if features.ndim not in (4, 5) or isinstance(embeddings, Mapping):
            raise InputError(f"features are {tuple(features.shape)}, expected (t, h, w, d)")
        if features.ndim == 5:
            return self._compress(Inputs(features, embeddings, guide, modality, newline))
        batch = Inputs(features[None], _batched(embeddings), _batched(guide), modality, newline)
        return self._compress(batch)[0]

    @abstractmethod
    def _compress(self, inputs: Inputs) -> Tensor:
        """Compress a batch to (b, n, dl)."""

    def _compress_any_resolution(self, grids: list[Inputs]) -> Tensor:
        raise InputError("a baseline takes no image of any resolution; pass features (t, h, w, d)")


class HicomCompressor(Compressor):
    """Local and global compression, guided by the question."""

    def __init__(
        self,
        spec: ProjectorSpec,
        vision_dim: int,
        joint_dim: int,
        llm_dim: int,
        clip_scaled: frozenset[str],
        layout: TokenLayout,
    ) -> None:
        super().__init__()
        self.spec, self.layout = spec, layout
        self.local_compressor = (
            LocalCompressor(spec.local, vision_dim, joint_dim, llm_dim) if spec.local else None
        )
        self.global_compressor = (
            GlobalCompressor(spec.global_, vision_dim, joint_dim, llm_dim) if spec.global_ else None
        )
        for part in ("local", "global"):
            for name in ("scale", "bias"):
                value = nn.Parameter(torch.zeros(1)) if part in clip_scaled else None
                self.register_parameter(f"{part}_logit_{name}", value)
        self.register_parameter("image_newline", None)

    def _compress(self, inputs: Inputs) -> Tensor:
        return torch.cat(self._local(inputs) + self._global(inputs), dim=-2)

    def _compress_any_resolution(self, grids: list[Inputs]) -> Tensor:
        """Local tokens of the base grid, then of the patch grid, then global ones of the latter."""
        parts = [tokens for grid in grids for tokens in self._local(grid)]
        return torch.cat(parts + self._global(grids[-1]), dim=-2)

    def _local(self, inputs: Inputs) -> list[Tensor]:
        if self.local_compressor is None:
            return []
        features, embeddings, guide, modality, newline, anyres = inputs
        clip_scale = self._clip_scale("local")
        grid = self.local_compressor(features, embeddings, guide, modality, clip_scale)
        return [arrange_tokens(grid, self.layout, modality, newline, anyres)]

    def _global(self, inputs: Inputs) -> list[Tensor]:
        if self.global_compressor is None:
            return []
        clip_scale = self._clip_scale("global")
        return [self.global_compressor(inputs.features, inputs.guide, clip_scale)]

    def _clip_scale(self, part: str) -> tuple[Tensor, Tensor] | None:
        scale = getattr(self, f"{part}_logit_scale")
        return None if scale is None else (scale, getattr(self, f"{part}_logit_bias"))


class BaselineCompressor(Compressor):
    """A projector that does not see the question."""

    def __init__(self, spec: ProjectorSpec, projector: nn.Module, layout: TokenLayout) -> None:
        super().__init__()
        self.spec, self.layout, self.projector = spec, layout, projector
        self.register_parameter("image_newline", None)
        # the authors' checkpoints name these tensors without a prefix
        self._register_state_dict_hook(_without_prefix)
        self._register_load_state_dict_pre_hook(_with_prefix)

    def _compress(self, inputs: Inputs) -> Tensor:
        grid = self.projector(inputs.features, inputs.modality)
        return arrange_tokens(grid, self.layout, inputs.modality, inputs.newline)


def _grids(
    features: AnyResolution,
    embeddings: Tensor | AnyResolution | None,
    guide: Tensor | None,
    modality: str,
    newline: Tensor | None,
) -> list[Inputs]:
    """The base grid, if there is one, and the patch grid, as batches of one frame."""
    if embeddings is not None and not isinstance(embeddings, Mapping):
        raise InputError("features have a base and a patch grid, embeddings have not")
    found = []
    for name in ("base", "patch"):
        grid, aligned = features[name], embeddings[name] if embeddings else None
        if grid is not None:
            batch = grid[None, None], None if aligned is None else aligned[None, None]
            found.append(Inputs(*batch, _batched(guide), modality, newline, name == "patch"))
    return found


def _batched(x: Tensor | None) -> Tensor | None:
    return None if x is None else x[None]


def _without_prefix(_module: nn.Module, state: dict[str, Any], prefix: str, _meta: object) -> None:
    _renamed(state, prefix + "projector.", prefix)


def _with_prefix(state: dict[str, Any], prefix: str, *_: object) -> None:
    own = {key for key in state if key.startswith(prefix)} - {prefix + "image_newline"}
    for key in own:
        state[prefix + "projector." + key[len(prefix) :]] = state.pop(key)


def _renamed(state: dict[str, Any], old: str, new: str) -> None:
    for key in [key for key in state if key.startswith(old)]:
        state[new + key[len(old) :]] = state.pop(key)


def build_compressor(
    projector_type: str,
    use_guide: str | None,
    vision_dim: int,
    joint_dim: int,
    llm_dim: int,
    *,
    use_clip_scale: str = "",
    patch_merge_type: str = "flat",
    newline_position: str = "one_token",
) -> Compressor:
    """Build a compressor with fresh weights.

    Args:
        projector_type: the checkpoint's mm_projector_type, such as "local43_global32".
        use_guide: the checkpoint's use_guide: None, "off", "direct", "coarse" or "fine".
        vision_dim: channels of the features V (Dv).
        joint_dim: channels of the embeddings E and of the guide (Dt).
        llm_dim: channels of the visual tokens (Dl).
        use_clip_scale: "", "local", "global" or "local,global".
        patch_merge_type, newline_position: the token layout.

    Raises:
        CheckpointError: the projector type cannot be read.
    """
    spec = parse_projector_type(projector_type, use_guide)
    layout = TokenLayout(patch_merge_type, newline_position)
    if spec.baseline is not None:
        projector = build_baseline(spec.baseline, vision_dim, joint_dim, llm_dim)
        return BaselineCompressor(spec, projector, layout)
    scaled = frozenset(part for part in ("local", "global") if part in (use_clip_scale or ""))
    return HicomCompressor(spec, vision_dim, joint_dim, llm_dim, scaled, layout)
