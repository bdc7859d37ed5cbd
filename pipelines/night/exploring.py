"""Places of lists that are drawn by chance, with the probability of what was drawn, so that a log can be learned from.

Belongs here: the draw and its propensity, what came back of items so far. Does not: estimates from it
(``learning.offpolicy``), rules for places (``placing``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import Config
from pipelines.lake.schemas import EVERYONE, rows_in
from pipelines.lake.storage import Lake
from pipelines.night.arms import uniform

DRAWS = 128  # samples of the posterior, of which each user gets one
PRIOR = 10.0  # shown places that the mean click rate counts as
PAST_DAYS = 28  # of feedback


@dataclass(frozen=True)
class Exploring:
    """How places are drawn.

    Attributes:
        kind: ``epsilon`` draws any item of the pool alike, ``thompson`` those that may be clicked most.
        places: last places of a list that are drawn.
        pool: ranked items, from the first of these places on, that are drawn from.
        shown: places that each item had (items,).
        clicked: of these, the clicked ones (items,).
        night: seeds the draws.
    """

    kind: Literal["epsilon", "thompson"]
    places: int
    pool: int
    shown: np.ndarray
    clicked: np.ndarray
    night: date

    @classmethod
    def of(cls, config: Config, lake: Lake, day: date, items: pa.Array) -> "Exploring | None":
        """What a configuration says, with what came back of the catalogue's items; None where nothing is drawn."""
        e = config.recommend.explore
        if e is None:
            return None
        shown, clicked = returns_of(lake, day, items)
        return cls(e.kind, max(1, round(e.share * config.recommend.k)), e.pool, shown, clicked, day)

    def draws(self, items: np.ndarray) -> np.ndarray:
        """Samples of the click rate of some items (``DRAWS``, n); an item has the same whatever else is asked."""
        mean = (self.clicked.sum() + 1) / (self.shown.sum() + 2)
        found = np.empty((DRAWS, len(items)))
        for n, item in enumerate(items.tolist()):
            rng = np.random.Generator(np.random.Philox(key=self.night.toordinal(), counter=[0, 0, 0, item]))
            yes, all_of = self.clicked[item] + PRIOR * mean, self.shown[item] + PRIOR
            found[:, n] = rng.beta(yes, all_of - yes, DRAWS)
        return found


def returns_of(lake: Lake, day: date, items: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Places that each item was shown at in the last days, and those of them that were clicked (items,)."""
    shown, clicked = np.zeros(len(items)), np.zeros(len(items))
    for d in lake.days("feedback", day):
        if d > day - timedelta(days=PAST_DAYS):
            rows = lake.read("feedback", d, ["item_id", "clicked"])
            at = rows_in(rows["item_id"], items)
            shown += np.bincount(at[at >= 0], minlength=len(items))
            at = rows_in(rows["item_id"].filter(rows["clicked"].combine_chunks()), items)
            clicked += np.bincount(at[at >= 0], minlength=len(items))
    return shown, clicked


def explored(
    lists: np.ndarray,
    scores: np.ndarray,
    ranked: np.ndarray,
    values: np.ndarray,
    fixed: np.ndarray,
    how: Exploring,
    users: Sequence[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists whose last places are drawn.

    Who stands for users without history keeps the list. Drawn items stand in order of their scores. The propensity is
    that of the draw: one of ``DRAWS`` equally likely samples is the user's, and an item is as likely as the share of
    the samples in which it is the best (``thompson``), or as any other (``epsilon``); of several places each is drawn
    from what the others have left.

    Args:
        lists: item rows (users, k), -1 behind the end.
        scores: of them.
        ranked: ranked items (users, deep), the best first, -1 behind the end.
        values: their scores.
        fixed: bool (users, k), places that are not drawn.
        how: the draw.
        users: ids.

    Returns:
        Items, scores and propensities (users, k), NaN where nothing was drawn.
    """
    lists, scores = lists.copy(), scores.copy()
    propensity = np.full(lists.shape, np.nan, np.float32)
    known = np.unique(ranked[ranked >= 0])
    draws = how.draws(known) if how.kind == "thompson" else np.zeros((1, len(known)))
    for row, user in enumerate(users):
        places = np.flatnonzero((lists[row] >= 0) & ~fixed[row])[-how.places :]
        if user.startswith(EVERYONE) or not len(places):
            continue
        stays = np.delete(lists[row], places)
        free = np.flatnonzero((ranked[row] >= 0) & ~np.isin(ranked[row], stays))[: how.pool]
        chosen = []
        for n in range(min(len(places), len(free))):
            at = uniform(f"explore|{how.night}|{user}|{n}")
            pick, chance = _drawn(draws[:, np.searchsorted(known, ranked[row, free])], at, how.kind)
            chosen.append((values[row, free[pick]], ranked[row, free[pick]], chance))
            free = np.delete(free, pick)
        chosen.sort(key=lambda c: (-c[0], c[1]))
        for place, (value, item, chance) in zip(places, chosen, strict=False):
            lists[row, place], scores[row, place], propensity[row, place] = item, value, chance
        scores[row] = np.minimum.accumulate(scores[row])  # what stands behind a drawn item is worth no more than it
    return lists, scores, propensity


def _drawn(draws: np.ndarray, at: float, kind: str) -> tuple[int, float]:
    """Which of some items is drawn, and how likely that was; ``at`` is uniform in [0, 1)."""
    n = draws.shape[1]
    if kind == "epsilon":
        return int(at * n), 1 / n
    best = draws.argmax(1)
    pick = int(best[int(at * len(best))])
    return pick, float((best == pick).mean())


def is_drawn(rows: pa.Table) -> pa.Table:
    """Rows whose place was drawn."""
    return rows.filter(pc.is_valid(rows["propensity"]))
