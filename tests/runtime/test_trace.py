"""Traces show what the runtime computes, stage by stage, and any engine can be replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hicom_edge.bundle import Bundle
from hicom_edge.engines.base import Engine
from hicom_edge.errors import EngineError, PromptError, VideoError
from hicom_edge.runtime.qa import DEMO_BUNDLE, VideoQA
from hicom_edge.runtime.stages import Stages, compressor_graph
from hicom_edge.runtime.trace import answer_ids_of, trace_question, watch_once
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
def stages(demo: Bundle):
    with Stages(demo, ENGINE) as opened:
        yield opened


def test_answers_are_those_of_the_runtime(stages: Stages, demo: Bundle, asked) -> None:
    directory, items = asked
    with VideoQA(demo, ENGINE) as qa:
        for item in items:
            watched = watch_once(stages, directory / item.video)
            traced = trace_question(stages, watched, item.question)
            answer = qa.ask(qa.watch(directory / item.video), item.question, repetition_penalty=1.0)
            assert (traced.text, traced.token_ids) == (answer.text, answer.token_ids)
            np.testing.assert_array_equal(traced.visual_tokens, answer.visual_tokens)


@pytest.mark.parametrize("name", ["release", "mlp2x_gelu"])
def test_images_and_bundles_without_a_guide_are_answered(
    name: str, variant_bundle, tmp_path: Path
) -> None:
    path, bundle = tmp_path / "frame.png", variant_bundle(name)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8)).save(path)
    with Stages(bundle, ENGINE) as stages, VideoQA(bundle, ENGINE) as qa:
        watched = watch_once(stages, path)
        traced = trace_question(stages, watched, "What?", max_new_tokens=5)
        answer = qa.ask(qa.watch(path), "What?", repetition_penalty=1.0, max_new_tokens=5)
    own = "compressor_image" in bundle.manifest.graphs
    assert watched.modality == "image"
    assert compressor_graph(bundle, "image") == ("compressor_image" if own else "compressor")
    assert (traced.guide is None) == (name == "mlp2x_gelu")
    assert traced.token_ids == answer.token_ids


def test_a_given_answer_runs_behind_the_same_prompt(stages: Stages, asked) -> None:
    directory, items = asked
    watched = watch_once(stages, directory / items[0].video)
    free = trace_question(stages, watched, items[0].question)
    answer_ids = answer_ids_of(stages, "the red circle")
    forced = trace_question(stages, watched, items[0].question, answer_ids)
    np.testing.assert_array_equal(forced.logits, free.logits)
    assert (forced.text, forced.token_ids) == ("the red circle", answer_ids)
    assert trace_question(stages, watched, items[0].question, ()).text == ""


def test_the_logits_are_those_of_the_first_token(stages: Stages, asked) -> None:
    directory, items = asked
    watched = watch_once(stages, directory / items[0].video)
    traced = trace_question(stages, watched, items[0].question)
    assert traced.logits.dtype == np.float32
    assert traced.logits.argmax() == traced.token_ids[0]


def test_an_answer_ends_where_it_is_told_to(stages: Stages, asked) -> None:
    directory, items = asked
    watched = watch_once(stages, directory / items[0].video)
    assert len(trace_question(stages, watched, items[0].question, max_new_tokens=1).token_ids) == 1


def test_a_prompt_beyond_the_context_is_refused(stages: Stages, asked) -> None:
    directory, items = asked
    watched = watch_once(stages, directory / items[0].video)
    with pytest.raises(PromptError, match="the model's context is 512"):
        trace_question(stages, watched, "what is there? " * 300)
    with pytest.raises(PromptError, match="the model's context is 512"):
        trace_question(stages, watched, "what?", answer_ids=[5] * 500)


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


def test_an_engine_that_is_passed_in_is_used_and_stays_the_callers(demo, stages, asked) -> None:
    directory, items = asked
    watched = watch_once(stages, directory / items[0].video)
    with Silent(demo, "guide") as silent:
        decoder = stages.engines.decoder
        with Stages(demo, engines={"guide": silent}, language_model=decoder) as other:
            traced = trace_question(other, watched, items[0].question)
            assert other.engines.decoder is decoder
        assert silent.is_active
    assert not traced.guide.any()
    usual = trace_question(stages, watched, items[0].question)
    assert np.abs(usual.visual_tokens - traced.visual_tokens).max() > 1e-3


def test_engines_are_opened_when_they_are_used_and_freed(demo: Bundle) -> None:
    with Stages(demo, ENGINE) as own:
        engine = own.engines.engine("guide")
        assert own.engines.engine("guide") is engine
        engine.infer({"guide_input_ids": np.zeros(32, np.int64)})
    with pytest.raises(EngineError, match="guide is not loaded"):
        engine.infer({"guide_input_ids": np.zeros(32, np.int64)})
    with pytest.raises(EngineError, match=r"the engines of .* are closed; load it again"):
        own.engines.engine("vision")


def test_a_video_that_cannot_be_read_is_named(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"gone\.mp4: no such file"):
        watch_once(stages, tmp_path / "gone.mp4")
