"""Recommenders of interactions alone: popularity, user-based and item-based collaborative filtering."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field
from scipy import sparse

from pipelines.recommenders.base import Arrays, Hyperparameters, Inputs, Pooled, Recommender
from pipelines.recommenders.matrices import keep_largest, pack, scaled, unit_or_empty, unpack, without_self

Similarity = Literal["shrunk", "cosine", "bm25", "rp3beta"]
BM25_K1, BM25_B = 1.2, 0.75
SHRINKAGE = 5.0  # co-occurrences; similarities built on fewer are pulled towards zero


class Popularity(Recommender):
    """Decayed weight of all positive feedback on an item, the same for everyone."""

    name = "popularity"
    signed = False
    grid: ClassVar[tuple[Hyperparameters, ...]] = ()

    def fit(self, inputs: Inputs) -> Self:
        """Add up."""
        self.weight = np.asarray(inputs.positives.sum(0), np.float32).ravel()
        if inputs.pooled:
            self.weight = np.zeros_like(self.weight)
            self.weight[inputs.pooled.items] = inputs.pooled.weight
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        return np.tile(self.weight, (len(users), 1))

    def state(self) -> Arrays:
        """Arrays to store."""
        return {"weight": self.weight}

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Stored arrays."""
        self.weight = state["weight"]
        return self


class UserCF(Recommender):
    """User-based collaborative filtering: what the most similar users liked (cosine; https://doi.org/10.1145/192844.192905).

    Args:
        neighbours: most similar users that count.
    """

    name = "user_cf"
    signed = False
    grid: ClassVar[tuple[Hyperparameters, ...]] = tuple({"neighbours": n} for n in (50, 400))

    def __init__(self, neighbours: Annotated[int, Field(ge=1)] = 100):
        self.neighbours = neighbours

    def fit(self, inputs: Inputs) -> Self:
        """Normalize everyone's profile; popular items count less in it."""
        degree = np.asarray((inputs.positives > 0).sum(0), np.float64).ravel()
        idf = np.log1p(inputs.positives.shape[0] / np.maximum(degree, 1)).astype(np.float32)
        self.profiles = unit_or_empty((inputs.positives @ sparse.diags_array(idf)).tocsr())
        self.turned = self.profiles.T.tocsr()
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        similarity = self.profiles[users] @ self.turned
        nearest = keep_largest(without_self(similarity, users), self.neighbours)
        return np.asarray((nearest @ self.profiles).todense(), np.float32)

    def state(self) -> Arrays:
        """Arrays to store."""
        return pack("profiles", self.profiles)

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Stored arrays."""
        self.profiles = unpack("profiles", state)
        self.turned = self.profiles.T.tocsr()
        return self


class ItemCF(Recommender):
    """Item-based collaborative filtering: items liked by the same users (https://doi.org/10.1145/371920.372071).

    Args:
        neighbours: most similar items kept for each item.
        similarity: ``shrunk`` (cosine, damped by the length of histories and shrunk where it rests on few users),
            ``cosine``, ``bm25`` (dot product under BM25 weights, https://doi.org/10.1561/1500000019), or ``rp3beta``
            (random walk of three steps against popularity, https://doi.org/10.1145/2955101).
        alpha: power of the steps of ``rp3beta``; below 1 the strongest links count less.
        beta: power of popularity that divides ``rp3beta``.
    """

    name = "item_cf"
    signed = False
    grid: ClassVar[tuple[Hyperparameters, ...]] = (
        {"similarity": "shrunk"}, {"similarity": "bm25"}, {"beta": 0.0}, {"alpha": 0.6, "beta": 0.0},
    )  # fmt: skip

    def __init__(
        self,
        neighbours: Annotated[int, Field(ge=1)] = 100,
        similarity: Similarity = "rp3beta",
        alpha: Annotated[float, Field(gt=0, le=4)] = 1.0,
        beta: Annotated[float, Field(ge=0, le=4)] = 0.6,
    ):
        self.neighbours, self.kind, self.alpha, self.beta = neighbours, similarity, alpha, beta

    def fit(self, inputs: Inputs) -> Self:
        """Similarity of items, the nearest of each."""
        kinds = SIMILARITIES | {"rp3beta": lambda positives: _rp3beta(positives, self.alpha, self.beta)}
        if inputs.pooled and self.kind == "rp3beta" and self.alpha == 1:
            similarity = _of_pooled(inputs.pooled, inputs.positives.shape[1], self.beta)
        else:
            similarity = kinds[self.kind](inputs.positives).tocsr()
        similarity = without_self(similarity, np.arange(similarity.shape[0]))
        self.similarity = keep_largest(similarity, self.neighbours).astype(np.float32)
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        return np.asarray((unit_or_empty(inputs.positives[users]) @ self.similarity).todense(), np.float32)

    def likeness(self, of: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Similarity."""
        return np.asarray(self.similarity[of][:, items].toarray())

    def state(self) -> Arrays:
        """Arrays to store."""
        return pack("similarity", self.similarity)

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Stored arrays."""
        self.similarity = unpack("similarity", state)
        return self


def _cosine(positives: sparse.csr_matrix) -> sparse.csr_matrix:
    columns = unit_or_empty(positives.T.tocsr())
    return columns @ columns.T


def _shrunk(positives: sparse.csr_matrix) -> sparse.csr_matrix:
    liked = (positives > 0).astype(np.float32)
    length = np.maximum(np.asarray(liked.sum(1)).ravel(), 1)
    together = (liked.T @ liked).tocsr()
    together.data = together.data / (together.data + SHRINKAGE)
    return _cosine((sparse.diags_array(1 / np.sqrt(length)) @ positives).tocsr()).multiply(together)


def _bm25(positives: sparse.csr_matrix) -> sparse.csr_matrix:
    """An item is a document, its users are the terms: those who like everything say little."""
    weights = positives.tocoo().astype(np.float64)
    length = np.asarray(positives.sum(0)).ravel()
    norm = 1 - BM25_B + BM25_B * length / max(length.mean(), 1e-12)
    rarity = np.log(max(positives.shape[1], 1)) - np.log1p(np.bincount(weights.row, minlength=positives.shape[0]))
    weights.data *= (BM25_K1 + 1) / (BM25_K1 * norm[weights.col] + weights.data) * rarity[weights.row]
    weights = weights.tocsr()
    return weights.T @ weights


def _rp3beta(positives: sparse.csr_matrix, alpha: float, beta: float) -> sparse.csr_matrix:
    """Probability of going from an item to another by a user of both, divided by a power of the other's popularity."""
    to_user, to_item = scaled(positives.T.tocsr(), 1.0, 0.0), scaled(positives, 1.0, 0.0)
    to_user.data, to_item.data = to_user.data**alpha, to_item.data**alpha
    popularity = np.asarray((positives > 0).sum(0), np.float64).ravel()
    return to_user @ to_item @ sparse.diags_array(np.maximum(popularity, 1) ** -beta)


def _of_pooled(pooled: Pooled, items: int, beta: float) -> sparse.csr_matrix:
    """The same as ``_rp3beta`` with steps as they are, of sums over the users of several sites."""
    weight = pooled.weight.astype(np.float64)
    popularity = np.maximum(np.diag(pooled.liked).astype(np.float64), 1) ** -beta
    steps = sparse.coo_matrix(pooled.walks / np.where(weight > 0, weight, 1)[:, None] * popularity)
    places = (pooled.items[steps.row], pooled.items[steps.col])
    return sparse.csr_matrix((steps.data, places), shape=(items, items))


SIMILARITIES: dict[Similarity, Callable[[sparse.csr_matrix], sparse.csr_matrix]] = {
    "shrunk": _shrunk,
    "cosine": _cosine,
    "bm25": _bm25,
}
