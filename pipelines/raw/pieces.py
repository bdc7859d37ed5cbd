"""Raw files to typed pieces: each file is read once, whatever night asks for it.

A *piece* is the typed content of one raw file (rows, rejects, rows per day), cached under the file's sha256 and
the column mapping. Belongs here: reading, typing, rejecting single rows. Does not: what the rows of all files
mean together (dedupe, catalogue versions), which is ``standardize``.
"""

import hashlib
import logging
import re
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import apache_beam as beam
import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import Config, Source, digest_of
from pipelines.engine import beam as runtime
from pipelines.lake.folders import fsync_tree, scratch
from pipelines.lake.schemas import EVERYONE, STRINGS, TIMESTAMP
from pipelines.lake.storage import write_parquet
from pipelines.lake.tables import RAW_COLUMNS, REQUIRED
from pipelines.raw.files import Batch, Reject, read_rows
from pipelines.raw.places import RawError, RawStore

log = logging.getLogger(__name__)

VERSION = 1  # raise it when the same file should give other pieces
MAX_ID = 512  # characters
MAX_TEXT = 1_000_000  # characters of one cell
DAY_COLUMN = {
    "interactions": ("event_at",),
    "items": ("updated_at", "created_at"),
    "user_content": ("created_at",),
}
REJECTS = pa.schema([("position", pa.int64()), ("reason", pa.string()), ("detail", pa.string()), ("day", pa.date32())])
FILE_DATE = re.compile(r"(?<!\d)(\d{4}-\d\d-\d\d)(?!\d)")


@dataclass(frozen=True)
class Piece:
    """The typed content of one raw file.

    Attributes:
        source: file, relative to the raw folder.
        folder: where ``rows.parquet`` and ``rejects.parquet`` are.
        file_day: date in the file's name.
    """

    source: str
    folder: Path
    file_day: date | None

    @property
    def rows(self) -> Path:
        """Typed rows with ``_position`` and ``_day``."""
        return self.folder / "rows.parquet"

    @property
    def rejects(self) -> Path:
        """Rejected rows with the day they are counted on, null where that is unknown."""
        return self.folder / "rejects.parquet"


@dataclass(frozen=True)
class Ingest:
    """How to read one kind of raw file; travels to Beam workers."""

    kind: str
    raw_root: str
    cache: Path
    source: Source
    timezone: str

    def pieces(self, store: RawStore, config: Config) -> list[Piece]:
        """Pieces of all raw files of this kind, in order of name; files not seen before are read through Beam."""
        with_keys = [(name, self.folder_of(store, name)) for name in store.files(self.source.path)]
        missing = [(name, folder) for name, folder in with_keys if not folder.is_dir()]
        if missing:
            log.info(
                "%s: reading %d new raw files (%d known)",
                self.kind,
                len(missing),
                len(with_keys) - len(missing),
            )

            def build(p: beam.Pipeline) -> None:
                (
                    p
                    | beam.Create([(n, str(f)) for n, f in missing], reshuffle=len(missing) > 1)
                    | beam.ParDo(ReadFile(self))
                )

            runtime.run(build, config.compute.runner, config.compute.runner_options, f"ingest_{self.kind}")
        self._forget_all_but({folder for _, folder in with_keys})
        return [Piece(name, folder, file_day(name)) for name, folder in with_keys]

    def _forget_all_but(self, needed: set[Path]) -> None:
        """Remove pieces of files that are gone or have changed: what a user deletes is not kept here."""
        for folder in (self.cache / self.kind).glob("[!.]*"):
            if folder not in needed:
                shutil.rmtree(folder, ignore_errors=True)

    def folder_of(self, store: RawStore, name: str) -> Path:
        """Cache folder of a raw file's piece."""
        try:
            with store.open(name) as f:
                content = hashlib.file_digest(f, "sha256").hexdigest()  # type: ignore[arg-type]
        except RawError as e:
            content = str(e)
        columns = {c: str(kind) for c, kind in RAW_COLUMNS[self.kind].items()}
        settings = [self.source.model_dump(mode="json"), self.timezone]
        return self.cache / self.kind / digest_of([VERSION, self.kind, columns, name, content, *settings])


def for_kind(kind: str, config: Config) -> Ingest:
    """The reader of ``interactions``, ``items`` or ``user_content``."""
    source = getattr(config, kind)
    return Ingest(kind, config.paths.raw, config.paths.data / "cache" / "pieces", source, config.timezone)


def file_day(name: str) -> date | None:
    """Last ISO date in a file's path, or None."""
    for text in reversed(FILE_DATE.findall(name)):
        try:
            return date.fromisoformat(text)
        except ValueError:
            continue
    return None


class ReadFile(beam.DoFn):
    """(file name, piece folder) -> nothing; writes the piece in one step."""

    def __init__(self, ingest: Ingest):
        self.ingest = ingest

    def process(self, element: tuple[str, str]) -> Iterator[str]:
        """Read one file and publish its piece."""
        name, target = element[0], Path(element[1])
        rows, rejects = read_file(self.ingest, RawStore(self.ingest.raw_root), name)
        with scratch(target.parent, target.name) as staging:
            piece = staging / "piece"
            piece.mkdir()
            write_parquet(rows, piece / "rows.parquet")
            write_parquet(rejects, piece / "rejects.parquet")
            fsync_tree(piece)
            if not target.is_dir():  # another worker may have been faster with the same content
                piece.rename(target)
        beam.metrics.Metrics.counter("ingest", "rows").inc(rows.num_rows)
        beam.metrics.Metrics.counter("ingest", "rejects").inc(rejects.num_rows)
        yield name


def read_file(ingest: Ingest, store: RawStore, name: str) -> tuple[pa.Table, pa.Table]:
    """Typed rows and rejects of one raw file.

    Returns:
        Rows (columns of ``RAW_COLUMNS`` with ``_position``, ``_day``), rejects (position, reason, detail, day).
    """
    kinds = RAW_COLUMNS[ingest.kind]
    mapping = {c: ingest.source.columns.get(c, c) for c in kinds}
    lists = {c for c, t in kinds.items() if t == STRINGS}
    tables: list[pa.Table] = []
    rejects: list[Reject] = []
    try:
        required = set(REQUIRED[ingest.kind]) - set(ingest.source.defaults)
        source = ingest.source
        for batch in read_rows(store, name, mapping, required, lists, source.delimiter, source.list_separator):
            rejects += batch.rejects
            typed, bad = type_rows(batch, ingest.kind, source, ingest.timezone)
            tables.append(typed)
            rejects += bad
    except RawError as e:
        tables, rejects = [], [Reject(0, e.reason, e.detail)]
    rows = pa.concat_tables(tables) if tables else _empty(ingest.kind)
    return rows, _rejects_with_days(rows, rejects, file_day(name))


def _empty(kind: str) -> pa.Table:
    fields = [("_position", pa.int64()), ("_day", pa.date32()), *RAW_COLUMNS[kind].items()]
    return pa.schema(fields).empty_table()


def _rejects_with_days(rows: pa.Table, rejects: list[Reject], named: date | None) -> pa.Table:
    """A reject counts on the day in the file's name, else of the nearest dated row before it, else after it."""
    dated = (
        sorted(zip(rows["_position"].to_pylist(), rows["_day"].to_pylist(), strict=True))
        if rejects and not named
        else []
    )
    dated = [d for d in dated if d[1] is not None]
    out, at = [], 0
    for r in sorted(rejects, key=lambda r: (r.position, r.reason)):
        while at < len(dated) and dated[at][0] < r.position:
            at += 1
        near = dated[at - 1][1] if at else (dated[0][1] if dated else None)
        day = named or (near if r.position else None)
        out.append({"position": r.position, "reason": r.reason, "detail": r.detail[:500], "day": day})
    return pa.Table.from_pylist(out, schema=REJECTS)


def type_rows(batch: Batch, kind: str, source: Source, timezone: str) -> tuple[pa.Table, list[Reject]]:
    """Cells to typed columns.

    Args:
        batch: cells of one file.
        kind: interactions, items or user_content.
        source: defaults and time unit.
        timezone: zone of timestamps without one, and of the day.

    Returns:
        Typed rows and one reject for each row that could not be typed, with its first problem.
    """
    problems: dict[int, Reject] = {}

    def reject(where: pa.Array, reason: str, detail: str, cells: list[Any] | None = None) -> None:
        for i in pc.indices_nonzero(where).to_pylist():
            shown = "" if cells is None else f", found '{str(cells[i])[:100]}'"
            problems.setdefault(i, Reject(batch.positions[i], reason, detail + shown))

    columns: dict[str, pa.Array] = {}
    for name, kind_of in RAW_COLUMNS[kind].items():
        cells = batch.columns[name]
        if name in source.defaults:
            default = source.defaults[name]
            cells = [default if c is None else c for c in cells]
        if kind_of == STRINGS:
            columns[name] = pa.array([[_clean(v) for v in c] if c else [] for c in cells], STRINGS)
            continue
        text = _clean_column(cells)
        given = pc.is_valid(text)
        if kind_of == pa.string():
            columns[name] = text
            limit = MAX_ID if name.endswith("_id") or name == "event" else MAX_TEXT
            reject(
                pc.fill_null(pc.greater(pc.utf8_length(text), limit), False),
                "too_long",
                f"{name}: more than {limit} characters",
            )
        else:
            is_time = kind_of == TIMESTAMP
            columns[name] = _timestamps(text, source.time_unit, timezone) if is_time else _numbers(text)
            what = "an ISO date and time or epoch number, 1970 to 2199" if is_time else "a finite number"
            lost = pc.and_(given, pc.is_null(columns[name]))
            reject(
                lost,
                "bad_timestamp" if is_time else "bad_number",
                f"{name}: expected {what}",
                cells,
            )
        if name == "user_id":
            detail = f"user_id '{EVERYONE}' is reserved for the list of users who have none"
            reject(pc.fill_null(pc.equal(text, EVERYONE), False), "reserved_user_id", detail)
        if name in REQUIRED[kind]:
            reject(pc.invert(given), f"missing_{name}", f"{name} is empty and required")
    columns["_position"] = pa.array(batch.positions, pa.int64())
    columns["_day"] = _days(columns, kind, timezone)
    order = ["_position", "_day", *RAW_COLUMNS[kind]]
    rows = pa.table({c: columns[c] for c in order})
    keep = pa.array([i not in problems for i in range(len(batch.positions))], pa.bool_())
    return rows.filter(keep), list(problems.values())


CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"


def _clean_column(cells: list[Any]) -> pa.Array:
    """NFC, without control characters and outer white space; empty becomes null."""
    # unicodedata, because pyarrow 25's utf8_normalize leaves e + combining accent as it is
    text = pa.array([c if c is None or c.isascii() else unicodedata.normalize("NFC", c) for c in cells], pa.string())
    text = pc.utf8_trim_whitespace(pc.replace_substring_regex(text, pattern=CONTROL, replacement=" "))
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _clean(value: str) -> str:
    cleaned = _clean_column([value])[0].as_py()
    return cleaned or ""


def _numbers(text: pa.Array) -> pa.Array:
    found = _try_cast(text, "DOUBLE", "UTC")
    return pc.if_else(pc.fill_null(pc.is_finite(found), False), found, pa.scalar(None, pa.float64()))


def _timestamps(text: pa.Array, unit: str, timezone: str) -> pa.Array:
    """UTC microseconds; numbers are epochs in ``unit`` (auto: by magnitude), the rest is ISO 8601."""
    number = _try_cast(text, "DOUBLE", timezone)
    is_number = pc.and_(pc.fill_null(pc.is_finite(number), False), pa.scalar(unit != "iso"))
    if unit in ("auto", "iso"):
        size = pc.abs(number)
        scale = pc.if_else(pc.less(size, 1e11), 1e6, pc.if_else(pc.less(size, 1e14), 1e3, 1.0))
    else:
        scale = pa.scalar({"s": 1e6, "ms": 1e3, "us": 1.0}[unit])
    lowest, highest = 0.0, 7.2573e15  # 1970-01-01 to 2199-12-22, microseconds
    micros = pc.round(pc.multiply(number, scale))
    micros = pc.if_else(
        pc.and_(pc.greater_equal(micros, lowest), pc.less(micros, highest)),
        micros,
        pa.scalar(None, pa.float64()),
    )
    epochs = micros.cast(pa.int64()).cast(TIMESTAMP)
    iso = _try_cast(text, "TIMESTAMPTZ", timezone).cast(pa.int64())
    iso = pc.if_else(
        pc.and_(pc.greater_equal(iso, 0), pc.less(iso, int(highest))), iso, pa.scalar(None, pa.int64())
    ).cast(TIMESTAMP)
    return pc.if_else(pc.fill_null(is_number, False), epochs, iso)


def _try_cast(text: pa.Array, kind: str, timezone: str) -> pa.Array:
    with duckdb.connect() as con:
        con.execute(f"SET TimeZone = '{timezone}'; SET threads = 1")
        con.register("cells", pa.table({"i": pa.array(range(len(text)), pa.int64()), "x": text}))
        query = f"SELECT TRY_CAST(x AS {kind}) AS y FROM cells ORDER BY i"  # noqa: S608, the kind is one of ours
        found = con.sql(query).to_arrow_table()["y"].combine_chunks()
    found = pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found
    return found.cast(TIMESTAMP) if kind == "TIMESTAMPTZ" else found


def _days(columns: dict[str, pa.Array], kind: str, timezone: str) -> pa.Array:
    """Local day of each row's own time; null where it has none."""
    when = pc.coalesce(*[columns[c] for c in DAY_COLUMN[kind]])
    return pc.local_timestamp(when.cast(pa.timestamp("us", timezone))).cast(pa.date32(), safe=False)
