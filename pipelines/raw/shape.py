"""What a raw file is, from its first bytes: format, encoding, delimiter, header, and where our columns are in it.

Belongs here: looking at a head, and saying what was found. Does not: reading all rows (``delimited``, ``documents``,
``columnar``), what a value means (``cells``, ``times``).
"""

import codecs
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

from pipelines.lake.schemas import STRINGS
from pipelines.raw.columns import RAW_COLUMNS
from pipelines.raw.containers import container_of, opened, seekable
from pipelines.raw.dialect import HEAD_BYTES, delimiter_of, elsewhere, encoding_of, is_escaped, is_quoted, split_line
from pipelines.raw.nested import Path, in_header, in_objects, in_schema, written
from pipelines.raw.objects import first_objects, list_ahead, records_path, rows_below
from pipelines.raw.places import RawError, RawStore
from pipelines.sections import Source

SAMPLE_ROWS = 1_000
PREAMBLE = 20  # lines among which a header is looked for
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
FOREIGN = {
    b"PK\x03\x04": "an Excel workbook or a zip of several files; save each sheet as CSV, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as CSV",
    b"ORC": "ORC; convert it to Parquet",
    b"Obj\x01": "Avro; convert it to Parquet or JSON Lines",
    b"SQLite format 3": "a SQLite database; export its tables as CSV",
    b"\x80\x04": "a Python pickle, which is never opened; write Parquet",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"%PDF": "a PDF",
    b"ARROW1": "Arrow or Feather; write Parquet",
    b"\x04\x22\x4d\x18": "packed with LZ4; pack it with gzip or zstd",
    b"\xff\x06\x00\x00sNaPpY": "packed with Snappy; pack it with gzip or zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself",
    b"<!doctype html": "an HTML page, perhaps of a login; download the file itself",
    b"<html": "an HTML page, perhaps of a login; download the file itself",
    b"<?xml": "XML; write CSV, JSON Lines or Parquet",
    b"-- mysql dump": "a dump of SQL; export its tables as CSV",
    b"-- postgresql database dump": "a dump of SQL; export its tables as CSV",
    b"--\n-- postgresql database dump": "a dump of SQL; export its tables as CSV",
}
TAR = (257, b"ustar")


@dataclass(frozen=True)
class Shape:
    """How a file is to be read.

    Attributes:
        format: csv, json or parquet.
        packed: container, see ``containers``; empty for plain bytes.
        encoding: of text.
        delimiter: between fields.
        quoting: whether fields may stand in double quotes.
        escape: whether a backslash makes the next character plain.
        header: names of the columns of delimited text, in order; of other formats those that were seen.
        headless: whether the first line is data.
        preamble: lines before the header that are not empty (``sep=;``, comments, a title).
        lines: whether JSON has an object a line (or several); else it is read value by value.
        records: path of the list that holds the rows of a JSON value; empty where the values are the rows.
        records_at: characters before the first row, where one value that is too long to be read at once holds them all.
        columns: our column -> its name or path in the file.
        others: our column -> further names in order, whose cells count where those of the first are empty.
        keys: our column -> value from the file's path (``event_type=view``).
        rules: our column -> a text with the names of our columns in braces.
        comma: whether numbers in text have a decimal comma.
        float_ids: our id columns whose numbers were written as 7.0.
        excel: our time columns whose numbers are Excel's days.
        time_formats: our time column -> how its texts are written, where that is not ISO 8601.
        spaced: our list columns whose cells are split at blanks.
        said: what was found that is not plain UTF-8 and RFC 4180.
    """

    format: str
    packed: str = ""
    encoding: str = "utf-8"
    delimiter: str = ","
    quoting: bool = True
    escape: bool = False
    header: tuple[str, ...] = ()
    headless: bool = False
    preamble: int = 0
    lines: bool = True
    records: str = ""
    records_at: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    others: dict[str, tuple[str, ...]] = field(default_factory=dict)
    keys: dict[str, str | None] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    comma: bool = False
    float_ids: tuple[str, ...] = ()
    excel: tuple[str, ...] = ()
    time_formats: dict[str, str] = field(default_factory=dict)
    spaced: tuple[str, ...] = ()
    said: tuple[str, ...] = ()

    @property
    def growing(self) -> bool:
        """Whether a longer version of the file can be read from where the shorter one ended."""
        return not self.packed and self.encoding == "utf-8" and self.format in ("csv", "json") and self.lines

    def has(self, column: str) -> bool:
        """Whether the file, its path or a rule gives one of our columns."""
        return column in self.columns or column in self.keys or column in self.rules


def _day_of(keys: dict[str, str | None]) -> str | None:
    """The day that a path says: ``dt=2026-03-01``, or ``year=2026/month=03/day=01``."""
    parts = [keys.get(k) for k in ("year", "month", "day")]
    if all(p and p.isdigit() for p in parts):
        return "-".join(str(p).zfill(2) for p in parts)
    return next((keys[k] for k in ("dt", "date", "day", "ds", "event_date") if keys.get(k)), None)


def path_keys(name: str) -> dict[str, str | None]:
    """Columns that stand in a file's path, as Spark and Hive write them: ``dt=2026-03-01/event_type=view/``."""
    pairs = [part.partition("=") for part in name.split("/")[:-1] if "=" in part]
    return {key: None if value == NULL_PARTITION else unquote(value) for key, _, value in pairs if key}


def shape_of(store: RawStore, name: str, kind: str, source: Source) -> Shape:
    """Look at the head of a file.

    Raises:
        RawError: it cannot be read as a table.
    """
    with opened(store, name) as f:
        head = f.read(HEAD_BYTES)
    with store.open(name) as f:
        packed = container_of(f.read(8))
    if head.startswith(b"PAR1") and source.format in ("auto", "parquet"):
        shape = _of_parquet(store, name, kind, source)
    elif source.format == "parquet":
        raise RawError("unreadable_parquet", "the file does not begin with PAR1")
    else:
        shape = _of_text(store, name, head, kind, source, packed)
    shape = _with_path(replace(shape, packed=packed), name, kind, source)
    if packed:
        shape = replace(shape, said=(*shape.said, f"unpacked from {packed}"))
    return shape


def _with_path(shape: Shape, name: str, kind: str, source: Source) -> Shape:
    """Columns that only the path has, and those that a rule makes."""
    found, keys, rules = path_keys(name), {}, {}
    for column in RAW_COLUMNS[kind]:
        names = source.names_of(column)
        if any("{" in n for n in names):
            rules[column] = next(n for n in names if "{" in n)
        key = in_header(names, list(found))
        if not shape.has(column) and column not in rules and key is not None:
            keys[column] = found[key]
    day = _day_of(found)
    if kind == "interactions" and not shape.has("event_at") and "event_at" not in keys and day:
        keys["event_at"] = day
    columns = {c: p for c, p in shape.columns.items() if c not in rules}
    said = tuple(f"{c} from the path" for c in keys)
    return replace(shape, columns=columns, keys=keys, rules=rules, said=(*shape.said, *said))


# --- Parquet ----------------------------------------------------------------------------------------------------


def _of_parquet(store: RawStore, name: str, kind: str, source: Source) -> Shape:
    try:
        with seekable(store, name) as f:
            schema = pq.read_schema(f)
    except RawError:
        raise
    except Exception as e:  # a damaged footer raises whatever its bytes make it raise
        raise RawError("unreadable_parquet", f"{type(e).__name__}: {str(e)[:200]}") from e
    found = {c: in_schema(source.names_of(c), schema) for c in RAW_COLUMNS[kind]}
    columns = {c: _named(p) for c, p in found.items() if p is not None}
    others = _others(columns, source, lambda name: _named(in_schema([name], schema)))
    return Shape("parquet", header=tuple(schema.names), columns=columns, others=others, said=_renamed(columns, source))


def _named(path: Path | None) -> str:
    return "" if path is None else written(path) if len(path) > 1 else str(path[0])


def _others(columns: dict[str, str], source: Source, find: Callable[[str], str]) -> dict[str, tuple[str, ...]]:
    """Names behind the first of each column that a file has as well."""
    found = {c: dict.fromkeys(filter(None, map(find, source.names_of(c)))) for c in columns}
    return {c: tuple(n for n in names if n != columns[c]) for c, names in found.items() if len(names) > 1}


def _renamed(columns: dict[str, str], source: Source) -> tuple[str, ...]:
    return tuple(f"'{theirs}' read as {c}" for c, theirs in columns.items() if theirs not in source.names_of(c))


# --- text -------------------------------------------------------------------------------------------------------


def _of_text(store: RawStore, name: str, head: bytes, kind: str, source: Source, packed: str) -> Shape:
    start = head[:100].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    for magic, what in FOREIGN.items():
        if head.startswith(magic) or start.startswith(magic):
            raise RawError("unsupported_format", f"this is {what}")
    if head[TAR[0] :].startswith(TAR[1]):
        raise RawError("unsupported_format", "this is a tar archive; unpack it")
    encoding = source.encoding if source.encoding != "auto" else encoding_of(head, elsewhere(store, name, packed))
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head).removeprefix("\ufeff")
    said = () if encoding == "utf-8" else (f"encoding {encoding}",)
    suffixes = [s.lower() for s in PurePath(name).suffixes]
    if source.format == "json" or (source.format == "auto" and _looks_like_json(text, suffixes)):
        shape = _of_json(text, kind, source)
    else:
        whole = len(head) < HEAD_BYTES
        shape = _of_delimited(text if whole else text[: text.rfind("\n") + 1] or text, suffixes, kind, source)
    return replace(shape, encoding=encoding, said=(*said, *shape.said))


def _looks_like_json(text: str, suffixes: list[str]) -> bool:
    start = text.lstrip()[:1]
    if any(s in JSON_SUFFIXES for s in suffixes):
        return True
    if start not in ("{", "["):
        return False
    if not any(s in (".csv", ".tsv", ".dat") for s in suffixes):
        return True
    try:
        return isinstance(json.loads(text.lstrip().split("\n", 1)[0]), dict)
    except ValueError:
        return False


# --- JSON -------------------------------------------------------------------------------------------------------


def _of_json(text: str, kind: str, source: Source) -> Shape:
    by_line, objects = first_objects(text)
    records, records_at = source.records, 0
    if not objects and text.lstrip().startswith("{"):
        records, records_at = list_ahead(text, records)
        objects = first_objects(text[records_at:])[1] if records_at else []
    else:
        records = records or _records_of(objects, kind, source)
    rows = (
        [r for o in objects for r in rows_below(o, records) if isinstance(r, dict)]
        if records and not records_at
        else objects
    )
    found = {c: in_objects(source.names_of(c), rows) for c in RAW_COLUMNS[kind]}
    columns = {c: _named(p) for c, p in found.items() if p is not None}
    said = [] if by_line else ["JSON values over several lines"]
    said += [f"rows are the list '{records}' of each JSON value"] if records else []
    for c in RAW_COLUMNS[kind]:  # an object need not have every key, so the sample proves nothing
        guessed = not any("{" in n for n in source.names_of(c)) and (kind, c) != ("users", "attributes")
        if c not in columns and guessed:
            columns[c] = source.names_of(c)[0]
    keys = tuple(dict.fromkeys(k for o in rows for k in o))
    others = _others(columns, source, lambda name: "" if "{" in name else _named(in_objects([name], rows)) or name)
    said += _renamed({c: p for c, p in columns.items() if found[c] is not None}, source)
    return Shape(
        "json", lines=by_line and not records, records=records, records_at=records_at, columns=columns, header=keys,
        others=others, said=tuple(said),
    )  # fmt: skip


def _records_of(objects: list[dict[str, Any]], kind: str, source: Source) -> str:
    """Path of the list that holds the rows of the first value, where that has none of our columns itself."""
    if any(in_objects(source.names_of(c), objects[:1]) for c in RAW_COLUMNS[kind]):
        return ""
    return records_path(objects)


# --- delimited text ---------------------------------------------------------------------------------------------


def _of_delimited(text: str, suffixes: list[str], kind: str, source: Source) -> Shape:
    lines = [
        line for line in re.split(r"\r\n|\r|\n", text, maxsplit=SAMPLE_ROWS + 1)[: SAMPLE_ROWS + 1] if line.strip()
    ]
    delimiter, preamble = source.delimiter, _preamble(lines, kind, source)
    lines = lines[preamble:]
    if not lines:
        return Shape("csv")
    if delimiter == "auto":
        delimiter = "\t" if ".tsv" in suffixes else delimiter_of(lines, lambda h: len(_in_header(h, kind, source)))
    quoting = source.quoting == "on" or (source.quoting == "auto" and is_quoted(lines, delimiter))
    escape = quoting and is_escaped(text, delimiter)
    first = split_line(lines[0], delimiter, quoting, escape)
    numbered = _is_numbered(first, source)
    headless = numbered or (bool(source.header) and [c.strip() for c in first] != list(source.header))
    header = [str(i + 1) for i in range(len(first))] if numbered else list(source.header) or [c.strip() for c in first]
    columns = _in_header(header, kind, source)
    for theirs in columns.values():
        if header.count(theirs) > 1:
            raise RawError("duplicate_column", f"the header has '{theirs}' {header.count(theirs)} times")
    said = [f"delimiter {delimiter!r}"] if delimiter != "," else []
    said += ["no header"] if headless else []
    said += [f"{preamble} lines before the header"] if preamble else []
    said += ["no quoting"] if not quoting and delimiter == "," else []
    said += ["backslash escapes"] if escape else []
    lists = [c for c, t in RAW_COLUMNS[kind].items() if t == STRINGS]
    spaced = tuple(c for c in lists if columns.get(c, "").endswith(":token_seq"))
    others = _others(columns, source, lambda name: in_header([name], header) or "")
    return Shape(
        "csv", delimiter=delimiter, quoting=quoting, escape=escape, header=tuple(header), headless=headless,
        columns=columns, others=others, spaced=spaced, said=(*said, *_renamed(columns, source)), preamble=preamble,
    )  # fmt: skip


def _preamble(lines: list[str], kind: str, source: Source) -> int:
    """Lines before the one that names our columns, where the first does not."""
    if source.header or any(n.isdigit() for c in source.columns for n in source.names_of(c)):
        return 0
    cut = [[f.strip(' "') for f in re.split(r"[,;|\t\x01]|::", line)] for line in lines[:PREAMBLE]]
    named = [len(_in_header(fields, kind, source)) for fields in cut]
    best = max(named, default=0)
    return named.index(best) if best > 1 and named[0] == 0 else 0


def _in_header(header: list[str], kind: str, source: Source) -> dict[str, str]:
    """Our columns that a header has, and its name of each."""
    found = {c: in_header(source.names_of(c), header) for c in RAW_COLUMNS[kind]}
    return {c: theirs for c, theirs in found.items() if theirs is not None}


def _is_numbered(first: list[str], source: Source) -> bool:
    """Whether the configuration names columns by number, and the file has no such names."""
    names = [n for c in source.columns for n in source.names_of(c) if "{" not in n]
    return bool(names) and all(n.isdigit() for n in names) and not all(n in first for n in names)
