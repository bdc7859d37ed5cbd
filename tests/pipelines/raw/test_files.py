"""Raw files: each bad row alone, references stay below the root."""

from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.raw import read
from tests.shop import real_data


def test_each_bad_csv_row_is_rejected_alone(tmp_path: Path) -> None:
    text = (
        "uid,item_id,event,timestamp\n"  # 1
        "a,1,view,1700000000\n"  # 2
        ",1,view,1700000000\n"  # 3 no user
        "b,1,view\n"  # 4 short
        'c,"1,view,1700000000\n'  # 5 stray quote
        "d,1,view,1700000000\n"  # 6
        "*,1,view,1700000000\n"  # 7 reserved
        '"e","1,2",view,1700000000\n'  # 8 quoted delimiter
        "*gold,1,view,1700000000\n"  # 9 reserved for a segment
    )
    rows, rejects = read(tmp_path, "a.csv", text)
    assert [(r["_position"], r["user_id"], r["item_id"]) for r in rows] == [
        (2, "a", "1"),
        (6, "d", "1"),
        (8, "e", "1,2"),
    ]
    assert [(r["position"], r["reason"]) for r in rejects] == [
        (3, "missing_user_id"), (4, "wrong_column_count"), (5, "unbalanced_quote"), (7, "reserved_user_id"),
        (9, "reserved_user_id"),
    ]  # fmt: skip
    assert all(r["day"] == date(2023, 11, 14) for r in rejects), "a reject counts on the day of its neighbours"


def test_a_pair_of_stray_quotes_swallows_nothing(tmp_path: Path) -> None:
    lines = [f"u{i},i,view,1700000000" for i in range(3000)]
    lines[10], lines[2000] = 'u10,"i,view,1700000000', 'u2000,i",view,1700000000'
    rows, rejects = read(tmp_path, "a.csv", "uid,item_id,event,timestamp\n" + "\n".join(lines) + "\n")
    assert len(rows) + len(rejects) == 3000
    assert len(rows) >= 2998


def test_a_quoted_description_may_span_lines(tmp_path: Path) -> None:
    rows, rejects = read(
        tmp_path, "a.csv", 'item_id,title,description\n1,x,"two\nlines, ""quoted"""\n2,y,z\n', "items", columns={}
    )
    assert not rejects
    assert [r["description"] for r in rows] == ['two\nlines, "quoted"', "z"]


def test_json_lines_that_are_not_objects(tmp_path: Path) -> None:
    good = '{"uid": "a", "item_id": "1", "event": "view", "timestamp": 1700000000}'
    text = f'null\n{good}\n[1]\n{{"uid": \n{good.replace(chr(34) + "1" + chr(34), "[1]")}\n\n' + "[" * 5000 + "\n"
    rows, rejects = read(tmp_path, "a.jsonl", text)
    assert len(rows) == 1
    assert [(r["position"], r["reason"]) for r in rejects] == [
        (1, "bad_json"),
        (3, "bad_json"),
        (4, "bad_json"),
        (5, "bad_type"),
        (7, "bad_json"),
    ]


def test_parquet_types_become_ours(tmp_path: Path) -> None:
    table = pa.table(
        {
            "uid": pa.array([1, 2], pa.int32()),
            "item_id": ["a", "b"],
            "event": pa.array(["view", "view"]).dictionary_encode(),
            "timestamp": pa.array([datetime(2026, 1, 1, 23), None], pa.timestamp("ms", "UTC")),
        }
    )
    (tmp_path / "raw").mkdir()
    pq.write_table(table, tmp_path / "x.parquet")
    rows, rejects = read(tmp_path, "a.parquet", (tmp_path / "x.parquet").read_bytes())
    assert [(r["user_id"], r["event"], r["_day"]) for r in rows] == [("1", "view", date(2026, 1, 1))]
    assert [(r["position"], r["reason"]) for r in rejects] == [(2, "missing_event_at")]


def test_a_parquet_bomb_is_refused_before_it_unfolds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.raw import columnar

    monkeypatch.setattr(columnar, "MAX_DECODED_BYTES", 50_000_000)
    value = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["x" * 100_000]))
    pq.write_table(pa.table({"item_id": value}), tmp_path / "bomb.parquet", compression="zstd")
    content = (tmp_path / "bomb.parquet").read_bytes()
    assert len(content) < 5_000
    rows, rejects = read(tmp_path, "items/a.parquet", content, "items", columns={})
    assert not rows
    assert [r["reason"] for r in rejects] == ["decodes_too_large"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.parquet", b"PAR1 nothing", "unreadable_parquet"),
        ("a.xlsx", b"PK\x03\x04 no zip", "broken_zip"),
        ("a.csv", b"\x89PNG\r\n", "unsupported_format"),
        ("a.csv", b"a,b\n1,2\n", "missing_column"),
        ("a.csv", b"uid,uid\n1,2\n", "duplicate_column"),
        ("a.csv", b"\xff\xfe\n1\n", "missing_column"),
    ],
)
def test_whole_files_are_refused_with_a_reason(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    rows, rejects = read(tmp_path, name, content)
    assert not rows
    assert [(r["position"], r["reason"]) for r in rejects] == [(0, reason)]


@pytest.mark.data
@pytest.mark.slow
def test_hostile_tables_never_stop_the_reader(tmp_path: Path) -> None:
    for kind, limit in (("csv", 150), ("json", 150), ("parquet", 60)):
        files = sorted(
            p for p in (real_data("hostile") / kind).rglob("*") if p.is_file() and p.stat().st_size < 2_000_000
        )[:limit]
        assert files
        for path in files:
            suffix = {"csv": ".csv", "json": ".jsonl", "parquet": ".parquet"}[kind]
            rows, rejects = read(tmp_path, f"x{suffix}", path.read_bytes(), "items", columns={})
            assert all(r["reason"] and r["detail"] for r in rejects), path.name
            if kind != "parquet":
                data = path.read_bytes()
                several = sum(data.count(c) for c in (b",", b" ", b"[", b"}")) if kind == "json" else 0
                assert len(rows) + len(rejects) <= data.count(b"\n") + 1 + several
