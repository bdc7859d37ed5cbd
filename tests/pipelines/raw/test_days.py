"""Equal events of several files, days without a clock, the hour that comes twice: by hand."""

from datetime import UTC, date, timedelta
from pathlib import Path

import pytest

from encoders.settings import ModelChoice
from pipelines.config import Config
from pipelines.lake.storage import Lake
from pipelines.raw import days
from pipelines.sections import EventsSource, Paths
from pipelines.standardize import standardize
from tests.shop import write_jsonl

HEAD = "user_id,item_id,event,event_at\n"


def events_of(root: Path, day: date, timezone: str = "UTC", **files: str) -> tuple[list[tuple[str, str]], list[str]]:
    """(time in UTC, file) of each event of all days, and the reasons of rejects, by file and line."""
    for name, text in files.items():
        path = root / "raw" / "interactions" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + text)
    write_jsonl(root / "raw" / "items" / "a.jsonl", [{"item_id": "i", "title": "X"}])
    config = Config(
        paths=Paths(raw=str(root / "raw"), data=root / "data"),
        start_date=day - timedelta(days=1),
        timezone=timezone,
        encoders={"text": ModelChoice("minilm")},
    )
    lake = Lake(root / "lake")
    list(standardize(config, lake, day))
    rows = [r for d in lake.days("std_interactions") for r in lake.read("std_interactions", d).to_pylist()]
    rejects = [r for d in lake.days("quarantine") for r in lake.read("quarantine", d).to_pylist()]
    found = [(r["event_at"].astimezone(UTC).strftime("%d %H:%M:%S.%f"), Path(r["source"]).stem) for r in rows]
    return sorted(found), [f"{Path(r['source']).stem} {r['position']} {r['reason']}" for r in rejects]


def test_two_pieces_bought_on_one_day_are_two_events(tmp_path: Path) -> None:
    two = "u,i,purchase,2026-03-02\n" * 2
    found, rejects = events_of(tmp_path, date(2026, 3, 2), a=two)
    assert found == [("02 00:00:00.000000", "a"), ("02 00:00:00.000001", "a")]
    assert rejects == []


def test_a_copy_of_a_file_adds_nothing(tmp_path: Path) -> None:
    two, three = ("u,i,purchase,2026-03-02\n" * n for n in (2, 3))
    found, rejects = events_of(tmp_path, date(2026, 3, 2), a=two, b=three)
    assert [f for f, _ in found] == [f"02 00:00:00.00000{n}" for n in range(3)], "as many as the file with most"
    assert [s for _, s in found] == ["a", "a", "b"]
    assert rejects == ["b 2 duplicate", "b 3 duplicate"]


def test_equal_moments_are_one_event(tmp_path: Path) -> None:
    found, rejects = events_of(tmp_path, date(2026, 3, 2), a="u,i,purchase,2026-03-02T00:00:00Z\n" * 3)
    assert (found, rejects) == ([("02 00:00:00.000000", "a")], ["a 3 duplicate", "a 4 duplicate"])


def test_the_autumn_hour_is_kept_twice(tmp_path: Path) -> None:
    """02:30 of 2026-10-25 in Berlin is 00:30 and 01:30 UTC; a third equal row is a duplicate."""
    text = "u,i,play,2026-10-25 02:30:00\n" * 3 + "v,i,play,2026-10-25 02:30:00\n"
    found, rejects = events_of(tmp_path, date(2026, 10, 25), "Europe/Berlin", a=text)
    assert [f for f, _ in found] == ["25 00:30:00.000000", "25 00:30:00.000000", "25 01:30:00.000000"]
    assert rejects == ["a 4 duplicate"]


def test_groups_of_days_are_cut_by_rows_and_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"u{n % 7},i,view,2026-03-{1 + n % 2:02d}T{n % 24:02d}:00:00Z\n" for n in range(600))
    whole = events_of(tmp_path / "whole", date(2026, 3, 2), a=text)
    monkeypatch.setattr(days, "GROUP_ROWS", 10)
    monkeypatch.setattr(days, "BATCH_ROWS", 7)
    cut = events_of(tmp_path / "cut", date(2026, 3, 2), a=text)
    assert cut == whole
    files = [sorted(p.read_bytes() for p in (tmp_path / w / "lake").rglob("*.parquet")) for w in ("whole", "cut")]
    assert files[0] == files[1], "byte for byte"


def test_elements_of_one_list_that_are_equal_are_counted(tmp_path: Path) -> None:
    """An order of the same item twice, at a moment: one event and one duplicate, which has the same line."""
    order = {"user_id": "u", "event": "purchase", "event_at": "2026-03-02T10:00:00Z", "items": [{"id": "i"}] * 3}
    write_jsonl(tmp_path / "raw" / "interactions" / "o.jsonl", [order, order | {"items": []}])
    write_jsonl(tmp_path / "raw" / "items" / "a.jsonl", [{"item_id": "i", "title": "X"}])
    config = Config(
        paths=Paths(raw=str(tmp_path / "raw"), data=tmp_path / "data"),
        start_date=date(2026, 3, 2),
        interactions=EventsSource(path="interactions", columns={"item_id": "items[].id"}),
    )
    lake, day = Lake(tmp_path / "lake"), date(2026, 3, 2)
    list(standardize(config, lake, day))
    assert lake.rows("std_interactions", day) == 1
    rejects = [(r["position"], r["reason"], r["detail"][-3:]) for r in lake.read("quarantine", day).to_pylist()]
    assert rejects == [(1, "duplicate", " i)"), (1, "duplicate", "(2)"), (2, "empty_list", "ems")]
    (ledger,) = (r for r in lake.read("ingest_files", day).to_pylist() if r["kind"] == "interactions")
    assert [ledger[f"rows_{f}"] for f in ("in", "out", "quarantined", "lost")] == [4, 1, 3, 0]


def test_what_a_worker_leaves_beside_a_day_is_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "date=2026-03-02"
    folder.mkdir()
    maker = days._Day(date(2026, 3, 2), iter(()), None)
    assert [t.num_rows for t in maker.kept()] == [0]
    maker.write_account(folder)
    duplicates, counts = days.account_of(folder)
    assert (duplicates.num_rows, counts, list(folder.iterdir())) == (0, {}, [])
    assert duplicates.schema == days.DUPLICATES


def test_folders_may_be_named_like_patterns(tmp_path: Path) -> None:
    text = "u,i,view,2026-03-02T10:00:00Z\n"
    found = events_of(tmp_path / "shop [2] *", date(2026, 3, 2), **{"a [x]?": text, "b": text})
    assert found == ([("02 10:00:00.000000", "a [x]?")], ["b 2 duplicate"])


def sessions(root: Path, minutes: int | None, rows: list[tuple[str, str, str]], timezone: str = "UTC") -> list[str]:
    """Session of each event, in order of time and user, of rows (user, time, own session)."""
    lines = [
        {"user_id": u, "item_id": f"i{n}", "event": "view", "event_at": at, "session_id": own or None}
        for n, (u, at, own) in enumerate(rows)
    ]
    write_jsonl(root / "raw" / "interactions" / "a.jsonl", lines)
    write_jsonl(root / "raw" / "items" / "a.jsonl", [{"item_id": "i0", "title": "X"}])
    config = Config(
        paths=Paths(raw=str(root / "raw"), data=root / "data"),
        start_date=date(2026, 3, 1),
        timezone=timezone,
        interactions=EventsSource(path="interactions", session_minutes=minutes),
        encoders={"text": ModelChoice("minilm")},
    )
    lake = Lake(root / "lake")
    list(standardize(config, lake, date(2026, 3, 3)))
    found = [r for d in lake.days("std_interactions") for r in lake.read("std_interactions", d).to_pylist()]
    return [r["session_id"] for r in sorted(found, key=lambda r: (r["event_at"], r["user_id"], r["item_id"]))]


def test_a_session_ends_after_a_longer_pause_and_with_the_day(tmp_path: Path) -> None:
    rows = [
        ("v", "2026-03-02T09:55:00Z", ""),
        ("u", "2026-03-02T10:00:00Z", ""),
        ("u", "2026-03-02T10:00:00Z", ""),
        ("v", "2026-03-02T10:20:00Z", ""),
        ("u", "2026-03-02T10:30:00Z", ""),  # just as long as the pause
        ("u", "2026-03-02T11:00:01Z", ""),
        ("u", "2026-03-02T11:10:00Z", "order 7"),
        ("u", "2026-03-02T11:35:00Z", ""),  # the event of the order was in between
        ("u", "2026-03-02T23:50:00Z", ""),
        ("u", "2026-03-03T00:05:00Z", ""),
    ]
    u, v = ([f"{w}@2026-03-0{at}Z" for at in times] for w, times in {
        "u": ("2T10:00:00", "2T11:00:01", "2T23:50:00", "3T00:05:00"), "v": ("2T09:55:00",),
    }.items())  # fmt: skip
    expected = [v[0], u[0], u[0], v[0], u[0], u[1], "order 7", u[1], u[2], u[3]]
    assert sessions(tmp_path / "a", 30, rows) == expected
    assert sessions(tmp_path / "b", 30, rows[::-1]) == expected, "whatever the order of the file"
    assert sessions(tmp_path / "c", None, rows) == [r[2] or None for r in rows]


def test_sessions_are_of_days_as_the_clock_of_the_house_has_them(tmp_path: Path) -> None:
    rows = [("u", f"2026-03-01T{at}:00Z", "") for at in ("14:50", "15:05", "15:10")]  # midnight in Tokyo is at 15:00
    found = sessions(tmp_path, 30, rows, "Asia/Tokyo")
    assert found == [f"u@2026-03-01T{at}:00Z" for at in ("14:50", "15:05", "15:05")], "named in UTC, as event_at"


def test_a_new_pause_makes_the_days_again(tmp_path: Path) -> None:
    rows = [("u", f"2026-03-02T10:{m}:00Z", "") for m in ("00", "20", "45")]
    assert len(set(sessions(tmp_path, 30, rows))) == 1
    assert len(set(sessions(tmp_path, 20, rows))) == 2
