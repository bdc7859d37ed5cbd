"""Parquet as warehouses and hubs write it: nested columns, bytes inside, logs of a table's changes."""

import hashlib
import io
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.raw import columnar
from pipelines.raw.places import RawError, RawStore
from pipelines.raw.table_logs import live_files
from tests.raw import read

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def test_a_list_of_structs_makes_a_row_an_element(tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("id", pa.int64()), ("cost", pa.float64())]))
    items = pa.array([[{"id": 7, "cost": 1.5}, {"id": 8, "cost": None}], [], None], kind)
    data = parquet(user_id=["u", "v", "w"], event=["view"] * 3, event_at=pa.array([NOW] * 3), items=items)
    for path in ("items[].id", "items.id"):
        rows, rejects = read(tmp_path, "a.parquet", data, columns={"item_id": path, "value": "items[].cost"})
        assert [(r["_position"], r["user_id"], r["item_id"], r["value"]) for r in rows] == [
            (1, "u", "7", 1.5),
            (1, "u", "8", None),
        ]
        assert [(r["position"], r["reason"]) for r in rejects] == [(2, "empty_list"), (3, "empty_list")]


def test_structs_positions_and_collected_lists(tmp_path: Path) -> None:
    data = parquet(
        item_id=pa.array([1.0, 2.0]),
        text=[{"title": "A"}, {"title": None}],
        media=[[{"large": "a.jpg"}, {"large": None}], []],
        tags=[[["x"], ["y", "z"]], None],
    )
    columns = {"title": "text.title", "images": "media[].large", "description": "media[0].large"}
    rows, rejects = read(tmp_path, "a.parquet", data, "items", columns=columns)
    assert rejects == []
    assert [(r["item_id"], r["title"], r["images"], r["description"], r["tags"]) for r in rows] == [
        ("1", "A", ["a.jpg"], "a.jpg", ["x", "y", "z"]),
        ("2", None, [], None, []),
    ]


@pytest.mark.parametrize("as_list", [False, True])
def test_bytes_inside_a_table_are_files(tmp_path: Path, as_list: bool) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values: list[Any] = [{"bytes": b"one", "path": None}, {"bytes": None, "path": "b.jpg"}, None]
    cover = pa.array([[v] if v else None for v in values] if as_list else values, pa.list_(kind) if as_list else kind)
    rows, _ = read(
        tmp_path, "a.parquet", parquet(item_id=["1", "2", "3"], cover=cover), "items", columns={"images": "cover"}
    )
    sha = hashlib.sha256(b"one").hexdigest()
    assert [r["images"] for r in rows] == [[f"embedded://{sha}"], ["b.jpg"], []]
    store = RawStore(str(tmp_path / "raw"), (), str(tmp_path / "embedded"))
    fs, path = store.locate(f"embedded://{sha}")
    assert fs.cat_file(path) == b"one"
    for wrong in ("embedded://../secret", "embedded://" + "0" * 63, "embedded:///etc/passwd"):
        with pytest.raises(RawError, match="path_escapes_root"):
            store.locate(wrong)


def test_names_in_another_case(tmp_path: Path) -> None:
    data = parquet(USER_ID=["u"], Item_Id=["i"], EVENT=["VIEW"], EVENT_AT=pa.array([date(2026, 3, 1)]))
    rows, rejects = read(tmp_path, "a.parquet", data, columns={})
    assert ([(r["user_id"], r["item_id"], r["event"], r["_known"]) for r in rows], rejects) == (
        [("u", "i", "view", 1)],
        [],
    )


# --- tables with a log ------------------------------------------------------------------------------------------


def delta(root: Path, *commits: list[dict[str, Any]], checkpoint: int | None = None) -> list[str]:
    log = root / "t" / "_delta_log"
    log.mkdir(parents=True)
    for n, actions in enumerate(commits):
        (log / f"{n:020d}.json").write_text("".join(json.dumps(a) + "\n" for a in actions))
    if checkpoint is not None:
        rows = [{"add": {"path": "from checkpoint.parquet"}, "remove": None}]
        pq.write_table(pa.Table.from_pylist(rows), log / f"{checkpoint:020d}.checkpoint.parquet")
    for name in ("a.parquet", "b.parquet", "from checkpoint.parquet", "c d.parquet"):
        (root / "t" / name).write_text("x")
    return live_files(RawStore(str(root)), RawStore(str(root)).below("t"))


def test_the_live_files_of_a_delta_table(tmp_path: Path) -> None:
    add_a, add_b = ({"add": {"path": f"{n}.parquet"}} for n in "ab")
    assert delta(tmp_path / "1", [add_a], [{"remove": {"path": "a.parquet"}}, add_b]) == ["t/b.parquet"]
    assert delta(tmp_path / "2", [{"add": {"path": "c%20d.parquet"}}]) == ["t/c d.parquet"]
    assert delta(tmp_path / "3", [add_a], [add_b], [add_a], checkpoint=1) == [
        "t/a.parquet",
        "t/from checkpoint.parquet",
    ]


@pytest.mark.parametrize(
    "action",
    [
        {"protocol": {"readerFeatures": ["deletionVectors"]}},
        {"add": {"path": "a.parquet", "deletionVector": {"storageType": "u"}}},
    ],
)
def test_a_delta_table_with_deleted_rows_inside_its_files_is_refused(tmp_path: Path, action: dict[str, Any]) -> None:
    with pytest.raises(RawError, match="table_format"):
        delta(tmp_path, [action])


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"00000000000000000001.json": ""}, "lacks a commit between 0 and 1"),
        ({f"{0:020}.json": "", f"{2:020}.json": ""}, "lacks a commit between 0 and 2"),
        ({f"{4:020}.checkpoint.0000000001.0000000002.parquet": "x"}, "a checkpoint of several parts"),
        ({f"{4:020}.checkpoint.parquet": "x"}, "has a log that cannot be read"),
        ({f"{0:020}.json": '{"add": '}, "has a log that cannot be read"),
        ({f"{0:020}.json": '{"add": {"path": "gone.parquet"}}'}, "names 1 files that are not in it, such as t/gone.p"),
        ({f"{0:020}.json": '{"add": {"path": "s3://other/a.parquet"}}'}, "names 1 files that are not in it"),
    ],
)
def test_a_delta_table_that_is_not_whole_is_refused(tmp_path: Path, names: dict[str, str], says: str) -> None:
    log = tmp_path / "t" / "_delta_log"
    log.mkdir(parents=True)
    for name, text in names.items():
        (log / name).write_text(text)
    store = RawStore(str(tmp_path))
    with pytest.raises(RawError, match=says):
        live_files(store, store.below("t"))


@pytest.mark.parametrize(
    ("name", "kind"), [("t/.hoodie/hoodie.properties", "Hudi"), ("t/metadata/v1.metadata.json", "Iceberg")]
)
def test_other_table_formats_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    with pytest.raises(RawError, match=kind):
        live_files(RawStore(str(tmp_path)), ["t/data/a.parquet", name])


def test_what_a_dictionary_can_unfold_to_is_known_before_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    held = io.BytesIO()
    table = pa.table({"a": ["x"] * 10 + ["y" * 5_000] * 10, "b": ["zz"] * 20, "n": [1] * 20})
    pq.write_table(table, held, row_group_size=10)
    file = pq.ParquetFile(held, read_dictionary=["a", "b"])
    assert columnar._longest_repeated(file, ["a", "b"]) == 5_002
    assert columnar._longest_repeated(file, ["b"]) == 2
    monkeypatch.setattr(columnar, "ROW_GROUPS", 1)
    assert columnar._longest_repeated(file, ["b"]) == columnar.MAX_DECODED_BYTES, "too many groups to look at all"


def test_a_time_that_python_does_not_have_costs_its_cell(tmp_path: Path) -> None:
    late = pa.array([None, 1, 2**63 - 1], pa.timestamp("us"))
    held = io.BytesIO()
    pq.write_table(pa.table({"item_id": ["a", "b", "c"], "available_to": late, "title": late}), held)
    rows, rejects = read(tmp_path, "a.parquet", held.getvalue(), "items", columns={})
    assert ([r["item_id"] for r in rows], rejects) == (["a", "b", "c"], [])
    assert rows[2]["available_to"] is None
