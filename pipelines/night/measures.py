"""What lists were worth to the users who are judged: one number a user, or one of all lists together.

Belongs here: which metrics there are, and what each needs to know. Does not: their formulas (``learning.metrics``), who
is judged by what (``judgement``), slices and tables (the stages).
"""

import logging

import numpy as np
from scipy import sparse

from pipelines.learning import metrics
from pipelines.learning.metrics import PER_USER, hits_of
from pipelines.learning.offpolicy import LEAST_EFFECTIVE, effective_size
from pipelines.night.judgement import Judgement

log = logging.getLogger(__name__)

BLOCK = 4096  # users whose lists are gathered as vectors at once


def cut(lists: np.ndarray, cutoff: int) -> np.ndarray:
    """Lists of a length (users, cutoff)."""
    shown = lists[:, :cutoff]
    return np.pad(shown, ((0, 0), (0, cutoff - shown.shape[1])), constant_values=-1)


def of_all(every: np.ndarray, shown: np.ndarray, judgement: Judgement) -> dict[str, float]:
    """Metrics of all lists together.

    Args:
        every: lists of all users (lists, k).
        shown: lists of the judged users (users, k).
        judgement: what they are judged by.
    """
    exposure = np.bincount(every[every >= 0], minlength=len(judgement.items))
    found = {
        "coverage": metrics.coverage(every, len(judgement.items)),
        "novelty": metrics.novelty(shown, judgement.met, judgement.users_before),
        "gini": metrics.gini(exposure),
    }
    listed, own = _popularity(shown, judgement)
    both = ~np.isnan(listed) & ~np.isnan(own)
    if both.any() and own[both].mean() > 0:
        found["popularity_lift"] = float(listed[both].mean() / own[both].mean() - 1)
    return found


def _popularity(shown: np.ndarray, judgement: Judgement) -> tuple[np.ndarray, np.ndarray]:
    """Mean number of users who had met the items of each list, and of each user's history; NaN of none."""
    there = shown >= 0
    counted = (judgement.met[np.maximum(shown, 0)] * there).sum(1)
    listed = np.where(there.any(1), counted / np.maximum(there.sum(1), 1), np.nan)
    if judgement.history is None:
        return listed, np.full(len(shown), np.nan)
    number = np.diff(judgement.history.indptr)
    own = np.asarray(judgement.history @ judgement.met.astype(float)) / np.maximum(number, 1)
    return listed, np.where(number > 0, own, np.nan)


def measured(shown: np.ndarray, judgement: Judgement) -> dict[str, np.ndarray]:
    """Metric -> value of each judged user (users,), NaN where it has none.

    Args:
        shown: their lists (users, k), -1 behind the end.
        judgement: what they are judged by.
    """
    hits, number = hits_of(shown, judgement.relevant), np.diff(judgement.relevant.indptr)
    found = {name: np.asarray(f(hits, number), float) for name, f in sorted(PER_USER.items())}
    candidates = np.full(len(shown), len(judgement.items)) if judgement.candidates is None else judgement.candidates
    found["auc"] = np.asarray(metrics.auc(hits, number, (shown >= 0).sum(1), candidates))
    popular = np.argsort(-judgement.met, kind="stable")[: shown.shape[1]]
    found["serendipity"] = np.asarray(metrics.serendipity(hits, np.isin(shown, popular)))
    blocks = [shown[a : a + BLOCK] for a in range(0, len(shown), BLOCK)]
    if len(judgement.vectors) and blocks:
        found["diversity"] = np.concatenate([metrics.diversity(b, judgement.vectors) for b in blocks])
    if judgement.categories is not None and judgement.history is not None and judgement.categories.shape[1] > 1:
        parts = [
            _calibration(shown[a : a + BLOCK], judgement, slice(a, a + BLOCK)) for a in range(0, len(shown), BLOCK)
        ]
        found["calibration"] = np.concatenate([*parts, np.zeros(0)])
    return found


def _calibration(shown: np.ndarray, judgement: Judgement, users: slice) -> np.ndarray:
    """Miscalibration of the lists of some of the judged users (n,)."""
    history, categories = judgement.history, judgement.categories
    if history is None or categories is None:
        return np.full(len(shown), np.nan)
    row, _ = np.nonzero(shown >= 0)
    of = (np.ones(len(row)), (row, shown[shown >= 0]))
    lists = sparse.csr_matrix(of, shape=(len(shown), len(judgement.items)))
    listed, own = (np.asarray((m @ categories).todense()) for m in (lists, history[users]))
    return metrics.miscalibration(listed, own)


def by_exposure(shown: np.ndarray, judgement: Judgement) -> dict[str, np.ndarray]:
    """Recall and discounted gain as they would be if all items were shown alike: metric -> values (users,).

    A relevant item counts by the inverse of how often it is shown, and all weights are made to add up to one: the
    self-normalized estimate of https://arxiv.org/abs/1602.05352. The mean over users is the estimate; the values vary
    about it as its own error does, so intervals of their mean are those of the estimate.

    Args:
        shown: lists of the judged users (users, k), -1 behind the end.
        judgement: what they are judged by; nothing is said without exposure, or where the relevant items that count are
            worth fewer than ``LEAST_EFFECTIVE``.
    """
    if judgement.exposure is None or not judgement.relevant.nnz:
        return {}
    weight = 1 / judgement.exposure
    each, total = weight[judgement.relevant.indices], np.asarray(judgement.relevant @ weight)
    if (worth := effective_size(each)) < LEAST_EFFECTIVE:
        log.warning(
            "no *_snips: relevant items are worth %.1f of what is shown alike; %.0f are needed", worth, LEAST_EFFECTIVE
        )
        return {}
    hits = hits_of(shown, judgement.relevant) * weight[np.maximum(shown, 0)]
    found = {}
    for name, gain in (
        ("recall_snips", np.ones(shown.shape[1])),
        ("dcg_snips", 1 / np.log2(np.arange(2, shown.shape[1] + 2))),
    ):
        own = hits @ gain
        ratio = own.sum() / total.sum()
        found[name] = ratio + (own - ratio * total) / total.mean()
    return found
