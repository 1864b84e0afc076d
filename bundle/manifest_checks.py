"""Checks the values of a manifest: ranges of its numbers, names of its dtypes and precisions.

An absurd value is refused when a bundle is opened, instead of overflowing later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from hicom_edge.errors import BundleError

if TYPE_CHECKING:
    from hicom_edge.bundle.manifest import FrameSpec, GenerationSpec, GraphEntry, Manifest

LARGEST_SIZE = 2**31 - 1
PRECISIONS = ("fp32", "fp16")
DTYPES = ("float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool")
_SMALLEST = 1e-9


class _Range(NamedTuple):
    """A number of the manifest with its valid range, ends included."""

    name: str
    value: float
    least: float
    largest: float = LARGEST_SIZE


def check_values(manifest: Manifest, where: str) -> None:
    """Refuse numbers out of range and unknown types; `where` names the manifest in messages.

    Raises:
        BundleError: a value is invalid; the message names the first.
    """
    for name, value, least, largest in _ranges(manifest):
        if not least <= value <= largest:  # NaN fails both comparisons
            _refuse(where, name, value, f"{least} to {largest}")
    for name, graph in manifest.graphs.items():
        _check_graph(f"{where}: graphs[{name!r}]", graph)
    _check_image_size(manifest, where)


def _ranges(manifest: Manifest) -> Iterator[_Range]:
    for field in dataclasses.fields(manifest.model):
        value = getattr(manifest.model, field.name)
        for number in value if isinstance(value, tuple) else [value]:
            if isinstance(number, int):
                yield _Range(f"model.{field.name}", number, 0)
    yield from _frame_ranges(manifest.frames)
    yield from _generation_ranges(manifest.generation)
    if manifest.guide is not None:
        yield _Range("guide.max_length", manifest.guide.max_length, 1, 1 << 16)
        yield _Range("guide.pad_token_id", manifest.guide.pad_token_id, 0)
    if manifest.language_model is not None:
        yield _Range("language_model.tp_size", manifest.language_model.tp_size, 1, 1024)
        yield _Range("language_model.pp_size", manifest.language_model.pp_size, 1, 1024)


def _frame_ranges(frames: FrameSpec) -> Iterator[_Range]:
    yield _Range("frames.num_frames", frames.num_frames, 1, 1_000_000)
    yield _Range("frames.image_size", frames.image_size, 1)
    yield _Range("frames.rescale_factor", frames.rescale_factor, _SMALLEST, 1e3)
    # Frames are padded with their mean as a colour, which has to lie in [0, 1].
    least, largest = (0, 1) if frames.aspect == "pad" else (-1e4, 1e4)
    yield from (_Range("frames.mean", mean, least, largest) for mean in frames.mean)
    yield from (_Range("frames.std", std, _SMALLEST, 1e4) for std in frames.std)


def _generation_ranges(generation: GenerationSpec) -> Iterator[_Range]:
    yield from (_Range("generation.stop_token_ids", i, 0) for i in generation.stop_token_ids)
    yield _Range("generation.repetition_penalty", generation.repetition_penalty, 1e-3, 1e3)
    yield _Range("generation.temperature", generation.temperature, 0, 1e9)
    yield _Range("generation.top_p", generation.top_p, _SMALLEST, 1)
    yield _Range("generation.top_k", generation.top_k, 0)


def _check_graph(where: str, graph: GraphEntry) -> None:
    if graph.precision not in PRECISIONS:
        _refuse(where, "precision", graph.precision, f"one of {list(PRECISIONS)}")
    for tensor in (*graph.inputs, *graph.outputs):
        if tensor.dtype not in DTYPES:
            _refuse(where, f"dtype of {tensor.name}", tensor.dtype, f"one of {list(DTYPES)}")
        for size in tensor.shape:
            if isinstance(size, int) and not 0 <= size <= LARGEST_SIZE:
                _refuse(where, f"size of {tensor.name}", size, f"0 to {LARGEST_SIZE}")


def _check_image_size(manifest: Manifest, where: str) -> None:
    """Refuse a frame size that the vision graph does not accept, before frames fill memory."""
    vision, size = manifest.graphs.get("vision"), manifest.frames.image_size
    for tensor in vision.inputs if vision is not None else ():
        if tensor.name == "pixel_values" and tensor.shape[1:] != (3, size, size):
            _refuse(where, "frames.image_size", size, f"that of pixel_values {tensor.shape}")


def _refuse(where: str, name: str, value: object, expected: str) -> None:
    raise BundleError(
        f"{where}: {name} is {value!r}, expected {expected}; "
        "correct the checkpoint's configuration and export it again"
    )
