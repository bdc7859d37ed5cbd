"""The hybrid: all other recommenders stacked on the last days before the night, warm and cold users apart.

Belongs here: segments, what is fitted for each, how scores are combined. Does not: the fit itself (``likelihood``),
where the days are cut (``night.inputs``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from scipy import sparse

from pipelines.learning.metrics import hits_of, ndcg
from pipelines.recommenders.base import Arrays, Inputs, Recommender
from pipelines.recommenders.blend.facts import ItemFacts
from pipelines.recommenders.blend.likelihood import Choices, channel, combined, fit, fit_few
from pipelines.recommenders.graph import BLOCK
from pipelines.recommenders.ranking import top_k

SEGMENTS = ("warm", "cold")
MIN_USERS = 10  # validation users below which a segment keeps the weights that it starts from
SURE = 3.0  # standard errors by which facts must gain: those who validate share their days, which hides how they vary
FIT_SCORES = 20_000_000  # users x items that weights are fitted on
BLOCK_SCORES = 1_000_000  # users x items of one signal at once; with more, caches overflow
MOST_SCORES = 4_000_000  # as many at most, where whole passes of a walk or whole files are worth more than caches


def is_warm(inputs: Inputs, users: np.ndarray) -> np.ndarray:
    """Bool (len(users),), True where a user has positive history."""
    return np.diff(inputs.positives.indptr)[users] > 0


class Hybrid:
    """Weighted signals of other recommenders plus what speaks for each item anyway; weights by segment of users.

    Stacked generalization (https://doi.org/10.1016/S0893-6080(05)80023-1) with a time split. Signals that hardly add to
    the others weigh nothing for warm users, and are not looked at. Cold users start from what the weights of warm ones
    were before that, and leave out none, so that models that only uploads wake keep a say.

    Args:
        models: recommenders, in the order of the weights.
        facts: whether facts about items (``facts.ItemFacts``) may take part.
    """

    name = "hybrid"

    def __init__(self, models: Sequence[Recommender], facts: bool = True):
        self.models, self.facts = list(models), ItemFacts() if facts else None
        self.parts = [m.name if s == "score" else f"{m.name}.{s}" for m in models for s in m.signals]
        self.weights: dict[str, np.ndarray] = {}
        self.prior: dict[str, np.ndarray] = {}
        self.of_facts: dict[str, np.ndarray] = {}

    def fit(self, past: Inputs, wanted: sparse.csr_matrix, seen: sparse.csr_matrix | None, k: int) -> dict[str, Any]:
        """Fit the weights of each segment; the recommenders are fitted on ``past``.

        Args:
            past: what was known before the validation events.
            wanted: nonzero (users, items) that users came to like in the validation time.
            seen: nonzero (users, items) to leave out, or None.
            k: list length of the report.

        Returns:
            What was found in each segment: users, weights, NDCG@K of each recommender alone and, by estimated ranks of
            those who the weights were fitted on, of the blend.
        """
        known = self.facts.fit_transform(past) if self.facts else np.zeros((wanted.shape[1], 0), np.float32)
        users = np.flatnonzero(np.diff(wanted.indptr))
        warm = is_warm(past, users)
        c = len(self.parts)
        start = np.array([1 / c] * c + [0.0] * known.shape[1])
        report: dict[str, Any] = {}
        for segment, mine in zip(SEGMENTS, (users[warm], users[~warm]), strict=True):
            mine = some_users(mine, wanted.shape[1])
            weights = start
            if len(mine) < MIN_USERS:
                report[segment] = {"note": f"fewer than {MIN_USERS} validation users: weights of the start"}
            else:
                choices, alone = self._choices(past, mine, wanted, seen, start, known, k)
                start, weights, report[segment] = self._fit_segment(choices, known, start, k, segment == SEGMENTS[0])
                report[segment]["ndcg"] |= alone
            report[segment] |= {
                "users": len(mine),
                "weights": dict(zip(self.parts, weights[:c].round(4).tolist(), strict=True)),
            }
            self.weights[segment], self.of_facts[segment] = weights[:c].astype(np.float32), weights[c:]
        self._take(known)
        return report

    def _choices(
        self,
        past: Inputs,
        users: np.ndarray,
        wanted: sparse.csr_matrix,
        seen: sparse.csr_matrix | None,
        start: np.ndarray,
        known: np.ndarray,
        k: int,
    ) -> tuple[Choices, dict[str, float]]:
        """What the stack is fitted on, and NDCG@K of each recommender alone, by blocks of users."""
        c = len(self.parts)
        prior, found, alone = (known @ start[c:]).astype(np.float32), list[Choices](), list[list[np.ndarray]]()
        for block in blocks_of(users, wanted.shape[1]):
            forbidden = seen[block] if seen is not None else None
            evidence = self.evidence(past, block)
            found.append(
                Choices.collect(list(self.channels(evidence, range(c))), prior, wanted[block], forbidden, start[:c])
            )
            scores = [m.combine(evidence[m.name]) for m in self.models]
            alone.append([ndcg_of(s, wanted[block], forbidden, k, past.device) for s in scores])
        means = [round(float(np.concatenate(v).mean()), 5) for v in zip(*alone, strict=True)]
        return Choices.joined(found), dict(zip([m.name for m in self.models], means, strict=True))

    def _fit_segment(
        self, choices: Choices, known: np.ndarray, start: np.ndarray, k: int, few: bool
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Weights (channels + facts,) of some users, with all channels and with few if wanted, and what was found.

        Facts get none unless they surely help.
        """
        c = len(self.parts)
        report: dict[str, Any] = {}
        use = known.shape[1]
        if use:
            gain = _gain(choices, known, start, k)
            error = float(gain.std() / len(gain) ** 0.5)
            report["facts"] = {
                "number": use,
                "ndcg_gain": round(float(gain.mean()), 5),
                "standard_error": round(error, 5),
            }
            use = use if gain.mean() > SURE * error else 0
        start, facts, rest = start[: c + use], known[:, :use], (0, known.shape[1] - use)
        whole = fit(choices, facts, start)
        found = fit_few(choices, facts, start, whole) if few else whole
        report["ndcg"] = {"blend": round(float(choices.ndcg(found, facts, k).mean()), 5)}
        return np.pad(whole, rest), np.pad(found, rest), report

    def evidence(self, inputs: Inputs, users: np.ndarray) -> dict[str, list[np.ndarray]]:
        """Recommender -> its signals (users, items)."""
        return {m.name: m.evidence(inputs, users) for m in self.models}

    def prepare_for(self, now: Inputs) -> None:
        """Take facts about items as of the night that lists are made in."""
        if self.facts:
            self._take(self.facts.transform(now)[:, : len(self.of_facts["warm"])])

    def _take(self, facts: np.ndarray) -> None:
        self.prior = {s: (facts @ v).astype(np.float32) for s, v in self.of_facts.items()}

    def channels(
        self, evidence: Mapping[str, list[np.ndarray]], which: Iterable[int], rows: np.ndarray | slice = slice(None)
    ) -> Iterator[np.ndarray]:
        """Signals by their place in ``parts``, of some users, on a scale that adds up with others'; one at a time."""
        signals = [(signal, m.signed) for m in self.models for signal in evidence[m.name]]
        return (channel(signals[i][0][rows], signals[i][1]) for i in which)

    def blend(self, evidence: Mapping[str, list[np.ndarray]], warm: np.ndarray) -> np.ndarray:
        """Scores (users, items) by the weights of each user's segment; ``warm`` is bool (users,)."""
        if warm.all() or not warm.any():
            return self._blended(evidence, SEGMENTS[0 if warm.all() else 1], slice(None))
        out = np.empty_like(next(iter(evidence.values()))[0])
        for segment, mine in zip(SEGMENTS, (warm, ~warm), strict=True):
            out[mine] = self._blended(evidence, segment, mine)
        return out

    def _blended(self, evidence: Mapping[str, list[np.ndarray]], segment: str, rows: np.ndarray | slice) -> np.ndarray:
        used = np.flatnonzero(self.weights[segment])
        return combined(self.channels(evidence, used, rows), self.weights[segment][used], self.prior[segment])

    def heard(self, segment: str) -> set[str]:
        """Names of the recommenders that weigh anything for a segment."""
        names = [m.name for m in self.models for _ in m.signals]
        return {names[i] for i in np.flatnonzero(self.weights[segment])}

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
    chances: np.ndarray,
    new: np.ndarray,
    places: int,
    forbidden: sparse.csr_matrix | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Lists with their last places given to the best new items, as far as fewer are in them already.

    An item that nobody has liked loses to liked ones almost always, and would never be liked.

    Args:
        lists: item rows and scores (users, k) of ``top_k``.
        scores: (users, items), those of the lists.
        chances: (users, items), what new items are ranked by; where a row has none, it is the scores.
        new: bool (items,), True for items that nobody has liked.
        places: of each list.
        forbidden: nonzero (users, items) are never placed.
    """
    items, values = (a.copy() for a in lists)
    columns = np.flatnonzero(new)
    mine = forbidden[:, columns].tocsr() if forbidden is not None else None
    ranked = np.where(chances[:, columns].any(1, keepdims=True), chances[:, columns], scores[:, columns])
    fresh, _ = top_k(ranked, places, mine)
    for row in np.flatnonzero((items >= 0).all(1)):  # a shorter list holds all that is allowed
        inside = new[items[row]]
        chosen = np.flatnonzero((fresh[row] >= 0) & ~np.isin(columns[fresh[row]], items[row]))
        chosen = chosen[: max(places - inside.sum(), 0)]
        kept = np.delete(np.arange(len(inside)), np.flatnonzero(~inside)[::-1][: len(chosen)])
        items[row] = np.concatenate([items[row, kept], columns[fresh[row, chosen]]])
        values[row] = np.concatenate([values[row, kept], scores[row, items[row, len(kept) :]]])
    return items, values


def some_users(users: np.ndarray, items: int) -> np.ndarray:
    """At most as many users as ``FIT_SCORES`` allows, drawn with a fixed seed."""
    most = max(MIN_USERS, FIT_SCORES // max(items, 1))
    return users if len(users) <= most else np.sort(np.random.default_rng(0).permutation(users)[:most])


def blocks_of(users: np.ndarray, items: int) -> list[np.ndarray]:
    """Users in blocks whose scores stay small, of whole passes of a walk where there is room for one."""
    passes, most = BLOCK_SCORES // max(items, 1) // BLOCK, MOST_SCORES // max(items, 1)
    size = max(min(max(passes, 1) * BLOCK, most), 1)
    return [users[a : a + size] for a in range(0, len(users), size)]


def _gain(choices: Choices, facts: np.ndarray, start: np.ndarray, k: int) -> np.ndarray:
    """What facts add to NDCG@K of each user, by weights fitted on other users (two folds)."""
    order, c = np.random.default_rng(0).permutation(len(choices.other)), choices.liked.shape[1]
    halves = np.sort(order[::2]), np.sort(order[1::2])
    gains = []
    for fitted, judged in (halves, halves[::-1]):
        mine, theirs = choices.of(fitted), choices.of(judged)
        found = []
        for known in (facts, facts[:, :0]):
            weights = fit(mine, known, start[: c + known.shape[1]])
            found.append(theirs.ndcg(weights, known, k))
        gains.append(found[0] - found[1])
    return np.concatenate(gains)


def ndcg_of(
    scores: np.ndarray, wanted: sparse.csr_matrix, seen: sparse.csr_matrix | None, k: int, device: str
) -> np.ndarray:
    """NDCG@K of each user (users,)."""
    items, _ = top_k(scores, k, seen, device)
    return np.asarray(ndcg(hits_of(items, wanted), np.diff(wanted.indptr)))
