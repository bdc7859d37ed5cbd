"""Items and users of the night in the unified space, in blocks of rows through Beam.

Writes ``feat_items``, ``item_codes``, ``code_centres``, ``feat_users``. Belongs here: these tables. Does not: networks
and codes (``encoders.space``), training (``align``).
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.utils.shared import Shared

from encoders.device import choose_device, single_threaded
from encoders.modalities import MODALITIES
from encoders.space.alignment import load_aligner
from encoders.space.codes import CENTRES, LEVELS, NEW, Codes, codes_of
from encoders.space.features import Features, Uploads
from encoders.space.fusion import FusionModel, fuse_items, fuse_users
from encoders.space.ragged import Ragged
from pipelines.config import Config
from pipelines.engine import beam as engine
from pipelines.lake.cards import load_card
from pipelines.lake.folders import scratch
from pipelines.lake.schemas import optional_vectors_to_arrow, vectors_to_arrow, vectors_to_numpy
from pipelines.lake.storage import Lake, Manifest, write_parquet
from pipelines.night.night import Night

log = logging.getLogger(__name__)

Block = tuple[int, int]  # first row and end


def fuse(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``feat_items``, ``item_codes``, ``code_centres``, then ``feat_users``, of the night."""
    night = Night.of(config, lake, day)
    space = Space(str(lake.root), day, choose_device(config.compute.device).name)
    digest = config.digest("aligner", "encoders", "recommend")
    made_of = {"model_aligner": lake.require("model_aligner", day).content_digest}
    with scratch(config.paths.data / "cache", "fuse") as staging:
        items = ItemShards(night)
        parts = _fused(config, "feat_items", items, space, staging)
        yield lake.publish("feat_items", day, map(pq.read_table, parts), config_digest=digest, inputs=made_of)
        rows = pa.concat_tables(pq.read_table(p, columns=["item_id", "vector", "frame"]) for p in parts)
        codes, before = _codes(night, rows)
        made = {"item_codes": _code_rows(rows, codes), "code_centres": _centre_rows(codes)}
        for table, data in made.items():
            yield lake.publish(table, day, data, config_digest=digest, inputs=made_of | before)
        users = UserShards(night, config.aligner.history)
        parts = _fused(config, "feat_users", users, space, staging)
        yield lake.publish("feat_users", day, map(pq.read_table, parts), config_digest=digest, inputs=made_of)
    log.info("features %s: %d items, %d users", day, items.rows, users.rows)


def _fused(config: Config, table: str, shards: "ItemShards | UserShards", space: "Space", staging: Path) -> list[Path]:
    """Write the shards that workers need, and fuse them; the files of rows, in order."""
    size = config.compute.shard_rows
    blocks = [(a, min(a + size, shards.rows)) for a in range(0, max(shards.rows, 1), size)]
    for block in blocks:
        np.savez(staging / _shard(table, block, "npz"), allow_pickle=False, **shards.of(slice(*block)))

    def build(p: beam.Pipeline) -> None:
        p | beam.Create(blocks, reshuffle=False) | beam.ParDo(FuseBlock(space, str(staging), table))

    engine.run(build, config.compute.runner, config.compute.runner_options, table)
    return [staging / _shard(table, block, "parquet") for block in blocks]


def _codes(night: Night, rows: pa.Table) -> tuple[Codes, dict[str, str]]:
    """Codes of all items, which continue those of the night before where it shares the frame; digest of what it was."""
    lake, day = night.lake, night.day
    vectors = vectors_to_numpy(rows["vector"])
    earlier = [d for d in lake.days("item_codes", day) if d < day and lake.manifest("std_items", d)]
    before, inputs = None, dict[str, str]()
    if earlier and rows.num_rows:
        last = lake.read("item_codes", earlier[-1])
        if last.num_rows and last["frame"][0].as_py() == rows["frame"][0].as_py():
            mine, theirs = night.same_items(earlier[-1])
            before = np.full((len(vectors), LEVELS), NEW)
            before[mine] = np.asarray(last["codes"].combine_chunks().flatten()).reshape(-1, LEVELS)[theirs]
            inputs = {"item_codes": lake.require("item_codes", earlier[-1]).content_digest}
    with single_threaded():  # sums of several threads differ from run to run
        return codes_of(vectors, before), inputs


def _code_rows(rows: pa.Table, codes: Codes) -> pa.Table:
    bounds = pa.array(np.arange(len(codes.codes) + 1) * LEVELS, pa.int32())
    lists = pa.ListArray.from_arrays(bounds, pa.array(codes.codes.ravel(), pa.int16()))
    return pa.table({"item_id": rows["item_id"], "codes": lists, "frame": rows["frame"]})


def _centre_rows(codes: Codes) -> pa.Table:
    """Rows of ``code_centres``: the codes that stand for an item."""
    counts = np.stack([np.bincount(codes.codes[:, level], minlength=CENTRES) for level in range(LEVELS)])
    level, code = np.nonzero(counts)
    return pa.table(
        {
            "level": pa.array(level, pa.int16()),
            "code": pa.array(code, pa.int16()),
            "items": pa.array(counts[level, code], pa.int64()),
            "centre": pa.array(list(codes.centres[level, code]), pa.list_(pa.float64())),
        }
    )


@dataclass(frozen=True, eq=False)
class Aligner:
    """The night's aligner, loaded."""

    model: FusionModel
    digest: str
    device: str
    frame: str


@dataclass(frozen=True)
class Space:
    """Where workers find the night's aligner, and the torch device that it runs on."""

    lake: str
    day: date
    device: str

    def load(self) -> Aligner:
        """Load it."""
        lake = Lake(Path(self.lake))
        weights = (lake.folder("model_aligner", self.day) / "aligner.safetensors").read_bytes()
        card = load_card(lake, "aligner", self.day)
        digest = lake.require("model_aligner", self.day).content_digest
        return Aligner(load_aligner(weights, card), digest, self.device, card.get("frame", ""))


class ItemShards:
    """What workers need of items: ids, vectors of each modality, which are there."""

    def __init__(self, night: Night):
        self.ids, self.features = night.dataset().items, night.features()
        self.rows = len(self.ids)

    def of(self, rows: slice) -> dict[str, np.ndarray]:
        """Arrays of some items."""
        arrays = {f"matrix.{m}": f.matrix[rows] for m, f in self.features.items()}
        arrays |= {f"present.{m}": f.present[rows] for m, f in self.features.items()}
        return arrays | {"ids": self.ids[rows].astype(str)}


class UserShards:
    """What workers need of users: ids, counts, the vectors of what they have met and uploaded most recently."""

    def __init__(self, night: Night, history: int):
        data = night.dataset()
        self.ids, self.rows, self.histories = data.users, len(data.users), data.histories()
        self.uploads = night.uploaded(data.users, tuple(night.features()))
        self.fused = vectors_to_numpy(night.lake.read("feat_items", night.day, ["vector"])["vector"])
        self.settings = {"history": np.array(history), "end_us": np.array(round(night.end.timestamp() * 1e6))}
        youngest = np.full(self.rows, np.inf)
        np.minimum.at(youngest, data.user, data.age_days)
        self.counts = {
            "n_events": np.bincount(data.user, minlength=self.rows),
            "n_items": np.diff(data.seen().indptr).astype(np.int64),
            "youngest_days": youngest,
        }

    def of(self, rows: slice) -> dict[str, np.ndarray]:
        """Arrays of some users; of items and uploads those alone that these users need."""
        recent = self.histories[rows].latest(int(self.settings["history"]))
        items, at = np.unique(recent.values, return_inverse=True)
        pieces = self.uploads.pieces[rows]
        modality, row = self.uploads.modality[pieces.values], self.uploads.row[pieces.values]
        vectors = {}
        for m, matrix in self.uploads.vectors.items():
            mine = modality == m
            vectors[f"vectors.{m}"] = matrix[row[mine]]
            row = np.where(mine, np.cumsum(mine) - 1, row)
        history = {"history.bounds": recent.bounds, "history.values": at, "items": self.fused[items]}
        uploads = {"uploads.bounds": pieces.bounds, "uploads.modality": modality, "uploads.row": row}
        counts = {name: values[rows] for name, values in self.counts.items()}
        return history | uploads | vectors | counts | self.settings | {"ids": self.ids[rows].astype(str)}


class FuseBlock(beam.DoFn):
    """(first row, end) of the night's sorted items or users -> path of a Parquet shard of ``table``."""

    def __init__(self, space: Space, staging: str, table: str):
        self.space, self.staging, self.table, self.shared = space, staging, table, Shared()

    def setup(self) -> None:
        """Load the aligner once a process."""
        self.aligner: Aligner = self.shared.acquire(self.space.load)

    def process(self, element: Block) -> Iterator[str]:
        """Fuse one block."""
        # sums of several threads differ from run to run
        with single_threaded(), np.load(Path(self.staging) / _shard(self.table, element, "npz")) as arrays:
            rows = ROWS[self.table](self.aligner, dict(arrays))
        path = Path(self.staging) / _shard(self.table, element, "parquet")
        write_parquet(rows, path)
        yield str(path)


def _shard(table: str, block: Block, ending: str) -> str:
    return f"{table}-{block[0]:09d}.{ending}"


def item_rows(aligner: Aligner, arrays: dict[str, np.ndarray]) -> pa.Table:
    """Rows of ``feat_items`` for a shard of items."""
    ids, names = arrays["ids"], [n.removeprefix("matrix.") for n in arrays if n.startswith("matrix.")]
    features = {m: Features(arrays[f"matrix.{m}"], arrays[f"present.{m}"]) for m in names}
    fused = fuse_items(aligner.model, features, aligner.device)
    columns: dict[str, Any] = {"item_id": pa.array(ids, pa.string()), "vector": vectors_to_arrow(fused.vector)}
    for m in MODALITIES:
        has = features[m].present if m in features else np.zeros(len(ids), bool)
        aligned = fused.aligned[m] if m in features else np.zeros_like(fused.vector)
        columns |= {f"has_{m}": has, f"vector_{m}": optional_vectors_to_arrow(aligned, has)}
        columns[f"attention_{m}"] = fused.attention[m] if m in features else np.zeros(len(ids), np.float32)
    return pa.table(columns | _named(aligner, len(ids)))


def user_rows(aligner: Aligner, arrays: dict[str, np.ndarray]) -> pa.Table:
    """Rows of ``feat_users`` for a shard of users."""
    ids, youngest, modality = arrays["ids"], arrays["youngest_days"], arrays["uploads.modality"]
    vectors = {n.removeprefix("vectors."): v for n, v in arrays.items() if n.startswith("vectors.")}
    pieces = Ragged(arrays["uploads.bounds"], np.arange(len(modality)))
    uploads = Uploads(pieces, modality, arrays["uploads.row"], vectors)
    histories = Ragged(arrays["history.bounds"], arrays["history.values"])
    fused = fuse_users(aligner.model, arrays["items"], histories, uploads, int(arrays["history"]), aligner.device)
    has = np.isfinite(youngest)
    last = np.where(has, arrays["end_us"] - np.round(np.where(has, youngest, 0) * 86_400e6), 0).astype(np.int64)
    return pa.table(
        {
            "user_id": pa.array(ids, pa.string()),
            "vector": vectors_to_arrow(fused),
            "n_events": arrays["n_events"],
            "n_items": arrays["n_items"],
            "n_uploads": pieces.lengths.astype(np.int64),
            "last_event_at": pa.array(last, pa.timestamp("us", tz="UTC"), mask=~has),
            "recency_days": pa.array(np.where(has, youngest, 0.0), mask=~has),
            **_named(aligner, len(ids)),
        }
    )


def _named(aligner: Aligner, rows: int) -> dict[str, pa.Array]:
    """Columns that say which space vectors are of."""
    return {c: pa.repeat(pa.scalar(v), rows) for c, v in (("frame", aligner.frame), ("aligner_digest", aligner.digest))}


ROWS: dict[str, Callable[[Aligner, dict[str, np.ndarray]], pa.Table]] = {
    "feat_items": item_rows,
    "feat_users": user_rows,
}
