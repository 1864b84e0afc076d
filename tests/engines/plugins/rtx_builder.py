"""Builds a compressor graph with TensorRT-RTX, ahead of time; a process of its own per build.

    python rtx_builder.py GRAPH ENGINE MAX_FRAMES [PLUGIN_LIBRARY]

Prints JSON: the layers' types, the plugin layer's input and output shapes, and the plugins found.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tensorrt_rtx_bindings as trt


def main(graph: str, target: str, max_frames: str, library: str | None = None) -> None:
    logger = trt.Logger(trt.Logger.WARNING)
    registry = trt.get_plugin_registry()
    if library is not None and registry.load_library(library) is None:
        raise SystemExit(f"{library} was not loaded")
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(graph):
        raise SystemExit("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    engine = builder.build_serialized_network(network, config(builder, network, int(max_frames)))
    if engine is None:
        raise SystemExit("no engine was built")
    Path(target).write_bytes(bytes(engine))
    report = {
        "types": sorted({str(layer.type).rpartition(".")[2] for layer in layers}),
        "plugins": [plugin(layer) for layer in layers if "PLUGIN" in str(layer.type)],
        "creators": [c.name for c in registry.all_creators if c.plugin_namespace == "hicom.edge"],
    }
    if library is not None:
        report["refused"] = refused(trt, registry)
    print(json.dumps(report))


def config(builder: Any, network: Any, max_frames: int) -> Any:
    """A profile of 1 to `max_frames` frames."""
    profile, result = builder.create_optimization_profile(), builder.create_builder_config()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shapes = [
            tuple(frames if size == -1 else size for size in tensor.shape)
            for frames in (1, max(1, max_frames // 2), max_frames)
        ]
        profile.set_shape(tensor.name, *shapes)
    result.add_optimization_profile(profile)
    return result


def plugin(layer: Any) -> dict[str, Any]:
    inputs = [list(layer.get_input(i).shape) for i in range(layer.num_inputs)]
    output = layer.get_output(0)
    return {"inputs": inputs, "output": list(output.shape), "dtype": str(output.dtype)}


def refused(trt: Any, registry: Any) -> list[str]:
    """Names of the field sets that the creator turns down."""
    import numpy as np

    creator = registry.get_creator("GroupedAttention", "1", "hicom.edge")
    kernel = trt.PluginField("kernel", np.array([4, 3, 3], np.int32), trt.PluginFieldType.INT32)
    scale = trt.PluginField("scale", np.array([0.5], np.float32), trt.PluginFieldType.FLOAT32)
    flat = trt.PluginField("kernel", np.array([4, 3], np.int32), trt.PluginFieldType.INT32)
    zero = trt.PluginField("kernel", np.array([4, 0, 3], np.int32), trt.PluginFieldType.INT32)
    sets = {
        "complete": [kernel, scale],
        "no kernel": [scale],
        "no scale": [kernel],
        "two sizes": [flat, scale],
        "size zero": [zero, scale],
    }
    return [name for name, fields in sets.items() if made(trt, creator, fields) is None]


def made(trt: Any, creator: Any, fields: list[Any]) -> Any:
    collection = trt.PluginFieldCollection(fields)
    try:
        return creator.create_plugin("test", collection, trt.TensorRTPhase.BUILD)
    except Exception:  # some versions of the bindings raise where others return None
        return None


if __name__ == "__main__":
    main(*sys.argv[1:])
