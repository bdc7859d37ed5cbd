"""Delimited text (CSV, TSV, ``::``): whole blocks by Arrow, and line by line where a block does not come out even.

Belongs here: records and fields. Does not: which dialect (``shape``), types (``cells``, ``times``).
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from pipelines.raw.cells import Cells
from pipelines.raw.containers import Unpacked
from pipelines.raw.dialect import split_line
from pipelines.raw.lines import MAX_LINE_BYTES, Block, Reject, blocks, checked, ends_of
from pipelines.raw.places import RawError
from pipelines.raw.shape import Shape

MAX_RECORD_LINES = 1_000  # lines of one quoted record; a stray quote must not swallow the file
csv.field_size_limit(MAX_LINE_BYTES)
UNIT = "\x1f"  # stands for a delimiter of several characters


@dataclass
class Rows:
    """Rows of one file.

    Attributes:
        positions: line (text files), value (JSON over several lines) or row (Parquet), from 1.
        columns: our column -> cells.
        rejects: rows that could not be read.
        elements: number in the list that a row stands in, from 0; None where rows are not made of lists.
    """

    positions: pa.Array
    columns: dict[str, Cells]
    rejects: list[Reject] = field(default_factory=list)
    elements: pa.Array | None = None


def read_delimited(
    stream: IO[bytes] | Unpacked, shape: Shape, first: int = 1, end: int | None = None
) -> Iterator[Rows]:
    """Rows of a stream that begins with a line; the header is left out where the first line is number 1."""
    reader, waiting = _Reader(shape), None
    source = blocks(stream, shape.encoding, first, end)
    while True:
        try:
            block = next(source, None)
        except RawError:  # what came before the tear is good
            if waiting is not None:
                yield reader.rows(waiting, last=True)
            raise
        if waiting is not None:
            yield reader.rows(waiting, last=block is None)
        if block is None:
            return
        waiting = block


class _Reader:
    def __init__(self, shape: Shape):
        self.shape, self.width = shape, len(shape.header)
        self.at = {ours: shape.header.index(theirs) for ours, theirs in shape.columns.items()}
        self.used = sorted(set(self.at.values()))
        self.delimiter = shape.delimiter if len(shape.delimiter) == 1 else UNIT
        self.seen_header = shape.headless
        self.open: list[tuple[int, str]] = []  # lines of a record that the last block did not close

    def rows(self, block: Block, last: bool) -> Rows:
        if not self.seen_header:
            block = self._without_header(block)
        found = None if block.too_long or self.open else self._whole(block)
        if found is None:
            found = self._line_by_line(block, last)
        return self._without_repeats(found)

    def _without_header(self, block: Block) -> Block:
        """The lines behind the header, where the block has it; lines before it are empty."""
        if block.first > 1 and not block.data.strip():
            return block
        self.seen_header = True
        if block.first > 1:  # a part of the file that does not begin with the header
            return block
        number, data, before = block.first, block.data, self.shape.preamble
        while data:
            line, _, data = data.partition(b"\n")
            number += 1
            before -= bool(line.strip())
            if line.strip() and before < 0:
                break
        return Block(number, data, block.too_long)

    def _whole(self, block: Block) -> Rows | None:
        """Arrow's reading of a block; None where it has not one record a line."""
        data = self._for_arrow(block.data)
        if data is None or (self.shape.quoting and _last_line(data).count(b'"') % 2):  # Arrow closes such a quote
            return None
        invalid: list[arrow_csv.InvalidRow] = []
        try:
            table = self._read_by_arrow(data, invalid)
        except pa.ArrowException:
            return None
        lines = _full_lines(data)
        has_empty_lines = len(lines) > 0 and lines[-1] != len(lines) - 1
        uneven = table.num_rows + len(invalid) != len(lines)
        if uneven or len(invalid) > len(lines) // 10 or (invalid and has_empty_lines):
            return None
        keep, rejects = np.ones(len(lines), bool), list[Reject]()
        extra: list[tuple[int, list[str]]] = []
        if self.shape.quoting and any(row.text.count('"') % 2 for row in invalid):
            return None
        for row in invalid:
            at = (row.number or 1) - 1
            keep[at] = False
            fields = split_line(row.text, self.delimiter, self.shape.quoting, self.shape.escape)
            self._checked(block.first + int(lines[at]), fields, extra, rejects)
        if extra:
            return None
        columns = {ours: Cells(_one(table[str(i)])) for ours, i in self.at.items()}
        return Rows(pa.array(lines[keep] + block.first, pa.int64()), columns, rejects)

    def _for_arrow(self, data: bytes) -> bytes | None:
        """A block as Arrow can read it, with one character between fields; None where it cannot."""
        try:
            data.decode("utf-8")  # Arrow's handler of odd rows cannot show what is not
        except UnicodeDecodeError:
            return None
        if b"\0" in data:
            return None
        if len(self.shape.delimiter) == 1:
            return data
        return None if UNIT.encode() in data else data.replace(self.shape.delimiter.encode(), UNIT.encode())

    def _read_by_arrow(self, data: bytes, invalid: list[arrow_csv.InvalidRow]) -> pa.Table:
        """Texts of the columns that are used; rows of another width go to ``invalid``."""

        def note(row: arrow_csv.InvalidRow) -> str:
            invalid.append(row)
            return "skip"

        names = [str(i) for i in range(self.width)]
        return arrow_csv.read_csv(
            io.BytesIO(data or b"\n"),
            arrow_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
            arrow_csv.ParseOptions(
                delimiter=self.delimiter,
                quote_char='"' if self.shape.quoting else False,
                escape_char="\\" if self.shape.escape else False,
                invalid_row_handler=note,
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=[str(i) for i in self.used],
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )

    def _line_by_line(self, block: Block, last: bool) -> Rows:
        lines, rejects = checked(block)
        lines, self.open = self.open + lines, []
        found: list[tuple[int, list[str]]] = []
        for number, fields in self._records(lines, rejects, last):
            self._checked(number, fields, found, rejects)
        cells = list(zip(*(f for _, f in found), strict=True)) if found else [()] * self.width
        columns = {ours: Cells(pa.array(cells[i], pa.string())) for ours, i in self.at.items()}
        return Rows(pa.array([n for n, _ in found], pa.int64()), columns, rejects)

    def _records(
        self, lines: list[tuple[int, str]], rejects: list[Reject], last: bool
    ) -> Iterator[tuple[int, list[str]]]:
        """(first line, fields) of each record. A record that does not come out even costs its first line only.

        The lines of one that is open at the end wait in ``open`` for the next block.
        """
        at = 0
        while at < len(lines):
            number, text = lines[at]
            at += 1
            if not text.strip():
                continue
            alone = self._parse(text)
            if alone is not None:
                yield number, alone
                continue
            taken, quotes = 1, text.count('"')
            parsed = None
            while parsed is None and taken < MAX_RECORD_LINES and at + taken - 1 < len(lines):
                more = lines[at + taken - 1]
                taken += 1
                quotes += more[1].count('"')
                if '"' in more[1] and quotes % 2 == 0:
                    parsed = self._parse("\n".join(t for _, t in [(0, text), *lines[at : at + taken - 1]]))
                    if parsed is None or len(parsed) != self.width:
                        parsed = None
                        break
            if parsed is None and quotes % 2 and at + taken - 1 >= len(lines) and not last and taken < MAX_RECORD_LINES:
                self.open = lines[at - 1 :]
                return
            following = [t for _, t in lines[at : at + taken - 1]]
            if parsed is not None and not self._are_records(text, following):
                yield number, parsed
                at += taken - 1
            else:
                detail = f"a quote opens here and does not close into {self.width} fields"
                rejects.append(Reject(number, "unbalanced_quote", detail))

    def _are_records(self, first: str, texts: list[str]) -> bool:
        """Whether each of some lines is a record by itself, so that a stray quote in the first must not join them."""
        if self.width < 2 or first.count(self.shape.delimiter) != self.width - 1:
            return False
        whole = [self._parse(t) for t in texts]
        return all(w is not None and len(w) == self.width for w in whole)

    def _parse(self, text: str) -> list[str] | None:
        """Fields of one record; None where a quote stays open or something follows a closing one."""
        shape = self.shape
        if not shape.quoting or len(shape.delimiter) > 1 or '"' not in text:
            return text.rstrip("\r\n").split(shape.delimiter)
        escape = "\\" if shape.escape else None
        lines = text.splitlines(keepends=True) if "\n" in text else [text]
        try:
            rows = list(csv.reader(lines, delimiter=shape.delimiter, escapechar=escape, strict=True))
        except csv.Error:
            return None
        return (
            [c.rstrip("\r") if i == len(rows[0]) - 1 else c for i, c in enumerate(rows[0])] if len(rows) == 1 else None
        )

    def _checked(
        self, number: int, fields: list[str], found: list[tuple[int, list[str]]], rejects: list[Reject]
    ) -> None:
        missing = self.width - len(fields)
        if missing < 0 and not any(f.strip() for f in fields[self.width :]):
            fields = fields[: self.width]
        elif missing > 0 and not any(self.shape.header[len(fields) :]):
            fields = fields + [""] * missing
        if len(fields) == self.width:
            found.append((number, fields))
        elif any(f.strip() for f in fields):
            rejects.append(Reject(number, "wrong_column_count", f"expected {self.width} fields, found {len(fields)}"))

    def _without_repeats(self, rows: Rows) -> Rows:
        """Rows that are not the header once more, as files put together with ``cat`` have it."""
        if self.shape.headless or not self.at or not len(rows.positions):
            return rows
        same = pa.repeat(pa.scalar(True), len(rows.positions))
        for ours, i in self.at.items():
            same = pc.and_(same, pc.equal(pc.utf8_trim_whitespace(rows.columns[ours].array), self.shape.header[i]))
        if not pc.any(same).as_py():
            return rows
        again = [Reject(p, "repeated_header", "the header once more") for p in rows.positions.filter(same).to_pylist()]
        other = pc.invert(same)
        columns = {c: Cells(v.array.filter(other)) for c, v in rows.columns.items()}
        return Rows(rows.positions.filter(other), columns, rows.rejects + again)


def _full_lines(data: bytes) -> np.ndarray:
    """Index of each line that is not empty."""
    ends = ends_of(data)
    lengths = np.diff(ends, prepend=0)
    short = lengths <= 2
    if not short.any():
        return np.arange(len(ends))
    starts = ends - lengths
    empty = [bool(not data[starts[i] : ends[i]].strip(b"\r\n")) for i in np.flatnonzero(short)]
    full = np.ones(len(ends), bool)
    full[np.flatnonzero(short)[empty]] = False
    return np.flatnonzero(full)


def _last_line(data: bytes) -> bytes:
    return data.rstrip(b"\r\n").rpartition(b"\n")[2]


def _one(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
