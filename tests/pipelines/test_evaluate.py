"""Who is judged by what."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from pipelines.config import Recommend
from pipelines.evaluate import Judgement, evaluate, evaluate_model, judge, lists_of
from pipelines.lake.storage import Lake
from pipelines.learning.metrics import PER_USER
from pipelines.night.events import COLUMNS, Feedback
from tests.lakes import DAY, at, config_of, event, rows_of, tiny_lake


def test_slices_of_the_evaluation() -> None:
    judgement = Judgement(
        users=pa.array(["c", "w"]),
        items=pa.array(["new", "old", "x"]),
        relevant=sparse.csr_matrix(np.array([[0, 1, 0], [1, 1, 0]], np.float32)),
        warm=np.array([False, True]),
        met=np.array([0, 3, 0]),
        users_before=1,
        segment=np.array([None, None]),
    )
    lists = pa.table({"user_id": ["w", "w", "*"], "rank": [1, 2, 1], "item_id": ["new", "x", "old"]})
    rows = evaluate_model("m", lists, judgement, 20)
    value = {(r["metric"], r["slice"]): r["value"] for r in rows if r["k"] == 10}
    assert value["recall", "all"] == pytest.approx((0.5 + 1) / 2)
    assert value["recall", "user_warm"] == 0.5
    assert value["recall", "user_cold"] == 1.0, "an unknown user is judged by the list for everyone"
    assert value["recall", "item_cold"] == 1.0
    assert value["recall", "item_warm"] == 0.5
    assert value["coverage", "all"] == 1.0


def judged_by(before: list[dict[str, Any]], later: list[dict[str, Any]], filter_seen: bool = True) -> Judgement:
    events = rows_of("std_interactions", before), rows_of("std_interactions", later)
    catalogue = pa.chunked_array([["a", "b", "c"]])
    return judge(
        catalogue,
        events[0].select(COLUMNS),
        events[1].select(COLUMNS),
        Feedback({"view": 1.0, "skip": -1.0}, 5.0, 30.0),
        filter_seen,
    )


BEFORE = [event("u", "a", at(9)), event("u", "a", at(9, 13)), event("v", "gone", at(9)), event("w", "a", at(9), "skip")]
LATER = [
    event("u", "a", at(10)),  # seen before
    event("u", "b", at(10)),
    event("u", "b", at(10, 13)),  # twice
    event("u", "zz", at(10)),  # in no catalogue of the night
    event("v", "c", at(10), "skip"),  # no positive feedback
    event("x", "a", at(10)),
]


def test_who_is_judged_by_what() -> None:
    found = judged_by(BEFORE, LATER)
    assert found.users.to_pylist() == ["u", "x"]
    assert found.relevant.toarray().tolist() == [[0, 1, 0], [1, 0, 0]]
    assert found.warm.tolist() == [True, False]
    assert found.met.tolist() == [2, 0, 0], "users, not events; what was skipped was met"
    assert found.users_before == 3


def test_where_seen_items_are_listed_they_are_relevant_too() -> None:
    assert judged_by(BEFORE, LATER, filter_seen=False).relevant.toarray().tolist() == [[1, 1, 0], [1, 0, 0]]


def test_a_night_on_which_nobody_did_anything_has_no_rows() -> None:
    found = judged_by(BEFORE, [])
    lists = pa.table({"user_id": ["*"], "rank": [1], "item_id": ["a"]})
    assert evaluate_model("m", lists, found, 10) == []


def value_of(lists: list[tuple[str, int, str]], k: int, cutoff: int) -> dict[tuple[str, str], tuple[float, int]]:
    columns = zip(*lists, strict=True)
    table = pa.table(dict(zip(("user_id", "rank", "item_id"), map(list, columns), strict=True)))
    rows = evaluate_model("m", table, judged_by(BEFORE, LATER), k)
    assert all(r["model"] == "m" for r in rows)
    return {(r["metric"], r["slice"]): (r["value"], r["n_users"]) for r in rows if r["k"] == cutoff}


def test_metrics_and_slices_by_hand() -> None:
    """User u likes b and gets c, b; user x is unknown, likes a and gets the list for everyone: a, c."""
    found = value_of([("u", 2, "b"), ("u", 1, "c"), ("*", 1, "a"), ("*", 2, "c")], 20, 10)
    rank_two = 1 / np.log2(3)
    assert found["ndcg", "all"] == (pytest.approx((rank_two + 1) / 2), 2)
    assert found["ndcg", "user_warm"] == (pytest.approx(rank_two), 1)
    assert found["ndcg", "user_cold"] == (1.0, 1)
    assert found["mrr", "all"] == (0.75, 2)
    assert found["map", "user_warm"] == (0.5, 1)
    assert found["recall", "item_cold"] == (1.0, 1), "b: nobody had met it"
    assert found["recall", "item_warm"] == (1.0, 1), "a"
    assert found["coverage", "all"] == (1.0, 2)
    assert found["novelty", "all"][0] == pytest.approx(np.mean(-np.log2([1 / 5, 1 / 5, 3 / 5, 1 / 5])))


def test_cutoffs_beyond_the_lists_are_left_out() -> None:
    lists = [("u", 1, "b"), ("*", 1, "c")]
    assert value_of(lists, 5, 10)["recall", "all"] == (0.5, 2), "the shortest is always there"
    assert value_of(lists, 5, 20) == {}
    assert value_of(lists, 20, 20)["recall", "all"] == (0.5, 2)


def test_a_user_without_any_list_hits_nothing() -> None:
    assert value_of([("u", 1, "b")], 10, 10)["recall", "all"] == (0.5, 2)


EVENTS = [
    event("u", "a", at(8)),  # before the lists
    event("u", "b", at(10)), event("u", "a", at(10, 13)), event("u", "gone", at(10)), event("v", "c", at(10), "skip"),
    event("z", "b", at(11)),  # after the night
]  # fmt: skip


def lists_of_yesterday(lake: Lake) -> None:
    lake.publish("std_items", DAY - timedelta(days=1), rows_of("std_items", [{"item_id": i} for i in "abc"]))
    rows = [("ease", "*", 1, "a"), ("ease", "u", 1, "c"), ("ease", "u", 2, "b"), ("popularity", "*", 1, "b")]
    names = ("model", "user_id", "rank", "item_id")
    table = rows_of("reco_candidates", [dict(zip(names, r, strict=True)) | {"score": 1.0} for r in rows])
    lake.publish("reco_candidates", DAY - timedelta(days=1), table)


def test_the_lists_of_the_night_before_are_judged_by_the_events_of_the_day(tmp_path: Path) -> None:
    """User u likes b, which is new to u; a was met before, gone is in no catalogue, v likes nothing, z comes later."""
    lake = tiny_lake(tmp_path, EVENTS, [{"item_id": i} for i in "abcd"])
    lists_of_yesterday(lake)
    (manifest,) = evaluate(config_of(tmp_path), lake, DAY)
    rows = {(r["model"], r["metric"], r["k"], r["slice"]): r for r in lake.read("eval_offline", DAY).to_pylist()}
    assert manifest.rows == len(rows)
    assert manifest.inputs.keys() == {"reco_candidates"}
    values = {model: rows[model, "mrr", 10, "all"] for model in ("ease", "popularity")}
    assert {m: (r["value"], r["n_users"]) for m, r in values.items()} == {"ease": (0.5, 1), "popularity": (1.0, 1)}
    assert rows["ease", "mrr", 20, "user_warm"]["value"] == 0.5
    assert ("ease", "mrr", 20, "user_cold") not in rows, "nobody is cold"
    assert rows["ease", "coverage", 10, "all"]["value"] == pytest.approx(1.0)
    assert rows["popularity", "coverage", 10, "all"]["value"] == pytest.approx(1 / 3)


def test_seen_items_count_where_lists_may_hold_them(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, EVENTS, [{"item_id": i} for i in "abcd"])
    lists_of_yesterday(lake)
    list(evaluate(config_of(tmp_path, recommend=Recommend(filter_seen=False)), lake, DAY))
    table = lake.read("eval_offline", DAY).to_pylist()
    (recall,) = (r for r in table if (r["model"], r["metric"], r["k"], r["slice"]) == ("ease", "recall", 10, "all"))
    assert (recall["value"], recall["n_users"]) == (0.5, 1), "of a and b, b is listed"


def test_a_first_night_has_nothing_to_judge(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, EVENTS, [{"item_id": "a"}])
    (manifest,) = evaluate(config_of(tmp_path), lake, DAY)
    assert (manifest.rows, manifest.inputs) == (0, {})
    assert lake.read("eval_offline", DAY).num_rows == 0


def test_an_item_that_nobody_met_is_cold_and_users_who_like_none_are_left_out() -> None:
    """User u comes to like b (met) and c (not), x likes b alone; each slice divides by the users that it has."""
    found = judged_by(
        [event("v", "b", at(9))], [event("u", "b", at(10)), event("u", "c", at(10)), event("x", "b", at(10))]
    )
    lists = pa.table({"user_id": ["u", "u", "x"], "rank": [1, 2, 1], "item_id": ["b", "a", "c"]})
    rows = evaluate_model("m", lists, found, 10)
    value = {(r["metric"], r["slice"]): (r["value"], r["n_users"]) for r in rows if r["k"] == 10}
    assert value["recall", "all"] == (0.25, 2)
    assert value["recall", "item_warm"] == (0.5, 2)
    assert value["recall", "item_cold"] == (0.0, 1)
    assert value["recall", "user_cold"] == (0.25, 2)
    assert ("recall", "user_warm") not in value


def test_an_item_that_has_left_the_catalogue_takes_a_place_and_hits_nothing() -> None:
    """The lists hold b and z, the catalogue, made again since, neither; u likes c and gets it third."""
    judgement = Judgement(
        users=pa.array(["u"]),
        items=pa.array(["a", "c"]),
        relevant=sparse.csr_matrix(np.array([[0, 1]], np.float32)),
        warm=np.array([True]),
        met=np.array([1, 1]),
        users_before=1,
        segment=np.array([None]),
    )
    lists = pa.table({"user_id": ["u"] * 3, "rank": [1, 2, 3], "item_id": ["b", "z", "c"]})
    value = {(r["metric"], r["slice"]): r["value"] for r in evaluate_model("m", lists, judgement, 10) if r["k"] == 10}
    assert (value["mrr", "all"], value["coverage", "all"]) == (pytest.approx(1 / 3), 0.5)
    gone = {(r["metric"], r["slice"]): r["value"] for r in evaluate_model("m", lists.slice(0, 2), judgement, 10)}
    assert gone["recall", "all"] == 0.0


def test_lists_that_nobody_gets_say_nothing_of_coverage() -> None:
    found = judged_by(BEFORE, LATER)
    rows = evaluate_model("m", pa.table({"user_id": ["other"], "rank": [1], "item_id": ["a"]}), found, 10)
    assert {r["metric"] for r in rows} == set(PER_USER), "there is no list for u, for x or for everyone"
    assert {r["value"] for r in rows} == {0.0}


def test_who_has_no_list_is_judged_by_that_of_the_segment_then_of_all() -> None:
    """c of gold, d of silver, which has no list, w with one of its own; each likes x alone."""
    judgement = Judgement(
        users=pa.array(["c", "d", "w"]),
        items=pa.array(["a", "x"]),
        relevant=sparse.csr_matrix(np.array([[0, 1]] * 3, np.float32)),
        warm=np.array([False, False, True]),
        met=np.array([1, 1]),
        users_before=1,
        segment=np.array(["gold", "silver", "gold"], object),
    )
    lists = pa.table({"user_id": ["*", "*gold", "w"], "rank": [1, 1, 1], "item_id": ["a", "x", "a"]})
    every, own = lists_of(lists, judgement)
    assert own[:, 0].tolist() == [1, 0, 0]
    assert len(every) == 3
    found = {r["slice"]: r["value"] for r in evaluate_model("m", lists, judgement, 10) if r["metric"] == "recall"}
    assert (found["segment=gold"], found["segment=silver"], found["user_cold"]) == (0.5, 0.0, 0.5)
