"""Nights whose data is not what it was: thresholds, what counts as lost, what the message says."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from pipelines.lake import guards  # noqa: F401, its promises join the others
from pipelines.lake.promises import PROMISES, Remark
from pipelines.lake.storage import Lake
from pipelines.operation import Guards
from tests.lakes import DAY, at, config_of, event, night_of, rows_of, tiny_lake

ROWS = {"rows_in": 0, "rows_out": 0, "rows_superseded": 0, "rows_quarantined": 0, "rows_lost": 0}


def reject(kind: str, source: str, position: int, reason: str, detail: str = "why") -> dict[str, object]:
    return {"stage": f"ingest_{kind}", "source": source, "position": position, "reason": reason, "detail": detail}


def days_of(root: Path, lost: int, good: int, usual: int, night: int = 0) -> Lake:
    """Events of a usual day before, of the night, and the rows that the night lost."""
    before = [event(f"u{n}", "x", at(9)) for n in range(usual)]
    tonight = [event(f"u{n}", "x", at(10)) for n in range(good)]
    lake = tiny_lake(root, [*before, *tonight], [{"item_id": "x"}])
    rows = lake.read("std_interactions", DAY)
    counters = {"rows_lost": lost, "night": DAY.toordinal() - night}
    lake.publish("std_interactions", DAY, rows, counters=counters)
    lake.publish_step("quarantine", DAY, "events", rows_of("quarantine", [reject("interactions", "a.csv", 7, "bad_timestamp")]))  # noqa: E501 # fmt: skip
    return lake


def broken(lake: Lake, name: str, table: str, limits: Guards | None = None) -> list[str]:
    night = night_of(lake, guards=limits or Guards())
    (promise,) = (p for p in PROMISES[table] if p.name == name)
    is_there = lake.steps(table, DAY) or lake.manifest(table, DAY)
    rows = lake.read(table, DAY, list(promise.columns)) if is_there else rows_of(table, [])
    return promise.broken(config_of(lake.root, guards=limits or Guards()), night, table, rows)


@pytest.mark.parametrize(
    ("lost", "good", "usual", "stops"),
    [(5, 5, 10, False), (6, 4, 10, True), (6, 100, 10, True), (6, 4, 100, False), (3, 2, 0, True), (2, 3, 0, False)],
)
def test_a_night_may_lose_half_of_a_usual_day(tmp_path: Path, lost: int, good: int, usual: int, stops: bool) -> None:
    problems = broken(days_of(tmp_path, lost, good, usual), "enough_is_read", "ingest_files")
    assert bool(problems) == stops
    if stops:
        assert f"{DAY}: {lost} rows of events are refused" in problems[0]
        assert "a.csv: 1 bad_timestamp, line 7: why" in problems[0]
        assert "guards.lost_rows" in problems[0]


@pytest.mark.parametrize(("good", "usual", "stops"), [(40, 100, True), (60, 100, False), (40, 0, False)])
def test_nobody_knows_what_is_behind_a_tear(tmp_path: Path, good: int, usual: int, stops: bool) -> None:
    lake = days_of(tmp_path, 1, good, usual)
    rows, counters = lake.read("std_interactions", DAY), lake.require("std_interactions", DAY).counters
    lake.publish("std_interactions", DAY, rows, counters=counters | {"files_refused": 1})
    problems = broken(lake, "enough_is_read", "ingest_files")
    assert bool(problems) == stops
    assert not stops or f"{DAY}: 60 rows of events are refused, a usual day has 100" in problems[0]


def test_the_threshold_is_in_the_configuration(tmp_path: Path) -> None:
    lake = days_of(tmp_path, 5, 5, 10)
    assert broken(lake, "enough_is_read", "ingest_files", Guards(lost_rows=0.4))
    assert not broken(lake, "enough_is_read", "ingest_files", Guards(lost_rows=1.0))


def test_days_of_earlier_nights_are_their_own_business(tmp_path: Path) -> None:
    assert not broken(days_of(tmp_path, 9, 1, 10, night=1), "enough_is_read", "ingest_files")


@pytest.mark.parametrize(
    ("rows_in", "lost", "reasons", "stops"),
    [
        (10, 0, ["bad_type"] * 5, False),
        (10, 0, ["bad_type"] * 6, True),
        (10, 11, [], True),
        (10, 0, ["duplicate"] * 9, False),
    ],
)  # fmt: skip
def test_catalogues_that_are_lost(tmp_path: Path, rows_in: int, lost: int, reasons: list[str], stops: bool) -> None:
    lake = tiny_lake(tmp_path, [], [{"item_id": "x"}])
    ledger = [ROWS | {"source": "c.csv", "kind": "items", "rows_in": rows_in, "rows_lost": lost}]
    lake.publish_step("ingest_files", DAY, "standardize", rows_of("ingest_files", ledger))
    rejects = [reject("items", "c.csv", n, why) for n, why in enumerate(reasons, 1)]
    lake.publish_step("quarantine", DAY, "standardize", rows_of("quarantine", rejects))
    problems = broken(lake, "enough_is_read", "ingest_files")
    assert bool(problems) == stops
    assert all(p.startswith("items: ") for p in problems)


@pytest.mark.parametrize(
    ("ids", "catalogue", "says"),
    [
        (["a"] * 8 + ["b"] * 2, ["a"], None),
        (["a"] * 7 + ["b"] * 3, ["a"], "30% of the 10 events"),
        (["7", "8"], ["007", "008"], "without leading zeros it would be 0%: f.csv has item_id '7', the catalogue for"),
        (["7.0"], ["7"], "without their .0 it would be 0%"),
        (["ABC"], ["abc"], "in lower case it would be 0%"),
        (["a b"], ["ab"], "without white space it would be 0%"),
        (["a"], [], None),
    ],
)  # fmt: skip
def test_events_of_unknown_items(tmp_path: Path, ids: list[str], catalogue: list[str], says: str | None) -> None:
    events = [event(f"u{n}", i, at(10)) | {"source": "f.csv"} for n, i in enumerate(ids)]
    lake = tiny_lake(tmp_path, events, [{"item_id": i} for i in catalogue])
    problems = broken(lake, "items_are_known", "std_items")
    assert (says is None) == (not problems)
    if says:
        assert says in problems[0]


def test_a_day_without_events_is_judged_by_the_last_that_has_some(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, [event("u", "gone", at(9))], [{"item_id": "x"}])
    assert "2026-03-09" in broken(lake, "items_are_known", "std_items")[0]


def ledger_of(lake: Lake, day: date, **columns: list[str]) -> None:
    """A night's ``ingest_files`` with a file of each kind."""
    rows = [ROWS | {"source": f"{kind}.csv", "kind": kind, "columns": names} for kind, names in columns.items()]
    lake.publish_step("ingest_files", day, "standardize", rows_of("ingest_files", rows))


def test_columns_of_raw_files_that_come_and_go(tmp_path: Path) -> None:
    """`sometimes` was in one of two nights, so that it is neither new nor gone; users had no file before."""
    lake = Lake(tmp_path)
    assert [DAY - timedelta(days=n) for n in (9, 2, 1)] == [date(2026, 3, 1), date(2026, 3, 8), date(2026, 3, 9)]
    for n in range(3, 9):
        ledger_of(lake, DAY - timedelta(days=n), items=["id", "title", "sometimes"])
    ledger_of(lake, DAY - timedelta(days=9), items=["id"], controls=["long ago"])
    ledger_of(lake, DAY - timedelta(days=1), items=["id", "title"], interactions=["uid", "ts"])
    ledger_of(lake, DAY, items=["id", "price", "colour"], interactions=["uid", "ts"], users=["uid"])
    found = {r.split(":")[0]: r for r in broken(lake, "columns_as_before", "ingest_files")}
    remarks = [r for r in broken(lake, "columns_as_before", "ingest_files") if isinstance(r, Remark)]
    assert found.keys() == {"items", ""}, "interactions have nothing to say but their numbers"
    assert found["items"] == "items: columns of raw files that are new: colour, price; gone: title"
    assert [r.numbers for r in remarks] == [
        {"interactions_new": 0.0, "interactions_gone": 0.0},
        {"items_new": 2.0, "items_gone": 1.0},
    ]
    assert [r.warns for r in remarks] == [False, True]
