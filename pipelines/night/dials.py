"""Ranked items ordered anew by more than relevance: diversity, calibration, even exposure, less popularity.

Each place goes to the ranked item with the largest ``relevance - sum(dial * penalty)``. Relevance and penalties are
between 0 and 1, so a dial of 1 weighs as much as relevance. Belongs here: penalties, the greedy choice. Does not:
ranking (``recommenders.ranking``), rules that must hold (``placing``), what a dial costs (``tradeoff``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
from scipy import sparse

from pipelines.learning.metrics import MIXED
from pipelines.night.rules import groups_of_items, shares_of_rows
from pipelines.recommenders.base import Inputs
from pipelines.sections import Dials

POOL = 5  # ranked items a place that are chosen from
BEHIND = -1e9  # worth of what is behind the end of a ranking
NO_BONUS = np.zeros(0)
BLOCK = 128  # users whose items' vectors are gathered at once


@dataclass(frozen=True)
class Traits:
    """What items and users are like, for the penalties.

    Attributes:
        vectors: unit vectors of items in the unified space (items, d); no rows without content.
        categories: share of each category in each item (items, categories).
        tastes: share of each category in what a user has liked (users, categories), rows of zeros without any.
        popular: by how many users an item was liked (items,), as a logarithm between 0 and 1.
        exposed: in how many lists of the night before an item was (items,), likewise.
        bonus: what is added to an item's relevance (items,); none where nothing is (``floors``).
        added: dial -> what is added to it, likewise.
    """

    vectors: np.ndarray
    categories: sparse.csr_matrix
    tastes: sparse.csr_matrix
    popular: np.ndarray
    exposed: np.ndarray
    bonus: np.ndarray = field(default_factory=lambda: NO_BONUS)
    added: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, inputs: Inputs, categories: pa.Array, exposed: np.ndarray) -> Self:
        """Traits of a night.

        Args:
            inputs: what recommenders see.
            categories: of each item, a list.
            exposed: in how many lists of the night before each item was.
        """
        liked = (inputs.positives > 0).astype(np.float32)
        shares = shares_of_rows(groups_of_items(pa.table({"categories": categories}), ["category"])["category"])
        return cls(
            vectors=inputs.fused,
            categories=shares,
            tastes=shares_of_rows(liked @ shares),
            popular=_share_of_largest(np.asarray(liked.sum(0)).ravel()),
            exposed=_share_of_largest(exposed),
        )

    @property
    def priced(self) -> bool:
        """Whether anything is added, to relevance or to a dial."""
        return len(self.bonus) > 0 or any(self.added.values())


def _share_of_largest(counts: np.ndarray) -> np.ndarray:
    logs = np.log1p(np.asarray(counts, float))
    return np.asarray(logs / max(logs.max(initial=0), 1e-12))


def turned(
    lists: tuple[np.ndarray, np.ndarray], k: int, dials: Dials, traits: Traits, users: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The lists that the dials make of ranked items.

    Diversity is maximal marginal relevance (https://doi.org/10.1145/290941.291025), calibration the divergence from
    the user's own categories (https://doi.org/10.1145/3240323.3240372).

    Args:
        lists: ranked items (users, deep), -1 behind the end, and their scores, the best first.
        k: length of the lists.
        dials: what counts beside relevance.
        traits: of the night.
        users: rows of ``traits.tastes``.

    Returns:
        Items (users, k), and for each place the score of that rank among the chosen items, so that scores fall.
    """
    parts = [
        _chosen(lists[0][a : a + BLOCK], lists[1][a : a + BLOCK], k, dials, traits, users[a : a + BLOCK])
        for a in range(0, len(users), BLOCK)
    ]
    if not parts:
        return lists[0][:, :k], lists[1][:, :k]
    at = np.concatenate(parts)
    items, values = (np.take_along_axis(part, at, 1) for part in lists)
    return items, -np.sort(-values, 1)


def _chosen(
    items: np.ndarray, scores: np.ndarray, k: int, dials: Dials, traits: Traits, users: np.ndarray
) -> np.ndarray:
    """Places in the ranking of what is chosen (users, k); what is behind the end comes last."""
    n, row, there = len(items), np.arange(len(items)), items >= 0
    listed = np.maximum(items, 0)
    diversity, popularity = (getattr(dials, d) + traits.added.get(d, 0.0) for d in ("diversity", "popularity"))
    value = _relevance(scores, there) - popularity * traits.popular[listed] - dials.exposure * traits.exposed[listed]
    value += traits.bonus[listed] if len(traits.bonus) else 0
    like = _Likeness(traits.vectors, listed) if diversity else None
    off = _Miscalibration(traits, listed, users) if dials.calibration else None
    chosen = np.zeros((n, min(k, items.shape[1])), np.int64)
    open_ = np.ones(items.shape, bool)
    for place in range(chosen.shape[1]):
        now = value.copy()
        if like:
            now -= diversity * like.nearest
        if off:
            now -= dials.calibration * off.penalty(place)
        now[~there] = BEHIND
        chosen[:, place] = at = np.where(open_, now, -np.inf).argmax(1)
        open_[row, at] = False
        for part in (like, off):
            if part:
                part.take(at)
    return chosen


def _relevance(scores: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Scores of each row between 0 and 1."""
    low = np.where(there, scores, np.inf).min(1, keepdims=True)
    high = np.where(there, scores, -np.inf).max(1, keepdims=True)
    with np.errstate(invalid="ignore"):  # of a list without any item
        span = np.where(high > low, high - low, 1)
        return np.where(there, (scores - low) / span, 0).astype(float)


class _Likeness:
    """Largest cosine of each ranked item with those that were chosen."""

    def __init__(self, vectors: np.ndarray, listed: np.ndarray):
        self.vectors, self.nearest = vectors[listed], np.zeros(listed.shape)

    def take(self, at: np.ndarray) -> None:
        """Count a chosen item of each row."""
        mine = self.vectors[np.arange(len(at)), at]
        self.nearest = np.maximum(self.nearest, np.einsum("npd,nd->np", self.vectors, mine))


class _Miscalibration:
    """Divergence of the categories of the chosen items and one more from those of the user's history."""

    def __init__(self, traits: Traits, listed: np.ndarray, users: np.ndarray):
        self.taste = np.asarray(traits.tastes[users].todense(), float)
        self.sums = np.zeros_like(self.taste)
        most = int(np.diff(traits.categories.indptr).max(initial=0))
        self.category, self.share = np.zeros((*listed.shape, most), np.int64), np.zeros((*listed.shape, most))
        for item in np.unique(listed):
            bounds = slice(*traits.categories.indptr[item : item + 2])
            where, number = listed == item, bounds.stop - bounds.start
            self.category[where, :number] = traits.categories.indices[bounds]
            self.share[where, :number] = traits.categories.data[bounds]

    def penalty(self, chosen: int) -> np.ndarray:
        """Divergence (users, deep) between 0 and 1, with each item beside the ``chosen`` ones."""
        row = np.arange(len(self.taste))[:, None, None]
        without = self._terms(self.taste, self.sums / (chosen + 1))
        of = self.taste[row, self.category]
        mine = self._terms(of, (self.sums[row, self.category] + self.share) / (chosen + 1))
        found = without.sum(1)[:, None] + (mine - without[row, self.category]).sum(-1)
        return np.asarray(found / -np.log2(MIXED))

    def _terms(self, p: np.ndarray, q: np.ndarray) -> np.ndarray:
        mixed = (1 - MIXED) * q + MIXED * p
        return p * np.log2(np.where(p > 0, p, 1) / np.where(p > 0, mixed, 1))

    def take(self, at: np.ndarray) -> None:
        """Count a chosen item of each row."""
        row = np.arange(len(at))
        np.add.at(self.sums, (row[:, None], self.category[row, at]), self.share[row, at])


def free_settings(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, dict[str, tuple[float, float]]]]:
    """Dial -> the largest setting up to which NDCG never falls, and each metric at 0 and there; of ``eval_dials``.

    Dials that cost something from the first step on, or change nothing, are left out.
    """
    found = {}
    for dial in sorted({r["dial"] for r in rows}):
        mine = {(r["setting"], r["metric"]): r["value"] for r in rows if r["dial"] == dial}
        settings = sorted({s for s, _ in mine})
        free = 0.0
        for setting in settings[1:]:
            if mine[setting, "ndcg"] < mine[0.0, "ndcg"]:
                break
            free = setting
        if free:
            metrics = sorted({m for s, m in mine if s == free})
            gains = {m: (mine[0.0, m], mine[free, m]) for m in metrics if (0.0, m) in mine}
            if any(before != after for before, after in gains.values()):
                found[dial] = (free, gains)
    return found
