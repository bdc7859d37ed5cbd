"""Ranking metrics of one user's list, and of all lists together. Pure functions, binary relevance, full ranking.

Every per-user function takes ``hits``, a bool array (k,), True where the item at that rank is relevant, and the
number of relevant items. Edge case of all: no relevant item is an error, the user must be left out.
"""

import math
from collections.abc import Callable

import numpy as np


def recall(hits: np.ndarray, relevant: int) -> float:
    r"""Recall@K: share of the relevant items that the list holds.

    >>> recall(np.array([True, False, True]), 4)  # 2 of 4
    0.5
    """
    return float(hits.sum() / relevant)


def hit_rate(hits: np.ndarray, relevant: int) -> float:
    """1 when the list holds any relevant item.

    >>> hit_rate(np.array([False, True]), 3), hit_rate(np.array([False, False]), 3)
    (1.0, 0.0)
    """
    return float(hits.any())


def ndcg(hits: np.ndarray, relevant: int) -> float:
    r"""NDCG@K with gain 1 and discount :math:`1 / \log_2(rank + 1)`; the ideal list holds min(K, relevant) hits first.

    https://doi.org/10.1145/582415.582418

    >>> round(ndcg(np.array([False, True]), 1), 4)  # 1 / log2(3)
    0.6309
    >>> ndcg(np.array([True, True]), 5)
    1.0
    """
    discount = 1 / np.log2(np.arange(2, len(hits) + 2))
    return float((hits * discount).sum() / discount[: min(relevant, len(hits))].sum())


def average_precision(hits: np.ndarray, relevant: int) -> float:
    """AP@K: precision at the rank of each hit, added up and divided by min(K, relevant).

    >>> round(average_precision(np.array([True, False, True]), 2), 4)  # (1/1 + 2/3) / 2
    0.8333
    """
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / min(relevant, len(hits)))


def reciprocal_rank(hits: np.ndarray, relevant: int) -> float:
    """1 / rank of the first hit, 0 without one.

    >>> reciprocal_rank(np.array([False, True, True]), 2), reciprocal_rank(np.array([False]), 2)
    (0.5, 0.0)
    """
    return float(1 / (np.argmax(hits) + 1)) if hits.any() else 0.0


PER_USER: dict[str, Callable[[np.ndarray, int], float]] = {
    "recall": recall,
    "ndcg": ndcg,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "hit_rate": hit_rate,
}


def coverage(lists: list[list[str]], catalogue: int) -> float:
    """Share of the catalogue that any list holds.

    >>> coverage([["a", "b"], ["b"]], 4)
    0.5
    """
    return len({i for items in lists for i in items}) / catalogue


def novelty(lists: list[list[str]], seen_by: dict[str, int], users: int) -> float:
    r"""Mean of :math:`-\log_2 p(i)` in bits, p the add-one smoothed share of users who had met the item.

    https://doi.org/10.1145/2043932.2043955

    >>> novelty([["new", "old"]], {"old": 1}, 2)  # -log2(1/4), -log2(2/4)
    1.5
    """
    surprise = [-math.log2((seen_by.get(i, 0) + 1) / (users + 2)) for items in lists for i in items]
    return sum(surprise) / len(surprise)
