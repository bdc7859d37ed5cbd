"""Small worlds whose right answers are known by construction."""

from typing import Any

import numpy as np
from scipy import sparse

from encoders.settings import AlignerSettings
from encoders.space.features import Features
from pipelines.recommenders.blend.likelihood import Choices, Weights
from pipelines.recommenders.ranking import PASS_USERS

USERS, ITEMS = 4 * PASS_USERS + 24, 60


def chosen(channels: list[np.ndarray], wanted: sparse.csr_matrix, seen: sparse.csr_matrix | None = None) -> Choices:
    c = len(channels)
    return Choices.collect(channels, wanted, seen, np.full(c, 1 / c), np.zeros(wanted.shape[1], np.float32))


def weights(channels: int, covariates: int = 0, value: float = 0.0) -> Weights:
    """Weights that are all the same."""
    return Weights(np.full(channels, value), np.full(covariates, value))


World = tuple[dict[str, Features], list[np.ndarray], np.ndarray]  # features, histories, group of each item
Trained = tuple[bytes, dict[str, Any]]  # weights and their card
N, GROUPS = 120, 4


SETTINGS = AlignerSettings(dim=16, steps=80, batch_size=64, heads=2)
