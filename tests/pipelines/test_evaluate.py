"""Who is judged by what."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from pipelines.evaluate import evaluate, evaluate_model, gap_rows
from pipelines.lake.storage import Lake
from pipelines.learning.metrics import PER_USER
from pipelines.learning.statistics import resampled
from pipelines.night.events import COLUMNS, Feedback
from pipelines.night.judgement import Judgement, activity_of, attributes_of, item_groups_of, judge, lists_of
from pipelines.night.measures import measured, of_all
from pipelines.sections import Evaluation, Recommend
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
    manifest, *others = evaluate(config_of(tmp_path), lake, DAY)
    assert [m.table for m in others] == ["eval_users", "eval_gaps"]
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
    found = list(evaluate(config_of(tmp_path), lake, DAY))
    assert [(m.rows, m.inputs) for m in found] == [(0, {})] * 3
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
    named = {r["metric"]: r["value"] for r in rows if r["slice"] == "all"}
    assert named == dict.fromkeys([*PER_USER, "serendipity"], 0.0) | {"auc": 0.5}, "no list for u, x or everyone"


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


def rich(**more: Any) -> Judgement:
    """Users a, b and c; items 0 to 3, of which 0 and 1 are popular; each user likes two of them."""
    relevant = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1]], np.float32)
    history = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    return Judgement(
        users=pa.array(["a", "b", "c"]),
        items=pa.array(["0", "1", "2", "3"]),
        relevant=sparse.csr_matrix(relevant),
        warm=np.array([True, True, False]),
        met=np.array([6, 4, 1, 0]),
        users_before=8,
        segment=np.array([None] * 3),
        candidates=np.array([3, 3, 4]),
        history=sparse.csr_matrix(history),
        vectors=np.array([[1, 0], [0, 1], [0.6, 0.8], [1, 0]], np.float32),
        categories=sparse.csr_matrix(np.array([[1, 0], [0, 1], [0.5, 0.5], [1, 0]])),
        **more,
    )


SHOWN = np.array([[0, 2], [2, 3], [0, -1]])


def test_what_is_measured_of_a_list_by_hand() -> None:
    """With lists of two, items 0 and 1 are the expected ones."""
    found = measured(SHOWN, rich())
    assert found["recall"].tolist() == [1.0, 0.5, 0.0]
    assert found["serendipity"].tolist() == [0.5, 0.5, 0.0]
    assert found["diversity"][:2] == pytest.approx([1 - 0.6, 1 - 0.6])
    assert np.isnan(found["diversity"][2])
    list_a, history_a = np.array([0.75, 0.25]), np.array([0.0, 1.0])
    assert found["calibration"][0] == pytest.approx(np.log2(1 / (0.99 * list_a[1] + 0.01 * history_a[1])))
    assert np.isnan(found["calibration"][2]), "c has no history"


def test_area_under_the_curve_of_a_cut_list() -> None:
    """a: both of three candidates found above the third. b: 2 stands above 3, the other liked one is behind, alone.

    c has 0, not liked, on top; behind it stand 1, 2 and 3 in no order: 2 and 3 win against 1 by half, and lose to 0.
    """
    found = measured(SHOWN, rich())["auc"]
    assert found == pytest.approx([1.0, 0.0, 0.25])


def test_exposure_and_popularity_of_all_lists() -> None:
    """Items are listed 2, 0, 2 and 1 times. Lists of a and b have mean popularity 3.5 and .5, histories 4 and 6."""
    found = of_all(SHOWN, SHOWN, rich())
    assert found["gini"] == pytest.approx((-3 * 0 - 1 * 1 + 1 * 2 + 3 * 2) / (4 * 5))
    assert found["popularity_lift"] == pytest.approx((3.5 + 0.5) / (4 + 6) - 1)
    assert found["coverage"] == 0.75


def test_slices_by_groups_of_users_and_items() -> None:
    plan = np.array(["free", "free", "paid"], object)
    new = np.array([False, False, False, True])
    judgement = rich(groups={"plan": plan}, item_groups={"item_age<7d": new})
    lists = pa.table(
        {"user_id": ["a", "a", "b", "b", "c"], "rank": [1, 2, 1, 2, 1], "item_id": ["0", "2", "2", "3", "0"]}
    )
    rows = evaluate_model("m", lists, judgement, 10, resampled(3))
    value = {(r["metric"], r["slice"]): r for r in rows}
    assert value["recall", "plan=free"]["value"] == 0.75
    assert value["recall", "plan=paid"]["value"] == 0.0
    assert (value["recall", "item_age<7d"]["value"], value["recall", "item_age<7d"]["n_users"]) == (0.5, 2)
    assert value["auc", "plan=paid"]["n_users"] == 1
    everyone = value["recall", "all"]
    assert everyone["low"] <= everyone["value"] <= everyone["high"]
    assert (everyone["low"], everyone["high"]) == (0.0, 1.0), "of three users anything is possible"
    assert value["gini", "all"]["low"] is None


def test_groups_are_held_against_all_others() -> None:
    """Thirty users of three plans, the first of which has fewer than ten."""
    n = 30
    values = {m: np.array([1.0] * 5 + [0.0, 1.0] * 5 + [0.5, 0.9, 0.8] * 5) for m in ("ndcg", "recall")}
    plan = np.array(["tiny"] * 5 + ["free"] * 10 + ["paid"] * 15, object)
    judgement = Judgement(
        pa.array([str(i) for i in range(n)]), pa.array(["x"]), sparse.csr_matrix(np.ones((n, 1))), np.ones(n, bool),
        np.ones(1), n, np.full(n, None, object), groups={"plan": plan},
    )  # fmt: skip
    rows = {(r["metric"], r["group"]): r for r in gap_rows("m", 20, values, judgement)}
    assert rows.keys() == {(m, g) for m in ("ndcg", "recall") for g in ("free", "paid")}
    free = rows["ndcg", "free"]
    assert (free["value"], free["n_users"]) == (0.5, 10)
    assert free["difference"] == pytest.approx(0.5 - 11 / 15)
    assert free["widest"] == pytest.approx(11 / 15 - 0.5)
    assert free["low"] < free["difference"] < free["high"]
    assert free["p_holm"] == pytest.approx(min(1, 2 * free["p"])), "two groups were looked at"


def test_gaps_agree_with_fairlearn() -> None:
    """Expected are ``by_group`` and ``difference()`` of MetricFrame in fairlearn 0.15.0, which pulls in narwhals."""
    rng = np.random.default_rng(3)
    value, group = rng.random(200), rng.choice(["a", "b", "c"], 200).astype(object)
    judgement = Judgement(
        pa.array([f"{i:03d}" for i in range(200)]), pa.array(["x"]), sparse.csr_matrix(np.ones((200, 1))),
        np.ones(200, bool), np.ones(1), 200, np.full(200, None, object), groups={"kind": group},
    )  # fmt: skip
    rows = [r for r in gap_rows("m", 20, {"ndcg": value, "recall": value}, judgement) if r["metric"] == "ndcg"]
    expected = {"a": 0.5429437777008054, "b": 0.5061606563976642, "c": 0.4711816112167924}
    assert {r["group"]: r["value"] for r in rows} == pytest.approx(expected, abs=1e-12)
    assert [r["widest"] for r in rows] == pytest.approx([0.07176216648401296] * 3, abs=1e-12)


def test_attributes_and_ages_become_groups() -> None:
    users = pa.array([f"u{n:02d}" for n in range(24)])
    about = [
        {"user_id": f"u{n:02d}", "source": "s", "attributes": [f"plan={'free' if n < 12 else 'paid'}", f"name=n{n}"]}
        for n in range(24)
    ]
    groups = attributes_of(rows_of("std_users", about), users)
    assert groups.keys() == {"user.plan"}, "names are nobody's group"
    assert groups["user.plan"].tolist() == ["free"] * 12 + ["paid"] * 12
    assert attributes_of(rows_of("std_users", about[:15]), users) == {}, "three who pay are too few"
    before = rows_of("std_interactions", [event("u00", "a", at(9))] * 6 + [event("u01", "a", at(9))])
    assert activity_of(before, users)[:3].tolist() == ["6-20", "1-5", None]
    items = rows_of(
        "std_items",
        [{"item_id": "a", "categories": ["x", "y"]}, {"item_id": "b", "categories": ["y"]}, {"item_id": "c"}],
    )
    found = item_groups_of(items, None, np.array([7.0, 6.9, np.nan]))
    assert {k: v.tolist() for k, v in found.items()} == {
        "item_age<7d": [False, True, True], "item_age>=7d": [True, False, False],
        "category=x": [True, False, False], "category=y": [True, True, False],
    }  # fmt: skip
    items = rows_of(
        "std_items", [{"item_id": "a", "domain": "toys"}, {"item_id": "b", "domain": "art"}, {"item_id": "c"}]
    )
    found = item_groups_of(items, None, np.zeros(3))
    assert {k: v.tolist() for k, v in found.items() if k.startswith("domain=")} == {
        "domain=art": [False, True, False], "domain=toys": [True, False, False],
    }  # fmt: skip


def test_each_user_has_a_row_of_their_own(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, EVENTS, [{"item_id": i} for i in "abcd"])
    lists_of_yesterday(lake)
    list(evaluate(config_of(tmp_path), lake, DAY))
    rows = {r["model"]: r for r in lake.read("eval_users", DAY).to_pylist()}
    assert rows.keys() == {"ease", "popularity"}
    assert (rows["ease"]["user_id"], rows["ease"]["k"], rows["ease"]["relevant"]) == ("u", 20, 1)
    assert (rows["ease"]["mrr"], rows["ease"]["diversity"], rows["ease"]["calibration"]) == (0.5, None, None)
    overall = {
        (r["model"], r["metric"]): r["value"]
        for r in lake.read("eval_offline", DAY).to_pylist()
        if r["slice"] == "all" and r["k"] == 20
    }
    for model, row in rows.items():
        assert {m: row[m] for m in ("recall", "ndcg", "auc")} == {
            m: overall[model, m] for m in ("recall", "ndcg", "auc")
        }


def test_with_known_exposure_hits_on_what_is_rarely_shown_weigh_more(tmp_path: Path) -> None:
    """Of 60 users half like a, shown to half of them, half b, shown to a quarter; only b is listed: 4 / (2 + 4)."""
    users = [f"u{n:02d}" for n in range(60)]
    events = [event(u, "ab"[n % 2], at(10)) for n, u in enumerate(users)]
    lake, before = tiny_lake(tmp_path, events, [{"item_id": i} for i in "ab"]), DAY - timedelta(days=1)
    lake.publish("std_items", before, rows_of("std_items", [{"item_id": i} for i in "ab"]))
    lists = [{"model": "ease", "user_id": "*", "rank": 1, "item_id": "b", "score": 1.0}]
    lake.publish("reco_candidates", before, rows_of("reco_candidates", lists))
    flags = dict.fromkeys(("clicked", "favourite", "purchased", "disliked"), False)
    shown = [(f"s{n:02d}", "ab"[i]) for n in range(59) for i in (0, 1) if n < (29, 14)[i]]
    shown += [(f"s{n:02d}", "gone") for n in range(59)]
    rows = [
        {"recommendation_id": f"{u}{i}", "user_id": u, "item_id": i, "night": before, "rank": 1, "shown": "impression"}
        | flags | {"reactions": 0}
        for u, i in shown
    ]  # fmt: skip
    lake.publish("feedback", before, rows_of("feedback", rows))
    found = {}
    for estimator in ("naive", "snips"):
        list(evaluate(config_of(tmp_path, evaluate=Evaluation(estimator=estimator)), lake, DAY))
        rows = lake.read("eval_offline", DAY).to_pylist()
        found[estimator] = {r["metric"]: r["value"] for r in rows if r["k"] == 10 and r["slice"] == "all"}
    assert found["naive"]["recall"] == found["snips"]["recall"] == 0.5
    assert found["snips"]["recall_snips"] == pytest.approx(4 / 6)
    assert "recall_snips" not in found["naive"]


def test_a_day_is_judged_again_when_the_lists_that_it_judges_come_later(tmp_path: Path) -> None:
    """The night of the 10th judged nothing, as there were no lists of the 9th; these come, and the 10th is judged."""
    lake, before = tiny_lake(tmp_path, EVENTS, [{"item_id": i} for i in "abcd"]), DAY - timedelta(days=1)
    config = config_of(tmp_path)
    list(evaluate(config, lake, DAY))
    assert lake.require("eval_offline", DAY).rows == 0
    lists_of_yesterday(lake)
    made = [(m.table, m.partition) for m in evaluate(config, lake, before)]
    tables = ("eval_offline", "eval_users", "eval_gaps")
    assert made == [(t, str(d)) for d in (before, DAY) for t in tables]
    assert lake.require("eval_offline", DAY).rows > 0
    assert [m.partition for m in evaluate(config, lake, before)] == [str(before)] * 3, "once is enough"
