"""A bundle of tiny graphs made by hand, whose outputs can be computed with a line of NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hicom_edge.bundle import Bundle
from hicom_edge.bundle.manifest import (
    ChatSpec,
    FrameSpec,
    GenerationSpec,
    GraphEntry,
    Manifest,
    ModelSpec,
    Provenance,
    TensorSpec,
)
from hicom_edge.bundle.writer import BundleWriter

DIM, VOCAB, LAYERS = 4, 7, 2
DTYPES = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64"}


def vision_graph() -> onnx.ModelProto:
    """features = mean of pixel_values over its channels."""
    axes = numpy_helper.from_array(np.array([1]), "axes")
    node = helper.make_node("ReduceMean", ["pixel_values", "axes"], ["features"], keepdims=0)
    pixel_values = value("pixel_values", TensorProto.FLOAT, ("t", 3, 2, 2))
    features = value("features", TensorProto.FLOAT, ("t", 2, 2))
    return model([node], [pixel_values], [features], [axes])


def greedy_memory_graph() -> onnx.ModelProto:
    """zeros of the shape that is asked for."""
    node = helper.make_node("ConstantOfShape", ["shape"], ["zeros"])
    shape = value("shape", TensorProto.INT64, ("n",))
    return model([node], [shape], [value("zeros", TensorProto.FLOAT, ("size",))], [])


def decoder_graph(weight: np.ndarray) -> onnx.ModelProto:
    """logits at row i = embedding[i] @ weight + position[i] + sum of the first layer's cache.

    Each layer's present is its past followed by the embeddings, times layer + 1.
    """
    past = ("batch", 1, "past", DIM)
    total = ("batch", 1, "total", DIM)
    inputs = [
        value("inputs_embeds", TensorProto.FLOAT, (1, "l", DIM)),
        value("position_ids", TensorProto.INT64, (1, "l")),
        value("logit_indices", TensorProto.INT64, ("k",)),
    ]
    outputs = [value("logits", TensorProto.FLOAT, (1, "k", VOCAB))]
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array([1]), "one"),
        numpy_helper.from_array(np.array([2]), "two"),
    ]
    nodes = [helper.make_node("Unsqueeze", ["inputs_embeds", "one"], ["rows"])]
    for layer in range(LAYERS):
        constants.append(numpy_helper.from_array(np.float32(layer + 1), f"factor{layer}"))
        nodes.append(helper.make_node("Mul", ["rows", f"factor{layer}"], [f"rows{layer}"]))
        for part in ("key", "value"):
            old, new = f"past_key_values.{layer}.{part}", f"present.{layer}.{part}"
            nodes.append(helper.make_node("Concat", [old, f"rows{layer}"], [new], axis=2))
            inputs.append(value(old, TensorProto.FLOAT, past))
            outputs.append(value(new, TensorProto.FLOAT, total))
    nodes += [
        helper.make_node("Gather", ["inputs_embeds", "logit_indices"], ["chosen"], axis=1),
        helper.make_node("MatMul", ["chosen", "weight"], ["projected"]),
        helper.make_node("Gather", ["position_ids", "logit_indices"], ["places"], axis=1),
        helper.make_node("Cast", ["places"], ["float_places"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["float_places", "two"], ["columns"]),
        helper.make_node("Add", ["projected", "columns"], ["placed"]),
        helper.make_node("ReduceSum", ["present.0.key"], ["memory"], keepdims=0),
        helper.make_node("Add", ["placed", "memory"], ["logits"]),
    ]
    return model(nodes, inputs, outputs, constants)


def value(name: str, dtype: int, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 18)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(proto)
    return proto


def write_bundle(target: Path, graphs: dict[str, onnx.ModelProto]) -> Bundle:
    with BundleWriter(target) as writer:
        for name, proto in graphs.items():
            onnx.save(proto, writer.path / f"{name}.onnx")
        table = np.arange(VOCAB * DIM, dtype=np.float32).reshape(VOCAB, DIM)
        np.save(writer.path / "token_embedding.npy", table)
        (writer.path / "tokenizer.json").write_text("{}")
        entries = {name: entry(name, proto) for name, proto in graphs.items()}
        return writer.finish(tiny_manifest(entries))


def entry(name: str, proto: onnx.ModelProto) -> GraphEntry:
    inputs, outputs = specs(proto.graph.input), specs(proto.graph.output)
    return GraphEntry(f"{name}.onnx", "fp32", 18, inputs, outputs)


def specs(values: list[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            v.name,
            DTYPES[v.type.tensor_type.elem_type],
            tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim),
        )
        for v in values
    )


def tiny_manifest(graphs: dict[str, GraphEntry]) -> Manifest:
    return Manifest(
        name="tiny",
        model=ModelSpec(
            kind="hicom_qwen2",
            projector_type="local43_global32",
            local_injection=None,
            global_injection=None,
            vision_dim=4,
            joint_dim=4,
            llm_dim=DIM,
            image_size=2,
            patch_size=1,
            grid=(2, 2),
            temporal_kernel=4,
            spatial_kernel=(3, 3),
            global_tokens=32,
            vocab_size=VOCAB,
            num_layers=LAYERS,
            num_kv_heads=1,
            head_dim=DIM,
            max_context=64,
        ),
        frames=FrameSpec(8, 2, (0.5,) * 3, (0.5,) * 3, 1 / 255, "bicubic", "pad"),
        guide=None,
        chat=ChatSpec(None, "{content}", "{content}", "{content}", ""),
        generation=GenerationSpec(stop_token_ids=(0,)),
        tokenizer="tokenizer.json",
        token_embedding="token_embedding.npy",
        graphs=graphs,
        files={},
        provenance=Provenance("tiny", "0" * 64, {}),
    )
