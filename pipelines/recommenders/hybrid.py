"""The hybrid: a blend of the other recommenders, its weights fitted on a time split, cold users routed apart."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from pipelines.metrics import ndcg
from pipelines.recommenders.base import standard_scores, top_k

PARTS = ("popularity", "user_cf", "item_cf", "content", "multimodal")
GRID = (0.0, 0.25, 0.5, 1.0, 2.0)
ROUNDS = 2  # coordinate passes over the grid
MIN_USERS = 10  # validation users below which the default weights stay
DEFAULT = {
    "warm": dict(zip(PARTS, (0.25, 0.5, 1.0, 0.5, 1.0), strict=True)),
    "cold": dict(zip(PARTS, (1.0, 0.0, 0.0, 1.0, 1.0), strict=True)),
}


def blend(scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Weighted sum of standard scores (users, items).

    Args:
        scores: recommender -> scores (users, items).
        weights: recommender -> weight.
    """
    total = np.zeros_like(next(iter(scores.values())), np.float32)
    for name in PARTS:
        if weights[name]:
            total += weights[name] * standard_scores(scores[name])
    return total


def route(scores: Mapping[str, np.ndarray], weights: Mapping[str, Mapping[str, float]], warm: np.ndarray) -> np.ndarray:
    """Blend with the weights of each user's segment; ``warm`` is bool (users,)."""
    total = blend(scores, weights["cold"])
    total[warm] = blend({k: v[warm] for k, v in scores.items()}, weights["warm"]) if warm.any() else total[warm]
    return total


def fit_weights(
    scores: Mapping[str, np.ndarray],
    relevant: sparse.csr_matrix,
    seen: sparse.csr_matrix | None,
    k: int,
    start: Mapping[str, float],
) -> tuple[dict[str, float], dict[str, Any]]:
    """Weights that maximise NDCG@K on validation users by a coordinate search over ``GRID``.

    Args:
        scores: recommender -> scores (users, items) of models fitted before the validation events.
        relevant: nonzero (users, items) that the users came to like in the validation time.
        seen: items to leave out, or None.
        k: list length.
        start: weights to begin with; one that makes no difference keeps its value.

    Returns:
        Weights, and what was found: NDCG@K of each part alone and of the blend.
    """
    ready = {name: standard_scores(scores[name]) for name in PARTS}

    def quality(weights: Mapping[str, float]) -> float:
        total = sum(w * ready[n] for n, w in weights.items() if w)
        if isinstance(total, int):
            return 0.0
        items, _ = top_k(np.asarray(total), k, seen)
        return mean_ndcg(items, relevant)

    alone = {n: quality({n: 1.0}) for n in PARTS}
    weights, best = dict(start), quality(start)
    for _ in range(ROUNDS):
        for name in PARTS:
            for value in GRID:
                trial = weights | {name: value}
                if value != weights[name] and any(trial.values()) and (found := quality(trial)) > best + 1e-9:
                    weights, best = trial, found
    report = {
        "ndcg_alone": {n: round(v, 5) for n, v in alone.items()},
        "ndcg_blend": round(best, 5),
        "users": relevant.shape[0],
    }
    return weights, report


def mean_ndcg(items: np.ndarray, relevant: sparse.csr_matrix) -> float:
    """Mean NDCG over rows; ``items`` (users, k) item rows, -1 behind the end of a list."""
    values = []
    for row in range(len(items)):
        liked = relevant.indices[relevant.indptr[row] : relevant.indptr[row + 1]]
        values.append(ndcg(np.isin(items[row], liked), len(liked)))
    return float(np.mean(values)) if values else 0.0
