"""Shares of the places that some items are promised, and the price at which lists keep the promise.

The lists of a night are the most relevant ones among those that give every target its share of all places. By Lagrange
duality that is one number a target, its price, added to the relevance of its items; it is what a place of the target
costs in relevance at the margin (as in https://doi.org/10.1145/3219819.3220088, with shares over all lists). Belongs
here: finding prices on some users. Does not: choosing items (``dials``), rules that hold in every list (``placing``).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipelines.night.arms import groups_of, uniform
from pipelines.night.dials import POOL, Traits, turned
from pipelines.night.files import Loaded
from pipelines.night.rules import meant_by
from pipelines.recommenders.registry import blend_of
from pipelines.sections import Dials

MOST_USERS = 1_000  # whose lists prices are found on
MOST_PRICE = 2.0  # relevance is between 0 and 1, so that with this every ranked item of a target comes first
HALVINGS, ROUNDS = 12, 2  # of the span of a price; over all targets, as prices move each other
Lists = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Price:
    """A target with its floor.

    Attributes:
        target: as in rules.
        floor: share of all places that it is promised.
        before: its share without any price.
        price: what is added to the relevance of its items.
    """

    target: str
    floor: float
    before: float
    price: float


def members_of(items: pa.Table, floors: Iterable[str]) -> np.ndarray:
    """Bool (targets, items): which items each target means."""
    return np.stack([meant_by(items, target) for target in floors])


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

    A target that cannot have it has the largest price, and one that no item is of has none.

    Args:
        ranked: of groups of users.
        k: length of the lists.
        traits: of the night.
        members: (targets, items), which items each target means.
        floors: target -> share.
    """
    prices, names = np.zeros(len(floors)), list(floors)

    def shares() -> np.ndarray:
        priced, found, places = replace(traits, bonus=prices @ members), np.zeros(len(names)), 0
        for group in ranked:
            chosen = turned(group.lists, k, group.dials, priced, group.users)[0]
            found += members[:, chosen[:, : group.places][chosen[:, : group.places] >= 0]].sum(1)
            places += int((chosen >= 0).sum())
        return found / max(places, 1)

    before = shares()
    for _ in range(ROUNDS):
        for at, name in enumerate(names):
            low, high, prices[at] = 0.0, MOST_PRICE, 0.0
            if not members[at].any() or shares()[at] >= floors[name]:
                continue
            for _ in range(HALVINGS):
                prices[at] = (low + high) / 2
                low, high = (low, prices[at]) if shares()[at] >= floors[name] else (prices[at], high)
            prices[at] = high
    return [Price(n, floors[n], float(b), float(p)) for n, b, p in zip(names, before, prices, strict=True)]


def found_on(
    night: Loaded, items: pa.Table, k: int, filter_seen: bool, floors: Mapping[str, float]
) -> tuple[list[Price], np.ndarray]:
    """Prices of a night's floors, and what they add to the relevance of each item (items,).

    Args:
        night: as workers have it.
        items: its catalogue.
        k: length of the lists.
        filter_seen: whether lists leave out what a user has met.
        floors: target -> share.
    """
    users, members = some_users(night), members_of(items, floors)
    traits = Traits.of(night.inputs, night.categories, night.exposed)
    fresh = bool((~night.liked & night.servable).any())
    ranked = []
    for plan, at in groups_of([night.plans[u] for u in users]):
        lists = night.ranked(users[at], plan.serve, k * POOL, filter_seen)
        places = k - plan.new_items if fresh and blend_of([plan.serve]) else k
        ranked.append(Ranked(lists, users[at], plan.dials, places))
    prices = prices_of(ranked, k, traits, members, floors)
    return prices, np.array([p.price for p in prices]) @ members


def some_users(night: Loaded) -> np.ndarray:
    """Rows of at most ``MOST_USERS`` users, as good as drawn."""
    order = np.argsort([uniform(f"floors|{user}") for user in night.users.to_pylist()], kind="stable")
    return np.sort(order[:MOST_USERS])
