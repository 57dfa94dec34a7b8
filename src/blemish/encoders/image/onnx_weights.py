"""The stored tensors of an ONNX file and where the graph uses them, read without the onnx package.

ONNX is a protobuf message (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); only the few fields needed to
find weights are read: ModelProto.graph, GraphProto.node and .initializer, NodeProto, TensorProto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blemish.errors import WeightsError

GRAPH = 7  # field numbers: of ModelProto,
NODE, INITIALIZER = 1, 5  # GraphProto,
NODE_INPUT, NODE_NAME, NODE_OPERATION = 1, 3, 4  # NodeProto,
DIMS, DATA_TYPE, FLOAT_DATA, TENSOR_NAME, RAW_DATA = 1, 2, 4, 8, 9  # TensorProto
FLOAT = 1  # TensorProto.DataType


@dataclass(frozen=True)
class Node:
    """One operation of the graph: its name ("/encoder/layer.0/fc1/MatMul"), kind ("MatMul") and inputs' names."""

    name: str
    operation: str
    inputs: tuple[str, ...]


def read_onnx(path: Path) -> tuple[dict[str, np.ndarray], list[Node]]:
    """All float32 initialisers of an ONNX file by name, and the nodes of its graph in order.

    Raises `WeightsError` when the file is cut short or not ONNX.
    """
    tensors: dict[str, np.ndarray] = {}
    nodes: list[Node] = []
    try:
        for field, graph in _fields(memoryview(path.read_bytes())):
            for inner, value in _fields(graph) if field == GRAPH else ():
                if inner == INITIALIZER:
                    tensors.update(_tensor(value))
                elif inner == NODE:
                    nodes.append(_node(value))
    except (ValueError, IndexError, TypeError) as error:
        raise WeightsError(
            f"an ONNX file at {path}", f"unreadable content ({error})", "install the file again"
        ) from error
    return tensors, nodes


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A base-128 number at `position`, and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(field number, bytes) of a message, in order; numbers come as their varint bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:  # a number
            _, end = _varint(message, position)
        elif kind == 2:  # text, bytes, a message or a packed list
            size, position = _varint(message, position)
            end = position + size
        elif kind in (1, 5):  # 8 or 4 bytes
            end = position + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"unknown wire type {kind}")
        if end > len(message):
            raise ValueError("the file ends early")
        yield key >> 3, message[position:end]
        position = end


def _numbers(packed: memoryview) -> list[int]:
    numbers, position = [], 0
    while position < len(packed):
        number, position = _varint(packed, position)
        numbers.append(number)
    return numbers


def _node(message: memoryview) -> Node:
    fields = [
        (number, str(value, "utf-8"))
        for number, value in _fields(message)
        if number in (NODE_INPUT, NODE_NAME, NODE_OPERATION)
    ]
    texts = dict(fields)
    inputs = tuple(text for number, text in fields if number == NODE_INPUT)
    return Node(texts.get(NODE_NAME, ""), texts.get(NODE_OPERATION, ""), inputs)


def _tensor(message: memoryview) -> dict[str, np.ndarray]:
    """{name: array} of a float32 tensor, {} of any other type."""
    shape: list[int] = []
    name, kind, raw = "", 0, memoryview(b"")
    for number, value in _fields(message):
        if number == DIMS:
            shape += _numbers(value)
        elif number == DATA_TYPE:
            kind = _numbers(value)[0]
        elif number == TENSOR_NAME:
            name = str(value, "utf-8")
        elif number in (RAW_DATA, FLOAT_DATA):  # both little-endian float32
            raw = value
    return {name: np.frombuffer(raw, "<f4").reshape(shape)} if kind == FLOAT else {}
