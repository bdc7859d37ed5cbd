"""What each recommender adds to the others, and whether it has earned its place.

Writes ``eval_credit``. A recommender's credit is what the hybrid's NDCG gains by it, on the last days before the night
and by weights of other users, with the others' weights fitted anew without it. Belongs here: reading the night's
credits, exposure, the proposal. Does not: fitting (``recommenders.blend.hybrid``), who is left out (``train``).
"""

import logging
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import Config
from pipelines.lake.cards import load_card
from pipelines.lake.credits import KEEP, MORE, RETIRE, RETIRED, retired_by
from pipelines.lake.schemas import rows_in
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.learning.metrics import coverage, novelty
from pipelines.night.night import Night
from pipelines.recommenders.registry import blend_of, singles
from pipelines.sections import Team

log = logging.getLogger(__name__)

AGAIN = 4  # windows of nights after which a retired recommender is heard again
CERTAIN = 1.96  # standard errors of a 95% interval
Row = dict[str, Any]


def credit(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``eval_credit`` of the night.

    Raises:
        StorageError: the night has no models or no lists.
    """
    r, team = config.recommend, config.recommend.team or Team()
    blend = blend_of(r.models) or ""
    card = load_card(lake, blend, day)
    shown, gone = card["validation"].get("warm", {}), retired_by(lake, day - timedelta(days=1)) if team.act else []
    rows, earlier = [], _earlier(lake, day, team, gone)
    for row in exposures(config, lake, day, blend):
        name = row["model"]
        row |= gain_of(shown.get("credit", {}).get(name)) | {"weight": weight_of(shown.get("weights", {}), name)}
        row |= judged([*(r for r in earlier if r["model"] == name), row], team, name in gone)
        if name in gone and _retired_for(lake, day, name, team) >= AGAIN * team.nights:
            reason = f"was retired {AGAIN * team.nights} nights ago; it is heard again and judged anew"
            row |= {"decision": KEEP, "reason": reason}
        rows.append(row)
    _one_at_a_time(rows)
    for decision in (RETIRE, MORE):
        names = [row["model"] for row in rows if row["decision"] == decision]
        log.info("eval_credit %s: %s: %s", day, decision, ", ".join(names) or "none")
    table = pa.Table.from_pylist(rows, schema=TABLES["eval_credit"].schema({}))
    yield lake.publish("eval_credit", day, table, config_digest=config.digest("recommend"))


def _retired_for(lake: Lake, day: date, name: str, team: Team) -> int:
    """Nights in a row up to the one before that a recommender has been retired, as many at most as have to pass."""
    number = 0
    for d in reversed(lake.days("eval_credit", day - timedelta(days=1))[-AGAIN * team.nights :]):
        if name not in retired_by(lake, d):
            break
        number += 1
    return number


def gain_of(found: dict[str, float] | None) -> Row:
    """Gain of a night and its interval; null where the recommender was not judged."""
    if found is None:
        return {"gain": None, "low": None, "high": None}
    gain, half = found["gain"], CERTAIN * found["standard_error"]
    return {"gain": gain, "low": gain - half, "high": gain + half}


def weight_of(weights: dict[str, float], name: str) -> float:
    """Sum of the weights of a recommender's signals."""
    return float(sum(w for signal, w in weights.items() if signal == name or signal.startswith(f"{name}.")))


def _earlier(lake: Lake, day: date, team: Team, gone: list[str]) -> list[Row]:
    """Rows of earlier nights of the window on which the same recommenders were retired, oldest first."""
    rows = list[Row]()
    for d in lake.days("eval_credit", day - timedelta(days=1)):
        if d > day - timedelta(days=team.nights):
            every = lake.read("eval_credit", d).to_pylist()
            if sorted(row["model"] for row in every if row["decision"] == RETIRED) == gone:
                rows += every
    return rows


def _one_at_a_time(rows: list[Row]) -> None:
    """Of those to be retired only the one that adds least is: two copies add nothing, and one of them is needed."""
    weak = sorted((row for row in rows if row["decision"] == RETIRE), key=lambda row: (row["mean_gain"], row["model"]))
    for row in weak[1:]:
        row |= {"decision": KEEP, "reason": f"{row['reason']}; {weak[0]['model']} goes first"}


def judged(rows: list[Row], team: Team, gone: bool) -> Row:
    """What follows from the rows of a window of nights, the last that of tonight.

    To be retired is who was judged on as many nights as the window has and has not surely added anything, on no night
    and not in their mean; ``more`` is who surely has, in the mean and tonight.
    """
    known = [row for row in rows if row["gain"] is not None]
    found: Row = {"nights": len(known), "mean_gain": None, "mean_low": None, "decision": KEEP}
    if gone:
        return found | {"decision": RETIRED, "reason": "was retired; the hybrid goes without it"}
    if not known:
        return found | {"reason": "nothing to judge it by yet"}
    gains = np.array([row["gain"] for row in known])
    errors = np.array([(row["gain"] - row["low"]) / CERTAIN for row in known])
    mean, low = float(gains.mean()), float(gains.mean() - CERTAIN * errors.mean())  # nights share their last days
    found |= {"mean_gain": mean, "mean_low": low}
    said = f"NDCG {mean:+.4f} (at least {low:+.4f}) in {len(known)} of {team.nights} nights"
    if low > 0 and rows[-1]["low"] is not None and rows[-1]["low"] > 0:
        return found | {"decision": MORE, "reason": f"surely adds: {said}"}
    if len(known) >= team.nights and low <= 0 and all(row["low"] <= 0 for row in known):
        return found | {"decision": RETIRE, "reason": f"has not surely added anything: {said}"}
    return found | {"reason": said}


def exposures(config: Config, lake: Lake, day: date, blend: str) -> list[Row]:
    """Each recommender's share of the hybrid's places, and coverage and novelty of its own lists."""
    lists = lake.read("reco_candidates", day, ["model", "user_id", "item_id"])
    night = Night.of(config, lake, day)
    catalogue = night.items()["item_id"].combine_chunks()
    events = night.every_event().group_by(["user_id", "item_id"]).aggregate([])
    met, users = rows_in(events["item_id"], catalogue), len(pc.unique(events["user_id"]))
    seen_by = np.bincount(met[met >= 0], minlength=len(catalogue))
    keys = ["user_id", "item_id"]
    places = lists.filter(pc.equal(lists["model"], blend)).select(keys)
    others = lists.filter(pc.not_equal(lists["model"], blend)).join(places, keys, join_type="left semi")
    shared = others.group_by(keys).aggregate([("model", "count"), ("model", "min")])
    only = shared.filter(pc.equal(shared["model_count"], 1))["model_min"]
    alone = {r["values"]: r["counts"] for r in pc.value_counts(only).to_pylist()}
    rows = []
    for name in sorted(singles(config.recommend.models)):
        of_model = rows_in(lists.filter(pc.equal(lists["model"], name))["item_id"], catalogue)[:, None]
        total, mine = max(places.num_rows, 1), pc.sum(pc.equal(others["model"], name)).as_py() or 0
        row = {"model": name, "places": mine / total, "alone": alone.get(name, 0) / total}
        some = len(of_model) > 0
        row["coverage"] = coverage(of_model, max(len(catalogue), 1)) if some else 0.0
        rows.append(row | {"novelty": novelty(of_model, seen_by, users) if some else 0.0})
    return rows
