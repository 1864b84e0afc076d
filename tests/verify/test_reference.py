"""Which two sides `verify` compares, and that two engines are compared without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorrt_stand_in import HostMemory, stand_in_backend

from hicom_edge.engines.tensorrt import backend as tensorrt_backend
from hicom_edge.errors import InputError
from hicom_edge.verify.reference import (
    CheckpointReference,
    EngineReference,
    choose_reference,
)
from hicom_edge.verify.tolerances import precision_of
from hicom_edge.verify.verification import VerifyOptions, verify_bundle

CPU, STAND_IN = "onnxruntime-cpu", "tensorrt"
QUESTIONS = ["What is the man doing?"]


@pytest.fixture(scope="module")
def video() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> str:
    """The TensorRT engines' own code, over a stand-in for TensorRT's context."""

    backend = stand_in_backend(STAND_IN, HostMemory, 8)
    monkeypatch.setattr(tensorrt_backend, "TENSORRT_BACKEND", backend)
    return STAND_IN


def test_two_engines_of_one_bundle_are_compared(reference_bundle, video, tensorrt: str) -> None:
    reference = choose_reference(reference_bundle, against=CPU)
    results = verify_bundle(
        reference_bundle,
        reference,
        video,
        QUESTIONS,
        VerifyOptions(max_new_tokens=4, engine=tensorrt),
    )
    assert [r.tensor for r in results][:2] == ["features", "embeddings"]
    assert len(results) == 6
    assert all(r.ok for r in results), [str(r) for r in results]
    assert max(r.relative for r in results) < 1e-5


@pytest.mark.parametrize("other", [{"opset": 20}, {"dtype": "fp16"}])
def test_two_bundles_of_one_checkpoint_are_compared(
    reference_bundle, variant_bundle, video, other: dict[str, object]
) -> None:
    bundle = variant_bundle("release", **other)
    reference = choose_reference(bundle, reference=reference_bundle)
    results = verify_bundle(bundle, reference, video, QUESTIONS, VerifyOptions(max_new_tokens=4))
    assert all(r.ok for r in results), [str(r) for r in results]
    assert {r.tolerance for r in results} - {0} == {1e-2 if "dtype" in other else 1e-3}


def test_the_coarser_side_decides_the_tolerance(reference_bundle, variant_bundle) -> None:
    assert precision_of(reference_bundle) == "fp32"
    assert precision_of(variant_bundle("release", dtype="fp16")) == "fp16"
    graphs = dict(reference_bundle.manifest.graphs)
    graphs["vision"] = replace(graphs["vision"], quantization="int8")
    manifest = replace(reference_bundle.manifest, graphs=graphs)
    assert precision_of(replace(reference_bundle, manifest=manifest)) == "quantized"


def test_one_bundle_in_one_engine_is_nothing_to_compare(reference_bundle, video) -> None:
    reference = choose_reference(reference_bundle, against=CPU)
    with pytest.raises(
        InputError, match=r"both sides are .* in onnxruntime-cpu, expected two engines or"
    ):
        verify_bundle(reference_bundle, reference, video, QUESTIONS)


def test_bundles_of_different_models_are_refused(reference_bundle, variant_bundle, video) -> None:
    reference = EngineReference(variant_bundle("local_only"))
    with pytest.raises(InputError, match=r"are not bundles of one model \(their model differs\)"):
        verify_bundle(reference_bundle, reference, video, QUESTIONS)


@pytest.mark.parametrize("other", ["local_only", "mlp2x_gelu"])
def test_a_checkpoint_of_another_model_is_refused(
    reference_bundle, variant_checkpoint, video, other: str
) -> None:
    reference = CheckpointReference(variant_checkpoint(other))
    with pytest.raises(
        InputError, match=r"was not exported from .*: they have .*_injection '"
    ) as e:
        verify_bundle(reference_bundle, reference, video, QUESTIONS)
    assert "\n" not in str(e.value)


def test_a_checkpoint_is_compared_with_in_pytorch(reference_bundle) -> None:
    for against in (None, "pytorch"):
        found = choose_reference(reference_bundle, "checkpoint", against)
        assert found == CheckpointReference("checkpoint")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "there is nothing to compare with; pass a checkpoint .*, an engine or a reference"),
        (
            {"against": "pytorch"},
            "a comparison with pytorch needs the checkpoint; pass the checkpoint",
        ),
        (
            {"against": CPU, "vision_tower": "t"},
            "base_llm and vision_tower belong to a checkpoint, and there is none; pass",
        ),
        (
            {"checkpoint": "c", "against": CPU},
            "a checkpoint runs in PyTorch and cannot be combined with an engine or a ref",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    reference_bundle, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        choose_reference(reference_bundle, **options)


def test_the_command_compares_two_bundles_without_pytorch(
    reference_bundle, variant_bundle, tmp_path: Path
) -> None:
    other = variant_bundle("release", opset=20)
    arguments = ["verify", str(other.path), "--reference", str(reference_bundle.path)]
    arguments += ["--num-frames", "2", "--max-new-tokens", "2", "--question", "Why?", "--json"]
    code = (
        "import sys; from hicom_edge.cli import main; "
        f"status = main({arguments!r}); "
        "print(status, 'torch' in sys.modules, 'onnx' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(result["ok"] for result in json.loads(done.stdout))
    assert done.stderr.splitlines()[-1] == "0 False False"
