"""Fits every recommender of the night and publishes ``model_<name>``.

Belongs here: the time split on which the hybrid is fitted, the cards. Does not: any algorithm (``recommenders``),
storing (``models``).
"""

import logging
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
from scipy import sparse

from encoders.alignment import load_aligner
from encoders.base import choose_device
from encoders.fusion import Features, FusionModel, fuse_users
from pipelines.config import Config
from pipelines.dataset import Dataset, item_features, load_dataset, user_uploads
from pipelines.models import Uploads, build_inputs, feature_vectors, load_card, model_files, recommenders
from pipelines.recommenders import hybrid
from pipelines.storage import Lake, Manifest

log = logging.getLogger(__name__)


def train(config: Config, lake: Lake, day: date, progress: Callable[[str], None] = log.info) -> dict[str, Manifest]:
    """Fit and publish all recommenders.

    Returns:
        Manifest of each ``model_<name>``.
    """
    data = load_dataset(lake, day, config.recommend, config.timezone, everyone=True)
    features, _ = item_features(config, lake, day)
    uploads = user_uploads(lake, day, data, list(features))
    fused, vectors = feature_vectors(lake, day, data)
    provenance: dict[str, Any] = {
        "config_digest": config.digest("recommend"),
        "inputs": {t: lake.require(t, day).content_digest for t in ("std_interactions", "feat_items", "feat_users")},
    }
    facts = {
        "upto": day.isoformat(),
        "users": len(data.users),
        "items": len(data.items),
        "events": len(data.user),
    }
    made = {}
    inputs = build_inputs(data, features, uploads, fused, vectors)
    for model in recommenders(config.recommend):
        started = time.monotonic()
        state = model.fit(inputs).state()
        made[f"model_{model.name}"] = lake.publish_files(
            f"model_{model.name}", day, model_files(state, facts), **provenance
        )
        progress(f"{model.name}: fitted on {facts['events']} events in {time.monotonic() - started:.1f} s")
    weights, report = fit_hybrid(config, lake, day, data, features, uploads, fused)
    state = {f"weights.{s}": np.array([weights[s][n] for n in hybrid.PARTS], np.float32) for s in weights}
    card = facts | {"weights": weights, "validation": report}
    made["model_hybrid"] = lake.publish_files("model_hybrid", day, model_files(state, card), **provenance)
    progress(f"hybrid: {report}")
    return made


def fit_hybrid(
    config: Config,
    lake: Lake,
    day: date,
    data: Dataset,
    features: dict[str, Features],
    uploads: Uploads,
    fused: np.ndarray,
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Weights of each user segment, chosen on the last events before the end of the night.

    The recommenders are fitted again without these events. Cold users are those without positive history before.
    """
    days = data.validation_days()
    past = data.before(days)
    card = load_card(lake, "aligner", day)
    model: FusionModel = load_aligner((lake.folder("model_aligner", day) / "aligner.safetensors").read_bytes(), card)
    device = choose_device(config.compute.device, config.compute.precision).name
    none: Uploads = [[] for _ in data.users]  # uploads carry no time here, so validation does without them
    vectors = fuse_users(model, fused, past.histories(), none, config.aligner.history, device)
    inputs = build_inputs(past, features, none, fused, vectors)
    seen = past.seen()
    relevant = relevant_after(data, days, seen if config.recommend.filter_seen else None)
    judged = np.flatnonzero(np.diff(relevant.indptr))
    warm = np.diff(inputs.positives.indptr)[judged] > 0
    weights = dict(hybrid.DEFAULT)
    report: dict[str, Any] = {"days": days}
    fitted = [m.fit(inputs) for m in recommenders(config.recommend)]
    for segment, users in (("warm", judged[warm]), ("cold", judged[~warm])):
        if len(users) < hybrid.MIN_USERS:
            report[segment] = {
                "users": len(users),
                "note": f"default weights: fewer than {hybrid.MIN_USERS} validation users",
            }
            continue
        scores = {m.name: m.score(inputs, users) for m in fitted}
        forbidden = seen[users] if config.recommend.filter_seen else None
        weights[segment], report[segment] = hybrid.fit_weights(
            scores, relevant[users], forbidden, config.recommend.k, weights[segment]
        )
    return weights, report


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
