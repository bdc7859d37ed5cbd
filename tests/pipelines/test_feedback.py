"""Which events count for which places of which lists: by hand."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.feedback import feedback
from pipelines.lake.storage import Lake
from pipelines.score import recommendation_id
from pipelines.sections import Attribution
from tests.lakes import DAY, at, config_of, event, rows_of, tiny_lake

NIGHT = DAY - timedelta(days=1)  # 9 March; its lists serve the 10th


def lists(lake: Lake, night: date, **by_user: Sequence[str]) -> None:
    """Publish lists; ``everyone`` and ``gold`` stand for users without one."""
    names = {"everyone": "*", "gold": "*gold"}
    rows = [
        {"user_id": u, "rank": n + 1, "item_id": i, "score": -float(n), "model": "m", "arm": "default"}
        | {"recommendation_id": recommendation_id(night, "m", u, i), "reason_code": "popular"}
        for u, items in ((names.get(k, k), v) for k, v in by_user.items())
        for n, i in enumerate(items)
    ]
    lake.publish("recommendations", night, rows_of("recommendations", rows))


def came_back(
    tmp_path: Path, events: list[dict[str, Any]], served: Mapping[date, Mapping[str, Sequence[str]]], **settings: Any
) -> dict[tuple[str, str], dict[str, Any]]:
    """(user, item) -> row of ``feedback`` of 10 March."""
    lake = tiny_lake(tmp_path, events)
    for night, by_user in served.items():
        lists(lake, night, **by_user)
    users: list[dict[str, Any]] = [
        {"user_id": u, "segment": "gold", "attributes": [], "source": "s"} for u in ("new", "own")
    ]
    for night in served:
        lake.publish("std_users", night, rows_of("std_users", users))
    (manifest,) = feedback(config_of(tmp_path, feedback=Attribution(**settings)), lake, DAY)
    rows = lake.read("feedback", DAY).to_pylist()
    assert manifest.rows == len(rows)
    return {(r["user_id"], r["item_id"]): r for r in rows}


def test_events_of_the_next_day_count_for_the_place(tmp_path: Path) -> None:
    events = [
        event("u", "b", at(10, 9)),
        event("u", "b", at(10, 10), "favorite"),
        event("u", "b", at(10, 11), "rating", 2.0),
        event("u", "b", at(10, 12), "rating", 4.0),
        event("u", "a", at(9, 23), "purchase"),  # before the list
        event("u", "z", at(10, 9)),  # not in it
        event("v", "a", at(10, 9), "play", 30.0),
        event("v", "a", at(10, 10), "play", 12.5),
        event("v", "b", at(10, 10), "skip"),
    ]
    found = came_back(tmp_path, events, {NIGHT: {"u": "ab", "v": "ba"}})
    assert found.keys() == {("u", "b"), ("v", "a"), ("v", "b")}
    b = found["u", "b"]
    assert b["recommendation_id"] == recommendation_id(NIGHT, "m", "u", "b")
    assert (b["night"], b["model"], b["arm"], b["rank"], b["shown"]) == (NIGHT, "m", "default", 2, "reaction")
    assert (b["clicked"], b["favourite"], b["rating"], b["purchased"]) == (True, True, 4.0, False)
    assert (b["disliked"], b["seconds"], b["reacted_at"], b["reactions"]) == (False, None, at(10, 9), 4)
    assert (found["v", "a"]["seconds"], found["v", "a"]["clicked"]) == (42.5, True)
    assert (found["v", "b"]["clicked"], found["v", "b"]["disliked"]) == (False, True)


def test_impressions_say_what_was_shown(tmp_path: Path) -> None:
    events = [
        event("u", "a", at(10, 8), "impression"),
        event("u", "b", at(10, 8), "impression"),
        event("u", "b", at(10, 9)),
        event("u", "x", at(10, 8), "impression"),
    ]
    found = came_back(tmp_path, events, {NIGHT: {"u": "abc"}}, assume_shown=True)
    assert {k: (r["shown"], r["clicked"], r["reactions"]) for k, r in found.items()} == {
        ("u", "a"): ("impression", False, 0),
        ("u", "b"): ("impression", True, 1),
    }, "c was served, but the log says what was shown"
    assert found["u", "a"]["reacted_at"] is None


@pytest.mark.parametrize("assume", [False, True])
def test_without_impressions_served_places_count_only_if_told_so(tmp_path: Path, assume: bool) -> None:
    found = came_back(
        tmp_path,
        [event("u", "b", at(10)), event("x", "a", at(10))],
        {NIGHT: {"u": "ab", "w": "c", "everyone": "a"}},
        assume_shown=assume,
    )
    assumed = {k for k, r in found.items() if r["shown"] == "assumed"}
    own = {("u", "a"), ("u", "b"), ("w", "c")}
    assert assumed == (own if assume else set()), "nobody knows who was shown the list for anyone"
    assert {k for k, r in found.items() if r["clicked"]} == {("u", "b"), ("x", "a")}
    assert found["x", "a"]["shown"] == "reaction"
    assert not found["u", "a"]["reactions"] if assume else True


def test_who_has_no_list_was_shown_that_of_the_segment_or_of_anyone(tmp_path: Path) -> None:
    served = {NIGHT: {"everyone": "ab", "gold": "bc", "own": "c"}}
    events = [event(u, i, at(10)) for u in ("new", "own", "stranger") for i in "abc"]
    found = came_back(tmp_path, events, served)
    assert {k: r["rank"] for k, r in found.items()} == {
        ("new", "b"): 1,
        ("new", "c"): 2,
        ("own", "c"): 1,
        ("stranger", "a"): 1,
        ("stranger", "b"): 2,
    }
    assert found["new", "b"]["recommendation_id"] == recommendation_id(NIGHT, "m", "*gold", "b")


def test_an_event_that_quotes_a_recommendation_counts_for_it_alone(tmp_path: Path) -> None:
    quote = {"recommendation_id": recommendation_id(NIGHT, "m", "u", "a")}
    older = {"recommendation_id": recommendation_id(date(2026, 2, 1), "m", "u", "b")}
    wrong = {"recommendation_id": recommendation_id(NIGHT, "m", "u", "a")}
    events = [
        event("guest", "a", at(10)) | quote,  # the user was not signed in
        event("u", "b", at(10)) | older,  # of another night's list, which is not judged now
        event("u", "c", at(10)) | {"recommendation_id": "their-own-id"},
        event("v", "d", at(10)) | wrong,  # an id of another item: by user and item then
    ]
    found = came_back(tmp_path, events, {NIGHT: {"u": "abc", "v": "d"}})
    assert found.keys() == {("guest", "a"), ("u", "c"), ("v", "d")}
    assert found["guest", "a"]["rank"] == 1


def test_of_several_lists_the_latest_one_that_was_there_has_the_touch(tmp_path: Path) -> None:
    """Lists of the 7th and 8th with windows of three days; on the 10th those of the 7th are judged."""
    served = {date(2026, 3, 7): {"u": "abc"}, date(2026, 3, 8): {"u": "cb"}, date(2026, 3, 9): {"u": "x"}}
    events = [
        event("u", "a", at(10)),  # in the first list alone, within its window
        event("u", "b", at(8)),  # before the second list was there
        event("u", "c", at(9)),  # the second list comes later
    ]
    found = came_back(tmp_path, events, served, window_days=3)
    assert {k: r["night"] for k, r in found.items()} == {("u", "a"): date(2026, 3, 7), ("u", "b"): date(2026, 3, 7)}
    late = came_back(tmp_path / "late", [event("u", "a", at(11, 0))], served, window_days=3)
    assert not late


def test_without_lists_of_the_night_there_is_no_feedback(tmp_path: Path) -> None:
    assert not came_back(tmp_path, [event("u", "a", at(10))], {DAY: {"u": "a"}})
    lake = tiny_lake(tmp_path / "quiet", [event("u", "a", datetime(2026, 3, 1, tzinfo=at(1).tzinfo))])
    lists(lake, NIGHT, u="a")
    (manifest,) = feedback(config_of(tmp_path / "quiet"), lake, DAY)
    assert manifest.rows == 0, "nobody did anything"
