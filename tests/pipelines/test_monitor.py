"""Bad days stop a night, normal ones do not: a made shop with weekends and a sale, from raw files."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from assets.checks import broken, checked
from pipelines.config import Config
from pipelines.lake.health import (
    NUMBERS,
    accept,
    accepted,
    is_accepted,
    is_carried,
    list_health,
    row_of,
    said,
    serve_again,
    waiting,
)
from pipelines.lake.promises import PROMISES
from pipelines.lake.storage import Lake
from pipelines.monitor import monitor
from pipelines.night.night import Night
from pipelines.operation import Guards, Thresholds
from pipelines.raw.places import DataError
from pipelines.score import recommendation_id
from pipelines.sections import EventsSource, ItemsSource, Paths, Rules
from pipelines.standardize import standardize
from tests.lakes import DAY, config_of, rows_of

FIRST, NIGHTS, SALE = date(2026, 1, 1), 68, 40
ITEMS, USERS = 150, 400
Rows = list[dict[str, Any]]


def a_day(n: int) -> Rows:
    """Events of day n: more on weekends, a sale with three times as many, quiet hours at night."""
    rng, day = np.random.default_rng(n), FIRST + timedelta(days=n)
    expected = 300 * (1.6 if day.weekday() >= 5 else 1.0) * (3.0 if n == SALE else 1.0)
    rows = []
    for _ in range(rng.poisson(expected)):
        hour = rng.choice(24, p=HOURS)
        event = rng.choice(["view", "cart", "purchase", "rating"], p=[0.7, 0.1, 0.1, 0.1])
        user = int(USERS * rng.random() ** 2) + (1000 + n * 7 if rng.random() < 0.05 else 0)
        stars = float(rng.choice([1, 2, 3, 4, 5], p=[0.05, 0.1, 0.2, 0.3, 0.35]))
        minute, second = (int(x) for x in rng.integers(60, size=2))
        rows.append(
            {
                "user_id": f"U{user}",
                "item_id": f"I{int(ITEMS * rng.random() ** 2):03d}",
                "event": str(event),
                "value": stars if event == "rating" else None,
                "event_at": datetime(day.year, day.month, day.day, int(hour), minute, second, tzinfo=UTC),
            }
        )
    return rows


HOURS = np.array([1, 1, 1, 1, 1, 2, 4, 8, 9, 8, 7, 7, 8, 8, 7, 7, 8, 9, 10, 12, 12, 9, 5, 2], float)
HOURS /= HOURS.sum()


def write_day(raw: Path, n: int, rows: Rows) -> None:
    lines = [json.dumps(r | {"event_at": r["event_at"].isoformat()}) for r in rows]
    (raw / "interactions").mkdir(parents=True, exist_ok=True)
    (raw / "interactions" / f"{FIRST + timedelta(days=n)}.jsonl").write_text("\n".join(lines) + "\n")


def write_items(raw: Path, rows: Rows) -> None:
    (raw / "items").mkdir(parents=True, exist_ok=True)
    (raw / "items" / "catalogue.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def catalogue() -> Rows:
    return [{"item_id": f"I{i:03d}", "title": f"thing {i}", "price": 10.0 + i, "categories": "a"} for i in range(ITEMS)]


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop whose nights up to the last but one are made; do not modify it."""
    root = tmp_path_factory.mktemp("normal")
    for n in range(NIGHTS - 1):
        write_day(root / "raw", n, a_day(n))
    write_items(root / "raw", catalogue())
    config, lake = config_at(root), Lake(root / "data" / "lake")
    for n in range(NIGHTS - 4, NIGHTS - 1):
        assert stopped(config, lake, FIRST + timedelta(days=n)) == "", n
    return root


def config_at(root: Path, **guards: Any) -> Config:
    paths = Paths(raw=str(root / "raw"), data=root / "data")
    return Config(
        paths=paths, start_date=FIRST, encoders={}, guards=Guards(**guards),
        interactions=EventsSource(path="interactions"),
        items=ItemsSource(path="items"),
    )  # fmt: skip


def stopped(config: Config, lake: Lake, day: date) -> str:
    """What stops a night before anything is learned from it; empty where nothing does."""
    try:
        made = [m for m in standardize(config, lake, day) if m.partition == day.isoformat()]
    except DataError as e:
        return e.problems[0]
    night = Night.of(config, lake, day)
    of_std = [broken(checked(config, night, m.table).results) for m in made]
    list(monitor(config, lake, day))
    return next((text for text in [*of_std, broken(checked(config, night, "night_health").results)] if text), "")


LAST = FIRST + timedelta(days=NIGHTS - 1)
Change = Callable[[Path, Rows], Rows]


def nothing(raw: Path, rows: Rows) -> Rows:
    return rows


def ten_times(raw: Path, rows: Rows) -> Rows:
    return [r | {"event_at": r["event_at"].replace(microsecond=n)} for r in rows for n in range(10)]


def no_rows(raw: Path, rows: Rows) -> Rows:
    return []


def half_nulls(raw: Path, rows: Rows) -> Rows:
    return [r | {"user_id": None} if n % 2 else r for n, r in enumerate(rows)]


def one_user(raw: Path, rows: Rows) -> Rows:
    return [r | {"user_id": "U7"} if n % 3 else r for n, r in enumerate(rows)]


def one_item(raw: Path, rows: Rows) -> Rows:
    return [r | {"item_id": "I007", "event": "purchase"} if n % 4 else r for n, r in enumerate(rows)]


def other_user_ids(raw: Path, rows: Rows) -> Rows:
    return [r | {"user_id": f"customer-{r['user_id']}"} for r in rows]


def other_item_ids(raw: Path, rows: Rows) -> Rows:
    write_items(raw, [r | {"item_id": f"sku-{r['item_id']}"} for r in catalogue()])
    return [r | {"item_id": f"sku-{r['item_id']}"} for r in rows]


def half_the_catalogue(raw: Path, rows: Rows) -> Rows:
    write_items(raw, catalogue()[: ITEMS // 2])
    return [r for r in rows if int(r["item_id"][1:]) < ITEMS // 2]


def removed_half(raw: Path, rows: Rows) -> Rows:
    gone = [r | {"status": "removed"} if n % 2 else r for n, r in enumerate(catalogue())]
    write_items(raw, gone)
    return rows


def new_item_ids(raw: Path, rows: Rows) -> Rows:
    write_items(raw, [*catalogue(), *(r | {"item_id": f"sku-{r['item_id']}"} for r in catalogue())])
    return [r | {"item_id": f"sku-{r['item_id']}"} for r in rows]


def no_titles(raw: Path, rows: Rows) -> Rows:
    write_items(raw, [r | {"title": None} if n % 2 else r for n, r in enumerate(catalogue())])
    return rows


def the_day_before(raw: Path, rows: Rows) -> Rows:
    return [r | {"event_at": r["event_at"] - timedelta(days=1)} for r in rows]


def twice(raw: Path, rows: Rows) -> Rows:
    return rows + rows


def all_fives(raw: Path, rows: Rows) -> Rows:
    return [r | ({"value": 5.0} if r["value"] else {}) for r in rows]


def other_clock(raw: Path, rows: Rows) -> Rows:
    return [r | {"event_at": r["event_at"].replace(hour=(r["event_at"].hour + 8) % 24)} for r in rows]


def prices_as_ids(raw: Path, rows: Rows) -> Rows:
    return [r | {"item_id": str(10.0 + int(r["item_id"][1:]))} for r in rows]


BAD: dict[Change, str] = {
    ten_times: "usual_events", no_rows: "usual_events", half_nulls: "usual_rejected", one_user: "usual_top_user",
    one_item: "usual_top_item", other_user_ids: "usual_new_users", other_item_ids: "", half_the_catalogue: "",
    removed_half: "usual_catalogue", new_item_ids: "usual_same_top_items", no_titles: "usual_without_title",
    the_day_before: "", twice: "usual_rejected", all_fives: "usual_top_value", other_clock: "usual_hours",
    prices_as_ids: "items_are_known",
}  # fmt: skip


@pytest.mark.parametrize("change", [nothing, *BAD])
def test_bad_days_are_stopped(normal: Path, tmp_path: Path, change: Change) -> None:
    root = tmp_path / "shop"
    shutil.copytree(normal, root)
    write_day(root / "raw", NIGHTS - 1, change(root / "raw", a_day(NIGHTS - 1)))
    why = stopped(config_at(root), Lake(root / "data" / "lake"), LAST)
    if change is nothing:
        assert why == ""
        return
    assert why
    assert BAD[change] in why, why
    if change is all_fives:
        rows = {r["number"]: r["passed"] for r in Lake(root / "data" / "lake").read("night_health", LAST).to_pylist()}
        assert rows["top_rating"] is False, "whatever other values there are"


def test_sixty_normal_nights_with_weekends_and_a_sale_are_not(normal: Path) -> None:
    from pipelines.monitor import _judged

    lake, config, alarms = Lake(normal / "data" / "lake"), config_at(normal), []
    last = FIRST + timedelta(days=NIGHTS - 2)
    for n in range(7, NIGHTS - 1):
        rows = _judged(config, lake, last, FIRST + timedelta(days=n))
        assert {r["history"] for r in rows if r["number"] == "events"} == {min(n, 28)}
        alarms += [said(r) for r in rows if r["stops"] and not r["passed"]]
    assert len(alarms) <= 1, alarms


def test_a_stopped_day_holds_the_next_night_until_it_is_mended_or_accepted(normal: Path, tmp_path: Path) -> None:
    root = tmp_path / "shop"
    shutil.copytree(normal, root)
    config, lake = config_at(root), Lake(root / "data" / "lake")
    write_day(root / "raw", NIGHTS - 1, one_item(root / "raw", a_day(NIGHTS - 1)))
    write_day(root / "raw", NIGHTS, a_day(NIGHTS))
    assert f"nightloom accept --date {LAST}" in stopped(config, lake, LAST)
    after = LAST + timedelta(days=1)
    assert str(LAST) in stopped(config, lake, after), "what is learned tomorrow is learned from that day too"
    assert waiting(lake, after, config) == [LAST]
    mended = root.parent / "mended"
    shutil.copytree(root, mended)
    write_day(mended / "raw", NIGHTS - 1, a_day(NIGHTS - 1))
    assert stopped(config_at(mended), Lake(mended / "data" / "lake"), after) == ""
    rows = accept(config, lake, after)
    assert [(r["day"], r["number"]) for r in rows] == [(LAST, "kinds"), (LAST, "top_item")]
    assert accepted(config, LAST) == {r["number"]: r["value"] for r in rows}
    assert stopped(config, lake, after) == ""
    table = lake.read("night_health", after).to_pylist()
    assert [(r["day"], r["number"]) for r in table if r["accepted"]] == []
    assert waiting(lake, after, config) == [], "an accepted day is a day like others"
    assert stopped(config, lake, LAST) == ""
    assert [r["number"] for r in lake.read("night_health", LAST).to_pylist() if r["accepted"]] == ["kinds", "top_item"]


def test_ends_of_a_number_may_be_set_by_hand_and_where_it_warns() -> None:
    fixed = {"events": Thresholds(stop_below=100, warn_below=300, warn_above=450)}
    config = config_of(Path("/nowhere"), guards=Guards(numbers=fixed))
    usual = [400.0] * 7

    def judged(value: float) -> list[Any]:
        row = row_of(config, DAY, "events", value, usual, 1)
        learned = row_of(config_of(Path("/nowhere")), DAY, "events", value, usual, 1)
        assert (row["usual_low"], row["usual_high"]) == (100, learned["usual_high"])
        (promise,) = [p for p in PROMISES["night_health"] if p.name == "usual_events"]
        rows = rows_of("night_health", [row])
        return list(promise.broken(config, cast(Night, SimpleNamespace(day=DAY)), "night_health", rows))

    (fine,) = judged(400)
    assert not fine.warns
    assert fine.numbers["value"] == 400
    (few,) = judged(299)
    assert few.warns
    assert str(few).endswith("below guards.numbers.events.warn_below (300)")
    (many,) = judged(451)
    assert str(many).endswith("above guards.numbers.events.warn_above (450)")
    (numbers, problem) = judged(99)
    assert numbers.numbers["value"] == 99
    assert "usual 100 to" in problem


def test_what_is_further_out_than_what_was_accepted_is_not_accepted() -> None:
    def row(value: float) -> dict[str, Any]:
        low, high = 100.0, 500.0
        return {
            "number": "events",
            "value": value,
            "usual_low": low,
            "usual_high": high,
            "passed": low <= value <= high,
        }

    known = {"events": 40.0}
    assert [is_accepted(known, row(v)) for v in (39, 40, 60, 200)] == [False, True, True, False]
    assert not is_accepted(known, row(600)), "too many were not looked at"
    assert [is_accepted({"events": 900.0}, row(v)) for v in (600, 900, 901)] == [True, True, False]
    assert not is_accepted({"users": 40.0}, row(40))


def test_a_shop_that_is_closed_on_sundays_is_not_stopped(tmp_path: Path) -> None:
    write_items(tmp_path / "raw", catalogue())
    days = 22  # from a Thursday on; the 25th of January is the last, a Sunday
    for n in range(days + 3):
        if (FIRST + timedelta(days=n)).weekday() != 6:
            write_day(tmp_path / "raw", n, a_day(n))
    config, lake = config_at(tmp_path), Lake(tmp_path / "data" / "lake")
    for n in (days + 1, days + 2):
        assert stopped(config, lake, FIRST + timedelta(days=n)) == ""
    assert (FIRST + timedelta(days=days + 2)).weekday() == 6
    rows = {r["number"]: r for r in lake.read("night_health", FIRST + timedelta(days=days + 2)).to_pylist()}
    assert (rows["events"]["value"], rows["events"]["usual_low"], rows["events"]["history"]) == (0.0, 0.0, days + 2)


def test_a_file_that_spoiled_a_day_may_be_taken_away(normal: Path, tmp_path: Path) -> None:
    root = tmp_path / "shop"
    shutil.copytree(normal, root)
    config, lake = config_at(root), Lake(root / "data" / "lake")
    write_day(root / "raw", NIGHTS - 1, a_day(NIGHTS - 1))
    robots = root / "raw" / "interactions" / f"{LAST}-robots.jsonl"
    line = {"user_id": "U1", "item_id": "I007", "event": "purchase", "value": None}
    rows = [line | {"event_at": f"{LAST}T10:{n // 60:02d}:{n % 60:02d}Z"} for n in range(3_000)]
    robots.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert "usual_" in stopped(config, lake, LAST)
    robots.unlink()
    assert stopped(config, lake, LAST) == "", "to mend the data is no loss of data"
    (root / "raw" / "interactions" / f"{FIRST + timedelta(days=60)}.jsonl").unlink()
    assert "are in no raw file any more" in stopped(config, lake, LAST), "but other days must stay"


@pytest.mark.parametrize(
    ("name", "value", "history", "low", "high"),
    [
        ("events", 100.0, [400.0] * 7, 80 - 3 * 80**0.5, 2000 + 4 * 2000**0.5),
        ("events", 5.0, [12.0] * 7, 0.0, 60 + 4 * 60**0.5),
        ("events", 5.0, [36.0, *[400.0] * 5, 2400.0], 24 - 3 * 24**0.5, 3600 + 4 * 60),
        ("top_user", 0.5, [0.1, 0.2] * 4, 0.0, 0.2 + 0.2 + 0.1),
        ("top_user", 0.5, [0.1] * 6, None, None),
        ("catalogue", 60.0, [140.0, 70.0], 50, None),
    ],
)
def test_the_range_of_a_number(
    name: str, value: float, history: list[float], low: float | None, high: float | None
) -> None:
    row = row_of(config_of(Path("/nowhere")), DAY, name, value, history, 100)
    assert row["usual_low"] == (None if low is None else pytest.approx(low))
    assert row["usual_high"] == (None if high is None else pytest.approx(high))
    assert row["passed"] is ((low or 0) <= value <= (high or np.inf))


def test_guards_scale_what_is_usual() -> None:
    wide = config_of(Path("/nowhere"), guards=Guards(usual_factor=9, usual_slack=2))
    assert row_of(wide, DAY, "events", 0.0, [400.0] * 7, 1)["usual_high"] == pytest.approx(3600 + 4 * 60)
    assert row_of(wide, DAY, "top_user", 0.0, [0.1] * 7, 10_000)["usual_high"] == pytest.approx(0.1 + 0.4 + 0.01)
    never = config_of(Path("/nowhere"), guards=Guards(usual_days=0))
    assert NUMBERS["events"].stops
    assert row_of(never, DAY, "events", 0.0, [], 1)["passed"]


# --- lists ------------------------------------------------------------------------------------------------------------


def lists(lake: Lake, day: date, item: str, **counters: int) -> None:
    row = {"user_id": "u", "rank": 1, "item_id": item, "score": 1.0, "model": "m", "arm": "default"}
    row |= {"recommendation_id": recommendation_id(day, "m", "u", item), "reason_code": "new"}
    lake.publish("recommendations", day, rows_of("recommendations", [row]), counters=counters)


def test_the_lists_of_the_last_good_night_are_served_again(tmp_path: Path) -> None:
    lake, days = Lake(tmp_path), [DAY + timedelta(days=n) for n in range(4)]
    assert serve_again(config_of(tmp_path), lake, DAY, "no lists yet") is None
    lists(lake, days[0], "a")
    for day, why in ((days[1], "check usual_events: too many"), (days[2], "still")):
        manifest = serve_again(config_of(tmp_path), lake, day, why)
        assert manifest is not None
        assert manifest.rows == 1
        (row,) = lake.read("recommendations", day).to_pylist()
        assert (row["item_id"], row["carried_from"], row["carried_why"]) == ("a", days[0], why)
        assert row["recommendation_id"].startswith("20260310-"), "what comes back counts for the night that made it"
    assert [is_carried(lake, d) for d in days[:3]] == [False, True, True]
    lists(lake, days[3], "own")
    assert serve_again(config_of(tmp_path), lake, days[3], "a rerun fails") is None, "the night's own lists stay"
    assert lake.read("recommendations", days[3])["item_id"].to_pylist() == ["own"]


def test_what_was_hidden_or_has_left_since_is_not_served_again(tmp_path: Path) -> None:
    lake, night = Lake(tmp_path), DAY + timedelta(days=1)
    place = {"rank": 1, "score": 1.0, "model": "m", "arm": "default", "reason_code": "new"}
    rows = [
        place | {"user_id": u, "item_id": i, "recommendation_id": u + i, "rank": n}
        for u in "uv"
        for n, i in enumerate("abcd")
    ]
    lake.publish("recommendations", DAY, rows_of("recommendations", rows))
    lake.publish("std_items", night, rows_of("std_items", [{"item_id": i, "categories": ["x"]} for i in "abd"]))
    hide: dict[str, Any] = {"user_id": "u", "target": "item", "value": "a", "wish": "hide", "source": "s"}
    hide |= {"created_at": datetime(2026, 3, 11, tzinfo=UTC)}
    lake.publish("std_controls", night, rows_of("std_controls", [hide]))
    assert serve_again(config_of(tmp_path, rules=Rules(deny=("item:d",))), lake, night, "why") is not None
    found = lake.read("recommendations", night).to_pylist()
    assert [(r["user_id"], r["item_id"]) for r in found] == [("u", "b"), ("v", "a"), ("v", "b")]


def test_a_day_that_something_else_has_stopped_waits_too(tmp_path: Path) -> None:
    lake, config = Lake(tmp_path), config_of(tmp_path)
    lists(lake, DAY, "a")
    assert serve_again(config, lake, DAY + timedelta(days=1), "check enough_is_read: half is lost") is not None
    after = DAY + timedelta(days=2)
    assert waiting(lake, after, config) == [DAY + timedelta(days=1)], "its numbers were never taken"
    lake.publish("night_health", DAY + timedelta(days=1), rows_of("night_health", []))
    assert waiting(lake, after, config) == []


def test_lists_of_an_earlier_version_are_served_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lists(lake, DAY, "a")
    part = next(lake.folder("recommendations", DAY).glob("*.parquet"))
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(part).drop_columns(["reason_value", "carried_from", "carried_why"]), part)
    assert serve_again(config_of(tmp_path), lake, DAY + timedelta(days=1), "why") is not None
    (row,) = lake.read("recommendations", DAY + timedelta(days=1)).to_pylist()
    assert (row["reason_value"], row["carried_from"]) == (None, DAY)


def test_how_much_of_lists_stays_is_judged_by_the_nights_before(tmp_path: Path) -> None:
    config, lake = config_of(tmp_path), Lake(tmp_path)
    for n, value in enumerate((0.8, 0.7, 0.1)):
        row = list_health(config, lake, DAY + timedelta(days=n), value, 10_000)
        assert row["history"] == n
        assert row["passed"] is (n < 2), row
        table = pa.Table.from_pylist([row], schema=rows_of("list_health", []).schema)
        lake.publish("list_health", DAY + timedelta(days=n), table)
    assert row["usual_low"] == pytest.approx(0.7 - 0.3 - 0.01)
    after = list_health(config, lake, DAY + timedelta(days=3), 0.75, 10_000)
    assert after["history"] == 2, "what was out of range is not what is usual"
