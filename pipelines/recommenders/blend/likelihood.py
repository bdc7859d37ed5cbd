"""Stacking by maximum likelihood: channels of recommenders and covariates of items to one score.

``score(u, i) = sum_c w_c z_c(u, i) + v . f(i)`` with channels z, covariates f and weights w, v; the weights make the
items that users came to like the likely ones among all that they had not seen (conditional logit,
https://eml.berkeley.edu/reprints/mcfadden/zarembka.pdf). Belongs here: scales, the fit. Does not: any recommender, the
covariates (``facts``), which users the weights are fitted on (``hybrid``, ``transfer``).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from scipy import sparse

from pipelines.recommenders.ranking import forbid, standard_scores, weighted_sum

SMOOTHING = 0.05  # share of a row's mean score added before the logarithm
TINY = torch.finfo(torch.float32).tiny  # a mean below counts as none
COVARIATE_RIDGE = 100.0  # in users
CHANNEL_RIDGE = 5.0
NEWTON_STEPS = 25
LEAST_GAIN = 1e-4  # of log-likelihood a user, below which a step is the last
MOST_LOSS = 2e-3  # of log-likelihood a user, which leaving channels out may cost altogether
BLOCK_NUMBERS = 1_000_000  # of one block; it stays in the processor's cache
CANDIDATES = 512  # of each user
TIE = 1e-5  # difference of two scores that rounding may make
SHARPNESS = 2.0  # of the probability to be drawn


def log_ratio(scores: np.ndarray) -> np.ndarray:
    """Natural logarithm of non-negative scores (users, items) by ratio to the row's mean; rows of zeros are level.

    Raises:
        FloatingPointError: a score is not finite.
    """
    positive = torch.from_numpy(scores).clamp(min=0)
    mean = positive.sum(1, keepdim=True) / max(positive.shape[1], 1)
    if not mean.isfinite().all():
        raise FloatingPointError("a recommender's score is not finite; scores cannot be combined")
    ratio = positive.mul_(torch.where(mean < TINY, 0, 1 / mean)).add_(SMOOTHING)
    return ratio.log_().numpy()


def channel(scores: np.ndarray, signed: bool) -> np.ndarray:
    """A recommender's scores (users, items) on a scale that adds up with others'."""
    return standard_scores(scores) if signed else log_ratio(scores)


@dataclass(frozen=True, eq=False)
class Weights:
    """Parameters of the stack.

    Attributes:
        channels: float64 (c,) weight of each channel.
        covariates: float64 (f,) weight of each covariate.
    """

    channels: np.ndarray
    covariates: np.ndarray

    @classmethod
    def even(cls, channels: int, covariates: int) -> Self:
        """All channels the same, no covariate."""
        return cls(np.full(channels, 1 / channels), np.zeros(covariates))

    def prior(self, covariates: np.ndarray) -> np.ndarray:
        """Float32 (items,): what speaks for each item by its covariates (items, f)."""
        return (covariates @ self.covariates).astype(np.float32)

    def cut(self, covariates: int) -> "Weights":
        """The same with the first covariates alone."""
        return Weights(self.channels, self.covariates[:covariates])

    def of_channels(self, kept: np.ndarray) -> "Weights":
        """The same of some channels."""
        return Weights(self.channels[kept], self.covariates)

    def at(self, kept: np.ndarray) -> "Weights":
        """Weights of more channels, of which these are those that are ``kept`` (bool) and the others 0."""
        channels = np.zeros(len(kept))
        channels[kept] = self.channels
        return Weights(channels, self.covariates)

    def padded(self, covariates: int) -> "Weights":
        """The same with weights of zero for further covariates."""
        return Weights(self.channels, np.pad(self.covariates, (0, covariates - len(self.covariates))))

    def flat(self) -> np.ndarray:
        """Both in one vector (c + f,), channels first."""
        return np.concatenate([self.channels, self.covariates]).astype(np.float64)

    def like(self, flat: np.ndarray) -> "Weights":
        """Weights of the same shape from one vector."""
        c = len(self.channels)
        return Weights(flat[:c], flat[c:])


@dataclass(frozen=True)
class Choices:
    """What some users came to like, and a weighted sample of what they could have liked.

    Candidates are drawn by inclusion probability, the likely ones surely, and weigh its inverse (Horvitz-Thompson,
    https://doi.org/10.1080/01621459.1952.10483446); what is relevant is always among them, at the weight that it would
    have had by chance, which leaves the fit consistent (McFadden 1978, Modelling the choice of residential location).

    Attributes:
        user: (p,) user of each relevant item, in order.
        item: (p,) relevant items.
        relevant: float32 (p, channels) of them.
        candidate: (n, a) items that user n could have liked.
        weight: float32 (n, a), 0 where the row is padded.
        channels: float32 (n, a, channels) of the candidates.
    """

    user: np.ndarray
    item: np.ndarray
    relevant: np.ndarray
    candidate: np.ndarray
    weight: np.ndarray
    channels: np.ndarray

    @classmethod
    def collect(
        cls,
        channels: list[np.ndarray],
        relevant: sparse.csr_matrix,
        seen: sparse.csr_matrix | None,
        start: np.ndarray,
        prior: np.ndarray,
    ) -> Self:
        """Draw candidates of a block of users.

        Args:
            channels: scaled scores (users, items) of each signal.
            relevant: nonzero (users, items) that the users came to like.
            seen: nonzero (users, items) that are no candidates, or None.
            start: weights (channels,) that say which items are likely.
            prior: (items,) what speaks for each item anyway.

        Raises:
            FloatingPointError: a score is not finite.
        """
        logit = SHARPNESS * combined(channels, start, prior)
        if not np.isfinite(logit).all():
            raise FloatingPointError("a recommender's score is not finite; the stack cannot be fitted")
        forbid(logit, seen)
        likely = np.exp(logit - logit.max(1, keepdims=True))
        share = np.where(likely > 0, (likely / likely.sum(1, keepdims=True) + 1 / likely.shape[1]) / 2, 0)
        user = np.repeat(np.arange(len(share)), np.diff(relevant.indptr))
        item, rows = relevant.indices.astype(np.int64), np.arange(len(share))[:, None]
        candidate, weight = _draw(np.minimum(CANDIDATES * share, 1), (user, item))
        of_relevant = np.stack([z[user, item] for z in channels], -1)
        return cls(user, item, of_relevant, candidate, weight, np.stack([z[rows, candidate] for z in channels], -1))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Blocks of users, one after another."""
        first = np.cumsum([0, *(len(p.candidate) for p in parts)])
        width = max(p.candidate.shape[1] for p in parts)

        def padded(p: Self, name: str) -> np.ndarray:
            rows = getattr(p, name)
            return np.pad(rows, [(0, 0), (0, width - rows.shape[1])] + [(0, 0)] * (rows.ndim - 2))

        return cls(
            np.concatenate([p.user + at for p, at in zip(parts, first[:-1], strict=True)]),
            *(np.concatenate([getattr(p, name) for p in parts]) for name in ("item", "relevant")),
            *(np.concatenate([padded(p, name) for p in parts]) for name in ("candidate", "weight", "channels")),
        )

    def of(self, users: np.ndarray) -> Self:
        """The choices of some users, in ascending order."""
        kept = np.isin(self.user, users)
        rows = (self.candidate[users], self.weight[users], self.channels[users])
        return type(self)(np.searchsorted(users, self.user[kept]), self.item[kept], self.relevant[kept], *rows)

    def folds(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Users to fit on and users to judge by, ascending: two halves, as good as drawn, and the same turned round."""
        order = np.random.default_rng(0).permutation(len(self.candidate))
        halves = np.sort(order[::2]), np.sort(order[1::2])
        return halves, halves[::-1]

    def of_channels(self, kept: np.ndarray) -> Self:
        """The same with some of the channels (bool, or places); itself with all."""
        if kept.dtype == bool and kept.all():
            return self
        return replace(self, relevant=self.relevant[:, kept], channels=self.channels[..., kept])

    def speaks(self, kept: np.ndarray) -> bool:
        """Whether some channels (bool) tell any user's candidates apart."""
        values, drawn = self.channels[..., kept], (self.weight > 0)[..., None]
        return bool((np.where(drawn, values, -np.inf).max(1) > np.where(drawn, values, np.inf).min(1) + TIE).any())

    def ndcg(self, weights: Weights, covariates: np.ndarray, k: int) -> np.ndarray:
        """NDCG@k of each user (n,) by estimated ranks."""
        prior, w = weights.prior(covariates), weights.channels.astype(np.float32)
        return self.ndcg_of(self.relevant @ w + prior[self.item], self.channels @ w + prior[self.candidate], k)

    def ndcg_of(self, own: np.ndarray, others: np.ndarray, k: int, domains: np.ndarray | None = None) -> np.ndarray:
        """NDCG@k of each user (n,) by scores of what is relevant (p,) and of the candidates (n, a).

        Ranks are estimated; half of what ties with an item stands before it. With the domain of each item (items,) it
        is that of each user's list of every domain (n * domains,), NaN where nothing in it is relevant.
        """
        ahead, of_list, lists = others[self.user] - own[:, None], self.user, len(self.candidate)
        weight = self.weight[self.user]
        if domains is not None:
            weight = np.where(domains[self.candidate[self.user]] == domains[self.item][:, None], weight, 0)
            number = int(domains.max(initial=0)) + 1
            of_list, lists = self.user * number + domains[self.item], lists * number
        tied = (np.abs(ahead) <= TIE) & (self.candidate[self.user] != self.item[:, None])
        rank = 1 + ((np.where(ahead > TIE, 1.0, 0.0) + tied / 2) * weight).sum(1)
        gain = np.bincount(of_list, np.where(rank <= k, 1 / np.log2(1 + rank), 0), lists)
        length = np.bincount(of_list, minlength=lists)
        ideal = np.concatenate([[1.0], np.cumsum(1 / np.log2(2 + np.arange(k)))])
        found = np.minimum(gain / ideal[np.minimum(np.where(length > 0, length, 1), k)], 1)
        return found if domains is None else np.where(length > 0, found, np.nan)


def _draw(probability: np.ndarray, surely: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Systematic sample of each row by inclusion probability, and what is surely in it (rows, columns).

    https://doi.org/10.1214/aoms/1177730456

    Returns:
        Items and inverse probabilities (rows, most drawn), zeros behind a row's last.
    """
    total = np.cumsum(probability.astype(np.float64), 1) + np.random.default_rng(0).random((len(probability), 1))
    drawn = np.diff(np.floor(total), axis=1, prepend=0) > 0
    drawn[surely] = True
    drawn &= probability > 0
    number = drawn.sum(1)
    row, item = np.nonzero(drawn)
    place = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)
    items = np.zeros((len(probability), max(int(number.max(initial=0)), 1)), np.int64)
    weight = np.zeros(items.shape, np.float32)
    items[row, place], weight[row, place] = item, 1 / probability[row, item]
    return items, weight


def fit(
    choices: Choices,
    covariates: np.ndarray,
    start: Weights,
    near: Weights | None = None,
    ridge: float = CHANNEL_RIDGE,
) -> Weights:
    """Weights by Newton's method with step halving; every user counts once.

    Args:
        choices: of the users.
        covariates: (items, f).
        start: weights to begin with; the penalty is on the distance from them.
        near: weights to begin with instead; they change the time it takes, and the result by less than a last step.
        ridge: of the channels, in users.
    """
    likelihood, least = _Likelihood(choices, covariates, start, ridge), LEAST_GAIN * len(choices.candidate)
    return start.like(highest(likelihood.at, (near or start).flat(), least)[0])


def highest(
    at: Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]], flat: np.ndarray, least_gain: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where a concave function is highest, by Newton's method with step halving.

    Args:
        at: value, gradient (w,) and minus the second derivative (w, w) at a point.
        flat: where to begin (w,).
        least_gain: of value, below which a step is the last.

    Returns:
        The point, and minus the second derivative there.
    """
    best, slope, curve = at(flat)
    for _ in range(NEWTON_STEPS):
        step, length = np.linalg.solve(curve, slope), 1.0
        found = at(flat + step)
        while found[0] < best and length > 1e-3:
            length /= 2
            found = at(flat + length * step)
        if found[0] < best:
            break
        gain, flat = found[0] - best, flat + length * step
        best, slope, curve = found
        if gain < least_gain:
            break
    return flat, curve


def fit_sparse(
    choices: Choices, covariates: np.ndarray, start: Weights, weights: Weights, ridge: float = CHANNEL_RIDGE
) -> Weights:
    """Weights as of ``fit``, with zeros for channels that hardly add to the others.

    Backward elimination by Wald's statistic (https://doi.org/10.1090/S0002-9947-1943-0012401-3), and a fit of what is
    left. Few users do not cost channels: what may be lost is a share of a user, not a standard error.

    Args:
        choices: of the users.
        covariates: (items, f).
        start: as for ``fit``.
        weights: what ``fit`` returned.
        ridge: as for ``fit``.
    """
    curve = _Likelihood(choices, covariates, start, ridge).at(weights.flat())[2]
    kept, near = _worth_keeping(weights, curve, MOST_LOSS * len(choices.candidate))
    fewer = choices.of_channels(kept)
    fitted = fit(
        fewer,
        covariates,
        start.of_channels(kept),
        near.of_channels(kept),
        ridge,
    )
    channels = np.zeros(len(weights.channels))
    channels[kept] = fitted.channels
    return Weights(channels, fitted.covariates)


def _worth_keeping(weights: Weights, curve: np.ndarray, most_loss: float) -> tuple[np.ndarray, Weights]:
    """Which channels, at least one, are left when those without cost all of ``most_loss`` log-likelihood.

    The likelihood is taken as the parabola at its optimum, so that nothing is fitted in between.

    Returns:
        Places of these channels, and the weights at the optimum of the parabola without the others.
    """
    mean, covariance, kept = weights.flat(), np.linalg.inv(curve), np.arange(len(weights.channels))
    while len(kept) > 1:
        costs = mean[kept] ** 2 / covariance[kept, kept] / 2
        most_loss -= costs.min()
        if most_loss < 0:
            break
        weakest = kept[costs.argmin()]
        kept, column = kept[kept != weakest], covariance[:, weakest] / covariance[weakest, weakest]
        mean, covariance = mean - column * mean[weakest], covariance - np.outer(column, covariance[weakest])
    return kept, weights.like(mean)


class _Likelihood:
    """Penalized log-likelihood of flat weights."""

    def __init__(self, choices: Choices, covariates: np.ndarray, start: Weights, ridge: float = CHANNEL_RIDGE):
        self.choices, self.covariates, self.start = choices, covariates.astype(np.float32), start
        length = np.bincount(choices.user, minlength=len(choices.candidate))
        share = 1 / length[choices.user]  # one vote a user, as in the metrics
        self.voters = np.flatnonzero((length > 0) & (choices.weight.sum(1) > 0))
        counted = np.isin(choices.user, self.voters)
        share, relevant, item = share[counted], choices.relevant[counted], choices.item[counted]
        self.goal = np.concatenate([share @ relevant, share @ self.covariates[item]]).astype(np.float64)
        self.ridge = np.array([ridge] * relevant.shape[1] + [COVARIATE_RIDGE] * covariates.shape[1])

    def at(self, flat: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient (w,) and minus the second derivative (w, w), by blocks of users."""
        weights, n = self.start.like(flat), len(flat)
        w, prior = weights.channels.astype(np.float32), weights.prior(self.covariates)
        value, slope, curve = float(self.goal @ flat), self.goal.copy(), np.zeros((n, n))
        size = max(1, BLOCK_NUMBERS // max(self.choices.candidate.shape[1] * n, 1))
        for a in range(0, len(self.voters), size):
            users = self.voters[a : a + size]
            z, candidate, weight = (getattr(self.choices, x)[users] for x in ("channels", "candidate", "weight"))
            logit = np.where(weight > 0, z @ w + prior[candidate], -np.inf)
            top = logit.max(1, keepdims=True)
            likely = np.exp(logit - top) * weight
            total = likely.sum(1, keepdims=True)
            likely /= total
            value -= float((np.log(total.astype(np.float64)) + top).sum())
            known = np.concatenate([z, self.covariates[candidate]], -1) if n > len(w) else z
            expected = (likely[:, None] @ known)[:, 0].astype(np.float64)
            slope -= expected.sum(0)
            spread = (known * np.sqrt(likely)[..., None]).reshape(-1, n)
            curve += spread.T @ spread - expected.T @ expected
        far = flat - self.start.flat()
        value -= 0.5 * float((self.ridge * far**2).sum())
        return value, slope - self.ridge * far, (curve + curve.T) / 2 + np.diag(self.ridge)


def combined(channels: Iterable[np.ndarray], weights: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Weighted channels, at least one, plus what speaks for each item anyway: float32 (users, items)."""
    total = weighted_sum(channels, weights)
    total += prior.astype(np.float32)
    return total
