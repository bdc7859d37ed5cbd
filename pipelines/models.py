"""Recommenders and the arrays they need, to and from the lake.

Belongs here: tables to ``Inputs``, ``model_<name>`` partitions to fitted objects. Does not: any algorithm
(``recommenders``), when to fit (``train``), what to serve (``score``).
"""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from safetensors.numpy import save as save_arrays

from encoders.base import unit_rows
from encoders.fusion import Features
from pipelines.config import Recommend
from pipelines.dataset import Dataset
from pipelines.recommenders.base import Arrays, Inputs, Recommender
from pipelines.recommenders.content import Content, Multimodal
from pipelines.recommenders.neighbours import ItemCF, Popularity, UserCF
from pipelines.schemas import vectors_to_numpy
from pipelines.storage import Lake

Uploads = list[list[tuple[str, np.ndarray]]]


def recommenders(settings: Recommend) -> list[Recommender]:
    """Unfitted recommenders, without the hybrid that blends them."""
    return [Popularity(), UserCF(settings.neighbours), ItemCF(settings.neighbours), Content(), Multimodal()]


def model_files(state: Arrays, card: Mapping[str, Any]) -> dict[str, bytes]:
    """Files of a ``model_<name>`` partition."""
    arrays = {k: np.ascontiguousarray(v) for k, v in sorted(state.items())}
    return {
        "model.safetensors": save_arrays(arrays),
        "card.json": (json.dumps(card, indent=1, sort_keys=True) + "\n").encode(),
    }


def load_recommenders(lake: Lake, day: date, settings: Recommend) -> list[Recommender]:
    """The night's fitted recommenders, without the hybrid.

    Raises:
        StorageError: one was not published.
    """
    fitted = []
    for model in recommenders(settings):
        lake.require(f"model_{model.name}", day)
        fitted.append(model.restore(load_file(lake.folder(f"model_{model.name}", day) / "model.safetensors")))
    return fitted


def load_card(lake: Lake, name: str, day: date) -> dict[str, Any]:
    """Card of a published model.

    Raises:
        StorageError: it was not published.
    """
    lake.require(f"model_{name}", day)
    card: dict[str, Any] = json.loads((lake.folder(f"model_{name}", day) / "card.json").read_text())
    return card


def build_inputs(
    data: Dataset,
    features: dict[str, Features],
    uploads: Uploads,
    fused: np.ndarray,
    user_vectors: np.ndarray,
) -> Inputs:
    """Arrays that recommenders learn from; rows as in ``data``.

    Args:
        data: events.
        features: modality -> vectors of ``data.items``.
        uploads: (modality, vector) of each of ``data.users``.
        fused: unified vectors of ``data.items``.
        user_vectors: unified vectors of ``data.users``.
    """
    positives = data.positives()
    content = {m: np.where(f.present[:, None], f.matrix, 0).astype(np.float32) for m, f in features.items()}
    means = {m: np.zeros((len(data.users), v.shape[1]), np.float32) for m, v in content.items()}
    for u, pieces in enumerate(uploads):
        for m in {m for m, _ in pieces}:
            means[m][u] = unit_rows(np.mean([v for kind, v in pieces if kind == m], axis=0)[None])[0]
    signal = (np.diff(positives.indptr) > 0) | np.array([bool(p) for p in uploads], bool)
    return Inputs(positives, content, means, fused, user_vectors, signal)


def feature_vectors(lake: Lake, day: date, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Unified vectors of ``data.items`` and ``data.users`` from the night's tables; zero rows for absent users."""
    fused = vectors_to_numpy(lake.read("feat_items", day, ["vector"])["vector"])
    table = lake.read("feat_users", day, ["user_id", "vector"])
    stored = vectors_to_numpy(table["vector"])
    out = np.zeros((len(data.users), stored.shape[1]), np.float32)
    at = {u: i for i, u in enumerate(data.users)}
    out[[at[u] for u in table["user_id"].to_pylist()]] = stored
    return fused, out
