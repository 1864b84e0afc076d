"""Tensors on disk that are read one at a time: safetensors shards, and mm_projector.bin."""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hicom_edge.errors import CheckpointError

PROJECTOR_FILE = "mm_projector.bin"
INDEX_FILE = "model.safetensors.index.json"
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# no weight has one of these; old checkpoints hold such buffers, which are not read
_DTYPES |= {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8}
_DTYPES |= {"U8": torch.uint8, "BOOL": torch.bool}
_DTYPES |= {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been read: its shape, its dtype and a function that reads it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    def load(self) -> Tensor:
        """Read this tensor."""
        return self.read()


Tensors = Mapping[str, StoredTensor]


def safetensors_in(directory: Path) -> dict[str, StoredTensor]:
    """All tensors of a directory's shards, by their names; empty without safetensors files.

    Raises:
        CheckpointError: a shard that the index names is missing, or a file is damaged.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in shard_files(directory):
        tensors.update(_tensors_of(path))
    return tensors


def shard_files(directory: Path) -> list[Path]:
    """The safetensors files that make up a checkpoint."""
    index = directory / INDEX_FILE
    if not index.is_file():
        return sorted(directory.glob("*.safetensors"))
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is not a safetensors index ({error}); download the checkpoint again"
        ) from error
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{directory} lacks the shards {missing} that {INDEX_FILE} names; "
            "download the checkpoint again"
        )
    return [directory / name for name in names]


def projector_file_in(directory: Path) -> dict[str, StoredTensor]:
    """The tensors of a stage-1 or stage-2 mm_projector.bin; empty without that file.

    Raises:
        CheckpointError: the file holds anything but tensors, which alone are unpickled.
    """
    path = directory / PROJECTOR_FILE
    if not path.is_file():
        return {}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a file of tensors alone ({_first_line(error)}); "
            "do not use it unless you trust its source and have converted it to safetensors"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} does not hold a mapping of names to tensors")
    return {
        name: StoredTensor(tuple(t.shape), t.dtype, functools.partial(lambda x: x, t))
        for name, t in state.items()
    }


def _tensors_of(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
                part = file.get_slice(name)
                dtype = _DTYPES.get(part.get_dtype())
                if dtype is None:
                    raise CheckpointError(
                        f"{path}: {name} has dtype {part.get_dtype()}, expected {list(_DTYPES)}"
                    )
                read = functools.partial(_read, path, name)
                yield name, StoredTensor(tuple(part.get_shape()), dtype, read)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({_first_line(error)}); download it again"
        ) from error


def _read(path: Path, name: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
