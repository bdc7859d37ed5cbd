"""What each recommender would have brought at the places that were drawn by chance.

Writes ``eval_offpolicy``; exists with ``[recommend.explore]``. The other way to serve, of a recommender: any item of
its own top K that the list does not have elsewhere, alike. Belongs here: the table. Does not: the draws
(``night.exploring``), the estimates (``learning.offpolicy``).
"""

import logging
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import Config
from pipelines.engine.database import database
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.learning.offpolicy import Estimate, TooLittleError, doubly_robust, ips, snips
from pipelines.night.exploring import PAST_DAYS, PRIOR, is_drawn

log = logging.getLogger(__name__)

COLUMNS = ["user_id", "item_id", "night", "shown", "clicked", "propensity"]
OWN = """
    SELECT c.model, c.user_id, c.item_id, drawn.item_id AS drawn, drawn.n
    FROM candidates AS c JOIN drawn ON drawn.user_id = c.user_id
    LEFT JOIN lists AS other
        ON other.user_id = c.user_id AND other.item_id = c.item_id AND other.item_id <> drawn.item_id
    WHERE other.item_id IS NULL
"""


def offpolicy(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``eval_offpolicy``: recommenders by the places drawn in the last four weeks."""
    window = timedelta(days=config.feedback.window_days)
    judged = [d for d in lake.days("feedback", day) if d > day - timedelta(days=PAST_DAYS)]
    parts = [is_drawn(lake.read("feedback", d, COLUMNS)) for d in judged]
    places = pa.concat_tables(parts) if parts else TABLES["feedback"].schema({}).empty_table().select(COLUMNS)
    places = places.filter(pc.not_equal(places["shown"], "reaction"))  # of what was only clicked all is clicked
    places = places.append_column("n", pa.array(np.arange(places.num_rows)))
    rows: list[dict[str, Any]] = []
    if places.num_rows:
        targets = [_targets(lake, d - window, places) for d in judged if lake.manifest("reco_candidates", d - window)]
        rows = estimates(places, pa.concat_tables(targets)) if targets else []
    table = pa.Table.from_pylist(rows, schema=TABLES["eval_offpolicy"].schema({}))
    inputs = {"feedback": lake.require("feedback", day).content_digest}
    yield lake.publish("eval_offpolicy", day, table, config_digest=config.digest("recommend"), inputs=inputs)


def _targets(lake: Lake, night: date, places: pa.Table) -> pa.Table:
    """Model, item of its list, number of the drawn place and what was drawn there, for the places of a night."""
    mine = places.filter(pc.equal(places["night"], pa.scalar(night, pa.date32())))
    connection = database()
    connection.register("drawn", mine.select(["user_id", "item_id", "n"]))
    connection.register("candidates", lake.read("reco_candidates", night, ["model", "user_id", "item_id"]))
    connection.register("lists", lake.read("recommendations", night, ["user_id", "item_id"]))
    found: pa.Table = connection.sql(OWN).to_arrow_table()
    return found


def estimates(places: pa.Table, targets: pa.Table) -> list[dict[str, Any]]:
    """Rows of ``eval_offpolicy``.

    Args:
        places: drawn places: item_id, clicked, propensity, n.
        targets: model, item_id, drawn, n: what each model could have had at each place.
    """
    reward, logged = places["clicked"].cast(pa.float64()).to_numpy(), places["propensity"].to_numpy().astype(float)
    items, at = np.unique(places["item_id"].to_numpy().astype(str), return_inverse=True)
    shown, clicked = np.bincount(at), np.bincount(at, reward)
    mean = reward.mean()
    others = (clicked[at] - reward + PRIOR * mean) / (shown[at] - 1 + PRIOR)  # of the item, by its other places
    worth = dict(zip(items.tolist(), ((clicked + PRIOR * mean) / (shown + PRIOR)).tolist(), strict=True))
    rows = []
    for model in sorted(pc.unique(targets["model"]).to_pylist()):
        mine = targets.filter(pc.equal(targets["model"], model))
        n, own = mine["n"].to_numpy(), np.asarray(pc.equal(mine["item_id"], mine["drawn"]))
        number = np.bincount(n, minlength=len(reward))
        target = np.bincount(n, own, len(reward)) / np.maximum(number, 1)
        expected = [worth.get(i, float(mean)) for i in mine["item_id"].to_pylist()]
        of_target = np.bincount(n, expected, len(reward)) / np.maximum(number, 1)
        known = number > 0  # a place of a night without candidates says nothing of a model
        ways = {"ips": (ips, ()), "snips": (snips, ()), "doubly_robust": (doubly_robust, (others, of_target))}
        for name, (estimate, more) in ways.items():
            arrays = (a[known] for a in (reward, logged, target, *more))
            rows.append({"model": model, "estimator": name} | _row(estimate, *arrays))
    return rows


def _row(estimate: Any, *arrays: np.ndarray) -> dict[str, Any]:
    try:
        found: Estimate = estimate(*arrays)
    except TooLittleError as e:
        nothing = dict.fromkeys(("value", "low", "high", "effective"))
        return nothing | {"places": len(arrays[0]), "note": str(e)}
    if found.low == found.high:
        return vars(found) | {"low": None, "high": None, "note": "all places that count had the same reward"}
    return vars(found) | {"note": None}
