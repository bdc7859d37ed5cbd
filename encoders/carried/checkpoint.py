"""Read a TensorFlow tensor-bundle checkpoint with numpy alone: no TensorFlow, no pickle.

A bundle is an ``.index`` file (a LevelDB table: variable name -> BundleEntryProto) and a data file with the
raw little-endian tensors (https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/util/tensor_bundle).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

_DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one uncompressed LevelDB block; keys share prefixes with the key before."""
    block = data[offset : offset + size]
    end = size - 4 - 4 * int.from_bytes(block[size - 4 :], "little")
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each protobuf field."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        value: int | bytes
        if wire == 0:
            value, at = _varint(message, at)
        elif wire == 2:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        else:
            size = 4 if wire == 5 else 8
            value, at = message[at : at + size], at + size
        yield tag >> 3, value


def _shape(message: bytes) -> list[int]:
    dims = [value for number, value in _fields(message) if number == 2 and isinstance(value, bytes)]
    return [next((int(v) for n, v in _fields(d) if n == 1 and isinstance(v, int)), 1) for d in dims]


def read_tensor_bundle(index: Path, data: Path) -> dict[str, np.ndarray]:
    """All numeric variables of a checkpoint.

    Args:
        index: the ``.index`` file.
        data: the only data shard.

    Returns:
        Variable name -> array in its stored shape.
    """
    table, payload = index.read_bytes(), data.read_bytes()
    footer = table[-48:]
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)
    offset, at = _varint(footer, at)
    size, at = _varint(footer, at)
    out = {}
    for _, handle in _block(table, offset, size):
        start, at = _varint(handle, 0)
        length, at = _varint(handle, at)
        for name, entry in _block(table, start, length):
            fields = dict(_fields(entry))
            if not name or fields.get(1) not in _DTYPES:
                continue
            begin, count = int(fields.get(4, 0)), int(fields.get(5, 0))
            raw_shape = fields.get(2, b"")
            shape = _shape(raw_shape) if isinstance(raw_shape, bytes) else []
            out[name.decode()] = np.frombuffer(payload[begin : begin + count], _DTYPES[int(fields[1])]).reshape(shape)
    return out
