"""Drawn places and their probabilities."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.lake.storage import Lake
from pipelines.night.exploring import DRAWS, Exploring, explored, returns_of
from pipelines.night.files import load_exploring, save_exploring
from pipelines.sections import Explore, Recommend
from tests.lakes import DAY, config_of, rows_of

RANKED = np.array([[0, 1, 2, 3, 4, 5, -1]])
VALUES = np.array([[9, 8, 7, 6, 5, 4, -np.inf]], np.float32)
FREE = np.zeros((1, 4), bool)


def how(kind: Any = "epsilon", places: int = 1, pool: int = 3, **returns: list[float]) -> Exploring:
    shown, clicked = (np.array(returns.get(n, [0.0] * 6)) for n in ("shown", "clicked"))
    return Exploring(kind, places, pool, shown, clicked, DAY)


def drawn(e: Exploring, users: list[str], fixed: np.ndarray = FREE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = len(users)
    lists, scores = np.tile(RANKED[:, :4], (n, 1)), np.tile(VALUES[:, :4], (n, 1))
    return explored(lists, scores, np.tile(RANKED, (n, 1)), np.tile(VALUES, (n, 1)), np.tile(fixed, (n, 1)), e, users)


def test_epsilon_draws_any_of_the_pool_alike() -> None:
    users = [f"u{n}" for n in range(3_000)]
    lists, scores, propensity = drawn(how(), users)
    assert (lists[:, :3] == [0, 1, 2]).all(), "the first places stay"
    counts = Counter(lists[:, 3].tolist())
    assert counts.keys() == {3, 4, 5}
    assert all(n == pytest.approx(1_000, abs=4 * 26) for n in counts.values())
    assert np.isnan(propensity[:, :3]).all()
    assert (propensity[:, 3] == np.float32(1 / 3)).all()
    assert (scores[np.arange(3_000), 3] == [9 - i for i in lists[:, 3]]).all()
    assert np.array_equal(drawn(how(), users)[0], lists), "a backfill draws the same"
    assert not np.array_equal(drawn(replace(how(), night=DAY + timedelta(days=1)), users)[0], lists)


def test_several_places_are_drawn_one_after_another() -> None:
    lists, scores, propensity = drawn(how(places=2, pool=4), [f"u{n}" for n in range(500)])
    assert (lists[:, :2] == [0, 1]).all()
    assert (lists[:, 2] != lists[:, 3]).all()
    assert set(lists[:, 2:].ravel().tolist()) == {2, 3, 4, 5}
    assert (scores[:, 1:] <= scores[:, :-1]).all(), "scores fall with the rank"
    assert np.sort(propensity[:, 2:], 1) == pytest.approx(np.tile([1 / 4, 1 / 3], (500, 1)))


def test_what_is_fixed_and_who_stands_for_others_stays() -> None:
    fixed = np.array([[False, False, False, True]])
    lists, _, propensity = drawn(how(), ["u", "*", "*gold"], fixed)
    assert (lists[:, 3] == 3).all(), "the last place is fixed"
    assert not np.isnan(propensity[0, 2])
    assert np.isnan(propensity[1:]).all()
    assert lists[1:].tolist() == [[0, 1, 2, 3]] * 2


def test_thompson_draws_what_may_be_clicked_most_as_often_as_it_says() -> None:
    """Of 3, 4 and 5 the last is clicked most; propensities are the shares of the draws."""
    e = how("thompson", shown=[0, 0, 0, 200, 200, 200], clicked=[0, 0, 0, 60, 20, 70])
    users = [f"u{n}" for n in range(4_000)]
    lists, _, propensity = drawn(e, users)
    chosen = lists[:, 3]
    share = {i: float((chosen == i).mean()) for i in (3, 4, 5)}
    assert share[5] > share[3] > share[4]
    said = {int(i): float(p) for i, p in zip(chosen, propensity[:, 3], strict=True)}
    for item, p in said.items():
        assert share[item] == pytest.approx(p, abs=4 * (p * (1 - p) / 4_000) ** 0.5)
        assert p * DRAWS == pytest.approx(round(p * DRAWS))
    unknown = drawn(how("thompson"), users)
    assert {int(i) for i in unknown[0][:, 3]} == {3, 4, 5}, "what nobody was shown may be anything"


def test_an_item_has_the_same_samples_whatever_else_is_asked() -> None:
    e = how("thompson", shown=[10.0] * 6, clicked=[1.0] * 6)
    assert np.array_equal(e.draws(np.array([1, 4]))[:, 1], e.draws(np.array([4]))[:, 0])


def test_a_night_counts_what_came_back_of_items(tmp_path: Path) -> None:
    lake, items = Lake(tmp_path), pa.array(["a", "b"])
    place = {"user_id": "u", "night": DAY, "model": "m", "arm": "x", "rank": 1, "shown": "impression", "reactions": 0}
    place |= {"favourite": False, "purchased": False, "disliked": False}
    for n, (item, clicked) in enumerate([("a", True), ("a", False), ("gone", True), ("b", False)]):
        row = place | {"item_id": item, "clicked": clicked, "recommendation_id": str(n)}
        lake.publish("feedback", DAY - timedelta(days=n), rows_of("feedback", [row]))
    lake.publish("feedback", DAY - timedelta(days=40), rows_of("feedback", [place | {"item_id": "b", "clicked": True}]))
    assert [x.tolist() for x in returns_of(lake, DAY, items)] == [[2, 1], [1, 0]]
    config = config_of(tmp_path, recommend=Recommend(explore=Explore(kind="thompson", share=0.1, pool=7)))
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": items}), tmp_path / "items.parquet")
    save_exploring(config, lake, DAY, tmp_path)
    found = load_exploring(tmp_path)
    assert found is not None
    assert (found.kind, found.places, found.pool, found.night) == ("thompson", 2, 7, DAY)
    assert found.shown.tolist() == [2, 1]
    assert Exploring.of(config_of(tmp_path), lake, DAY, items) is None
