"""Measure the effect of a modified graph on visual tokens and on the answer's first token.

Only the stages from the modified graph on run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from hicom_edge.calibration.memory_engine import HostDecoder, MemoryEngine
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
    from hicom_edge.engines.base import Engine, EngineOptions, FeedDict
    from hicom_edge.engines.cancel import CancelToken

OVERFLOW_KL = 1e6
"""Worse than any real divergence, and finite in JSON."""


@dataclass(frozen=True)
class EndEffect:
    """Means over samples: cosine of the visual tokens, and KL of the first token in nats.

    The KL of a sample whose logits are not finite counts as OVERFLOW_KL.
    """

    token_cosine: float
    logit_kl: float


@dataclass(frozen=True, eq=False)
class Reference:
    """What the floating-point bundle computed for one sample; its features stay in memory."""

    sample: Sample
    watched: Watched
    guide: Array | None
    visual_tokens: Array
    logits: Array


class EndEffectProbe:
    """Tries modified graphs in place of a bundle's own on a few samples.

    The features of all videos stay in memory, 215 MB for 32 frames of SigLIP so400m in fp32, so use
    few samples. The bundle's engines are loaded once, a modified graph for each trial.
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
        """The effect of this form of a graph; None if no sample reaches the graph.

        Raises:
            EngineError: ONNX Runtime cannot run the graph.
        """
        reached = [r for r in self._references if _reaches(self._bundle, graph_name, r)]
        if not reached:
            return None
        with TrialEngine(self._bundle, graph_name, model, self._options) as engine:
            stages = self._stages_with(engine)
            pairs = [_changed(stages, graph_name, r) for r in reached]
        return _mean(reached, pairs)

    def _stages_with(self, trial: TrialEngine) -> Stages:
        """Stages that use the engines loaded already, except for the trial's graph."""
        own = self._stages.engines
        names = [name for name in self._bundle.manifest.graphs if name != DECODER]
        engines: dict[str, Engine] = {
            name: trial if name == trial.name else own.engine(name) for name in names
        }
        is_decoder = trial.name == DECODER
        decoder = HostDecoder(self._bundle, trial) if is_decoder else own.decoder
        return Stages(
            self._bundle, DEFAULT_ENGINE, self._options, engines=engines, language_model=decoder
        )


class TrialEngine(MemoryEngine):
    """Runs a modified graph with the same inputs and outputs as the bundle's."""

    def __init__(
        self, bundle: Bundle, graph_name: str, model: ir.Model, options: EngineOptions | None = None
    ) -> None:
        super().__init__(bundle, graph_name, options)
        self._model = model

    def _infer(self, feed_dict: FeedDict, cancel: CancelToken | None) -> dict[str, Array]:
        del cancel  # a trial is one short run
        return self._outputs([spec.name for spec in self.outputs], feed_dict)

    def _serialised(self) -> bytes:
        serialised: bytes = ir.to_proto(self._model).SerializeToString()
        return serialised

    def _weights_folder(self) -> Path | None:
        tensors = (value.const_value for value in self._model.graph.initializers.values())
        folders = {Path(t.path).parent for t in tensors if isinstance(t, ir.ExternalTensor)}
        assert len(folders) <= 1
        return folders.pop() if folders else None


def settled(model: ir.Model, directory: Path) -> ir.Model:
    """The graph with computed weights written to a file once and mapped from there.

    A graph in memory is limited to 2 GiB and needs all external weights in one folder. Graphs
    without computed weights are returned unchanged.
    """
    tensors = (value.const_value for value in model.graph.initializers.values())
    if not any(isinstance(tensor, ir.LazyTensor) for tensor in tensors):
        return model
    path = directory / "graph.onnx"
    ir.save(model, path, external_data=f"{path.name}.data")
    return ir.load(path)


def _refer(stages: Stages, sample: Sample) -> Reference:
    watched, guide = watch_once(stages, sample.video), guide_of(stages, sample.question)
    tokens = visual_tokens_of(stages, watched, guide)
    return Reference(sample, watched, guide, tokens, _first_logits(stages, sample, watched, tokens))


def _changed(stages: Stages, graph_name: str, reference: Reference) -> tuple[Array, Array]:
    """Visual tokens and first logits with the modified graph; earlier stages are not run."""
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
