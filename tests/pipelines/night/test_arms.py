"""Who is in which arm, and what is served: by hand."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import Config
from pipelines.lake.storage import Lake
from pipelines.night.arms import Plan, arm_of, groups_of, plans_of
from pipelines.sections import Arm, Experiment
from tests.lakes import DAY, config_of, rows_of

HALVES = {"a": 0.5, "b": 0.5}


def with_experiments(root: Path, **experiments: Any) -> Config:
    return config_of(root, experiments=experiments)


def test_users_fall_into_arms_by_their_shares_whatever_else_runs() -> None:
    users = [f"user{n}" for n in range(20_000)]
    shares = {"a": 0.5, "b": 0.2}
    one = [arm_of(u, "one", shares) for u in users]
    assert one == [arm_of(u, "one", shares) for u in users]
    counts = [one.count("a"), one.count("b"), one.count(None)]
    assert counts == pytest.approx([10_000, 4_000, 6_000], abs=4 * 71), "four standard deviations"
    other = [arm_of(u, "two", shares) for u in users]
    both = sum(x == "a" and y == "a" for x, y in zip(one, other, strict=True))
    assert both == pytest.approx(5_000, abs=4 * 62), "experiments are independent of each other"


def test_an_arm_that_grows_keeps_its_users() -> None:
    users = [f"u{n}" for n in range(1_000)]
    small, large = ({u for u in users if arm_of(u, "s", {"a": share}) == "a"} for share in (0.1, 0.3))
    assert small < large


def test_what_each_user_is_served(tmp_path: Path) -> None:
    config = with_experiments(
        tmp_path,
        model=Experiment(arms={"base": Arm(), "ease": Arm(serve="ease")}, start=DAY),
        places=Experiment(arms={"none": Arm(new_items=0), "five": Arm(new_items=5)}, start=DAY, salt="other"),
    )
    users = ["*", "*gold", *(f"u{n}" for n in range(200))]
    plans = plans_of(config, Lake(tmp_path), DAY, users)
    assert plans[:2] == [Plan("default", "hybrid", 1)] * 2, "who stands for others is in no experiment"
    for user, plan in zip(users[2:], plans[2:], strict=True):
        model, places = (
            arm_of(user, "model", {"base": 0.5, "ease": 0.5}),
            arm_of(user, "other", {"none": 0.5, "five": 0.5}),
        )
        served = "ease" if model == "ease" else "hybrid"
        assert plan == Plan(f"model={model};places={places}", served, 5 if places == "five" else 0)
    assert len(set(plans)) == 5
    before = plans_of(config, Lake(tmp_path), DAY - timedelta(days=1), users)
    assert set(before) == {Plan("default", "hybrid", 1)}
    groups = groups_of(plans[1:4])
    assert sorted(np.concatenate([at for _, at in groups]).tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("decision", "arm", "plans"),
    [
        ("promote", "ease", {Plan("default", "ease", 1)}),
        ("roll_back", "base", {Plan("default", "hybrid", 1)}),
        ("invalid", "base", {Plan("default", "hybrid", 1)}),
        ("continue", "base", {Plan("model=base", "hybrid", 1), Plan("model=ease", "ease", 1)}),
    ],
)
def test_what_is_decided_is_served_to_all(tmp_path: Path, decision: str, arm: str, plans: set[Plan]) -> None:
    config, lake = (
        with_experiments(tmp_path, model=Experiment(arms={"base": Arm(), "ease": Arm(serve="ease")}, start=DAY)),
        Lake(tmp_path),
    )
    row = {
        "experiment": "model",
        "arm": "base",
        "metric": "clicked",
        "users": 1,
        "days": 1,
        "mean": 0.0,
        "variance_removed": 0.0,
    }
    row |= {
        "sample_ratio_p": 1.0,
        "decision": decision,
        "served_arm": arm,
        "reason": "r",
        "decided_on": DAY,
    }
    lake.publish("eval_experiments", DAY, rows_of("eval_experiments", [row]))
    assert set(plans_of(config, lake, DAY, ["u1", "u2", "u3", "u4"])) == plans


@pytest.mark.parametrize(
    ("experiments", "text"),
    [
        ({"x": {"arms": {"a": {}}, "start": DAY}}, "two names at least"),
        ({"x": {"arms": {"a": {}, "b": {}}, "shares": {"a": 0.5}, "start": DAY}}, "arms without a share: ['b']"),
        ({"x": {"arms": {"a": {}, "b": {}}, "shares": {"a": 0.7, "b": 0.7}, "start": DAY}}, "add up to at most 1"),
        ({"x": {"arms": {"a": {}, "b=c": {}}, "start": DAY}}, "letters, digits"),
        ({"x": {"arms": {"a": {}, "b": {"serve": "nobody"}}, "start": DAY}}, "nobody"),
        (
            {n: {"arms": {"a": {"new_items": 1}, "b": {"new_items": 2}}, "start": DAY} for n in ("x", "y")},
            "experiments x and y both set new_items",
        ),
        ({"x": {"arms": {"a": {}, "b": {"new_items": 20}}, "start": DAY}}, "must be smaller than recommend.k"),
        ({"x;y": {"arms": {"a": {}, "b": {}}, "start": DAY}}, "'x;y' is no name"),
    ],
)  # fmt: skip
def test_experiments_that_cannot_work_are_refused(tmp_path: Path, experiments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        with_experiments(tmp_path, **experiments)


def test_an_arm_serves_a_recommender_of_the_night(tmp_path: Path) -> None:
    from pipelines.sections import Recommend

    arms = {"a": Arm(), "b": Arm(serve="ease")}
    with pytest.raises(ValueError, match="not in recommend.models"):
        config_of(
            tmp_path,
            experiments={"x": Experiment(arms=arms, start=DAY)},
            recommend=Recommend(models=("popularity",), serve="popularity"),
        )
