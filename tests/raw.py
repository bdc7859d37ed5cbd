"""Raw files that tests write and read back."""

from pathlib import Path

from pipelines.config import Source
from pipelines.raw.pieces import Ingest, read_file
from pipelines.raw.places import RawStore

COLUMNS = {"user_id": "uid", "event_at": "timestamp"}


def read(
    tmp_path: Path, name: str, content: str | bytes, kind: str = "interactions", **source: object
) -> tuple[list[dict], list[dict]]:
    path = tmp_path / "raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    settings = Source(path=kind, columns=source.pop("columns", COLUMNS), **source)
    ingest = Ingest(kind, str(tmp_path / "raw"), tmp_path / "cache", settings, "UTC")
    rows, rejects = read_file(ingest, RawStore(str(tmp_path / "raw")), name)
    return rows.to_pylist(), rejects.to_pylist()
