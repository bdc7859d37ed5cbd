"""Who is judged by what."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from pipelines.evaluate import Judgement, evaluate_model, judge
from pipelines.night.events import COLUMNS, Feedback
from tests.lakes import at, event, rows_of


def test_slices_of_the_evaluation() -> None:
    judgement = Judgement(
        users=np.array(["c", "w"]),
        items=np.array(["new", "old", "x"]),
        relevant=sparse.csr_matrix(np.array([[0, 1, 0], [1, 1, 0]], np.float32)),
        warm=np.array([False, True]),
        met=np.array([0, 3, 0]),
        users_before=1,
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
        Feedback({"view": 1.0, "skip": -1.0}),
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
    assert found.users.tolist() == ["u", "x"]
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
