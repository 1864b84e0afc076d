"""Any two of PyTorch, ONNX Runtime and TensorRT side by side, stage by stage, on a real video.

It knows the stages' order and names. Each side feeds its own outputs to its next stage, so that
errors add up as they do in use. Frames and token ids are made once, by the runtime, for both.
PyTorch is imported when a checkpoint takes part, and only then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.engines import AUTO
from hicom_edge.errors import InputError
from hicom_edge.evaluation.comparison import (
    TOLERANCES,
    StageResult,
    Tolerances,
    compare,
    print_table,
)
from hicom_edge.evaluation.pipelines import BundlePipeline, Pipeline, Prompt
from hicom_edge.evaluation.reference import EngineReference, Reference
from hicom_edge.runtime.guide_text import guide_text
from hicom_edge.runtime.prompt import GuideTokenizer, PromptBuilder
from hicom_edge.runtime.sampling import SamplingOptions
from hicom_edge.runtime.video import VideoInput, read_frames
from hicom_edge.runtime.vision import preprocessor_from_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hicom_edge.bundle import Bundle

__all__ = ["TOLERANCES", "StageResult", "Tolerances", "print_table", "verify_bundle"]

# From the strictest to the most tolerant.
_PRECISIONS = ("fp32", "fp16", "quantized")


def verify_bundle(
    bundle: Bundle,
    reference: Reference,
    video: VideoInput,
    questions: Sequence[str],
    tolerances: Tolerances | None = None,
    *,
    num_frames: int | None = None,
    max_new_tokens: int = 16,
    engine: str = AUTO,
) -> list[StageResult]:
    """Compare features, embeddings, guide, visual tokens, prefill logits and greedy tokens.

    Args:
        reference: what the bundle is held against: its checkpoint in PyTorch in float32, or a
            bundle in an engine.
        tolerances: by default those of the coarser precision of the two sides.
        num_frames: by default the bundle's.
        max_new_tokens: the most greedy tokens to compare.
        engine: what the bundle itself runs in.

    Raises:
        InputError: no questions, or a reference that is the bundle in the same engine or another
            model.
        VideoError: the video cannot be read.
        CheckpointError: the checkpoint is incomplete or foreign.
        EngineError: an engine is not available here.
    """
    if not questions:
        raise InputError("verify compares answers and got no question; pass at least one")
    reference.check(bundle, engine)
    limits = tolerances or TOLERANCES[_coarser_precision(bundle, reference)]
    pixel_values, modality = _pixel_values(bundle, video, num_frames)
    prompts = _prompts(bundle, questions, modality)
    stops = bundle.manifest.generation.stop_token_ids
    with ExitStack() as stack:
        expected = reference.pipeline(pixel_values, modality, stops, stack)
        tested = BundlePipeline(bundle, pixel_values, modality, stack, engine)
        return list(compare_pipelines(expected, tested, prompts, limits, max_new_tokens))


def compare_pipelines(
    reference: Pipeline,
    tested: Pipeline,
    prompts: Sequence[Prompt],
    limits: Tolerances,
    max_new_tokens: int,
) -> Iterator[StageResult]:
    """The results of all stages: the maps first, then question by question."""
    actual = tested.maps()
    for name, expected in reference.maps().items():
        yield compare(name, actual[name], expected, getattr(limits, name), limits.min_cosine)
    for prompt in prompts:
        yield from _compare_answer(reference, tested, prompt, limits, max_new_tokens)


def precision_of(bundle: Bundle) -> str:
    """The coarsest precision of a bundle's graphs: "fp32", "fp16" or "quantized"."""
    graphs = bundle.manifest.graphs.values()
    kinds = ["quantized" if g.quantization is not None else g.precision for g in graphs]
    return max(kinds, key=_PRECISIONS.index)


def _coarser_precision(bundle: Bundle, reference: Reference) -> str:
    sides = [bundle, reference.bundle] if isinstance(reference, EngineReference) else [bundle]
    return max(map(precision_of, sides), key=_PRECISIONS.index)


def _compare_answer(
    reference: Pipeline, tested: Pipeline, prompt: Prompt, limits: Tolerances, max_new_tokens: int
) -> Iterator[StageResult]:
    cosine, question = limits.min_cosine, prompt.question
    guide, own_guide = reference.guide(prompt), tested.guide(prompt)
    if guide is not None and own_guide is not None:
        yield compare("guide", own_guide, guide, limits.guide, cosine, question)
    tokens, own_tokens = reference.visual_tokens(guide), tested.visual_tokens(own_guide)
    yield compare("visual_tokens", own_tokens, tokens, limits.visual_tokens, cosine, question)
    logits, own_logits = reference.logits(prompt, tokens), tested.logits(prompt, own_tokens)
    yield compare("prefill_logits", own_logits, logits, limits.logits, cosine, question)
    answer = reference.greedy(prompt, tokens, max_new_tokens)
    own_answer = tested.greedy(prompt, own_tokens, max_new_tokens)
    if own_answer == answer:
        detail = f"{len(answer)} tokens are equal"
        yield StageResult("greedy_tokens", question, 0, 0, 0, 0, 1.0, True, detail)
        return
    parted = _first_difference(own_answer, answer)
    logits = reference.logits(prompt, tokens, answer[:parted])
    yield _parted_answers(question, answer, own_answer, parted, logits, limits)


def _parted_answers(
    question: str,
    answer: list[int],
    own_answer: list[int],
    parted: int,
    logits: NDArray[np.float32],
    limits: Tolerances,
) -> StageResult:
    """Two answers that part at token `parted`, where the reference's logits (vocab) are given."""
    second, first = np.sort(logits)[-2:].tolist()
    margin, scale = first - second, float(np.abs(logits).max())
    ok = not limits.equal_tokens and margin <= limits.logits * scale
    agreement = parted / max(len(answer), len(own_answer))
    detail = (
        f"token {parted} is {_token(own_answer, parted)}, expected {_token(answer, parted)}; "
        f"the reference's two best logits are {margin:.3g} apart"
    )
    return StageResult(
        "greedy_tokens", question, margin, margin, scale, limits.logits, agreement, ok, detail
    )


def _first_difference(a: list[int], b: list[int]) -> int:
    differs = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differs, min(len(a), len(b)))


def _token(answer: list[int], index: int) -> str:
    return str(answer[index]) if index < len(answer) else "the end"


def _pixel_values(
    bundle: Bundle, video: VideoInput, num_frames: int | None
) -> tuple[NDArray[np.float32], str]:
    spec = bundle.manifest.frames
    frames = read_frames(video, SamplingOptions(num_frames or spec.num_frames))
    return preprocessor_from_spec(spec).batch(frames), frames.modality


def _prompts(bundle: Bundle, questions: Sequence[str], modality: str) -> list[Prompt]:
    builder = PromptBuilder(bundle)
    guides = GuideTokenizer(bundle) if bundle.manifest.guide is not None else None
    prompts = []
    for question in questions:
        parts = builder.build(question, modality)
        guide_ids = guides.encode(guide_text(question)) if guides is not None else None
        prompts.append(Prompt(question, guide_ids, parts.prefix_ids, parts.suffix_ids))
    return prompts
