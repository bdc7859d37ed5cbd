"""Answers about nights, on a lake of a few rows whose answers are known."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.ask import UnknownError, compare, explain, latest, nights, picture_of, similar_to
from pipelines.lake.cards import files_of_model
from pipelines.lake.storage import Lake, StorageError
from pipelines.sections import Recommend
from tests.lakes import DAY, at, config_of, event, rows_of, tiny_lake
from tests.payloads import picture

BEFORE = DAY - timedelta(days=1)


def place(user: str, rank: int, item: str, **more: Any) -> dict[str, Any]:
    """A row of ``recommendations``."""
    row = {"user_id": user, "rank": rank, "item_id": item, "model": "ease", "arm": "default", "score": 3.0 - rank}
    return row | {"recommendation_id": f"{user}{item}", "reason_code": "popular"} | more


def served(lake: Lake, day: Any, rows: list[dict[str, Any]], **provenance: Any) -> None:
    rows = sorted(rows, key=lambda r: (r["user_id"], r["rank"]))
    lake.publish("recommendations", day, rows_of("recommendations", rows), **provenance)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Lists of two nights; u met a, then b, was shown c, and hides d."""
    events = [event("u", "a", at(8)), event("u", "b", at(10, 9)), event("u", "a", at(10, 8), "purchase")]
    events += [event("u", "c", at(10, 20), "impression"), event("v", "a", at(10))]
    items = [{"item_id": i, "title": f"The {i}", "categories": ["sea"]} for i in "abcd"]
    items[0] |= {"image_sha256s": ["sha"]}
    media = [{"sha256": "sha", "kind": "image", "format": "png", "uri": "a.png"}]
    made = tiny_lake(tmp_path / "lake", events, items, media=media)
    made.publish("std_items", BEFORE, rows_of("std_items", [{"item_id": i} for i in "abx"]))
    wish = {"user_id": "u", "target": "item", "value": "d", "wish": "hide", "created_at": at(9), "source": "s"}
    made.publish("std_controls", DAY, rows_of("std_controls", [wish]))
    about = {"user_id": "u", "segment": "gold", "attributes": ["plan=free"], "source": "s"}
    made.publish("std_users", DAY, rows_of("std_users", [about]))
    served(made, BEFORE, [place("u", 1, "a"), place("u", 2, "b"), place("w", 1, "a"), place("old", 1, "b")])
    because = {"reason_code": "similar_to_history", "reason_item_ids": ["b"], "reason_modality": "text"}
    tonight = [place("u", 1, "c", **because), place("u", 2, "b"), place("w", 1, "a"), place("z", 1, "c")]
    served(made, DAY, tonight, config_digest="other")
    near = [("both", 1, "c"), ("both", 2, "b"), ("content", 1, "d")]
    rows = [{"item_id": "a", "basis": b, "rank": r, "similar_item_id": i, "score": 1 / r} for b, r, i in near]
    made.publish("similar_items", DAY, rows_of("similar_items", rows))
    return made


def test_a_list_is_explained_with_its_reasons_history_and_wishes(lake: Lake) -> None:
    found = explain(lake, "u", DAY)
    assert [(r["rank"], r["title"], r["because_of"]) for r in found["list"]] == [
        (1, "The c", ["The b"]),
        (2, "The b", []),
    ]
    assert [(r["item_id"], r["event"]) for r in found["history"]] == [("b", "view"), ("a", "purchase")]
    assert (found["events"], found["items"]) == (3, 2), "what was only shown is no event of a user"
    assert (found["segment"], found["attributes"], found["model"]) == ("gold", ["plan=free"], "ease")
    assert [(w["wish"], w["target"], w["value"]) for w in found["wishes"]] == [("hide", "item", "d")]
    assert found["history"][1]["picture"] == "sha"
    assert explain(lake, "v", DAY)["served_instead"].startswith("the list of '*'")
    with pytest.raises(UnknownError, match=r"no user 'W2' .*2026-03-10$"):
        explain(lake, "W2", DAY)
    with pytest.raises(UnknownError, match="there are: w$"):
        explain(lake, "W", DAY)


def test_what_a_user_has_asked_to_forget_is_not_told(lake: Lake) -> None:
    reset = {
        "user_id": "u",
        "target": "everything",
        "value": "",
        "wish": "reset",
        "created_at": at(10, 8),
        "source": "s",
    }
    lake.publish("std_controls", DAY, rows_of("std_controls", [reset]))
    found = explain(lake, "u", DAY)
    assert [r["item_id"] for r in found["history"]] == ["b"], "what came after it"
    assert found["events"] == 1


def test_a_stopped_night_without_any_list_is_told_too(lake: Lake, tmp_path: Path) -> None:
    served(lake, DAY + timedelta(days=1), [], counters={"carried": 1})
    config = config_of(tmp_path, recommend=Recommend(models=("ease",), serve="ease"))
    assert nights(config, lake)[-1]["state"] == f"lists of {DAY}"


def test_an_item_is_named_by_its_id_or_a_part_of_its_title(lake: Lake) -> None:
    found = similar_to(lake, "a", DAY)
    assert {b: [r["item_id"] for r in rows] for b, rows in found["similar"].items()} == {
        "both": ["c", "b"],
        "content": ["d"],
    }
    assert similar_to(lake, "THE A", DAY) == found
    with pytest.raises(UnknownError, match=r"titles with it: a \(The a\), b \(The b\)"):
        similar_to(lake, "the", DAY)
    with pytest.raises(UnknownError, match=r"no item 'nothing' in the catalogue of 2026-03-10$"):
        similar_to(lake, "nothing", DAY)


def test_the_latest_night_is_asked_where_none_is_named(lake: Lake, tmp_path: Path) -> None:
    assert latest(lake, None) == DAY
    assert latest(lake, BEFORE) == BEFORE
    with pytest.raises(StorageError, match="no lists of the night of 2026-03-01"):
        latest(lake, DAY - timedelta(days=9))
    with pytest.raises(StorageError, match="no lists of any night"):
        latest(Lake(tmp_path / "none"), None)


def test_two_nights_differ_in_lists_and_for_these_reasons(lake: Lake) -> None:
    """u lost a for c, w keeps all; old is gone and z is new."""
    for day, settings, state in ((BEFORE, {"k": 1}, 0), (DAY, {"k": 2}, 0)):
        lake.publish_files("model_ease", day, files_of_model({"x": np.array([state])}, {"settings": settings}))
    for day, state in ((BEFORE, 0), (DAY, 1)):
        lake.publish_files("model_als", day, files_of_model({"x": np.array([state])}, {"settings": {}}))
    lake.publish_files("model_graph", DAY, files_of_model({"x": np.array([0])}, {"settings": {}}))
    found = compare(lake, BEFORE, DAY)
    assert found["users"] == {"both": 2, "new": 1, "gone": 1}
    assert (found["changed_lists"], found["share_kept"]) == (1, 0.75)
    assert found["most_changed"] == [{"user_id": "u", "share_kept": 0.5}, {"user_id": "w", "share_kept": 1.0}]
    assert [(r["item_id"], r["before"], r["after"]) for r in found["gained"]] == [("c", 0, 2)]
    assert [(r["item_id"], r["before"], r["after"]) for r in found["lost"]] == [("b", 2, 1), ("a", 2, 1)]
    why = found["why"]
    assert why["data"] == ["2 new items, 1 gone", "4 events of 1 day more"]
    assert why["models"] == ["model_ease: settings {'k': 1} became {'k': 2}", "model_graph is new", "trained anew: als"]
    assert why["settings"] == ["[recommend] or [rules] differ"]


def test_of_many_users_some_are_compared(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [place(f"u{n:03d}", 1, "ab"[n % 2]) for n in range(400)]
    served(lake, BEFORE, rows)
    served(lake, DAY, [r | {"item_id": "a"} for r in rows])
    monkeypatch.setattr("pipelines.ask.MOST_PLACES", 100)
    found = compare(lake, BEFORE, DAY)
    assert found["one_of"] == 4
    assert 60 < found["users"]["both"] < 140
    assert (found["users"]["new"], found["users"]["gone"]) == (0, 0), "the same users of both nights"
    assert found["share_kept"] == pytest.approx(0.5, abs=0.15)


def test_nights_are_told_with_accuracy_and_decisions(lake: Lake, tmp_path: Path) -> None:
    of = {"metric": "ndcg", "k": 20, "n_users": 5, "value": 0.25}
    rows = [of | {"model": "ease", "slice": "all"}, of | {"model": "ease", "slice": "warm", "value": 0.5}]
    lake.publish("eval_offline", DAY, rows_of("eval_offline", rows))
    arm = {"experiment": "lists", "arm": "b", "metric": "clicked", "users": 1, "days": 1, "mean": 0.0}
    arm |= {"variance_removed": 0.0, "sample_ratio_p": 1.0, "served_arm": "b", "reason": "r"}
    decided = [
        arm | {"decision": "promote", "decided_on": DAY},
        arm | {"experiment": "o", "decision": "keep", "decided_on": BEFORE},
    ]
    lake.publish("eval_experiments", DAY, rows_of("eval_experiments", sorted(decided, key=lambda r: r["experiment"])))
    config = config_of(tmp_path, recommend=Recommend(models=("ease",), serve="ease"))
    first, second = nights(config, lake)
    assert (first["night"], first["ndcg@20"], first["decided"]) == (BEFORE, None, [])
    assert (second["night"], second["ndcg@20"], second["decided"]) == (DAY, 0.25, ["lists: promote b"])
    assert (second["events"], second["items"], second["state"]) == (4, 4, "own lists")


def test_a_picture_is_read_where_it_still_is(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture((40, 20), "red"))
    config = config_of(tmp_path)
    found = picture_of(config, lake, DAY, "sha", 4)
    assert found is not None
    assert found.tolist() == [[[255, 0, 0]] * 4] * 4
    (tmp_path / "a.png").unlink()
    assert picture_of(config, lake, DAY, "sha", 4) is None
    assert picture_of(config, lake, DAY, "unknown", 4) is None
