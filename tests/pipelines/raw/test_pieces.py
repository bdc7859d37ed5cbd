"""Typed pieces: times, ids, days, what is kept."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from pipelines.raw.places import file_day
from tests.raw import piece, read


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
    "cell", ["soon", "2023-13-01", "-5", "99999999999999999999", "infinity", "1e400", "2400-01-01"]
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


def test_whatever_goes_wrong_in_a_file_costs_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("as no one thought")

    monkeypatch.setattr("pipelines.raw.pieces.typed", fails)
    text = "user_id,item_id,event,event_at\n" + "u,i,view,1772323200\n" * 3
    rows, rejects, account = piece(tmp_path, "a.csv", text, columns={})
    assert (rows, rejects) == ([], [])
    assert account.refused == ["unreadable_file", "ZeroDivisionError: as no one thought"]
    assert account.lost == 4  # lines


@pytest.mark.parametrize("problem", [OSError, MemoryError])
def test_a_full_machine_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: type[Exception]
) -> None:
    def fails(*_: object) -> None:
        raise problem("no room left")

    monkeypatch.setattr("pipelines.raw.pieces.typed", fails)
    with pytest.raises(problem):
        piece(tmp_path, "a.csv", "user_id,item_id,event,event_at\nu,i,view,1772323200\n", columns={})


def test_rows_of_a_file_that_is_not_text_are_guessed_by_its_size(tmp_path: Path) -> None:
    _, _, account = piece(tmp_path, "a.bin", b"\0\1\2\3" * 2_500, columns={})
    assert (account.refused[0], account.lost) == ("unsupported_format", 200)


def test_rejects_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.raw.pieces.REJECTS_AT_ONCE", 10)
    monkeypatch.setattr("pipelines.raw.lines.BLOCK_BYTES", 100)
    bad, good = "u,i,view,never\n", "u,i,view,1772323200\n"
    lines = [bad] * 30 + [good] + [bad] * 30
    _, rejects, account = piece(tmp_path, "a.csv", "user_id,item_id,event,event_at\n" + "".join(lines), columns={})
    assert [r["position"] for r in rejects] == [n for n in range(2, 63) if n != 32]
    assert {r["day"] for r in rejects if r["position"] > 32} == {date(2026, 3, 1)}
    assert sum(n for n, _ in account.rejected_days.values()) == account.rejects == 60
