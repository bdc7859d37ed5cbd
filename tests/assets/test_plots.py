"""Curves over nights: drawn from two nights on, and nothing where there is nothing."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from assets import plots
from assets.summary import _decisions
from pipelines.lake.storage import Lake
from tests.lakes import DAY, rows_of


def judged(lake: Lake, day: date, value: float, **more: Any) -> None:
    row = {
        "metric": "ndcg",
        "k": 10,
        "slice": "all",
        "value": value,
        "n_users": 9,
        "low": value - 0.1,
        "high": value + 0.1,
    }
    rows = [row | {"model": m} | more for m in ("hybrid", "popularity")]
    lake.publish("eval_offline", day, rows_of("eval_offline", rows))


def test_accuracy_over_nights(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    judged(lake, DAY, 0.2)
    assert plots.accuracy_by_night(lake, DAY) is None, "one night is no curve"
    judged(lake, DAY + timedelta(days=1), 0.3)
    assert plots.accuracy_by_night(lake, DAY) is None, "a night does not see the next one"
    drawn = plots.accuracy_by_night(lake, DAY + timedelta(days=1))
    assert (drawn or b"")[1:4] == b"PNG"
    judged(lake, DAY + timedelta(days=1), 0.6)
    assert plots.accuracy_by_night(lake, DAY + timedelta(days=1)) != drawn
    judged(lake, DAY + timedelta(days=2), 0.3, low=None, high=None)
    assert plots.accuracy_by_night(lake, DAY + timedelta(days=2)) is not None, (
        "of an earlier version, without intervals"
    )


@pytest.mark.parametrize(("low", "drawn"), [(0.1, True), (None, False)])
def test_effects_of_arms_over_nights(tmp_path: Path, low: float | None, drawn: bool) -> None:
    lake = Lake(tmp_path)
    assert _decisions(lake, DAY) == []
    row = {"experiment": "x", "arm": "new", "metric": "clicked", "users": 50, "days": 3, "mean": 1.2, "decided_on": DAY}
    row |= {"effect": 0.2, "relative": 0.2, "low": low, "high": None if low is None else 0.3, "sample_ratio_p": 1.0}
    row |= {"variance_removed": 0.0, "decision": "promote", "served_arm": "new", "reason": "new is surely better"}
    lake.publish("eval_experiments", DAY, rows_of("eval_experiments", [row]))
    assert ((plots.effects(lake, DAY) or b"")[1:4] == b"PNG") is drawn
    assert _decisions(lake, DAY) == ["  experiment x               promote: new is surely better"]
