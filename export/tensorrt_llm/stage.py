"""Writes the rank files of one pipeline stage together.

All ranks of a stage are written at the same time, so that each stored tensor is read only once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hicom_edge.export.save import TensorProgress
from hicom_edge.export.tensorrt_llm.blocks import converted, filled_blocks, row_blocks
from hicom_edge.export.tensorrt_llm.encoders import TORCH_DTYPES, encoder_for
from hicom_edge.export.tensorrt_llm.safetensors_writer import SafetensorsWriter
from hicom_edge.export.tensorrt_llm.scales import DecoderScales
from hicom_edge.export.weights import WeightSource
from hicom_edge.planning.llm.layout import rank_file, rank_layouts
from hicom_edge.planning.llm.linears import (
    EMBEDDING,
    FINAL_NORM,
    HEAD,
    KV_SCALE,
    LAYER_NORMS,
    Linear,
    Part,
    head_rows,
    layer_linears,
    source_layer,
    target_layer,
)
from hicom_edge.planning.llm.sharding import Rank

_INT8_MAX = 127


@dataclass(frozen=True)
class StageSource:
    """The inputs of a stage: target configuration, stored tensors, scales and progress."""

    config: Mapping[str, Any]
    tensors: Mapping[str, WeightSource]
    scales: DecoderScales | None
    progress: TensorProgress


def write_stage(source: StageSource, ranks: Sequence[Rank], directory: Path) -> None:
    """Write the files of all ranks of one stage.

    Raises:
        ExportError: a value that does not fit the dtype, or scales that are missing or do not fit.
    """
    with ExitStack() as stack:
        writers = {}
        for rank in ranks:
            layouts = rank_layouts(source.config, rank)
            path = directory / rank_file(rank)
            writer = SafetensorsWriter(path, layouts, source.progress)
            writers[rank] = stack.enter_context(writer)
        _StageWriter(source, writers).write()


@dataclass(frozen=True)
class _StageWriter:
    source: StageSource
    writers: Mapping[Rank, SafetensorsWriter]

    @property
    def first_rank(self) -> Rank:
        return next(iter(self.writers))

    @property
    def dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.source.config["dtype"]]

    def write(self) -> None:
        if self.first_rank.is_first_stage:
            self._replicate(*EMBEDDING)
        layers = self.first_rank.layers(self.source.config["num_hidden_layers"])
        for index, layer in enumerate(layers):
            self._write_layer(target_layer(index), source_layer(layer))
        if self.first_rank.is_last_stage:
            self._replicate(*FINAL_NORM)
            self._write_head()

    def _write_layer(self, target: str, source: str) -> None:
        for written, stored in LAYER_NORMS:
            self._replicate(f"{target}.{written}", f"{source}.{stored}")
        shared = [layer_linears(self.source.config, rank) for rank in self.writers]
        for linears in zip(*shared, strict=True):
            self._write_linear(target, source, linears)
        if self.source.config["quantization"]["kv_cache_quant_algo"] == "INT8":
            self._write_kv_scale(target, source)

    def _write_linear(self, target: str, source: str, linears: Sequence[Linear]) -> None:
        """Write one linear layer; `linears` describes each rank's share of it."""
        name = f"{target}.{linears[0].target}"
        names = [f"{source}.{part.source}" for part in linears[0].parts]
        _, columns = linears[0].whole_size(self.first_rank.tp_size)
        in_features = int(self.source.tensors[f"{names[0]}.weight"].shape[1])
        scales = self.source.scales
        encoder = encoder_for(self.source.config, names, (in_features, columns), scales)
        for number, stored in enumerate(names):
            weight = self._load(f"{stored}.weight")
            for linear, writer in zip(linears, self.writers.values(), strict=True):
                shard = linear.parts[number].shard
                for block in filled_blocks(weight, shard.rows, columns):
                    rows = encoder.rows(block, shard.columns, f"{stored}.weight")
                    _append_all(writer, name, rows)
            if linears[0].bias:
                self._write_bias(name, f"{stored}.bias", [li.parts[number] for li in linears])
        for linear, writer in zip(linears, self.writers.values(), strict=True):
            _append_all(writer, name, encoder.whole(linear.columns))

    def _write_bias(self, name: str, stored: str, parts: Sequence[Part]) -> None:
        """A bias is split like the weight's rows; if columns are split, each rank has all of it."""
        bias = converted(self._load(stored), self.dtype, stored)[:, None]
        for part, writer in zip(parts, self.writers.values(), strict=True):
            for block in filled_blocks(bias, part.shard.rows, 1):
                writer.append(f"{name}.bias", block[:, 0])

    def _write_head(self) -> None:
        """Every rank's rows of the output layer, padded with zeros after the vocabulary."""
        target, stored = HEAD
        tied = stored not in self.source.tensors
        weight = self._load(EMBEDDING[1] if tied else stored)
        for rank, writer in self.writers.items():
            rows = head_rows(self.source.config, rank)
            for block in filled_blocks(weight, rows, weight.shape[1]):
                writer.append(target, converted(block, self.dtype, stored))

    def _write_kv_scale(self, target: str, source: str) -> None:
        assert self.source.scales is not None, "checked by TensorRTLLMOptions.scales_path"
        scale = torch.tensor([self.source.scales.qkv_amax(source) / _INT8_MAX])
        for writer in self.writers.values():
            writer.append(f"{target}.{KV_SCALE}", scale)

    def _replicate(self, target: str, stored: str) -> None:
        values = self._load(stored)
        for block in row_blocks(values):
            rows = converted(block, self.dtype, stored)
            for writer in self.writers.values():
                writer.append(target, rows)

    def _load(self, stored: str) -> Tensor:
        return self.source.tensors[stored].load()


def _append_all(writer: SafetensorsWriter, name: str, tensors: Mapping[str, Tensor]) -> None:
    for suffix, rows in tensors.items():
        writer.append(f"{name}.{suffix}", rows)
