"""Alignment without training: one linear map a modality, in closed form.

Belongs here: the three fits. Does not: fusing what is mapped (``fusion.MeanFuser``), measuring it (``alignment``).
Every fit sees rows of ``known`` items that have the modality, and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from encoders.space.features import Features
from encoders.space.ragged import Ragged

DAMPING = 0.1  # ridge, in mean variances of a modality
SHRINKAGE = 3.0  # added to an item's degree
BLOCK = 4096  # rows in double precision at once
ROWS = 1 << 16  # users at once
OVERSAMPLED = 32  # directions beyond those that are asked for
ROUNDS = 8  # of subspace iteration


@dataclass(frozen=True)
class Map:
    """``(x - mean) @ matrix`` with mean (d_m,) and matrix (d_m, dim), float32."""

    mean: np.ndarray
    matrix: np.ndarray


Fit = Callable[[dict[str, Features], Ragged, int, np.ndarray], dict[str, Map]]


class _Centred:
    """One modality of items, less the mean of those that have it.

    Attributes:
        mean: float64 (d_m,).
        there: bool (n,), items that have the modality and may be seen.
    """

    def __init__(self, features: Features, known: np.ndarray):
        self.there = np.zeros(len(features.present), bool)
        self.there[known] = features.present[known]
        if not self.there.any():
            self.there = features.present
        self.matrix = features.matrix
        total = features.matrix.sum(0, dtype=np.float64, where=self.there[:, None])
        self.mean = total / max(int(self.there.sum()), 1)

    @cached_property
    def rows(self) -> np.ndarray:
        """Float64 (n, d_m); zero for items that are not there."""
        return np.where(self.there[:, None], self.matrix - self.mean, 0.0)

    def ridge(self, target: np.ndarray, of: np.ndarray | None = None) -> Map:
        """Least squares from the rows to ``target`` (n, dim) on items that are there, and in ``of``, by blocks."""
        use = np.flatnonzero(self.there if of is None else self.there & of)
        gram, product = np.zeros((len(self.mean),) * 2), np.zeros((len(self.mean), target.shape[1]))
        for block in (use[a : a + BLOCK] for a in range(0, len(use), BLOCK)):
            x = self.matrix[block] - self.mean
            gram += x.T @ x
            product += x.T @ target[block]
        matrix = np.linalg.solve(_damped(gram), product)
        return Map(self.mean.astype(np.float32), matrix.astype(np.float32))

    def whitened(self) -> np.ndarray:
        """Rows of unit covariance, small directions damped."""
        values, vectors = np.linalg.eigh(_damped(self.rows.T @ self.rows))
        return self.rows @ (vectors / np.sqrt(values))


def _damped(gram: np.ndarray) -> np.ndarray:
    return gram + np.eye(len(gram)) * max(DAMPING * np.trace(gram) / len(gram), 1e-9)


def _centre(features: dict[str, Features], known: np.ndarray) -> dict[str, _Centred]:
    return {m: _Centred(f, known) for m, f in sorted(features.items())}


def _directions(rows: np.ndarray, dim: int) -> np.ndarray:
    """Leading right singular vectors (d, dim), signs fixed, zero columns where there are fewer."""
    values, vectors = np.linalg.eigh(rows.T @ rows)
    found = vectors[:, np.argsort(-values, kind="stable")[:dim]]
    found = found * np.sign(found[np.abs(found).argmax(0), np.arange(found.shape[1])])
    return np.pad(found, ((0, 0), (0, dim - found.shape[1])))


def cca(features: dict[str, Features], histories: Ragged, dim: int, known: np.ndarray) -> dict[str, Map]:
    """Generalized CCA (MAXVAR, https://doi.org/10.1093/biomet/58.3.433); missing modalities are left out of an item.

    The shared vector of an item is what all its whitened modalities agree on; each modality is mapped to it.
    """
    views = _centre(features, known)
    number = np.maximum(sum(v.there.astype(float) for v in views.values()), 1)
    stacked = np.hstack([v.whitened() for v in views.values()]) / np.sqrt(number)[:, None]
    shared = stacked @ _directions(stacked, dim)
    return {m: v.ridge(shared) for m, v in views.items()}


def procrustes(features: dict[str, Features], histories: Ragged, dim: int, known: np.ndarray) -> dict[str, Map]:
    """Principal components of each modality, turned onto those of the one that most items have.

    https://doi.org/10.1007/BF02289451
    """
    views = _centre(features, known)
    first = max(views, key=lambda m: int(views[m].there.sum()))
    axes = {m: _directions(v.rows, dim) for m, v in views.items()}
    goal = views[first].rows @ axes[first]
    out = {}
    for m, view in views.items():
        both = view.there & views[first].there
        u, _, vt = np.linalg.svd((view.rows[both] @ axes[m]).T @ goal[both])
        turn = np.eye(dim) if m == first else u @ vt
        out[m] = Map(view.mean.astype(np.float32), (axes[m] @ turn).astype(np.float32))
    return out


def ridge(features: dict[str, Features], histories: Ragged, dim: int, known: np.ndarray) -> dict[str, Map]:
    """Ridge regression of each modality onto collaborative factors: content that predicts who likes an item.

    Factors are those of a truncated SVD of the damped interactions (PureSVD, https://doi.org/10.1145/1864708.1864721).
    """
    n = len(next(iter(features.values())).present)
    factors = _collaborative(histories, n, dim)
    liked = np.any(factors != 0, axis=1)
    return {m: v.ridge(factors, liked) for m, v in _centre(features, known).items()}


def _collaborative(histories: Ragged, items: int, dim: int) -> np.ndarray:
    """Unit factors (items, dim), zero rows of items that nobody liked."""
    degree = np.bincount(histories.values, minlength=items)
    weight = np.repeat(1 / np.sqrt(np.maximum(histories.lengths, 1)), histories.lengths)
    weight /= np.sqrt(degree[histories.values] + SHRINKAGE)
    matrix = sparse.csr_matrix((weight, histories.values, histories.bounds), shape=(len(histories), items))
    k = min(dim, min(matrix.shape) - 1)
    out = np.zeros((items, dim))
    if k > 0 and matrix.nnz:
        scale, right = _leading(matrix, k)
        factors = right * np.sqrt(scale)
        factors *= np.sign(factors[np.abs(factors).argmax(0), np.arange(k)])
        out[:, :k] = factors
    norm = np.linalg.norm(out, axis=1, keepdims=True)
    return np.where(degree[:, None] > 0, out / np.where(norm > 0, norm, 1), 0)


def _leading(matrix: sparse.csr_matrix, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Singular values (k,), falling, and right singular vectors (columns, k), by seeded subspace iteration.

    Rows go by in blocks: nothing as long as the matrix is held (https://arxiv.org/abs/0909.4061, algorithm 4.4).
    """
    columns = matrix.shape[1]
    width = min(k + OVERSAMPLED, min(matrix.shape))
    axes = np.random.default_rng(0).standard_normal((columns, width))
    for _ in range(ROUNDS):
        axes = np.linalg.qr(_gram_times(matrix, axes))[0]
    values, turn = np.linalg.eigh(axes.T @ _gram_times(matrix, axes))
    return np.sqrt(np.maximum(values[::-1][:k], 0)), axes @ turn[:, ::-1][:, :k]


def _gram_times(matrix: sparse.csr_matrix, axes: np.ndarray) -> np.ndarray:
    """``matrix.T @ matrix @ axes``, a block of rows at a time."""
    out = np.zeros_like(axes)
    for a in range(0, matrix.shape[0], ROWS):
        block = matrix[a : a + ROWS]
        out += block.T @ (block @ axes)
    return out


MAPS: dict[str, Fit] = {"cca": cca, "procrustes": procrustes, "ridge": ridge}
