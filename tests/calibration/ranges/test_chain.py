"""The chain makes what the runtime makes, stage by stage, and any stage can be replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.ranges.chain import Chain, compressor_of
from hicom_edge.engines.base import Engine
from hicom_edge.errors import EngineError, PromptError, VideoError
from hicom_edge.runtime.qa import DEMO_BUNDLE, VideoQA
from hicom_edge.shapes.held_out import HeldOutQuestion, write_held_out

ENGINE = "onnxruntime-cpu"


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle.open(DEMO_BUNDLE)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[HeldOutQuestion]]:
    directory = tmp_path_factory.mktemp("clips")
    return directory, write_held_out(directory, 8)


@pytest.fixture(scope="module")
def chain(demo: Bundle):
    with Chain(demo) as opened:
        yield opened


def test_answers_are_those_of_the_runtime(chain: Chain, demo: Bundle, asked) -> None:
    directory, items = asked
    with VideoQA(demo, ENGINE) as qa:
        for item in items:
            watched = chain.watch(directory / item.video)
            trace = chain.trace(watched.maps, watched.modality, item.question)
            answer = qa.ask(qa.watch(directory / item.video), item.question, repetition_penalty=1.0)
            assert (trace.text, trace.token_ids) == (answer.text, answer.token_ids)
            np.testing.assert_array_equal(trace.visual_tokens, answer.visual_tokens)


@pytest.mark.parametrize("name", ["release", "mlp2x_gelu"])
def test_images_and_bundles_without_a_guide_are_answered(
    name: str, variant_bundle, tmp_path: Path
) -> None:
    path, bundle = tmp_path / "frame.png", variant_bundle(name)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8)).save(path)
    with Chain(bundle) as chain, VideoQA(bundle, ENGINE) as qa:
        watched = chain.watch(path)
        trace = chain.trace(watched.maps, watched.modality, "What?", max_new_tokens=5)
        answer = qa.ask(qa.watch(path), "What?", repetition_penalty=1.0, max_new_tokens=5)
    own = "compressor_image" in bundle.manifest.graphs
    assert watched.modality == "image"
    assert compressor_of(bundle, "image") == ("compressor_image" if own else "compressor")
    assert (trace.guide is None) == (name == "mlp2x_gelu")
    assert trace.token_ids == answer.token_ids


def test_a_given_answer_runs_behind_the_same_prompt(chain: Chain, asked) -> None:
    directory, items = asked
    watched = chain.watch(directory / items[0].video)
    free = chain.trace(watched.maps, watched.modality, items[0].question)
    answer_ids = chain.answer_ids("the red circle")
    forced = chain.trace(watched.maps, watched.modality, items[0].question, answer_ids)
    np.testing.assert_array_equal(forced.logits, free.logits)
    assert (forced.text, forced.token_ids) == ("the red circle", answer_ids)
    assert chain.trace(watched.maps, "video", items[0].question, ()).text == ""


def test_the_logits_are_those_of_the_first_token(chain: Chain, asked) -> None:
    directory, items = asked
    watched = chain.watch(directory / items[0].video)
    trace = chain.trace(watched.maps, watched.modality, items[0].question)
    assert trace.logits.dtype == np.float32
    assert trace.logits.argmax() == trace.token_ids[0]


def test_an_answer_ends_where_it_is_told_to(chain: Chain, asked) -> None:
    directory, items = asked
    maps = chain.maps(directory / items[0].video)
    assert len(chain.trace(maps, "video", items[0].question, max_new_tokens=1).token_ids) == 1


def test_a_prompt_beyond_the_context_is_refused(chain: Chain, asked) -> None:
    directory, items = asked
    maps = chain.maps(directory / items[0].video)
    with pytest.raises(PromptError, match="the model's context is 512"):
        chain.trace(maps, "video", "what is there? " * 300)
    with pytest.raises(PromptError, match="the model's context is 512"):
        chain.trace(maps, "video", "what?", answer_ids=[5] * 500)


class Silent(Engine):
    """Stands for an engine, and gives zeros."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        entry = bundle.graph(name)
        self.name, self.inputs, self.outputs = name, entry.inputs, entry.outputs
        self.is_active = False

    def activate(self) -> None:
        self.is_active = True

    def deactivate(self) -> None:
        self.is_active = False

    def _infer(self, feed_dict, cancel):
        del feed_dict, cancel
        return {"guide": np.zeros(self.outputs[0].shape, np.float32)}


def test_an_engine_that_is_passed_in_is_used_and_stays_the_callers(demo, chain, asked) -> None:
    directory, items = asked
    maps = chain.maps(directory / items[0].video)
    with Silent(demo, "guide") as silent:
        with Chain(demo, {"guide": silent}, chain.decoder) as other:
            trace = other.trace(maps, "video", items[0].question)
            assert other.decoder is chain.decoder
        assert silent.is_active
    assert not trace.guide.any()
    usual = chain.trace(maps, "video", items[0].question)
    assert np.abs(usual.visual_tokens - trace.visual_tokens).max() > 1e-3


def test_what_the_chain_loaded_is_freed(demo: Bundle) -> None:
    with Chain(demo) as own:
        engine = own.engine("guide")
        own.guide("what?")
    with pytest.raises(EngineError, match="guide is not loaded"):
        engine.infer({"guide_input_ids": np.zeros(32, np.int64)})


def test_a_video_that_cannot_be_read_is_named(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"gone\.mp4: no such file"):
        chain.watch(tmp_path / "gone.mp4")
