"""Items like an item, for its page: by what users like together, by content, and by both.

Writes ``similar_items``. Belongs here: the three similarities and their lists. Does not: lists of users (``score``),
how the unified space is made (``align``, ``fuse``).
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from encoders.device import choose_device, single_threaded
from pipelines.config import Config
from pipelines.lake.storage import Lake, Manifest
from pipelines.learning.reasons import Space, modality_of
from pipelines.night.inputs import load_inputs, space_of
from pipelines.night.night import Night
from pipelines.recommenders.item_graphs import centred
from pipelines.recommenders.neighbours import SIMILARITIES
from pipelines.recommenders.ranking import blocks_of, top_k

log = logging.getLogger(__name__)

BASES = ("behaviour", "both", "content")  # in order of the table's key


@dataclass(frozen=True)
class Likeness:
    """What makes items alike.

    Attributes:
        together: similarity by who likes them (items, items), no diagonal.
        content: modality -> unit vectors less their mean (items, d_m), zero rows where an item has none.
        has: modality -> bool (items,), whether an item has content in it.
        space: the unified space.
        in_space: bool (items,), whether an item has content that put it there.
        servable: bool (items,), which may be listed.
        device: torch device that ranks.
    """

    together: sparse.csr_matrix
    content: dict[str, np.ndarray]
    has: dict[str, np.ndarray]
    space: Space
    in_space: np.ndarray
    servable: np.ndarray
    device: str


def similar(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``similar_items`` of the night."""
    night, k = Night.of(config, lake, day), config.recommend.similar
    with single_threaded():  # sums of several threads differ from run to run
        data, inputs = load_inputs(night, choose_device(config.compute.device).name)
        content = {m: centred(v) for m, v in sorted(inputs.content.items())}
        together = SIMILARITIES["shrunk"](inputs.positives).tocsr()
        space = space_of(night, inputs.fused)
        has, in_space = ({m: np.asarray(v.any(1)) for m, v in x.items()} for x in (content, space.aligned))
        anywhere = np.any([np.zeros(len(data.items), bool), *in_space.values()], axis=0)
        likeness = Likeness(together, content, has, space, anywhere, night.servable(), inputs.device)
        ids = pa.array(data.items, pa.string())
        blocks = blocks_of(np.arange(len(ids)), len(ids))
        made_of = {"std_items": lake.require("std_items", day).content_digest}
        if night.modalities:
            made_of["feat_items"] = lake.require("feat_items", day).content_digest
        rows = (_rows(likeness, block, ids, k) for block in blocks)
        digest = config.digest("recommend", "encoders")
        manifest = lake.publish("similar_items", day, rows, config_digest=digest, inputs=made_of)
    log.info("similar items %s: %d rows for %d items", day, manifest.rows, len(ids))
    yield manifest


def _rows(likeness: Likeness, items: np.ndarray, ids: pa.Array, k: int) -> pa.Table:
    """Rows of ``similar_items`` for some items, in order of item, basis and rank."""
    parts = []
    for n, basis in enumerate(BASES):
        found, score, modality = LISTS[basis](likeness, items, k)
        row, rank = np.nonzero(found >= 0)
        at = (row, rank)
        parts.append((items[row], np.full(len(row), n), rank + 1, found[at], score[at], modality[at]))
    item, basis_at, rank, other, score, modality = (np.concatenate(c) for c in zip(*parts, strict=True))
    order = np.lexsort((rank, basis_at, item))
    columns: dict[str, Any] = {
        "item_id": ids.take(pa.array(item[order])),
        "basis": pa.array(np.array(BASES, object)[basis_at[order]], pa.string()),
        "rank": pa.array(rank[order], pa.int32()),
        "similar_item_id": ids.take(pa.array(other[order])),
        "score": pa.array(score[order], pa.float32()),
        "modality": pa.array(modality[order], pa.string(), mask=modality[order] == ""),
    }
    return pa.table(columns)


def _listed(likeness: Likeness, items: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` most similar other items that may be listed (items, k), -1 behind the last that is similar at all."""
    scores = scores.astype(np.float32, copy=True)
    scores[np.arange(len(items)), items] = 0
    scores[:, ~likeness.servable] = 0
    found, score = top_k(scores, k, device=likeness.device)
    return np.where(score > 0, found, -1), score


def _by_behaviour(likeness: Likeness, items: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosine of who likes them, damped and shrunk where it rests on few users."""
    found, score = _listed(likeness, items, likeness.together[items].toarray(), k)
    return found, score, np.full(found.shape, "", object)


def _by_content(likeness: Likeness, items: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean centred cosine over the modalities that both have; the modality is the one in which they are most alike."""
    total = np.zeros((len(items), len(likeness.servable)), np.float32)
    shared = np.zeros(total.shape, np.int8)
    for m, vectors in likeness.content.items():
        there = likeness.has[m]
        total += vectors[items] @ vectors.T
        shared += there[items][:, None] & there
    found, score = _listed(likeness, items, total / np.maximum(shared, 1), k)
    name, best = np.full(found.shape, "", object), np.zeros(found.shape, np.float32)
    for m, vectors in likeness.content.items():
        cosine = np.einsum("nd,nkd->nk", vectors[items], vectors[np.maximum(found, 0)])
        better = (cosine > best) & (found >= 0)
        name[better], best = m, np.where(better, cosine, best)
    return found, score, name


def _by_both(likeness: Likeness, items: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred cosine in the unified space, of items that have content."""
    space, there = likeness.space, likeness.in_space
    scores = (space.centred[items] @ space.centred.T) * (there[items][:, None] & there)
    found, score = _listed(likeness, items, scores, k)
    own = np.broadcast_to(items[:, None], found.shape)
    return found, score, modality_of(space, own, np.maximum(found, 0), found >= 0)[0]


LISTS = {"behaviour": _by_behaviour, "both": _by_both, "content": _by_content}
