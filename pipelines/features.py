"""Vectors of every modality to one space: trains the aligner, fuses items, fuses users.

Writes ``model_aligner``, ``feat_items``, ``feat_users``. Belongs here: what is trained on what, the two tables. Does
not: networks and losses (``encoders.alignment``, ``encoders.fusion``).
"""

import json
import logging
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from encoders.alignment import AlignerSettings, card_bytes, load_aligner, train_aligner
from encoders.base import MODALITIES, choose_device
from encoders.fusion import fuse_items, fuse_users
from pipelines.config import Config
from pipelines.dataset import Dataset, end_of_day, item_features, load_dataset, user_uploads
from pipelines.schemas import optional_vectors_to_arrow, vectors_to_arrow
from pipelines.storage import Lake, Manifest

log = logging.getLogger(__name__)


def train(config: Config, lake: Lake, day: date) -> Manifest:
    """Publish ``model_aligner`` of the night, trained on what is known at its end."""
    data = load_dataset(lake, day, config.recommend, config.timezone)
    features, digests = item_features(config, lake, day)
    settings = AlignerSettings(**config.aligner.model_dump(exclude={"history"}))
    device = choose_device(config.compute.device, config.compute.precision)
    past = data.before(data.validation_days())  # the hybrid's validation events stay unseen
    weights, card = train_aligner(features, past.histories(), settings, device.name)
    card |= {
        "encoders": digests,
        "items": len(data.items),
        "users": len(data.users),
        "events": len(past.user),
        "upto": day.isoformat(),
    }
    files = {"aligner.safetensors": weights, "card.json": card_bytes(card)}
    return lake.publish_files("model_aligner", day, files, config_digest=config.digest("aligner", "encoders"))


def fuse(config: Config, lake: Lake, day: date) -> tuple[Manifest, Manifest]:
    """Publish ``feat_items`` and ``feat_users`` of the night."""
    manifest = lake.require("model_aligner", day)
    folder = lake.folder("model_aligner", day)
    card = json.loads((folder / "card.json").read_text())
    model = load_aligner((folder / "aligner.safetensors").read_bytes(), card)
    features, _ = item_features(config, lake, day)
    device = choose_device(config.compute.device, config.compute.precision).name
    fused = fuse_items(model, features, device)
    data = load_dataset(lake, day, config.recommend, config.timezone)
    provenance: dict[str, Any] = {
        "config_digest": config.digest("aligner", "encoders", "recommend"),
        "inputs": {"model_aligner": manifest.content_digest},
    }
    columns: dict[str, Any] = {
        "item_id": pa.array(data.items, pa.string()),
        "vector": vectors_to_arrow(fused.vector),
    }
    n = len(data.items)
    for m in MODALITIES:
        has = features[m].present if m in features else np.zeros(n, bool)
        aligned = fused.aligned[m] if m in features else np.zeros_like(fused.vector)
        columns |= {f"has_{m}": has, f"vector_{m}": optional_vectors_to_arrow(aligned, has)}
        columns[f"attention_{m}"] = fused.attention[m] if m in features else np.zeros(n, np.float32)
    columns["aligner_digest"] = pa.array([manifest.content_digest] * n, pa.string())
    items = lake.publish("feat_items", day, pa.table(columns), **provenance)
    uploads = user_uploads(lake, day, data, list(features))
    vectors = fuse_users(model, fused.vector, data.histories(), uploads, config.aligner.history, device)
    rows = _users_table(data, vectors, uploads, manifest.content_digest, day, config.timezone)
    users = lake.publish("feat_users", day, rows, **provenance)
    log.info("features %s: %d items, %d users", day, items.rows, users.rows)
    return items, users


def _users_table(
    data: Dataset, vectors: np.ndarray, uploads: list[list[Any]], digest: str, day: date, timezone: str
) -> pa.Table:
    n = len(data.users)
    youngest = np.full(n, np.inf)
    np.minimum.at(youngest, data.user, data.age_days)
    has = np.isfinite(youngest)
    end = int(end_of_day(day, timezone).timestamp() * 1e6)
    last = np.where(has, end - np.round(np.where(has, youngest, 0) * 86_400e6), 0).astype(np.int64)
    return pa.table(
        {
            "user_id": pa.array(data.users, pa.string()),
            "vector": vectors_to_arrow(vectors),
            "n_events": np.bincount(data.user, minlength=n),
            "n_items": np.diff(data.seen().indptr).astype(np.int64),
            "n_uploads": np.array([len(u) for u in uploads], np.int64),
            "last_event_at": pa.array(last, pa.timestamp("us", tz="UTC"), mask=~has),
            "recency_days": pa.array(np.where(has, youngest, 0.0), mask=~has),
            "aligner_digest": pa.array([digest] * n, pa.string()),
        }
    )
