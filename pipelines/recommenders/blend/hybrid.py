"""The hybrid: all other recommenders stacked on the last days before the night, warm and cold users apart.

Belongs here: segments, what is fitted for each, how scores are combined. Does not: the fit itself (``likelihood``),
where the days are cut (``night.inputs``).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import fields, replace
from typing import Any, ClassVar, Self

import numpy as np

from pipelines.learning.statistics import mean_and_error
from pipelines.recommenders.base import Arrays, Hyperparameters, Inputs, Recommender, Validation
from pipelines.recommenders.blend.facts import ItemFacts
from pipelines.recommenders.blend.few import Few, groups_of, learned, some_known
from pipelines.recommenders.blend.likelihood import Choices, Weights, channel, combined, fit, fit_sparse
from pipelines.recommenders.blend.pooling import Known, Pooling, Scale, gated
from pipelines.recommenders.ranking import (
    MIN_USERS,
    blocks_of,
    events_of,
    is_warm,
    liked_by,
    ndcg_of,
    some_users,
)
from pipelines.recommenders.registry import DOMAINS

SEGMENTS = ("warm", "cold")
SHARE = f"{DOMAINS}.share"  # says the same of all items of a domain
OF_SPACE = "multimodal"  # reads the unified space, which was trained on what worlds take away
SURE = 3.0  # standard errors by which facts must gain: those who validate share their days, which hides how they vary

Parts = tuple[np.ndarray, int]
SURE_OF_OTHERS = 2.0  # standard errors by which what somebody else has made must gain
SURE_OF_DOMAINS = 1.0  # standard errors by which what is said over all domains must gain


class Hybrid(Recommender):
    """Weighted channels of other recommenders plus what speaks for each item anyway; weights by segment of users.

    Stacked generalization (https://doi.org/10.1016/S0893-6080(05)80023-1) with a time split. Channels that hardly add
    to the others weigh nothing for warm users, and are not looked at. Cold users start from what the weights of warm
    ones were before that, and leave out none, so that models that only uploads wake keep a say.

    Args:
        facts: whether facts about items (``facts.ItemFacts``) may take part as covariates.
        credit: whether the report says what each recommender adds to the others.
        without: names of recommenders that are not combined.
        trusted: names of recommenders that are let in whatever the last days say of them.
        pool: whether weights of warm users may depend on events of item and user, and on the domain (``pooling``).

    Attributes:
        models: the recommenders that are combined, fitted on the night.
        report: what the fit has shown, by segment.
    """

    name = "hybrid"
    signed = True
    grid: ClassVar[tuple[Hyperparameters, ...]] = ()

    def __init__(
        self,
        facts: bool = True,
        credit: bool = False,
        without: Sequence[str] = (),
        trusted: Sequence[str] = (),
        pool: bool = False,
    ):
        self.facts = ItemFacts() if facts else None
        self.credit, self.without, self.trusted, self.pool = credit, without, trusted, pool
        self.pooling: Pooling | None = None
        self.few: list[Few] = []
        self.models: list[Recommender] = []
        self.channels_of: dict[str, np.ndarray] = {}
        self.prior: dict[str, np.ndarray] = {}
        self.covariates_of: dict[str, np.ndarray] = {}
        self.report: dict[str, Any] = {}

    def given(self, others: Mapping[str, Recommender]) -> Self:
        """Itself, to combine these."""
        self.models = [m for name, m in others.items() if name not in self.without]
        return self

    @property
    def channel_names(self) -> list[str]:
        """Name of each channel: of its recommender, and of the signal where there are several."""
        return [m.name if s == "score" else f"{m.name}.{s}" for m in self.models for s in m.signals]

    def fit(self, inputs: Inputs) -> Self:
        """Itself, after fitting copies of the models on the time before the last days, and weighing them on these.

        Raises:
            ValueError: the inputs have no validation days.
        """
        if inputs.validation is None:
            raise ValueError("the hybrid is fitted on validation days; inputs.validation is None")
        tonight = self.models
        self.models = self._refitted(inputs.validation.past)
        self.weigh(inputs.validation)
        if self.pool and self.report["warm"]["users"] >= MIN_USERS:
            self.report["warm"]["few"] = self._learn_few(inputs, inputs.validation)
        return self._moved(tonight, inputs)

    def _refitted(self, inputs: Inputs) -> list[Recommender]:
        """Copies of the models, fitted on other inputs."""
        found = dict[str, Recommender]()
        for model in self.models:
            found[model.name] = copy(model).given(found).fit(inputs)
        return list(found.values())

    def _moved(self, models: list[Recommender], inputs: Inputs) -> Self:
        """Itself with the weights that it has, of models that were fitted on these inputs."""
        self.models = models
        if self.facts:
            self._take(self.facts.transform(inputs)[:, : len(self.covariates_of["warm"])])
        if self.pooling:
            self.pooling = replace(self.pooling, events=events_of(inputs))
        return self

    def weigh(self, validation: Validation) -> dict[str, Any]:
        """Fit the weights of each segment; the models are fitted on ``validation.past``.

        Returns:
            What the fit has shown in each segment: users, weights, NDCG@K of each recommender alone and, by estimated
            ranks of those who the weights were fitted on, of the blend.
        """
        relevant, items = validation.relevant, validation.relevant.shape[1]
        covariates = self.facts.fit_transform(validation.past) if self.facts else np.zeros((items, 0), np.float32)
        users = np.flatnonzero(np.diff(relevant.indptr))
        warm = is_warm(validation.past, users)
        ours = self._ours
        start = Weights.even(int(ours.sum()), covariates.shape[1]).at(ours)
        domains = int(validation.past.domains.max(initial=0)) + 1 if self.pool else 1
        self.report, self.pooling, self.few = {}, None, []
        for segment, chosen in zip(SEGMENTS, (users[warm], users[~warm]), strict=True):
            chosen, weights = some_users(chosen, items, domains), start
            if len(chosen) < MIN_USERS:
                shown: dict[str, Any] = {"note": f"fewer than {MIN_USERS} validation users: weights of the start"}
            else:
                choices, alone = self._choices(validation, chosen, start, covariates)
                start, weights, shown = self._fitted(choices, covariates, start, validation.k, segment == "warm")
                shown["ndcg"] |= alone
                if self.pool and segment == "warm":
                    shown["pooled"] = self._pool(validation, choices, chosen, weights, covariates)
            of_channels = zip(self.channel_names, weights.channels.round(4).tolist(), strict=True)
            self.report[segment] = shown | {"users": len(chosen), "weights": dict(of_channels)}
            self.channels_of[segment] = weights.channels.astype(np.float32)
            self.covariates_of[segment] = weights.covariates
        self._take(covariates)
        return self.report

    def _learn_few(self, now: Inputs, validation: Validation) -> list[dict[str, Any]]:
        """Weights of their own for domains of few events, where they surely help; what each group of them gains.

        There are none where sites or other teams have a say, as what they know of a domain cannot be thinned.
        """
        if validation.past.pooled or self.channels_of["warm"][~self._ours].any():
            return []
        share, validation = np.array(self.channel_names) == SHARE, some_known(validation)
        inner = self._ours & ~share & (self._owners != OF_SPACE)
        groups = groups_of(now, validation.past)
        found = [learned(group, validation, self._listen, inner, share) for group in groups]
        self.few = [few for few, _ in found if few]
        return [shown for _, shown in found]

    def _listen(self, inputs: Inputs, thin: np.ndarray) -> Callable[[np.ndarray], list[np.ndarray]]:
        """Channels and scores of some users by models that are fitted on other inputs, where some items are thinned."""
        other = copy(self)._moved(self._refitted(inputs), inputs)
        if other.pooling:  # of a domain that has few events nothing of its own is known
            other.pooling = other.pooling.without(np.unique(inputs.domains[thin]))

        def heard(users: np.ndarray) -> list[np.ndarray]:
            evidence = other.evidence_of(inputs, users)
            channels = list(other.channels(evidence, range(len(other.channel_names))))
            return [*channels, other.blend(evidence, liked_by(inputs, users))]

        return heard

    def _fitted(
        self, choices: Choices, covariates: np.ndarray, start: Weights, k: int, warm: bool
    ) -> tuple[Weights, Weights, dict[str, Any]]:
        """As ``_fit_segment``, of the channels that are let in; the others weigh nothing."""
        let_in = self._let_in(choices, covariates, start, k)
        sizes = {"recent": self.facts.recent, "every": covariates.shape[1]} if self.facts else {}
        some = choices.of_channels(let_in)
        full, weights, shown = _fit_segment(some, covariates, start.of_channels(let_in), k, warm, sizes)
        if self.credit and warm:
            shown["credit"] = self._credit(choices, covariates, start, full, let_in, k)
        return full.at(let_in), weights.at(let_in), shown

    def _pool(
        self, validation: Validation, choices: Choices, users: np.ndarray, weights: Weights, covariates: np.ndarray
    ) -> dict[str, Any]:
        """Let the weights of the channels that are used depend on what is known; what that gains."""
        past, used = validation.past, weights.channels != 0
        events, histories = events_of(past), liked_by(past, users)
        scale = Scale.of(events[choices.item], histories)
        domains = past.domains if len(past.domains) else np.zeros(len(events), np.int64)
        known = Known.of(events, histories, domains, scale)
        some, prior = choices.of_channels(used), weights.prior(covariates)
        pooled, shown = gated(some, known, prior, weights.channels[used], validation.k)
        self.pooling = Pooling(pooled, scale, events, domains) if pooled else None
        return shown

    def _choices(
        self, validation: Validation, users: np.ndarray, start: Weights, covariates: np.ndarray
    ) -> tuple[Choices, dict[str, float]]:
        """What the stack is fitted on, and NDCG@K of each recommender alone, by blocks of users."""
        past, prior = validation.past, start.prior(covariates)
        parts, alone = list[Choices](), list[list[np.ndarray]]()
        for block in blocks_of(users, validation.relevant.shape[1]):
            seen = validation.seen[block] if validation.seen is not None else None
            relevant, evidence = validation.relevant[block], self.evidence_of(past, block)
            channels = list(self.channels(evidence, range(len(start.channels))))
            parts.append(Choices.collect(channels, relevant, seen, start.channels, prior))
            scores = [m.combine(evidence[m.name]) for m in self.models]
            alone.append([ndcg_of(s, relevant, seen, validation.k, past.device) for s in scores])
        means = [round(float(np.concatenate(v).mean()), 5) for v in zip(*alone, strict=True)]
        return Choices.joined(parts), dict(zip([m.name for m in self.models], means, strict=True))

    def _let_in(self, choices: Choices, covariates: np.ndarray, start: Weights, k: int) -> np.ndarray:
        """Bool (channels,): those of our own recommenders and trusted ones, and others that surely help beside ours.

        Others are lists that somebody else has made, and what is said over all domains where each has its own.
        """
        owner, ours, across = self._owners, self._ours, self._across
        groups = [(across, SURE_OF_DOMAINS)] if across.any() else []
        groups += [(owner == name, SURE_OF_OTHERS) for name in dict.fromkeys(owner[~ours])]
        found = base = ours & ~across
        for group, sure in groups:
            mean, error = mean_and_error(_gain(choices, covariates, start, k, (base, 0), (base | group, 0)))
            found = found | group if mean > sure * error or np.isin(owner[group], self.trusted).all() else found
            base = found if group is across else base
        return found

    @property
    def _across(self) -> np.ndarray:
        """Bool (channels,): signals over all domains that a domain has its own of."""
        names = np.array(self.channel_names)
        own = {n.removeprefix(f"{DOMAINS}.") for n in names[self._owners == DOMAINS]}
        return np.isin(names, list(own))

    @property
    def _ours(self) -> np.ndarray:
        """Bool (channels,): those of our own recommenders; where there are none, all."""
        ours = np.array([not m.outside for m in self.models for _ in m.signals])
        return ours if ours.any() else ~ours

    @property
    def _owners(self) -> np.ndarray:
        """Name of the recommender of each channel."""
        return np.array([m.name for m in self.models for _ in m.signals])

    def _credit(
        self, choices: Choices, covariates: np.ndarray, start: Weights, full: Weights, let_in: np.ndarray, k: int
    ) -> dict[str, dict[str, float]]:
        """What each recommender that speaks adds, or would add, to NDCG@k beside all others that are let in.

        The others have weights of their own without it, so that a copy of another one adds nothing.
        """
        used = int(np.flatnonzero(full.covariates).max(initial=-1)) + 1
        shown = {}
        for name in dict.fromkeys(self._owners):
            mine = self._owners == name
            if not choices.speaks(mine):
                continue
            gains = _gain(choices, covariates, start, k, (let_in & ~mine, used), (let_in | mine, used))
            mean, error = mean_and_error(gains)
            shown[name] = {"gain": round(mean, 6), "standard_error": round(error, 6)}
        return shown

    def evidence_of(self, inputs: Inputs, users: np.ndarray) -> dict[str, list[np.ndarray]]:
        """Recommender -> its signals (users, items)."""
        return {m.name: m.evidence(inputs, users) for m in self.models}

    def _take(self, covariates: np.ndarray) -> None:
        self.prior = {s: (covariates @ v).astype(np.float32) for s, v in self.covariates_of.items()}

    def channels(
        self, evidence: Mapping[str, list[np.ndarray]], which: Iterable[int], rows: np.ndarray | slice = slice(None)
    ) -> Iterator[np.ndarray]:
        """Signals by their place in ``channel_names``, of some users, on a scale that adds up; one at a time."""
        signals = [(signal, m) for m in self.models for signal in evidence[m.name]]
        return (s[rows] if m.scaled else channel(s[rows], m.signed) for s, m in (signals[i] for i in which))

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        return self.blend(self.evidence_of(inputs, users), liked_by(inputs, users))

    def blend(self, evidence: Mapping[str, list[np.ndarray]], histories: np.ndarray) -> np.ndarray:
        """Scores (users, items) by the weights of each user's segment; ``histories`` are their lengths (users,)."""
        warm = histories > 0
        if warm.all() or not warm.any():
            return self._blended(evidence, SEGMENTS[0 if warm.all() else 1], slice(None), histories)
        scores = np.empty_like(next(iter(evidence.values()))[0])
        for segment, rows in zip(SEGMENTS, (warm, ~warm), strict=True):
            scores[rows] = self._blended(evidence, segment, rows, histories[rows])
        return scores

    def _blended(
        self, evidence: Mapping[str, list[np.ndarray]], segment: str, rows: np.ndarray | slice, histories: np.ndarray
    ) -> np.ndarray:
        used, prior = np.flatnonzero(self.channels_of[segment]), self.prior[segment]
        channels = self.channels(evidence, used, rows)
        if segment != "warm":
            return combined(channels, self.channels_of[segment][used], prior)
        pooled, weights = self.pooling, self.channels_of[segment][used]
        total = pooled.combined(channels, histories, prior) if pooled else combined(channels, weights, prior)
        for few in self.few:
            total[:, few.items] = few.scores(self.channels(evidence, np.flatnonzero(few.channels), rows))
        return total

    def says(self, segment: str) -> dict[str, float]:
        """Recommender -> sum of the weights of its signals for a segment, of those that add up to more than nothing."""
        names = [m.name for m in self.models for _ in m.signals]
        found = dict.fromkeys(names, 0.0)
        for name, weight in zip(names, self.channels_of[segment].tolist(), strict=True):
            found[name] += weight
        return {name: weight for name, weight in found.items() if weight > 0}

    def heard(self, segment: str) -> set[str]:
        """Names of the recommenders that weigh anything for a segment."""
        weights = [self.channels_of[segment], *(few.channels for few in self.few if segment == "warm")]
        return set(self._owners[np.any(weights, 0)])

    def state(self) -> Arrays:
        """Arrays to store."""
        weights = {f"weights.{s}": w for s, w in self.channels_of.items()}
        pooled = {f"pooled.{k}": v for k, v in self.pooling.state().items()} if self.pooling else {}
        few = {f"few.{n}.{k}": v for n, one in enumerate(self.few) for k, v in one.state().items()}
        return weights | {f"prior.{s}": p for s, p in self.prior.items()} | pooled | few

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Itself, with stored arrays."""
        self.channels_of = {s: state[f"weights.{s}"] for s in SEGMENTS}
        self.prior = {s: state[f"prior.{s}"] for s in SEGMENTS}
        pooled = {k.removeprefix("pooled."): v for k, v in state.items() if k.startswith("pooled.")}
        self.pooling = Pooling.restored(pooled) if pooled else None
        groups = sorted({k.split(".")[1] for k in state if k.startswith("few.")}, key=int)
        self.few = [Few(*(state[f"few.{n}.{f.name}"] for f in fields(Few))) for n in groups]
        return self


def _fit_segment(
    choices: Choices, covariates: np.ndarray, start: Weights, k: int, sparse_channels: bool, sizes: dict[str, int]
) -> tuple[Weights, Weights, dict[str, Any]]:
    """Weights of some users with all channels, weights that are used, and what the fit has shown.

    Covariates get no weight unless they surely help: the first group alone, then all.

    Args:
        choices: of the users.
        covariates: (items, f).
        start: weights to begin with.
        k: list length of the report.
        sparse_channels: channels that hardly add to the others are not used.
        sizes: name -> how many covariates, of groups that begin with the first; each group has the one before it.
    """
    report: dict[str, Any] = {"facts": {}}
    used, every_channel = 0, np.ones(len(start.channels), bool)
    for name, size in sizes.items():
        if size > used:
            gains = _gain(choices, covariates, start, k, (every_channel, used), (every_channel, size))
            mean, error = mean_and_error(gains)
            report["facts"][name] = {"number": size, "ndcg_gain": round(mean, 5), "standard_error": round(error, 5)}
            used = size if mean > SURE * error else used
    every, start = covariates.shape[1], start.cut(used)
    full = fit(choices, covariates[:, :used], start)
    weights = fit_sparse(choices, covariates[:, :used], start, full) if sparse_channels else full
    report["ndcg"] = {"blend": round(float(choices.ndcg(weights, covariates[:, :used], k).mean()), 5)}
    return full.padded(every), weights.padded(every), report


def _gain(choices: Choices, covariates: np.ndarray, start: Weights, k: int, fewer: Parts, more: Parts) -> np.ndarray:
    """What ``more`` adds to NDCG@k of each user beside ``fewer``, by weights of other users (two folds).

    Each is which channels take part, bool (channels,), and how many of the covariates, the first ones.
    """
    gains = []
    for fitted, judged in choices.folds():
        train, test = choices.of(fitted), choices.of(judged)
        values = []
        for kept, size in (more, fewer):
            if not kept.any():
                values.append(np.zeros(len(test.candidate)))
                continue
            some = covariates[:, :size]
            weights = fit(train.of_channels(kept), some, start.of_channels(kept).cut(size))
            values.append(test.of_channels(kept).ndcg(weights, some, k))
        gains.append(values[0] - values[1])
    return np.concatenate(gains)
