"""Two edits of a serialized ONNX model that need no ONNX library.

They work on the protobuf wire format (protobuf.dev, "Encoding") with the field numbers of
onnx.proto. Tensors are not parsed; their bytes are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from hicom_edge.errors import EngineError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# onnx.proto: ModelProto.graph, .functions; FunctionProto.name, .domain
_GRAPH, _FUNCTIONS, _FUNCTION_NAME, _FUNCTION_DOMAIN = 7, 25, 1, 10
# GraphProto.input, .output, .value_info; from there ValueInfoProto.type, TypeProto.tensor_type,
# Tensor.shape, TensorShapeProto.dim; Dimension.dim_value, .dim_param
_VALUES, _TO_DIMENSIONS = (11, 12, 13), (2, 1, 2, 1)
_DIM_VALUE, _DIM_PARAM = 1, 2

_Edit = Callable[[bytes], bytes]


class _Field(NamedTuple):
    """A field of a message: its number, all of its bytes, and the bytes of its value."""

    number: int
    whole: bytes
    content: bytes


def without_function(model: bytes, domain: str, name: str) -> bytes:
    """Remove a model-local function, but not the nodes that call it.

    TensorRT before 10.7 prefers such a function to a plugin of the same name.
    """

    def is_it(function: bytes) -> bool:
        texts = {f.number: f.content for f in _fields(function)}
        found = texts.get(_FUNCTION_DOMAIN), texts.get(_FUNCTION_NAME)
        return found == (domain.encode(), name.encode())

    kept = (f for f in _fields(model) if f.number != _FUNCTIONS or not is_it(f.content))
    return b"".join(field.whole for field in kept)


def with_fixed_axis(model: bytes, axis: str, size: int) -> bytes:
    """Fix a dynamic axis of all inputs, outputs and intermediate values to a size."""

    def fix(dimension: bytes) -> bytes:
        fields = tuple(_fields(dimension))
        if not any(f.number == _DIM_PARAM and f.content == axis.encode() for f in fields):
            return dimension
        rest = b"".join(f.whole for f in fields if f.number not in (_DIM_VALUE, _DIM_PARAM))
        return _varint(_DIM_VALUE << 3 | _VARINT) + _varint(size) + rest

    def in_graph(graph: bytes) -> bytes:
        for number in _VALUES:
            graph = _edited(graph, (number, *_TO_DIMENSIONS), fix)
        return graph

    return _edited(model, (_GRAPH,), in_graph)


def _edited(message: bytes, path: tuple[int, ...], edit: _Edit) -> bytes:
    """Apply `edit` to every field at the end of a path of field numbers."""
    if not path:
        return edit(message)
    parts = []
    for field in _fields(message):
        if field.number != path[0]:
            parts.append(field.whole)
            continue
        content = _edited(field.content, path[1:], edit)
        parts.append(_varint(field.number << 3 | _BYTES) + _varint(len(content)) + content)
    return b"".join(parts)


def _fields(message: bytes) -> Iterator[_Field]:
    place = 0
    while place < len(message):
        start = place
        key, place = _read_varint(message, place)
        kind = key & 7
        if kind == _BYTES:
            length, place = _read_varint(message, place)
            end = place + length
        elif kind == _VARINT:
            _, end = _read_varint(message, place)
        elif kind in (_FIXED32, _FIXED64):
            end = place + (4 if kind == _FIXED32 else 8)
        else:
            raise EngineError(f"not an ONNX model: field of wire type {kind} at byte {start}")
        if end > len(message):
            raise EngineError(f"not an ONNX model: the field at byte {start} is cut off")
        yield _Field(key >> 3, message[start:end], message[place:end])
        place = end


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message):
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
    raise EngineError("not an ONNX model: it ends inside a number")


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
