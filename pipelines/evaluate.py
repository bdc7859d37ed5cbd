"""Last night's lists judged by what users did today: full ranking, by time, nothing sampled.

Writes ``eval_offline``. Belongs here: who is judged by what, slices. Does not: the formulas (``learning.metrics``).
"""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from pipelines.config import Config
from pipelines.lake.schemas import EVERYONE, rows_in
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.learning.metrics import PER_USER, coverage, hits_of, novelty
from pipelines.night.events import Feedback, end_of_day, event_weights
from pipelines.night.night import Night
from pipelines.night.rules import segment_of

log = logging.getLogger(__name__)

CUTOFFS = (10, 20)
MOST_SEGMENTS = 20  # that are judged apart


@dataclass(frozen=True)
class Judgement:
    """What is known to judge the lists of a night.

    Attributes:
        users: sorted ids of users who came to like something after the night.
        items: sorted ids of the night's catalogue.
        relevant: one (users, items) where a user came to like an item after the night.
        warm: bool (users,), whether the user had met anything up to the night.
        met: number of users who had met each item up to the night (items,).
        users_before: number of users with events up to the night.
        segment: name of each user's (users,), None where there is none.
    """

    users: pa.Array
    items: pa.Array
    relevant: sparse.csr_matrix
    warm: np.ndarray
    met: np.ndarray
    users_before: int
    segment: np.ndarray


def evaluate(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``eval_offline`` of the night: the lists of day D-1 against the events of day D.

    The table is empty when night D-1 made no lists or nobody did anything that can be judged.
    """
    yesterday, r = day - timedelta(days=1), config.recommend
    rows: list[dict[str, Any]] = []
    inputs = {}
    if lake.manifest("reco_candidates", yesterday) is None:
        log.warning("eval_offline %s: no lists of %s to judge; run that night first", day, yesterday)
    else:
        night = Night.of(config, lake, day)
        catalogue = lake.read("std_items", yesterday, ["item_id"])["item_id"]
        end = end_of_day(yesterday, config.timezone)
        events = night.events()
        late = pc.greater_equal(events["event_at"], pa.scalar(end, events.schema.field("event_at").type))
        before, later = events.filter(pc.invert(late)), events.filter(late)
        segments = Night.of(config, lake, yesterday).segments()
        judgement = judge(catalogue, before, later, night.feedback, r.filter_seen, segments)
        inputs = {"reco_candidates": lake.require("reco_candidates", yesterday).content_digest}
        table = lake.read("reco_candidates", yesterday, ["model", "user_id", "rank", "item_id"])
        for name in sorted(pc.unique(table["model"]).to_pylist()):
            rows += evaluate_model(name, table.filter(pc.equal(table["model"], name)), judgement, r.k)
    data = pa.Table.from_pylist(rows, schema=TABLES["eval_offline"].schema({}))
    yield lake.publish("eval_offline", day, data, config_digest=config.digest("recommend"), inputs=inputs)


def judge(
    catalogue: pa.ChunkedArray,
    before: pa.Table,
    later: pa.Table,
    feedback: Feedback,
    filter_seen: bool,
    segments: pa.Table | None = None,
) -> Judgement:
    """What users did later that the lists of a night could have foretold.

    Args:
        catalogue: sorted item ids of the night.
        before: events up to the night.
        later: events after it.
        feedback: how strong events count; what is no positive feedback is not relevant.
        filter_seen: what a user had met before is not relevant.
        segments: user_id and segment of the night.
    """
    met = before.group_by(["user_id", "item_id"]).aggregate([])
    later = later.filter(pa.array(event_weights(later["event"], later["value"], feedback) > 0))
    later = later.group_by(["user_id", "item_id"]).aggregate([])
    later = later.filter(pc.is_in(later["item_id"], value_set=catalogue.combine_chunks()))
    if filter_seen:
        later = later.join(met, ["user_id", "item_id"], join_type="left anti")
    users, items = pc.unique(later["user_id"]).sort(), catalogue.combine_chunks()
    row, column = rows_in(later["user_id"], users), rows_in(later["item_id"], items)
    shape = (len(users), len(items))
    relevant = sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=shape)
    users_before = pc.unique(met["user_id"])
    known = rows_in(met["item_id"], items)
    counts = np.bincount(known[known >= 0], minlength=len(items))
    warm = rows_in(users, users_before) >= 0
    segment = np.full(len(users), None, object) if segments is None else segment_of(segments, users)
    return Judgement(users, items, relevant, warm, counts, len(users_before), segment)


def lists_of(table: pa.Table, judgement: Judgement) -> tuple[np.ndarray, np.ndarray]:
    """Lists of one recommender as rows of the catalogue (lists, longest).

    -1 is behind the end of a list, and an item that has left the catalogue since.

    Returns:
        The lists of all users, and those of the judged users; who has none gets the list of the segment, else of all.
    """
    table = table.sort_by([("user_id", "ascending"), ("rank", "ascending")])
    users = pc.unique(table["user_id"])
    owner = rows_in(table["user_id"], users)
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    lists = np.full((len(users) + 1, int(place.max(initial=0)) + 1), -1, np.int64)  # row -1 is an empty list
    lists[owner, place] = rows_in(table["item_id"], judgement.items)
    own = rows_in(judgement.users, users)
    of_segment = rows_in(pa.array([f"{EVERYONE}{s or ''}" for s in judgement.segment], pa.string()), users)
    everyone = rows_in(pa.array([EVERYONE]), users)
    return lists[:-1], lists[np.select([own >= 0, of_segment >= 0], [own, of_segment], everyone)]


def evaluate_model(name: str, table: pa.Table, judgement: Judgement, k: int) -> list[dict[str, Any]]:
    """Rows of ``eval_offline`` for one recommender.

    Slices: ``user_warm``/``user_cold`` by whether the user had events before; ``item_warm``/``item_cold`` judge only
    by relevant items that somebody or nobody had met before.

    Args:
        name: of the recommender.
        table: its lists: user_id, rank, item_id.
        judgement: what they are judged by.
        k: length of the lists; a cutoff beyond it is left out, unless it is the shortest.
    """
    every, lists = lists_of(table, judgement)
    rows: list[dict[str, Any]] = []
    for cutoff in CUTOFFS:
        if cutoff > k and cutoff != min(CUTOFFS):
            continue
        entry, shown = {"model": name, "k": cutoff}, lists[:, :cutoff]
        shown = np.pad(shown, ((0, 0), (0, cutoff - shown.shape[1])), constant_values=-1)
        rows += [entry | row for row in _per_user(shown, judgement)]
        if (shown >= 0).any():
            overall = {
                "coverage": coverage(every[:, :cutoff], len(judgement.items)),
                "novelty": novelty(shown, judgement.met, judgement.users_before),
            }
            rows += [
                entry | {"metric": m, "slice": "all", "value": v, "n_users": len(shown)} for m, v in overall.items()
            ]
    return rows


def _largest(segment: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(name, who is of it) of the segments with most users."""
    counted = Counter(name for name in segment if name is not None)
    return [(name, segment == name) for name, _ in sorted(counted.most_common(MOST_SEGMENTS))]


def _per_user(shown: np.ndarray, judgement: Judgement) -> Iterator[dict[str, object]]:
    """Mean of each metric over the users of each slice, in order of metric and slice."""
    cold = judgement.met == 0
    hits, cold_hits = hits_of(shown, judgement.relevant), cold[np.maximum(shown, 0)]
    number = np.diff(judgement.relevant.indptr)
    number_cold = np.asarray(judgement.relevant @ cold.astype(np.float32)).round().astype(int)
    slices = {
        "all": (hits, number),
        "item_cold": (hits & cold_hits, number_cold),
        "item_warm": (hits & ~cold_hits, number - number_cold),
        "user_cold": (hits, np.where(judgement.warm, 0, number)),
        "user_warm": (hits, np.where(judgement.warm, number, 0)),
    } | {f"segment={name}": (hits, np.where(who, number, 0)) for name, who in _largest(judgement.segment)}
    for metric, function in sorted(PER_USER.items()):
        for part, (hit, relevant) in slices.items():
            judged = relevant > 0
            if judged.any():
                value = float(np.mean(function(hit[judged], relevant[judged])))
                yield {"metric": metric, "slice": part, "value": value, "n_users": int(judged.sum())}
