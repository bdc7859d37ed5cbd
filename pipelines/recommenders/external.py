"""Lists that somebody else has made, as a recommender beside ours. Reading them is ``pipelines.external``."""

from typing import ClassVar, Self

import numpy as np
from scipy import sparse

from pipelines.recommenders.base import Arrays, Hyperparameters, Inputs, Recommender
from pipelines.recommenders.matrices import pack, unpack

DAMPED = 60  # of reciprocal rank fusion, added to each place


class External(Recommender):
    """Places in lists of another team, vendor or model; what is not listed scores 0.

    Scores of others are on scales of their own, so only their order counts, as in reciprocal rank fusion
    (https://doi.org/10.1145/1571941.1572114): 1 / (60 + place). A stack may also weigh the discount of NDCG, which
    falls faster.
    """

    name = "external"
    signed = False
    signals = ("fusion", "discount")
    outside = True
    grid: ClassVar[tuple[Hyperparameters, ...]] = ()

    def fit(self, inputs: Inputs) -> Self:
        """Keep the lists of the night."""
        empty = sparse.csr_matrix(inputs.positives.shape, dtype=np.float32)
        self.places = inputs.external.get(self.name, empty)
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        return self.evidence(inputs, users)[0]

    def evidence(self, inputs: Inputs, users: np.ndarray) -> list[np.ndarray]:
        """Value of each place by both ways to count it."""
        places = self.places[users]
        return [value(places).astype(np.float32).toarray() for value in (fusion, discount)]

    def state(self) -> Arrays:
        """Arrays to store."""
        return pack("places", self.places)

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Stored arrays."""
        self.places = unpack("places", state)
        return self


def fusion(places: sparse.csr_matrix) -> sparse.csr_matrix:
    """Float64 value of each place in reciprocal rank fusion; those of several lists add up."""
    return _with(places, 1 / (DAMPED + places.data.astype(np.float64)))


def discount(places: sparse.csr_matrix) -> sparse.csr_matrix:
    """Float64 value of each place in NDCG."""
    return _with(places, 1 / np.log2(1 + places.data.astype(np.float64)))


def _with(places: sparse.csr_matrix, values: np.ndarray) -> sparse.csr_matrix:
    return sparse.csr_matrix((values, places.indices, places.indptr), shape=places.shape)
