"""Optimization profiles: the range of sizes of every dynamic axis that an engine is built for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from hicom_edge.errors import BundleError, InputError
from hicom_edge.planning.decoder_form import (
    BATCH_AXIS,
    CAPACITY_AXIS,
    DECODER_GRAPHS,
    SCATTER_GRAPH,
)

if TYPE_CHECKING:
    from hicom_edge.bundle.manifest import GraphEntry, Manifest

Shape: TypeAlias = "tuple[int, ...]"

# The vision tower encodes every frame on its own, so a long video is encoded in batches.
FRAMES_PER_RUN = 8
# Longest videos of the paper.
DEFAULT_MAX_FRAMES = 128
MAX_FRAMES: dict[str, Any] = {
    "help": "Frames of the longest video.",
    "minimum": 1,
    "default_means": f"{DEFAULT_MAX_FRAMES}, or the bundle's number if larger",
}
DEVICE_MEMORY_GB: dict[str, Any] = {
    "help": "Device memory that the engines may take, in GB.",
    "above": 0,
    "default_means": "all of it",
}
"""Options that both kinds of TensorRT builds have."""
# Tokens that are not visual: chat template and question, and the answer.
PROMPT_TEXT, ANSWER_TEXT = 512, 512
# Most tokens of one decoder run after the prefill.
STEP_ROWS = 16
PREFILL, STEP = 0, 1  # indices of the decoder's profiles


class ShapeRange(NamedTuple):
    """Shapes of one input: smallest, the one that is optimised for, largest."""

    minimum: Shape
    typical: Shape
    maximum: Shape

    def covers(self, shape: Shape) -> bool:
        """Whether every size is in the range."""
        low, high = self.minimum, self.maximum
        return len(shape) == len(low) and all(
            a <= size <= b for a, size, b in zip(low, shape, high, strict=True)
        )


Profile: TypeAlias = "dict[str, ShapeRange]"


@dataclass(frozen=True)
class Limits:
    """Sizes that a bundle's engines are built for.

    Attributes:
        typical_frames, max_frames: frames of one video.
        guide_length: tokens of a guide text, padded.
        typical_prompt, max_prompt: tokens of one prompt, visual ones included.
        capacity: tokens that the KV cache holds.
    """

    typical_frames: int
    max_frames: int
    guide_length: int
    typical_prompt: int
    max_prompt: int
    capacity: int


def limits_from_manifest(manifest: Manifest, max_frames: int | None = None) -> Limits:
    """Sizes to build for.

    Args:
        max_frames: of the longest video; None: 128, or the bundle's own number if larger.

    Raises:
        InputError: max_frames is below 1.
    """
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames is {max_frames}; pass 1 or more", "max_frames")
    frames, model = manifest.frames.num_frames, manifest.model
    most = max_frames or max(frames, DEFAULT_MAX_FRAMES)
    usual = min(frames, most)
    max_prompt = min(model.visual_tokens(most) + PROMPT_TEXT, model.max_context - 1)
    return Limits(
        typical_frames=usual,
        max_frames=most,
        guide_length=manifest.guide.max_length if manifest.guide else 1,
        typical_prompt=min(model.visual_tokens(usual) + PROMPT_TEXT // 4, max_prompt),
        max_prompt=max_prompt,
        capacity=min(max_prompt + ANSWER_TEXT, model.max_context),
    )


def profiles_of(graph_name: str, entry: GraphEntry, limits: Limits) -> tuple[Profile, ...]:
    """Profiles of a graph: one, or two for the decoder, PREFILL and STEP.

    Raises:
        BundleError: the graph has a dynamic axis of unknown size.
    """
    return tuple(_profile(entry, axes) for axes in _axes(graph_name, limits))


def _axes(graph_name: str, limits: Limits) -> list[dict[str, Shape]]:
    """Dynamic axis → (smallest, typical, largest size), for each profile."""
    if graph_name in DECODER_GRAPHS:
        # A prefill has no past: with one as long as the cache, attention scores would take twice
        # the memory. In the scatter form, past is the whole cache in both profiles, and the step
        # takes one row only, because TensorRT-RTX 1.7 builds no fused fp16 attention over 1 to 16
        # rows with a mask of fixed length; more rows go through the prefill profile.
        prefill = {"length": (1, limits.typical_prompt, limits.max_prompt)}
        past = (1, limits.typical_prompt, limits.capacity - 1)
        rows = 1 if graph_name == SCATTER_GRAPH else STEP_ROWS
        step = {"length": (1, 1, rows), "past_length": past}
        one = (1, 1, 1)
        every = {BATCH_AXIS: one, "num_logits": one, CAPACITY_AXIS: (limits.capacity,) * 3}
        return [{**prefill, "past_length": (0, 0, 1), **every}, {**step, **every}]
    frames = (1, limits.typical_frames, limits.max_frames)
    if graph_name == "vision":
        most = min(FRAMES_PER_RUN, limits.max_frames)
        frames = (1, min(most, limits.typical_frames), most)
    return [{"num_frames": frames, "guide_length": (1, limits.guide_length, limits.guide_length)}]


def _profile(entry: GraphEntry, axes: dict[str, Shape]) -> Profile:
    profile = {}
    for spec in entry.inputs:
        unknown = [d for d in spec.shape if isinstance(d, str) and d not in axes]
        if unknown:
            raise BundleError(
                f"{entry.file}: input {spec.name} has dynamic axes {unknown}, engines are built "
                f"for {sorted(axes)}; export the bundle again with this version"
            )
        shapes = (
            tuple(d if isinstance(d, int) else axes[d][place] for d in spec.shape)
            for place in range(3)
        )
        profile[spec.name] = ShapeRange(*shapes)
    return profile
