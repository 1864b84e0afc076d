"""Options are checked when they are made, before a checkpoint is opened."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args, get_type_hints

import pytest

from hicom_edge.errors import ExportError
from hicom_edge.export.export_options import (
    EdgeLLMOptions,
    ExportKeywords,
    ExportOptions,
    OnnxDecoderOptions,
    TensorRTLLMOptions,
    Version,
    language_model_options,
)
from hicom_edge.export.exporter import export_bundle
from hicom_edge.planning.llm.versions import VERSIONS


@pytest.mark.parametrize("opset", [None, 11, 17, 21, 22, 99])
def test_other_opsets_are_refused_with_those_that_work(opset):
    with pytest.raises(ExportError, match=f"opset is {opset}; pass one of 23, 20, 19, 18"):
        ExportOptions(opset=opset)


def test_an_unknown_dtype_is_refused_with_those_that_work():
    with pytest.raises(ExportError, match="dtype is 'int3'; pass one of fp32, fp16"):
        ExportOptions(dtype="int3")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"version": "0.9"}, r"version is '0\.9'; pass one of 1\.x, 0\.12"),
        ({"dtype": "int8"}, "dtype is 'int8'; pass one of fp32, fp16, bf16"),
        ({"quantization": "FP8"}, "quantization is 'FP8'; pass one of W8A16, W4A16, W4A16_AWQ"),
        ({"group_size": 32}, "group_size is 32; pass one of 128, 64"),
        ({"tp_size": 0}, "tp_size is 0; pass 1 or more"),
        ({"dtype": "fp32", "quantization": "W8A16"}, "has no fp32 kernel for W8A16; use dtype fp1"),
    ],
)
def test_tensorrt_llm_options_that_do_not_exist_are_refused(given, message):
    with pytest.raises(ExportError, match=message):
        TensorRTLLMOptions(**given)


def test_the_versions_are_those_that_the_engine_runs():
    assert set(get_args(Version)) == set(VERSIONS)


def test_a_language_model_takes_its_own_options_alone():
    assert language_model_options("onnx", form=None, tp_size=None) == OnnxDecoderOptions()
    chosen = language_model_options("tensorrt-llm", dtype="bf16", tp_size=2, version=None)
    assert chosen == TensorRTLLMOptions(dtype="bf16", tp_size=2)
    assert language_model_options("tensorrt-edge-llm", dtype="fp16") == EdgeLLMOptions()
    with pytest.raises(ExportError, match=r"^tp_size, version: no option of .* 'onnx', which has"):
        language_model_options("onnx", version="1.x", tp_size=2)
    with pytest.raises(ExportError, match=r"language model is 'vllm'; expected onnx, tensorrt-llm"):
        language_model_options("vllm")
    with pytest.raises(ExportError, match=r"group_size is for the quantization W4A16_AWQ alone"):
        language_model_options("tensorrt-llm", quantization="W8A16", group_size=64)


def test_the_keywords_of_export_bundle_are_the_fields_of_the_options(tmp_path):
    assert list(get_type_hints(ExportKeywords)) == [field.name for field in fields(ExportOptions)]
    with pytest.raises(TypeError, match="unexpected keyword argument 'decoder_form'"):
        export_bundle(tmp_path, tmp_path / "bundle", decoder_form="scatter")


def test_keywords_replace_fields_of_the_options(variant_checkpoint, tmp_path):
    options = ExportOptions(dtype="fp16", opset=20)
    exported = export_bundle(
        variant_checkpoint("local_only"), tmp_path / "bundle", options, opset=18
    )
    vision = exported.bundle.graph("vision")
    assert (vision.precision, vision.opset) == ("fp16", 18)
    assert exported.language_model is None
