"""Stage-by-stage comparison of a bundle with its checkpoint or with a bundle in another engine.

Each side feeds its own outputs to its next stage, so errors add up as they do in use. Frames and
token ids are computed once, by the runtime, for both sides. PyTorch is imported only if a
checkpoint takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.engines import AUTO
from hicom_edge.engines.base import ENGINE
from hicom_edge.errors import InputError
from hicom_edge.option_fields import check_fields, option
from hicom_edge.runtime.features.encoding import preprocessor_from_spec
from hicom_edge.runtime.guide.text import guide_text
from hicom_edge.runtime.guide.tokenizer import GuideTokenizer
from hicom_edge.runtime.prompt import PromptBuilder
from hicom_edge.runtime.video import FrameSampling, VideoInput, read_frames
from hicom_edge.runtime.video.frame_sampling import NUM_FRAMES
from hicom_edge.verify.answer_comparison import AnswerComparison
from hicom_edge.verify.bundle_pipeline import BundlePipeline
from hicom_edge.verify.comparison import StageResult, compare
from hicom_edge.verify.graph_inputs import graph_inputs
from hicom_edge.verify.pipeline import Pipeline, Prompt
from hicom_edge.verify.polygraphy_runs import save_polygraphy_runs
from hicom_edge.verify.reference import EngineReference, Reference
from hicom_edge.verify.tolerances import (
    Limits,
    Tolerances,
    answer_precision,
    precision_of,
    tolerances_for,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hicom_edge.bundle import Bundle

    Array = NDArray[Any]

Remark = Callable[[str], None]


@dataclass(frozen=True)
class VerifyOptions:
    """How a bundle is compared.

    Attributes:
        num_frames: frames to sample; None: the bundle's number.
        max_new_tokens: greedy tokens to compare.
        engine: the engine that runs the bundle.
        tolerances: None: those of the coarser precision of the two sides.
    """

    num_frames: int | None = option(None, **NUM_FRAMES)
    max_new_tokens: int = option(16, "Number of greedy tokens to compare.", minimum=1)
    engine: str = option(AUTO, **ENGINE)
    tolerances: Tolerances | None = None

    def __post_init__(self) -> None:
        check_fields(self)


def verify_bundle(
    bundle: Bundle,
    reference: Reference,
    video: VideoInput,
    questions: Sequence[str],
    options: VerifyOptions | None = None,
    *,
    remark: Remark = lambda line: None,
    inputs_to: Path | None = None,
) -> list[StageResult]:
    """Compare features, embeddings, guide, visual tokens, prefill logits and greedy tokens.

    A language model whose runtime is not available is left out. One that does not return logits is
    compared by its tokens alone.

    Args:
        reference: the bundle's checkpoint in PyTorch in float32, or a bundle in an engine.
        remark: called with one line for each reason to leave stages out, and for each remark of an
            engine.
        inputs_to: a directory for the inputs of each graph for the first question, with scripts
            that compare the layers of the graph on them in Polygraphy.

    Raises:
        InputError: no questions, or a reference that is the same bundle in the same engine or
            belongs to another model.
        VideoError: the video cannot be read.
        CheckpointError: the checkpoint is incomplete or of another model.
        EngineError: an engine is not available.
        ModuleNotFoundError: `inputs_to` without Polygraphy.
    """
    options = options or VerifyOptions()
    if not questions:
        raise InputError("verify compares answers and got no question; pass at least one")
    reference.check(bundle, options.engine)
    pixel_values, modality = _pixel_values(bundle, video, options.num_frames)
    prompts = _prompts(bundle, questions, modality)
    stops = bundle.manifest.generation.stop_token_ids
    with ExitStack() as stack:
        expected = reference.pipeline(pixel_values, modality, stops, stack)
        tested = BundlePipeline(bundle, pixel_values, modality, stack, options.engine)
        for line in (*_left_out(expected, tested), *expected.remarks, *tested.remarks):
            remark(line)
        if inputs_to is not None:
            inputs = graph_inputs(bundle, expected, pixel_values, modality, prompts[0])
            remark(_saved(inputs_to, save_polygraphy_runs(bundle, inputs, inputs_to)))
        limits = _limits(bundle, reference, options)
        return list(compare_pipelines(expected, tested, prompts, limits, options.max_new_tokens))


def compare_pipelines(
    reference: Pipeline,
    tested: Pipeline,
    prompts: Sequence[Prompt],
    limits: Limits,
    max_new_tokens: int,
) -> Iterator[StageResult]:
    """The results of all stages: the maps first, then question by question."""
    actual, stages = tested.maps(), limits.stages
    for name, expected in reference.maps().items():
        yield compare(name, actual[name], expected, getattr(stages, name), stages.min_cosine)
    for prompt in prompts:
        guides = reference.guide(prompt), tested.guide(prompt)
        tokens = reference.visual_tokens(guides[0]), tested.visual_tokens(guides[1])
        yield from _compare_compression(guides, tokens, prompt.question, stages)
        answers = AnswerComparison(reference, tested, prompt, tokens)
        yield from answers.compare(limits.answers, max_new_tokens)


def _limits(bundle: Bundle, reference: Reference, options: VerifyOptions) -> Limits:
    if options.tolerances is not None:
        return Limits(options.tolerances, options.tolerances)
    sides = [bundle, reference.bundle] if isinstance(reference, EngineReference) else [bundle]
    return Limits(
        tolerances_for(map(precision_of, sides)), tolerances_for(map(answer_precision, sides))
    )


def _saved(directory: Path, names: Sequence[str]) -> str:
    return (
        f"{directory} has the inputs of {', '.join(names)}; to compare layers: sh "
        f"{directory}/{names[0]}.sh --trt --onnxrt"
    )


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
    """(t, 3, S, S), and "video" or "image"."""
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
        prompts.append(Prompt(question, guide_ids, parts))
    return prompts
