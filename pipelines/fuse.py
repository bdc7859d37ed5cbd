"""Items and users of the night in the unified space, in blocks of rows through Beam.

Writes ``feat_items``, ``feat_users``. Belongs here: the two tables. Does not: networks (``encoders.space``), training
(``align``).
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.utils.shared import Shared

from encoders.device import choose_device
from encoders.modalities import MODALITIES
from encoders.space.alignment import load_aligner
from encoders.space.fusion import Features, FusionModel, fuse_items, fuse_users
from pipelines.config import Config
from pipelines.engine import beam as runtime
from pipelines.lake.schemas import optional_vectors_to_arrow, vectors_to_arrow, vectors_to_numpy
from pipelines.lake.storage import Lake, Manifest, scratch, write_parquet
from pipelines.night.contents import item_features, user_uploads
from pipelines.night.events import Dataset, end_of_day, load_dataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Space:
    """What a worker needs to put any item or user of a night into the unified space."""

    model: FusionModel
    digest: str
    features: dict[str, Features]
    data: Dataset
    uploads: list[list[tuple[str, np.ndarray]]]
    histories: list[np.ndarray]
    n_events: np.ndarray
    n_items: np.ndarray
    youngest_days: np.ndarray
    day: date
    timezone: str
    history: int
    device: str


def load_space(config: Config, lake: Lake, day: date) -> _Space:
    """Load the night's aligner, item vectors, events and uploads."""
    folder, manifest = lake.folder("model_aligner", day), lake.require("model_aligner", day)
    card = json.loads((folder / "card.json").read_text())
    features, _ = item_features(config, lake, day)
    data = load_dataset(lake, day, config.recommend, config.timezone)
    youngest = np.full(len(data.users), np.inf)
    np.minimum.at(youngest, data.user, data.age_days)
    return _Space(
        model=load_aligner((folder / "aligner.safetensors").read_bytes(), card),
        digest=manifest.content_digest,
        features=features,
        data=data,
        uploads=user_uploads(lake, day, data, list(features)),
        histories=data.histories(),
        n_events=np.bincount(data.user, minlength=len(data.users)),
        n_items=np.diff(data.seen().indptr).astype(np.int64),
        youngest_days=youngest,
        day=day,
        timezone=config.timezone,
        history=config.aligner.history,
        device=choose_device(config.compute.device).name,
    )


def fuse(config: Config, lake: Lake, day: date) -> tuple[Manifest, Manifest]:
    """Publish ``feat_items``, then ``feat_users``, of the night; blocks of rows go through Beam."""
    data = load_dataset(lake, day, config.recommend, config.timezone)
    items = _fuse_table(config, lake, day, "feat_items", len(data.items))
    users = _fuse_table(config, lake, day, "feat_users", len(data.users))
    log.info("features %s: %d items, %d users", day, items.rows, users.rows)
    return items, users


def _fuse_table(config: Config, lake: Lake, day: date, table: str, rows: int) -> Manifest:
    size = config.compute.shard_rows
    blocks = [(a, min(a + size, rows)) for a in range(0, max(rows, 1), size)]
    with scratch(config.paths.data / "cache", table) as staging:

        def build(p: beam.Pipeline) -> None:
            fuse_block = beam.ParDo(FuseBlock(config, lake.root, day, str(staging), table))
            p | beam.Create(blocks, reshuffle=False) | fuse_block

        runtime.run(build, config.compute.runner, config.compute.runner_options, table)
        return lake.publish(
            table,
            day,
            (pq.read_table(staging / f"{a:09d}.parquet") for a, _ in blocks),
            config_digest=config.digest("aligner", "encoders", "recommend"),
            inputs={"model_aligner": lake.require("model_aligner", day).content_digest},
        )


class FuseBlock(beam.DoFn):
    """(first row, end) of the night's sorted items or users -> path of a Parquet shard of ``table``."""

    def __init__(self, config: Config, lake: Path, day: date, out: str, table: str):
        self.config, self.lake, self.day, self.out, self.table = config, lake, day, out, table
        self.shared = Shared()

    def setup(self) -> None:
        """Load the night once a process."""
        lake = Lake(self.lake)
        self.space: _Space = self.shared.acquire(lambda: load_space(self.config, lake, self.day))
        if self.table == "feat_users":
            self.fused = vectors_to_numpy(lake.read("feat_items", self.day, ["vector"])["vector"])

    def process(self, element: tuple[int, int]) -> Iterator[str]:
        """Fuse one block."""
        rows = slice(*element)
        is_items = self.table == "feat_items"
        table = item_rows(self.space, rows) if is_items else user_rows(self.space, self.fused, rows)
        path = Path(self.out) / f"{element[0]:09d}.parquet"
        write_parquet(table, path)
        yield str(path)


def item_rows(space: _Space, rows: slice) -> pa.Table:
    """Rows of ``feat_items`` for a block of items."""
    ids = space.data.items[rows]
    features = {m: Features(f.matrix[rows], f.present[rows]) for m, f in space.features.items()}
    fused = fuse_items(space.model, features, space.device)
    columns: dict[str, Any] = {"item_id": pa.array(ids, pa.string()), "vector": vectors_to_arrow(fused.vector)}
    for m in MODALITIES:
        has = features[m].present if m in features else np.zeros(len(ids), bool)
        aligned = fused.aligned[m] if m in features else np.zeros_like(fused.vector)
        columns |= {f"has_{m}": has, f"vector_{m}": optional_vectors_to_arrow(aligned, has)}
        columns[f"attention_{m}"] = fused.attention[m] if m in features else np.zeros(len(ids), np.float32)
    columns["aligner_digest"] = pa.array([space.digest] * len(ids), pa.string())
    return pa.table(columns)


def user_rows(space: _Space, fused: np.ndarray, rows: slice) -> pa.Table:
    """Rows of ``feat_users`` for a block of users; ``fused`` are the vectors of all items."""
    ids, uploads = space.data.users[rows], space.uploads[rows]
    vectors = fuse_users(space.model, fused, space.histories[rows], uploads, space.history, space.device)
    youngest = space.youngest_days[rows]
    has = np.isfinite(youngest)
    end = int(end_of_day(space.day, space.timezone).timestamp() * 1e6)
    last = np.where(has, end - np.round(np.where(has, youngest, 0) * 86_400e6), 0).astype(np.int64)
    return pa.table(
        {
            "user_id": pa.array(ids, pa.string()),
            "vector": vectors_to_arrow(vectors),
            "n_events": space.n_events[rows],
            "n_items": space.n_items[rows],
            "n_uploads": np.array([len(u) for u in uploads], np.int64),
            "last_event_at": pa.array(last, pa.timestamp("us", tz="UTC"), mask=~has),
            "recency_days": pa.array(np.where(has, youngest, 0.0), mask=~has),
            "aligner_digest": pa.array([space.digest] * len(ids), pa.string()),
        }
    )
