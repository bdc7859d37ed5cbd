"""The hybrid: all other recommenders stacked on the last days before the night, warm and cold users apart.

Belongs here: segments, what is fitted for each, how scores are combined. Does not: the fit itself (``stack``), where
the days are cut (``inputs``).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from scipy import sparse

from pipelines.metrics import hits_of, ndcg
from pipelines.recommenders.base import Arrays, Inputs, Recommender, top_k
from pipelines.recommenders.stack import ItemFacts, Stack, channel, combined

SEGMENTS = ("warm", "cold")
MIN_USERS = 10  # validation users below which a segment keeps the weights that it starts from
SURE = 3.0  # standard errors by which facts must gain: those who validate share their days, which hides how they vary
CROSS_VALIDATED = 1000  # users at most
FIT_SCORES = 20_000_000  # users x items that weights are fitted on


def is_warm(inputs: Inputs, users: np.ndarray) -> np.ndarray:
    """Bool (len(users),), True where a user has positive history."""
    return np.diff(inputs.positives.indptr)[users] > 0


class Hybrid:
    """Weighted scores of other recommenders plus what speaks for each item anyway; weights by segment of users.

    Stacked generalization (https://doi.org/10.1016/S0893-6080(05)80023-1) with a time split. Cold users start from the
    weights of warm ones, so that models that only uploads wake keep a say.

    Args:
        signed: recommender -> whether its scores may be negative, in the order of the weights.
        facts: whether facts about items take part; see ``stack.ItemFacts``.
    """

    name = "hybrid"

    def __init__(self, signed: Mapping[str, bool], facts: bool = True):
        self.signed, self.facts = dict(signed), ItemFacts() if facts else None
        self.weights: dict[str, np.ndarray] = {}
        self.prior: dict[str, np.ndarray] = {}
        self.of_facts: dict[str, np.ndarray] = {}

    def fit(
        self,
        models: Sequence[Recommender],
        past: Inputs,
        wanted: sparse.csr_matrix,
        seen: sparse.csr_matrix | None,
        k: int,
    ) -> dict[str, Any]:
        """Fit the weights of each segment.

        Args:
            models: recommenders fitted on ``past``.
            past: what was known before the validation events.
            wanted: nonzero (users, items) that users came to like in the validation time.
            seen: nonzero (users, items) to leave out, or None.
            k: list length of the report.

        Returns:
            What was found in each segment: users, NDCG@K of each part alone and of the blend (on the users that the
            weights were fitted on).
        """
        known = self.facts.fit_transform(past) if self.facts else np.zeros((wanted.shape[1], 0), np.float32)
        users = np.flatnonzero(np.diff(wanted.indptr))
        warm = is_warm(past, users)
        c = len(self.signed)
        weights = np.array([1 / c] * c + [0.0] * known.shape[1])
        report: dict[str, Any] = {}
        for segment, mine in zip(SEGMENTS, (users[warm], users[~warm]), strict=True):
            mine = some_users(mine, wanted.shape[1])
            if len(mine) < MIN_USERS:
                report[segment] = {"note": f"fewer than {MIN_USERS} validation users: weights of the start"}
            else:
                scores = {m.name: m.score(past, mine) for m in models}
                forbidden = seen[mine] if seen is not None else None
                weights, report[segment] = self._fit_segment(scores, known, wanted[mine], forbidden, weights, k)
            report[segment] |= {
                "users": len(mine),
                "weights": dict(zip(self.signed, weights[:c].round(4).tolist(), strict=True)),
            }
            self.weights[segment], self.of_facts[segment] = weights[:c].astype(np.float32), weights[c:]
        self._take(known)
        return report

    def _fit_segment(
        self,
        scores: dict[str, np.ndarray],
        known: np.ndarray,
        wanted: sparse.csr_matrix,
        seen: sparse.csr_matrix | None,
        start: np.ndarray,
        k: int,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Weights (channels + facts,) of some users, and what was found; facts get none unless they surely help."""
        parts, c = self.channels(scores), len(self.signed)
        report: dict[str, Any] = {}
        if known.shape[1]:
            gain = _gain(parts, known, wanted, seen, start, k)
            error = float(gain.std() / len(gain) ** 0.5)
            report["facts"] = {"ndcg_gain": round(float(gain.mean()), 5), "standard_error": round(error, 5)}
            known = known if gain.mean() > SURE * error else known[:, :0]
        found = Stack(parts, known, wanted, seen, start[: c + known.shape[1]]).fit()
        blended = combined(parts, found[:c], (known @ found[c:]).astype(np.float32))
        report["ndcg"] = {n: round(float(_ndcg(v, wanted, seen, k).mean()), 5) for n, v in scores.items()}
        report["ndcg"]["blend"] = round(float(_ndcg(blended, wanted, seen, k).mean()), 5)
        return np.pad(found, (0, len(start) - len(found))), report

    def prepare_for(self, now: Inputs) -> None:
        """Take facts about items as of the night that lists are made in."""
        if self.facts:
            self._take(self.facts.transform(now))

    def _take(self, facts: np.ndarray) -> None:
        self.prior = {s: (facts @ v).astype(np.float32) for s, v in self.of_facts.items()}

    def channels(self, scores: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Scores (users, items) of each part on scales that add up."""
        return [channel(scores[name], signed) for name, signed in self.signed.items()]

    def blend(self, scores: Mapping[str, np.ndarray], warm: np.ndarray) -> np.ndarray:
        """Scores (users, items) by the weights of each user's segment; ``warm`` is bool (users,)."""
        parts = self.channels(scores)
        out = np.zeros_like(parts[0])
        for segment, mine in zip(SEGMENTS, (warm, ~warm), strict=True):
            if mine.any():
                out[mine] = combined([p[mine] for p in parts], self.weights[segment], self.prior[segment])
        return out

    def state(self) -> Arrays:
        """Arrays to store."""
        return {f"weights.{s}": w for s, w in self.weights.items()} | {f"prior.{s}": p for s, p in self.prior.items()}

    def restore(self, state: Arrays) -> Self:
        """Stored arrays."""
        self.weights = {s: state[f"weights.{s}"] for s in SEGMENTS}
        self.prior = {s: state[f"prior.{s}"] for s in SEGMENTS}
        return self


def place_new(
    lists: tuple[np.ndarray, np.ndarray],
    scores: np.ndarray,
    new: np.ndarray,
    places: int,
    forbidden: sparse.csr_matrix | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Lists with their last places given to the best new items, as far as fewer are in them already.

    An item that nobody has liked loses to liked ones almost always, and would never be liked.

    Args:
        lists: item rows and scores (users, k) of ``top_k``.
        scores: (users, items).
        new: bool (items,), True for items that nobody has liked.
        places: of each list.
        forbidden: nonzero (users, items) are never placed.
    """
    items, values = (a.copy() for a in lists)
    columns = np.flatnonzero(new)
    mine = forbidden[:, columns].tocsr() if forbidden is not None else None
    fresh, fresh_values = top_k(scores[:, columns], places, mine)
    for row in np.flatnonzero((items >= 0).all(1)):  # a shorter list holds all that is allowed
        inside = new[items[row]]
        chosen = np.flatnonzero((fresh[row] >= 0) & ~np.isin(columns[fresh[row]], items[row]))
        chosen = chosen[: max(places - inside.sum(), 0)]
        kept = np.delete(np.arange(len(inside)), np.flatnonzero(~inside)[::-1][: len(chosen)])
        items[row] = np.concatenate([items[row, kept], columns[fresh[row, chosen]]])
        values[row] = np.concatenate([values[row, kept], fresh_values[row, chosen]])
    return items, values


def some_users(users: np.ndarray, items: int) -> np.ndarray:
    """At most as many users as ``FIT_SCORES`` allows, drawn with a fixed seed."""
    most = max(MIN_USERS, FIT_SCORES // max(items, 1))
    return users if len(users) <= most else np.sort(np.random.default_rng(0).permutation(users)[:most])


def _gain(
    parts: list[np.ndarray],
    facts: np.ndarray,
    wanted: sparse.csr_matrix,
    seen: sparse.csr_matrix | None,
    start: np.ndarray,
    k: int,
) -> np.ndarray:
    """What facts add to NDCG@K of each of some users, by weights fitted on other users (two folds)."""
    order = np.random.default_rng(0).permutation(wanted.shape[0])[:CROSS_VALIDATED]
    halves = np.sort(order[::2]), np.sort(order[1::2])
    gains = []
    for fitted, judged in (halves, halves[::-1]):
        mine, theirs = ([p[rows] for p in parts] for rows in (fitted, judged))
        seen_by = [seen[rows] if seen is not None else None for rows in (fitted, judged)]
        found = []
        for known in (facts, facts[:, :0]):
            weights = Stack(mine, known, wanted[fitted], seen_by[0], start[: len(parts) + known.shape[1]]).fit()
            prior = (known @ weights[len(parts) :]).astype(np.float32)
            scores = combined(theirs, weights[: len(parts)], prior)
            found.append(_ndcg(scores, wanted[judged], seen_by[1], k))
        gains.append(found[0] - found[1])
    return np.concatenate(gains)


def _ndcg(scores: np.ndarray, wanted: sparse.csr_matrix, seen: sparse.csr_matrix | None, k: int) -> np.ndarray:
    """NDCG@K of each user (users,)."""
    items, _ = top_k(scores, k, seen)
    return np.asarray(ndcg(hits_of(items, wanted), np.diff(wanted.indptr)))
