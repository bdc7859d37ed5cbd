"""Sparse matrices that several recommenders share: scaling, the largest entries, singular vectors, storing.

Does not belong here: what an entry means (``item_graphs``, each recommender).
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch.nn import functional as F

from pipelines.recommenders.base import Arrays

POWER_STEPS = 6  # of the randomized SVD
OVERSAMPLED = 16


def keep_largest(matrix: sparse.csr_matrix, k: int) -> sparse.csr_matrix:
    """The ``k`` largest entries of each row; ties go to the lower column."""
    matrix = matrix.tocsr()
    data, indices, indptr = [], [], [0]
    for row in range(matrix.shape[0]):
        a, b = matrix.indptr[row], matrix.indptr[row + 1]
        values, columns = matrix.data[a:b], matrix.indices[a:b]
        if len(values) > k:
            able = values >= np.partition(values, -k)[-k] if k else np.zeros(len(values), bool)
            values, columns = values[able], columns[able]
            best = np.lexsort((columns, -values))[:k]
            values, columns = values[best], columns[best]
        order = np.argsort(columns, kind="stable")
        data.append(values[order])
        indices.append(columns[order])
        indptr.append(indptr[-1] + len(values))
    flat: Sequence[np.ndarray] = data or [np.zeros(0, np.float32)]
    return sparse.csr_matrix(
        (np.concatenate(flat), np.concatenate(indices or [np.zeros(0, np.int32)]), indptr), shape=matrix.shape
    )


def scaled(matrix: sparse.csr_matrix, rows: float, columns: float) -> sparse.csr_matrix:
    """Entries divided by powers of the sums of their row and column; empty ones stay empty."""
    left, right = (np.asarray(matrix.sum(axis)).ravel() for axis in (1, 0))
    left, right = (np.where(v > 0, v, 1) for v in (left, right))
    return (sparse.diags_array(left**-rows) @ matrix @ sparse.diags_array(right**-columns)).tocsr().astype(np.float32)


class OnDevice:
    """A sparse matrix (n, m) on a torch device, to be multiplied by dense ones (m, d).

    The product is a weighted sum of embeddings for each row, which a CPU does much faster than that of a CSR tensor.
    """

    def __init__(self, matrix: sparse.csr_matrix, device: str):
        places = (torch.from_numpy(p.astype(np.int32)).to(device) for p in (matrix.indptr, matrix.indices))
        self.bounds, self.columns = places
        self.values = torch.from_numpy(matrix.data).to(device)

    def __matmul__(self, dense: torch.Tensor) -> torch.Tensor:
        """(n, d)."""
        return F.embedding_bag(
            self.columns, dense, self.bounds, mode="sum", per_sample_weights=self.values, include_last_offset=True
        )


def right_directions(matrix: np.ndarray | sparse.csr_matrix, k: int) -> np.ndarray:
    """Leading right singular vectors (columns of the matrix, k) by a seeded randomized SVD; signs are fixed."""
    size = min(k + OVERSAMPLED, *matrix.shape)
    basis = np.random.default_rng(0).normal(size=(matrix.shape[1], size)).astype(np.float32)
    for _ in range(POWER_STEPS):
        basis = np.linalg.qr(matrix.T @ (matrix @ basis))[0]
    _, _, small = np.linalg.svd(matrix @ basis, full_matrices=False)
    vectors = np.asarray((basis @ small.T)[:, :k], np.float32)
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])])
    return vectors * np.where(signs == 0, 1, signs)


def pack(name: str, matrix: sparse.csr_matrix) -> Arrays:
    """A sparse matrix as arrays."""
    shape = np.array(matrix.shape, np.int64)
    return {
        f"{name}.data": matrix.data.astype(np.float32),
        f"{name}.indices": matrix.indices.astype(np.int64),
        f"{name}.indptr": matrix.indptr.astype(np.int64),
        f"{name}.shape": shape,
    }


def unpack(name: str, state: Arrays) -> sparse.csr_matrix:
    """The sparse matrix of ``pack``."""
    parts = (state[f"{name}.data"], state[f"{name}.indices"], state[f"{name}.indptr"])
    return sparse.csr_matrix(parts, shape=tuple(state[f"{name}.shape"]))


def unit_or_zero(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to L2 norm 1, float32; zero rows stay zero."""
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norm < 1e-9, 1, norm)).astype(np.float32)


def unit_or_empty(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows scaled to L2 norm 1; empty rows stay empty."""
    norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    return sparse.diags_array(1 / np.maximum(norm, 1e-12)).tocsr().dot(matrix).tocsr().astype(np.float32)


def without_self(similarity: sparse.csr_matrix, columns: np.ndarray) -> sparse.csr_matrix:
    """The matrix without entry ``columns[i]`` of row i."""
    own = np.repeat(columns, np.diff(similarity.indptr))
    similarity.data[similarity.indices == own] = 0
    similarity.eliminate_zeros()
    return similarity
