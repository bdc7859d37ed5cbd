"""Typed pieces: times, ids, days, what is kept."""

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.config import Compute, Config, Source
from pipelines.lake.tables import RAW_COLUMNS
from pipelines.raw.pieces import Ingest, file_day
from pipelines.raw.places import RawStore
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


def test_a_new_column_reads_cached_files_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "a.csv").write_text("item_id\n1\n")
    reader = Ingest("items", str(tmp_path), tmp_path / "cache", Source(path="items"), "UTC")
    store = RawStore(str(tmp_path))
    before = reader.folder_of(store, "items/a.csv")
    assert reader.folder_of(store, "items/a.csv") == before
    monkeypatch.setitem(RAW_COLUMNS, "items", RAW_COLUMNS["items"] | {"colour": pa.string()})
    assert reader.folder_of(store, "items/a.csv") != before, "a lake of an older version has pieces without it"


def test_dates_in_file_names() -> None:
    assert file_day("interactions/2026-01-31/part-2026-02-01.csv") == date(2026, 2, 1)
    assert file_day("interactions/2026-13-01.csv") is None
    assert file_day("items/x120260101.csv") is None


def test_pieces_of_files_that_are_gone_or_have_changed_are_not_kept(tmp_path: Path) -> None:
    raw, head = tmp_path / "raw" / "interactions", "user_id,item_id,event,event_at\n"
    raw.mkdir(parents=True)
    for name in ("a.csv", "b.csv"):
        (raw / name).write_text(f"{head}u-{name},i,view,2026-03-01\n")
    ingest = Ingest("interactions", str(tmp_path / "raw"), tmp_path / "cache", Source(path="interactions"), "UTC")
    store, config = RawStore(str(tmp_path / "raw")), Config.model_construct(compute=Compute())  # type: ignore[call-arg]

    def kept() -> set[str]:
        return {p.name for p in (tmp_path / "cache" / "interactions").iterdir()}

    first = ingest.pieces(store, config)
    assert kept() == {p.folder.name for p in first}
    (raw / "a.csv").unlink()
    (raw / "b.csv").write_text(f"{head}changed,i,view,2026-03-01\n")
    (second,) = ingest.pieces(store, config)
    assert kept() == {second.folder.name}
    assert not {p.folder.name for p in first} & kept()
