"""Ranking metrics of one user's list, and of all lists together. Pure functions, binary relevance, full ranking.

Every per-user function takes ``hits``, a bool array (k,), True where the item at that rank is relevant, and the
number of relevant items; or (users, k) and (users,), and returns (users,). Edge case of all: no relevant item is an
error, the user must be left out.
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse

MIXED = 0.01  # share of the history's categories that a list is taken to have, so that none is missing
Counts = int | np.ndarray
Values = float | np.ndarray


def hits_of(items: np.ndarray, relevant: sparse.csr_matrix) -> np.ndarray:
    """Bool (users, k), True where ``items`` (users, k; -1 behind the end of a list) are nonzero in (users, items).

    >>> hits_of(np.array([[2, 0], [1, -1]]), sparse.csr_matrix([[0, 0, 1], [1, 0, 0]]))
    array([[ True, False],
           [False, False]])
    """
    width = relevant.shape[1]
    row = np.repeat(np.arange(relevant.shape[0]), np.diff(relevant.indptr))
    keys = np.arange(len(items))[:, None] * width + items
    relevant_keys = np.append(np.sort(row * width + relevant.indices), -1)
    return (relevant_keys[np.searchsorted(relevant_keys[:-1], keys)] == keys) & (items >= 0)


def recall(hits: np.ndarray, relevant: Counts) -> Values:
    r"""Recall@K: share of the relevant items that the list holds.

    >>> float(recall(np.array([True, False, True]), 4))  # 2 of 4
    0.5
    """
    return hits.sum(-1) / relevant


def hit_rate(hits: np.ndarray, relevant: Counts) -> Values:
    """1 when the list holds any relevant item.

    >>> hit_rate(np.array([[False, True], [False, False]]), 3).tolist()
    [1.0, 0.0]
    """
    return hits.any(-1).astype(float)


def ndcg(hits: np.ndarray, relevant: Counts) -> Values:
    r"""NDCG@K with gain 1 and discount :math:`1 / \log_2(rank + 1)`; the ideal list holds min(K, relevant) hits first.

    https://doi.org/10.1145/582415.582418

    >>> round(float(ndcg(np.array([False, True]), 1)), 4)  # 1 / log2(3)
    0.6309
    >>> float(ndcg(np.array([True, True]), 5))
    1.0
    """
    discount = 1 / np.log2(np.arange(2, hits.shape[-1] + 2))
    ideal = np.cumsum(discount)[np.minimum(relevant, hits.shape[-1]) - 1]
    return (hits * discount).sum(-1) / ideal


def average_precision(hits: np.ndarray, relevant: Counts) -> Values:
    """AP@K: precision at the rank of each hit, added up and divided by min(K, relevant).

    >>> round(float(average_precision(np.array([True, False, True]), 2)), 4)  # (1/1 + 2/3) / 2
    0.8333
    """
    k = hits.shape[-1]
    precision = np.cumsum(hits, -1) / np.arange(1, k + 1)
    return (precision * hits).sum(-1) / np.minimum(relevant, k)


def reciprocal_rank(hits: np.ndarray, relevant: Counts) -> Values:
    """1 / rank of the first hit, 0 without one.

    >>> reciprocal_rank(np.array([[False, True, True], [False, False, False]]), 2).tolist()
    [0.5, 0.0]
    """
    return hits.any(-1) / (np.argmax(hits, -1) + 1)


PER_USER: dict[str, Callable[[np.ndarray, Counts], Values]] = {
    "recall": recall,
    "ndcg": ndcg,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "hit_rate": hit_rate,
}


def coverage(lists: np.ndarray, catalogue: int) -> float:
    """Share of the catalogue that any list holds.

    >>> coverage(np.array([[0, 1], [1, -1]]), 4)
    0.5

    Args:
        lists: item rows (lists, k), -1 behind the end of a list.
        catalogue: number of items.
    """
    return len(np.unique(lists[lists >= 0])) / catalogue


def novelty(lists: np.ndarray, seen_by: np.ndarray, users: int) -> float:
    r"""Mean of :math:`-\log_2 p(i)` in bits, p the add-one smoothed share of users who had met the item.

    https://doi.org/10.1145/2043932.2043955

    >>> novelty(np.array([[0, 1]]), np.array([0, 1]), 2)  # -log2(1/4), -log2(2/4)
    1.5

    Args:
        lists: item rows (lists, k), -1 behind the end of a list; at least one item is in them.
        seen_by: number of users who had met each item.
        users: number of users who had met any.
    """
    return float(np.mean(-np.log2((seen_by[lists[lists >= 0]] + 1) / (users + 2))))


def auc(hits: np.ndarray, relevant: Counts, listed: Counts, candidates: Counts) -> Values:
    """Area under the ROC curve of a list cut at K: what is not listed stands behind it in no order.

    Share of the pairs of a relevant and another candidate that are in the right order; ties count half.

    >>> round(float(auc(np.array([False, True]), 1, 2, 4)), 4)  # of three others one stands above
    0.6667
    >>> round(float(auc(np.array([False, False]), 1, 2, 4)), 4)  # two of three stand above, the third by chance
    0.1667

    Args:
        hits: bool (users, k) or (k,).
        relevant: number of relevant items.
        listed: items in the list.
        candidates: items that could be listed, the relevant ones included.
    """
    found, others = hits.sum(-1), np.maximum(np.asarray(candidates) - relevant, 1)
    above = (np.cumsum(~hits, -1) * hits).sum(-1)  # others above each hit
    behind = np.maximum(np.asarray(candidates) - relevant - (listed - found), 0) / 2
    return np.asarray((found * others - above + (relevant - found) * behind) / (relevant * others))


def serendipity(hits: np.ndarray, expected: np.ndarray) -> Values:
    """Share of the places that hold a relevant item which the most popular items do not have.

    https://doi.org/10.1145/1864708.1864761

    >>> float(serendipity(np.array([True, True, False, False]), np.array([True, False, False, True])))
    0.25

    Args:
        hits: bool (users, k).
        expected: bool (users, k), whether the item is among the K most popular.
    """
    return np.asarray((hits & ~expected).mean(-1))


def diversity(lists: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Mean of 1 - cosine over the pairs of a list (users,), NaN below two items.

    https://doi.org/10.1145/1060745.1060754

    >>> diversity(np.array([[0, 1], [0, -1]]), np.array([[1.0, 0], [0, 1]])).tolist()
    [1.0, nan]

    Args:
        lists: item rows (users, k), -1 behind the end of a list.
        vectors: unit vectors (items, d); zeros are like nothing.
    """
    there = lists >= 0
    rows = vectors[np.maximum(lists, 0)] * there[..., None]
    n = there.sum(1)
    cosines = (rows.sum(1) ** 2).sum(-1) - (rows**2).sum((1, 2))
    return np.asarray(np.where(n > 1, 1 - cosines / np.maximum(n * (n - 1), 1), np.nan))


def miscalibration(listed: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of a list's categories from those of the history (users,), in bits; 0 is calibrated.

    https://doi.org/10.1145/3240323.3240372

    >>> miscalibration(np.array([[1.0, 0]]), np.array([[1.0, 0]])).tolist()
    [0.0]
    >>> miscalibration(np.array([[0, 0.0]]), np.array([[1.0, 0]])).tolist()
    [nan]

    Args:
        listed: weight of each category in the list (users, categories).
        history: in the user's history.
    """
    total, own = listed.sum(1, keepdims=True), history.sum(1, keepdims=True)
    q, p = listed / np.where(total > 0, total, 1), history / np.where(own > 0, own, 1)
    mixed = (1 - MIXED) * q + MIXED * p
    terms = p * np.log2(np.where(p > 0, p, 1) / np.where(mixed > 0, mixed, 1))
    return np.asarray(np.where((total > 0) & (own > 0), terms.sum(1, keepdims=True), np.nan)[:, 0])


def gini(exposure: np.ndarray) -> float:
    """Gini coefficient of how often items are listed: 0 where all are alike, near 1 where one has everything.

    https://doi.org/10.1287/mnsc.1080.0974

    >>> gini(np.array([1, 1, 1, 1])), gini(np.array([0, 0, 0, 4]))
    (0.0, 0.75)

    Args:
        exposure: count of each item of the catalogue, at least one above 0.
    """
    counts, n = np.sort(exposure), len(exposure)
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * counts.sum()))
