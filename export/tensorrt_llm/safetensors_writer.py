"""Writes a safetensors file block by block.

The library's own writer needs all tensors in memory at once. Format
(github.com/huggingface/safetensors, "Format"): 8 bytes with the header's length, a JSON header, and
the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch

from hicom_edge.export.save import TensorProgress
from hicom_edge.planning.llm.layout import Layout

_ALIGNMENT = 8
_DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I8": torch.int8,
}


class SafetensorsWriter:
    """Writes a file whose tensors' names, dtypes and shapes are known in advance.

    Use as a context manager. The rows of a tensor are appended in order; different tensors may be
    appended alternately. `progress(name, bytes)` is called before each write.
    """

    def __init__(self, path: Path, layouts: Mapping[str, Layout], progress: TensorProgress) -> None:
        self._layouts, self._progress = layouts, progress
        # Tensors with wide elements first, so that each starts at a multiple of its element size.
        order = sorted(layouts, key=lambda name: -layouts[name].item_bytes)
        self._places, end = {}, 0
        for name in order:
            self._places[name] = end
            end += layouts[name].nbytes
        self._written = dict.fromkeys(order, 0)
        self._file = path.open("wb")
        self._start = self._file.write(_header(layouts, self._places))

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if kind is None:
            unfinished = [n for n, layout in self._layouts.items() if self._left(n, layout)]
            assert not unfinished, f"never written to the end: {unfinished}"

    def append(self, name: str, rows: torch.Tensor) -> None:
        """Write the next rows of a tensor, in its own dtype."""
        layout = self._layouts[name]
        nbytes = rows.numel() * rows.element_size()
        assert rows.dtype == _DTYPES[layout.dtype], f"{name} is {rows.dtype}, not {layout.dtype}"
        assert rows.shape[1:] == layout.shape[1:], f"{name}: rows {rows.shape} of {layout.shape}"
        assert nbytes <= self._left(name, layout), f"{name} has too many rows"
        self._progress(name, nbytes)
        self._file.seek(self._start + self._places[name] + self._written[name])
        self._file.write(rows.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self._written[name] += nbytes

    def _left(self, name: str, layout: Layout) -> int:
        return layout.nbytes - self._written[name]


def _header(layouts: Mapping[str, Layout], places: Mapping[str, int]) -> bytes:
    entries = {
        name: {
            "dtype": layouts[name].dtype,
            "shape": list(layouts[name].shape),
            "data_offsets": [place, place + layouts[name].nbytes],
        }
        for name, place in places.items()
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
