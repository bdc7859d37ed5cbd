"""Last night's lists judged by what users did today: full ranking, by time, nothing sampled.

Writes ``eval_offline``. Belongs here: who is judged by what, slices. Does not: the formulas (``learning.metrics``).
"""

import logging
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import Config
from pipelines.lake.schemas import EVERYONE, TABLES
from pipelines.lake.storage import Lake, Manifest
from pipelines.learning.metrics import PER_USER, coverage, novelty
from pipelines.night.events import event_weights

log = logging.getLogger(__name__)

CUTOFFS = (10, 20)


@dataclass(frozen=True)
class Judgement:
    """What is known to judge the lists of a night.

    Attributes:
        relevant: user -> items that the user came to like after the night, of its catalogue.
        met: item -> number of users who had met it up to the night.
        users_before: users with events up to the night.
        catalogue: item ids of the night.
    """

    relevant: dict[str, set[str]]
    met: dict[str, int]
    users_before: set[str]
    catalogue: set[str]


def evaluate(config: Config, lake: Lake, day: date) -> Manifest:
    """Publish ``eval_offline`` of the night: the lists of day D-1 against the events of day D.

    The table is empty when night D-1 made no lists or nobody did anything that can be judged.
    """
    yesterday = day - timedelta(days=1)
    rows: list[dict[str, object]] = []
    inputs = {}
    if lake.manifest("reco_candidates", yesterday) is None:
        log.warning("eval_offline %s: no lists of %s to judge; run that night first", day, yesterday)
    else:
        judgement = judge(config, lake, yesterday, [day])
        inputs = {"reco_candidates": lake.require("reco_candidates", yesterday).content_digest}
        table = lake.read("reco_candidates", yesterday, ["model", "user_id", "rank", "item_id"])
        for name in sorted(pc.unique(table["model"]).to_pylist()):
            mine = table.filter(pc.equal(table["model"], name))
            rows += evaluate_model(name, lists_of(mine), judgement, config.recommend.k)
    data = pa.Table.from_pylist(rows, schema=TABLES["eval_offline"].schema({}))
    return lake.publish("eval_offline", day, data, config_digest=config.digest("recommend"), inputs=inputs)


def judge(config: Config, lake: Lake, night: date, days: list[date]) -> Judgement:
    """What users did on ``days`` that the lists of ``night`` could have foretold."""
    catalogue = set(lake.read("std_items", night, ["item_id"])["item_id"].to_pylist())
    earlier = lake.days("std_interactions", night)
    before = lake.read_days("std_interactions", earlier, ["user_id", "item_id"]) if earlier else None
    pairs = set(zip(before["user_id"].to_pylist(), before["item_id"].to_pylist(), strict=True)) if before else set()
    met: dict[str, int] = {}
    for _, item in pairs:
        met[item] = met.get(item, 0) + 1
    later = lake.read_days("std_interactions", days, ["user_id", "item_id", "event", "value"])
    later = later.filter(pa.array(event_weights(later, config.recommend) > 0))
    relevant: dict[str, set[str]] = {}
    for user, item in zip(later["user_id"].to_pylist(), later["item_id"].to_pylist(), strict=True):
        if item in catalogue and not (config.recommend.filter_seen and (user, item) in pairs):
            relevant.setdefault(user, set()).add(item)
    return Judgement(relevant, met, {u for u, _ in pairs}, catalogue)


def lists_of(table: pa.Table) -> dict[str, list[str]]:
    """User -> items by rank."""
    out: dict[str, list[str]] = {}
    table = table.sort_by([("user_id", "ascending"), ("rank", "ascending")])
    for user, item in zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True):
        out.setdefault(user, []).append(item)
    return out


def evaluate_model(name: str, lists: dict[str, list[str]], judgement: Judgement, k: int) -> list[dict[str, object]]:
    """Rows of ``eval_offline`` for one recommender.

    Slices: ``user_warm``/``user_cold`` by whether the user had events before; ``item_warm``/``item_cold`` judge only
    by relevant items that somebody or nobody had met before.
    """
    rows: list[dict[str, object]] = []
    everyone = lists.get(EVERYONE, [])
    cold_items = {i for i in judgement.catalogue if i not in judgement.met}
    for cutoff in CUTOFFS:
        if cutoff > k and cutoff != min(CUTOFFS):
            continue
        values: dict[tuple[str, str], list[float]] = {}
        shown = []
        for user in sorted(judgement.relevant):
            items = lists.get(user, everyone)[:cutoff]
            shown.append(items)
            for part, relevant in _slices(user, judgement, cold_items).items():
                hits = np.zeros(cutoff, bool)
                hits[: len(items)] = [i in relevant for i in items]
                for metric, function in PER_USER.items():
                    values.setdefault((metric, part), []).append(float(function(hits, len(relevant))))
        entry = {"model": name, "k": cutoff}
        for (metric, part), found in sorted(values.items()):
            rows.append(
                entry | {"metric": metric, "slice": part, "value": float(np.mean(found)), "n_users": len(found)}
            )
        if any(shown):
            overall = {
                "coverage": coverage([v[:cutoff] for v in lists.values()], len(judgement.catalogue)),
                "novelty": novelty(shown, judgement.met, len(judgement.users_before)),
            }
            rows += [
                entry | {"metric": m, "slice": "all", "value": v, "n_users": len(shown)} for m, v in overall.items()
            ]
    return rows


def _slices(user: str, judgement: Judgement, cold_items: set[str]) -> dict[str, set[str]]:
    relevant = judgement.relevant[user]
    parts = {"all": relevant, "user_warm" if user in judgement.users_before else "user_cold": relevant}
    parts |= {"item_cold": relevant & cold_items, "item_warm": relevant - cold_items}
    return {name: items for name, items in parts.items() if items}
