"""The least work of each stage of an answer: bytes to read and products to compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hicom_edge.planning.engine_memory import weight_bytes
from hicom_edge.runtime.stages import DECODER

if TYPE_CHECKING:
    from hicom_edge.bench.machine_limits import MachineLimits
    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import Manifest
    from hicom_edge.runtime.answer import Answer, Clip

_ELEMENT_BYTES = {"fp32": 4, "fp16": 2}


@dataclass(frozen=True)
class Work:
    """Bytes that a stage has to read, and multiply-adds that it has to compute."""

    nbytes: float
    multiply_adds: float = 0

    def least_ms(self, machine: MachineLimits) -> float | None:
        return machine.ms(self.nbytes, self.multiply_adds)


def work_of_stages(bundle: Bundle, clip: Clip, answer: Answer) -> dict[str, Work]:
    """The work of the stages for which it is known."""
    manifest, counted = bundle.manifest, answer.timings
    maps = [m for m in (clip.maps.features, clip.maps.embeddings) if m is not None]
    work = {"compress": Work(sum(m.nbytes for m in maps))}
    if (per_patch := _multiply_adds_per_row(manifest, "vision")) is not None:
        weights = weight_bytes(manifest, "vision")
        work["vision"] = Work(weights, per_patch * clip.patch_tokens)
    if DECODER not in manifest.graphs:
        return work
    weights = weight_bytes(manifest, DECODER)
    work["generate"] = Work(weights * counted.decode_steps)  # every step reads all weights
    if (per_token := _multiply_adds_per_row(manifest, DECODER)) is not None:
        # Of a prompt, only the last position goes through the output layer (Dl, vocab).
        per_token -= manifest.model.vocab_size * answer.visual_tokens.shape[1]
        work["prefill"] = Work(weights, per_token * counted.prompt_tokens)
    return work


def _multiply_adds_per_row(manifest: Manifest, graph: str) -> float | None:
    """For one patch or token: one per weight. None for a quantised graph."""
    entry = manifest.graphs[graph]
    if entry.quantization is not None:
        return None
    return weight_bytes(manifest, graph) / _ELEMENT_BYTES[entry.precision]
