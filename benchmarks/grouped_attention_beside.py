"""Alternatives to the grouped-attention kernel in PyTorch and ONNX Runtime, for comparison.

Their times are None where PyTorch or ONNX Runtime has no CUDA.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnxruntime
    import torch

REPEATS, LAUNCHES = 25, 10
CUDA_PROVIDER = "CUDAExecutionProvider"


def authors_us(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, index: np.ndarray, scale: float
) -> float | None:
    """The authors' formulation in PyTorch: regroup, matmul, softmax, matmul.

    Args:
        index: flat positions (groups, members).
    """
    import torch

    if not torch.cuda.is_available():
        return None
    q, k, v, members = (torch.from_numpy(x).cuda() for x in (query, key, value, index))
    return _event_us(lambda _: regrouped_attention(q, k, v, members, scale))


def regrouped_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, index: torch.Tensor, scale: float
) -> torch.Tensor:
    """(groups, 1, dv)."""
    k, v = key.flatten(0, 2)[index], value.flatten(0, 2)[index]
    weights = (k @ query.unsqueeze(-1) * scale).squeeze(-1).softmax(-1)
    return weights.unsqueeze(-2) @ v


def body_us(
    arrays: dict[str, np.ndarray], kernel: tuple[int, int, int], scale: float
) -> float | None:
    """The node's function body in ONNX Runtime, with inputs and output on the GPU."""
    import onnxruntime

    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return None
    session = body_session(arrays, kernel, scale, CUDA_PROVIDER)
    binding = session.io_binding()
    for name, array in arrays.items():
        on_device = onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
        binding.bind_ortvalue_input(name, on_device)
    binding.bind_output("output", "cuda")
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        for _ in range(LAUNCHES):
            session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        times.append(1e6 * (time.perf_counter() - start) / LAUNCHES)
    return statistics.median(times[1:])


def body_session(
    arrays: dict[str, np.ndarray], kernel: tuple[int, int, int], scale: float, provider: str
) -> onnxruntime.InferenceSession:
    """A graph with this one node, whose function body ONNX Runtime inlines.

    Args:
        arrays: query (1 or groups, dk), key (t, h, w, dk) and value (t, h, w, dv), fp32 or fp16.
    """
    import onnx_ir as ir
    import onnxruntime

    from hicom_edge.export.graph_builder import GraphBuilder
    from hicom_edge.export.grouped_attention import Windows, grouped_attention
    from hicom_edge.export.opsets import CURRENT, Precision

    precision = Precision.FP16 if arrays["value"].dtype == np.float16 else Precision.FP32
    b = GraphBuilder("grouped_attention", precision, CURRENT)
    query, key, value = (b.input(name, None, array.shape) for name, array in arrays.items())
    _, h, w, _ = arrays["key"].shape
    shared = len(arrays["query"]) == 1
    mixed = grouped_attention(b, query, key, value, Windows(kernel, (h, w)), scale, shared)
    b.output("output", mixed, ("groups", arrays["value"].shape[-1]))
    model = ir.to_proto(b.build()).SerializeToString()
    return onnxruntime.InferenceSession(model, providers=[provider])


def global_us(value: np.ndarray, sets: int) -> float | None:
    """The global branch's two passes over V in PyTorch, with one query (direct injection).

    Args:
        sets: copies of V that are read in turn, so that it is never cached.
    """
    import torch

    from hicom_edge.model.layers import head_count

    if not torch.cuda.is_available():
        return None
    values = [torch.from_numpy(value).cuda() for _ in range(sets)]
    dim = value.shape[-1]
    absorbed = torch.randn(dim, head_count(dim), dtype=values[0].dtype, device="cuda")
    absorbed = absorbed / dim**0.5
    return _event_us(lambda i: global_passes(values[i % sets], absorbed))


def global_passes(value: torch.Tensor, absorbed: torch.Tensor) -> torch.Tensor:
    """Scores of every patch for each head, softmax in float32, weighted sum of V: (heads, dv).

    Args:
        absorbed: the query, multiplied with the key projection beforehand, (dv, heads).
    """
    rows = value.flatten(0, 2)
    weights = (rows @ absorbed).float().t().softmax(-1)
    return weights.to(rows.dtype) @ rows


def _event_us(launch: Callable[[int], Any]) -> float:
    """Median over runs of the mean microseconds of a launch."""
    import torch

    times = []
    for _ in range(REPEATS + 1):  # the first run warms up
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        for i in range(LAUNCHES):
            launch(i)
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end) / LAUNCHES)
    return float(statistics.median(times[1:]))
