"""A sample of raw files: the first rows of each, and some from all over the big ones; no more than a minute's worth.

Belongs here: which bytes are looked at, how many rows a file has by estimate. Does not: judging them (``survey``).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.raw.containers import seekable
from pipelines.raw.delimited import Rows
from pipelines.raw.embedded import Embedded
from pipelines.raw.lines import Reject
from pipelines.raw.pieces import why_refused
from pipelines.raw.places import RawStore
from pipelines.raw.reading import look, rows_of
from pipelines.raw.shape import Shape
from pipelines.raw.typed import schema_of, typed
from pipelines.sections import Source

FILES = 60  # of a kind, spread over all
HEAD_BYTES = 2 << 20
SLICE_BYTES, SLICES = 1 << 18, 12  # from all over a big plain file
ROWS = 100_000  # of a file


@dataclass
class Sampled:
    """What a look at one file shows.

    Attributes:
        source: the file.
        size: bytes, packed.
        shape: None where the file is refused.
        refused: reason and detail of that.
        rows: typed rows that were looked at, see ``typed.schema_of``.
        rejects: rejected rows among them; their lines are estimates beyond a big file's head.
        notes: fields that became null, see ``typed.Typed``.
        total: rows of the whole file, by estimate.
    """

    source: str
    size: int
    rows: pa.Table
    shape: Shape | None = None
    refused: tuple[str, str] | None = None
    rejects: list[Reject] = field(default_factory=list)
    notes: dict[tuple[str, str], tuple[int, int, str]] = field(default_factory=dict)
    total: int = 0

    @property
    def looked_at(self) -> int:
        """Rows that were looked at."""
        return int(self.rows.num_rows) + len(self.rejects)


def spread(names: list[str], most: int = FILES) -> list[str]:
    """Some of the names, the first and the last among them."""
    if len(names) <= most:
        return names
    return [names[i * (len(names) - 1) // (most - 1)] for i in range(most)]


def sampled(store: RawStore, name: str, kind: str, source: Source, timezone: str) -> Sampled:
    """Look at one file; what is wrong with it becomes ``refused``, never an exception."""
    found = Sampled(name, store.size(name), schema_of(kind).empty_table())
    parts = []
    try:
        shape = found.shape = look(store, name, kind, source)
        with TemporaryDirectory() as folder:
            for rows in _some_rows(store, found, shape, kind, source):
                part = typed(rows, kind, source, shape, timezone, Embedded(Path(folder)))
                parts.append(part.rows)
                found.rejects += [*rows.rejects, *part.rejects]
                for key, (n, position, value) in part.notes.items():
                    before = found.notes.get(key, (0, position, value))
                    found.notes[key] = (before[0] + n, before[1], before[2])
    except Exception as e:  # as in a night
        found.refused = why_refused(e)
    found.rows = pa.concat_tables([found.rows, *parts])
    found.total = found.total or found.looked_at
    return found


def _some_rows(store: RawStore, found: Sampled, shape: Shape, kind: str, source: Source) -> Iterator[Rows]:
    """Rows of a file's head, and of slices of a big one; ``found.total`` becomes their estimated number."""
    seen = 0
    text = shape.format == "csv" or shape.lines
    limit = HEAD_BYTES if text and shape.format != "parquet" else None
    cut = limit is not None and (found.size > HEAD_BYTES or bool(shape.packed))
    for rows in rows_of(store, found.source, shape, kind, source, end=limit if cut else None):
        seen += len(rows.positions) + len(rows.rejects)
        yield rows
        if seen >= ROWS:
            break
    if shape.format == "parquet":
        with seekable(store, found.source) as f:
            found.total = pq.read_metadata(f).num_rows
    elif cut and not shape.packed:
        found.total = round(seen * found.size / HEAD_BYTES)
    if cut and shape.growing and found.size > SLICES * HEAD_BYTES:
        for n in range(1, SLICES):
            at = _line_after(store, found.source, n * (found.size - SLICE_BYTES) // SLICES)
            first = round(at * seen / HEAD_BYTES) + 2
            for rows in rows_of(store, found.source, shape, kind, source, at, first, at + SLICE_BYTES):
                yield _without_last(rows)


def _line_after(store: RawStore, name: str, at: int) -> int:
    with store.open(name) as f:
        f.seek(at)
        f.readline(1 << 20)
        return f.tell()


def _without_last(rows: Rows) -> Rows:
    """Rows without what may be half a line at the end of a slice."""
    last = max([0, *(r.position for r in rows.rejects), pc.max(rows.positions).as_py() or 0])
    keep = pc.less(rows.positions, last)
    columns = {c: type(v)(v.array.filter(keep), v.nested.filter(keep) if v.nested else None) for c, v in rows.columns.items()}  # noqa: E501 # fmt: skip
    elements = rows.elements.filter(keep) if rows.elements is not None else None
    return Rows(rows.positions.filter(keep), columns, [r for r in rows.rejects if r.position < last], elements)
