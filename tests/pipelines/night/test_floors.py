"""Floors: the price of a few lists by hand, two floors that pull apart, and one that cannot be kept."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from pipelines.lake.promises import PROMISES
from pipelines.night.dials import Traits, turned
from pipelines.night.floors import Price, Ranked, kept_by, members_of, priced_by, prices_of
from pipelines.sections import Dials
from tests.lakes import rows_of

NOTHING = sparse.csr_matrix((9, 0))


def traits(items: int = 9, users: int = 4) -> Traits:
    return Traits(
        np.zeros((items, 0)), NOTHING[:items], sparse.csr_matrix((users, 0)), np.zeros(items), np.zeros(items)
    )


def ranked(*scores: list[float], places: int = 9) -> Ranked:
    """All items of each user, the best first."""
    values = np.array(scores)
    order = np.argsort(-values, 1, kind="stable")
    return Ranked((order, np.take_along_axis(values, order, 1)), np.arange(len(values)), Dials(), places)


def test_a_price_is_what_the_cheapest_places_cost() -> None:
    """Lists of 1 of items a, b (relevance 1 and less): b is .9, .7, .4 and 0 behind a for four users."""
    lists = ranked([1, 0.1, 0], [1, 0.3, 0], [1, 0.6, 0], [1, 1, 0])
    b = np.array([[False, True, False]])
    for floor, price in ((0.25, 0.0), (0.5, 0.4), (0.75, 0.7), (1.0, 0.9)):
        (found,) = prices_of([lists], 1, traits(3), b, {"item:b": floor})
        assert found.price == pytest.approx(price, abs=2e-3), floor
        assert found.before == 0.0, "of two equals the first in the ranking is listed"


def test_prices_of_two_targets_move_each_other() -> None:
    rng = np.random.default_rng(0)
    lists = ranked(*rng.random((200, 9)).tolist())
    members = np.stack([np.isin(np.arange(9), of) for of in ([0, 1], [1, 2, 3])])
    floors = {"tag:own": 0.4, "domain:new": 0.5}
    found = prices_of([lists], 3, traits(9, 200), members, floors)
    prices = np.array([f.price for f in found])
    chosen = turned(lists.lists, 3, Dials(), replace(traits(9, 200), bonus=prices @ members), np.arange(200))[0]
    shares = members[:, chosen].mean((1, 2))
    assert shares[0] >= 0.4 - 0.02
    assert shares[1] >= 0.5 - 0.02
    assert shares.max() < 0.56, "no more than is promised"
    assert [f.before for f in found] == pytest.approx([2 / 9, 3 / 9], abs=0.05)


def test_what_cannot_be_had_costs_no_more_than_the_most_that_can() -> None:
    lists = ranked([1, 0.5, 0.2, 0], [1, 0.9, 0.2, 0])
    ranked_two = replace(lists, lists=(lists.lists[0][:, :2], lists.lists[1][:, :2]))  # relevance 1 and 0
    (found,) = prices_of([ranked_two], 1, traits(4, 2), np.eye(4, dtype=bool)[[3]], {"item:d": 0.5})
    assert found.price < 1e-3, "it is not among the ranked"
    lists = ranked([1, 0.6, 0], [1, 0, 0.5])
    of_first = replace(lists, lists=(lists.lists[0][:, :2], lists.lists[1][:, :2]))  # b is ranked for the first alone
    (found,) = prices_of([of_first], 1, traits(3, 2), np.array([[False, True, False]]), {"item:b": 0.9})
    assert found.price == pytest.approx(1, abs=2e-3), "half of the lists, and no more for any price"


def test_places_that_go_to_new_items_do_not_count_and_groups_are_taken_together() -> None:
    """Of 2 places the last goes to a new item, so that b has to come first; half of the users have b there anyway."""
    b, behind = np.array([[False, True, False]]), [1, 0.7, 0.1]
    (found,) = prices_of([ranked(behind)], 2, traits(3), b, {"item:b": 0.5})
    assert found.price == 0.0, "of two places it has one"
    (found,) = prices_of([ranked(behind, places=1)], 2, traits(3), b, {"item:b": 0.5})
    assert found.price == pytest.approx(1 / 3, abs=2e-3)
    first = ranked([0.2, 1, 0.1], places=1)
    (found,) = prices_of([ranked(behind, places=1), first], 2, traits(3), b, {"item:b": 0.25})
    assert (found.price, found.before) == (0.0, 0.25)


def test_novelty_has_a_price_too_which_is_what_the_cheapest_unpopular_items_cost() -> None:
    """Lists of 1; a is liked by all (popularity 1) and b by nobody (0): b costs .9, .7, .4 and 0 for four users."""
    lists = ranked([1, 0.1, 0], [1, 0.3, 0], [1, 0.6, 0], [1, 1, 0])
    known = replace(traits(3), popular=np.array([1.0, 0.0, 1.0]))
    nobody = np.zeros((1, 3), bool)
    for floor, price in ((0.25, 0.0), (0.5, 0.4), (0.75, 0.7), (1.0, 0.9)):
        (found,) = prices_of([lists], 1, known, nobody, {"novelty": floor})
        assert found.price == pytest.approx(price, abs=2e-3), floor
        assert found.before == 0.0, "of two equals the first in the ranking is listed"
    priced = priced_by([Price("novelty", 0.5, 0.0, 0.45)], nobody, known)
    assert priced.priced
    assert priced.added == {"popularity": 0.45}
    assert turned(lists.lists, 1, Dials(), priced, np.arange(4))[0][:, 0].tolist() == [0, 0, 1, 1]
    assert turned(lists.lists, 1, Dials(popularity=0.3), priced, np.arange(4))[0][:, 0].tolist() == [0, 1, 1, 1]


def test_diversity_has_a_price_too() -> None:
    """Lists of 2: b is just like a, c is not; c is .2 and .6 behind b for two users."""
    vectors = np.array([[1.0, 0], [1, 0], [0, 1]])
    known = replace(traits(3, 2), vectors=vectors)
    lists = ranked([1, 0.8, 0.6, 0], [1, 0.7, 0.1, 0])
    lists = replace(lists, lists=(lists.lists[0][:, :3], lists.lists[1][:, :3]))  # relevance 1, .5, 0 and 1, 2/3, 0
    nobody = np.zeros((1, 3), bool)
    for floor, price in ((0.5, 0.5), (1.0, 2 / 3)):
        (found,) = prices_of([lists], 2, known, nobody, {"diversity": floor})
        assert (found.before, found.price) == (0.0, pytest.approx(price, abs=2e-3))


def test_floors_of_lists_and_of_places_are_kept_together() -> None:
    rng = np.random.default_rng(0)
    lists, popular = ranked(*rng.random((200, 9)).tolist()), np.linspace(1, 0, 9)
    known = replace(traits(9, 200), popular=popular)
    members = np.stack([np.arange(9) == 0, np.zeros(9, bool)])  # what is promised places is what everybody likes
    floors = {"item:a": 0.2, "novelty": 0.6}
    found = prices_of([lists], 3, known, members, floors)
    chosen = turned(lists.lists, 3, Dials(), priced_by(found, members, known), np.arange(200))[0]
    assert (chosen == 0).mean() == pytest.approx(0.2, abs=0.02)
    assert (1 - popular[chosen]).mean() == pytest.approx(0.6, abs=0.02)
    assert all(f.price > 0 for f in found)


def test_what_lists_have_of_what_is_promised_by_hand() -> None:
    items = rows_of("std_items", [{"item_id": i, "domain": "toys" if i == "a" else "books"} for i in "abc"])
    served = pa.table(
        {"user_id": ["u", "u", "v", "w", "w"], "rank": [1, 2, 1, 2, 1], "item_id": ["a", "b", "a", "c", "b"]}
    )
    known = replace(traits(3, 3), vectors=np.array([[1.0, 0], [1, 0], [0, 1]]), popular=np.array([1.0, 0.5, 0]))
    prices = [Price(t, 0.5, 0.0, 0.0) for t in ("domain:toys", "diversity", "novelty")]
    by_hand = pytest.approx([2 / 5, (0 + 1) / 2, (0 + 0.5 + 0 + 1 + 0.5) / 5])
    assert kept_by([served], items, prices, known) == by_hand
    assert kept_by([served[:2], served[2:], served[:0]], items, prices, known) == by_hand, "in parts of whole users"
    assert kept_by([], items, prices, known).tolist() == [0, 0, 0]


def test_places_that_go_to_new_items_are_as_novel_as_can_be() -> None:
    known, nobody = replace(traits(3), popular=np.array([1.0, 0.5, 0.25])), np.zeros((1, 3), bool)
    (found,) = prices_of([ranked([1, 0.9, 0], places=1)], 2, known, nobody, {"novelty": 0.5})
    assert (found.before, found.price) == (0.5, 0.0), "of two places one is known to all, and one will be new"
    assert prices_of([], 2, known, nobody, {"novelty": 0.5})[0].before == 0.0, "nobody is served"
    assert prices_of([], 2, known, nobody, {"diversity": 0.5})[0].price == pytest.approx(0, abs=1e-3)


def test_a_target_that_nothing_is_of_costs_nothing() -> None:
    (found,) = prices_of([ranked([1, 0.5])], 1, traits(2, 1), np.zeros((1, 2), bool), {"domain:none": 0.5})
    assert (found.price, found.before) == (0.0, 0.0)


def test_targets_are_those_of_rules() -> None:
    items = rows_of(
        "std_items", [{"item_id": "a", "domain": "toys", "tags": ["own"]}, {"item_id": "b", "categories": ["c"]}]
    )
    targets = ["domain:toys", "tag:own", "category:c", "item:b", "domain:none"]
    assert members_of(items, targets).tolist() == [
        [True, False],
        [True, False],
        [False, True],
        [False, True],
        [False, False],
    ]


def test_a_floor_that_lists_cannot_keep_is_a_warning() -> None:
    (promise,) = (p for p in PROMISES["floor_prices"] if p.name == "floors_are_kept")
    rows = pa.table(
        {"target": ["domain:a", "domain:b", "novelty"], "floor": [0.2, 0.1, 0.5], "share": [0.15, 0.095, 0.4]}
    )
    first, second, third = promise.broken(None, None, "floor_prices", rows)  # type: ignore[arg-type]
    assert first == "domain:a has 15.0% of all places, 20.0% are promised"
    assert (first.warns, second.warns, second) == (True, False, "")  # type: ignore[attr-defined]
    assert (third, third.warns) == ("novelty of lists is 0.400, 0.500 is promised", True)  # type: ignore[attr-defined]
