"""Engines are opened once and when first needed, whichever thread asks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.errors import BundleError, EngineError
from hicom_edge.runtime import engine_set
from hicom_edge.runtime.engine_set import EngineSet
from hicom_edge.runtime.qa import DEMO_BUNDLE

CPU = "onnxruntime-cpu"


@pytest.fixture
def engines():
    opened = EngineSet(Bundle.open(DEMO_BUNDLE), CPU)
    yield opened
    opened.close()


def test_threads_share_one_engine(engines, monkeypatch) -> None:
    loaded = []
    load_engine = engine_set.load_engine

    def counted(*arguments):
        loaded.append(arguments[1])
        return load_engine(*arguments)

    monkeypatch.setattr(engine_set, "load_engine", counted)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(engines.engine, ["guide", "vision"] * 8))
    assert sorted(loaded) == ["guide", "vision"]
    assert len({id(engine) for engine in found}) == 2
    assert engines.language_model is engines.decoder


def test_a_graph_that_is_not_there_is_named(engines) -> None:
    with pytest.raises(BundleError, match="has no graph 'nothing'"):
        engines.engine("nothing")


def test_nothing_stays_open_when_one_engine_does_not_open(engines, monkeypatch) -> None:
    def refused(*arguments):
        raise EngineError("no decoder here")

    vision = engines.engine("vision")
    monkeypatch.setattr(engine_set, "load_decoder", refused)
    with pytest.raises(EngineError, match="no decoder here"):
        engines.open_all()
    with pytest.raises(EngineError, match="vision is not loaded"):
        vision.infer({"pixel_values": np.zeros((1, 3, 84, 84), np.float32)})
    with pytest.raises(EngineError, match="are closed; load it again"):
        engines.engine("guide")
