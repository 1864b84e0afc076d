from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.bundle.writer import BundleWriter
from hicom_edge.errors import InputError
from hicom_edge.runtime.prompt import PromptParts
from hicom_edge.verify.pipeline import Pipeline, Prompt
from hicom_edge.verify.reference import CheckpointReference
from hicom_edge.verify.tolerances import TOLERANCES, Limits
from hicom_edge.verify.verification import VerifyOptions, compare_pipelines, verify_bundle

QUESTIONS = ["What is the man doing?", "How many dogs are there?"]
STAGES = ["guide", "visual_tokens", "prefill_logits", "greedy_tokens"]


@pytest.fixture(scope="module")
def video() -> np.ndarray:
    rows, columns = np.mgrid[0:60, 0:90]
    frames = [np.stack([rows * 3, columns * 2, rows + 20 * t], -1) % 256 for t in range(5)]
    return np.stack(frames).astype(np.uint8)


@pytest.fixture
def oracle(reference_checkpoint) -> CheckpointReference:
    """The checkpoint of the reference bundle in PyTorch."""
    return CheckpointReference(reference_checkpoint)


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_every_stage_of_a_good_bundle_is_in_tolerance(variant_bundle, oracle, video, dtype, opset):
    bundle = variant_bundle("release", dtype=dtype, opset=opset)
    results = verify_bundle(bundle, oracle, video, QUESTIONS, VerifyOptions(max_new_tokens=6))
    assert [r.tensor for r in results] == ["features", "embeddings", *STAGES, *STAGES]
    assert [r.question for r in results[2:]] == [q for q in QUESTIONS for _ in STAGES]
    bad = [str(r) for r in results if not r.ok]
    assert not bad, bad
    assert all(r.relative <= TOLERANCES[dtype].logits for r in results)


def test_fp32_agrees_far_better_than_its_tolerance(reference_bundle, oracle, video):
    results = verify_bundle(reference_bundle, oracle, video, QUESTIONS[:1])
    assert max(r.relative for r in results) < 2e-5


@pytest.mark.parametrize("variant", ["mlp2x_gelu", "local_only"])
def test_other_forms_of_compression_are_verified(
    variant_bundle, variant_checkpoint, video, variant
):
    bundle, checkpoint = variant_bundle(variant), CheckpointReference(variant_checkpoint(variant))
    results = verify_bundle(bundle, checkpoint, video, QUESTIONS[:1])
    assert all(r.ok for r in results), [str(r) for r in results]
    assert ("guide" in [r.tensor for r in results]) == (variant == "local_only")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 0}, "num_frames is 0; pass 1 to 1000000, a whole number"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; pass 1 or more"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    reference_bundle, oracle, tmp_path, options, message
):
    from PIL import Image

    Image.new("RGB", (20, 20)).save(tmp_path / "0.png")
    with pytest.raises(InputError, match=message):
        verify_bundle(reference_bundle, oracle, tmp_path, QUESTIONS, VerifyOptions(**options))


def test_an_image_goes_the_way_of_images(variant_bundle, variant_checkpoint, video, tmp_path):
    from PIL import Image

    Image.fromarray(video[0]).save(tmp_path / "frame.png")
    bundle = variant_bundle("mlp2x_gelu")
    checkpoint = CheckpointReference(variant_checkpoint("mlp2x_gelu"))
    results = verify_bundle(bundle, checkpoint, tmp_path / "frame.png", QUESTIONS[:1])
    assert all(r.ok for r in results), [str(r) for r in results]


def test_one_changed_weight_is_found_at_its_stage(reference_bundle, oracle, video, tmp_path):
    damaged = with_changed_weight(reference_bundle, tmp_path / "damaged", "guide", "head.bias")
    results = verify_bundle(damaged, oracle, video, QUESTIONS[:1])
    verdicts = {r.tensor: r.ok for r in results}
    assert verdicts["features"]
    assert verdicts["embeddings"]
    assert not verdicts["guide"]
    assert not verdicts["visual_tokens"]


def test_verify_needs_a_question(reference_bundle, oracle, video):
    with pytest.raises(InputError, match="verify compares answers and got no question"):
        verify_bundle(reference_bundle, oracle, video, [])


def with_changed_weight(bundle: Bundle, target, graph: str, weight: str) -> Bundle:
    """A copy of a bundle in which one weight of one graph is doubled."""
    with BundleWriter(target) as writer:
        for name in bundle.manifest.files:
            (writer.path / name).write_bytes(bundle.file(name).read_bytes())
        path = writer.path / bundle.graph(graph).file
        model = ir.load(path)
        value = model.graph.initializers[weight]
        value.const_value = ir.tensor(value.const_value.numpy() * 2, name=weight)
        ir.save(model, path)
        return writer.finish(bundle.manifest)


class Scripted(Pipeline):
    """A pipeline whose answer and logits are given."""

    def __init__(self, answer: list[int], logits: list[float]) -> None:
        self.answer, self.last = answer, np.array(logits, np.float32)

    def maps(self):
        return {}

    def guide(self, prompt):
        return None

    def visual_tokens(self, guide):
        return np.ones((2, 3), np.float32)

    def logits(self, prompt, visual_tokens, answer=()):
        return self.last

    def greedy(self, prompt, visual_tokens, max_new_tokens):
        return self.answer


def compare_answers(answer, other, logits, precision):
    reference, tested = Scripted(answer, logits), Scripted(other, logits)
    prompt = Prompt("?", None, PromptParts(np.array([1]), np.array([2])))
    limits = Limits(TOLERANCES[precision], TOLERANCES[precision])
    return list(compare_pipelines(reference, tested, [prompt], limits, 4))[-1]


def test_answers_that_part_are_out_of_tolerance_in_fp32_and_say_where():
    result = compare_answers([5, 6, 7], [5, 9, 7], [0.0, 1.0, 1.001], "fp32")
    assert not result.ok
    assert "token 1 is 9, expected 6; the two best logits are 0.001 apart" in str(result)


@pytest.mark.parametrize(("second", "ok"), [(9.95, True), (9.5, False)])
def test_answers_may_part_in_fp16_at_a_near_tie_alone(second, ok):
    assert compare_answers([5, 6], [5, 9], [0.0, second, 10.0], "fp16").ok is ok


def test_an_answer_that_ends_early_parts_at_its_end():
    result = compare_answers([5, 6], [5], [0.0, 1.0, 9.0], "fp16")
    assert not result.ok
    assert "token 1 is the end, expected 6" in str(result)
