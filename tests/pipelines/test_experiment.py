"""Experiments on made outcomes: their level, their power, what is broken, what is decided."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.config import Config
from pipelines.experiment import Outcomes, experiment, planned, read_out
from pipelines.lake.storage import Lake, StorageError
from pipelines.learning.statistics import (
    adjusted,
    days_needed,
    sample_ratio_p,
    sequential_half,
    sequential_power,
)  # fmt: skip
from pipelines.night.arms import arm_of, plans_of
from pipelines.sections import Arm, Experiment
from tests.lakes import DAY, at, config_of, event, rows_of, tiny_lake

ARMS = {"base": Arm(), "new": Arm(serve="ease")}
PLAN = Experiment(arms=ARMS, start=DAY, days=14, minimum_effect=0.2)
USERS = 400
BETWEEN, WITHIN, MEAN = 0.3, 1.0, 1.0  # variances of a user's daily mean and of its days, and the mean of all


def simulated(seed: int, lift: float, days: int = 14, users: int = USERS) -> list[str]:
    """Decisions of each day of an experiment whose new arm has a mean higher by a share."""
    rng = np.random.default_rng(seed)
    arm = np.array(["base", "new"], object)[rng.integers(2, size=users)]
    own = rng.normal(MEAN, BETWEEN**0.5, users)
    before = 28 * own + rng.normal(0, (28 * WITHIN) ** 0.5, users)
    daily = rng.normal(own + np.where(arm == "new", lift * MEAN, 0.0), WITHIN**0.5, (days, users))
    ids, found = pa.array([f"u{n:03d}" for n in range(users)]), []
    for n in range(1, days + 1):
        outcomes = Outcomes(ids, arm, n, {"clicked": daily[:n].mean(0)}, before, None)
        found.append(read_out("x", PLAN, outcomes, DAY)[0]["decision"])
        if found[-1] != "continue":
            break
    return found


def test_without_an_effect_hardly_anything_is_decided_on_a_thousand_experiments() -> None:
    """Looked at on each of 14 days, at most level 5% decide otherwise than to keep; three standard errors are .021."""
    last = [simulated(seed, 0.0)[-1] for seed in range(1_000)]
    assert {"keep"} <= set(last) <= {"keep", "promote", "roll_back"}
    assert np.mean([d != "keep" for d in last]) <= 0.05 + 0.021


def test_the_planned_effect_is_found_as_often_as_planned() -> None:
    """The past explains a part of the spread between users, so that the plan without it is on the safe side."""
    days = days_needed(BETWEEN, WITHIN, [400, 400], 0.2 * MEAN, 0.05, 0.8, 100)
    assert days == 5
    last = [simulated(seed, 0.2, days, 800)[-1] for seed in range(400)]
    assert np.mean([d == "promote" for d in last]) >= 0.8 - 0.06
    assert [simulated(seed, -0.3)[-1] for seed in range(20)] == ["roll_back"] * 20


def test_intervals_are_wider_than_those_of_one_look_and_widest_for_tiny_plans() -> None:
    half = sequential_half(0.01, 0.2, 0.05)
    ratio = (0.01 + 0.04) / 0.01
    assert half == pytest.approx((0.01 * (0.05 / 0.04) * np.log(ratio / 0.0025)) ** 0.5)
    assert half > 1.96 * 0.1
    assert sequential_half(0.01, 0.01, 0.05) > half
    assert sequential_half(0.0, 0.2, 0.05) == np.inf
    assert sequential_power(0.0001, 0.2, 0.05) > 0.999 > sequential_power(0.01, 0.2, 0.05)
    assert days_needed(1.0, 1.0, [10, 10], 0.01, 0.05, 0.8, 30) is None


def test_what_users_did_before_is_taken_off() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(5, 2, 500)
    outcome = 3 * before + rng.normal(0, 1, 500)
    cleaned = adjusted(outcome, before)
    assert cleaned.mean() == pytest.approx(outcome.mean())
    assert cleaned.var() == pytest.approx(1.0, abs=0.15)
    assert adjusted(outcome, np.ones(500)) is outcome


def test_users_that_are_missing_from_an_arm_make_it_invalid() -> None:
    """By shares of .5 and .5 (chi-square with one degree of freedom): 5,000 and 4,800 may be, 5,000 and 4,600 not."""
    assert sample_ratio_p([5000, 4800], [0.5, 0.5]) == pytest.approx(0.0433, abs=1e-4)
    assert sample_ratio_p([5000, 4600], [0.5, 0.5]) < 0.001
    assert sample_ratio_p([0, 0], [0.5, 0.5]) == 1.0
    n = 9_600
    arm = np.array(["base"] * 5000 + ["new"] * 4600, object)
    users = pa.array([f"u{i:05d}" for i in range(n)])
    found = Outcomes(users, arm, 3, {"clicked": np.where(arm == "new", 9.0, 1.0)}, np.zeros(n), None)
    row = read_out("x", PLAN, found, DAY)[0]
    assert (row["decision"], row["served_arm"]) == ("invalid", "base")
    assert "base 5000, new 4600" in row["reason"]
    shown = np.arange(n) % 2 == 0
    shown[-1500:] = False
    assert (
        read_out("x", PLAN, Outcomes(users, arm, 3, found.means, np.zeros(n), shown), DAY)[0]["sample_ratio_p"] < 1e-9
    )


def test_an_arm_that_is_new_or_renamed_waits_for_its_lists() -> None:
    """The last lists still name the arm that was: nobody is in the new one, which is no mismatch."""
    users = pa.array([f"u{i}" for i in range(100)])
    found = Outcomes(users, np.array(["base"] * 100, object), 4, {"clicked": np.ones(100)}, np.zeros(100), None)
    rows = read_out("x", PLAN, found, DAY)
    assert {(r["decision"], r["sample_ratio_p"]) for r in rows} == {("continue", 1.0)}


def outcomes_of(clicked: tuple[float, float], bought: tuple[float, float], days: int = 7) -> Outcomes:
    """Two arms of 200 users with means of two metrics, and a spread of .1."""
    rng, arm = np.random.default_rng(1), np.array(["base", "new"] * 200, object)
    means = {
        name: np.where(arm == "new", mean[1], mean[0]) + rng.normal(0, 0.1, 400)
        for name, mean in (("clicked", clicked), ("purchased", bought))
    }
    return Outcomes(pa.array([f"u{n:03d}" for n in range(400)]), arm, days, means, np.zeros(400), None)


@pytest.mark.parametrize(
    ("clicked", "bought", "days", "decision", "served", "why"),
    [
        ((1.0, 1.2), (1.0, 1.0), 7, "promote", "new", "new is surely better: clicked +"),
        ((1.0, 1.2), (1.0, 0.8), 7, "roll_back", "base", "new surely lowers purchased"),
        ((1.0, 0.8), (1.0, 1.0), 7, "roll_back", "base", "new: clicked -"),
        ((1.0, 1.0), (1.0, 1.0), 7, "continue", "base", "day 7 of 14"),
        ((1.0, 1.0), (1.0, 1.0), 14, "keep", "base", "nothing is sure after 14 days"),
    ],
)
def test_decisions(
    clicked: tuple[float, float], bought: tuple[float, float], days: int, decision: str, served: str, why: str
) -> None:
    plan = PLAN.model_copy(update={"guardrails": ("purchased",)})
    rows = read_out("x", plan, outcomes_of(clicked, bought, days), DAY)
    assert {(r["decision"], r["served_arm"], r["decided_on"]) for r in rows} == {(decision, served, DAY)}
    assert why in rows[0]["reason"]
    row = next(r for r in rows if (r["arm"], r["metric"]) == ("new", "clicked"))
    assert row["effect"] == pytest.approx(clicked[1] - clicked[0], abs=0.03)
    assert row["low"] < row["effect"] < row["high"]
    assert row["relative"] == pytest.approx(row["effect"] / (row["mean"] - row["effect"]))
    control = next(r for r in rows if r["arm"] == "base")
    assert control["effect"] is None


def test_of_several_arms_the_best_that_is_surely_better_is_promoted() -> None:
    plan = Experiment(arms={"base": Arm(), "b": Arm(), "c": Arm()}, start=DAY)
    arm = np.array(["base", "b", "c"] * 200, object)
    means = np.select([arm == "b", arm == "c"], [1.2, 1.4], 1.0) + np.random.default_rng(0).normal(0, 0.1, 600)
    found = Outcomes(pa.array([f"u{n:03d}" for n in range(600)]), arm, 5, {"clicked": means}, np.zeros(600), None)
    assert read_out("x", plan, found, DAY)[0]["served_arm"] == "c"


def test_a_handful_of_users_decide_nothing() -> None:
    arm = np.array(["base"] * 29 + ["new"] * 29, object)
    found = Outcomes(
        pa.array([f"u{n}" for n in range(58)]),
        arm,
        5,
        {"clicked": np.where(arm == "new", 9.0, 1.0)},
        np.zeros(58),
        None,
    )
    assert read_out("x", PLAN, found, DAY)[0]["decision"] == "continue"


def test_segments_are_compared_by_the_means_of_their_users() -> None:
    """Segments of two and of one user: means of 1 and 3, and of 5; whoever was shown anything shows its segment."""
    found = Outcomes(
        pa.array(["a", "b", "c"]),
        np.array(["base", "base", "new"], object),
        2,
        {"clicked": np.array([1.0, 3.0, 5.0])},
        np.array([4.0, 0.0, 7.0]),
        np.array([False, True, False]),
    ).by(np.array(["segment x", "segment x", "c"], object))
    assert found.users.to_pylist() == ["c", "segment x"]
    assert found.arm.tolist() == ["new", "base"]
    assert found.means["clicked"].tolist() == [5.0, 2.0]
    assert found.before.tolist() == [7.0, 2.0]
    assert found.shown is not None
    assert found.shown.tolist() == [False, True]


def test_the_level_holds_where_users_of_a_segment_are_alike() -> None:
    """80 segments of 25 users who share most of what they do: by user almost half of all would be decided wrongly."""
    wrong = {"user": 0, "segment": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        segment = np.repeat(np.arange(80), 25)
        arm = np.array(["base", "new"], object)[rng.permutation(np.arange(80) % 2)[segment]]
        clicked = 1 + rng.normal(0, 0.3, 80)[segment] + rng.normal(0, 0.3, len(segment))
        ids = pa.array([f"u{n:04d}" for n in range(len(segment))])
        by_user = Outcomes(ids, arm, 14, {"clicked": clicked}, np.zeros(len(segment)), None)
        by_segment = by_user.by(np.array([f"segment {s}" for s in segment], object))
        for unit, found in (("user", by_user), ("segment", by_segment)):
            wrong[unit] += read_out("x", PLAN, found, DAY)[0]["decision"] in ("promote", "roll_back")
    assert wrong["segment"] <= 200 * 0.05 + 3 * (200 * 0.05 * 0.95) ** 0.5
    assert wrong["user"] > 50


# --- through the lake -------------------------------------------------------------------------------------------------


def shop_of(root: Path, better: bool, days: int) -> tuple[Config, Lake]:
    """Users of the new arm click twice as many of their lists; the lists of nights 1 to ``days`` are judged."""
    config = config_of(
        root, experiments={"x": Experiment(arms=ARMS, start=date(2026, 3, 2), days=10, minimum_effect=0.5)}
    )
    users = [f"u{n:03d}" for n in range(300)]
    lake = tiny_lake(root, [event(u, "i", at(1)) for u in users], [{"item_id": "i"}], day=date(2026, 3, 1))
    for n in range(1, days + 1):
        night = date(2026, 3, 1) + timedelta(days=n - 1)
        arms = [f"x={arm_of(u, 'x', {'base': 0.5, 'new': 0.5})}" if n > 1 else "default" for u in users]
        rng = np.random.default_rng(n)
        lists, came = [], []
        for user, arm in zip(users, arms, strict=True):
            for rank in range(1, 6):
                place: dict[str, Any] = {"user_id": user, "item_id": f"i{rank}", "model": "m", "arm": arm, "rank": rank}
                place |= {"recommendation_id": f"{night:%Y%m%d}-{user}-{rank}"}
                lists.append(place | {"score": -float(rank), "reason_code": "new"})
                if rng.random() < (0.4 if better and arm == "x=new" else 0.2):
                    did = {"night": night, "shown": "reaction", "clicked": True, "reactions": 1}
                    came.append(place | did | {"favourite": False, "purchased": False, "disliked": False})
        lake.publish("recommendations", night, rows_of("recommendations", lists))
        columns = {c.name for c in rows_of_columns("feedback")}
        lake.publish(
            "feedback",
            night + timedelta(days=1),
            rows_of("feedback", [{k: v for k, v in r.items() if k in columns} for r in came]),
        )
    return config, lake


def rows_of_columns(table: str) -> Any:
    from pipelines.lake.tables import TABLES

    return TABLES[table].columns


@pytest.mark.parametrize("better", [True, False])
def test_the_better_arm_is_promoted_and_stays_so(tmp_path: Path, better: bool) -> None:
    config, lake = shop_of(tmp_path, better, 6)
    first, last = date(2026, 3, 3), date(2026, 3, 7)
    for n in range((last - first).days + 1):
        day = first + timedelta(days=n)
        if day > DAY:
            break
        lake.publish("std_interactions", day, rows_of("std_interactions", []))
        list(experiment(config, lake, day))
    found = [lake.read("eval_experiments", first + timedelta(days=n)).to_pylist() for n in range(5)]
    decisions = [rows[0]["decision"] for rows in found]
    new = next(r for r in found[-1] if r["arm"] == "new")
    if better:
        at_night = decisions.index("promote")
        assert decisions == ["continue"] * at_night + ["promote"] * (5 - at_night)
        assert all(rows == found[at_night] for rows in found[at_night:]), "what is over stays as it ended"
        assert {p.serve for p in plans_of(config, lake, last, ["u001", "u002", "u003"])} == {"ease"}
        assert new["users"] + next(r for r in found[-1] if r["arm"] == "base")["users"] == 300
        assert new["mean"] == pytest.approx(5 * 0.4, rel=0.15), "clicks a user and day"
    else:
        assert decisions == ["continue"] * 5
        assert {p.serve for p in plans_of(config, lake, last, [f"u{n:03d}" for n in range(9)])} == {"ease", "hybrid"}
    again = [m.content_digest for m in experiment(config, lake, first + timedelta(days=4))]
    assert again == [lake.require("eval_experiments", first + timedelta(days=4)).content_digest]


def test_what_was_decided_of_an_earlier_one_of_the_same_name_does_not_count(tmp_path: Path) -> None:
    config, lake = shop_of(tmp_path, True, 6)
    for n in (3, 4, 5):
        day = date(2026, 3, n)
        lake.publish("std_interactions", day, rows_of("std_interactions", []))
        list(experiment(config, lake, day))
    again = config.experiments["x"].model_copy(update={"start": date(2026, 3, 6)})
    config = config.model_copy(update={"experiments": {"x": again}})
    list(experiment(config, lake, date(2026, 3, 6)))
    rows = lake.read("eval_experiments", date(2026, 3, 6)).to_pylist()
    assert {(r["decision"], r["days"]) for r in rows} == {("continue", 0)}
    assert {p.serve for p in plans_of(config, lake, date(2026, 3, 6), [f"u{n:03d}" for n in range(9)])} == {
        "ease",
        "hybrid",
    }


def test_before_its_start_an_experiment_has_no_rows(tmp_path: Path) -> None:
    config, lake = shop_of(tmp_path, True, 1)
    lake.publish("feedback", date(2026, 3, 1), rows_of("feedback", []))
    (manifest,) = experiment(config, lake, date(2026, 3, 1))
    assert manifest.rows == 0


def test_the_plan_is_taken_from_what_came_back_so_far(tmp_path: Path) -> None:
    config, lake = shop_of(tmp_path, False, 6)
    found = planned(config, lake, date(2026, 3, 7), "x")
    assert found.nights == 6
    assert found.mean == pytest.approx(1.0, abs=0.05), "five places at .2"
    assert found.users["base"] + found.users["new"] == 300
    within = 5 * 0.2 * 0.8
    assert found.days == days_needed(0.0, within, [150, 150], 0.5, 0.05, 0.8, 365)
    with pytest.raises(StorageError, match="run some nights first"):
        planned(config, lake, date(2026, 3, 2), "x")


def test_a_segment_is_in_one_arm_and_is_what_is_compared(tmp_path: Path) -> None:
    """Ten users in five segments and one in none: six units, whose lists name the arm of the unit."""
    halves = {"base": 0.5, "new": 0.5}
    plan = Experiment(arms=ARMS, start=date(2026, 3, 1), unit="segment")
    config = config_of(tmp_path, experiments={"x": plan})
    users = [f"u{n}" for n in range(10)] + ["alone"]
    lake = tiny_lake(tmp_path, [event(u, "i", at(1)) for u in users], [{"item_id": "i"}], day=date(2026, 3, 1))
    about = [{"user_id": u, "segment": f"s{n % 5}" if u != "alone" else None} for n, u in enumerate(users)]
    for day in (date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)):
        lake.publish("std_users", day, rows_of("std_users", about))
    plans = dict(zip(users, plans_of(config, lake, date(2026, 3, 1), users), strict=True))
    for n, user in enumerate(users):
        unit = f"segment s{n % 5}" if user != "alone" else "alone"
        assert plans[user].arm == f"x={arm_of(unit, 'x', halves)}"
    assert {p.serve for p in plans.values()} == {"hybrid", "ease"}, "so that the arms differ"
    place: dict[str, Any] = {"item_id": "i", "model": "m", "rank": 1, "score": 1.0, "reason_code": "new"}
    lists = [place | {"recommendation_id": u, "user_id": u, "arm": plans[u].arm} for u in users]
    did: dict[str, Any] = {"night": date(2026, 3, 1), "shown": "reaction", "clicked": True, "reactions": 1}
    did |= {"favourite": False, "purchased": False, "disliked": False}
    columns = {c.name for c in rows_of_columns("feedback")}
    came = [{k: v for k, v in (r | did).items() if k in columns} for r in lists]
    for n in (1, 2):
        lake.publish("recommendations", date(2026, 3, n), rows_of("recommendations", lists))
        lake.publish("feedback", date(2026, 3, n + 1), rows_of("feedback", came))
    lake.publish("std_interactions", date(2026, 3, 2), rows_of("std_interactions", []))
    list(experiment(config, lake, date(2026, 3, 2)))
    rows = lake.read("eval_experiments", date(2026, 3, 2)).to_pylist()
    assert sum(r["users"] for r in rows) == 6
    assert {r["mean"] for r in rows if r["users"]} == {1.0}
    assert sum(planned(config, lake, date(2026, 3, 3), "x").users.values()) == 6
