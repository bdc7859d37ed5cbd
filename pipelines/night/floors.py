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

from pipelines.night.arms import uniform
from pipelines.night.dials import POOL, Traits, turned
from pipelines.night.files import Loaded
from pipelines.night.rules import meant_by
from pipelines.recommenders.blend.scored import scored
from pipelines.recommenders.ranking import blocks_of, top_k
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


def prices_of(
    ranked: Lists,
    k: int,
    dials: Dials,
    traits: Traits,
    users: np.ndarray,
    members: np.ndarray,
    floors: Mapping[str, float],
) -> list[Price]:
    """The smallest prices with which every target has its share of the places of some lists.

    A target that cannot have it has the largest price.

    Args:
        ranked: items (users, deep) and their scores.
        k: length of the lists.
        dials: what else counts beside relevance.
        traits: of the night.
        users: rows of the traits.
        members: (targets, items), which items each target means.
        floors: target -> share.
    """
    prices, names = np.zeros(len(floors)), list(floors)

    def shares() -> np.ndarray:
        priced = replace(traits, bonus=prices @ members)
        chosen = turned(ranked, k, dials, priced, users)[0]
        return members[:, chosen[chosen >= 0]].mean(1)

    before = shares()
    for _ in range(ROUNDS):
        for at, name in enumerate(names):
            low, high, prices[at] = 0.0, MOST_PRICE, 0.0
            if shares()[at] >= floors[name]:
                continue
            for _ in range(HALVINGS):
                prices[at] = (low + high) / 2
                low, high = (low, prices[at]) if shares()[at] >= floors[name] else (prices[at], high)
            prices[at] = high
    return [Price(n, floors[n], float(b), float(p)) for n, b, p in zip(names, before, prices, strict=True)]


def found_on(
    night: Loaded, items: pa.Table, serve: str, k: int, filter_seen: bool, dials: Dials, floors: Mapping[str, float]
) -> tuple[list[Price], np.ndarray]:
    """Prices of a night's floors, and what they add to the relevance of each item (items,).

    Args:
        night: as workers have it.
        items: its catalogue.
        serve: recommender whose lists are served.
        k: length of the lists.
        filter_seen: whether lists leave out what a user has met.
        dials: what else counts beside relevance.
        floors: target -> share.
    """
    users, parts = some_users(night), list[Lists]()
    for block in blocks_of(users, len(night.items)):
        plain = next(s for name, s, _ in scored(night.models, night.inputs, block) if name == serve)
        forbidden = night.forbidden(block, filter_seen)
        parts.append(top_k(night.ranked_by(plain, block), k * POOL, forbidden, night.inputs.device))
    ranked = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    members = members_of(items, floors)
    traits = Traits.of(night.inputs, night.categories, night.exposed)
    prices = prices_of(ranked, k, dials, traits, users, members, floors)
    return prices, np.array([p.price for p in prices]) @ members


def some_users(night: Loaded) -> np.ndarray:
    """Rows of at most ``MOST_USERS`` users, as good as drawn."""
    order = np.argsort([uniform(f"floors|{user}") for user in night.users.to_pylist()], kind="stable")
    return np.sort(order[:MOST_USERS])
