"""Places of ranked lists by the rules of the shop and the wishes of users: at most so many of a kind, fixed places.

Belongs here: which ranked item gets which place. Does not: ranking (``recommenders.ranking``), what may be listed at
all (``rules``).
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pyarrow as pa
from scipy import sparse

from pipelines.night.rules import GROUPED, groups_of_items, unwanted_of
from pipelines.sections import Rules

DEEP = 10  # ranked items a place that are looked at, as some are left out


@dataclass(frozen=True)
class Places:
    """What limits the places of lists.

    Attributes:
        members: one (items, groups) where an item is of a group.
        at_most: places of a list that each group may have (groups,).
        unwanted: one (users, groups) where a user wants less of a group: half of the places that it would have.
        pinned: place from 0 -> item.
    """

    members: sparse.csr_matrix
    at_most: np.ndarray
    unwanted: sparse.csr_matrix
    pinned: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, items: pa.Table, controls: pa.Table, users: pa.Array, rules: Rules) -> Self:
        """The rules of a shop and the wishes of some users, for a catalogue."""
        kinds = sorted({*rules.at_most, *(set(controls["target"].to_pylist()) & set(GROUPED))})
        members = groups_of_items(items, kinds)
        most = [np.full(m.shape[1], rules.at_most.get(k, np.inf)) for k, m in members.items()]  # type: ignore[call-overload]
        nobody = sparse.csr_matrix((len(users), 0), dtype=np.float32)
        less = [
            unwanted_of(controls, items, users, k) if k in GROUPED
            else sparse.csr_matrix((len(users), members[k].shape[1]), dtype=np.float32)
            for k in kinds
        ]  # fmt: skip
        row = {item: n for n, item in enumerate(items["item_id"].to_pylist()) if item in rules.pinned.values()}
        every = sparse.hstack(list(members.values()), "csc") if kinds else sparse.csc_matrix((items.num_rows, 0))
        at_most, unwanted = (
            np.concatenate([np.zeros(0), *most]),
            sparse.hstack(less, "csc") if kinds else nobody.tocsc(),
        )
        limited = np.flatnonzero(np.isfinite(at_most) | (np.diff(unwanted.indptr) > 0))
        return cls(
            members=every[:, limited].tocsr(),
            at_most=at_most[limited],
            unwanted=unwanted[:, limited].tocsr(),
            pinned={place - 1: row[item] for place, item in sorted(rules.pinned.items()) if item in row},
        )

    @property
    def pins(self) -> list[int]:
        """Pinned items in order of their places."""
        return [item for _, item in sorted(self.pinned.items())]

    @property
    def limits(self) -> bool:
        """Whether any group has fewer places than a list."""
        return bool(np.isfinite(self.at_most).any() or self.unwanted.nnz)


def behind(lists: tuple[np.ndarray, np.ndarray], deep: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lists (users, k) and, behind them, what else is ranked (users, deep); nothing twice."""
    (items, scores), (others, values) = lists, deep
    offset = np.arange(len(items))[:, None] * (int(max(items.max(initial=0), others.max(initial=0))) + 2) + 1
    again = np.isin(others + offset, items + offset)  # of a row alone, as rows are far apart
    ranked = np.concatenate([items, np.where(again, -1, others)], 1)
    return ranked, np.concatenate([scores, np.where(again, -np.inf, values)], 1)


def held_of(places: Places, forbidden: sparse.csr_matrix, servable: np.ndarray) -> np.ndarray:
    """Bool (users, pinned items): which items will be pinned for which user.

    An item that a user hides or has met, or that is not available, is not pinned for that user.
    """
    items = places.pins
    return (np.asarray(forbidden[:, items].todense()) == 0) & servable[items][None]


def capped(
    ranked: np.ndarray,
    scores: np.ndarray,
    places: Places,
    users: np.ndarray,
    k: int,
    usual_k: int | None = None,
    held: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The first k of ranked items of which no group has more places than it may.

    Args:
        ranked: item rows (users, deep), the best first, -1 behind the end.
        scores: of them.
        places: what limits them.
        users: rows of ``places.unwanted``.
        k: length of the lists, which are shorter where too few are left.
        usual_k: length of the plain lists that half of the places is of; k by default.
        held: of ``held_of``; pinned items count for their groups, and are left to ``pinned``.

    Returns:
        Items (users, k), -1 behind the end, and their scores.
    """
    n, groups = len(ranked), places.members.shape[1]
    limit = np.tile(places.at_most, (n, 1))
    less = places.unwanted[users].tocoo()
    if less.nnz:
        usual = np.zeros((n, groups))
        for items in ranked[:, : usual_k or k].T:
            usual += _of(places, items)
        half = np.floor(usual[less.row, less.col] / 2)
        limit[less.row, less.col] = np.minimum(limit[less.row, less.col], half)
    taken, used = np.zeros(n, np.int64), np.zeros((n, groups))
    pins = np.array(places.pins if held is not None else [], np.int64)
    if held is not None:
        used += held @ np.asarray(places.members[pins].todense())
    chosen, values = np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
    for items, value in zip(ranked.T, scores.T, strict=True):
        of = _of(places, items)
        fits = (items >= 0) & (taken < k) & ~((of > 0) & (used >= limit)).any(1)
        if held is not None:
            fits &= ~(held & (items[:, None] == pins)).any(1)
        row = np.flatnonzero(fits)
        chosen[row, taken[row]], values[row, taken[row]] = items[row], value[row]
        used[row] += of[row]
        taken[row] += 1
    order = np.argsort(-values, 1, kind="stable")
    return np.take_along_axis(chosen, order, 1), np.take_along_axis(values, order, 1)


def _of(places: Places, items: np.ndarray) -> np.ndarray:
    """One (users, groups) where the item of each user is of a group; zeros where there is none."""
    found = np.asarray(places.members[np.maximum(items, 0)].todense())
    found[items < 0] = 0
    return found


def pinned(
    lists: np.ndarray, scores: np.ndarray, places: Places, forbidden: sparse.csr_matrix, servable: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists with the pinned items at their places; others move down, and the last ones out.

    A pinned item has the score of the place that it takes, so that scores fall with the rank.

    Returns:
        Items (users, k), scores, and bool (users, k) where an item was pinned.
    """
    lists, scores, k = lists.copy(), scores.copy(), lists.shape[1]
    fixed, held = np.zeros(lists.shape, bool), held_of(places, forbidden, servable)
    for n, (place, item) in enumerate(sorted(places.pinned.items())):
        for row in np.flatnonzero(held[:, n]):
            others = np.flatnonzero(lists[row] != item)
            at = min(place, int((lists[row, others] >= 0).sum()))
            value = scores[row, at] if np.isfinite(scores[row, at]) else scores[row, max(at - 1, 0)]
            value = value if np.isfinite(value) else np.float32(0)
            for array, new in ((lists, item), (scores, value), (fixed, True)):
                array[row] = np.insert(array[row, others], at, new)[:k]
    return lists, scores, fixed
