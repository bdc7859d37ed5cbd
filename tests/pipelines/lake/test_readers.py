"""Every table over dates, by the readers that people use, with no code of ours: also after another encoder or `dim`."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from pipelines.lake.schemas import Column
from pipelines.lake.storage import Lake
from pipelines.lake.tables import TABLES
from tests.lakes import rows_of

FIRST, SECOND = date(2026, 3, 1), date(2026, 3, 2)


def _some(column: Column, day: date, dim: int) -> Any:
    """A value of a column; vectors are of length 1."""
    if column.is_vector:
        return [1.0] + [0.0] * (dim - 1)
    if pa.types.is_list(column.type):
        return []
    if pa.types.is_timestamp(column.type):
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    return "a" if pa.types.is_string(column.type) else True if pa.types.is_boolean(column.type) else 1


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a row of every table on two dates; vectors have two numbers on the first, three on the second."""
    lake = Lake(tmp_path_factory.mktemp("lake"))
    for day, dim in ((FIRST, 2), (SECOND, 3)):
        for name, table in TABLES.items():
            row = {c.name: _some(c, day, dim) for c in table.columns}
            rows = rows_of(name, [row])
            if table.by_step:
                lake.publish_step(name, day, "one", rows)
                lake.publish_step(name, day, "two", rows)
            else:
                lake.publish(name, day, rows)
    return lake.root


def _count(source: str) -> int:
    with duckdb.connect() as con:
        return int(con.execute(f"SELECT count(*) FROM {source}").fetchall()[0][0])


READERS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "pandas": (
        lambda p: len(pd.read_parquet(p)),
        lambda p: len(pd.read_parquet(p, filters=[("date", "==", str(SECOND))])),
    ),
    "polars, a folder": (
        lambda p: pl.scan_parquet(p, hidden_file_prefix="_").collect().height,
        lambda p: pl.scan_parquet(p, hidden_file_prefix="_").filter(pl.col("date") == SECOND).collect().height,
    ),
    "polars, a glob": (
        lambda p: pl.read_parquet(p / "**/*.parquet", hive_partitioning=True).height,
        lambda p: pl.read_parquet(p / "**/*.parquet", hive_partitioning=True).filter(pl.col("date") == SECOND).height,
    ),
    "duckdb": (
        lambda p: _count(f"'{p}/**/*.parquet'"),
        lambda p: _count(f"'{p}/**/*.parquet' WHERE date = '{SECOND}'"),
    ),
    "pyarrow": (
        lambda p: ds.dataset(p, partitioning="hive").to_table().num_rows,
        lambda p: ds.dataset(p, partitioning="hive").to_table(filter=ds.field("date") == str(SECOND)).num_rows,
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("table", TABLES)
def test_every_table_reads_over_dates_and_by_date(root: Path, reader: str, table: str) -> None:
    every, one = READERS[reader]
    steps = 2 if TABLES[table].by_step else 1
    assert (every(root / table), one(root / table)) == (2 * steps, steps)


@pytest.mark.parametrize("table", [n for n, t in TABLES.items() if any(c.is_vector for c in t.columns)])
def test_the_length_of_a_vector_is_metadata_not_type(root: Path, table: str) -> None:
    for day, dim in ((FIRST, 2), (SECOND, 3)):
        (part,) = (root / table / f"date={day}").glob("*.parquet")
        field = ds.dataset(part).schema.field("vector")
        assert str(field.type) == "list<element: float>"
        assert field.metadata[b"dim"] == str(dim).encode()
    frame = pl.scan_parquet(root / table, hidden_file_prefix="_").collect()
    assert sorted(len(v) for v in frame["vector"].to_list()) == [2, 3]
    assert frame["date"].dtype == pl.Date
