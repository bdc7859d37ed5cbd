"""Recommenders of interactions alone: popularity, user-based and item-based collaborative filtering."""

from typing import Self

import numpy as np
from scipy import sparse

from pipelines.recommenders.base import Arrays, Inputs, keep_largest, pack, unpack

SHRINKAGE = 5.0  # co-occurrences; similarities built on fewer are pulled towards zero


def unit_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows scaled to L2 norm 1; empty rows stay empty."""
    norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    return sparse.diags_array(1 / np.maximum(norm, 1e-12)).tocsr().dot(matrix).tocsr().astype(np.float32)


def without_self(similarity: sparse.csr_matrix, columns: np.ndarray) -> sparse.csr_matrix:
    """The matrix without entry ``columns[i]`` of row i."""
    own = np.repeat(columns, np.diff(similarity.indptr))
    similarity.data[similarity.indices == own] = 0
    similarity.eliminate_zeros()
    return similarity


class Popularity:
    """Decayed weight of all positive feedback on an item, the same for everyone."""

    name = "popularity"

    def fit(self, inputs: Inputs) -> Self:
        """Add up."""
        self.weight = np.asarray(inputs.positives.sum(0), np.float32).ravel()
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        return np.tile(self.weight, (len(users), 1))

    def state(self) -> Arrays:
        """Arrays to store."""
        return {"weight": self.weight}

    def restore(self, state: Arrays) -> Self:
        """Stored arrays."""
        self.weight = state["weight"]
        return self


class UserCF:
    """User-based collaborative filtering: what the most similar users liked (cosine; https://doi.org/10.1145/192844.192905).

    Args:
        neighbours: most similar users that count.
    """

    name = "user_cf"

    def __init__(self, neighbours: int = 100):
        self.neighbours = neighbours

    def fit(self, inputs: Inputs) -> Self:
        """Normalize everyone's profile; popular items count less in it."""
        degree = np.asarray((inputs.positives > 0).sum(0), np.float64).ravel()
        idf = np.log1p(inputs.positives.shape[0] / np.maximum(degree, 1)).astype(np.float32)
        self.profiles = unit_rows((inputs.positives @ sparse.diags_array(idf)).tocsr())
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        similarity = (self.profiles[users] @ self.profiles.T).tocsr()
        nearest = keep_largest(without_self(similarity, users), self.neighbours)
        return np.asarray((nearest @ self.profiles).todense(), np.float32)

    def state(self) -> Arrays:
        """Arrays to store."""
        return pack("profiles", self.profiles)

    def restore(self, state: Arrays) -> Self:
        """Stored arrays."""
        self.profiles = unpack("profiles", state)
        return self


class ItemCF:
    """Item-based collaborative filtering: items liked by the same users (shrunk cosine; https://doi.org/10.1145/371920.372071).

    Args:
        neighbours: most similar items kept for each item.
    """

    name = "item_cf"

    def __init__(self, neighbours: int = 100):
        self.neighbours = neighbours

    def fit(self, inputs: Inputs) -> Self:
        """Similarity of items; long histories are damped so that heavy users do not decide it."""
        liked = (inputs.positives > 0).astype(np.float32)
        length = np.maximum(np.asarray(liked.sum(1)).ravel(), 1)
        damped = (sparse.diags_array(1 / np.sqrt(length)) @ inputs.positives).tocsr()
        columns = unit_rows(damped.T.tocsr())
        similarity = (columns @ columns.T).tocsr()
        together = (liked.T @ liked).tocsr()
        factor = together.copy()
        factor.data = factor.data / (factor.data + SHRINKAGE)
        similarity = without_self(similarity.multiply(factor).tocsr(), np.arange(similarity.shape[0]))
        self.similarity = keep_largest(similarity, self.neighbours).astype(np.float32)
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        return np.asarray((unit_rows(inputs.positives[users]) @ self.similarity).todense(), np.float32)

    def state(self) -> Arrays:
        """Arrays to store."""
        return pack("similarity", self.similarity)

    def restore(self, state: Arrays) -> Self:
        """Stored arrays."""
        self.similarity = unpack("similarity", state)
        return self
