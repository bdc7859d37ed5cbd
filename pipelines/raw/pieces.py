"""Parts of raw files to typed pieces: each is read once, whatever night asks for it.

A *piece* is the typed content of a part of a file (all of it, a byte range of a big one, what a growing log got since).
Belongs here: reading a part through Beam, and what a piece says of itself. Does not: which parts are new (``known``),
what the rows of all files mean together (``days``, ``versions``).
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import apache_beam as beam
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.config import Config
from pipelines.engine import beam as runtime
from pipelines.engine.database import database
from pipelines.lake.folders import fsync_tree, scratch
from pipelines.lake.storage import PARQUET
from pipelines.raw.columns import RAW_COLUMNS, REQUIRED
from pipelines.raw.containers import opened
from pipelines.raw.delimited import Rows
from pipelines.raw.embedded import Embedded
from pipelines.raw.lines import Reject
from pipelines.raw.places import RawError, RawPlace, RawStore, file_day
from pipelines.raw.reading import look, rows_of
from pipelines.raw.shape import Shape
from pipelines.raw.typed import Typed, schema_of, typed
from pipelines.sections import Source

log = logging.getLogger(__name__)

REJECTS = pa.schema([("position", pa.int64()), ("reason", pa.string()), ("detail", pa.string()), ("day", pa.date32())])
KEEPS_ROWS = (
    "broken_gzip",
    "broken_zstd",
    "broken_bz2",
    "broken_xz",
    "broken_zip",
    "broken_json",
)  # what was read before is good
PIECES: dict[str, Any] = {**PARQUET, "compression": "lz4"}  # read once or twice, so quick to write before small
BYTES_OF_ROW = 50  # of a file whose rows cannot be counted
OUT_OF_ROOM = (OSError, MemoryError, duckdb.IOException, duckdb.OutOfMemoryException)
STORED = ("rows.parquet", "rejects.parquet")
REJECTS_AT_ONCE = 100_000
MOST_EVENTS = 1_000  # distinct event names that a piece lists
REPEATED = ["event", "source", "domain", "_known", "_day"]  # columns worth a dictionary


@dataclass(frozen=True)
class Part:
    """A part of a raw file to be read.

    Attributes:
        source: file, relative to the raw folder.
        start: byte where it begins, at the beginning of a line.
        end: byte behind it; None for the end of the file.
        first: number of its first line.
        shape: of the file, where it was looked at before.
        near: day of the last dated row before it.
        size: bytes of the file when it was planned; what a log gets since is another night's.
    """

    source: str
    start: int = 0
    end: int | None = None
    first: int = 1
    shape: Shape | None = None
    near: date | None = None
    size: int = 0


@dataclass
class Account:
    """What a piece says of itself.

    Attributes:
        shape: of the file; None where it was refused.
        rows: typed rows.
        rejects: rejected rows.
        refused: reason and detail where the file, or the rest of it, is not read.
        lost: rows of a refused file, as far as they can be counted.
        days: ISO day -> rows of the day and the sum of their hashes.
        rejected_days: ISO day, or nothing for undated ones -> rejected rows and a digest of them.
        inexact: ISO days that have times known to the day or hour only.
        present: our column -> cells that hold something.
        events: event -> rows.
        notes: fields that became null: column, reason, how many, position of the first, what it held.
        lines: lines of the part.
        near: ISO day of the last dated row; nothing where there is none.
        ends_whole: whether a longer version of the file can be read from the part's end.
        sha256: of the part's bytes.
        bytes: how many they are.
        stored: sizes of ``STORED``.
    """

    shape: dict[str, Any] | None = None
    rows: int = 0
    rejects: int = 0
    refused: list[str] = field(default_factory=list)
    lost: int = 0
    days: dict[str, list[Any]] = field(default_factory=dict)
    rejected_days: dict[str, list[Any]] = field(default_factory=dict)
    inexact: list[str] = field(default_factory=list)
    present: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    notes: list[list[Any]] = field(default_factory=list)
    lines: int = 0
    near: str = ""
    ends_whole: bool = False
    sha256: str = ""
    bytes: int = 0
    stored: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Reader:
    """How to read one kind of raw file; travels to Beam workers."""

    kind: str
    place: RawPlace
    source: Source
    timezone: str


def read_parts(todo: list[tuple[Reader, Part, Path]], config: Config) -> None:
    """Write the piece of each part of a raw file into its folder, through Beam."""
    if not todo:
        return
    log.info("reading %d new parts of raw files", len(todo))

    def build(p: beam.Pipeline) -> None:
        elements = [(reader, part, str(folder)) for reader, part, folder in todo]
        p | beam.Create(elements, reshuffle=len(todo) > 1) | beam.ParDo(ReadPart())

    runtime.run(build, config.compute.runner, config.compute.runner_options, "ingest")


class ReadPart(beam.DoFn):
    """(reader, part, piece folder) -> the part's file; writes the piece in one step."""

    def process(self, element: tuple[Reader, Part, str]) -> Iterator[str]:
        """Read one part and publish its piece."""
        reader, part, target = element[0], element[1], Path(element[2])
        with scratch(target.parent, target.name) as staging:
            piece = staging / "piece"
            piece.mkdir()
            account = write_piece(reader, part, piece)
            fsync_tree(piece)
            if not target.is_dir():  # another worker may have been faster with the same content
                piece.rename(target)
        beam.metrics.Metrics.counter("ingest", "rows").inc(account.rows)
        beam.metrics.Metrics.counter("ingest", "rejects").inc(account.rejects)
        log.info("%s: %s, %d rows, %d rejected", reader.kind, part.source, account.rows, account.rejects)
        yield part.source


def write_piece(reader: Reader, part: Part, folder: Path) -> Account:
    """Read a part into ``rows.parquet``, ``rejects.parquet`` and ``account.json`` of a folder."""
    store = RawStore(*reader.place)
    writer = _Writer(reader.kind, part.source, folder, part.near)
    account, end = writer.account, part.end
    try:
        shape = part.shape or look(store, part.source, reader.kind, reader.source)
        account.shape = asdict(shape)
        _require(reader, shape)
        end = (part.size or None) if part.end is None and shape.growing else part.end
        embedded = Embedded(Path(reader.place.embedded))
        for rows in rows_of(
            store, part.source, shape, reader.kind, reader.source, part.start, part.first, end
        ):  # fmt: skip
            writer.add(rows, typed(rows, reader.kind, reader.source, shape, reader.timezone, embedded))
    except OUT_OF_ROOM:  # says nothing of the file
        raise
    except Exception as e:  # whatever a file holds, it costs that file and not the night
        account.refused = list(why_refused(e))
        account.lost = account.rows + account.rejects + 1
        if account.refused[0] not in KEEPS_ROWS:
            if part.start == 0:  # all ranges of a big file fail alike
                account.lost = max(account.lost, _rows_of(store, part.source))
            writer.forget()
    writer.close()
    _describe(store, part, end, account)
    account.stored = [(folder / name).stat().st_size for name in STORED]
    (folder / "account.json").write_text(json.dumps(asdict(account)))
    return account


def is_whole(folder: Path) -> bool:
    """Whether a piece's folder holds what was written."""
    try:
        stored = json.loads((folder / "account.json").read_text())["stored"]
        return bool(stored == [(folder / name).stat().st_size for name in STORED])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _require(reader: Reader, shape: Shape) -> None:
    """A table of fixed columns has to have those that every row needs.

    Raises:
        RawError: it has not.
    """
    needed = [c for c in REQUIRED[reader.kind] if c not in reader.source.defaults]
    missing = [c for c in needed if not shape.has(c)]
    if missing and shape.header and shape.format != "json":
        named = [f"{c} ({' or '.join(reader.source.names_of(c))})" for c in missing]
        raise RawError("missing_column", f"expected {', '.join(named)}; the file has: {', '.join(shape.header)[:300]}")


def why_refused(problem: Exception) -> tuple[str, str]:
    """Reason and detail of a file that is not read, whatever went wrong in it."""
    if isinstance(problem, RawError):
        return problem.reason, problem.detail[:500]
    log.error("a raw file cannot be read", exc_info=problem)
    return "unreadable_file", f"{type(problem).__name__}: {' '.join(str(problem).split())[:400]}"


def _rows_of(store: RawStore, name: str) -> int:
    """Rows of a file that was refused, by its lines, or by its size where it is not text; 1 where nothing is known."""
    try:
        with opened(store, name) as f:
            head = f.read(1 << 16)
            size, lines = len(head), head.count(b"\n")
            while data := f.read(1 << 23):
                size, lines = size + len(data), lines + data.count(b"\n")
    except Exception:  # it is refused already
        head, size, lines = b"\0", store.size(name), 0
    return max(1, lines, size // BYTES_OF_ROW if b"\0" in head else 0)


def _describe(store: RawStore, part: Part, end: int | None, account: Account) -> None:
    """Lines, bytes and sha256 of a part, and whether it ends with a whole line."""
    sha, last = hashlib.sha256(), b"\n"
    try:
        f = store.open(part.source)
    except RawError:  # it is refused, and stands in the account
        return
    with f:
        f.seek(part.start)
        left = None if end is None else end - part.start
        while data := f.read(1 << 23 if left is None else min(1 << 23, left)):
            left = None if left is None else left - len(data)
            sha.update(data)
            account.bytes += len(data)
            account.lines += data.count(b"\n")
            last = data[-1:]
    account.sha256 = sha.hexdigest()
    account.ends_whole = account.ends_whole and last == b"\n" and not account.refused


class _Writer:
    """Typed rows as they come into a piece's files, and its account."""

    def __init__(self, kind: str, source: str, folder: Path, near: date | None):
        self.kind, self.source, self.folder, self.account = kind, source, folder, Account(ends_whole=True)
        self.schema = schema_of(kind).append(pa.field("source", pa.string()))
        self.out, self.out_rejects = self._opened()
        self.named = file_day(source)
        self.rejects: list[dict[str, Any]] = []  # that are not written yet
        self.rejected: dict[str, tuple[int, Any]] = {}  # ISO day -> how many, digest of them
        self.near = near
        self.days: dict[str, list[int]] = {}

    def _opened(self) -> tuple[pq.ParquetWriter, pq.ParquetWriter]:
        repeated = [c for c in REPEATED if c in self.schema.names]
        rows = pq.ParquetWriter(self.folder / "rows.parquet", self.schema, use_dictionary=repeated, **PIECES)
        return rows, pq.ParquetWriter(self.folder / "rejects.parquet", REJECTS, **PIECES)

    def add(self, rows: Rows, found: Typed) -> None:
        account = self.account
        account.rows += found.rows.num_rows
        unread = [(r, None) for r in rows.rejects]
        self._reject(sorted([*unread, *zip(found.rejects, found.days, strict=True)], key=lambda r: r[0][0]), found.rows)
        for name in RAW_COLUMNS[self.kind]:
            column = found.rows[name]
            full = pc.sum(pc.greater(pc.list_value_length(column), 0)) if pa.types.is_list(column.type) else None
            account.present[name] = account.present.get(name, 0) + (
                len(column) - column.null_count if full is None else (full.as_py() or 0)
            )
        for key, (count, position, value) in found.notes.items():
            known = next((n for n in account.notes if (n[0], n[1]) == key), None)
            if known:
                known[2] += count
            else:
                account.notes.append([*key, count, position, value])
        if self.kind == "interactions" and len(account.events) < MOST_EVENTS:
            for entry in found.rows["event"].value_counts().to_pylist():
                account.events[entry["values"]] = account.events.get(entry["values"], 0) + entry["counts"]
        self._count_days(found.rows)
        source = pa.repeat(pa.scalar(self.source, pa.string()), found.rows.num_rows)
        self.out.write_table(found.rows.append_column("source", source).cast(self.schema))

    def _count_days(self, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        columns = ", ".join(["_position", *RAW_COLUMNS[self.kind]])
        query = (
            f"SELECT _day, count(*), sum(hash({columns}))::VARCHAR, max(_known) FROM rows GROUP BY _day ORDER BY _day"  # noqa: S608
        )
        with database() as con:
            con.register("rows", rows)
            for day, n, total, known in con.sql(query).fetchall():
                entry = self.days.setdefault(day.isoformat() if day else "", [0, 0, 0])
                entry[0] += n
                entry[1] = (entry[1] + int(total)) % (1 << 64)
                entry[2] = max(entry[2], known)

    def _reject(self, rejects: list[tuple[Reject, date | None]], rows: pa.Table) -> None:
        """Each reject counts on the day in the file's name, else its own, that of the row before it, or after it."""
        self.account.rejects += len(rejects)
        self.account.ends_whole = not any(r.reason in ("unbalanced_quote", "bad_json") for r, _ in rejects)
        dated = rows.filter(pc.is_valid(rows["_day"])) if rejects or self.rejects else rows.slice(0, 0)
        positions, days = dated["_position"].to_numpy(), dated["_day"]
        if len(positions):
            for waiting in self.rejects:
                waiting["day"] = waiting["day"] or days[0].as_py()
            self._write_rejects()
        for r, own in rejects:
            at = int(np.searchsorted(positions, r.position)) - 1
            near = days[at].as_py() if at >= 0 else self.near or (days[0].as_py() if len(positions) else None)
            day = self.named or own or near
            self.rejects.append({"position": r.position, "reason": r.reason, "detail": r.detail[:500], "day": day})
        if len(self.rejects) > REJECTS_AT_ONCE or (rejects and len(positions)):
            self._write_rejects()
        if rows.num_rows:
            latest = rows["_day"].drop_null()
            self.near = latest[-1].as_py() if len(latest) else self.near

    def _write_rejects(self) -> None:
        for r in self.rejects:
            n, digest = self.rejected.get(r["day"].isoformat() if r["day"] else "", (0, hashlib.sha256()))
            digest.update(f"{r['position']} {r['reason']} {r['detail']}\n".encode())
            self.rejected[r["day"].isoformat() if r["day"] else ""] = n + 1, digest
        if self.rejects:
            self.out_rejects.write_table(pa.Table.from_pylist(self.rejects, schema=REJECTS))
        self.rejects = []

    def forget(self) -> None:
        """Nothing of the file counts."""
        refused, lost, shape = self.account.refused, self.account.lost, self.account.shape
        self.out.close()
        self.out_rejects.close()
        self.out, self.out_rejects = self._opened()
        self.account.__init__(shape=shape, refused=refused, lost=lost)  # type: ignore[misc]
        self.rejects, self.rejected, self.days = [], {}, {}

    def close(self) -> None:
        self._write_rejects()
        self.out.close()
        self.out_rejects.close()
        self.account.near = self.near.isoformat() if self.near else ""
        self.account.days = {d: [n, f"{total:016x}"] for d, (n, total, _) in sorted(self.days.items())}
        self.account.inexact = [d for d, (_, _, known) in sorted(self.days.items()) if known]
        self.account.rejected_days = {d: [n, sha.hexdigest()[:16]] for d, (n, sha) in sorted(self.rejected.items())}
