"""The model and frame sections of a manifest, from a checkpoint's configuration."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hicom_edge.bundle.manifest import FrameSpec, ModelSpec
from hicom_edge.errors import ExportError
from hicom_edge.export.decoder_graph import DecoderPlan
from hicom_edge.export.vision_graph import VisionPlan

if TYPE_CHECKING:
    from hicom_edge.model.checkpoint import Checkpoint
    from hicom_edge.model.projector_type import ProjectorSpec

# The values of Pillow's Resampling, as image processors store them.
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Defaults of transformers' image processors, for towers without preprocessor_config.json.
_PROCESSORS: dict[str, dict[str, Any]] = {
    "siglip": {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3},
    "clip": {"image_mean": _CLIP_MEAN, "image_std": _CLIP_STD, "do_center_crop": True},
}
_DEFAULT_NUM_FRAMES = 32
_PACKAGES = ("hicom-edge", "onnx", "onnx-ir", "torch", "transformers")


def model_spec(checkpoint: Checkpoint, vision: VisionPlan, decoder: DecoderPlan) -> ModelSpec:
    """Sizes of the model. A kernel or token count of 0 means that the part does not exist."""
    spec, config = checkpoint.spec, checkpoint.config
    temporal, spatial = _kernel(spec)
    return ModelSpec(
        kind=config["model_type"],
        projector_type=checkpoint.hicom.projector_type,
        local_injection=spec.local.injection if spec.local else None,
        global_injection=spec.global_.injection if spec.global_ else None,
        vision_dim=vision.sizes.hidden_size,
        joint_dim=vision.embedding_dim,
        llm_dim=decoder.hidden_size,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        grid=(vision.side, vision.side),
        temporal_kernel=temporal,
        spatial_kernel=spatial,
        global_tokens=_global_tokens(spec),
        vocab_size=decoder.vocab_size,
        num_layers=decoder.num_layers,
        num_kv_heads=decoder.num_kv_heads,
        head_dim=decoder.head_dim,
        max_context=decoder.max_context,
    )


def frame_spec(
    config: Mapping[str, Any], processor: Mapping[str, Any], vision: VisionPlan
) -> FrameSpec:
    """Preprocessing of frames, from the configuration and the tower's image processor.

    Raises:
        ExportError: a resampling filter that the runtime does not support.
    """
    known = {**_PROCESSORS[vision.sizes.family], **processor}
    filter_number = known.get("resample", 3)
    if filter_number not in _RESAMPLE:
        raise ExportError(
            f"preprocessor_config.json has resample {filter_number!r}; expected one of {_RESAMPLE}"
        )
    return FrameSpec(
        num_frames=config.get("num_frames") or _DEFAULT_NUM_FRAMES,
        image_size=vision.image_size,
        mean=tuple(float(v) for v in known["image_mean"]),
        std=tuple(float(v) for v in known["image_std"]),
        rescale_factor=float(known.get("rescale_factor", 1 / 255)),
        resample=_RESAMPLE[filter_number],
        aspect=_aspect(config.get("image_aspect_ratio"), bool(known.get("do_center_crop"))),
    )


def created_with() -> dict[str, str]:
    """Versions of the packages that write the bundle."""
    versions = {name: _version(name) for name in _PACKAGES}
    return {**versions, "python": platform.python_version()}


def _aspect(image_aspect_ratio: str | None, center_crop: bool) -> str:
    """`pad` is the authors' own preprocessing; with other values the tower's processor decides."""
    if image_aspect_ratio == "pad":
        return "pad"
    return "crop" if center_crop else "squash"


def _kernel(spec: ProjectorSpec) -> tuple[int, tuple[int, int]]:
    if spec.local is not None:
        side = spec.local.spatial_kernel
        return spec.local.temporal_kernel, (side, side)
    if spec.baseline is not None and spec.baseline.kind != "resampler":
        frames, *sides = spec.baseline.kernel
        return frames, (sides[0], sides[1])
    return 0, (0, 0)


def _global_tokens(spec: ProjectorSpec) -> int:
    if spec.global_ is not None:
        return spec.global_.num_queries
    return spec.baseline.num_queries if spec.baseline is not None else 0


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
