"""The integer inputs of the decoder graph, for one sequence."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.planning.decoder_form import PAST_LENGTHS

if TYPE_CHECKING:
    from hicom_edge.engines.device_array import Array


def position_inputs(names: Container[str], past: int, new: int) -> dict[str, Array]:
    """Inputs for `new` tokens after `past` ones; the logits of the last one are asked for.

    names: the inputs of the graph. Bundles that were written before the decoder had a batch axis
    have no `past_lengths`.
    """
    inputs: dict[str, Array] = {
        "position_ids": np.arange(past, past + new, dtype=np.int64)[None],  # (1, new)
        "logit_indices": np.array([new - 1], dtype=np.int64),
    }
    if PAST_LENGTHS in names:
        inputs[PAST_LENGTHS] = np.array([past], dtype=np.int64)  # no padding
    return inputs
