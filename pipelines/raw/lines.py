"""Text files as blocks of whole lines in UTF-8, with the number of their first line.

Belongs here: where a line ends, encodings, lines that are too long. Does not: what is in a line.
"""

import codecs
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.raw.containers import Unpacked

BLOCK_BYTES = 8 << 20
MAX_LINE_BYTES = 16_000_000


class Reject(NamedTuple):
    """A row that cannot be used: its position in the file, reason code and detail."""

    position: int
    reason: str
    detail: str


class Block(NamedTuple):
    """Whole lines.

    Attributes:
        first: number of the first line, from 1.
        data: UTF-8, unless the file's bytes were not what its encoding says.
        too_long: numbers of lines that are left out.
    """

    first: int
    data: bytes
    too_long: tuple[int, ...] = ()


def blocks(stream: IO[bytes] | Unpacked, encoding: str, first: int = 1, end: int | None = None) -> Iterator[Block]:
    """Lines of a stream, a few MB at a time; a byte order mark is left out.

    Args:
        stream: at the beginning of a line.
        encoding: of the file.
        first: number of that line.
        end: bytes to read; all by default.
    """
    rest, number, start = b"", first, True
    for piece in _utf8(stream, encoding, end):
        rest += piece.removeprefix(codecs.BOM_UTF8) if start and first == 1 else piece
        start = False
        cut = rest.rfind(b"\n") + 1
        if cut:
            block = _block(number, rest[:cut])
            yield block
            number, rest = number + rest[:cut].count(b"\n"), rest[cut:]
        elif len(rest) > MAX_LINE_BYTES:
            rest = rest[:MAX_LINE_BYTES] + b"x"  # what is beyond is never looked at
    if rest:
        yield _block(number, rest)


def _utf8(stream: IO[bytes] | Unpacked, encoding: str, end: int | None) -> Iterator[bytes]:
    problems = "replace" if encoding.startswith("utf") else "surrogateescape"  # UTF-16 has no escape for half a unit
    decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)(problems)
    left, old_mac, earlier = end, False, False
    while piece := stream.read(BLOCK_BYTES if left is None else min(BLOCK_BYTES, left)):
        left = None if left is None else left - len(piece)
        if decoder:  # what does not decode stays invalid, so that its line is rejected
            piece = decoder.decode(piece).encode("utf-8", "surrogatepass")
        old_mac = old_mac or (not earlier and b"\r" in piece[:-1] and b"\n" not in piece)
        earlier = True
        yield piece.replace(b"\r", b"\n") if old_mac else piece
    if decoder and (tail := decoder.decode(b"", final=True)):
        yield tail.encode("utf-8", "surrogatepass")


def _block(first: int, data: bytes) -> Block:
    if len(data) <= MAX_LINE_BYTES:
        return Block(first, data)
    lines = data.split(b"\n")
    long = [i for i, line in enumerate(lines) if len(line) > MAX_LINE_BYTES]
    for i in long:
        lines[i] = b""
    return Block(first, b"\n".join(lines), tuple(first + i for i in long))


def ends_of(data: bytes) -> np.ndarray:
    """Where each line ends, behind its newline, int64; the last one may have none."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10) + 1
    return ends if data.endswith(b"\n") or not data else np.append(ends, len(data))


def strings(data: bytes) -> pa.Array:
    """The lines of a block with their newlines, as text without a copy; ``data`` has to be valid UTF-8."""
    offsets = np.concatenate([[0], ends_of(data)]).astype(np.int32)
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def checked(block: Block) -> tuple[list[tuple[int, str]], list[Reject]]:
    """(number, text) of each line that is whole UTF-8, and the others as rejects."""
    good: list[tuple[int, str]] = []
    rejects = [Reject(n, "line_too_long", f"more than {MAX_LINE_BYTES} bytes") for n in block.too_long]
    for number, raw in enumerate(block.data.removesuffix(b"\n").split(b"\n"), block.first):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as e:
            shown = raw[max(0, e.start - 10) : e.start + 10].decode("cp1252", "replace")
            detail = f"not of the file's encoding at byte {e.start}: '{shown}' if it were Windows-1252"
            rejects.append(Reject(number, "bad_encoding", detail))
            continue
        if "\0" in text:
            rejects.append(Reject(number, "bad_encoding", "line holds a NUL character"))
            continue
        good.append((number, text))
    return good, rejects
