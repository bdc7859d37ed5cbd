"""Weights of the stack that depend on how much is known of an item and a user, and on the item's domain.

Belongs here: their likelihood, how strongly domains share (empirical Bayes). Does not: weights that are the same for
all items (``likelihood``), which users they are fitted on (``hybrid``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from pipelines.learning.statistics import mean_and_error
from pipelines.recommenders.base import Arrays
from pipelines.recommenders.blend.likelihood import BLOCK_NUMBERS, CHANNEL_RIDGE, Choices, highest

ROUNDS = 6  # of fits, between which the variances are estimated
LEAST_CHANGE = 0.05  # of a variance, below which they are settled
LEAST_SPREAD = 0.1  # of a logarithm; where all have as many events there is nothing to scale by
HARM = 1.0  # standard errors of a loss, above which a group is left out
FIRST_VARIANCE, LEAST_VARIANCE, NO_VARIANCE = 0.1, 1e-4, 1e-9
LEAST_GAIN = 1e-5  # of log-likelihood a user, below which a step is the last
# what is let in together, one step after another
STEPS = {"levels": ("level", "known"), "items": ("by_item",), "users": ("by_user",), "domains": ("by_domain",)}
GROUPS = tuple(g for groups in STEPS.values() for g in groups)  # of parameters near 0, by a variance of their own


@dataclass(frozen=True, eq=False)
class Scale:
    """Means and standard deviations of log(1 + events), of the items that were liked and of the users who did."""

    item: tuple[float, float]
    user: tuple[float, float]

    @classmethod
    def of(cls, items: np.ndarray, users: np.ndarray) -> Self:
        """Scale of numbers of events, one an observation each."""
        of_items, of_users = (
            (float(x.mean()), float(max(x.std(), LEAST_SPREAD))) for x in map(np.log1p, (items, users))
        )
        return cls(of_items, of_users)


@dataclass(frozen=True, eq=False)
class Known:
    """What weights depend on.

    Attributes:
        items: log(1 + events) of each item (items,), centred and scaled as for the fit.
        users: log(1 + events) of each user (users,), likewise.
        domains: number of each item's domain (items,).
    """

    items: np.ndarray
    users: np.ndarray
    domains: np.ndarray

    @classmethod
    def of(cls, items: np.ndarray, users: np.ndarray, domains: np.ndarray, scale: Scale) -> Self:
        """Of numbers of events."""
        scaled = ((np.log1p(x) - s[0]) / s[1] for x, s in ((items, scale.item), (users, scale.user)))
        of_items, of_users = (x.astype(np.float32) for x in scaled)
        return cls(of_items, of_users, domains)

    def of_rows(self, users: np.ndarray) -> "Known":
        """Of some of the users."""
        return replace(self, users=self.users[users])

    @property
    def number(self) -> int:
        """Domains."""
        return int(self.domains.max(initial=0)) + 1


@dataclass(frozen=True, eq=False)
class PooledWeights:
    """Weights ``w + by_item * x(i) + by_user * x(u) + by_domain[d(i)]`` of each channel; ``known * x(i)`` and a level.

    Attributes:
        base: float64 (c,), of what is known on average.
        by_item: (c,), what a standard deviation more of log(1 + events) of the item adds.
        by_user: (c,), likewise of the user.
        by_domain: (domains, c), what a domain adds.
        level: (domains,), what speaks for all items of a domain.
        known: (1,), what a standard deviation more of log(1 + events) of the item speaks for it.
    """

    base: np.ndarray
    by_item: np.ndarray
    by_user: np.ndarray
    by_domain: np.ndarray
    level: np.ndarray
    known: np.ndarray

    @classmethod
    def even(cls, base: np.ndarray, domains: int) -> Self:
        """The same weights everywhere."""
        nothing = np.zeros(len(base))
        return cls(base, nothing, nothing, np.zeros((domains, len(base))), np.zeros(domains), np.zeros(1))

    def of_items(self, known: Known) -> np.ndarray:
        """Float32 (items, c): weight of each channel for a user with as many events as usual."""
        weights = self.base + known.items[:, None] * self.by_item + self.by_domain[known.domains]
        return np.asarray(weights, np.float32)

    def of_users(self, known: Known) -> np.ndarray:
        """Float32 (users, c): what is added for each user."""
        return np.asarray(known.users[:, None] * self.by_user, np.float32)

    def levels(self, known: Known) -> np.ndarray:
        """Float32 (items,): what speaks for each item by its domain and events."""
        return np.asarray(self.level[known.domains] + self.known * known.items, np.float32)

    def ndcg(self, choices: Choices, known: Known, prior: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """NDCG@k of each user's list (n,), and of every list of one domain in which something is relevant.

        ``known.users`` are the users of the choices; ranks are estimated.
        """
        of_items, of_users, level = self.of_items(known), self.of_users(known), prior + self.levels(known)
        own = (choices.relevant * (of_items[choices.item] + of_users[choices.user])).sum(1) + level[choices.item]
        others = np.stack(
            [
                np.einsum("ac,ac->a", z, of_items[rows] + w) + level[rows]
                for z, rows, w in zip(choices.channels, choices.candidate, of_users, strict=True)
            ]
        )
        within = choices.ndcg_of(own, others, k, known.domains)
        return choices.ndcg_of(own, others, k), within[~np.isnan(within)]

    def flat(self) -> np.ndarray:
        """All of it in one vector."""
        return np.concatenate([getattr(self, f.name).ravel() for f in fields(self)])

    def like(self, flat: np.ndarray) -> "PooledWeights":
        """The same shapes from one vector."""
        parts, at = {}, 0
        for f in fields(self):
            shape = getattr(self, f.name).shape
            size = int(np.prod(shape))
            parts[f.name], at = flat[at : at + size].reshape(shape), at + size
        return PooledWeights(**parts)

    def places(self) -> dict[str, np.ndarray]:
        """Bool vectors like ``flat``: which parameters are of which group."""
        names = np.concatenate([np.full(getattr(self, f.name).size, f.name, object) for f in fields(self)])
        return {f.name: names == f.name for f in fields(self)}


def fit_pooled(
    choices: Choices,
    known: Known,
    prior: np.ndarray,
    base: np.ndarray,
    groups: Sequence[str] = GROUPS,
    variances: Mapping[str, float] | None = None,
    near: PooledWeights | None = None,
) -> tuple[PooledWeights, dict[str, float]]:
    """Weights by penalized likelihood, the penalties by empirical Bayes.

    Every group of parameters is normal around 0 with a variance of its own, which is what makes the choices likeliest
    (Laplace's approximation with MacKay's update, https://doi.org/10.1162/neco.1992.4.3.415): where domains are alike
    they share, and a domain of few users keeps what the others have.

    Args:
        choices: of the users.
        known: of all items, and of the users of the choices.
        prior: (items,) what speaks for each item anyway.
        base: (c,) weights that are the same everywhere, around which ``base`` is.
        groups: those that may differ from 0.
        variances: of the groups, where they are known already.
        near: weights to begin with; they change the time it takes, and the result by less than a last step.

    Returns:
        Weights, and the variance of each group.
    """
    start = PooledWeights.even(base, known.number)
    likelihood, flat, where = _Likelihood(choices, known, prior, start), (near or start).flat(), start.places()
    variance = dict(variances or dict.fromkeys(groups, FIRST_VARIANCE))
    for _ in range(1 if variances else ROUNDS):
        ridge = np.full(len(flat), CHANNEL_RIDGE)
        for group in GROUPS:
            ridge[where[group]] = 1 / variance.get(group, NO_VARIANCE)
        flat, curve = likelihood.best(flat, ridge)
        if variances:
            break
        spread, before = np.diag(np.linalg.inv(curve)), variance
        variance = {g: _variance(flat[where[g]], spread[where[g]], before[g]) for g in groups}
        if all(abs(variance[g] / before[g] - 1) < LEAST_CHANGE for g in groups):
            break
    return start.like(flat), variance


def gated(
    choices: Choices, known: Known, prior: np.ndarray, base: np.ndarray, k: int
) -> tuple[PooledWeights | None, dict[str, Any]]:
    """Weights of all groups but those that do harm, one after another; None where all do.

    Each is judged by NDCG@k of users whom the weights were not fitted on (two folds), in lists of all items and in
    those of one domain: what puts domains into order may spoil the order within them.

    Args:
        choices: of the users, with the channels that weigh anything.
        known: of all items, and of the users of the choices.
        prior: (items,) what speaks for each item anyway.
        base: (c,) weights that are the same everywhere.
        k: length of the lists.

    Returns:
        The weights, and for the report what each group gains beside those before it, with its standard error, and the
        standard deviations of the groups that were let in; ``within`` are lists of one domain.
    """
    shown, used, weights, variances = dict[str, Any](), tuple[str, ...](), None, dict[str, float]()
    values = _judged(choices, known, prior, base, k, variances)
    for name, groups in STEPS.items():
        if name == "domains" and known.number < 2:
            continue
        fitted, found = fit_pooled(choices, known, prior, base, (*used, *groups), near=weights)
        more = _judged(choices, known, prior, base, k, found, fitted)
        gains = [mean_and_error(a - b) for a, b in zip(more, values, strict=True)]
        (mean, error), (within, error_within) = gains
        shown[name] = {"ndcg_gain": round(mean, 5), "standard_error": round(error, 5)}
        shown[name] |= {"within": round(within, 5), "error_within": round(error_within, 5)}
        if all(gain > -HARM * its_error for gain, its_error in gains):
            used, values, weights, variances = (*used, *groups), more, fitted, found
    return weights, shown | {"deviations": {g: round(v**0.5, 4) for g, v in variances.items()}}


def _judged(
    choices: Choices,
    known: Known,
    prior: np.ndarray,
    base: np.ndarray,
    k: int,
    variances: Mapping[str, float],
    near: PooledWeights | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """NDCG@k of lists of all, and of one domain, by weights of other users."""
    found = list[tuple[np.ndarray, np.ndarray]]()
    for fitted, judged in choices.folds():
        some = choices.of(fitted), known.of_rows(fitted), prior, base
        weights, _ = fit_pooled(*some, tuple(variances), variances or None, near)
        found.append(weights.ndcg(choices.of(judged), known.of_rows(judged), prior, k))
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def _variance(values: np.ndarray, spread: np.ndarray, before: float) -> float:
    """Mean square of parameters by as many as the choices tell (posterior variances ``spread``)."""
    told = max(len(values) - float(spread.sum()) / before, 1e-3)
    return max(float(values @ values) / told, LEAST_VARIANCE)


class _Likelihood:
    """Log-likelihood of flat ``PooledWeights``; every user counts once.

    A candidate has values of its own domain alone, so that the work does not grow with the number of domains.
    """

    def __init__(self, choices: Choices, known: Known, prior: np.ndarray, start: PooledWeights):
        self.choices, self.known, self.prior, self.start = choices, known, prior, start
        length = np.bincount(choices.user, minlength=len(choices.candidate))
        self.voters = np.flatnonzero((length > 0) & (choices.weight.sum(1) > 0))
        counted = np.isin(choices.user, self.voters)
        user, item, z = choices.user[counted], choices.item[counted], choices.relevant[counted].astype(np.float64)
        share, domain, (domains, c) = 1.0 / length[user], known.domains[item], start.by_domain.shape
        weighted = z * share[:, None]
        by_domain = np.stack([np.bincount(domain, weighted[:, j], domains) for j in range(c)], 1)
        ours = [weighted.sum(0), known.items[item] @ weighted, known.users[user] @ weighted, by_domain.ravel()]
        ours += [np.bincount(domain, share, domains), [known.items[item] @ share]]
        self.goal = np.concatenate(ours)

    def best(self, flat: np.ndarray, ridge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights under a ridge, and minus the second derivative there."""
        return highest(lambda x: self._at(x, ridge), flat, LEAST_GAIN * len(self.voters))

    def _at(self, flat: np.ndarray, ridge: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and minus the second derivative, by blocks of users."""
        pooled, known = self.start.like(flat), self.known
        of_items, of_users, level = pooled.of_items(known), pooled.of_users(known), self.prior + pooled.levels(known)
        value, slope, curve = float(self.goal @ flat), self.goal.copy(), np.zeros((len(flat),) * 2)
        size = max(1, BLOCK_NUMBERS // (self.choices.candidate.shape[1] * 3 * len(pooled.base)))
        for a in range(0, len(self.voters), size):
            users = self.voters[a : a + size]
            z, candidate, weight = (getattr(self.choices, x)[users] for x in ("channels", "candidate", "weight"))
            logit = np.einsum("nac,nac->na", z, of_items[candidate] + of_users[users, None]) + level[candidate]
            logit = np.where(weight > 0, logit, -np.inf)
            top = logit.max(1, keepdims=True)
            likely = np.exp(logit - top) * weight
            total = likely.sum(1, keepdims=True)
            value -= float((np.log(total.astype(np.float64)) + top).sum())
            events = known.items[candidate][..., None], known.users[users][:, None, None]
            everywhere = np.concatenate([z, z * events[0], z * events[1], events[0]], -1)
            expected = self._spread(likely / total, everywhere, known.domains[candidate], curve)
            slope -= expected.sum(0)
            curve -= expected.T @ expected
        far = flat - self.start.flat()
        value -= 0.5 * float((ridge * far**2).sum())
        return value, slope - ridge * far, (curve + curve.T) / 2 + np.diag(ridge)

    def _spread(self, likely: np.ndarray, everywhere: np.ndarray, domain: np.ndarray, curve: np.ndarray) -> np.ndarray:
        """Expected values (n, parameters) of some users' candidates; adds their second moments to ``curve``.

        Args:
            likely: (n, a) probability of each candidate.
            everywhere: (n, a, 3c + 1) values of the weights that all domains have, those of the channels first.
            domain: (n, a) of each candidate.
            curve: (parameters, parameters).
        """
        domains, c = self.start.by_domain.shape
        shared = np.append(np.arange(3 * c), len(curve) - 1)
        expected = np.zeros((len(likely), len(curve)))
        expected[:, shared] = (likely[:, None] @ everywhere)[:, 0]
        for d in np.unique(domain).tolist():
            own, level = (3 + d) * c + np.arange(c), (3 + domains) * c + d
            mine = np.where(domain == d, likely, 0)
            expected[:, own], expected[:, level] = (mine[:, None] @ everywhere[..., :c])[:, 0], mine.sum(1)
            rows, columns = np.nonzero(mine)
            values = np.concatenate([everywhere[rows, columns], np.ones((len(rows), 1), np.float32)], 1)
            values *= np.sqrt(mine[rows, columns])[:, None]
            gram = (values.T @ values).astype(np.float64)
            places = np.concatenate([shared, [level], own])
            mapped = np.concatenate([np.arange(len(shared) + 1), np.arange(c)])  # a domain's channels are those of all
            curve[np.ix_(places, places)] += gram[np.ix_(mapped, mapped)]
        return expected


@dataclass(frozen=True, eq=False)
class Pooling:
    """Fitted weights with what is known of the night's items.

    Attributes:
        weights: of the channels that are used.
        scale: of events.
        events: number of events of each item (items,).
        domains: number of each item's domain (items,).
    """

    weights: PooledWeights
    scale: Scale
    events: np.ndarray
    domains: np.ndarray

    def combined(self, channels: Iterable[np.ndarray], histories: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """Weighted channels plus what speaks for each item anyway: float32 (users, items).

        Args:
            channels: (users, items) of each of the weights.
            histories: items in the history of each user (users,).
            prior: (items,).
        """
        of_items, levels = self._of_items
        of_users = self.weights.of_users(Known.of(self.events, histories, self.domains, self.scale))
        total = np.tile(prior + levels, (len(histories), 1))
        for c, z in enumerate(channels):
            total += z * (of_items[:, c] + of_users[:, c, None])
        return total

    def without(self, domains: np.ndarray) -> "Pooling":
        """The same with nothing of their own for some domains."""
        by_domain, level = self.weights.by_domain.copy(), self.weights.level.copy()
        by_domain[domains], level[domains] = 0, 0
        return replace(self, weights=replace(self.weights, by_domain=by_domain, level=level))

    @cached_property
    def _of_items(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights of the channels (items, c) and levels (items,), the same for all blocks of users."""
        known = Known.of(self.events, np.zeros(0, np.int64), self.domains, self.scale)
        return self.weights.of_items(known), self.weights.levels(known)

    def state(self) -> Arrays:
        """Arrays to store."""
        of_scale = np.array([*self.scale.item, *self.scale.user])
        return dict(vars(self.weights)) | {"scale": of_scale, "events": self.events, "domains": self.domains}

    @classmethod
    def restored(cls, state: Arrays) -> Self:
        """Stored arrays."""
        item, user = state["scale"].reshape(2, 2).tolist()
        weights = PooledWeights(**{f.name: state[f.name] for f in fields(PooledWeights)})
        return cls(weights, Scale(tuple(item), tuple(user)), state["events"], state["domains"])
