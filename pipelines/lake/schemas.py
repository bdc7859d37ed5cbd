"""What a table is: columns, key, order, the rules that its rows must keep, vectors in columns.

Does not belong here: which tables there are (``tables``), where one lives (``storage``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Vectors are plain lists, their length is in the field's metadata (``dim``): readers refuse folders whose dates have
# fixed_size_list columns of several lengths, and pyarrow cannot read one back that holds nulls.
VECTOR = pa.list_(pa.float32())
TIMESTAMP = pa.timestamp("us", tz="UTC")
STRINGS = pa.list_(pa.string())
CHECK_ROWS = 1 << 12  # vectors whose norms are computed at once
EVERYONE = "*"  # user_id of the list for users who have none of their own
EVERYTHING = "everything"  # target of a wish that is about all that a user did


Key = tuple[Any, ...]


class SchemaError(ValueError):
    """A table breaks its contract; the message lists every rule that was broken."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: name; carries the unit where there is one.
        type: Arrow type; ``VECTOR`` holds float32 vectors of L2 norm 1, all of one length.
        description: what it holds.
        nullable: may be missing.
        lengths_differ: whether vectors of several encoders stand in one partition.
    """

    name: str
    type: Any
    description: str
    nullable: bool = False
    lengths_differ: bool = False

    @property
    def is_vector(self) -> bool:
        """Whether the column holds unit vectors."""
        return bool(self.type == VECTOR)


@dataclass(frozen=True)
class Table:
    """One table, partitioned by day (``date=YYYY-MM-DD`` in the path), sorted by its key.

    Attributes:
        name: in the lake, and of the asset.
        description: what a row is.
        key: columns that no two rows share.
        columns: in order.
        stage: module of ``pipelines`` that writes it.
        group: of assets.
        parents: nearest assets that it is made from. ``*`` stands for any ending, ``group:`` for a whole group,
            ``@yesterday`` for the partition of the day before; those that a configuration does without do not count.
        plain: columns that are written without a dictionary, because few values repeat within a group of rows.
        by_step: several steps of a night write it, each a part of its own (``date=.../step=...``).
    """

    name: str
    description: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    stage: str = ""
    group: str = ""
    parents: tuple[str, ...] = ()
    by_step: bool = False
    plain: tuple[str, ...] = ()

    def schema(self, dims: Mapping[str, int]) -> pa.Schema:
        """Arrow schema with the key and descriptions in its metadata, and the length of vectors where it is known."""
        fields = [
            pa.field(
                c.name,
                c.type,
                nullable=c.nullable,
                metadata={"description": c.description} | ({"dim": str(dims[c.name])} if c.name in dims else {}),
            )
            for c in self.columns
        ]
        return pa.schema(
            fields, metadata={"table": self.name, "description": self.description, "key": ",".join(self.key)}
        )

    def conform(self, data: pa.Table) -> pa.Table:
        """The same rows in this table's columns and types.

        Raises:
            SchemaError: a column is missing, unknown or of another type.
        """
        names = [c.name for c in self.columns]
        if set(data.column_names) != set(names):
            missing, extra = set(names) - set(data.column_names), set(data.column_names) - set(names)
            raise SchemaError(f"{self.name}: missing columns {sorted(missing)}, unknown columns {sorted(extra)}")
        dims: dict[str, int] = {}
        for c in (c for c in self.columns if c.is_vector):
            kind = data.schema.field(c.name).type
            is_list = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
            if not (is_list and kind.value_type == pa.float32()):
                raise SchemaError(f"{self.name}.{c.name}: type is {kind}, expected {VECTOR}")
            lengths = pc.unique(pc.list_value_length(data[c.name])).drop_null().to_pylist()
            if len(lengths) > 1 and not c.lengths_differ:
                raise SchemaError(f"{self.name}.{c.name}: vectors differ in length: {sorted(lengths)[:5]}")
            if len(lengths) == 1:
                dims[c.name] = lengths[0]
        try:
            data = data.select(names).cast(self.schema(dims))
        except (pa.ArrowInvalid, ValueError) as e:
            raise SchemaError(f"{self.name}: {e}") from e
        return data

    def checked(self, data: pa.Table) -> pa.Table:
        """The same rows in this table's columns, types and order, when they keep its rules.

        Raises:
            SchemaError: they do not; listing every broken rule.
        """
        data = self.conform(data)
        order = in_order(data, self.key)
        if not order[0]:
            data = data.sort_by([(k, "ascending") for k in self.key])
            order = in_order(data, self.key)
        broken = [f"{rule}: {text}" for rule, texts in self.problems(data, order).items() for text in texts]
        if broken:
            raise SchemaError(f"{self.name}: " + "; ".join(broken))
        return data

    def after(self, last: Key, piece: pa.Table) -> tuple[Key, list[str]]:
        """Key of the last row so far, and what is wrong where a sorted piece does not come after ``last``."""
        if not self.key or not piece.num_rows:
            return last, []
        first, end = (tuple(piece[k][row].as_py() for k in self.key) for row in (0, piece.num_rows - 1))
        broken = (
            [f"a piece that begins with {first} follows {last}; keys have to ascend"] if last and first <= last else []
        )
        return end, broken

    def repeated(self, data: pa.Table, order: tuple[bool, int] | None = None) -> list[str]:
        """What is wrong where two rows share the key; ``order`` is what ``in_order`` says of them, if known."""
        ordered, duplicates = order or in_order(data, self.key)
        if not ordered:
            duplicates = data.num_rows - data.group_by(list(self.key)).aggregate([]).num_rows
        return [f"{duplicates} rows repeat a key ({', '.join(self.key)})"] if duplicates else []

    def problems(self, data: pa.Table, order: tuple[bool, int] | None = None) -> dict[str, list[str]]:
        """Broken rules of a conforming table: rule name -> what was found. Empty lists are kept promises.

        Args:
            data: rows.
            order: what ``in_order`` says of them, where that is known.
        """
        found: dict[str, list[str]] = {
            "keys_unique": [],
            "required_present": [],
            "numbers_finite": [],
            "norms_one": [],
        }
        if self.key and data.num_rows:
            found["keys_unique"] += self.repeated(data, order)
        for c in self.columns:
            column = data.column(c.name)
            if not c.nullable and column.null_count:
                found["required_present"].append(f"{c.name}: {column.null_count} nulls")
            if c.is_vector:
                _check_vectors(c.name, column, found)
            elif pa.types.is_floating(column.type):
                bad = pc.sum(pc.invert(pc.is_finite(column))).as_py() or 0
                if bad:
                    found["numbers_finite"].append(f"{c.name}: {bad} values are NaN or infinite")
        return found


def _check_vectors(name: str, column: pa.ChunkedArray, found: dict[str, list[str]]) -> None:
    """Count vectors that are not finite or not of norm 1, a slice at a time: squares are summed in float64."""
    infinite = off = 0
    for start in range(0, len(column), CHECK_ROWS):
        array = column.slice(start, CHECK_ROWS).drop_null().combine_chunks()
        squares = np.asarray(array.flatten(), np.float64) ** 2
        owner = np.repeat(np.arange(len(array)), np.asarray(pc.list_value_length(array), np.int64))
        norms = np.sqrt(np.bincount(owner, squares, len(array)))
        infinite += int((~np.isfinite(norms)).sum())
        off += int((np.abs(norms - 1) > 1e-3).sum())
    if infinite:
        found["numbers_finite"].append(f"{name}: {infinite} vectors hold NaN or infinity")
    elif off:
        found["norms_one"].append(f"{name}: {off} vectors are not of L2 norm 1")


def in_order(data: pa.Table, key: Sequence[str]) -> tuple[bool, int]:
    """Whether no row's key is below that of the row before it, and how many repeat it; nulls are in no order."""
    n = data.num_rows
    less, same = np.zeros(max(0, n - 1), bool), np.ones(max(0, n - 1), bool)
    for name in key if n > 1 else ():
        column = data[name]
        if column.null_count:
            return False, 0
        before, after = column.slice(0, n - 1), column.slice(1)
        less |= same & np.asarray(pc.less(before, after))
        same &= np.asarray(pc.equal(before, after))
    return bool((less | same).all()), int(same.sum()) if key else 0


def rows_in(ids: pa.Array | pa.ChunkedArray, values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Row of each id in ``values``, the first that holds it, int64 (len(ids),); -1 where it is not there."""
    return np.asarray(pc.fill_null(pc.index_in(ids, value_set=values), -1), np.int64)


def vectors_to_numpy(column: pa.ChunkedArray | pa.Array, dim: int = 0) -> np.ndarray:
    """Float32 matrix (n, d) of a vector column without nulls; (0, dim) of an empty one.

    Raises:
        SchemaError: the vectors differ in length.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = np.asarray(array.flatten(), np.float32)
    if pa.types.is_fixed_size_list(array.type):
        return flat.reshape(len(array), array.type.list_size)
    lengths = np.unique(np.asarray(pc.list_value_length(array)))
    if len(lengths) > 1:
        raise SchemaError(f"vectors of one column differ in length: {lengths.tolist()[:5]}")
    return flat.reshape(len(array), int(lengths[0]) if len(lengths) else dim)


def vectors_to_arrow(matrix: np.ndarray) -> pa.ListArray:
    """``VECTOR`` column of a matrix (n, d)."""
    return optional_vectors_to_arrow(matrix, np.ones(len(matrix), bool))


def optional_vectors_to_arrow(matrix: np.ndarray, present: np.ndarray) -> pa.ListArray:
    """``VECTOR`` column of a matrix (n, d), null where ``present`` is False."""
    ends = np.concatenate([[0], np.cumsum(np.where(present, matrix.shape[1], 0))]).astype(np.int32)
    mask = pa.array(~np.asarray(present, bool))
    flat = pa.array(np.ascontiguousarray(matrix[present], np.float32).ravel())
    return pa.ListArray.from_arrays(pa.array(ends), flat, mask=mask)
