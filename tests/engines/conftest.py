"""A bundle of the graphs of `tiny_graphs`."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_graphs import (
    DIM,
    VOCAB,
    decoder_graph,
    greedy_memory_graph,
    vision_graph,
    write_bundle,
)

from hicom_edge.bundle import Bundle


@pytest.fixture(scope="session")
def tiny_weight() -> np.ndarray:
    """The decoder's only weight, (DIM, VOCAB)."""
    return np.random.default_rng(0).normal(size=(DIM, VOCAB)).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_weight: np.ndarray) -> Bundle:
    """Graphs `vision` (mean per patch), `greedy_memory` (asks for too much), `decoder`."""
    graphs = {
        "vision": vision_graph(),
        "greedy_memory": greedy_memory_graph(),
        "decoder": decoder_graph(tiny_weight),
    }
    return write_bundle(tmp_path_factory.mktemp("tiny") / "bundle", graphs)
