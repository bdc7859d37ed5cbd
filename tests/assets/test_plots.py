"""Curves over nights: drawn from two nights on, and nothing where there is nothing."""

import io
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from assets import plots
from assets.summary import _decisions
from encoders.modalities import MODALITIES
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


def test_bars_of_few_users_are_grey(tmp_path: Path) -> None:
    """The only colours of a picture whose every slice has nine users are grey, black and white."""
    lake, many = Lake(tmp_path), Lake(tmp_path / "many")
    judged(lake, DAY, 0.2)
    judged(many, DAY, 0.2, n_users=10)
    assert [_is_coloured(plots.metric_bars(one, DAY)) for one in (lake, many)] == [False, True]


def _is_coloured(drawn: bytes | None) -> bool:
    """Whether a bar has a colour; the legend below, whose patches are grey too, has none of its own."""
    pixels = np.asarray(Image.open(io.BytesIO(drawn or b"")).convert("RGB"), int)
    return bool((np.ptp(pixels, axis=-1) > 60).mean() > 0.01)


def test_attention_and_scores_are_drawn_of_what_is_there(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    nothing = {f"has_{m}": False for m in MODALITIES} | {f"attention_{m}": 0.0 for m in MODALITIES}
    items = [nothing | {"item_id": f"i{n}", "has_text": n < 3, "attention_text": 1.0 * (n < 3)} for n in range(4)]
    vectors: dict[str, Any] = {"vector": [1.0, 0.0], "frame": "f"} | {f"vector_{m}": None for m in MODALITIES}
    lake.publish("feat_items", DAY, rows_of("feat_items", [vectors | r for r in items]))
    few = plots.attention(lake, DAY)
    items[3] |= {"has_image": True, "attention_image": 0.3}
    lake.publish("feat_items", DAY, rows_of("feat_items", [vectors | r for r in items]))
    assert (few or b"")[1:4] == b"PNG"
    assert _height(plots.attention(lake, DAY)) > _height(few), "a row a modality that any item has"
    row: dict[str, Any] = {"item_id": "i", "arm": "default", "recommendation_id": "r", "reason_code": "new"}
    lake.publish("recommendations", DAY, rows_of("recommendations", []))
    assert plots.scores(lake, DAY) is None
    lists = [row | {"user_id": f"{m}{n}", "model": m, "rank": 1, "score": n / 9} for n in range(9) for m in ("a", "b")]
    lake.publish("recommendations", DAY, rows_of("recommendations", lists))
    assert (plots.scores(lake, DAY) or b"")[1:4] == b"PNG"


def _height(drawn: bytes | None) -> int:
    return Image.open(io.BytesIO(drawn or b"")).height


def test_credits_are_drawn_of_who_was_judged(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    row = {"weight": 0.0, "places": 0.0, "alone": 0.0, "coverage": 0.0, "novelty": 0.0, "nights": 1, "decision": "keep"}
    unknown = row | {"model": "new", "gain": None, "low": None, "high": None}
    lake.publish("eval_credit", DAY, rows_of("eval_credit", [unknown]))
    assert plots.credits(lake, DAY) is None
    judged_rows = [row | {"model": m, "gain": 0.1, "low": 0.0, "high": 0.2, "mean_gain": 0.1} for m in "ab"]
    lake.publish("eval_credit", DAY, rows_of("eval_credit", [unknown, judged_rows[0]]))
    one = plots.credits(lake, DAY)
    lake.publish("eval_credit", DAY, rows_of("eval_credit", [unknown, *judged_rows]))
    assert _height(plots.credits(lake, DAY)) > _height(one)
