"""Last night's lists judged by what users did today: full ranking, by time, nothing sampled.

Writes ``eval_offline``, ``eval_users``, ``eval_gaps``. Belongs here: the tables, metrics by slice. Does not: who is
judged by what (``night.judgement``), the formulas (``learning.metrics``), whether an arm is better (``experiment``).
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from encoders.device import single_threaded
from pipelines.config import Config
from pipelines.lake.schemas import rows_in, vectors_to_numpy
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.learning import metrics
from pipelines.learning.metrics import PER_USER, hits_of
from pipelines.learning.statistics import difference, holm, intervals, resampled
from pipelines.night.events import end_of_day
from pipelines.night.judgement import (
    FEWEST_USERS,
    MOST_GROUPS,
    Judgement,
    attributes_of,
    categories_of,
    item_groups_of,
    judge,
    lists_of,
)
from pipelines.night.night import Night
from pipelines.night.rules import remembered

log = logging.getLogger(__name__)

CUTOFFS = (10, 20)
GAPS_OF = ("ndcg", "recall")
BLOCK = 4096  # users whose lists are gathered as vectors at once
Rows = list[dict[str, Any]]


def evaluate(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``eval_offline``, ``eval_users`` and ``eval_gaps``: the lists of day D-1 against the events of day D.

    The tables are empty when night D-1 made no lists or nobody did anything that can be judged.
    """
    yesterday, r = day - timedelta(days=1), config.recommend
    rows, gaps, users = Rows(), Rows(), [TABLES["eval_users"].schema({}).empty_table()]
    inputs = {}
    if lake.manifest("reco_candidates", yesterday) is None:
        log.warning("eval_offline %s: no lists of %s to judge; run that night first", day, yesterday)
    else:
        judgement = judgement_of(config, lake, day)
        inputs = {"reco_candidates": lake.require("reco_candidates", yesterday).content_digest}
        table = lake.read("reco_candidates", yesterday, ["model", "user_id", "rank", "item_id"])
        samples = resampled(len(judgement.users))
        cutoff = max([c for c in CUTOFFS if c <= r.k] or [min(CUTOFFS)])
        for name in sorted(pc.unique(table["model"]).to_pylist()):
            mine = table.filter(pc.equal(table["model"], name))
            with single_threaded():  # sums of several threads differ from run to run
                rows += evaluate_model(name, mine, judgement, r.k, samples)
                values = measured(_cut(lists_of(mine, judgement)[1], cutoff), judgement)
            users.append(user_rows(name, cutoff, values, judgement))
            gaps += gap_rows(name, cutoff, values, judgement)
    provenance: dict[str, Any] = {"config_digest": config.digest("recommend"), "inputs": inputs}
    for name, data in (("eval_offline", _table("eval_offline", rows)), ("eval_users", pa.concat_tables(users))):
        yield lake.publish(name, day, data, **provenance)
    yield lake.publish("eval_gaps", day, _table("eval_gaps", gaps), **provenance)


def _table(name: str, rows: Rows) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TABLES[name].schema({}))


def judgement_of(config: Config, lake: Lake, day: date) -> Judgement:
    """What the lists of the night before are judged by, with all that is known of its users and items."""
    yesterday, night = day - timedelta(days=1), Night.of(config, lake, day)
    end = end_of_day(yesterday, config.timezone)
    events, catalogue = night.every_event(), lake.read("std_items", yesterday)
    late = pc.greater_equal(events["event_at"], pa.scalar(end, events.schema.field("event_at").type))
    before, later = events.filter(pc.invert(late)), events.filter(late)
    before = remembered(before, Night.of(config, lake, yesterday).controls())  # as the lists knew it
    segments = Night.of(config, lake, yesterday).segments()
    found = judge(catalogue["item_id"], before, later, night.feedback, config.recommend.filter_seen, segments)
    content = config.encoders and lake.manifest("feat_items", yesterday)
    features = _of_items(lake.read("feat_items", yesterday), catalogue["item_id"]) if content else None
    about = lake.read("std_users", yesterday) if lake.manifest("std_users", yesterday) else None
    first = before.group_by("item_id").aggregate([("event_at", "min")])
    row = pc.index_in(catalogue["item_id"], value_set=first["item_id"].combine_chunks())
    first_met = first["event_at_min"].combine_chunks().cast(pa.int64()).take(row.combine_chunks()).to_numpy(False)
    return replace(
        found,
        vectors=found.vectors if features is None else vectors_to_numpy(features["vector"]),
        categories=categories_of(catalogue)[1],
        groups=found.groups | (attributes_of(about, found.users) if about is not None else {}),
        item_groups=item_groups_of(catalogue, features, (end.timestamp() - first_met / 1e6) / 86_400),
    )


def _of_items(features: pa.Table, items: pa.ChunkedArray) -> pa.Table | None:
    """Rows of ``feat_items`` in the order of a catalogue; None where it has items that these do not have."""
    row = rows_in(items, features["item_id"].combine_chunks())
    return features.take(pa.array(row)) if (row >= 0).all() else None


def evaluate_model(
    name: str, table: pa.Table, judgement: Judgement, k: int, samples: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Rows of ``eval_offline`` for one recommender.

    Slices: ``user_warm``/``user_cold`` by whether the user had events before; ``item_warm``/``item_cold`` judge only
    by relevant items that somebody or nobody had met before; others by groups of users and items, see ``Judgement``.

    Args:
        name: of the recommender.
        table: its lists: user_id, rank, item_id.
        judgement: what they are judged by.
        k: length of the lists; a cutoff beyond it is left out, unless it is the shortest.
        samples: of ``statistics.resampled``, for intervals.
    """
    every, lists = lists_of(table, judgement)
    rows: list[dict[str, Any]] = []
    for cutoff in CUTOFFS:
        if cutoff > k and cutoff != min(CUTOFFS):
            continue
        entry, shown = {"model": name, "k": cutoff}, _cut(lists, cutoff)
        rows += [entry | row for row in _per_user(shown, judgement, samples)]
        if (shown >= 0).any():
            overall = of_all(every[:, :cutoff], shown, judgement)
            nothing = {"low": None, "high": None}
            rows += [
                entry | {"metric": m, "slice": "all", "value": v, "n_users": len(shown)} | nothing
                for m, v in overall.items()
            ]
    return rows


def _cut(lists: np.ndarray, cutoff: int) -> np.ndarray:
    """Lists of a length (users, cutoff)."""
    shown = lists[:, :cutoff]
    return np.pad(shown, ((0, 0), (0, cutoff - shown.shape[1])), constant_values=-1)


def of_all(every: np.ndarray, shown: np.ndarray, judgement: Judgement) -> dict[str, float]:
    """Metrics of all lists together.

    Args:
        every: lists of all users (lists, k).
        shown: lists of the judged users (users, k).
        judgement: what they are judged by.
    """
    exposure = np.bincount(every[every >= 0], minlength=len(judgement.items))
    found = {
        "coverage": metrics.coverage(every, len(judgement.items)),
        "novelty": metrics.novelty(shown, judgement.met, judgement.users_before),
        "gini": metrics.gini(exposure),
    }
    listed, own = _popularity(shown, judgement)
    both = ~np.isnan(listed) & ~np.isnan(own)
    if both.any() and own[both].mean() > 0:
        found["popularity_lift"] = float(listed[both].mean() / own[both].mean() - 1)
    return found


def _popularity(shown: np.ndarray, judgement: Judgement) -> tuple[np.ndarray, np.ndarray]:
    """Mean number of users who had met the items of each list, and of each user's history; NaN of none."""
    there = shown >= 0
    counted = (judgement.met[np.maximum(shown, 0)] * there).sum(1)
    listed = np.where(there.any(1), counted / np.maximum(there.sum(1), 1), np.nan)
    if judgement.history is None:
        return listed, np.full(len(shown), np.nan)
    number = np.diff(judgement.history.indptr)
    own = np.asarray(judgement.history @ judgement.met.astype(float)) / np.maximum(number, 1)
    return listed, np.where(number > 0, own, np.nan)


def measured(shown: np.ndarray, judgement: Judgement) -> dict[str, np.ndarray]:
    """Metric -> value of each judged user (users,), NaN where it has none.

    Args:
        shown: their lists (users, k), -1 behind the end.
        judgement: what they are judged by.
    """
    hits, number = hits_of(shown, judgement.relevant), np.diff(judgement.relevant.indptr)
    found = {name: np.asarray(f(hits, number), float) for name, f in sorted(PER_USER.items())}
    candidates = np.full(len(shown), len(judgement.items)) if judgement.candidates is None else judgement.candidates
    found["auc"] = np.asarray(metrics.auc(hits, number, (shown >= 0).sum(1), candidates))
    popular = np.argsort(-judgement.met, kind="stable")[: shown.shape[1]]
    found["serendipity"] = np.asarray(metrics.serendipity(hits, np.isin(shown, popular)))
    blocks = [shown[a : a + BLOCK] for a in range(0, len(shown), BLOCK)]
    if len(judgement.vectors) and blocks:
        found["diversity"] = np.concatenate([metrics.diversity(b, judgement.vectors) for b in blocks])
    if judgement.categories is not None and judgement.history is not None and judgement.categories.shape[1] > 1:
        parts = [
            _calibration(shown[a : a + BLOCK], judgement, slice(a, a + BLOCK)) for a in range(0, len(shown), BLOCK)
        ]
        found["calibration"] = np.concatenate([*parts, np.zeros(0)])
    return found


def _calibration(shown: np.ndarray, judgement: Judgement, users: slice) -> np.ndarray:
    """Miscalibration of the lists of some of the judged users (n,)."""
    history, categories = judgement.history, judgement.categories
    if history is None or categories is None:
        return np.full(len(shown), np.nan)
    row, _ = np.nonzero(shown >= 0)
    of = (np.ones(len(row)), (row, shown[shown >= 0]))
    lists = sparse.csr_matrix(of, shape=(len(shown), len(judgement.items)))
    listed, own = (np.asarray((m @ categories).todense()) for m in (lists, history[users]))
    return metrics.miscalibration(listed, own)


def _per_user(shown: np.ndarray, judgement: Judgement, samples: np.ndarray | None) -> Rows:
    """Mean of each metric over the users of each slice with its interval, in order of metric and slice."""
    values = measured(shown, judgement)
    parts = [
        (metric, part, mine, who & ~np.isnan(mine))
        for part, who in _slices_of_users(judgement).items()
        for metric, mine in values.items()
    ]
    hits, cold = hits_of(shown, judgement.relevant), judgement.met == 0
    for part, which in ({"item_cold": cold, "item_warm": ~cold} | judgement.item_groups).items():
        relevant = np.asarray(judgement.relevant @ which.astype(np.float32)).round().astype(int)
        judged, mine_hit = relevant > 0, hits & which[np.maximum(shown, 0)]
        for metric, function in PER_USER.items():
            mine = np.zeros(len(shown))
            mine[judged] = function(mine_hit[judged], relevant[judged])
            parts.append((metric, part, mine, judged))
    parts = sorted((p for p in parts if p[3].any()), key=lambda p: p[:2])
    if not parts:
        return []
    matrix, chosen = (np.stack([p[n] for p in parts], 1) for n in (2, 3))
    low, high = intervals(matrix, chosen, samples)
    return [
        {"metric": metric, "slice": part, "value": float(mine[who].mean()), "n_users": int(who.sum())}
        | {"low": float(low[n]), "high": float(high[n])}
        for n, (metric, part, mine, who) in enumerate(parts)
    ]


def _slices_of_users(judgement: Judgement) -> dict[str, np.ndarray]:
    """Slice -> bool (users,)."""
    found = {"all": np.ones(len(judgement.users), bool), "user_cold": ~judgement.warm, "user_warm": judgement.warm}
    for kind, names in ({"segment": judgement.segment} | judgement.groups).items():
        found |= {f"{kind}={name}": names == name for name in _largest(names)}
    return found


def _largest(names: np.ndarray) -> list[str]:
    """The groups with most users, in order of name."""
    known, counts = np.unique(np.array([n for n in names if n is not None], str), return_counts=True)
    return sorted(known[np.argsort(-counts, kind="stable")[:MOST_GROUPS]].tolist())


def user_rows(name: str, cutoff: int, values: dict[str, np.ndarray], judgement: Judgement) -> pa.Table:
    """Rows of ``eval_users`` for one recommender."""
    n, contract = len(judgement.users), TABLES["eval_users"]
    known = {
        "model": pa.array([name] * n, pa.string()),
        "user_id": judgement.users,
        "k": pa.array([cutoff] * n, pa.int32()),
        "relevant": pa.array(np.diff(judgement.relevant.indptr), pa.int32()),
    } | {m: pa.array(v, pa.float64(), mask=np.isnan(v)) for m, v in values.items()}
    columns = [known.get(c.name, pa.nulls(n, c.type)) for c in contract.columns]
    return pa.Table.from_arrays(columns, schema=contract.schema({}))


def gap_rows(name: str, cutoff: int, values: dict[str, np.ndarray], judgement: Judgement) -> Rows:
    """Rows of ``eval_gaps``: each group of users with enough of them against all others who are of one."""
    rows = Rows()
    for metric in GAPS_OF:
        of_metric = Rows()
        for kind, names in sorted(judgement.groups.items()):
            groups = [g for g in _largest(names) if (names == g).sum() >= FEWEST_USERS]
            means = [float(values[metric][names == g].mean()) for g in groups]
            of_one = np.array([n in groups for n in names], bool)
            for group, mean in zip(groups if len(groups) > 1 else [], means, strict=False):
                mine, rest = values[metric][names == group], values[metric][of_one & (names != group)]
                gap, low, high, p = difference(mine, rest)
                of_metric.append(
                    {"model": name, "metric": metric, "k": cutoff, "kind": kind, "group": group, "value": mean}
                    | {"difference": gap, "low": low, "high": high, "p": p, "n_users": len(mine)}
                    | {"widest": max(means) - min(means)}
                )
        for row, p in zip(of_metric, holm([r["p"] for r in of_metric]), strict=True):
            rows.append(row | {"p_holm": p})
    return rows
