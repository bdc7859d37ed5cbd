"""The first rows of a raw file with all its columns, nested ones by path; for people and guesses, not for a night.

Belongs here: raw values as they stand. Does not: our columns (``shape``), what a column may mean (``propose``).
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.parquet as pq

from pipelines.raw.containers import opened, seekable
from pipelines.raw.delimited import read_delimited
from pipelines.raw.dialect import HEAD_BYTES
from pipelines.raw.objects import first_objects, rows_below
from pipelines.raw.places import RawStore
from pipelines.raw.shape import Shape, shape_of
from pipelines.sections import Source

log = logging.getLogger(__name__)

ROWS = 1_000
DEPTH = 2  # of nested names


@dataclass
class Peek:
    """The head of a file.

    Attributes:
        source: the file.
        shape: what it is.
        columns: name or path -> values of the first rows; None where a row has none.
        rows: how many rows were looked at.
    """

    source: str
    shape: Shape
    columns: dict[str, list[Any]]
    rows: int


def peek(store: RawStore, name: str) -> Peek | None:
    """Look at the head of a file; None where it is no table."""
    try:
        shape = shape_of(store, name, "interactions", Source(path="."))
        rows = _rows(store, name, shape)
    except Exception as e:  # whatever it holds, a night says what is wrong with it
        log.debug("%s is no table: %s", name, e)
        return None
    flat = [dict(_flattened(r, "", DEPTH)) for r in rows if isinstance(r, dict)]
    names = dict.fromkeys(k for r in flat for k in r)
    return Peek(name, shape, {n: [r.get(n) for r in flat] for n in names}, len(flat))


def _rows(store: RawStore, name: str, shape: Shape) -> list[Any]:
    if shape.format == "parquet":
        with seekable(store, name) as f:
            batch = next(pq.ParquetFile(f).iter_batches(ROWS), None)
        return [] if batch is None else batch.to_pylist()
    with opened(store, name) as f:
        if shape.format == "json":
            _, objects = first_objects(f.read(HEAD_BYTES).decode(shape.encoding, "replace").removeprefix("\ufeff"))
            return [row for o in objects for row in rows_below(o, shape.records)]
        header = [h or f"column {i}" for i, h in enumerate(shape.header, 1)]
        every = replace(shape, header=tuple(header), columns={h: h for h in header})
        rows = next(read_delimited(f, every, end=HEAD_BYTES), None)
    if rows is None:
        return []
    columns = {h: rows.columns[h].array[:ROWS].to_pylist() for h in header}
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _flattened(value: dict[str, Any], before: str, depth: int) -> Any:
    """(path, value) of each field; of objects and lists of objects also what is in them."""
    for key, inner in value.items():
        path = f"{before}{key}"
        yield path, inner
        if depth > 1 and isinstance(inner, dict):
            yield from _flattened(inner, f"{path}.", depth - 1)
        elif depth > 1 and isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield from _flattened(inner[0], f"{path}[].", depth - 1)
