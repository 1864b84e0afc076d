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
from hicom_edge.calibration.ranges.chain import DECODER, Chain, Watched, compressor_of

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.calibration.scales.absorbers import Array
    from hicom_edge.datasets.sample import Sample
    from hicom_edge.engines.base import EngineOptions

VISION, GUIDE = "vision", "guide"

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
        self, bundle: Bundle, chain: Chain, samples: Sequence[Sample], options: EngineOptions | None
    ) -> None:
        self._bundle, self._chain, self._options = bundle, chain, options
        self._references = [_refer(chain, sample) for sample in samples]

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
                chain = self._chain_with({}, decoder)
                pairs = [_changed(chain, graph_name, r) for r in reached]
        else:
            with TrialEngine(self._bundle, graph_name, model, self._options) as engine:
                chain = self._chain_with({graph_name: engine}, None)
                pairs = [_changed(chain, graph_name, r) for r in reached]
        return _mean(reached, pairs)

    def _chain_with(self, engines: dict[str, TrialEngine], decoder: TrialDecoder | None) -> Chain:
        """A chain on the engines that are loaded already, but for those given."""
        names = [name for name in self._bundle.manifest.graphs if name != DECODER]
        loaded = {n: engines[n] if n in engines else self._chain.engine(n) for n in names}
        return Chain(self._bundle, loaded, decoder or self._chain.decoder, options=self._options)


def _refer(chain: Chain, sample: Sample) -> Reference:
    watched, guide = chain.watch(sample.video), chain.guide(sample.question)
    tokens = chain.visual_tokens(watched.maps, watched.modality, guide)
    return Reference(sample, watched, guide, tokens, _first_logits(chain, sample, watched, tokens))


def _changed(chain: Chain, graph_name: str, reference: Reference) -> tuple[Array, Array]:
    """Visual tokens and first logits when this graph is another; earlier stages are not run."""
    sample, watched, guide = reference.sample, reference.watched, reference.guide
    tokens = reference.visual_tokens
    if graph_name == VISION:
        watched = chain.watch(sample.video)
    if graph_name == GUIDE:
        guide = chain.guide(sample.question)
    if graph_name != DECODER:
        tokens = chain.visual_tokens(watched.maps, watched.modality, guide)
    return tokens, _first_logits(chain, sample, watched, tokens)


def _first_logits(chain: Chain, sample: Sample, watched: Watched, tokens: Array) -> Array:
    prompt = chain.prompt(sample.question, watched.modality, tokens)
    with chain.decoder.start() as sequence:
        return np.array(sequence.append(prompt), np.float32)


def _reaches(bundle: Bundle, graph_name: str, reference: Reference) -> bool:
    compressor = compressor_of(bundle, reference.watched.modality)
    return graph_name in (VISION, GUIDE, DECODER, compressor)


def _mean(references: list[Reference], pairs: list[tuple[Array, Array]]) -> EndEffect:
    cosines, divergences = [], []
    for reference, (tokens, logits) in zip(references, pairs, strict=True):
        cosines.append(token_cosines(reference.visual_tokens, tokens)[0])
        divergence = kl_divergence(reference.logits, logits)
        divergences.append(OVERFLOW_KL if divergence is None else divergence)
    return EndEffect(float(np.mean(cosines)), float(np.mean(divergences)))
