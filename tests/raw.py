"""Raw files that tests write and read back."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.raw.pieces import Account, Part, Reader, write_piece
from pipelines.raw.places import RawPlace
from pipelines.sections import Source

COLUMNS = {"user_id": "uid", "event_at": "timestamp"}


def piece(
    tmp_path: Path, name: str, content: str | bytes, kind: str = "interactions", timezone: str = "UTC", **source: Any
) -> tuple[list[dict], list[dict], Account]:
    """Typed rows, rejects and account of a raw file."""
    path = tmp_path / "raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    settings = Source(path=kind, columns=source.pop("columns", COLUMNS), **source)
    reader = Reader(kind, RawPlace(str(tmp_path / "raw"), (), str(tmp_path / "embedded")), settings, timezone)
    folder = tmp_path / f"piece of {name.replace('/', ' ')}"
    folder.mkdir(exist_ok=True)
    account = write_piece(reader, Part(name), folder)
    rows, rejects = (pq.read_table(folder / f"{n}.parquet").to_pylist() for n in ("rows", "rejects"))
    return rows, rejects, account


def read(
    tmp_path: Path, name: str, content: str | bytes, kind: str = "interactions", **source: Any
) -> tuple[list[dict], list[dict]]:
    """Typed rows and rejects of a raw file; one that is refused whole is a reject at position 0."""
    rows, rejects, account = piece(tmp_path, name, content, kind, **source)
    refused = [{"position": 0, "reason": account.refused[0], "detail": account.refused[1]}] if account.refused else []
    return rows, [*refused, *rejects]
