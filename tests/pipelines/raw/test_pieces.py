"""Typed pieces: times, ids, days, what is kept."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from pipelines.raw.places import file_day
from tests.raw import read


@pytest.mark.parametrize(
    ("cell", "unit", "expected"),
    [
        ("1700000000", "auto", datetime(2023, 11, 14, 22, 13, 20)),
        ("1700000000123", "auto", datetime(2023, 11, 14, 22, 13, 20, 123000)),
        ("1700000000", "s", datetime(2023, 11, 14, 22, 13, 20)),
        ("1700000000.5", "auto", datetime(2023, 11, 14, 22, 13, 20, 500000)),
        ("2023-11-14T22:13:20Z", "auto", datetime(2023, 11, 14, 22, 13, 20)),
        ("2023-11-15 00:13:20+02:00", "iso", datetime(2023, 11, 14, 22, 13, 20)),
        ("2023-11-14", "auto", datetime(2023, 11, 14)),
    ],
)
def test_times_in_every_usual_form(tmp_path: Path, cell: str, unit: str, expected: datetime) -> None:
    rows, rejects = read(tmp_path, "a.csv", f"uid,item_id,event,timestamp\nu,i,view,{cell}\n", time_unit=unit)
    assert not rejects
    assert rows[0]["event_at"] == expected.replace(tzinfo=UTC)
    assert rows[0]["_day"] == expected.date()


@pytest.mark.parametrize(
    "cell", ["soon", "2023-13-01", "-5", "99999999999999999999", "nan", "infinity", "1e400", "2400-01-01"]
)
def test_impossible_times_are_rejected(tmp_path: Path, cell: str) -> None:
    rows, rejects = read(tmp_path, "a.csv", f"uid,item_id,event,timestamp\nu,i,view,{cell}\n")
    assert not rows
    assert [(r["position"], r["reason"]) for r in rejects] == [(2, "bad_timestamp")]
    assert cell in rejects[0]["detail"]


def test_ids_stay_what_they_are(tmp_path: Path) -> None:
    text = "uid,item_id,event,timestamp\n00123,1e5,view,1700000000\n 7 ,e\u0301,view,1700000000\n"
    rows, _ = read(tmp_path, "a.csv", text)
    assert [(r["user_id"], r["item_id"]) for r in rows] == [("00123", "1e5"), ("7", "\u00e9")]
    rows, _ = read(
        tmp_path, "b.jsonl", '{"uid": 12, "item_id": 12345678901234567, "event": "view", "timestamp": 1700000000}\n'
    )
    assert (rows[0]["user_id"], rows[0]["item_id"]) == ("12", "12345678901234567")


def test_dates_in_file_names() -> None:
    assert file_day("interactions/2026-01-31/part-2026-02-01.csv") == date(2026, 2, 1)
    assert file_day("interactions/2026-13-01.csv") is None
    assert file_day("items/x120260101.csv") is None
    assert file_day("events_20260301.parquet") == date(2026, 3, 1)
    assert file_day("part-00017-20265101.csv") is None
