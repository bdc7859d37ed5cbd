"""Recommenders judged at drawn places: a made log whose truth is known."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.lake.storage import Lake
from pipelines.offpolicy import offpolicy
from pipelines.sections import Explore, Recommend
from tests.lakes import DAY, config_of, rows_of

NIGHT = DAY - timedelta(days=1)
ITEMS = ["a", "b", "c", "d"]
WORTH = {"a": 0.6, "b": 0.4, "c": 0.2, "d": 0.1}
DRAWN = [0.1, 0.2, 0.3, 0.4]


def logged(root: Path, users: int, shown: str = "impression") -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of ``eval_offpolicy``: a place a user is drawn; ``good`` would have a or b there, ``bad`` c or d."""
    lake, rng = Lake(root), np.random.default_rng(4)
    lists, came, candidates = [], [], []
    for n in range(users):
        user, at = f"u{n:05d}", int(rng.choice(4, p=DRAWN))
        place: dict[str, Any] = {"user_id": user, "item_id": ITEMS[at], "model": "good", "arm": "default", "rank": 2}
        place |= {"recommendation_id": f"id-{user}", "propensity": DRAWN[at]}
        lists.append(place | {"score": 0.0, "reason_code": "explored"})
        head = place | {"item_id": "top", "rank": 1, "propensity": None, "recommendation_id": f"top-{user}"}
        lists.append(head | {"score": 1.0, "reason_code": "new"})
        clicked = bool(rng.random() < WORTH[ITEMS[at]])
        did = {"night": NIGHT, "shown": shown, "clicked": clicked, "reactions": int(clicked)}
        came.append(place | did | {"favourite": False, "purchased": False, "disliked": False})
        for model, own in (("good", ["top", "a", "b"]), ("bad", ["c", "d"])):
            candidates += [
                {"model": model, "user_id": user, "rank": r + 1, "item_id": i, "score": -float(r)}
                for r, i in enumerate(own)
            ]
    lake.publish("recommendations", NIGHT, rows_of("recommendations", lists))
    lake.publish("reco_candidates", NIGHT, rows_of("reco_candidates", candidates))
    lake.publish("feedback", DAY, rows_of("feedback", came))
    config = config_of(root, recommend=Recommend(explore=Explore()))
    list(offpolicy(config, lake, DAY))
    return {(r["model"], r["estimator"]): r for r in lake.read("eval_offpolicy", DAY).to_pylist()}


def test_each_recommender_is_worth_what_its_own_items_are(tmp_path: Path) -> None:
    rows = logged(tmp_path, 4_000)
    truth = {"good": (WORTH["a"] + WORTH["b"]) / 2, "bad": (WORTH["c"] + WORTH["d"]) / 2}
    assert len(rows) == 6
    for (model, estimator), row in rows.items():
        assert row["value"] == pytest.approx(truth[model], abs=0.05), estimator
        assert row["low"] < truth[model] < row["high"], estimator
        assert row["places"] == 4_000
        assert row["note"] is None
    narrow = rows["good", "doubly_robust"]["high"] - rows["good", "doubly_robust"]["low"]
    assert narrow < rows["good", "ips"]["high"] - rows["good", "ips"]["low"]
    weights = np.array([0.5 / 0.1] * 400 + [0.5 / 0.2] * 800 + [0.0] * 2800)
    assert rows["good", "ips"]["effective"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum(), rel=0.1)


def test_too_few_drawn_places_have_no_value(tmp_path: Path) -> None:
    row = logged(tmp_path, 60)["good", "snips"]
    assert row["value"] is None
    assert "60 drawn places are worth" in row["note"]


def test_without_impressions_nothing_can_be_said(tmp_path: Path) -> None:
    assert logged(tmp_path, 200, shown="reaction") == {}, "all places that are known were clicked"
