"""Tables to what recommenders learn from: as of a night, and as of some days before it, to validate on the rest.

Belongs here: ``Inputs`` from the lake, the time split. Does not: any model.
"""

from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from scipy import sparse

from encoders.base import unit_rows
from encoders.device import choose_device
from encoders.space.alignment import load_aligner
from encoders.space.fusion import Features, fuse_users
from pipelines.config import Config
from pipelines.lake.cards import load_card
from pipelines.lake.schemas import vectors_to_numpy
from pipelines.lake.storage import Lake
from pipelines.night.contents import item_features, user_uploads
from pipelines.night.events import Dataset, load_dataset
from pipelines.recommenders.base import Inputs

Uploads = list[list[tuple[str, np.ndarray]]]


def load_inputs(config: Config, lake: Lake, day: date) -> tuple[Dataset, Inputs]:
    """Events and what recommenders see of them at the end of a night, the user without history included."""
    data = load_dataset(lake, day, config.recommend, config.timezone, everyone=True)
    features, _ = item_features(config, lake, day)
    uploads = user_uploads(lake, day, data, list(features))
    device = choose_device(config.compute.device, config.compute.precision).name
    inputs = build_inputs(data, features, uploads, *feature_vectors(lake, day, data))
    return data, replace(inputs, device=device)


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
    return Inputs(
        positives=positives,
        content=content,
        uploads=means,
        fused=fused,
        user_vectors=user_vectors,
        has_signal=(np.diff(positives.indptr) > 0) | np.array([bool(p) for p in uploads], bool),
        histories=data.histories(),
    )


def feature_vectors(lake: Lake, day: date, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Unified vectors of ``data.items`` and ``data.users`` from the night's tables; zero rows for absent users."""
    fused = vectors_to_numpy(lake.read("feat_items", day, ["vector"])["vector"])
    table = lake.read("feat_users", day, ["user_id", "vector"])
    stored = vectors_to_numpy(table["vector"])
    out = np.zeros((len(data.users), stored.shape[1]), np.float32)
    at = {u: i for i, u in enumerate(data.users)}
    out[[at[u] for u in table["user_id"].to_pylist()]] = stored
    return fused, out


@dataclass(frozen=True)
class Validation:
    """The last days before the end of a night, to choose and weigh models on.

    Attributes:
        days: how many.
        past: what recommenders see of the time before; uploads carry no time here, so it has none.
        wanted: nonzero (users, items) that users came to like in these days.
        seen: nonzero (users, items) that lists leave out, or None.
    """

    days: float
    past: Inputs
    wanted: sparse.csr_matrix
    seen: sparse.csr_matrix | None


def load_validation(config: Config, lake: Lake, day: date, data: Dataset, now: Inputs) -> Validation:
    """Cut the last days off; the aligner has not seen them either."""
    days = data.validation_days()
    past = data.before(days)
    weights = (lake.folder("model_aligner", day) / "aligner.safetensors").read_bytes()
    device = choose_device(config.compute.device, config.compute.precision).name
    histories, none = past.histories(), list[list[tuple[str, np.ndarray]]]([[]] * len(data.users))
    aligner = load_aligner(weights, load_card(lake, "aligner", day))
    positives = past.positives()
    before = replace(
        now,
        positives=positives,
        uploads={},
        user_vectors=fuse_users(aligner, now.fused, histories, none, config.aligner.history, device),
        has_signal=np.diff(positives.indptr) > 0,
        histories=histories,
    )
    seen = past.seen() if config.recommend.filter_seen else None
    return Validation(days, before, relevant_after(data, days, seen), seen)


def relevant_after(data: Dataset, age_days: float, seen: sparse.csr_matrix | None) -> sparse.csr_matrix:
    """Items (users, items) that users came to like in the last ``age_days``, without those in ``seen``."""
    late = (data.age_days < age_days) & (data.weight > 0)
    shape = (len(data.users), len(data.items))
    liked = sparse.csr_matrix((np.ones(late.sum(), np.float32), (data.user[late], data.item[late])), shape=shape)
    liked.data[:] = 1
    if seen is not None:
        liked = (liked - liked.multiply(seen)).tocsr()
    liked.eliminate_zeros()
    return liked
