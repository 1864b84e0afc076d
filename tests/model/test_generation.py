"""The checkpoint's generation settings, and what overrides them."""

from __future__ import annotations

import pytest
import torch

from hicom_edge.model import HicomModel, load_checkpoint

PROMPT = torch.arange(20)


@pytest.fixture(scope="module")
def model(reference_checkpoint) -> HicomModel:
    return load_checkpoint(reference_checkpoint)


@pytest.fixture
def answer(model: HicomModel, monkeypatch: pytest.MonkeyPatch):
    """Token ids under settings of generation_config.json and options of the call."""

    def run(settings: dict, **options: object) -> list[int]:
        monkeypatch.setattr(model, "generation_config", settings)
        torch.manual_seed(0)
        return model.generate(PROMPT, max_new_tokens=8, **options)

    return run


def test_answers_are_greedy_whatever_a_chat_is_sampled_with(answer) -> None:
    assert answer({"do_sample": True, "temperature": 9.0, "top_k": 5}) == answer({})


def test_repetition_is_penalised_as_the_checkpoint_says_unless_told_otherwise(answer) -> None:
    plain, penalised = answer({}), answer({"repetition_penalty": 1.05})
    assert plain != penalised
    assert answer({"repetition_penalty": 1.05}, repetition_penalty=1.0) == plain
    assert answer({"repetition_penalty": None}) == plain


def test_drawing_takes_the_checkpoints_temperature_and_filters(answer) -> None:
    narrow = {"temperature": 50.0, "top_k": 1}
    assert answer(narrow, do_sample=True) == answer({})
    assert answer(narrow, do_sample=True, top_k=100) != answer({})


def test_other_settings_of_the_checkpoint_count(answer) -> None:
    first = answer({})[0]
    assert answer({"suppress_tokens": [first], "transformers_version": "4.46.3"})[0] != first
    assert len(answer({"max_length": 3})) == 8
