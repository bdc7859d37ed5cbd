"""What each setting of a dial would have done to the lists of the night before: its price in hits, and what it buys.

Writes ``eval_dials``; exists with ``[recommend.dials]``. The night's models rank again for users who came to like
something since, so that the figures are exact, but rules for places, pins and draws are left out. Belongs here: the
table. Does not: the dials (``night.dials``), metrics (``night.measures``).
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from encoders.device import choose_device
from pipelines.config import Config
from pipelines.lake.schemas import rows_in
from pipelines.lake.storage import Lake, Manifest, StorageError
from pipelines.lake.tables import TABLES
from pipelines.learning.statistics import intervals, resampled
from pipelines.night.arms import uniform
from pipelines.night.dials import POOL, turned
from pipelines.night.files import Loaded, opened
from pipelines.night.floors import added_by, members_of
from pipelines.night.judgement import Judgement, judgement_of
from pipelines.night.measures import cut, measured, of_all
from pipelines.night.night import Night
from pipelines.sections import Dials

log = logging.getLogger(__name__)

SETTINGS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
MOST_USERS = 2_000
OF_USERS = ("ndcg", "recall", "diversity", "calibration")
OF_ALL = ("coverage", "gini", "novelty", "popularity_lift")
Lists = tuple[np.ndarray, np.ndarray]


def tradeoff(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``eval_dials``: the lists of day D-1 at every setting against the events of day D."""
    before, r = day - timedelta(days=1), config.recommend
    rows: list[dict[str, Any]] = []
    missing = [m for m in r.models if lake.manifest(f"model_{m}", before) is None]
    if missing or lake.manifest("reco_candidates", before) is None:
        log.warning("eval_dials %s: the night of %s has no %s to rank by", day, before, ", ".join(missing) or "lists")
    else:
        try:
            with opened(config, lake, before, choose_device(config.compute.device).name) as night:
                judgement = some_of(judgement_of(config, lake, day), night)
                priced = at_its_prices(night, lake, Night.of(config, lake, before))
                rows = settings_judged(priced, judgement, config) if len(judgement.users) else []
        except StorageError as e:  # late events have changed what the models of the night before were fitted on
            log.warning("eval_dials %s: the night of %s cannot be ranked again: %s", day, before, e)
    table = pa.Table.from_pylist(rows, schema=TABLES["eval_dials"].schema({}))
    yield lake.publish("eval_dials", day, table, config_digest=config.digest("recommend"))


def some_of(judgement: Judgement, night: Loaded) -> Judgement:
    """The judged users who have lists of their own; of more than ``MOST_USERS`` some that are as good as drawn."""
    known = np.flatnonzero(rows_in(judgement.users, night.users) >= 0)
    if len(known) > MOST_USERS:
        drawn = np.argsort([uniform(f"tradeoff|{judgement.users[n].as_py()}") for n in known.tolist()], kind="stable")
        known = np.sort(known[drawn[:MOST_USERS]])
    return judgement.of(known)


def at_its_prices(loaded: Loaded, lake: Lake, night: Night) -> Loaded:
    """The night with what its floors have added to relevance and dials; itself where it had none."""
    rows = lake.read("floor_prices", night.day).to_pylist() if lake.manifest("floor_prices", night.day) else []
    if not rows:
        return loaded
    targets, prices = [r["target"] for r in rows], [r["price"] for r in rows]
    return replace(loaded, **added_by(targets, prices, members_of(night.items(), targets)))


def settings_judged(night: Loaded, judgement: Judgement, config: Config) -> list[dict[str, Any]]:
    """Rows of ``eval_dials``."""
    base, k = config.recommend.dials or Dials(), config.recommend.judged_at
    users, samples = rows_in(judgement.users, night.users), resampled(len(judgement.users))
    r = config.recommend
    ranked = night.ranked(users, r.serve, r.k * POOL, r.filter_seen)
    traits, rows = night.traits(), list[dict[str, Any]]()
    for dial in Dials.model_fields:
        if dial == "diversity" and not traits.vectors.any():  # no content
            continue
        plain: dict[str, np.ndarray] = {}
        for setting in SETTINGS:
            dials = base.model_copy(update={dial: setting})
            shown = cut(turned(ranked, k, dials, traits, users)[0], k)
            found = {m: v for m, v in measured(shown, judgement).items() if m in OF_USERS}
            plain = plain or found
            entry = {"dial": dial, "setting": setting, "k": k, "n_users": len(users)}
            rows += [
                entry | _of_users(m, v, plain[m], samples) for m, v in sorted(found.items()) if not np.isnan(v).all()
            ]
            together = of_all(shown, shown, judgement)
            rows += [entry | {"metric": m, "value": together[m]} for m in OF_ALL if m in together]
    return rows


def _of_users(metric: str, values: np.ndarray, plain: np.ndarray, samples: np.ndarray | None) -> dict[str, Any]:
    """Mean of a metric, and of its differences to the plain lists with their interval."""
    differs, known = values - plain, ~np.isnan(values - plain)
    row = {"metric": metric, "value": float(np.nanmean(values))}
    if not known.any():
        return row
    low, high = intervals(np.where(known, differs, 0)[:, None], known[:, None], samples)
    return row | {"difference": float(differs[known].mean()), "low": float(low[0]), "high": float(high[0])}
