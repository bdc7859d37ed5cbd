"""Sums over the users of a site that popularity, item-based CF and EASE are made of, exact in 64-bit whole numbers.

Every user's part is rounded before it is added, so that the sums of some sites are those of their logs together.
Belongs here: the sums of positive feedback, and back. Does not: masks, whose items they are (``exchange``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import sparse

from pipelines.recommenders.base import Pooled

FEWEST = 2  # sites of a sum; of one it would be that site's own
POINT = 20  # binary places of one factor of a product, so that products have twice as many
SCALE = float(1 << 2 * POINT)


@dataclass(frozen=True)
class Layout:
    """Where the sums of ``n`` items are in one vector: likes in common, walks in common, weight of each item.

    Attributes:
        n: items.
    """

    n: int

    @classmethod
    def of(cls, length: int) -> Self:
        """The layout of a vector of this length: n items have n * (n + 2) numbers."""
        return cls(round((length + 1) ** 0.5) - 1)

    @property
    def pairs(self) -> int:
        """Numbers of a triangle with its diagonal."""
        return self.n * (self.n + 1) // 2

    @property
    def length(self) -> int:
        """Of the vector."""
        return 2 * self.pairs + self.n


def sums_of(positives: sparse.csr_matrix) -> np.ndarray:
    """Sums over users (``Layout.length``,) uint64, of decayed weights of positive feedback (users, items).

    Users who like both of two items; products of what the users' weights of both are, divided by the square root of
    their sum (walks of item, user, item before they are divided by the items' weights); weight of each item.
    """
    layout = Layout(positives.shape[1])
    weight = positives.astype(np.float64).tocsr()
    total = np.asarray(weight.sum(1)).ravel()
    share = sparse.diags_array(np.where(total > 0, total, 1) ** -0.5) @ weight
    liked, steps = (weight > 0).astype(np.int64).tocsr(), share.tocsr()
    steps.data = np.round(steps.data * (1 << POINT))
    steps, own = steps.astype(np.int64), weight.copy()
    own.data = np.round(own.data * SCALE)
    upper = np.triu_indices(layout.n)
    parts = [(m.T @ m).toarray()[upper] for m in (liked, steps)]
    parts.append(np.asarray(own.astype(np.int64).sum(0)).ravel())
    return np.concatenate(parts).astype(np.uint64)


def pooled_of(sums: np.ndarray, rows: np.ndarray, noise: Sequence[float] = (0.0, 0.0, 0.0)) -> Pooled:
    """What recommenders read, of the sums of some sites, for a site's own catalogue.

    Args:
        sums: (``Layout.length``,) uint64, negative numbers modulo 2^64.
        rows: row of each item of the sums in the catalogue, -1 where it does not have it.
        noise: standard deviation of the noise in a number of each part: likes, walks, weights.
    """
    layout, there, signed = Layout(len(rows)), np.flatnonzero(rows >= 0), sums.view(np.int64)
    order = there[np.argsort(rows[there], kind="stable")]
    liked, walks = (_square(signed[a : a + layout.pairs], layout.n) for a in (0, layout.pairs))
    liked, walks = _above(liked, noise[0]), _above(walks / SCALE, noise[1])
    weight = np.maximum(signed[2 * layout.pairs :][order].astype(np.float64) / SCALE, 0)
    at = np.ix_(order, order)
    return Pooled(rows[order], liked[at].astype(np.float32), np.maximum(walks[at], 0), weight.astype(np.float32))


def _above(matrix: np.ndarray, noise: float) -> np.ndarray:
    """What of a sum of squares (n, n) stands above noise: directions longer than those of noise alone.

    Those end at ``2 * noise * sqrt(n)`` (Wigner's semicircle, https://doi.org/10.2307/1970079). Itself without noise.
    """
    if not noise:
        return matrix
    lengths, directions = np.linalg.eigh(matrix)
    kept = lengths > 2 * noise * len(matrix) ** 0.5
    return np.asarray((directions[:, kept] * lengths[kept]) @ directions[:, kept].T)


def _square(triangle: np.ndarray, n: int) -> np.ndarray:
    """A symmetric matrix (n, n) float64 of its upper triangle."""
    full, upper = np.zeros((n, n)), np.triu_indices(n)
    full[upper] = triangle
    full.T[upper] = triangle
    return full
