"""Sequential recommendation: what is liked after what, and how recently."""

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from scipy import sparse

from pipelines.recommenders.base import Arrays, Hyperparameters, Inputs, Recommender
from pipelines.recommenders.matrices import keep_largest, pack, scaled, unpack, without_self

NEIGHBOURS = 200  # followers kept of each item


class Sequential(Recommender):
    """Sequential rules: an item follows another within a few steps, the nearer the more it counts.

    https://arxiv.org/abs/1803.09587. Both popularities are divided out by square roots. Scores come from the latest
    items of a history, the latest counting most.

    Args:
        window: steps between an item and what follows it.
        recent: latest items of a history that count.
    """

    name = "sequential"
    signed = False
    grid: ClassVar[tuple[Hyperparameters, ...]] = ({"window": 20}, {"recent": 5})

    def __init__(self, window: Annotated[int, Field(ge=1)] = 5, recent: Annotated[int, Field(ge=1)] = 20):
        self.window, self.recent = window, recent

    def fit(self, inputs: Inputs) -> Self:
        """Count the steps."""
        n = inputs.positives.shape[1]
        histories = [h for h in inputs.histories if len(h) > 1]
        item = np.concatenate(histories) if histories else np.zeros(0, np.int64)
        owner = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
        rules = sparse.csr_matrix((n, n), dtype=np.float32)
        for step in range(1, min(self.window, len(item) - 1) + 1):
            same = owner[step:] == owner[:-step]
            pairs = (item[:-step][same], item[step:][same])
            rules = rules + sparse.csr_matrix((np.full(same.sum(), 1 / step, np.float32), pairs), shape=(n, n))
        rules = without_self(scaled(rules.tocsr(), 0.5, 0.5), np.arange(n))
        self.rules = keep_largest(rules, NEIGHBOURS).astype(np.float32)
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        latest = [inputs.histories[u][-self.recent :] if inputs.histories else np.zeros(0, np.int64) for u in users]
        weight = [1 / np.arange(len(h), 0, -1, dtype=np.float32) for h in latest]
        bounds = np.cumsum([0, *map(len, latest)])
        flat = [np.concatenate(x) if len(x) else np.zeros(0) for x in (weight, latest)]
        now = sparse.csr_matrix((flat[0], flat[1], bounds), shape=(len(users), len(self.rules.indptr) - 1))
        return np.asarray((now @ self.rules).todense(), np.float32)

    def likeness(self, of: np.ndarray, items: np.ndarray) -> np.ndarray:
        """How often one follows the other."""
        return np.asarray(self.rules[of][:, items].toarray())

    def state(self) -> Arrays:
        """Arrays to store."""
        return pack("rules", self.rules)

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Stored arrays."""
        self.rules = unpack("rules", state)
        return self
