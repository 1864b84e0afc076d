"""Inputs and outputs of an ONNX Runtime session by address (IOBinding), without copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.engines.device_array import CPU_PLACE, DeviceArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime

    from hicom_edge.engines.device_array import AnyArray, Memory


def bind_input(
    binding: onnxruntime.IOBinding,
    name: str,
    array: AnyArray,
    memory: Memory,
    shape: Sequence[int] | None = None,
) -> None:
    """Bind an input: by address if the array is in the session's memory, otherwise as a copy.

    The array must live until the run is over. `shape` reshapes it.
    """
    if isinstance(array, DeviceArray) and array.memory.place == memory.place and array.nbytes:
        binding.bind_input(
            name,
            device_type(memory),
            0,
            array.dtype.type,
            list(array.shape if shape is None else shape),
            array.address,
        )
        return
    host = np.ascontiguousarray(array)
    binding.bind_cpu_input(name, host if shape is None else host.reshape(shape))


def bind_output(
    binding: onnxruntime.IOBinding, name: str, target: DeviceArray | None, memory: Memory
) -> None:
    """Bind an output to `target`, or to device memory that ONNX Runtime allocates."""
    if target is None or not target.nbytes:
        binding.bind_output(name, device_type(memory))
        return
    binding.bind_output(
        name, device_type(memory), 0, target.dtype.type, list(target.shape), target.address
    )


def array_of(value: onnxruntime.OrtValue, dtype: str, memory: Memory) -> DeviceArray:
    """An output as a device array, which keeps the OrtValue alive."""
    return DeviceArray(value.data_ptr(), value.shape(), dtype, memory, value)


def device_type(memory: Memory) -> str:
    """ONNX Runtime's name of a memory: "cpu" or "cuda"."""
    return "cpu" if memory.place == CPU_PLACE else "cuda"
