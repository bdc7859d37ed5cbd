"""Linear models of interactions in closed form or by alternating least squares: EASE and matrix factorization."""

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from scipy import linalg
from threadpoolctl import threadpool_limits

from pipelines.recommenders.base import Arrays, Hyperparameters, Inputs, Recommender


class Ease(Recommender):
    """EASE: the item-item weights that best rebuild every history from its other items, in closed form.

    https://arxiv.org/abs/1905.03375. Memory and time grow with the square and the cube of the items, so only the most
    liked take part; the others score 0.

    Args:
        ridge: L2 penalty of the weights.
        items: most liked items that take part.
    """

    name = "ease"
    signed = True
    grid: ClassVar[tuple[Hyperparameters, ...]] = ({"ridge": 100.0},)

    def __init__(self, ridge: Annotated[float, Field(gt=0)] = 300.0, items: Annotated[int, Field(ge=1)] = 4000):
        self.ridge, self.items = ridge, items

    def fit(self, inputs: Inputs) -> Self:
        """Invert the damped co-occurrences."""
        liked = (inputs.positives > 0).astype(np.float32).tocsc()
        degree, pooled = np.asarray(liked.sum(0)).ravel(), inputs.pooled
        if pooled:
            degree = np.zeros_like(degree)
            degree[pooled.items] = np.diag(pooled.liked)
        self.chosen = np.sort(np.argsort(-degree, kind="stable")[: self.items])
        self.chosen = self.chosen[degree[self.chosen] > 0]
        if pooled:
            at = np.searchsorted(pooled.items, self.chosen)
            damped = pooled.liked[np.ix_(at, at)].copy()
        else:
            part = liked[:, self.chosen]
            damped = (part.T @ part).toarray()
        damped[np.diag_indices_from(damped)] += self.ridge
        if len(damped):
            damped = _inverse(damped)
        self.weights = -damped / np.diag(damped)
        self.weights[np.diag_indices_from(self.weights)] = 0
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        history = (inputs.positives[users] > 0).astype(np.float32)
        out = np.zeros(history.shape, np.float32)
        out[:, self.chosen] = history[:, self.chosen] @ self.weights
        return out

    def likeness(self, of: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Weights."""
        out = np.zeros((len(of), len(items)), np.float32)
        row, column = (np.flatnonzero(np.isin(x, self.chosen)) for x in (of, items))
        places = (np.searchsorted(self.chosen, x[at]) for x, at in ((of, row), (items, column)))
        out[np.ix_(row, column)] = self.weights[np.ix_(*places)]
        return out

    def state(self) -> Arrays:
        """Arrays to store."""
        return {"weights": self.weights, "chosen": self.chosen}

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Stored arrays."""
        self.weights, self.chosen = state["weights"], state["chosen"]
        return self


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse of a symmetric positive definite matrix, by Cholesky in half the time of a general one.

    Raises:
        numpy.linalg.LinAlgError: it is not positive definite.
    """
    factor, failed = linalg.lapack.spotrf(matrix, lower=True, overwrite_a=True)
    lower, failed = linalg.lapack.spotri(factor, lower=True, overwrite_c=True) if not failed else (factor, failed)
    if failed:
        raise np.linalg.LinAlgError(f"EASE: co-occurrences plus ridge are not positive definite (LAPACK {failed})")
    lower = np.tril(lower)
    return lower + np.tril(lower, -1).T


class ALS(Recommender):
    """Matrix factorization of implicit feedback by alternating least squares (https://doi.org/10.1109/ICDM.2008.22).

    Training is that of the ``implicit`` library (https://benfred.github.io/implicit), which solves each row alone, so
    the number of threads does not matter.

    Args:
        factors: length of user and item vectors.
        regularization: L2 penalty.
        alpha: weight of positive feedback against none.
        iterations: passes over users and items.
    """

    name = "als"
    signed = True
    grid: ClassVar[tuple[Hyperparameters, ...]] = (
        {"alpha": 1.0}, {"alpha": 20.0, "regularization": 100.0},
    )  # fmt: skip

    def __init__(
        self,
        factors: Annotated[int, Field(ge=1, le=4096)] = 64,
        regularization: Annotated[float, Field(ge=0)] = 0.1,
        alpha: Annotated[float, Field(gt=0)] = 10.0,
        iterations: Annotated[int, Field(ge=1)] = 15,
    ):
        self.factors, self.regularization, self.alpha, self.iterations = factors, regularization, alpha, iterations

    def fit(self, inputs: Inputs) -> Self:
        """Factorize."""
        from implicit.cpu.als import AlternatingLeastSquares

        with threadpool_limits(1, user_api="blas"):  # it has threads of its own
            model = AlternatingLeastSquares(
                factors=self.factors,
                regularization=self.regularization,
                alpha=self.alpha,
                iterations=self.iterations,
                random_state=0,
            )
            model.fit(inputs.positives.astype(np.float32), show_progress=False)
        known = np.diff(inputs.positives.indptr) > 0
        self.users = np.where(known[:, None], model.user_factors, 0).astype(np.float32)
        self.vectors = np.asarray(model.item_factors, np.float32)
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        return self.users[users] @ self.vectors.T

    def likeness(self, of: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Dot product of the items' factors."""
        return np.asarray(self.vectors[of] @ self.vectors[items].T)

    def state(self) -> Arrays:
        """Arrays to store."""
        return {"users": self.users, "items": self.vectors}

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Stored arrays."""
        self.users, self.vectors = state["users"], state["items"]
        return self
