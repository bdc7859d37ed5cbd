"""Last night's lists judged by what users did today: full ranking, by time, nothing sampled.

Writes ``eval_offline``, ``eval_users``, ``eval_gaps``. Belongs here: the tables, metrics by slice. Does not: who is
judged by what (``night.judgement``), the formulas (``learning.metrics``), whether an arm is better (``experiment``).
"""

import logging
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.device import single_threaded
from pipelines.config import Config
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.learning.metrics import PER_USER, hits_of
from pipelines.learning.statistics import difference, holm, intervals, resampled
from pipelines.night.judgement import (
    FEWEST_USERS,
    MOST_GROUPS,
    Judgement,
    judgement_of,
    lists_of,
)
from pipelines.night.measures import by_exposure, cut, measured, of_all
from pipelines.sections import CUTOFFS

log = logging.getLogger(__name__)

GAPS_OF = ("ndcg", "recall")
Rows = list[dict[str, Any]]


def evaluate(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``eval_offline``, ``eval_users`` and ``eval_gaps``: the lists of day D-1 against the events of day D.

    The tables are empty when night D-1 made no lists or nobody did anything that can be judged. Where the night after
    has judged other lists of day D than there are now, or none, it judges them again.
    """
    yield from _judged(config, lake, day)
    after, lists = day + timedelta(days=1), lake.manifest("reco_candidates", day)
    then = lake.manifest("eval_offline", after)
    if lists and then and then.inputs.get("reco_candidates") != lists.content_digest:
        log.info("eval_offline %s: the lists of %s are other ones now; judged again", after, day)
        yield from _judged(config, lake, after)


def _judged(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
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
        cutoff = r.judged_at
        for name in sorted(pc.unique(table["model"]).to_pylist()):
            mine = table.filter(pc.equal(table["model"], name))
            with single_threaded():  # sums of several threads differ from run to run
                values = measured(cut(lists_of(mine, judgement)[1], cutoff), judgement)
                rows += evaluate_model(name, mine, judgement, r.k, samples, {cutoff: values})
            users.append(user_rows(name, cutoff, values, judgement))
            gaps += gap_rows(name, cutoff, values, judgement)
    provenance: dict[str, Any] = {"config_digest": config.digest("recommend", "evaluate"), "inputs": inputs}
    for name, data in (("eval_offline", _table("eval_offline", rows)), ("eval_users", pa.concat_tables(users))):
        yield lake.publish(name, day, data, **provenance)
    yield lake.publish("eval_gaps", day, _table("eval_gaps", gaps), **provenance)


def _table(name: str, rows: Rows) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TABLES[name].schema({}))


def evaluate_model(
    name: str,
    table: pa.Table,
    judgement: Judgement,
    k: int,
    samples: np.ndarray | None = None,
    known: Mapping[int, dict[str, np.ndarray]] = MappingProxyType({}),
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
        known: cutoff -> what ``measured`` has given for it.
    """
    every, lists = lists_of(table, judgement)
    rows: list[dict[str, Any]] = []
    for cutoff in CUTOFFS:
        if cutoff > k and cutoff != min(CUTOFFS):
            continue
        entry, shown = {"model": name, "k": cutoff}, cut(lists, cutoff)
        values = known.get(cutoff) or measured(shown, judgement)
        rows += [entry | row for row in _per_user(shown, judgement, samples, values)]
        rows += [entry | _overall(m, v, samples) for m, v in by_exposure(shown, judgement).items()]
        if (shown >= 0).any():
            overall = of_all(every[:, :cutoff], shown, judgement)
            nothing = {"low": None, "high": None}
            rows += [
                entry | {"metric": m, "slice": "all", "value": v, "n_users": len(shown)} | nothing
                for m, v in overall.items()
            ]
    return rows


def _per_user(
    shown: np.ndarray, judgement: Judgement, samples: np.ndarray | None, values: dict[str, np.ndarray]
) -> Rows:
    """Mean of each metric over the users of each slice with its interval, in order of metric and slice."""
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


def _overall(metric: str, values: np.ndarray, samples: np.ndarray | None) -> dict[str, Any]:
    """Mean over all users with its interval."""
    low, high = intervals(values[:, None], np.ones((len(values), 1), bool), samples)
    row = {"metric": metric, "slice": "all", "value": float(values.mean()), "n_users": len(values)}
    return row | {"low": float(low[0]), "high": float(high[0])}


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
