"""Shares of the places that some items are promised, how diverse and novel lists are, and the price of keeping it.

The lists of a night are the most relevant ones among those that give every target its share of all places, and are as
diverse and novel as was promised. By Lagrange duality that is one number a target, its price, added to the relevance of
its items, or to the dial that moves what is promised of lists; it is what more of it costs in relevance at the margin
(as in https://doi.org/10.1145/3219819.3220088, with shares over all lists). Belongs here: finding prices on some users.
Does not: choosing items (``dials``), rules that hold in every list (``placing``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.lake.schemas import rows_in
from pipelines.learning.metrics import diversity
from pipelines.night.arms import groups_of, uniform
from pipelines.night.dials import BLOCK, POOL, Traits, turned
from pipelines.night.files import Loaded
from pipelines.night.rules import meant_by
from pipelines.recommenders.registry import blend_of
from pipelines.sections import OF_LISTS, Dials

MOST_USERS = 1_000  # whose lists prices are found on
MOST_PRICE = 2.0  # relevance is between 0 and 1, so that with this every ranked item of a target is first
DIALS = dict(zip(OF_LISTS, ("diversity", "popularity"), strict=True))  # what is promised of lists -> what moves it
HALVINGS = 12  # of the span of a price
ROUNDS = 2, 8  # over all targets, fewest and most, as prices move each other
CLOSE = 0.002  # of a share, by which it may miss its floor after the fewest
Lists = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Price:
    """A target with its floor.

    Attributes:
        target: as in rules, or what is promised of lists.
        floor: share of all places that it is promised; of lists, the mean.
        before: its share, or the mean, without any price.
        price: what is added to the relevance of its items, or to the dial.
    """

    target: str
    floor: float
    before: float
    price: float


def members_of(items: pa.Table, floors: Iterable[str]) -> np.ndarray:
    """Bool (targets, items): which items each target means; none where it is about lists."""
    nothing = np.zeros(items.num_rows, bool)
    return np.stack([nothing if target in OF_LISTS else meant_by(items, target) for target in floors])


def added_by(targets: Sequence[str], prices: Sequence[float], members: np.ndarray) -> dict[str, Any]:
    """What prices add: ``bonus`` to the relevance of each item (items,), and ``added`` to dials, as in ``Traits``.

    Args:
        targets: what has a price.
        prices: of each target.
        members: (targets, items), which items each target means.
    """
    added = {DIALS[target]: float(price) for target, price in zip(targets, prices, strict=True) if target in OF_LISTS}
    return {"bonus": np.asarray(prices, float) @ members, "added": added}


def priced_by(prices: Sequence[Price], members: np.ndarray, traits: Traits) -> Traits:
    """The traits with what prices add; ``members`` (targets, items) are the items that each target means."""
    return replace(traits, **added_by([p.target for p in prices], [p.price for p in prices], members))


def sum_of(promised: str, lists: np.ndarray, traits: Traits) -> tuple[float, int]:
    """Sum of what is promised of lists, and of how many numbers; item rows (users, k), -1 behind the end.

    Diversity is that of ``metrics.diversity``, of each list; novelty, of each place, 1 less its item's popularity,
    which is the logarithm of who likes it as a share of the largest one.
    """
    if promised == "novelty":
        values = 1 - traits.popular[lists[lists >= 0]]
        return float(values.sum()), len(values)
    blocks = [diversity(lists[a : a + BLOCK], traits.vectors) for a in range(0, len(lists), BLOCK)]
    known = [block[~np.isnan(block)] for block in blocks]
    return sum(float(block.sum()) for block in known), sum(map(len, known))


@dataclass(frozen=True)
class Ranked:
    """What some users who are served alike could be listed.

    Attributes:
        lists: ranked items (users, deep), and their scores.
        users: rows of the traits.
        dials: what else counts beside relevance.
        places: of each list that are given by relevance; the last ones may go to new items.
    """

    lists: Lists
    users: np.ndarray
    dials: Dials
    places: int


def prices_of(
    ranked: list[Ranked], k: int, traits: Traits, members: np.ndarray, floors: Mapping[str, float]
) -> list[Price]:
    """The smallest prices with which every target has its share of the places of some lists.

    A target that cannot have it has the smallest price that gives it the most it can have.

    Args:
        ranked: of groups of users.
        k: length of the lists.
        traits: of the night.
        members: (targets, items), which items each target means.
        floors: target -> share.
    """
    prices, names = np.zeros(len(floors)), list(floors)

    def shares() -> np.ndarray:
        priced = replace(traits, **added_by(names, prices.tolist(), members))
        sums, numbers = np.zeros(len(names)), np.zeros(len(names))
        for group in ranked:
            chosen = turned(group.lists, k, group.dials, priced, group.users)[0]
            kept, new = chosen[:, : group.places], int((chosen[:, group.places :] >= 0).sum())
            more = _sums(names, members, kept, traits)
            sums += more[0]
            numbers += more[1]
            for at, name in enumerate(names):  # places of new items are nobody's, and as novel as can be
                sums[at] += new if name == "novelty" else 0
                numbers[at] += new if name != "diversity" else 0
        return sums / np.maximum(numbers, 1)

    before, goals = shares(), np.array(list(floors.values()))
    fewest, most = ROUNDS
    for done in range(most):
        if done >= fewest and (shares() >= goals - CLOSE).all():
            break
        for at, name in enumerate(names):
            low, high, prices[at] = 0.0, MOST_PRICE, 0.0
            if not (members[at].any() or name in OF_LISTS) or shares()[at] >= floors[name]:
                continue
            prices[at] = MOST_PRICE
            goals[at] = min(floors[name], shares()[at])
            for _ in range(HALVINGS):
                prices[at] = (low + high) / 2
                low, high = (low, prices[at]) if shares()[at] >= goals[at] else (prices[at], high)
            prices[at] = high
    return [Price(n, floors[n], float(b), float(p)) for n, b, p in zip(names, before, prices, strict=True)]


def found_on(
    night: Loaded, items: pa.Table, k: int, filter_seen: bool, floors: Mapping[str, float]
) -> tuple[list[Price], Traits]:
    """Prices of a night's floors, and its traits with what they add.

    Args:
        night: as workers have it.
        items: its catalogue.
        k: length of the lists.
        filter_seen: whether lists leave out what a user has met.
        floors: target -> share.
    """
    users, members, traits = some_users(night), members_of(items, floors), night.traits()
    fresh = bool((~night.liked & night.servable).any())
    ranked = []
    for plan, at in groups_of([night.plans[u] for u in users]):
        lists = night.ranked(users[at], plan.serve, k * POOL, filter_seen)
        places = k - plan.new_items if fresh and blend_of([plan.serve]) else k
        ranked.append(Ranked(lists, users[at], plan.dials, places))
    prices = prices_of(ranked, k, traits, members, floors)
    return prices, priced_by(prices, members, traits)


def _sums(
    names: Sequence[str], members: np.ndarray, lists: np.ndarray, traits: Traits
) -> tuple[np.ndarray, np.ndarray]:
    """Of each target the sum over places or lists of what it has, and their number."""
    listed = lists[lists >= 0]
    found = [
        sum_of(name, lists, traits) if name in OF_LISTS else (float(mine[listed].sum()), len(listed))
        for name, mine in zip(names, members, strict=True)
    ]
    return np.array([f[0] for f in found]), np.array([f[1] for f in found])


def kept_by(served: Iterable[pa.Table], items: pa.Table, prices: Sequence[Price], traits: Traits) -> np.ndarray:
    """Share of all places of each target, or the mean over lists (targets,); served lists in tables of whole users."""
    names = [p.target for p in prices]
    members, known = members_of(items, names), items["item_id"].combine_chunks()
    sums, numbers = np.zeros(len(names)), np.zeros(len(names))
    for table in served:
        user = table["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        row, place = rows_in(table["item_id"], known), table["rank"].to_numpy() - 1
        lists = np.full((user.max(initial=-1) + 1, place.max(initial=-1) + 1), -1)
        lists[user, place] = row
        more = _sums(names, members, lists, traits)
        sums += more[0]
        numbers += more[1]
    return sums / np.maximum(numbers, 1)


def some_users(night: Loaded) -> np.ndarray:
    """Rows of at most ``MOST_USERS`` users, as good as drawn."""
    order = np.argsort([uniform(f"floors|{user}") for user in night.users.to_pylist()], kind="stable")
    return np.sort(order[:MOST_USERS])
