"""Parquet files as rows, whatever their Arrow types; paths into structs and lists.

Belongs here: reading within stated limits, finding nested columns. Does not: what a type becomes (``cells``).
"""

from collections.abc import Iterator
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.raw.cells import Cells, flat
from pipelines.raw.containers import Unpacked
from pipelines.raw.delimited import Rows
from pipelines.raw.documents import with_rows
from pipelines.raw.lines import Reject
from pipelines.raw.nested import EACH, Path, is_list, parsed
from pipelines.raw.places import RawError
from pipelines.raw.shape import Shape

MAX_ROW_GROUP_BYTES = 1 << 30
MAX_DECODED_BYTES = 1 << 30  # of one file, or a thousand times its size: a small one can repeat a large value for ever
MAX_RATIO = 1_000
ROW_GROUPS = 200  # of which dictionaries are looked at
BATCH_BYTES = 64 << 20
BATCH_ROWS, NESTED_ROWS = 1 << 17, 1 << 13


def read_columnar(f: IO[bytes] | Unpacked, size: int, shape: Shape, lists: set[str]) -> Iterator[Rows]:
    """Rows of a Parquet file.

    Args:
        f: the file.
        size: its bytes.
        shape: of the file.
        lists: our columns that hold lists; a path through a list makes a row an element in the others.

    Raises:
        RawError: it is damaged, or unfolds beyond the limits.
    """
    paths = {c: (p,) if p in shape.header else parsed(p) for c, p in shape.columns.items()}
    paths, each = with_rows(paths, lists)
    try:
        for first, batch in _batches(f, size, sorted({str(p[0]) for p in paths.values()})):
            yield _rows(batch, first, paths, each)
    except RawError:
        raise
    except Exception as e:  # damaged pages raise whatever their bytes make them raise
        raise RawError("unreadable_parquet", f"{type(e).__name__}: {str(e)[:200]}") from e


def _batches(f: IO[bytes] | Unpacked, size: int, names: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of the first row, rows), few enough at a time that they fit the limit."""
    schema = pq.read_schema(f)
    # text stays dictionary-encoded while its size is looked at
    texts = [n for n in names if _is_bytes(schema.field(n).type)]
    file = pq.ParquetFile(f, page_checksum_verification=True, read_dictionary=texts)
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    if any(g.total_byte_size > MAX_ROW_GROUP_BYTES or g.total_byte_size < 0 for g in groups):
        raise RawError("row_group_too_large", f"a row group holds more than {MAX_ROW_GROUP_BYTES} bytes")
    if texts and _longest_repeated(file, texts) * BATCH_ROWS <= BATCH_BYTES:  # as texts at once, in a third of the time
        file = pq.ParquetFile(f, page_checksum_verification=True)
    position = decoded = 0
    for batch in file.iter_batches(_rows_at_once(file, names), columns=names):
        bytes_of = sum(_decoded_bytes(c) for c in batch.columns)
        decoded += bytes_of
        if decoded > max(MAX_DECODED_BYTES, MAX_RATIO * size):
            raise RawError("decodes_too_large", f"{size} bytes decode to more than {decoded}")
        rows = max(1, batch.num_rows * BATCH_BYTES // max(bytes_of, BATCH_BYTES))
        for start in range(0, batch.num_rows, rows):
            yield position + start + 1, batch.slice(start, rows)
        position += batch.num_rows


def _is_bytes(kind: pa.DataType) -> bool:
    is_view = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    is_large = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    return bool(is_view or is_large or pa.types.is_string(kind) or pa.types.is_binary(kind))


def _longest_repeated(file: pq.ParquetFile, texts: list[str]) -> int:
    """Bytes of the longest value in a dictionary of each column, added up: what a few bytes can unfold to for ever."""
    longest = 0
    for i in range(file.num_row_groups):
        if i == ROW_GROUPS:
            return MAX_DECODED_BYTES
        for batch in file.iter_batches(1, row_groups=[i], columns=texts):
            lengths = [pc.max(pc.binary_length(c.dictionary)).as_py() or 0 for c in batch.columns]
            longest = max(longest, sum(lengths))
            break
    return longest


def _rows_at_once(file: pq.ParquetFile, names: list[str]) -> int:
    """Few enough rows that what the file says of its columns fits into a batch."""
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    used = sum(
        c.total_uncompressed_size
        for g in groups
        for c in map(g.column, range(g.num_columns))
        if c.path_in_schema.split(".")[0] in names
    )
    nested = any(pa.types.is_nested(file.schema_arrow.field(n).type) for n in names)  # of which no dictionary is seen
    return int(min(NESTED_ROWS if nested else BATCH_ROWS, max(1, BATCH_BYTES * file.metadata.num_rows // max(1, used))))


def _decoded_bytes(column: pa.Array) -> int:
    """Memory of a column without dictionary encoding."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    if not _is_bytes(column.type.value_type):
        return 16 * len(column)
    lengths = np.asarray(pc.fill_null(pc.binary_length(column.dictionary), 0), np.int64)
    used = np.asarray(column.indices.drop_null(), np.int64)
    return int(lengths[used].sum()) + 8 * len(column)


def _rows(batch: pa.RecordBatch, first: int, paths: dict[str, Path], each: Path) -> Rows:
    positions = pa.array(np.arange(first, first + batch.num_rows))
    if not each:
        columns = {c: Cells(_at(flat(batch.column(str(p[0]))), p[1:])) for c, p in paths.items()}
        return Rows(positions, columns)
    holder = _at(flat(batch.column(str(each[0]))), each[1:-1])
    owner, elements = pc.list_parent_indices(holder), flat(pc.list_flatten(holder))
    columns = {}
    for c, p in paths.items():
        if p[: len(each)] == each:
            columns[c] = Cells(_at(elements, p[len(each) :]))
        else:
            columns[c] = Cells(_at(flat(batch.column(str(p[0]))), p[1:]).take(owner))
    lengths = np.asarray(pc.fill_null(pc.list_value_length(holder), 0), np.int64)
    empty = np.flatnonzero(lengths == 0)
    rejects = [Reject(first + int(i), "empty_list", f"no element in {each[0]}") for i in empty]
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return Rows(positions.take(owner), columns, rejects, pa.array(np.arange(len(elements)) - starts))


def _at(array: pa.Array, path: Path) -> pa.Array:
    """Values at a path below a column; ``EACH`` gives a list of what is below it."""
    for n, step in enumerate(path):
        if step == EACH:
            inner = _at(flat(pc.list_flatten(array)), path[n + 1 :])
            lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0), np.int64)
            ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            return pa.LargeListArray.from_arrays(pa.array(ends), inner)
        if isinstance(step, int):
            one = pc.list_slice(array, step, step + 1)
            present = np.asarray(pc.fill_null(pc.list_value_length(one), 0), np.int64) > 0
            at = np.where(present, np.cumsum(present) - 1, 0)
            array = flat(pc.list_flatten(one)).take(pa.array(at, mask=~present))
        elif is_list(array.type):
            return _at(array, (EACH, *path[n:]))
        else:
            array = flat(pc.struct_field(array, step))
    return array
