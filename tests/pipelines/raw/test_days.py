"""Equal events of several files, days without a clock, the hour that comes twice: by hand."""

from datetime import UTC, date, timedelta
from pathlib import Path

import pytest

from encoders.settings import ModelChoice
from pipelines.config import Config
from pipelines.lake.storage import Lake
from pipelines.raw import days
from pipelines.sections import Paths, Source
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
        interactions=Source(path="interactions", columns={"item_id": "items[].id"}),
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
