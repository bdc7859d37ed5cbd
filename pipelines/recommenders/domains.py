"""Recommenders of each domain alone, and how much of a history is in it; what they weigh is up to the hybrid.

Belongs here: what is fitted within a domain. Does not: which items are one (``pipelines.night.inputs``), weights by
domain (``blend.pooling``).
"""

from typing import ClassVar, Self

import numpy as np
from scipy import sparse

from pipelines.recommenders.base import Arrays, Hyperparameters, Inputs, Recommender
from pipelines.recommenders.blend.likelihood import channel
from pipelines.recommenders.graph import GraphFilter
from pipelines.recommenders.linear import ALS, Ease
from pipelines.recommenders.neighbours import ItemCF, Popularity, UserCF

ALONE = 0.5  # items that every domain has in every history, so that a share is never 0


class Walks(GraphFilter):
    """Walks over interactions alone."""

    signals = ("R", "RR", "RRR")


BASES: dict[str, type[Recommender]] = {
    "popularity": Popularity,
    "user_cf": UserCF,
    "item_cf": ItemCF,
    "ease": Ease,
    "als": ALS,
    "graph": Walks,
}
ITEM_CF = list(BASES).index("item_cf")


class Domains(Recommender):
    """Popularity, neighbours, factors and walks of every domain by itself.

    A history in one domain says nothing of another here; that is what the recommenders over all domains say. ``share``
    is the logarithm of a domain's share in the user's history, alike for all of its items. All signals are on a scale
    that adds up (``likelihood.channel``), by user and domain.
    """

    name = "domains"
    signed = True
    scaled = True
    signals = ("share", *(f"{n}.{s}" if len(b.signals) > 1 else n for n, b in BASES.items() for s in b.signals))
    grid: ClassVar[tuple[Hyperparameters, ...]] = ()

    def __init__(self) -> None:
        self.whole: sparse.csr_matrix | None = None

    def fit(self, inputs: Inputs) -> Self:
        """Fit a copy of each in every domain."""
        self.of_item = inputs.domains if len(inputs.domains) else np.zeros(inputs.positives.shape[1], np.int64)
        self.whole = None
        self.models = [[base().fit(own) for base in BASES.values()] for own in self._apart(inputs)]
        return self

    @property
    def number(self) -> int:
        """Domains."""
        return int(self.of_item.max(initial=-1)) + 1

    def _apart(self, inputs: Inputs) -> list[Inputs]:
        """What is known of each domain alone, of the users who like anything in it, and last of nobody."""
        if self.whole is not inputs.positives:
            columns, self.own, self.row_of = inputs.positives.tocsc(), list[Inputs](), list[np.ndarray]()
            for domain in range(self.number):
                part = columns[:, self.of_item == domain].tocsr()
                users = np.flatnonzero(np.diff(part.indptr))
                row = np.full(part.shape[0], len(users))
                row[users] = np.arange(len(users))
                nobody = sparse.csr_matrix((1, part.shape[1]), dtype=part.dtype)
                self.own.append(Inputs(sparse.vstack([part[users], nobody]).tocsr(), device=inputs.device))
                self.row_of.append(row)
            self.whole = inputs.positives
        return self.own

    def evidence(self, inputs: Inputs, users: np.ndarray) -> list[np.ndarray]:
        """What each signal says within the domain of each item."""
        found = [np.zeros((len(users), len(self.of_item)), np.float32) for _ in self.signals]
        found[0] = self._shares(inputs.positives[users])[:, self.of_item]
        for domain, (own, models) in enumerate(zip(self._apart(inputs), self.models, strict=True)):
            items, rows = np.flatnonzero(self.of_item == domain), self.row_of[domain][users]
            signals = [(s, m.signed) for m in models for s in m.evidence(own, rows)]
            for whole, (scores, signed) in zip(found[1:], signals, strict=True):
                whole[:, items] = channel(scores, signed)
        return found

    def _shares(self, histories: sparse.csr_matrix) -> np.ndarray:
        """Float32 (users, domains): logarithm of each domain's share in each history."""
        number, user = self.number, np.repeat(np.arange(histories.shape[0]), np.diff(histories.indptr))
        place = user * number + self.of_item[histories.indices]
        liked = np.bincount(place, minlength=histories.shape[0] * number).reshape(-1, number) + ALONE
        return np.log(liked / liked.sum(1, keepdims=True)).astype(np.float32)

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        return self.combine(self.evidence(inputs, users))

    def combine(self, evidence: list[np.ndarray]) -> np.ndarray:
        """The domain's share and the mean of what its recommenders say of a history; 0 for the least."""
        share, _, *personal = evidence
        total: np.ndarray = share + sum(personal) / np.float32(len(personal))
        return total - total.min(1, keepdims=True)

    def likeness(self, of: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Similarity of items of one domain, as in its item-based CF."""
        out = np.zeros((len(of), len(items)), np.float32)
        for domain, models in enumerate(self.models):
            row, column = (np.flatnonzero(self.of_item[x] == domain) for x in (of, items))
            places = (np.searchsorted(np.flatnonzero(self.of_item == domain), x) for x in (of[row], items[column]))
            out[np.ix_(row, column)] = models[ITEM_CF].likeness(*places)
        return out

    def state(self) -> Arrays:
        """Arrays to store."""
        found: Arrays = {"of_item": self.of_item}
        for domain, models in enumerate(self.models):
            for model in models:
                found |= {f"{domain}.{model.name}.{k}": v for k, v in model.state().items()}
        return found

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Stored arrays."""
        self.of_item = state["of_item"]
        self.models = [_restored(state, d, own) for d, own in enumerate(self._apart(inputs))]
        return self


def _restored(state: Arrays, domain: int, own: Inputs) -> list[Recommender]:
    starts = {base: f"{domain}.{name}." for name, base in BASES.items()}
    parts = {
        base: {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        for base, start in starts.items()
    }
    return [base().restore(part, own) for base, part in parts.items()]
