"""Scores of several recommenders for the same users, so that a hybrid reads what the others have computed.

Belongs here: the order in which they are asked. Does not: lists (``pipelines.score``), a model's own scores.
"""

from collections.abc import Iterator

import numpy as np

from pipelines.recommenders.base import Inputs, Recommender
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.blend.transfer import Transfer
from pipelines.recommenders.ranking import liked_by


def popular_where_flat(scores: np.ndarray, inputs: Inputs) -> np.ndarray:
    """Scores (users, items), with what is popular for users of whom a recommender has nothing to say."""
    told = scores.max(1) > scores.min(1) if scores.shape[1] else np.ones(len(scores), bool)
    if told.all():
        return scores
    return np.where(told[:, None], scores, np.asarray(inputs.positives.sum(0), np.float32).ravel())


def scored(
    models: list[Recommender], inputs: Inputs, users: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Name and scores (users, items) of each recommender; what new items are ranked by where its lists keep places.

    A hybrid comes after the others and reads their signals, so that none is computed twice.
    """
    evidence: dict[str, list[np.ndarray]] = {}
    new: np.ndarray | None = None
    for model in models:
        if isinstance(model, Hybrid):
            scores = model.blend(evidence, liked_by(inputs, users))
            yield model.name, scores, scores if new is None else new
            continue
        evidence[model.name] = model.evidence(inputs, users)
        scores = model.combine(evidence[model.name])
        new = scores if isinstance(model, Transfer) else new
        yield model.name, scores, None
