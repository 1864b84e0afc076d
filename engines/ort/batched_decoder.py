"""The language model in ONNX Runtime on the CPU, several sequences a run.

Weights are read from memory once a run, whatever the number of sequences, and decode steps are
limited by that reading; so a step of several sequences costs little more than one of a single one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count, groupby
from typing import TYPE_CHECKING, cast

import numpy as np

from hicom_edge.engines.cancel import check_cancelled
from hicom_edge.engines.ort.decoder import OnnxRuntimeDecoder
from hicom_edge.engines.ort.kv_rows import (
    CacheShape,
    KvRow,
    bucketed,
    empty_row,
    extended,
    gathered,
)
from hicom_edge.engines.ort.sessions import stoppable
from hicom_edge.engines.sequences import TokenSequence
from hicom_edge.planning.decoder_form import PAST_LENGTHS

if TYPE_CHECKING:
    import onnxruntime

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import EngineOptions
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.device_array import AnyArray, Array

# At 8 the gain of one more sequence has become small (docs/performance.md).
MAX_BATCH = 8
# From this opset on attention is one node, whose kernel goes over the keys of one query at a time.
# Plain MatMuls cut long reductions into pieces of equal length, so that the padded length matters.
_FUSED_OPSET = 23
_NUMBERS = count()


def can_batch(bundle: Bundle, graph_name: str) -> bool:
    """Whether the decoder graph has a batch axis; bundles written before it had one do not."""
    return any(spec.name == PAST_LENGTHS for spec in bundle.graph(graph_name).inputs)


class BatchedDecoder(OnnxRuntimeDecoder):
    """Runs the bundle's `decoder` graph on the CPU; KV caches are host arrays in blocks.

    A step's bits depend on the sequence alone: it is computed over a past that is padded to a
    multiple of `kv_rows.BUCKET` entries, by itself as well as in a batch.
    """

    max_batch = MAX_BATCH

    def __init__(self, bundle: Bundle, provider: str, options: EngineOptions) -> None:
        super().__init__(bundle, provider, options)
        model, tensors = bundle.manifest.model, len(self._past_names)
        self._vocab = model.vocab_size
        self._mixes_buckets = bundle.graph(self.name).opset >= _FUSED_OPSET
        dtype = self._past_dtype
        self.cache_shape = CacheShape(tensors, model.num_kv_heads, model.head_dim, dtype)

    def start(self, cancel: CancelToken | None = None) -> TokenSequence:
        check_cancelled(cancel)
        self._loaded()
        return BatchedSequence(self, empty_row(self.cache_shape))

    def run_rows(
        self,
        rows: Sequence[KvRow],
        inputs_embeds: Array,
        logit_indices: Array,
        cancel: CancelToken | None,
    ) -> tuple[Array, list[KvRow]]:
        """One run of the graph for several sequences.

        Args:
            inputs_embeds: (b, l, Dl), l new tokens of each sequence.
            logit_indices: (k) int64, the positions among the l whose logits are wanted.

        Returns:
            Float32 logits (b, k, V), and the sequences' rows with the new tokens.
        """
        block, new = gathered(rows), inputs_embeds.shape[1]
        lengths, present = [row.length for row in rows], block.present(new)
        logits = np.empty((len(rows), len(logit_indices), self._vocab), np.float32)
        positions = np.array(lengths, dtype=np.int64)[:, None] + np.arange(new)  # (b, l)
        inputs = {
            "inputs_embeds": inputs_embeds,
            "position_ids": positions,
            "logit_indices": logit_indices,
            PAST_LENGTHS: np.array(lengths, dtype=np.int64),
            **dict(zip(self._past_names, block.past, strict=True)),
        }
        outputs = {"logits": logits, **dict(zip(self._present_names, present, strict=True))}
        session = self._loaded()
        binding = bound(session, inputs, outputs)
        with stoppable(cancel, f"{self.name} does not run") as run_options:
            session.run_with_iobinding(binding, run_options)
        return logits, extended(block, lengths, present)

    def _step_batch(
        self, steps: Sequence[tuple[TokenSequence, AnyArray]], cancel: CancelToken | None
    ) -> Iterable[Array]:
        chosen = [cast("BatchedSequence", sequence) for sequence, _ in steps]
        logits: dict[int, Array] = {}
        for indices in self._runs(chosen):
            rows = [chosen[index].cached for index in indices]
            embeds = np.stack([np.asarray(steps[index][1]) for index in indices])  # (b, 1, Dl)
            found, after = self.run_rows(rows, embeds, np.zeros(1, np.int64), cancel)
            for index, row, values in zip(indices, after, found, strict=True):
                chosen[index].cached, logits[index] = row, values[0]
        return [logits[index] for index in range(len(steps))]

    def _runs(self, sequences: Sequence[BatchedSequence]) -> list[list[int]]:
        """Which sequences run together, by index, in an order that stays from step to step."""

        def bucket(index: int) -> int:
            return 0 if self._mixes_buckets else bucketed(sequences[index].length)

        order = sorted(range(len(sequences)), key=lambda i: (bucket(i), sequences[i].number))
        return [list(group) for _, group in groupby(order, key=bucket)]


class BatchedSequence(TokenSequence):
    """A KV cache in a block that other sequences may share."""

    def __init__(self, decoder: BatchedDecoder, cached: KvRow) -> None:
        super().__init__(decoder.name, decoder.llm_dim, decoder.dtype)
        self._decoder, self.cached = decoder, cached
        self.number = next(_NUMBERS)

    @property
    def length(self) -> int:
        return self.cached.length

    def logits_at(
        self, inputs_embeds: AnyArray, indices: Array, cancel: CancelToken | None = None
    ) -> Array:
        """As `append`, with float32 logits (k, V) at `indices` (k) of the embeddings."""
        self.check(inputs_embeds)
        embeds = np.asarray(inputs_embeds)[None]
        logits, rows = self._decoder.run_rows([self.cached], embeds, indices, cancel)
        self.cached = rows[0]
        first: Array = logits[0]
        return first

    def _append(self, inputs_embeds: AnyArray, cancel: CancelToken | None) -> Array:
        last = np.array([len(inputs_embeds) - 1], dtype=np.int64)
        logits: Array = self.logits_at(inputs_embeds, last, cancel)[0]
        return logits

    def _truncate(self, length: int) -> None:
        # Entries behind the length are padding from now on; the next run makes the block fit.
        self.cached = self.cached._replace(length=length)

    def _free(self) -> None:
        self.cached = empty_row(self._decoder.cache_shape)


def bound(
    session: onnxruntime.InferenceSession, inputs: dict[str, Array], outputs: dict[str, Array]
) -> onnxruntime.IOBinding:
    """Inputs and outputs at the addresses of host arrays, which must live until the run is over."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(array))
    for name, array in outputs.items():
        shape, address = list(array.shape), array.ctypes.data
        binding.bind_output(name, "cpu", 0, array.dtype.type, shape, address)
    return binding
