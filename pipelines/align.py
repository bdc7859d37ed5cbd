"""Vectors of every modality to one space: trains the aligner on the night's content and history.

Writes ``model_aligner``. Belongs here: what is trained on what. Does not: networks and losses
(``encoders.space``), putting items and users into the space (``fuse``).
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.device import choose_device
from encoders.modalities import Modality
from encoders.space.alignment import card_bytes, train_aligner
from encoders.space.features import Features
from pipelines.config import Config
from pipelines.lake.schemas import rows_in, vectors_to_numpy
from pipelines.lake.storage import Lake, Manifest
from pipelines.night.contents import view_digest
from pipelines.night.night import Night
from pipelines.sections import Augment


def align(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``model_aligner`` of the night, trained on what is known at its end."""
    night = Night.of(config, lake, day)
    data, digests = night.dataset(), night.encoder_digests()
    features = with_views(night, night.features(), digests, config.augment)
    device = choose_device(config.compute.device)
    past = data.before(data.validation_days())  # the hybrid's validation events stay unseen
    weights, card = train_aligner(features, past.histories(), config.aligner, device.name, digests)
    card |= {
        "encoders": digests,
        "items": len(data.items),
        "users": len(data.users),
        "events": len(past.user),
        "upto": day.isoformat(),
    }
    files = {"aligner.safetensors": weights, "card.json": card_bytes(card)}
    yield lake.publish_files("model_aligner", day, files, config_digest=config.digest("aligner", "augment", "encoders"))


def with_views(
    night: Night, features: dict[Modality, Features], digests: dict[Modality, str], settings: Augment
) -> dict[Modality, Features]:
    """The same features with augmented rows beside them, where ``augment`` made some."""
    if not settings.views:
        return features
    views, out = pa.concat_tables(night.lake.scan("aug_views", night.lake.days("aug_views", night.day))), dict(features)
    for m in (m for m in features if settings.ops(m)):
        contents = night.contents(m)
        wanted = [view_digest(digests[m], settings.ops(m), v) for v in range(settings.views)]
        made = [_view(views.filter(pc.equal(views["view_digest"], d)), contents, features[m].matrix) for d in wanted]
        out[m] = replace(features[m], views=np.stack(made))
    return out


def _view(views: pa.Table, contents: pa.ListArray, original: np.ndarray) -> np.ndarray:
    """One view of each item (n, d_m): the view of its first content, or the item's own vector."""
    out, length = original.copy(), np.asarray(pc.list_value_length(contents))
    some = np.flatnonzero(length)
    first = contents.flatten().take(pa.array(np.cumsum([0, *length])[:-1][some]))
    row = rows_in(first, views["content_sha256"].combine_chunks())
    if (row >= 0).any():
        out[some[row >= 0]] = vectors_to_numpy(views["vector"])[row[row >= 0]]
    return out
