"""The whole way of a quantised language model: export, calibrate, export for TensorRT-LLM, answer.

The demo's language model answers about moving shapes. What is written for TensorRT-LLM is run in
NumPy straight from its files, with the visual tokens in a prompt table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tensorrt_llm_forward import NumpyTensorRTLLM

from hicom_edge import VideoQA
from hicom_edge.bundle import Bundle
from hicom_edge.cli import main
from hicom_edge.engines import load_decoder
from hicom_edge.runtime.prompt import PromptBuilder
from hicom_edge.runtime.token_embedding import open_token_embedding
from hicom_edge.shapes.held_out import QUESTIONS_FILE, write_held_out

CHECKPOINT = Path(__file__).resolve().parents[3] / "demo" / "checkpoint"
PROMPTS = 20
NEW_TOKENS = 6
# Options of the calibration and of the export, and how far the logits may be from those of the
# calibrated decoder graph. INT8 is the same rounding there and here (0.005 measured). INT4 is not:
# the graph's weights are clipped, and these are not (0.045 measured). An MLP whose halves are
# swapped is at 0.18 and more, though it says the same in 19 of 20 answers.
FORMS = {
    "W8A8_SQ_PER_CHANNEL": (["--decoder", "int8"], [], 0.02),
    "W4A16_AWQ": (["--decoder", "int4", "--block", "128"], ["--int8-kv-cache"], 0.09),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("clips")
    write_held_out(directory, PROMPTS, seed=91)
    return directory


@pytest.fixture(scope="module")
def float_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("float") / "bundle"
    assert main(["export", str(CHECKPOINT), "-o", str(target)]) == 0
    return target


@dataclass(frozen=True)
class Asked:
    """A question as the float model answers it; ids are -1 where visual tokens stand."""

    ids: np.ndarray
    visual_tokens: np.ndarray
    answer: tuple[int, ...]


@pytest.fixture(scope="module")
def prompts(clips: Path, float_bundle: Path) -> list[Asked]:
    lines, found = (clips / QUESTIONS_FILE).read_text().splitlines(), []
    with VideoQA.load(float_bundle, "onnxruntime-cpu") as qa:
        for sample in map(json.loads, lines[:PROMPTS]):
            clip, question = qa.watch(clips / sample["video"]), sample["question"]
            answer = qa.ask(clip, question, max_new_tokens=NEW_TOKENS, repetition_penalty=1.0)
            before, after = PromptBuilder(qa.bundle).build(question, clip.modality)
            ids = np.concatenate([before, [-1] * len(answer.visual_tokens), after])
            found.append(Asked(ids, answer.visual_tokens, answer.token_ids))
    assert len({asked.answer for asked in found}) > 3  # not one answer to everything
    return found


@pytest.mark.slow
@pytest.mark.parametrize("quantization", FORMS)
def test_calibrated_files_compute_what_the_calibrated_bundle_computes(
    clips, float_bundle, prompts, tmp_path, quantization
):
    calibrate, export, limit = FORMS[quantization]
    scales, target = tmp_path / "calibrated", tmp_path / "bundle"
    keep = [part for graph in ("vision", "guide", "compressor") for part in ("--keep", graph)]
    samples = ["--videos", str(clips), "--samples", "6", "--held-out-samples", "4"]
    given = [*samples, *keep, *calibrate]
    assert main(["calibrate", str(float_bundle), "-o", str(scales), *given]) == 0
    given = ["--dtype", "fp16", "--quantization", quantization, "--scales", str(scales), *export]
    given = ["-o", str(target), "--llm", "tensorrt-llm", *given]
    assert main(["export", str(CHECKPOINT), *given]) == 0
    llm, bundle = NumpyTensorRTLLM(target / "llm"), Bundle.open(scales)
    stops = bundle.manifest.generation.stop_token_ids
    equal = sum(greedy(llm, asked, stops) == asked.answer for asked in prompts)
    assert equal >= 0.8 * len(prompts)
    expected = logits_of(bundle, prompts)
    assert distance(llm, prompts, expected) < limit
    for name in [name for name in llm.ranks[0] if ".mlp.fc." in name]:
        other = name.replace(".fc.", ".gate.")
        llm.ranks[0][name], llm.ranks[0][other] = llm.ranks[0][other], llm.ranks[0][name]
    assert distance(llm, prompts, expected) > 1.5 * limit  # such a fault is seen


def logits_of(bundle: Bundle, prompts: list[Asked]) -> list[np.ndarray]:
    """What the bundle's decoder graph says after each prompt."""
    table, found = open_token_embedding(bundle), []
    with load_decoder(bundle, "onnxruntime-cpu") as decoder:
        for asked in prompts:
            rows = np.array(table[asked.ids], np.float32)
            rows[asked.ids < 0] = asked.visual_tokens
            found.append(decoder.start().append(rows))
    return found


def distance(
    llm: NumpyTensorRTLLM, prompts: list[Asked], expected: list[np.ndarray]
) -> np.floating:
    """The mean distance of the first token's logits, as a part of their length."""
    return np.mean(
        [
            np.linalg.norm(llm.logits(table_ids(llm, asked), asked.visual_tokens)[-1] - logits)
            / np.linalg.norm(logits)
            for asked, logits in zip(prompts, expected, strict=True)
        ]
    )


def greedy(llm: NumpyTensorRTLLM, asked: Asked, stops: tuple[int, ...]) -> tuple[int, ...]:
    """The answer's ids; the prompt is run again for every token."""
    ids, answer = table_ids(llm, asked), []
    while len(answer) < NEW_TOKENS:
        tokens = np.concatenate([ids, answer]).astype(int)
        token = int(llm.logits(tokens, asked.visual_tokens)[-1].argmax())
        if token in stops:
            break
        answer.append(token)
    return tuple(answer)


def table_ids(llm: NumpyTensorRTLLM, asked: Asked) -> np.ndarray:
    ids = asked.ids.copy()
    ids[ids < 0] = llm.config["vocab_size"] + np.arange(len(asked.visual_tokens))
    return ids
