"""Vectors of every modality to one space: trains the aligner on the night's content and history.

Writes ``model_aligner``. Belongs here: what is trained on what. Does not: networks and losses
(``encoders.space``), putting items and users into the space (``fuse``).
"""

from dataclasses import replace
from datetime import date

import numpy as np

from encoders.device import choose_device
from encoders.modalities import MODALITIES
from encoders.space.alignment import card_bytes, train_aligner
from encoders.space.fusion import Features
from pipelines.config import Config
from pipelines.lake.storage import Lake, Manifest
from pipelines.night.contents import content_of, item_features, view_digest
from pipelines.night.events import load_dataset


def align(config: Config, lake: Lake, day: date) -> Manifest:
    """Publish ``model_aligner`` of the night, trained on what is known at its end."""
    data = load_dataset(lake, day, config.recommend, config.timezone)
    features, digests = item_features(config, lake, day)
    features = with_views(config, lake, day, features, digests)
    device = choose_device(config.compute.device)
    past = data.before(data.validation_days())  # the hybrid's validation events stay unseen
    weights, card = train_aligner(features, past.histories(), config.aligner, device.name)
    card |= {
        "encoders": digests,
        "items": len(data.items),
        "users": len(data.users),
        "events": len(past.user),
        "upto": day.isoformat(),
    }
    files = {"aligner.safetensors": weights, "card.json": card_bytes(card)}
    return lake.publish_files(
        "model_aligner", day, files, config_digest=config.digest("aligner", "augment", "encoders")
    )


def with_views(
    config: Config, lake: Lake, day: date, features: dict[str, Features], digests: dict[str, str]
) -> dict[str, Features]:
    """The same features with augmented rows beside them, where ``augment`` made some."""
    if not config.augment.views:
        return features
    items, out = lake.read("std_items", day), dict(features)
    vectors: dict[tuple[str, str], np.ndarray] = {}
    for part in lake.scan("aug_views", lake.days("aug_views", day)):
        keys = zip(part["view_digest"].to_pylist(), part["content_sha256"].to_pylist(), strict=True)
        vectors |= dict(zip(keys, part["vector"].to_numpy(), strict=True))
    for m in (m for m in MODALITIES if m in features and config.augment.ops(m)):
        lists = content_of(config, m, items)
        wanted = [view_digest(config, m, digests[m], v) for v in range(config.augment.views)]
        views = [_view(vectors, digest, lists, features[m].matrix) for digest in wanted]
        out[m] = replace(features[m], views=np.stack(views))
    return out


def _view(
    vectors: dict[tuple[str, str], np.ndarray], digest: str, lists: list[list[str]], original: np.ndarray
) -> np.ndarray:
    """One view of each item (n, d_m): the view of its first content, or the item's own vector."""
    out = original.copy()
    for row, shas in enumerate(lists):
        if shas and (digest, shas[0]) in vectors:
            out[row] = vectors[(digest, shas[0])]
    return out
