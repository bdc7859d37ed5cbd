"""Packed raw files as the plain bytes in them: gzip, Zstandard, bzip2, xz, a zip of one file; found by content.

Belongs here: what unpacks, how far. Does not: where files are (``places``), what the bytes mean (``shape``).
"""

import bz2
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from typing import IO, Any

import pyarrow as pa

from pipelines.raw.places import RawError, RawStore

MAX_RATIO = 400  # plain bytes for a packed one; text packs to a hundredth at best
STEP_BYTES = 1 << 16  # unpacked at once; what a torn file loses before the tear
BOMB_BYTES = 1 << 30  # below this any ratio is harmless
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
}
BROKEN = (
    OSError, EOFError, ValueError, RuntimeError, NotImplementedError, lzma.LZMAError, zlib.error, struct.error,
    zipfile.BadZipFile, pa.ArrowException,
)  # fmt: skip


def container_of(head: bytes) -> str:
    """gzip, zstd, bz2, xz, zip, or nothing for plain bytes."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")


def opened(store: RawStore, name: str) -> "IO[bytes] | Unpacked":
    """A raw file as plain bytes, unpacked while it is read.

    Raises:
        RawError: it leaves the root, or is a zip of several files.
    """
    f = store.open(name)
    kind = container_of(f.read(8))
    f.seek(0)
    return Unpacked(f, kind, store.size(name)) if kind else f


def seekable(store: RawStore, name: str) -> IO[bytes]:
    """A raw file of a format that is read from its end; a packed one is unpacked into memory.

    Raises:
        RawError: it is broken, or holds more than is kept in memory.
    """
    f = opened(store, name)
    if not isinstance(f, Unpacked):
        return f
    with f:
        data = f.read(BOMB_BYTES + 1)
    if len(data) > BOMB_BYTES:
        raise RawError("unpacks_too_large", f"expected at most {BOMB_BYTES} bytes in packed Parquet; unpack it")
    return io.BytesIO(data)


class Unpacked(io.RawIOBase):
    """Plain bytes of a packed file.

    Args:
        packed: the file.
        kind: see ``container_of``.
        size: packed bytes.

    Raises:
        RawError: while reading, where the file is broken or unfolds without end.
    """

    def __init__(self, packed: IO[bytes], kind: str, size: int):
        self.packed, self.kind, self.size, self.done = packed, kind, size, 0
        self.broken: RawError | None = None
        self.plain: Any = _plain(packed, kind)

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, n: int = -1) -> bytes:
        """The next ``n`` bytes, fewer at the end only."""
        parts, missing = [], n
        if self.broken:
            raise self.broken
        try:
            while missing:
                part = self.plain.read(min(missing, STEP_BYTES) if missing > 0 else STEP_BYTES)
                if not part:
                    break
                parts.append(part)
                self.done += len(part)
                missing -= len(part) if missing > 0 else 0
                if self.done > max(BOMB_BYTES, MAX_RATIO * self.size):
                    raise RawError("unpacks_too_large", f"{self.size} packed bytes unfold to more than {self.done}")
        except BROKEN as e:
            if isinstance(e, RawError):
                raise
            self.broken = RawError(f"broken_{self.kind}", f"after {self.done} plain bytes: {str(e)[:200]}")
            if not parts:
                raise self.broken from e  # what was read before is good, and goes first
        return b"".join(parts)

    def close(self) -> None:
        """Close both files."""
        if not self.closed:
            self.plain.close()
            self.packed.close()
        super().close()


def _plain(packed: IO[bytes], kind: str) -> Any:
    if kind == "gzip":
        return gzip.open(packed)
    if kind == "bz2":
        return bz2.open(packed)
    if kind == "xz":
        return lzma.open(packed)
    if kind == "zstd":
        return pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd")
    return _only_member(packed)


def _only_member(packed: IO[bytes]) -> Any:
    try:
        archive = zipfile.ZipFile(packed)
        members = [
            m.filename
            for m in archive.infolist()
            if not m.is_dir() and not any(p.startswith((".", "__MACOSX")) for p in m.filename.split("/"))
        ]
        if len(members) == 1:
            return archive.open(members[0])
        if "[Content_Types].xml" in members:
            raise RawError("unsupported_format", "this is an Excel workbook; save each sheet as CSV")
    except BROKEN as e:
        if isinstance(e, RawError):
            raise
        raise RawError("broken_zip", str(e)[:200]) from e
    raise RawError("zip_of_several", f"expected one file in the zip, found {len(members)}: {', '.join(members)[:200]}")
