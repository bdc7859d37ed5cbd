"""Weights within domains of few events, learned from other domains that are thinned until as little is known of them.

Belongs here: which domains have few events, what is thinned, the weights and their gate. Does not: weights of domains
with enough events (``pooling``), fitting recommenders on what is left (``hybrid``).
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy import sparse

from encoders.space.ragged import Ragged
from pipelines.learning.statistics import mean_and_error
from pipelines.recommenders.base import Arrays, Inputs, Validation
from pipelines.recommenders.blend.likelihood import Choices, Weights, fit, fit_sparse
from pipelines.recommenders.matrices import unit_or_zero
from pipelines.recommenders.ranking import blocks_of, events_of, weighted_sum

log = logging.getLogger(__name__)

FEW_EVENTS = 10_000  # of a domain, below which its weights are those of thinned domains
RICHER = 2.0  # times as many events an item that a domain has at least to be thinned
LEAST_ITEMS = 10  # of a domain that is thinned, and of those of few events
WORLDS = (4, 16)  # fewest and most, with half of the domains thinned in each
WORLD_EVENTS = 4000  # of domains of few events times worlds: which events are left varies more than which users judge
JUDGES = 1600  # users who judge in all worlds together
RIDGE = 30.0  # of the weights, in users; those of one world share which events are left
MOST_USERS = 50_000  # whose histories are known in a world
SURE, HARM = 2.0, 3.0  # standard errors over worlds by which lists of a domain must gain, and lists of all may lose
LEAST = 0.001  # of NDCG that lists of a domain must gain

Listen = Callable[[Inputs, np.ndarray], Callable[[np.ndarray], list[np.ndarray]]]


@dataclass(frozen=True, eq=False)
class Few:
    """What scores items of domains with few events.

    Attributes:
        channels: float32 (c,) weight of each channel.
        level: float32 (), what speaks for all of the items.
        items: their rows (m,).
    """

    channels: np.ndarray
    level: np.ndarray
    items: np.ndarray

    def scores(self, channels: Iterable[np.ndarray]) -> np.ndarray:
        """Float32 (users, m), of those channels (users, items) that weigh anything."""
        used = self.channels[self.channels != 0]
        return weighted_sum((np.ascontiguousarray(z[:, self.items]) for z in channels), used) + self.level

    def state(self) -> Arrays:
        """Arrays to store."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Group:
    """Domains of few events, as many an item by order of magnitude.

    Attributes:
        domains: their numbers.
        events: all of theirs.
        items: bool (items,), True for theirs.
        richer: numbers of domains that can be thinned to as few.
    """

    domains: np.ndarray
    events: int
    items: np.ndarray
    richer: np.ndarray

    @property
    def number(self) -> int:
        """Worlds, whole fours."""
        fewest, most = WORLDS
        return int(np.clip(4 * np.ceil(WORLD_EVENTS / max(self.events, 1) / 4), fewest, most))

    def worlds(self, past: Inputs) -> Iterator[tuple[Inputs, np.ndarray]]:
        """What is known where half of the richer domains have as few events an item, the one half and the other.

        Yields:
            Inputs, and which items are of thinned domains, bool (items,).
        """
        for number in range(self.number):
            log.info("domains %s of %d events: world %d of %d", self.domains, self.events, number + 1, self.number)
            order = np.random.default_rng(number // 2).permutation(self.richer)
            domains = order[number % 2 :: 2]
            yield thinned(past, domains, self.events / self.items.sum(), number), np.isin(past.domains, domains)


def groups_of(now: Inputs, past: Inputs) -> list[Group]:
    """Domains of few events that there are two richer ones for.

    Args:
        now: what is known tonight, of which domains have few events.
        past: what is known of those that are thinned.
    """
    if not len(now.domains):
        return []
    size = np.bincount(now.domains)
    events, of_past = (np.bincount(now.domains, events_of(x), len(size)) for x in (now, past))
    density, dense = events / np.maximum(size, 1), of_past / np.maximum(size, 1)
    few = (size > 0) & (events < FEW_EVENTS)
    order = np.floor(np.log10(np.maximum(density, 0.01)))
    groups = []
    for one in np.unique(order[few]):
        mine = np.flatnonzero(few & (order == one))
        items = np.isin(now.domains, mine)
        least = RICHER * max(events[mine].sum(), 1) / items.sum()
        richer = np.setdiff1d(np.flatnonzero((size >= LEAST_ITEMS) & (dense >= least)), mine)
        if len(richer) >= 2 and items.sum() >= LEAST_ITEMS:
            groups.append(Group(mine, int(events[mine].sum()), items, richer))
    return groups


def some_known(validation: Validation) -> Validation:
    """The same where the past is that of ``MOST_USERS`` users at most."""
    users = validation.past.positives.shape[0]
    if users <= MOST_USERS:
        return validation
    known = np.zeros(users, bool)
    known[np.random.default_rng(0).permutation(users)[:MOST_USERS]] = True
    rows = np.repeat(np.arange(users), np.diff(validation.past.positives.indptr))
    return replace(validation, past=_left(validation.past, known[rows]))


def thinned(past: Inputs, domains: np.ndarray, events: float, seed: int) -> Inputs:
    """The same where some domains keep so many events an item, drawn by chance; ``past.domains`` are as they were."""
    rng, domain = np.random.default_rng(seed), past.domains[past.positives.indices]
    kept = np.ones(len(domain), bool)
    for one in domains:
        mine = rng.permutation(np.flatnonzero(domain == one))
        kept[mine[round(events * np.count_nonzero(past.domains == one)) :]] = False
    return _left(past, kept)


def _left(past: Inputs, kept: np.ndarray) -> Inputs:
    """The same with some entries of its history alone (bool)."""
    rows = np.repeat(np.arange(past.positives.shape[0]), np.diff(past.positives.indptr))
    pairs = past.positives.data[kept], (rows[kept], past.positives.indices[kept])
    positives = sparse.csr_matrix(pairs, shape=past.positives.shape)
    share = positives.getnnz(0) / np.maximum(past.positives.getnnz(0), 1)
    return replace(
        past,
        positives=positives,
        user_vectors=_vectors(past, positives),
        has_signal=np.diff(positives.indptr) > 0,
        histories=_histories(past.histories, positives),
        recent=past.recent * share[:, None].astype(np.float32) if len(past.recent) else past.recent,
    )


def _histories(histories: Ragged, positives: sparse.csr_matrix) -> Ragged:
    """Of what is left of the positives."""
    if not len(histories):
        return histories
    left = np.asarray((positives != 0)[histories.owner, histories.values]).ravel()
    return Ragged.grouped(histories.owner[left], histories.values[left], len(histories))


def _vectors(past: Inputs, positives: sparse.csr_matrix) -> np.ndarray:
    """Vectors of users who lost something are means of what they have left, and zero where that is nothing."""
    left = np.diff(positives.indptr)
    lost = np.diff(past.positives.indptr) > left
    vectors = past.user_vectors.copy()
    if len(vectors):
        vectors[lost] = 0
        some = np.flatnonzero(lost & (left > 0))
        vectors[some] = unit_or_zero(positives[some] @ past.fused)
    return vectors


@dataclass(frozen=True, eq=False)
class World:
    """Choices of users where some domains are thinned; their last channel is the score of the hybrid as it is.

    Attributes:
        within: of lists of one thinned domain, a row each.
        whole: of lists of all items.
        thin: bool (items,), True for items of thinned domains.
    """

    within: Choices
    whole: Choices
    thin: np.ndarray

    @classmethod
    def of(
        cls, inputs: Inputs, thin: np.ndarray, validation: Validation, listen: Listen, seed: int, most: int
    ) -> Self | None:
        """Of at most so many users with a history who like items of thinned domains, and of as many with any taste.

        Within a thinned domain users come to like what they have lost, too: of a new domain nothing was met before.
        None where there are no such users.
        """
        rng, warm = np.random.default_rng(seed), np.diff(inputs.positives.indptr) > 0
        inside = sparse.diags_array(thin.astype(np.float32))
        wanted = ((validation.past.positives - inputs.positives + validation.relevant) @ inside).tocsr()
        wanted.eliminate_zeros()
        fond, all_users = (
            np.sort(rng.permutation(np.flatnonzero((np.diff(m.indptr) > 0) & warm))[:most])
            for m in (wanted, validation.relevant)
        )
        if not len(fond) or not len(all_users):
            return None
        columns = [np.flatnonzero(thin & (inputs.domains == d)) for d in np.unique(inputs.domains[thin])]
        within, whole, heard = list[Choices](), list[Choices](), listen(inputs, thin)
        for block in blocks_of(fond, len(thin)):
            channels, met = heard(block), None if validation.seen is None else inputs.positives[block]
            within += [c for items in columns for c in _of_items(channels, wanted[block], met, items)]
        for block in blocks_of(all_users, len(thin)):
            channels = heard(block)
            later, seen = validation.relevant[block], None if validation.seen is None else validation.seen[block]
            whole.append(Choices.collect(channels, later, seen, np.eye(len(channels))[-1], np.zeros(len(thin))))
        return cls(Choices.joined(within), Choices.joined(whole), thin)

    def placed(self, weights: np.ndarray, placing: np.ndarray) -> Choices:
        """Lists of all by the hybrid's score elsewhere, that of ``weights`` in thinned domains, and what places these.

        Args:
            weights: (c,) within thinned domains.
            placing: bool (c,), channels that say the same of all items of a domain.
        """

        def of(values: np.ndarray, items: np.ndarray) -> np.ndarray:
            inside, channels = self.thin[items].astype(np.float32), values[..., :-1]
            parts = [values[..., -1] * (1 - inside), channels @ weights.astype(np.float32) * inside, inside]
            return np.stack([*parts, *np.moveaxis(channels[..., placing] * inside[..., None], -1, 0)], -1)

        whole = self.whole
        return replace(whole, relevant=of(whole.relevant, whole.item), channels=of(whole.channels, whole.candidate))


def _of_items(
    channels: list[np.ndarray], wanted: sparse.csr_matrix, met: sparse.csr_matrix | None, items: np.ndarray
) -> list[Choices]:
    """Choices of some items by those users who like one of them, if any does."""
    wanted = wanted[:, items].tocsr()
    rows, number = np.flatnonzero(np.diff(wanted.indptr)), len(channels) - 1
    if not len(rows):
        return []
    own = [np.ascontiguousarray(z[np.ix_(rows, items)]) for z in channels]
    start = np.append(np.full(number, 1 / number), 0)
    there = None if met is None else met[rows][:, items].tocsr()
    return [Choices.collect(own, wanted[rows], there, start, np.zeros(len(items)))]


def learned(
    group: Group, validation: Validation, listen: Listen, inner: np.ndarray, placing: np.ndarray
) -> tuple[Few | None, dict[str, Any]]:
    """Weights for a group of domains; None where they would not surely help thinned domains.

    Half of the richer domains are thinned, all recommenders are fitted on what is left, and the weights are those that
    make likely what users came to like of thinned domains: episodes of learning from few examples, as in
    https://arxiv.org/abs/1606.04080. They are judged in other worlds than they were fitted in.

    Args:
        group: the domains.
        validation: what users came to like.
        listen: fits recommenders on what is known where some items are thinned, and says the channels (c, and the
            hybrid's score) of some users.
        inner: bool (c,), channels that may weigh something within a domain.
        placing: bool (c,), channels that say the same of all items of a domain.

    Returns:
        The weights, and for the report what they gain in NDCG@k within thinned domains and in lists of all, with
        standard errors over worlds.
    """
    found = [
        World.of(inputs, thin, validation, listen, seed, JUDGES // group.number)
        for seed, (inputs, thin) in enumerate(group.worlds(validation.past))
    ]
    worlds = [w for w in found if w is not None]
    shown: dict[str, Any] = {"domains": group.domains.tolist(), "events": group.events, "worlds": len(worlds)}
    halves = [[w for n, w in enumerate(found) if w is not None and n // 2 % 2 == part] for part in (0, 1)]
    if not all(halves):
        return None, shown
    gains = list[tuple[float, float]]()
    for fold, others in (halves, halves[::-1]):
        fitted = _fitted(fold, inner, placing)
        gains += [_gains(world, fitted, placing, validation.k) for world in others]
    (within, error_within), (mean, error) = (mean_and_error(np.array(g)) for g in zip(*gains, strict=True))
    shown |= {"ndcg_gain": round(mean, 5), "standard_error": round(error, 5)}
    shown |= {"within": round(within, 5), "error_within": round(error_within, 5)}
    weights, (normal, scale, level, *rest) = _fitted(worlds, inner, placing)
    if within < max(LEAST, SURE * error_within) or mean < -HARM * error or min(normal, scale) <= 0:
        return None, shown
    channels = weights * scale
    channels[placing] = rest
    return Few(
        (channels / normal).astype(np.float32), np.array(level / normal, np.float32), np.flatnonzero(group.items)
    ), shown


def _fitted(worlds: Sequence[World], inner: np.ndarray, placing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (c,) within thinned domains; and of the hybrid's score, theirs, their level and the placing channels."""
    choices = Choices.joined([w.within for w in worlds]).of_channels(np.append(inner, False))
    start, nothing = Weights.even(int(inner.sum()), 0), np.zeros((len(worlds[0].thin), 0), np.float32)
    full = fit(choices, nothing, start, ridge=RIDGE)
    fewer = fit_sparse(choices, nothing, start, full, RIDGE).at(inner).channels
    placed = Choices.joined([w.placed(fewer, placing) for w in worlds])
    first = np.array([1.0, 1.0, 0.0, *np.zeros(placing.sum())])
    return fewer, fit(placed, nothing, Weights(first, np.zeros(0))).channels


def _gains(world: World, fitted: tuple[np.ndarray, np.ndarray], placing: np.ndarray, k: int) -> tuple[float, float]:
    """What weights add to NDCG@k within thinned domains and in lists of all, on average."""
    inside, outside = fitted
    nothing, hybrid = np.zeros((len(world.thin), 0), np.float32), np.append(np.zeros(len(inside)), 1)

    def value(choices: Choices, channels: np.ndarray) -> float:
        return float(choices.ndcg(Weights(channels, np.zeros(0)), nothing, k).mean())

    within = value(world.within, np.append(inside, 0)) - value(world.within, hybrid)
    return within, value(world.placed(inside, placing), outside) - value(world.whole, hybrid)
