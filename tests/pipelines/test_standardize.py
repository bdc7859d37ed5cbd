"""The std tables of a night from real files: days, zones, duplicates, late events, accounts."""

import hashlib
from datetime import date
from pathlib import Path

import pytest

from encoders.settings import ModelChoice
from pipelines.beyond import Graph
from pipelines.config import Config
from pipelines.lake.storage import Lake, StorageError
from pipelines.sections import Paths
from pipelines.standardize import OF_DAYS, SECTIONS, standardize
from tests.lakes import at, rows_of
from tests.payloads import picture
from tests.shop import write_jsonl

HEAD = "user_id,item_id,event,value,event_at\n"


def config_at(root: Path, timezone: str = "UTC") -> Config:
    (root / "raw" / "interactions").mkdir(parents=True, exist_ok=True)
    write_jsonl(root / "raw" / "items" / "a.jsonl", [{"item_id": "x", "title": "X"}])
    paths = Paths(raw=str(root / "raw"), data=root / "data")
    return Config(paths=paths, start_date=date(2026, 3, 9), timezone=timezone)


def made(config: Config, day: date = date(2026, 3, 10)) -> Lake:
    lake = Lake(config.paths.data / "lake")
    list(standardize(config, lake, day))
    return lake


def log(root: Path, name: str, *lines: str) -> None:
    path = root / "raw" / "interactions" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + "".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(
    ("timezone", "days"),
    [("UTC", [9, 10]), ("Asia/Tokyo", [10, 10]), ("America/New_York", [9, 9])],
)
def test_an_event_belongs_to_the_local_day(tmp_path: Path, timezone: str, days: list[int]) -> None:
    """16:00 of the ninth and 02:00 of the tenth, UTC."""
    log(tmp_path, "a.csv", "u,x,view,,2026-03-09T16:00:00Z", "v,x,view,,2026-03-10T02:00:00Z")
    lake = made(config_at(tmp_path, timezone))
    found = {
        u: d.day for d in lake.days("std_interactions") for u in lake.read("std_interactions", d)["user_id"].to_pylist()
    }
    assert found == dict(zip("uv", days, strict=True))


def test_times_without_a_zone_are_local(tmp_path: Path) -> None:
    log(tmp_path, "a.csv", "u,x,view,,2026-03-10T08:30:00")
    table = made(config_at(tmp_path, "Asia/Tokyo")).read("std_interactions", date(2026, 3, 9 + 1))
    assert table["event_at"].to_pylist() == [at(9, 23, 30)]


def test_the_first_of_equal_events_stays_and_the_others_are_duplicates(tmp_path: Path) -> None:
    same = "2026-03-10T01:00:00Z"
    log(tmp_path, "b.csv", f"u,x,view,2,{same}", f"u,x,click,,{same}")
    log(tmp_path, "a.csv", f"u,x,view,1,{same}", f"u,x,view,3,{same}")
    lake = made(config_at(tmp_path))
    rows = lake.read("std_interactions", date(2026, 3, 10)).to_pylist()
    assert [(r["event"], r["value"], r["source"]) for r in rows] == [
        ("click", None, "interactions/b.csv"),
        ("view", 1.0, "interactions/a.csv"),
    ]
    rejects = lake.read("quarantine", date(2026, 3, 10)).to_pylist()
    assert {(r["source"], r["position"], r["reason"]) for r in rejects} == {
        ("interactions/a.csv", 3, "duplicate"),
        ("interactions/b.csv", 2, "duplicate"),
    }
    ledger = {r["source"]: r for r in lake.read("ingest_files", date(2026, 3, 10)).to_pylist()}
    assert [ledger["interactions/b.csv"][f"rows_{n}"] for n in ("in", "out", "quarantined")] == [2, 1, 1]


def test_late_events_make_their_own_day_again_and_no_other(tmp_path: Path) -> None:
    log(tmp_path, "a.csv", "u,x,view,,2026-03-09T01:00:00Z", "u,x,view,,2026-03-10T01:00:00Z")
    config = config_at(tmp_path)
    lake = made(config)
    before = {d: lake.require("std_interactions", d).content_digest for d in lake.days("std_interactions")}
    log(tmp_path, "late.csv", "v,x,view,,2026-03-09T02:00:00Z")
    manifests = list(standardize(config, lake, date(2026, 3, 11)))
    assert [m.partition for m in manifests if m.table == "std_interactions"] == ["2026-03-09", "2026-03-11"]
    assert lake.read("std_interactions", date(2026, 3, 9))["user_id"].to_pylist() == ["u", "v"]
    assert lake.require("std_interactions", date(2026, 3, 10)).content_digest == before[date(2026, 3, 10)]


def test_what_happened_before_the_first_day_is_counted_on_it(tmp_path: Path) -> None:
    log(tmp_path, "a.csv", "u,x,view,,2026-03-08T23:59:59Z", "u,x,view,,2026-03-09T00:00:00Z")
    config = config_at(tmp_path)
    lake = made(config, date(2026, 3, 9))
    rejects = lake.read("quarantine", date(2026, 3, 9)).to_pylist()
    assert [(r["position"], r["reason"]) for r in rejects] == [(2, "before_start_date")]
    ledger = {r["source"]: r for r in lake.read("ingest_files", date(2026, 3, 9)).to_pylist()}
    assert [ledger["interactions/a.csv"][f"rows_{n}"] for n in ("in", "out", "quarantined")] == [2, 1, 1]
    assert ledger["interactions/a.csv"]["columns"] == ["user_id", "item_id", "event", "value", "event_at"]
    catalogue = next(r for r in ledger.values() if r["kind"] == "items")
    assert "item_id" in catalogue["columns"]
    assert lake.days("std_interactions") == [date(2026, 3, 9)]
    made(config)
    assert lake.read("quarantine", date(2026, 3, 10)).num_rows == 0


def test_bad_rows_from_before_the_first_day_are_not_lost_by_the_night(tmp_path: Path) -> None:
    old = [f"u,,view,,2026-02-{d:02d}T10:00:00Z" for d in range(1, 20)]
    log(tmp_path, "a.csv", *old, "u,,view,,2026-03-09T10:00:00Z", "u,x,view,,2026-03-09T11:00:00Z")
    day = date(2026, 3, 9)
    lake = made(config_at(tmp_path), day)
    rejects = lake.read("quarantine", day).sort_by("position").to_pylist()
    assert [r["reason"] for r in rejects] == ["before_start_date"] * 19 + ["missing_item_id"]
    assert rejects[0]["detail"].startswith("2026-02-01 is before start_date 2026-03-09; missing_item_id, item_id is")
    assert lake.require("std_interactions", day).counters["rows_lost"] == 1


def test_events_after_the_day_wait_for_their_night(tmp_path: Path) -> None:
    log(tmp_path, "a.csv", "u,x,view,,2026-03-10T23:59:59Z", "u,x,view,,2026-03-11T00:00:00Z")
    lake = made(config_at(tmp_path))
    assert lake.days("std_interactions") == [date(2026, 3, 9), date(2026, 3, 10)]
    assert lake.read("std_interactions", date(2026, 3, 10)).num_rows == 1
    assert lake.require("std_interactions", date(2026, 3, 10)).counters["rows_ahead"] == 1


def catalogue_with_media(root: Path) -> None:
    """Items a to d: a picture, a broken one that b and c share, one that is not there; and an upload of another."""
    media = root / "raw" / "media"
    media.mkdir(parents=True)
    for name, content in (
        ("ok.png", picture()),
        ("torn.png", b"torn"),
        ("up.png", picture(colour="blue")),
        ("z.png", picture()),
    ):
        (media / name).write_bytes(content)
    rows = [("a", ["ok.png"]), ("b", ["torn.png", "ok.png"]), ("c", ["torn.png"]), ("d", ["gone.png", "z.png"])]
    items = [{"item_id": i, "title": i, "images": [f"media/{n}" for n in names]} for i, names in rows]
    write_jsonl(root / "raw" / "items" / "m.jsonl", items)
    upload = {"user_id": "u", "image": "media/up.png", "created_at": "2026-03-09T00:00:00Z"}
    write_jsonl(root / "raw" / "user_content" / "u.jsonl", [upload])


def test_broken_media_are_reported_once_and_bad_references_where_they_stand(tmp_path: Path) -> None:
    config = config_at(tmp_path)
    catalogue_with_media(tmp_path)
    lake = made(config)
    rejected = lake.read("quarantine", date(2026, 3, 10)).to_pylist()
    assert [(r["stage"], r["source"], r["position"], r["reason"]) for r in rejected] == [
        ("media", "items/m.jsonl", 4, "missing_file"),
        ("media", "media/torn.png", 0, "undecodable_image"),
    ]
    ok, up = (hashlib.sha256(c).hexdigest() for c in (picture(), picture(colour="blue")))
    media = {r["sha256"]: r for r in lake.read("std_media", date(2026, 3, 10)).to_pylist()}
    assert media.keys() == {ok, up}
    assert (media[ok]["uri"], media[ok]["kind"], media[ok]["format"]) == ("media/ok.png", "image", "png"), (
        "first by name"
    )
    assert (media[ok]["width_px"], media[ok]["height_px"], media[ok]["size_bytes"]) == (50, 40, len(picture()))
    items = {r["item_id"]: r for r in lake.read("std_items", date(2026, 3, 10)).to_pylist()}
    assert {i: r["image_sha256s"] for i, r in items.items()} == {"a": [ok], "b": [ok], "c": [], "d": [ok], "x": []}
    (upload,) = lake.read("std_user_content", date(2026, 3, 10)).to_pylist()
    assert (upload["user_id"], upload["content_sha256"], upload["uri"]) == ("u", up, "media/up.png")


def test_each_table_of_the_night_is_made_with_its_rows_accounted_for(tmp_path: Path) -> None:
    config = config_at(tmp_path)
    log(
        tmp_path,
        "a.csv",
        "u,x,view,,2026-03-10T16:00:00Z",
        "u,x,view,,2026-03-10T16:00:00Z",
        "u,,view,,2026-03-10T16:00:00Z",
    )
    lake = Lake(config.paths.data / "lake")
    manifests = list(standardize(config, lake, date(2026, 3, 10)))
    tables = ["std_items", "std_user_content", "std_users", "std_controls", "std_media", "quarantine", "ingest_files"]
    assert [m.table for m in manifests] == ["std_interactions"] * 2 + tables
    assert [m.partition for m in manifests[:2]] == ["2026-03-09", "2026-03-10"]
    assert [m.config_digest for m in manifests] == [config.digest(*OF_DAYS)] * 2 + [config.digest(*SECTIONS)] * 7
    files = {r["source"]: r for r in lake.read("ingest_files", date(2026, 3, 10)).to_pylist()}
    rows = ("rows_in", "rows_out", "rows_superseded", "rows_quarantined")
    assert [files["interactions/a.csv"][c] for c in rows] == [3, 1, 0, 2]
    assert [files["items/a.jsonl"][c] for c in rows] == [1, 1, 0, 0]
    reasons = {(r["position"], r["reason"]) for r in lake.read("quarantine", date(2026, 3, 10)).to_pylist()}
    assert reasons == {(3, "duplicate"), (4, "missing_item_id")}


def test_a_night_that_runs_again_forgets_what_steps_that_are_gone_have_rejected(tmp_path: Path) -> None:
    config, day = (
        config_at(tmp_path).model_copy(update={"encoders": {"image": ModelChoice("patch-rnn")}}),
        date(2026, 3, 10),
    )
    lake = made(config)
    reject = {"stage": "embed_x", "source": "s", "position": 0, "reason": "r", "detail": "d"}
    for step in ("emb_image", "emb_audio", "aug_views"):
        lake.publish_step("quarantine", day, step, rows_of("quarantine", [reject | {"source": step}]))
    assert lake.steps("quarantine", day) == ["aug_views", "emb_audio", "emb_image", "events", "standardize"]
    made(config)
    assert lake.steps("quarantine", day) == ["emb_image", "events", "standardize"]
    assert lake.read("quarantine", day)["source"].to_pylist() == ["emb_image"], "until that step runs again"


def test_a_quarantine_of_an_earlier_version_stays_until_the_whole_night_runs(tmp_path: Path) -> None:
    config, day = config_at(tmp_path), date(2026, 3, 10)
    lake = Lake(config.paths.data / "lake")
    old = rows_of("quarantine", [{"stage": "ingest", "source": "s", "position": 1, "reason": "r", "detail": "d"}])
    lake.publish("quarantine", day, old)
    assert lake.days("quarantine") == [day]
    with pytest.raises(StorageError, match="of an earlier version; run the whole night again"):
        lake.publish_step("quarantine", day, "emb_text", old.slice(0, 0))
    assert lake.read("quarantine", day).num_rows == 1
    made(config)
    assert (lake.steps("quarantine", day), lake.read("quarantine", day).num_rows) == (["events", "standardize"], 0)


def test_the_night_s_account_appears_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash right before the account: the next night makes the day's events and their account again."""
    log(tmp_path, "a.csv", "u,x,view,,2026-03-09T01:00:00Z", ",x,view,,2026-03-09T02:00:00Z")
    config, day = config_at(tmp_path), date(2026, 3, 9)
    lake = Lake(config.paths.data / "lake")
    real = Lake.publish_steps

    def crash(self: Lake, table: str, *args: object, **more: object) -> object:
        if table == "ingest_files":
            raise OSError("gone")
        return real(self, table, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Lake, "publish_steps", crash)
    with pytest.raises(OSError, match="gone"):
        list(standardize(config, lake, day))
    assert (lake.rows("std_interactions", day), lake.steps("ingest_files", day)) == (1, [])
    monkeypatch.setattr(Lake, "publish_steps", real)
    list(standardize(config, lake, date(2026, 3, 10)))
    (row,) = lake.read("ingest_files", day).to_pylist()
    assert (row["rows_in"], row["rows_out"], row["rows_quarantined"]) == (2, 1, 1)
    assert lake.steps("ingest_files", date(2026, 3, 10)) == ["events", "standardize"]


def test_days_are_made_again_under_other_settings_and_not_under_the_same(tmp_path: Path) -> None:
    """02:00 UTC of the tenth is the ninth in New York."""
    log(tmp_path, "a.csv", "u,x,view,,2026-03-10T02:00:00Z")
    last = date(2026, 3, 11)
    for timezone, days in (("UTC", [10]), ("America/New_York", [9]), ("UTC", [10])):
        config = config_at(tmp_path, timezone)
        lake = made(config, last)
        assert [d.day for d in lake.days("std_interactions") if lake.rows("std_interactions", d)] == days
        again = list(standardize(config, lake, last))
        assert [m.partition for m in again if m.table == "std_interactions"] == ["2026-03-11"], "the night itself alone"


def test_what_is_wrong_with_the_file_of_a_day_is_reported_on_its_night_alone(tmp_path: Path) -> None:
    for day in (9, 10, 11):
        log(tmp_path, f"2026-03-{day:02d}.csv", f"u,,view,,2026-03-{day:02d}T16:00:00Z")
    config = config_at(tmp_path)
    for day in (9, 10, 11):
        lake = made(config, date(2026, 3, day))
        assert lake.read("quarantine", date(2026, 3, day))["source"].to_pylist() == [
            f"interactions/2026-03-{day:02d}.csv"
        ]


def test_a_file_refused_whole_counts_once_in_whatever_order_nights_run(tmp_path: Path) -> None:
    for day in (9, 10, 11):
        log(tmp_path, f"2026-03-{day:02d}.csv", f"u,x,view,,2026-03-{day:02d}T16:00:00Z")
    (tmp_path / "raw" / "interactions" / "torn.parquet").write_bytes(b"PAR1torn")
    config = config_at(tmp_path)
    for day in (11, 10, 9, 11):
        lake = made(config, date(2026, 3, day))
    refused = [d.day for d in lake.days("quarantine") if lake.read("quarantine", d).num_rows]
    assert refused == [11], "the night that saw it first"


def test_a_house_without_a_catalogue_knows_the_items_of_its_events(tmp_path: Path) -> None:
    config = config_at(tmp_path).model_copy(update={"encoders": {}})
    (tmp_path / "raw" / "items" / "a.jsonl").unlink()
    log(
        tmp_path,
        "a.csv",
        "u,y,view,,2026-03-09T01:00:00Z",
        "u,x,view,,2026-03-10T01:00:00Z",
        "v,z,view,,2026-03-11T01:00:00Z",
    )
    items = made(config).read("std_items", date(2026, 3, 10)).to_pylist()
    assert [(i["item_id"], i["text"], i["source"]) for i in items] == [
        ("x", None, "interactions/a.csv"),
        ("y", None, "interactions/a.csv"),
    ], "z is of tomorrow"


def test_what_a_section_has_made_is_gone_when_the_section_is(tmp_path: Path) -> None:
    """A night is run again without [graphs]: nothing reads the graph of before."""
    log(tmp_path, "a.csv", "u,x,view,,2026-03-10T10:00:00Z")
    config = config_at(tmp_path)
    lake = made(config)
    lake.publish("item_graphs", date(2026, 3, 10), rows_of("item_graphs", []))
    lake.publish("item_graphs", date(2026, 3, 9), rows_of("item_graphs", []))
    made(config.model_copy(update={"graphs": {"films": Graph(triples="t")}}))
    assert lake.days("item_graphs") == [date(2026, 3, 9), date(2026, 3, 10)]
    made(config)
    assert lake.days("item_graphs") == [date(2026, 3, 9)], "of other nights it stays"
