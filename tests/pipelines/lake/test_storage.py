"""Partitions: all at once or not at all, the same bytes, damage is an error."""

import json
import multiprocessing
import os
import signal
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.lake import storage
from pipelines.lake.folders import scratch
from pipelines.lake.schemas import SchemaError, optional_vectors_to_arrow, vectors_to_arrow, vectors_to_numpy
from pipelines.lake.storage import Lake, StorageError
from pipelines.lake.tables import TABLES

D = date(2026, 1, 2)


def vectors(n: int, value: int = 0) -> pa.Table:
    matrix = np.eye(4, dtype=np.float32)[np.arange(n) % 4]
    shas = pa.array([f"{value}-{i:03d}" for i in range(n)])
    return pa.table({"content_sha256": shas, "encoder_digest": pa.array(["d"] * n), "vector": vectors_to_arrow(matrix)})


def test_rows_come_back_sorted_and_any_order_gives_the_same_bytes(tmp_path: Path) -> None:
    a, b = Lake(tmp_path / "a"), Lake(tmp_path / "b")
    rows = vectors(50)
    a.publish("emb_text", D, rows)
    b.publish("emb_text", D, rows.take(np.random.default_rng(0).permutation(50)))
    assert a.manifest("emb_text", D) == b.manifest("emb_text", D)
    assert a.read("emb_text", D)["content_sha256"].to_pylist() == sorted(rows["content_sha256"].to_pylist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: pa.concat_tables([t, t]), "keys_unique"),
        (lambda t: t.drop_columns("vector"), "missing columns"),
        (lambda t: t.set_column(2, "vector", vectors_to_arrow(np.full((5, 4), np.nan))), "numbers_finite"),
        (lambda t: t.set_column(2, "vector", vectors_to_arrow(np.full((5, 4), 3.0))), "norms_one"),
        (lambda t: t.set_column(0, "content_sha256", pa.nulls(5, pa.string())), "null|required_present"),
    ],
)
def test_a_broken_contract_publishes_nothing(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    lake = Lake(tmp_path)
    lake.publish("emb_text", D, vectors(3))
    before = lake.manifest("emb_text", D)
    with pytest.raises(SchemaError, match=message):
        lake.publish("emb_text", D, change(vectors(5)))
    assert lake.manifest("emb_text", D) == before
    assert not list(tmp_path.glob(".staging-*"))


def test_replacing_one_day_leaves_the_others(tmp_path: Path) -> None:
    lake, other = Lake(tmp_path), date(2026, 1, 3)
    lake.publish_days("emb_text", {D: vectors(3), other: vectors(4, 1)}, {})
    lake.publish("emb_text", D, vectors(7, 2))
    assert [lake.require("emb_text", d).rows for d in lake.days("emb_text")] == [7, 4]
    lake.publish_days("emb_text", {D: vectors(1), date(2026, 1, 5): vectors(2)}, {})
    assert [lake.require("emb_text", d).rows for d in lake.days("emb_text")] == [1, 4, 2]


def test_a_flipped_bit_is_an_error(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.publish("emb_text", D, vectors(400))
    path = lake.paths("emb_text", D)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 4
    path.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        lake.read("emb_text", D)


def test_a_missing_partition_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nightloom run --date 2026-01-02"):
        Lake(tmp_path).read("emb_text", D)


def _publish_for_ever(root: Path) -> None:
    lake, n = Lake(root), 0
    while True:
        n += 1
        lake.publish("emb_text", D, vectors(300, n % 10))


def test_readers_and_kills_never_see_a_mixture(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.publish("emb_text", D, vectors(300))
    for _ in range(5):
        writer = multiprocessing.get_context("fork").Process(target=_publish_for_ever, args=(tmp_path,))
        writer.start()
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            manifest = lake.manifest("emb_text", D)
            assert manifest is not None
            assert manifest.rows == 300
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        shas = lake.read("emb_text", D)["content_sha256"].to_pylist()
        assert len(shas) == 300
        assert len({s[0] for s in shas}) == 1
    lake.publish("emb_text", D, vectors(3))
    assert not list(tmp_path.glob(".staging-*")), "the next run removes what a crash left"


def test_scratch_folders_of_the_living_are_left_alone(tmp_path: Path) -> None:
    with scratch(tmp_path / "cache", "work") as mine:
        (tmp_path / "cache" / ".work-dead").mkdir()
        with scratch(tmp_path / "cache", "work") as other:
            assert mine.is_dir()
            assert other.is_dir()
            assert not (tmp_path / "cache" / ".work-dead").exists()
    assert not list((tmp_path / "cache").iterdir())


def test_manifest_lists_every_file_with_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    monkeypatch.setattr(storage, "VECTOR_ROW_GROUP", 3)
    monkeypatch.setattr(storage, "PART_ROWS", 3)
    lake = Lake(tmp_path)
    made = lake.publish("emb_text", D, iter([vectors(3), vectors(3, 1)]), config_digest="c", counters={"encoded": 6})
    assert sorted(made.files) == ["part-00000-of-00002.parquet", "part-00001-of-00002.parquet"]
    for name, sha in made.files.items():
        assert hashlib.sha256((lake.folder("emb_text", D) / name).read_bytes()).hexdigest() == sha
    stored = json.loads((lake.folder("emb_text", D) / "_SUCCESS").read_text())
    assert stored["counters"] == {"encoded": 6}
    assert stored["rows"] == 6


def test_files_do_not_depend_on_how_rows_were_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "VECTOR_ROW_GROUP", 8)
    monkeypatch.setattr(storage, "PART_ROWS", 16)
    lake, whole = Lake(tmp_path), vectors(45).sort_by("content_sha256")
    made = [
        lake.publish("emb_text", D, rows)
        for rows in (whole, iter([whole.slice(0, 5), whole.slice(5, 0), whole.slice(5, 30), whole.slice(35)]))
    ]
    assert made[0].files == made[1].files
    assert sorted(made[0].files) == [f"part-0000{i}-of-00003.parquet" for i in range(3)]
    assert lake.read("emb_text", D).to_pylist() == whole.to_pylist()
    with pytest.raises(SchemaError, match="keys have to ascend"):
        lake.publish("emb_text", D, iter([whole.slice(20), whole.slice(0, 21)]))


def test_optional_vectors_survive_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    matrix = np.eye(3, dtype=np.float32)
    column = optional_vectors_to_arrow(matrix, np.array([True, False, True]))
    pq.write_table(pa.table({"v": column}), tmp_path / "v.parquet")
    back = pq.read_table(tmp_path / "v.parquet")["v"]
    assert back.null_count == 1
    assert np.array_equal(vectors_to_numpy(back.drop_null()), matrix[[0, 2]])


def test_every_column_is_documented() -> None:
    for table in TABLES.values():
        assert table.description
        assert set(table.key) <= {c.name for c in table.columns}
        assert all(c.description for c in table.columns)
