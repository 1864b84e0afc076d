"""Engines are chosen by name, and a choice that cannot be had says what can."""

from __future__ import annotations

import pytest

from hicom_edge.engines import choose_backend, engine_names, load_decoder, load_engine, why_not
from hicom_edge.engines.base import EngineOptions
from hicom_edge.errors import BundleError, EngineError, InputError
from hicom_edge.planning.machine import Machine


def test_auto_takes_the_first_engine_that_is_available() -> None:
    available = [name for name in engine_names() if why_not(name) is None]
    assert choose_backend("auto").name == available[0]


def test_a_backend_is_found_under_its_own_name() -> None:
    assert choose_backend("onnxruntime-cpu").name == "onnxruntime-cpu"


def test_an_unknown_engine_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(
        EngineError, match=r"there is no engine 'warp'; the engines are auto, .*onnxruntime-cpu"
    ):
        choose_backend("warp")


def test_an_engine_that_is_not_here_says_why_and_what_is() -> None:
    with pytest.raises(
        EngineError,
        match=r"engine onnxruntime-cuda is not available: no NVIDIA GPU.*"
        r"available here: onnxruntime-cpu",
    ):
        choose_backend("onnxruntime-cuda", machine=Machine())


def test_an_unknown_graph_is_refused_with_the_graphs_of_the_bundle(tiny_bundle) -> None:
    with pytest.raises(BundleError, match=r"no graph 'audio'; it has \['decoder'"):
        load_engine(tiny_bundle, "audio")


def test_load_decoder_gives_the_size_and_dtype_of_its_embeddings(tiny_bundle) -> None:
    decoder = load_decoder(tiny_bundle)
    assert (decoder.llm_dim, decoder.dtype) == (4, "float32")


@pytest.mark.parametrize("threads", [0, -1, 100_000, 10**14])
def test_no_threads_and_absurdly_many_are_refused(threads) -> None:
    expected = f"threads is {threads}; pass 1 to 1024, a whole number"
    with pytest.raises(InputError, match=expected):
        EngineOptions(threads=threads)
