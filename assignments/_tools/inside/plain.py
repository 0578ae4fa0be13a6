"""Values as plain data: a tree that JSON can write, and the bytes of the arrays in it. Nothing is ever unpickled.

Both sides of the confinement use this module. What comes out of a submission is not trusted: `decode` accepts only types,
sizes and lengths that fit together, and raises `NotPlain` on everything else.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from typing import Any

import numpy as np
import torch

LARGEST_MESSAGE = 64 * 2**20
LONGEST_TEXT = 10_000
MOST_ITEMS = 100_000
DEEPEST = 12

_DTYPES = frozenset(
    [
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    ]
)
_LENGTHS = struct.Struct(">QQ")


class NotPlain(ValueError):
    """A message or a value is not as described here."""


class Other:
    """Stands for a value of a type that cannot be carried over, such as a function; it knows the name of the type."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<a value of type {self.name}>"


class Coder:
    """Collects the bytes of arrays while values are turned into trees."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._items = self._bytes = 0

    def encode(self, value: Any, depth: int = 0) -> dict[str, Any]:
        """Return the tree of a value. A type that is not plain becomes its name.

        Raises:
            NotPlain: the value is too large or too deep.
        """
        self._items += 1
        if self._items > MOST_ITEMS or depth > DEEPEST:
            raise NotPlain("it holds too many values, or lists in lists too deep")
        if value is None or value is ...:
            return {"is": "none" if value is None else "ellipsis"}
        kind = type(value)
        if kind is bool:
            return {"is": "bool", "value": value}
        if kind is int:
            return {"is": "int", "value": str(value)} if value.bit_length() < 2000 else {"is": "other", "name": "int, of too many digits"}
        if kind is float:
            return {"is": "float", "value": repr(value)}
        if kind is str:
            return {"is": "str", "value": value[:LONGEST_TEXT].encode("utf-8", "replace").decode()}
        if isinstance(value, (list, tuple)):
            return {"is": "list" if isinstance(value, list) else "tuple", "items": [self.encode(item, depth + 1) for item in value]}
        if isinstance(value, dict):
            pairs = [[self.encode(key, depth + 1), self.encode(item, depth + 1)] for key, item in value.items()]
            return {"is": "dict", "items": pairs}
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, (np.ndarray, np.generic)):
            return self._array(np.asarray(value)) | {"is": "array" if isinstance(value, np.ndarray) else "number"}
        return {"is": "other", "name": kind.__name__[:100]}

    def _tensor(self, value: torch.Tensor) -> dict[str, Any]:
        named = {"is": "tensor", "gradient": bool(value.requires_grad), "as": str(value.dtype).replace("torch.", "")}
        dense = value.detach().to("cpu")
        dense = dense.to_dense() if dense.layout != torch.strided else dense
        dense = dense.float() if dense.dtype == torch.bfloat16 else dense
        return self._array(dense.resolve_conj().resolve_neg().numpy()) | named

    def _array(self, array: np.ndarray) -> dict[str, Any]:
        if array.dtype.name not in _DTYPES:
            return {"is": "other", "name": f"array of {array.dtype.name}"[:100]}
        self._bytes += array.nbytes
        if self._bytes > LARGEST_MESSAGE // 2:
            raise NotPlain("it is too large to be graded")
        self.parts.append(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        return {"dtype": array.dtype.name, "shape": list(array.shape), "part": len(self.parts) - 1}


def decode(tree: Any, parts: list[bytes], depth: int = 0) -> Any:
    """Return the value of a tree; a tensor is a `torch.Tensor`, a type that is not plain is `Other`.

    Raises:
        NotPlain: the tree is not one that `Coder.encode` makes.
    """
    try:
        return _decoded(tree, parts, depth)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        raise NotPlain(f"not a plain value: {type(error).__name__}") from error


def _decoded(tree: Any, parts: list[bytes], depth: int) -> Any:
    if depth > DEEPEST:
        raise NotPlain("too deep")
    kind = tree["is"]
    if kind in ("none", "ellipsis"):
        return None if kind == "none" else ...
    if kind == "bool":
        return tree["value"] is True
    if kind == "int":
        return int(tree["value"][:700])
    if kind == "float":
        return float(tree["value"][:50])
    if kind == "str":
        return str(tree["value"])[:LONGEST_TEXT]
    if kind in ("list", "tuple"):
        items = [_decoded(item, parts, depth + 1) for item in tree["items"]]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {_decoded(key, parts, depth + 1): _decoded(item, parts, depth + 1) for key, item in tree["items"]}
    if kind == "other" or "dtype" not in tree:
        return Other(str(tree["name"])[:100])
    array = _array_of(tree, parts)
    if kind == "tensor":
        tensor = torch.from_numpy(array)
        wanted = torch.bfloat16 if tree["as"] == "bfloat16" else tensor.dtype
        return tensor.to(wanted).requires_grad_(bool(tree["gradient"]) and tensor.is_floating_point())
    return array if kind == "array" else array[()]


def _array_of(tree: dict[str, Any], parts: list[bytes]) -> np.ndarray:
    name, shape, data = tree["dtype"], [int(size) for size in tree["shape"]], parts[int(tree["part"])]
    if name not in _DTYPES or len(shape) > 32 or min(shape, default=0) < 0:
        raise NotPlain("an array of another type or shape")
    dtype = np.dtype(name).newbyteorder("<")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise NotPlain("an array whose bytes do not fit its shape")
    return np.frombuffer(data, dtype=dtype).reshape(shape).astype(np.dtype(name))


def copied(value: Any) -> Any:
    """Return what becomes of a value on its way through a message."""
    coder = Coder()
    return decode(coder.encode(value), coder.parts)


def send(channel: socket.socket, message: dict[str, Any], parts: list[bytes] = []) -> None:  # noqa: B006 - never written to
    """Send one message and the bytes of its arrays."""
    head = json.dumps({"message": message, "parts": [len(part) for part in parts]}).encode()
    body = b"".join(parts)
    channel.sendall(_LENGTHS.pack(len(head), len(body)) + head + body)


def receive(channel: socket.socket, deadline: float | None = None) -> tuple[dict[str, Any], list[bytes]]:
    """Receive one message, all of it before `deadline` (of `time.monotonic`) if one is given.

    Raises:
        EOFError: the other side has closed the channel.
        NotPlain: the message is too large or damaged.
        TimeoutError: nothing came in time.
    """
    head_length, body_length = _LENGTHS.unpack(_exactly(channel, _LENGTHS.size, deadline))
    if head_length + body_length > LARGEST_MESSAGE:
        raise NotPlain("a message that is too large")
    head, body = _exactly(channel, head_length, deadline), _exactly(channel, body_length, deadline)
    try:
        opened = json.loads(head)
        message, lengths = opened["message"], opened["parts"]
        parts, start = [], 0
        for length in lengths:
            if length < 0:
                raise ValueError("a negative length")
            parts.append(body[start : start + length])
            start += length
        if not isinstance(message, dict) or start != len(body):
            raise ValueError("lengths do not fit")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotPlain(f"a damaged message: {type(error).__name__}") from error
    return message, parts


def _exactly(channel: socket.socket, count: int, deadline: float | None) -> bytes:
    pieces = []
    while count:
        channel.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
        piece = channel.recv(min(count, 1 << 20))
        if not piece:
            raise EOFError("the channel was closed")
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
