"""The protocol of all recommenders, what they are fitted on, and exact top-K.

Belongs here: what every model shares. Does not: any model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

import numpy as np
import torch
from scipy import sparse
from torch.nn import functional as F

Arrays = dict[str, np.ndarray]
Settings = dict[str, float | int | str]
POWER_STEPS = 6  # of the randomized SVD
OVERSAMPLED = 16
SEGMENT = 64  # items of a row that are looked at together


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a recommender may see. Rows are users and items of one night.

    Attributes:
        positives: decayed weights of positive feedback (users, items).
        content: modality -> unit vectors (items, d_m), zero rows where the item has none.
        uploads: modality -> mean unit vector of a user's uploads (users, d_m), zero rows where there are none.
        fused: unit vectors of items in the unified space (items, d).
        user_vectors: unit vectors of users in the same space (users, d).
        has_signal: bool (users,), False for users without positive history and uploads.
        graphs: modality -> similarity of items (items, items), where it is known or given instead of vectors.
        histories: distinct positive items of each user, oldest first; empty where nothing is known of the order.
        device: torch device of what is trained or ranked there.
    """

    positives: sparse.csr_matrix
    content: dict[str, np.ndarray] = field(default_factory=dict)
    uploads: dict[str, np.ndarray] = field(default_factory=dict)
    fused: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    user_vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    has_signal: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    graphs: dict[str, sparse.csr_matrix] = field(default_factory=dict)
    histories: list[np.ndarray] = field(default_factory=list)
    device: str = "cpu"


class Recommender(Protocol):
    """Learns from ``Inputs``, scores every item for some users, and can be stored as arrays.

    Attributes:
        name: as in ``recommend.models``; the model asset is ``model_<name>``.
        signed: whether scores may be negative; those that may not grow by ratio rather than by difference.
        signals: names of what a stack weighs one by one; for most there is the score alone.
        grid: settings that a search tries beside the defaults.
        combines: whether these settings change nothing but ``combine``.
    """

    name: str
    signed: bool
    signals: tuple[str, ...] = ("score",)
    grid: ClassVar[tuple[Settings, ...]]
    combines: ClassVar[bool] = False

    def fit(self, inputs: Inputs) -> Self:
        """Learn; returns itself."""

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """Float32 scores (len(users), items); higher is better, 0 where the model has nothing to say."""

    def evidence(self, inputs: Inputs, users: np.ndarray) -> list[np.ndarray]:
        """Float32 (len(users), items) of each of ``signals``."""
        return [self.score(inputs, users)]

    def combine(self, evidence: list[np.ndarray]) -> np.ndarray:
        """The scores that follow from ``evidence``."""
        return evidence[0]

    def state(self) -> Arrays:
        """What ``restore`` needs."""

    def restore(self, state: Arrays) -> Self:
        """Take up a stored state; returns itself."""


def top_k(
    scores: np.ndarray, k: int, forbidden: sparse.csr_matrix | None = None, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Exact top-K of each row; ties go to the lower item row, so the result is unique.

    Args:
        scores: float32 (users, items).
        k: list length; the lists are shorter where fewer items are allowed.
        forbidden: nonzero (users, items) are never returned.
        device: torch device that ranks.

    Returns:
        Item rows int64 (users, min(k, items)), -1 behind the end of a short list, and their scores.
    """
    users, width = scores.shape
    k = min(k, width)
    if k == 0:
        return np.zeros((users, 0), np.int64), np.zeros((users, 0), np.float32)
    allowed = np.empty((users, -(-width // SEGMENT) * SEGMENT), np.float32)  # whole segments
    allowed[:, :width], allowed[:, width:] = scores, -np.inf
    forbid(allowed, forbidden)
    values, items = (found.cpu().numpy() for found in _largest(torch.from_numpy(allowed).to(device), k + 1))
    tied = np.flatnonzero((values[:, k - 1 : k] <= values[:, k:]).any(1))
    values, items = values[:, :k], items[:, :k]
    for row in tied:  # torch breaks ties at the end as it likes
        last = values[row, -1]
        above = np.flatnonzero(allowed[row] > last)
        items[row] = np.concatenate([above, np.flatnonzero(allowed[row] == last)[: k - len(above)]])
        values[row] = allowed[row, items[row]]
    order = np.lexsort((items, -values), axis=-1)
    values, items = np.take_along_axis(values, order, 1), np.take_along_axis(items, order, 1)
    return np.where(np.isfinite(values), items, -1), values


def _largest(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``k`` largest of each row and their columns, or all; sought in the ``k`` segments with the largest maxima.

    Rows are of whole segments.
    """
    segments = scores.view(len(scores), scores.shape[1] // SEGMENT, SEGMENT)
    if segments.shape[1] <= 2 * k:
        values, items = scores.topk(min(k, scores.shape[1]))
        return values, items
    chosen = segments.amax(2).topk(k, sorted=False).indices
    inside = segments.gather(1, chosen[..., None].expand(-1, -1, SEGMENT))
    values, at = inside.flatten(1).topk(k)
    return values, chosen.gather(1, at // SEGMENT) * SEGMENT + at % SEGMENT


def forbid(scores: np.ndarray, forbidden: sparse.csr_matrix | None) -> None:
    """Set scores (users, items) to minus infinity wherever ``forbidden`` is nonzero, in place."""
    if forbidden is not None:
        rows = np.repeat(np.arange(forbidden.shape[0]), np.diff(forbidden.indptr))
        scores[rows, forbidden.indices] = -np.inf


def weighted_sum(parts: Iterable[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Sum of float32 matrices of one shape by their weights; at least one. What comes one by one is not kept."""
    sums: dict[tuple[int, ...], torch.Tensor] = {}  # one for each order in memory; adding across orders is slow
    for part, weight in zip(map(torch.from_numpy, parts), weights, strict=True):
        order = part.stride()
        sums[order] = sums[order].add_(part, alpha=float(weight)) if order in sums else part * float(weight)
    first, *others = sums.values()
    for other in others:
        first += other
    found: np.ndarray = first.numpy()
    return found


def standard_scores(scores: np.ndarray) -> np.ndarray:
    """Each row to mean 0 and standard deviation 1; rows without any difference to 0."""
    found = torch.from_numpy(scores)
    found = found - found.mean(1, keepdim=True)
    deviation = torch.linalg.vector_norm(found, dim=1, keepdim=True) / found.shape[1] ** 0.5
    return found.mul_(torch.where(deviation < 1e-9, 0, 1 / deviation)).numpy()


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

    def __init__(self, matrix: sparse.csr_matrix, device: str, precision: torch.dtype = torch.float32):
        places = (torch.from_numpy(p.astype(np.int32)).to(device) for p in (matrix.indptr, matrix.indices))
        self.bounds, self.columns = places
        self.values = torch.from_numpy(matrix.data).to(device, precision)

    def __matmul__(self, dense: torch.Tensor) -> torch.Tensor:
        """(n, d), in the precision of both; sums are in single precision."""
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
    found = np.asarray((basis @ small.T)[:, :k], np.float32)
    signs = np.sign(found[np.abs(found).argmax(0), np.arange(found.shape[1])])
    return found * np.where(signs == 0, 1, signs)


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
