"""Stacking by maximum likelihood: scores of recommenders and facts about items to one score.

``score(u, i) = sum_c w_c z_c(u, i) + v . f(i)``; the weights w, v make the items that users came to like the likely
ones among all that they had not seen (conditional logit, https://eml.berkeley.edu/reprints/mcfadden/zarembka.pdf).
Belongs here: scales, the fit. Does not: any recommender, facts (``facts``), which users it is fitted on (``train``).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from scipy import sparse

from pipelines.recommenders.ranking import forbid, standard_scores, weighted_sum

SMOOTHING = 0.05  # share of a row's mean score added before the logarithm
TINY = torch.finfo(torch.float32).tiny  # a mean below counts as none
BITS_PER_DOUBLING = 1 << 23  # of a float32 read as an integer
BITS_OF_ONE = 127 * BITS_PER_DOUBLING
RIDGE = 100.0  # in users
CHANNEL_RIDGE = 5.0
NEWTON_STEPS = 25
LEAST_GAIN = 1e-4  # of log-likelihood a user, below which a step is the last
SPARED = 2e-3  # of log-likelihood a user, which leaving channels out may cost altogether
BLOCK_NUMBERS = 1_000_000  # of one block; it stays in the processor's cache
ALTERNATIVES = 512  # of each user
SHARPNESS = 2.0  # of the chance to be drawn


def logarithm(scores: np.ndarray) -> np.ndarray:
    """Non-negative scores (users, items) by ratio to the row's mean, in logarithms; rows of zeros are level.

    The logarithm is exact at powers of two and straight between them, which is how a floating-point number's bits read
    as an integer (Mitchell 1962, https://doi.org/10.1109/TEC.1962.5219391): half the time, and the same bits on every
    processor.

    Raises:
        FloatingPointError: a score is not finite.
    """
    positive = torch.from_numpy(scores).clamp(min=0)
    mean = positive.sum(1, keepdim=True) / max(positive.shape[1], 1)
    if not mean.isfinite().all():
        raise FloatingPointError("a recommender's score is not finite; scores cannot be combined")
    ratio = positive.mul_(torch.where(mean < TINY, 0, 1 / mean)).add_(SMOOTHING)
    bits = ratio.view(torch.int32).sub_(BITS_OF_ONE).float()
    found: np.ndarray = bits.mul_(math.log(2) / BITS_PER_DOUBLING).numpy()
    return found


def channel(scores: np.ndarray, signed: bool) -> np.ndarray:
    """A recommender's scores (users, items) on a scale that adds up with others'."""
    return standard_scores(scores) if signed else logarithm(scores)


@dataclass(frozen=True)
class Choices:
    """What some users came to like, and a weighted sample of what they could have liked.

    Alternatives are drawn by inclusion probability, the likely ones surely, and weigh its inverse (Horvitz-Thompson,
    https://doi.org/10.1080/01621459.1952.10483446); what was liked is always among them, at the weight that it would
    have had by chance, which leaves the fit consistent (McFadden 1978, Modelling the choice of residential location).

    Attributes:
        user: (p,) user of each liked item, in order.
        item: (p,) liked items.
        liked: float32 (p, channels) of them.
        other: (n, a) items that user n could have liked.
        weight: float32 (n, a), 0 where the row is padded.
        channels: float32 (n, a, channels).
    """

    user: np.ndarray
    item: np.ndarray
    liked: np.ndarray
    other: np.ndarray
    weight: np.ndarray
    channels: np.ndarray

    @classmethod
    def collect(
        cls,
        channels: list[np.ndarray],
        prior: np.ndarray,
        wanted: sparse.csr_matrix,
        seen: sparse.csr_matrix | None,
        start: np.ndarray,
    ) -> Self:
        """Draw alternatives of a block of users.

        Args:
            channels: scaled scores (users, items) of each signal.
            prior: (items,) what speaks for each item by the weights to start from.
            wanted: nonzero (users, items) that the users came to like.
            seen: nonzero (users, items) that are no alternatives, or None.
            start: weights (channels,) to start from.

        Raises:
            FloatingPointError: a score is not finite.
        """
        likely = SHARPNESS * combined(channels, start, prior)
        if not np.isfinite(likely).all():
            raise FloatingPointError("a recommender's score is not finite; the stack cannot be fitted")
        forbid(likely, seen)
        likely = np.exp(likely - likely.max(1, keepdims=True))
        share = np.where(likely > 0, (likely / likely.sum(1, keepdims=True) + 1 / likely.shape[1]) / 2, 0)
        user = np.repeat(np.arange(len(share)), np.diff(wanted.indptr))
        item, rows = wanted.indices.astype(np.int64), np.arange(len(share))[:, None]
        other, weight = _draw(np.minimum(ALTERNATIVES * share, 1), (user, item))
        liked = np.stack([z[user, item] for z in channels], -1)
        return cls(user, item, liked, other, weight, np.stack([z[rows, other] for z in channels], -1))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Blocks of users, one after another."""
        first = np.cumsum([0, *(len(p.other) for p in parts)])
        width = max(p.other.shape[1] for p in parts)

        def padded(p: Self, name: str) -> np.ndarray:
            rows = getattr(p, name)
            return np.pad(rows, [(0, 0), (0, width - rows.shape[1])] + [(0, 0)] * (rows.ndim - 2))

        return cls(
            np.concatenate([p.user + at for p, at in zip(parts, first[:-1], strict=True)]),
            *(np.concatenate([getattr(p, name) for p in parts]) for name in ("item", "liked")),
            *(np.concatenate([padded(p, name) for p in parts]) for name in ("other", "weight", "channels")),
        )

    def of(self, users: np.ndarray) -> Self:
        """The choices of some users, in ascending order."""
        mine = np.isin(self.user, users)
        parts = (self.item[mine], self.liked[mine], self.other[users], self.weight[users], self.channels[users])
        return type(self)(np.searchsorted(users, self.user[mine]), *parts)

    def ndcg(self, weights: np.ndarray, facts: np.ndarray, k: int) -> np.ndarray:
        """NDCG@k of each user (n,) by estimated ranks."""
        c = self.liked.shape[1]
        prior, w = (facts @ weights[c:]).astype(np.float32), weights[:c].astype(np.float32)
        own, others = self.liked @ w + prior[self.item], self.channels @ w + prior[self.other]
        rank = 1 + ((others[self.user] > own[:, None]) * self.weight[self.user]).sum(1)
        found = np.bincount(self.user, np.where(rank <= k, 1 / np.log2(1 + rank), 0), len(self.other))
        length = np.bincount(self.user, minlength=len(self.other))
        ideal = np.concatenate([[1.0], np.cumsum(1 / np.log2(2 + np.arange(k)))])
        return np.minimum(found / ideal[np.minimum(np.where(length > 0, length, 1), k)], 1)


def _draw(chance: np.ndarray, surely: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Systematic sample of each row by inclusion probability, and what is surely in it (rows, columns).

    https://doi.org/10.1214/aoms/1177730456

    Returns:
        Items and inverse probabilities (rows, most drawn), zeros behind a row's last.
    """
    total = np.cumsum(chance.astype(np.float64), 1) + np.random.default_rng(0).random((len(chance), 1))
    drawn = np.diff(np.floor(total), axis=1, prepend=0) > 0
    drawn[surely] = True
    drawn &= chance > 0
    number = drawn.sum(1)
    row, item = np.nonzero(drawn)
    place = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)
    out = np.zeros((len(chance), max(int(number.max(initial=0)), 1)), np.int64)
    weight = np.zeros(out.shape, np.float32)
    out[row, place], weight[row, place] = item, 1 / chance[row, item]
    return out, weight


def fit(choices: Choices, facts: np.ndarray, start: np.ndarray, near: np.ndarray | None = None) -> np.ndarray:
    """Weights (channels + facts,) by Newton's method with step halving; every user counts once.

    Args:
        choices: of the users.
        facts: (items, facts).
        start: weights (channels + facts,) to begin with; the penalty is on the distance from them.
        near: weights to begin with instead; they change the time it takes, and the result by less than a last step.
    """
    likelihood = _Likelihood(choices, facts, start)
    weights = (start if near is None else near).astype(np.float64)
    best, slope, curve = likelihood.at(weights)
    for _ in range(NEWTON_STEPS):
        step, length = np.linalg.solve(curve, slope), 1.0
        found, slope, curve = likelihood.at(weights + step)
        while found < best and length > 1e-3:
            length /= 2
            found, slope, curve = likelihood.at(weights + length * step)
        if found < best:
            break
        weights, gain, best = weights + length * step, found - best, found
        if gain < LEAST_GAIN * len(choices.other):
            break
    return weights


def fit_few(choices: Choices, facts: np.ndarray, start: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights (channels + facts,) as of ``fit``, with zeros for channels that hardly add to the others.

    Backward elimination by Wald's statistic (https://doi.org/10.1090/S0002-9947-1943-0012401-3), and a fit of what is
    left. Few users do not cost channels: what may be lost is a share of a user, not a standard error.

    Args:
        choices: of the users.
        facts: (items, facts).
        start: as for ``fit``.
        weights: what ``fit`` found.
    """
    c, curve = choices.liked.shape[1], _Likelihood(choices, facts, start).at(weights)[2]
    kept, near = _worth_keeping(weights, curve, c, SPARED * len(choices.other))
    few = replace(choices, liked=choices.liked[:, kept], channels=choices.channels[..., kept])
    both, found = np.concatenate([kept, np.arange(c, len(weights))]), np.zeros(len(weights))
    found[both] = fit(few, facts, start[both], near[both])
    return found


def _worth_keeping(
    weights: np.ndarray, curve: np.ndarray, channels: int, spared: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the first channels, at least one, are left when those without cost all of ``spared`` log-likelihood.

    The likelihood is taken as the parabola at its optimum, so that nothing is fitted in between.

    Returns:
        Places of these channels, and all weights at the optimum of the parabola without the others.
    """
    mean, covariance, kept = weights, np.linalg.inv(curve), np.arange(channels)
    while len(kept) > 1:
        costs = mean[kept] ** 2 / covariance[kept, kept] / 2
        spared -= costs.min()
        if spared < 0:
            break
        weakest = kept[costs.argmin()]
        kept, column = kept[kept != weakest], covariance[:, weakest] / covariance[weakest, weakest]
        mean, covariance = mean - column * mean[weakest], covariance - np.outer(column, covariance[weakest])
    return kept, mean


class _Likelihood:
    """Penalized log-likelihood of weights."""

    def __init__(self, choices: Choices, facts: np.ndarray, start: np.ndarray):
        self.choices, self.facts, self.start = choices, facts.astype(np.float32), start
        length = np.bincount(choices.user, minlength=len(choices.other))
        share = 1 / length[choices.user]  # one vote a user, as in the metrics
        self.voters = np.flatnonzero((length > 0) & (choices.weight.sum(1) > 0))
        counted = np.isin(choices.user, self.voters)
        share, liked, item = share[counted], choices.liked[counted], choices.item[counted]
        self.goal = np.concatenate([share @ liked, share @ self.facts[item]]).astype(np.float64)
        self.ridge = np.array([CHANNEL_RIDGE] * liked.shape[1] + [RIDGE] * facts.shape[1])

    def at(self, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient (w,) and minus the second derivative (w, w), by blocks of users."""
        n, c = len(weights), self.choices.liked.shape[1]
        w, prior = weights[:c].astype(np.float32), (self.facts @ weights[c:]).astype(np.float32)
        value, slope, curve = float(self.goal @ weights), self.goal.copy(), np.zeros((n, n))
        size = max(1, BLOCK_NUMBERS // max(self.choices.other.shape[1] * n, 1))
        for a in range(0, len(self.voters), size):
            mine = self.voters[a : a + size]
            z, other, chance = (getattr(self.choices, x)[mine] for x in ("channels", "other", "weight"))
            logit = np.where(chance > 0, z @ w + prior[other], -np.inf)
            top = logit.max(1, keepdims=True)
            likely = np.exp(logit - top) * chance
            total = likely.sum(1, keepdims=True)
            likely /= total
            value -= float((np.log(total.astype(np.float64)) + top).sum())
            known = np.concatenate([z, self.facts[other]], -1) if n > c else z
            expected = (likely[:, None] @ known)[:, 0].astype(np.float64)
            slope -= expected.sum(0)
            share = known * np.sqrt(likely)[..., None]
            flat = share.reshape(-1, n)
            curve += flat.T @ flat - expected.T @ expected
        far = weights - self.start
        value -= 0.5 * float((self.ridge * far**2).sum())
        return value, slope - self.ridge * far, (curve + curve.T) / 2 + np.diag(self.ridge)


def combined(channels: Iterable[np.ndarray], weights: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Weighted channels, at least one, plus what speaks for each item anyway: float32 (users, items)."""
    total = weighted_sum(channels, weights)
    total += prior.astype(np.float32)
    return total
