"""Raw files as the user dropped them, read as rows of text cells.

Belongs here: CSV, JSON Lines and Parquet readers that report each bad row and go on. Does not: where
files are (``places``), types, days, meaning (``pieces``). Raw data is never modified.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.raw.places import RawError, RawStore

BATCH_ROWS = 50_000
MAX_LINE_BYTES = 16_000_000
MAX_RECORD_LINES = 1_000  # lines of one quoted CSV record; a stray quote must not swallow the file
MAX_ROW_GROUP_BYTES = 1 << 30
MAX_DECODED_BYTES = 2 << 30  # of one file
PARQUET_ROWS = 8_192
READERS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}

Cell = str | list[str] | None


@dataclass(frozen=True)
class Reject:
    """A row that cannot be used: its position in the file, reason code and detail."""

    position: int
    reason: str
    detail: str


@dataclass
class Batch:
    """Rows of one file.

    Attributes:
        positions: line (text files) or row (Parquet) number, 1-based.
        columns: our column name -> cells.
        rejects: rows that could not be read.
    """

    positions: list[int] = field(default_factory=list)
    columns: dict[str, list[Cell]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)


def read_rows(
    store: RawStore,
    name: str,
    columns: dict[str, str],
    required: set[str],
    lists: set[str],
    delimiter: str,
    separator: str,
) -> Iterator[Batch]:
    """Rows of one raw file.

    Args:
        store: where the file is.
        name: path below the root.
        columns: our column -> column in the file; columns that the file lacks come back as None.
        required: our columns that a CSV or Parquet file must have.
        lists: our columns that hold lists.
        delimiter: CSV delimiter; ``.tsv`` files always use a tab.
        separator: splits list cells that arrive as one string.

    Raises:
        RawError: the whole file cannot be used.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in READERS:
        raise RawError("unsupported_format", f"'{suffix or name}' is none of {', '.join(READERS)}")
    with store.open(name) as f:
        if READERS[suffix] == "csv":
            batches = _read_csv(f, columns, required, "\t" if suffix == ".tsv" else delimiter)
        elif READERS[suffix] == "jsonl":
            batches = _read_json_lines(f, columns)
        else:
            batches = _read_parquet(f, columns, required)
        for batch in batches:
            _shape_cells(batch, lists, separator)
            yield batch


def _shape_cells(batch: Batch, lists: set[str], separator: str) -> None:
    """Lists where lists are expected, text elsewhere; a row with another shape is rejected."""
    bad: dict[int, str] = {}
    for name, cells in batch.columns.items():
        if name in lists:
            batch.columns[name] = [
                [p.strip() for p in c.split(separator) if p.strip()] if isinstance(c, str) else c for c in cells
            ]
            continue
        for i, c in enumerate(cells):
            if isinstance(c, list):
                bad[i] = f"{name} is a list, expected one value"
    if bad:
        batch.rejects += [Reject(batch.positions[i], "bad_type", d) for i, d in bad.items()]
        keep = [i for i in range(len(batch.positions)) if i not in bad]
        batch.positions = [batch.positions[i] for i in keep]
        batch.columns = {k: [v[i] for i in keep] for k, v in batch.columns.items()}


def _lines(f: IO[bytes], rejects: list[Reject]) -> Iterator[tuple[int, str]]:
    """(line number, text) of each line; lines that are too long or not UTF-8 become rejects."""
    number = 0
    while raw := f.readline(MAX_LINE_BYTES):
        number += 1
        if len(raw) >= MAX_LINE_BYTES and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = f.readline(MAX_LINE_BYTES)
            rejects.append(Reject(number, "line_too_long", f"more than {MAX_LINE_BYTES} bytes"))
            continue
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as e:
            rejects.append(Reject(number, "bad_encoding", f"not UTF-8: {e.reason} at byte {e.start}"))
            continue
        if "\0" in text:
            rejects.append(Reject(number, "bad_encoding", "line holds a NUL character"))
            continue
        yield number, text


def _records(
    lines: Iterator[tuple[int, str]], width: int, delimiter: str, rejects: list[Reject]
) -> Iterator[tuple[int, list[str]]]:
    """(first line, fields) of each CSV record. A record that does not come out even costs its first line only."""
    waiting: list[tuple[int, str]] = []

    def following() -> tuple[int, str] | None:
        return waiting.pop(0) if waiting else next(lines, None)

    while (line := following()) is not None:
        number, text = line
        if '"' not in text:
            stripped = text.rstrip("\r\n")
            fields = stripped.split(delimiter)
            if stripped.strip():
                yield from _checked(number, fields, width, rejects)
            continue
        taken = [line]
        quotes = text.count('"')
        while quotes % 2 and len(taken) < MAX_RECORD_LINES and (more := following()) is not None:
            taken.append(more)
            quotes += more[1].count('"')
        parsed = _parse_record("".join(t for _, t in taken), delimiter) if quotes % 2 == 0 else None
        if parsed is not None and (len(taken) == 1 or len(parsed) == width):
            yield from _checked(number, parsed, width, rejects)
        else:
            rejects.append(
                Reject(number, "unbalanced_quote", f"a quote opens here and does not close into {width} fields")
            )
            waiting = taken[1:] + waiting


def _parse_record(text: str, delimiter: str) -> list[str] | None:
    try:
        rows = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return [c.rstrip("\r\n") if i == len(rows[0]) - 1 else c for i, c in enumerate(rows[0])] if len(rows) == 1 else None


def _checked(number: int, fields: list[str], width: int, rejects: list[Reject]) -> Iterator[tuple[int, list[str]]]:
    if len(fields) == width:
        yield number, fields
    else:
        rejects.append(Reject(number, "wrong_column_count", f"expected {width} fields, found {len(fields)}"))


def _read_csv(f: IO[bytes], columns: dict[str, str], required: set[str], delimiter: str) -> Iterator[Batch]:
    rejects: list[Reject] = []
    lines = _lines(f, rejects)
    first = next((line for line in lines if line[1].strip()), None)
    if rejects:
        raise RawError("bad_header", f"the first line is not readable: {rejects[0].detail}")
    if first is None:
        return
    header = [h.strip() for h in _parse_record(first[1], delimiter) or [first[1].strip()]]
    if len(set(header)) != len(header):
        raise RawError("duplicate_column", f"header repeats a name: {', '.join(header)[:300]}")
    at = {ours: header.index(theirs) for ours, theirs in columns.items() if theirs in header}
    _require(at, columns, required, header)
    positions: list[int] = []
    rows: list[list[str]] = []
    for number, fields in _records(lines, len(header), delimiter, rejects):
        positions.append(number)
        rows.append(fields)
        if len(rows) >= BATCH_ROWS:
            yield Batch(positions, _transpose(rows, columns, at), list(rejects))
            positions, rows = [], []
            rejects.clear()
    yield Batch(positions, _transpose(rows, columns, at), list(rejects))


def _transpose(rows: list[list[str]], columns: dict[str, str], at: dict[str, int]) -> dict[str, list[Cell]]:
    cells = list(zip(*rows, strict=True))
    return {
        ours: [c or None for c in cells[at[ours]]] if ours in at and rows else [None] * len(rows) for ours in columns
    }


def _require(found: Iterable[str], columns: dict[str, str], required: Iterable[str], present: Iterable[str]) -> None:
    missing = sorted(columns[c] for c in required if c not in set(found))
    if missing:
        raise RawError("missing_column", f"expected {', '.join(missing)}; the file has: {', '.join(present)[:300]}")


def _json_cell(value: Any) -> Cell:
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, list):
        return [str(c) for c in (_json_cell(v) for v in value) if c is not None]
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _read_json_lines(f: IO[bytes], columns: dict[str, str]) -> Iterator[Batch]:
    batch = Batch(columns={c: [] for c in columns})
    for number, text in _lines(f, batch.rejects):
        if not text.strip():
            continue
        try:
            row = orjson.loads(text)
        except orjson.JSONDecodeError as e:
            batch.rejects.append(Reject(number, "bad_json", str(e)[:200]))
            continue
        if not isinstance(row, dict):
            batch.rejects.append(Reject(number, "bad_json", f"expected one object a line, found {type(row).__name__}"))
            continue
        batch.positions.append(number)
        for ours, theirs in columns.items():
            batch.columns[ours].append(_json_cell(row.get(theirs)))
        if len(batch.positions) >= BATCH_ROWS:
            yield Batch(batch.positions, batch.columns, list(batch.rejects))
            batch.positions, batch.columns = [], {c: [] for c in columns}
            batch.rejects.clear()
    yield batch


def _read_parquet(f: IO[bytes], columns: dict[str, str], required: set[str]) -> Iterator[Batch]:
    try:
        schema = pq.read_schema(f)
        at = {ours: theirs for ours, theirs in columns.items() if theirs in schema.names}
        _require(at, columns, required, schema.names)
        # text stays dictionary-encoded: a file of 1 kB can repeat a value of 1 MB a million times
        texts = [
            n
            for n in set(at.values())
            if pa.types.is_string(schema.field(n).type) or pa.types.is_binary(schema.field(n).type)
        ]
        file = pq.ParquetFile(f, page_checksum_verification=True, read_dictionary=sorted(texts))
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        if any(g.total_byte_size > MAX_ROW_GROUP_BYTES or g.total_byte_size < 0 for g in groups):
            raise RawError("row_group_too_large", f"a row group holds more than {MAX_ROW_GROUP_BYTES} bytes")
        position = decoded = 0
        for rows in file.iter_batches(PARQUET_ROWS, columns=sorted(set(at.values()))):
            decoded += sum(_decoded_bytes(c) for c in rows.columns)
            if decoded > MAX_DECODED_BYTES:
                raise RawError("decodes_too_large", f"more than {MAX_DECODED_BYTES} bytes when decoded")
            cells: dict[str, list[Cell]] = {
                o: _arrow_cells(rows.column(at[o])) if o in at else [None] * len(rows) for o in columns
            }
            yield Batch(list(range(position + 1, position + 1 + len(rows))), cells)
            position += len(rows)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as e:
        if isinstance(e, RawError):
            raise
        raise RawError("unreadable_parquet", f"{type(e).__name__}: {str(e)[:200]}") from e


def _decoded_bytes(column: pa.Array) -> int:
    """Memory of a column without dictionary encoding."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = np.asarray(pc.fill_null(pc.binary_length(column.dictionary), 0), np.int64)
    used = np.asarray(column.indices.drop_null(), np.int64)
    return int(lengths[used].sum()) + 8 * len(column)


def _arrow_cells(column: pa.Array) -> list[Cell]:
    """Cells of a Parquet column: numbers and times as text, lists as lists of text."""
    if pa.types.is_dictionary(column.type):
        values = _arrow_cells(column.dictionary)
        return [None if i is None else values[i] for i in column.indices.to_pylist()]
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        times = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False).to_pylist()
        return [None if v is None else v.isoformat() for v in times]
    return [_json_cell(v.decode("utf-8") if isinstance(v, bytes) else v) for v in column.to_pylist()]
