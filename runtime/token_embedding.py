"""The token embedding of a bundle, memory-mapped."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hicom_edge.bundle import Bundle
from hicom_edge.errors import BundleError


def open_token_embedding(bundle: Bundle) -> NDArray[Any]:
    """The embedding table (V, Dl), of which only used rows are read from disk.

    Raises:
        BundleError: the file is not a float table of this shape.
    """
    path = bundle.file(bundle.manifest.token_embedding)
    try:
        table: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")  # does not unpickle
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} is not a NumPy array ({error}); export the bundle again"
        ) from error
    model = bundle.manifest.model
    if table.shape != (model.vocab_size, model.llm_dim):
        raise BundleError(
            f"{path} has shape {table.shape}, expected ({model.vocab_size}, {model.llm_dim}); "
            "export the bundle again"
        )
    if table.dtype.kind != "f":
        raise BundleError(
            f"{path} holds {table.dtype}, expected float32 or float16; export the bundle again"
        )
    return table
