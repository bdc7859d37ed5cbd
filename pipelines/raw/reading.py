"""A raw file as rows of cells: looks at it, chooses its reader, fills cells down, applies rules of the path.

Belongs here: from a file's name to ``Rows``. Does not: types of values (``pieces``), what was read before (``known``).
"""

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.schemas import STRINGS, TIMESTAMP
from pipelines.raw.amounts import decimal_of
from pipelines.raw.cells import Cells, clean, flat, is_text, no_cells, texts
from pipelines.raw.columnar import read_columnar
from pipelines.raw.columns import RAW_COLUMNS
from pipelines.raw.containers import Unpacked, opened, seekable
from pipelines.raw.delimited import Rows, read_delimited
from pipelines.raw.dialect import HEAD_BYTES
from pipelines.raw.documents import read_documents
from pipelines.raw.places import RawStore
from pipelines.raw.shape import SAMPLE_ROWS, Shape, shape_of
from pipelines.raw.times import format_of, unit_of
from pipelines.sections import Source

SAMPLE_BYTES = 1 << 17
FLOAT_ID = r"^-?\d+\.0+$"


def look(store: RawStore, name: str, kind: str, source: Source) -> Shape:
    """What a file is, and how its times and numbers are written, from its first rows.

    Raises:
        RawError: it cannot be read as a table.
    """
    shape = shape_of(store, name, kind, source)
    sample = next(_of_head(store, name, shape, kind, source), None)
    return shape if sample is None else _with_values(shape, sample, kind, source)


def _of_head(store: RawStore, name: str, shape: Shape, kind: str, source: Source) -> Iterator[Rows]:
    """Rows in the first bytes of a file."""
    if shape.format == "parquet":
        yield from rows_of(store, name, shape, kind, source)
        return
    size = SAMPLE_BYTES if shape.lines else HEAD_BYTES
    with opened(store, name) as f:
        head = f.read(size)
    whole = len(head) < size or b"\n" not in head
    yield from _read(io.BytesIO(head if whole else head[: head.rfind(b"\n") + 1]), len(head), shape, kind)


def _with_values(shape: Shape, sample: Rows, kind: str, source: Source) -> Shape:
    comma, float_ids, excel, formats, said = False, [], [], {}, []
    for column, kind_of in RAW_COLUMNS[kind].items():
        if column not in sample.columns or not is_text(flat(sample.columns[column].array).type):
            continue
        values = _meant(clean(flat(sample.columns[column].array).cast(pa.string())[:SAMPLE_ROWS]), source)
        if not len(values):
            continue
        if column.endswith("_id") and pc.all(pc.match_substring_regex(values, FLOAT_ID)).as_py():
            float_ids.append(column)
            said.append(f"{column} without its .0")
        elif kind_of == pa.float64():
            sign = decimal_of(values) if source.decimal == "auto" else source.decimal
            comma = comma or sign == ","
            said += [f"{column} may have groups of thousands or a decimal sign; set decimal"] if sign == "?" else []
        elif kind_of == TIMESTAMP and source.time_format == "auto" and source.time_unit == "auto":
            found = format_of(values.to_pylist())
            if len(found) > 1:
                said.append(f"{column} may be {' or '.join(found)}")
            elif found:
                formats[column] = found[0]
                said.append(f"{column} as {found[0]}")
            if unit_of(values.to_pylist()) == "excel" and not source.time_origin:
                excel.append(column)
                said.append(f"{column} as Excel's days")
    said += ["decimal comma"] if comma else []
    return replace(
        shape, comma=comma, float_ids=tuple(float_ids), excel=tuple(excel), time_formats=formats,
        said=(*shape.said, *said),
    )  # fmt: skip


def _meant(values: pa.Array, source: Source) -> pa.Array:
    """Cells that hold something."""
    return values.filter(pc.invert(pc.is_in(values, value_set=pa.array(source.nulls, pa.string())))).drop_null()


def rows_of(
    store: RawStore, name: str, shape: Shape, kind: str, source: Source, start: int = 0, first: int = 1,
    end: int | None = None,
) -> Iterator[Rows]:  # fmt: skip
    """Rows of a file or of a part of it, with a column for each of ours.

    Args:
        store: where the file is.
        name: of the file.
        shape: of the file.
        kind: interactions, items, user_content, ...
        source: settings.
        start: byte where the part begins; it is the beginning of a line.
        first: number of that line.
        end: byte behind the part; the end of the file by default.

    Raises:
        RawError: the file cannot be read to its end.
    """
    with seekable(store, name) if shape.format == "parquet" else opened(store, name) as f:
        if start:
            f.seek(start)
        filler = _FillDown(source.fill_down)
        length = None if end is None else end - start
        for rows in _read(f, store.size(name), shape, kind, first, length, tuple(source.fill_down.values())):
            yield _finished(filler.filled(rows), shape, kind, source)


def _read(
    f: IO[bytes] | Unpacked, size: int, shape: Shape, kind: str, first: int = 1, length: int | None = None,
    beside: tuple[str, ...] = (),
) -> Iterator[Rows]:  # fmt: skip
    lists = {c for c, t in RAW_COLUMNS[kind].items() if t == STRINGS}
    beside = tuple(b for b in beside if b in shape.header)
    if kind == "users":
        beside += tuple(h for h in shape.header if h and h not in {*shape.columns.values(), *beside})
    others = {f"|{i}|{c}": name for c, names in shape.others.items() for i, name in enumerate(names)}
    shape = replace(shape, columns=shape.columns | {f"={b}": b for b in beside} | others)
    if shape.format == "parquet":
        yield from read_columnar(f, size, shape, lists)
    elif shape.format == "json":
        exact = {c for c, t in RAW_COLUMNS[kind].items() if t in (STRINGS, pa.string())}
        exact |= {name for name in others if name.rpartition("|")[2] in exact}
        lists |= {name for name in others if name.rpartition("|")[2] in lists}
        yield from read_documents(f, shape, lists, exact, first, length)
    else:
        yield from read_delimited(f, shape, first, length)


class _FillDown:
    """Fills empty cells from the row above, across batches, while the row's group stays the same."""

    def __init__(self, rules: dict[str, str]):
        self.rules = rules
        self.above: dict[str, tuple[str | None, str | None]] = {}

    def filled(self, rows: Rows) -> Rows:
        for column, by in self.rules.items():
            if column in rows.columns and f"={by}" in rows.columns and len(rows.positions):
                rows.columns[column] = Cells(self._column(column, rows.columns[column], rows.columns[f"={by}"]))
        return rows

    def _column(self, column: str, cells: Cells, by: Cells) -> pa.Array:
        value, group = (clean(flat(c.array).cast(pa.string())) for c in (cells, by))
        last, last_group = self.above.get(column, (None, None))
        value = pa.concat_arrays([pa.array([last], pa.string()), value])
        group = pa.concat_arrays([pa.array([last_group], pa.string()), group])
        of_value = pc.fill_null_forward(pc.if_else(pc.is_valid(value), group, pa.scalar(None, pa.string())))
        same = pc.fill_null(pc.equal(of_value, group), False)
        filled = pc.if_else(pc.and_(pc.is_null(value), same), pc.fill_null_forward(value), value)
        self.above[column] = (pc.fill_null_forward(value)[-1].as_py(), of_value[-1].as_py())
        return filled[1:]


def _attributes(others: dict[str, Cells], n: int) -> Cells:
    """Cells of all other columns as ``name=value``."""
    found: list[list[str]] = [[] for _ in range(n)]
    for name, cells in others.items():
        for row, value in enumerate(texts(cells)[0].to_pylist()):
            if value is not None:
                found[row].append(f"{name}={value}")
    return Cells(pa.array(found, STRINGS))


def _without_nulls(cells: Cells, source: Source) -> Cells:
    """Cells of which those are null that hold a word for nothing."""
    array = flat(cells.array)
    if is_text(array.type) and source.nulls and len(array):
        none = pc.is_in(array, value_set=pa.array(source.nulls, array.type))
        array = pc.if_else(none, pa.scalar(None, array.type), array) if pc.any(none).as_py() else array
    return Cells(array, cells.nested)


def _filled(cells: Cells, other: Cells) -> Cells:
    """Cells of one column, those of another where they are empty."""
    array, nested, second = cells.array, cells.nested, other.array
    if array.type != second.type:
        array, second = (texts(Cells(a, n))[0] for a, n in ((array, nested), (second, other.nested)))
    empty = pc.is_null(clean(array)) if is_text(array.type) else pc.is_null(array)
    none = pa.repeat(pa.scalar(False), len(array))
    if nested is not None or other.nested is not None:
        nested = pc.if_else(empty, none if other.nested is None else other.nested, none if nested is None else nested)
    return Cells(pc.if_else(empty, second, array), nested)


def _finished(rows: Rows, shape: Shape, kind: str, source: Source) -> Rows:
    """Rows with a column for each of ours: from the file, its path, a rule, a default."""
    n, columns = len(rows.positions), {}
    for c in RAW_COLUMNS[kind]:
        cells = rows.columns.get(c, no_cells(n))
        if c in shape.keys:
            cells = Cells(pa.repeat(pa.scalar(shape.keys[c], pa.string()), n))
        cells = _without_nulls(cells, source)
        for i in range(len(shape.others.get(c, ()))):
            if f"|{i}|{c}" in rows.columns:
                cells = _filled(cells, _without_nulls(rows.columns[f"|{i}|{c}"], source))
        columns[c] = cells
    if kind == "users" and "attributes" not in shape.columns:
        columns["attributes"] = _attributes({c[1:]: v for c, v in rows.columns.items() if c.startswith("=")}, n)
    return Rows(rows.positions, columns, rows.rejects, rows.elements)
