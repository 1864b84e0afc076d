"""The differences that are allowed between two pipelines, by the precision of their graphs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle


@dataclass(frozen=True)
class Tolerances:
    """The largest difference allowed, relative to the largest absolute value of the reference.

    Attributes:
        features, embeddings, guide: outputs of a tower, in whose layers rounding errors add up.
        visual_tokens: of the compressor, which follows both towers.
        logits: of the decoder, which follows everything else.
        min_cosine: the smallest cosine of two tensors, however small the single differences.
        equal_tokens: whether greedy tokens must be equal. If not, they may differ where the two
            best logits of the reference are closer than the tolerance of logits.
    """

    features: float
    embeddings: float
    guide: float
    visual_tokens: float
    logits: float
    min_cosine: float
    equal_tokens: bool


@dataclass(frozen=True)
class Limits:
    """Tolerances of a comparison: of the stages up to the visual tokens, and of the answers."""

    stages: Tolerances
    answers: Tolerances


TOLERANCES = {
    # float32 has 7 digits; sums over thousands of channels and dozens of layers leave at least 3
    "fp32": Tolerances(1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 0.99999, equal_tokens=True),
    # float16 has 3 digits; statistics in float32 keep the error from growing with the width
    "fp16": Tolerances(1e-2, 1e-2, 1e-2, 1e-2, 1e-2, 0.999, equal_tokens=False),
    # Quantisation steps of a quarter of a per cent add up over dozens of layers. Single elements
    # may be far off while the tensor keeps its direction, so the cosine decides. The effect on
    # answers has to be measured by an evaluation.
    "quantized": Tolerances(0.5, 0.5, 0.5, 0.5, 0.5, 0.98, equal_tokens=False),
}

# from the strictest to the most tolerant
_PRECISIONS = ("fp32", "fp16", "quantized")


def tolerances_for(precisions: Iterable[str]) -> Tolerances:
    """The tolerances of the coarsest of several precisions."""
    return TOLERANCES[max(precisions, key=_PRECISIONS.index)]


def precision_of(bundle: Bundle) -> str:
    """The coarsest precision of a bundle's graphs: "fp32", "fp16" or "quantized"."""
    graphs = bundle.manifest.graphs.values()
    kinds = ["quantized" if g.quantization is not None else g.precision for g in graphs]
    return max(kinds, key=_PRECISIONS.index)


def answer_precision(bundle: Bundle) -> str:
    """`precision_of`, including a language model that another runtime executes."""
    entry, graphs = bundle.manifest.language_model, precision_of(bundle)
    if entry is None:
        return graphs
    own = "fp32" if entry.dtype == "fp32" else "fp16"
    return max(graphs, "quantized" if entry.quantization else own, key=_PRECISIONS.index)
