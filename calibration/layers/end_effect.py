"""What a changed graph does to visual tokens and to the answer's first token, on a few samples.

It knows which stages a graph can change, and runs those alone. It does not know what was changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from hicom_edge.calibration.layers.trial_engine import TrialDecoder, TrialEngine
from hicom_edge.calibration.quality.comparison import kl_divergence, token_cosines
from hicom_edge.runtime.stages import DECODER, GUIDE, VISION, Stages, compressor_graph
from hicom_edge.runtime.trace import (
    DEFAULT_ENGINE,
    Watched,
    guide_of,
    prompt_of,
    visual_tokens_of,
    watch_once,
)

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.calibration.scales.absorbers import Array
    from hicom_edge.datasets.sample import Sample
    from hicom_edge.engines.base import EngineOptions

OVERFLOW_KL = 1e6
"""Worse than any real divergence, and finite in JSON."""


@dataclass(frozen=True)
class EndEffect:
    """Means over the samples: cosine of the visual tokens, KL of the first token's logits (nats).

    A sample whose logits are not finite counts OVERFLOW_KL.
    """

    token_cosine: float
    logit_kl: float


@dataclass(frozen=True, eq=False)
class Reference:
    """What the floating-point bundle makes of one sample; its maps stay in memory."""

    sample: Sample
    watched: Watched
    guide: Array | None
    visual_tokens: Array
    logits: Array


class EndEffectProbe:
    """The floating-point bundle, what it made of the samples, and a place to try other graphs.

    The maps of all videos stay in memory, 215 MB for 32 frames of SigLIP so400m in fp32: a few
    samples are meant. Engines run in ONNX Runtime on the CPU and are loaded once, those tried for
    each trial.
    """

    def __init__(
        self,
        bundle: Bundle,
        stages: Stages,
        samples: Sequence[Sample],
        options: EngineOptions | None,
    ) -> None:
        self._bundle, self._stages, self._options = bundle, stages, options
        self._references = [_refer(stages, sample) for sample in samples]

    def effect(self, graph_name: str, model: ir.Model) -> EndEffect | None:
        """Run the graph in this form in place of the bundle's; None if no sample reaches it.

        Raises:
            EngineError: ONNX Runtime does not take the graph.
        """
        reached = [r for r in self._references if _reaches(self._bundle, graph_name, r)]
        if not reached:
            return None
        if graph_name == DECODER:
            with TrialDecoder(self._bundle, graph_name, model, self._options) as decoder:
                stages = self._stages_with({}, decoder)
                pairs = [_changed(stages, graph_name, r) for r in reached]
        else:
            with TrialEngine(self._bundle, graph_name, model, self._options) as engine:
                stages = self._stages_with({graph_name: engine}, None)
                pairs = [_changed(stages, graph_name, r) for r in reached]
        return _mean(reached, pairs)

    def _stages_with(self, engines: dict[str, TrialEngine], decoder: TrialDecoder | None) -> Stages:
        """Stages in the engines that are loaded already, except for those given."""
        names = [name for name in self._bundle.manifest.graphs if name != DECODER]
        own = self._stages.engines
        loaded = {n: engines[n] if n in engines else own.engine(n) for n in names}
        language_model = decoder or own.decoder
        return Stages(
            self._bundle,
            DEFAULT_ENGINE,
            self._options,
            engines=loaded,
            language_model=language_model,
        )


def _refer(stages: Stages, sample: Sample) -> Reference:
    watched, guide = watch_once(stages, sample.video), guide_of(stages, sample.question)
    tokens = visual_tokens_of(stages, watched, guide)
    return Reference(sample, watched, guide, tokens, _first_logits(stages, sample, watched, tokens))


def _changed(stages: Stages, graph_name: str, reference: Reference) -> tuple[Array, Array]:
    """Visual tokens and first logits when this graph is another; earlier stages are not run."""
    sample, watched, guide = reference.sample, reference.watched, reference.guide
    tokens = reference.visual_tokens
    if graph_name == VISION:
        watched = watch_once(stages, sample.video)
    if graph_name == GUIDE:
        guide = guide_of(stages, sample.question)
    if graph_name != DECODER:
        tokens = visual_tokens_of(stages, watched, guide)
    return tokens, _first_logits(stages, sample, watched, tokens)


def _first_logits(stages: Stages, sample: Sample, watched: Watched, tokens: Array) -> Array:
    return stages.logits(prompt_of(stages, sample.question, watched.modality, tokens))


def _reaches(bundle: Bundle, graph_name: str, reference: Reference) -> bool:
    compressor = compressor_graph(bundle, reference.watched.modality)
    return graph_name in (VISION, GUIDE, DECODER, compressor)


def _mean(references: list[Reference], pairs: list[tuple[Array, Array]]) -> EndEffect:
    cosines, divergences = [], []
    for reference, (tokens, logits) in zip(references, pairs, strict=True):
        cosines.append(token_cosines(reference.visual_tokens, tokens)[0])
        divergence = kl_divergence(reference.logits, logits)
        divergences.append(OVERFLOW_KL if divergence is None else divergence)
    return EndEffect(float(np.mean(cosines)), float(np.mean(divergences)))
