"""A lake of a few rows, written table by table, whose answers can be worked out by hand."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from encoders.settings import ModelChoice
from pipelines.config import Config
from pipelines.engine.blocks import vector_table
from pipelines.lake.storage import Lake
from pipelines.lake.tables import TABLES
from pipelines.night.night import Night
from pipelines.sections import Paths

DAY = date(2026, 3, 10)


def at(day: int, hour: int = 12, minute: int = 0) -> datetime:
    """A time in March 2026, UTC."""
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


def rows_of(table: str, rows: Sequence[Any]) -> pa.Table:
    """Rows of a table; what they leave out is null, an empty list, or the empty text."""
    contract = TABLES[table]
    empty = {c.name: None if c.nullable else [] if pa.types.is_list(c.type) else "" for c in contract.columns}
    return pa.Table.from_pylist([empty | dict(r) for r in rows], schema=contract.schema({}))


def event(user: str, item: str, when: datetime, name: str = "view", value: float | None = None) -> dict[str, Any]:
    """A row of ``std_interactions``."""
    return {"user_id": user, "item_id": item, "event": name, "value": value, "event_at": when}


def tiny_lake(
    root: Path,
    events: Sequence[Any] = (),
    items: Sequence[Any] = (),
    uploads: Sequence[Any] = (),
    media: Sequence[Any] = (),
    day: date = DAY,
) -> Lake:
    """A lake with the std tables of a day; events go to the partitions of their UTC days."""
    lake = Lake(root)
    days = {day, *(e["event_at"].date() for e in events)}
    for d in days:
        mine = [e for e in events if e["event_at"].date() == d]
        lake.publish("std_interactions", d, rows_of("std_interactions", mine))
    lake.publish("std_items", day, rows_of("std_items", items))
    lake.publish("std_user_content", day, rows_of("std_user_content", uploads))
    size = {"size_bytes": 1}
    lake.publish("std_media", day, rows_of("std_media", [size | dict(m) for m in media]))
    return lake


def publish_vectors(
    lake: Lake, modality: str, vectors: Mapping[str, Sequence[float]], day: date = DAY, digest: str = "digest"
) -> None:
    """Publish ``emb_<modality>`` with these vectors by content sha256."""
    shas = sorted(vectors)
    matrix = np.array([vectors[s] for s in shas], np.float32) if shas else np.zeros((0, 2), np.float32)
    lake.publish(
        f"emb_{modality}", day, vector_table(shas, digest, matrix), config_digest=digest, spec={"dim": matrix.shape[1]}
    )


def config_of(root: Path, modalities: Sequence[str] = ("text", "image"), **sections: Any) -> Config:
    """A configuration over nothing but a lake."""
    encoders = {m: ModelChoice("minilm") for m in modalities}
    paths = Paths(raw=str(root), data=root)
    return Config(paths=paths, start_date=date(2026, 3, 1), encoders=encoders, **sections)


def night_of(lake: Lake, day: date = DAY, modalities: Sequence[str] = ("text", "image"), **sections: Any) -> Night:
    """A night over a lake."""
    return Night.of(config_of(lake.root, modalities, **sections), lake, day)
