"""Top K of every recommender for every user, and the served list with its reasons, in blocks of users through Beam.

Writes ``reco_candidates``, ``recommendations``. Belongs here: blocks, lists, reasons, ids. Does not: fitting.
"""

import hashlib
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
from scipy import sparse

from encoders.modalities import MODALITIES
from pipelines.config import Config, Recommend
from pipelines.engine import beam as runtime
from pipelines.lake.cards import load_arrays, load_recommenders
from pipelines.lake.schemas import STRINGS, vectors_to_numpy
from pipelines.lake.storage import Lake, Manifest, scratch, write_parquet
from pipelines.night.events import Dataset, load_dataset
from pipelines.night.inputs import load_inputs
from pipelines.recommenders.base import Inputs, Recommender
from pipelines.recommenders.blend.hybrid import MOST_SCORES, Hybrid, is_warm, place_new
from pipelines.recommenders.blend.transfer import Transfer
from pipelines.recommenders.item_graphs import centred
from pipelines.recommenders.ranking import top_k
from pipelines.recommenders.registry import blend_of

log = logging.getLogger(__name__)

REASON_ITEMS = 3
REASON_HISTORY = 50  # most recent items that can be a reason
REASON_SIMILARITY = 0.1  # centred cosine below which a history item is no reason


def score(config: Config, lake: Lake, day: date) -> tuple[Manifest, Manifest]:
    """Publish ``reco_candidates`` and ``recommendations`` of the night."""
    users = load_dataset(lake, day, config.recommend, config.timezone, everyone=True).users
    items = lake.require("std_items", day).rows
    size = max(1, min(config.compute.shard_rows, MOST_SCORES // max(items, 1)))
    blocks = [(a, min(a + size, len(users)), len(users)) for a in range(0, len(users), size)]
    provenance: dict[str, Any] = {
        "config_digest": config.digest("recommend"),
        "inputs": {f"model_{n}": lake.require(f"model_{n}", day).content_digest for n in config.recommend.models},
    }
    with scratch(config.paths.data / "cache", "score") as staging:

        def build(p: beam.Pipeline) -> None:
            score_block = beam.ParDo(ScoreBlock(config, lake.root, day, str(staging)))
            p | beam.Create(blocks, reshuffle=False) | score_block

        runtime.run(build, config.compute.runner, config.compute.runner_options, "score")
        candidates = [staging / f"{n}-{a:09d}.parquet" for n in sorted(config.recommend.models) for a, _, _ in blocks]
        served = [staging / f"served-{a:09d}.parquet" for a, _, _ in blocks]
        made = (
            lake.publish("reco_candidates", day, (pq.read_table(p) for p in candidates), **provenance),
            lake.publish("recommendations", day, (pq.read_table(p) for p in served), **provenance),
        )
    log.info("recommendations %s: %d rows for %d users", day, made[1].rows, len(users))
    return made


@dataclass(frozen=True)
class _Night:
    """Everything that a worker needs to score any user of a night; ``space`` are the centred fused vectors."""

    data: Dataset
    inputs: Inputs
    models: list[Recommender]
    hybrid: Hybrid | None
    aligned: dict[str, np.ndarray]
    attention: dict[str, np.ndarray]
    space: np.ndarray
    histories: list[np.ndarray]
    seen: sparse.csr_matrix
    liked: np.ndarray


def load_night(config: Config, lake: Lake, day: date) -> _Night:
    """Load the night's models, features and events."""
    data, inputs = load_inputs(config, lake, day)
    table = lake.read("feat_items", day, [f"{c}_{m}" for m in MODALITIES for c in ("has", "vector", "attention")])
    aligned: dict[str, np.ndarray] = {}
    for m in MODALITIES:
        has = np.asarray(table[f"has_{m}"].to_numpy(), bool)
        aligned[m] = np.zeros_like(inputs.fused)
        if has.any():
            aligned[m][has] = vectors_to_numpy(table[f"vector_{m}"].drop_null())
    names = config.recommend.models
    models, blend = load_recommenders(lake, day, names), blend_of(names)
    return _Night(
        data=data,
        inputs=inputs,
        models=models,
        hybrid=Hybrid(models).restore(load_arrays(lake, blend, day)) if blend else None,
        aligned=aligned,
        attention={m: table[f"attention_{m}"].to_numpy() for m in MODALITIES},
        space=centred(inputs.fused),
        histories=inputs.histories,
        seen=data.seen(),
        liked=np.asarray(inputs.positives.sum(0)).ravel() > 0,
    )


class ScoreBlock(beam.DoFn):
    """(first user, end, total) -> paths of Parquet shards: one a recommender, one of the served lists."""

    def __init__(self, config: Config, lake: Path, day: date, out: str):
        self.config, self.lake, self.day, self.out = config, lake, day, out
        self.shared = Shared()

    def setup(self) -> None:
        """Load the night once a process."""
        self.night: _Night = self.shared.acquire(lambda: load_night(self.config, Lake(self.lake), self.day))

    def process(self, element: tuple[int, int, int]) -> Iterator[str]:
        """Score one block of users."""
        start, stop, total = element
        night, settings = self.night, self.config.recommend
        users = np.arange(start, stop)
        evidence = {m.name: m.evidence(night.inputs, users) for m in night.models}
        scores = {m.name: m.combine(evidence[m.name]) for m in night.models}
        if night.hybrid:
            scores[night.hybrid.name] = night.hybrid.blend(evidence, is_warm(night.inputs, users))
        forbidden = night.seen[users] if settings.filter_seen else None
        for name in settings.models:
            lists = top_k(scores[name], settings.k, forbidden, night.inputs.device)
            if night.hybrid and name == night.hybrid.name and settings.new_items and not night.liked.all():
                chances = scores.get(Transfer.name, scores[name])
                lists = place_new(lists, scores[name], chances, ~night.liked, settings.new_items, forbidden)
            yield self._write(f"{name}-{start:09d}", _candidates(night.data, users, name, *lists))
            if name == settings.serve:
                yield self._write(f"served-{start:09d}", served_table(night, users, settings, self.day, *lists))
        log.info("score: %d of %d users", stop, total)

    def _write(self, name: str, table: pa.Table) -> str:
        path = Path(self.out) / f"{name}.parquet"
        write_parquet(table, path)
        return str(path)


def _candidates(data: Dataset, users: np.ndarray, name: str, items: np.ndarray, scores: np.ndarray) -> pa.Table:
    row, rank = np.nonzero(items >= 0)
    return pa.table(
        {
            "model": pa.array([name] * len(row), pa.string()),
            "user_id": pa.array(data.users[users[row]], pa.string()),
            "rank": pa.array(rank + 1, pa.int32()),
            "item_id": pa.array(data.items[items[row, rank]], pa.string()),
            "score": pa.array(scores[row, rank], pa.float32()),
        }
    )


def served_table(
    night: _Night, users: np.ndarray, settings: Recommend, day: date, items: np.ndarray, scores: np.ndarray
) -> pa.Table:
    """Rows of ``recommendations`` for some users."""
    base = _candidates(night.data, users, settings.serve, items, scores)
    reasons = [r for at, user in enumerate(users) for r in explain(night, user, items[at][items[at] >= 0])]
    ids = [
        hashlib.sha256(f"{day}|{settings.serve}|{u}|{i}".encode()).hexdigest()[:20]
        for u, i in zip(base["user_id"].to_pylist(), base["item_id"].to_pylist(), strict=True)
    ]
    return (
        base.append_column("arm", pa.array(["default"] * len(ids)))
        .append_column("recommendation_id", pa.array(ids, pa.string()))
        .append_column("reason_code", pa.array([r[0] for r in reasons], pa.string()))
        .append_column("reason_item_ids", pa.array([r[1] for r in reasons], STRINGS))
        .append_column("reason_modality", pa.array([r[2] for r in reasons], pa.string()))
        .append_column("reason_attention", pa.array([r[3] for r in reasons], pa.float32()))
    )


def explain(night: _Night, user: int, items: np.ndarray) -> list[tuple[str, list[str], str | None, float | None]]:
    """(reason code, history items, modality, its share) of each recommended item row.

    History items speak for an item by centred cosine in the unified space. The modality is the one that carries most
    of it: its attention in the recommended item times the cosine to the strongest history item in that modality.
    """
    history = night.histories[user][-REASON_HISTORY:]
    out: list[tuple[str, list[str], str | None, float | None]] = []
    for item in items:
        similarity = night.space[history] @ night.space[item] if len(history) else np.zeros(0)
        best = np.lexsort((history, -similarity))[:REASON_ITEMS] if len(history) else np.zeros(0, int)
        best = best[similarity[best] >= REASON_SIMILARITY]
        if len(best):
            names = [str(night.data.items[history[b]]) for b in best]
            out.append(("similar_to_history", names, *_modality(night, history[best[0]], item)))
        elif night.inputs.has_signal[user] and not len(history):
            out.append(("similar_to_uploads", [], None, None))
        else:
            out.append(("popular" if len(history) or night.liked[item] else "new", [], None, None))
    return out


def _modality(night: _Night, a: int, b: int) -> tuple[str | None, float | None]:
    """The modality that makes item ``b`` like item ``a``, and its attention in ``b``."""
    both = [m for m, v in sorted(night.aligned.items()) if v[a].any() and v[b].any()]
    if not both:
        return None, None
    best = max(both, key=lambda m: float(night.attention[m][b] * (night.aligned[m][a] @ night.aligned[m][b])))
    return best, float(night.attention[best][b])
