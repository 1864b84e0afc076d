"""Any two of PyTorch, ONNX Runtime and TensorRT side by side, stage by stage, on a real video.

It knows the stages' order and names. Each side feeds its own outputs to its next stage, so that
errors add up as they do in use. Frames and token ids are made once, by the runtime, for both.
PyTorch is imported when a checkpoint takes part, and only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.engines import AUTO
from hicom_edge.errors import InputError
from hicom_edge.runtime.features.encoding import preprocessor_from_spec
from hicom_edge.runtime.guide.text import guide_text
from hicom_edge.runtime.guide.tokenizer import GuideTokenizer
from hicom_edge.runtime.prompt import PromptBuilder
from hicom_edge.runtime.video import FrameSampling, VideoInput, read_frames
from hicom_edge.verify.answer_comparison import AnswerComparison
from hicom_edge.verify.comparison import (
    TOLERANCES,
    StageResult,
    Tolerances,
    compare,
    print_table,
)
from hicom_edge.verify.graph_inputs import graph_inputs
from hicom_edge.verify.layer_runs import save_layer_runs
from hicom_edge.verify.pipelines import BundlePipeline, Pipeline, Prompt
from hicom_edge.verify.reference import EngineReference, Reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hicom_edge.bundle import Bundle

    Array = NDArray[Any]

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
    remark: Callable[[str], None] = lambda line: None,
    inputs_to: Path | None = None,
) -> list[StageResult]:
    """Compare features, embeddings, guide, visual tokens, prefill logits and greedy tokens.

    A language model for a runtime that is not here is left out, and one that shows no logits is
    compared by its tokens alone.

    Args:
        reference: what the bundle is held against: its checkpoint in PyTorch in float32, or a
            bundle in an engine.
        tolerances: by default those of the coarser precision of the two sides.
        num_frames: by default the bundle's.
        max_new_tokens: the most greedy tokens to compare.
        engine: what the bundle itself runs in.
        remark: called with one line for each reason to leave stages out, and with what an engine
            says of how it runs.
        inputs_to: a directory for what each graph is given for the first question, and for the
            commands that compare its layers on that in Polygraphy.

    Raises:
        InputError: no questions, or a reference that is the bundle in the same engine or another
            model.
        VideoError: the video cannot be read.
        CheckpointError: the checkpoint is incomplete or foreign.
        EngineError: an engine is not available here.
        ModuleNotFoundError: `inputs_to` without Polygraphy.
    """
    if not questions:
        raise InputError("verify compares answers and got no question; pass at least one")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}; pass 1 or more")
    reference.check(bundle, engine)
    sides = [bundle, reference.bundle] if isinstance(reference, EngineReference) else [bundle]
    limits = tolerances or _limits(map(precision_of, sides))
    answer_limits = tolerances or _limits(map(_answer_precision, sides))
    pixel_values, modality = _pixel_values(bundle, video, num_frames)
    prompts = _prompts(bundle, questions, modality)
    stops = bundle.manifest.generation.stop_token_ids
    with ExitStack() as stack:
        expected = reference.pipeline(pixel_values, modality, stops, stack)
        tested = BundlePipeline(bundle, pixel_values, modality, stack, engine)
        for line in (*_left_out(expected, tested), *expected.remarks, *tested.remarks):
            remark(line)
        if inputs_to is not None:
            inputs = graph_inputs(bundle, expected, pixel_values, modality, prompts[0])
            names = save_layer_runs(bundle, inputs, inputs_to)
            remark(
                f"{inputs_to} holds the inputs of {', '.join(names)}; layer by layer: sh "
                f"{inputs_to}/{names[0]}.sh --trt --onnxrt"
            )
        return list(
            compare_pipelines(expected, tested, prompts, limits, max_new_tokens, answer_limits)
        )


def compare_pipelines(
    reference: Pipeline,
    tested: Pipeline,
    prompts: Sequence[Prompt],
    limits: Tolerances,
    max_new_tokens: int,
    answer_limits: Tolerances | None = None,
) -> Iterator[StageResult]:
    """The results of all stages: the maps first, then question by question.

    answer_limits: for logits and tokens; by default those of the other stages.
    """
    actual = tested.maps()
    for name, expected in reference.maps().items():
        yield compare(name, actual[name], expected, getattr(limits, name), limits.min_cosine)
    for prompt in prompts:
        guides = reference.guide(prompt), tested.guide(prompt)
        tokens = reference.visual_tokens(guides[0]), tested.visual_tokens(guides[1])
        yield from _compare_compression(guides, tokens, prompt.question, limits)
        answers = AnswerComparison(reference, tested, prompt, tokens)
        yield from answers.compare(answer_limits or limits, max_new_tokens)


def precision_of(bundle: Bundle) -> str:
    """The coarsest precision of a bundle's graphs: "fp32", "fp16" or "quantized"."""
    graphs = bundle.manifest.graphs.values()
    kinds = ["quantized" if g.quantization is not None else g.precision for g in graphs]
    return max(kinds, key=_PRECISIONS.index)


def _answer_precision(bundle: Bundle) -> str:
    """The coarsest precision on the way to an answer: another runtime's language model counts."""
    entry, graphs = bundle.manifest.language_model, precision_of(bundle)
    if entry is None:
        return graphs
    own = "fp32" if entry.dtype == "fp32" else "fp16"
    return max(graphs, "quantized" if entry.quantization else own, key=_PRECISIONS.index)


def _limits(precisions: Iterable[str]) -> Tolerances:
    return TOLERANCES[max(precisions, key=_PRECISIONS.index)]


def _left_out(*sides: Pipeline) -> Iterator[str]:
    """One line for each reason why stages are not compared."""
    reasons: dict[str, dict[str, None]] = {}
    for stage, reason in (item for side in sides for item in side.missing.items()):
        reasons.setdefault(reason, {})[stage] = None
    for reason, stages in reasons.items():
        what = "the language model was" if len(stages) > 1 else f"{next(iter(stages))} were"
        yield f"{what} not compared: {reason}"


def _compare_compression(
    guides: tuple[Array | None, Array | None],
    tokens: tuple[Array, Array],
    question: str,
    limits: Tolerances,
) -> Iterator[StageResult]:
    """Guide and visual tokens of a question, each given as (reference, tested)."""
    (guide, own_guide), (expected, actual), cosine = guides, tokens, limits.min_cosine
    if guide is not None and own_guide is not None:
        yield compare("guide", own_guide, guide, limits.guide, cosine, question)
    yield compare("visual_tokens", actual, expected, limits.visual_tokens, cosine, question)


def _pixel_values(
    bundle: Bundle, video: VideoInput, num_frames: int | None
) -> tuple[NDArray[np.float32], str]:
    spec = bundle.manifest.frames
    wanted = spec.num_frames if num_frames is None else num_frames
    frames = read_frames(video, FrameSampling(wanted))
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
