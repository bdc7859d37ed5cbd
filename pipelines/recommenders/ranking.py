"""Scores to ranked lists: exact top-K, what may not be in a list, scores on a common scale, NDCG of scores.

Does not belong here: any model, metrics of lists (``learning.metrics``).
"""

from collections.abc import Iterable

import numpy as np
import torch
from scipy import sparse

from pipelines.learning.metrics import hits_of, ndcg
from pipelines.recommenders.base import Inputs

SEGMENT = 64  # items of a row that are looked at together
MIN_USERS = 10  # validation users below which nothing is fitted on them
FIT_SCORES = 20_000_000  # users x items that weights are fitted on
FIT_USERS = 500  # however many items there are: each user is fitted on a sample of alternatives
FIT_DOMAINS = 4  # times as many at most, however many domains there are
BLOCK_SCORES = 1_000_000  # users x items of one signal at once; with more, caches overflow
MOST_SCORES = 4_000_000  # as many at most, where full passes of a walk or full files are worth more than caches
PASS_USERS = 64  # users of one pass of a walk; they fill entire lines of the processor's cache


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
    allowed = np.empty((users, -(-width // SEGMENT) * SEGMENT), np.float32)  # padded to full segments
    allowed[:, :width], allowed[:, width:] = scores, -np.inf
    forbid(allowed, forbidden)
    values, items = (part.cpu().numpy() for part in _largest(torch.from_numpy(allowed).to(device), k + 1))
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

    Rows are padded to full segments.
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
    total: np.ndarray = first.numpy()
    return total


def standard_scores(scores: np.ndarray) -> np.ndarray:
    """Each row to mean 0 and standard deviation 1; rows without any difference to 0."""
    rows = torch.from_numpy(scores)
    rows = rows - rows.mean(1, keepdim=True)
    deviation = torch.linalg.vector_norm(rows, dim=1, keepdim=True) / rows.shape[1] ** 0.5
    return rows.mul_(torch.where(deviation < 1e-9, 0, 1 / deviation)).numpy()


def events_of(inputs: Inputs) -> np.ndarray:
    """Users who like each item (items,)."""
    return np.asarray((inputs.positives > 0).sum(0), np.int64).ravel()


def liked_by(inputs: Inputs, users: np.ndarray) -> np.ndarray:
    """Items in each user's history (len(users),)."""
    return np.diff(inputs.positives.indptr)[users]


def is_warm(inputs: Inputs, users: np.ndarray) -> np.ndarray:
    """Bool (len(users),), True where a user has positive history."""
    return liked_by(inputs, users) > 0


def some_users(users: np.ndarray, items: int, domains: int = 1) -> np.ndarray:
    """At most as many users as ``FIT_SCORES`` allows, and ``FIT_USERS`` in any case, drawn with a fixed seed.

    With several domains ``FIT_USERS`` are of each, of up to ``FIT_DOMAINS``.
    """
    most = max(FIT_USERS * min(domains, FIT_DOMAINS), FIT_SCORES // max(items, 1))
    return users if len(users) <= most else np.sort(np.random.default_rng(0).permutation(users)[:most])


def blocks_of(users: np.ndarray, items: int) -> list[np.ndarray]:
    """Users in blocks whose scores stay small, of full passes of a walk where there is room for one."""
    passes, most = BLOCK_SCORES // max(items, 1) // PASS_USERS, MOST_SCORES // max(items, 1)
    size = max(min(max(passes, 1) * PASS_USERS, most), 1)
    return [users[a : a + size] for a in range(0, len(users), size)]


def ndcg_of(
    scores: np.ndarray, relevant: sparse.csr_matrix, seen: sparse.csr_matrix | None, k: int, device: str
) -> np.ndarray:
    """NDCG@K of each user (users,)."""
    items, _ = top_k(scores, k, seen, device)
    return np.asarray(ndcg(hits_of(items, relevant), np.diff(relevant.indptr)))
