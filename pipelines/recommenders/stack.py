"""Stacking by maximum likelihood: scores of recommenders and facts about items to one score.

``score(u, i) = sum_c w_c z_c(u, i) + v . f(i)``; the weights w, v make the items that users came to like the likely
ones among all that they had not seen (conditional logit, https://eml.berkeley.edu/reprints/mcfadden/zarembka.pdf).
Facts about items carry what changes between the days that models learn from and the days that lists are for: which
popularity lasts, where the catalogue moves to. Belongs here: facts, scales, the fit. Does not: any recommender, which
users it is fitted on (``train``).
"""

import numpy as np
from scipy import sparse

from pipelines.recommenders.base import Inputs, forbid, scaled, standard_scores
from pipelines.recommenders.content import centred
from pipelines.recommenders.graph import content_graph, normalized

MODES = 16  # leading directions of the interactions and of each modality
POWER_STEPS = 6  # of the randomized SVD
OVERSAMPLED = 16
USUAL = 0.98  # quantile of activity above which a user says little about which items go together
DAMPING = 3.0  # added to an item's degree
LEAST_SHARE = 0.01  # of the events; an activity stratum with less is left out
SMOOTHING = 0.05  # share of a row's mean score added before the logarithm
RIDGE = 100.0  # in users
CHANNEL_RIDGE = 5.0
NEWTON_STEPS = 25
LEAST_GAIN = 1e-4  # of log-likelihood a user, below which a step is the last
BLOCK_SCORES = 1_000_000  # of all channels; a block stays in the processor's cache
CLIP = 4.0  # standard deviations


def logarithm(scores: np.ndarray) -> np.ndarray:
    """Non-negative scores (users, items) by ratio to the row's mean, in logarithms; rows of zeros are level."""
    positive = np.maximum(scores, 0)
    mean = positive.mean(1, keepdims=True)
    return np.log(SMOOTHING + positive / np.where(mean > 0, mean, 1)).astype(np.float32)


def channel(scores: np.ndarray, signed: bool) -> np.ndarray:
    """A recommender's scores (users, items) on a scale that adds up with others'."""
    return standard_scores(scores) if signed else logarithm(scores)


class ItemFacts:
    """Facts about each item that are comparable from one day to the next.

    Log popularity among users of like activity (1, 2, 3-4, 5-8, ... items) and among the items' neighbours; leading
    directions of the interactions of all but the most active users (randomized SVD,
    https://arxiv.org/abs/0909.4061) and of each modality. Directions are found once, in ``fit``; later inputs are
    projected on them.
    """

    def fit_transform(self, inputs: Inputs) -> np.ndarray:
        """Find strata, directions and scales; facts (items, facts) of the same inputs."""
        active = np.diff(inputs.positives.indptr)
        self.usual = active <= (np.quantile(active[active > 0], USUAL) if active.any() else 0)
        events = np.bincount(_stratum(active), weights=active)
        self.strata = np.flatnonzero(events > LEAST_SHARE * max(active.sum(), 1))
        self.users = right_directions(self._links(inputs).T, MODES)
        self.axes = {m: right_directions(v, MODES) for m, v in _contents(inputs).items()}
        raw = self._raw(inputs)
        self.mean, self.deviation = raw.mean(0), np.maximum(raw.std(0), 1e-9)
        return self._scaled(raw)

    def transform(self, inputs: Inputs) -> np.ndarray:
        """Float32 (items, facts) of other inputs on the same users and items."""
        return self._scaled(self._raw(inputs))

    def _scaled(self, raw: np.ndarray) -> np.ndarray:
        return np.clip((raw - self.mean) / self.deviation, -CLIP, CLIP).astype(np.float32)

    def _links(self, inputs: Inputs) -> sparse.csr_matrix:
        """Interactions (users, items) of all but the most active users, damped by both degrees."""
        usual = (sparse.diags_array(self.usual.astype(np.float32)) @ inputs.positives).tocsr()
        degree = np.asarray(usual.sum(0)).ravel() + DAMPING
        return (scaled(usual, 0.5, 0.0) @ sparse.diags_array(degree**-0.5)).tocsr().astype(np.float32)

    def _raw(self, inputs: Inputs) -> np.ndarray:
        liked = (inputs.positives > 0).astype(np.float32).tocsr()
        stratum = _stratum(np.diff(liked.indptr))
        popularity = np.zeros((liked.shape[1], len(self.strata)))
        for column, s in enumerate(self.strata):
            popularity[:, column] = np.asarray(liked[stratum == s].sum(0)).ravel()
        usual = liked[self.usual]
        together, alike = scaled((usual.T @ usual).tocsr(), 0.5, 0.5), content_graph(inputs)
        counts = [np.log1p(p) for p in (popularity, together @ popularity, alike @ popularity)]
        contents = _contents(inputs)
        directions = [self._links(inputs).T @ self.users, *(contents[m] @ axes for m, axes in self.axes.items())]
        return np.hstack([np.asarray(p, np.float64) for p in (*counts, *directions)])


def _stratum(activity: np.ndarray) -> np.ndarray:
    """0 for none or one item, 1 for two, 2 for three and four, 3 up to eight, ..."""
    return np.ceil(np.log2(np.maximum(activity, 1))).astype(int)


def _contents(inputs: Inputs) -> dict[str, np.ndarray | sparse.csr_matrix]:
    """What each modality says of items, one row an item: its vector, or its similarity to all others."""
    found: dict[str, np.ndarray | sparse.csr_matrix] = {m: centred(v) for m, v in inputs.content.items()}
    found |= {m: normalized(g) for m, g in inputs.graphs.items() if m not in found}
    return dict(sorted(found.items()))


def right_directions(matrix: np.ndarray | sparse.csr_matrix, k: int) -> np.ndarray:
    """Leading right singular vectors (columns of the matrix, k) by a seeded randomized SVD; signs are fixed."""
    size = min(k + OVERSAMPLED, *matrix.shape)
    basis = np.random.default_rng(0).normal(size=(matrix.shape[1], size)).astype(np.float32)
    for _ in range(POWER_STEPS):
        basis = np.linalg.qr(matrix.T @ (matrix @ basis))[0]
    _, _, small = np.linalg.svd(matrix @ basis, full_matrices=False)
    found = np.asarray((basis @ small.T)[:, :k], np.float32)
    signs = np.sign(found[np.abs(found).argmax(0), np.arange(found.shape[1])])
    return found * np.where(signs == 0, 1, signs)


class Stack:
    """The fit on some users, each of whom counts once however many items were liked.

    Args:
        channels: scaled scores (users, items) of each recommender.
        facts: (items, facts).
        wanted: nonzero (users, items) that the users came to like.
        seen: nonzero (users, items) that are no alternatives, or None.
        start: weights (channels + facts,) to begin with; the penalty is on the distance from them.
    """

    def __init__(
        self,
        channels: list[np.ndarray],
        facts: np.ndarray,
        wanted: sparse.csr_matrix,
        seen: sparse.csr_matrix | None,
        start: np.ndarray,
    ):
        self.channels, self.facts, self.seen, self.start = channels, facts, seen, start
        length = np.diff(wanted.indptr)
        user, at = np.repeat(np.arange(len(length)), length), wanted.indices
        share = 1 / length[user]  # one vote a user, as in the metrics
        self.votes = (length > 0).astype(np.float32)
        self.goal = np.concatenate([[share @ z[user, at] for z in channels], share @ facts[at]]).astype(np.float64)
        self.ridge = np.array([CHANNEL_RIDGE] * len(channels) + [RIDGE] * facts.shape[1])
        if not np.isfinite(self.goal).all():
            raise FloatingPointError("a recommender's score is not finite; the stack cannot be fitted")

    def fit(self) -> np.ndarray:
        """Weights (channels + facts,) by Newton's method with step halving."""
        weights = self.start.astype(np.float64)
        best, slope, curve = self._likelihood(weights)
        for _ in range(NEWTON_STEPS):
            step, length = np.linalg.solve(curve, slope), 1.0
            found, slope, curve = self._likelihood(weights + step)
            while found < best and length > 1e-3:
                length /= 2
                found, slope, curve = self._likelihood(weights + length * step)
            if found < best:
                break
            weights, gain, best = weights + length * step, found - best, found
            if gain < LEAST_GAIN * self.votes.sum():
                break
        return weights

    def _likelihood(self, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Penalized log-likelihood, its gradient (w,) and minus its second derivative (w, w), by blocks of users."""
        c, n = len(self.channels), len(weights)
        prior = (self.facts @ weights[c:]).astype(np.float32)
        value, slope, curve = float(self.goal @ weights), self.goal.copy(), np.zeros((n, n))
        mass = np.zeros(len(prior))
        size = max(1, BLOCK_SCORES // max(c * len(prior), 1))
        for a in range(0, len(self.votes), size):
            z = np.stack([channel[a : a + size] for channel in self.channels])  # (c, b, items)
            likely, partition = self._likely(z, weights[:c].astype(np.float32), prior, a)
            value -= float(self.votes[a : a + size] @ partition)
            share = z * likely
            expected = np.hstack([share.sum(2).T, likely @ self.facts]).astype(np.float64)
            slope -= expected.sum(0)
            curve[:c, :c] += share.reshape(c, -1) @ z.reshape(c, -1).T
            curve[:c, c:] += share.sum(1) @ self.facts
            curve -= np.triu(expected.T @ expected)
            mass += likely.sum(0)
        curve[c:, c:] += (self.facts * mass[:, None]).T @ self.facts
        curve = np.triu(curve) + np.triu(curve, 1).T
        far = weights - self.start
        value -= 0.5 * float((self.ridge * far**2).sum())
        return value, slope - self.ridge * far, curve + np.diag(self.ridge)

    def _likely(
        self, z: np.ndarray, weights: np.ndarray, prior: np.ndarray, first: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probability of each item (b, items), zero rows for users without a vote, and the log of its divisor (b,)."""
        logit = np.tensordot(weights, z, 1) + prior
        rows = slice(first, first + len(logit))
        forbid(logit, None if self.seen is None else self.seen[rows])
        top = logit.max(1, keepdims=True)
        likely = np.exp(logit - top)
        total = likely.sum(1, keepdims=True)
        return likely * (self.votes[rows, None] / total), np.log(total[:, 0].astype(np.float64)) + top[:, 0]


def combined(channels: list[np.ndarray], weights: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Weighted channels plus what speaks for each item anyway: float32 (users, items)."""
    total = np.repeat(prior[None].astype(np.float32), len(channels[0]), 0)
    for w, z in zip(weights, channels, strict=True):
        total += np.float32(w) * z
    return total
