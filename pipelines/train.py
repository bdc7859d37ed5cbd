"""Fits every recommender of the night and publishes ``model_<name>``.

Belongs here: the order of fits, the cards. Does not: any algorithm (``recommenders``), storing (``lake.cards``), the
time split on which the hybrid is fitted (``night.inputs``).
"""

import logging
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from encoders.device import single_threaded
from pipelines.config import Config
from pipelines.lake.cards import SETTINGS, chosen_settings, model_files
from pipelines.lake.storage import Lake, Manifest
from pipelines.night.events import Dataset
from pipelines.night.inputs import load_inputs, load_validation
from pipelines.recommenders.base import Hyperparameters, Inputs
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.item_graphs import with_graphs
from pipelines.recommenders.registry import blend_of, merged, unfitted

log = logging.getLogger(__name__)


@single_threaded()  # sums of several threads differ from run to run
def train(config: Config, lake: Lake, day: date, progress: Callable[[str], None] = log.info) -> dict[str, Manifest]:
    """Fit and publish all recommenders.

    Returns:
        Manifest of each ``model_<name>``; its counter ``fit_ms`` is how long the fit took.
    """
    data, inputs = load_inputs(config, lake, day)
    names, inputs = config.recommend.models, with_graphs(inputs)
    settings = merged(names, chosen_settings(lake, day), config.recommend.settings)
    tables = ["std_interactions", "feat_items", "feat_users", *([SETTINGS] if lake.manifest(SETTINGS, day) else [])]
    provenance: dict[str, Any] = {
        "config_digest": config.digest("recommend"),
        "inputs": {t: lake.require(t, day).content_digest for t in tables},
    }
    facts = {
        "upto": day.isoformat(),
        "users": len(data.users),
        "items": len(data.items),
        "events": len(data.user),
    }
    made = {}
    for model in unfitted(names, settings):
        started = time.monotonic()
        state = model.fit(inputs).state()
        files = model_files(state, facts | {"settings": settings[model.name]})
        counters = {"fit_ms": round(1000 * (time.monotonic() - started))}
        made[f"model_{model.name}"] = lake.publish_files(
            f"model_{model.name}", day, files, counters=counters, **provenance
        )
        progress(f"{model.name}: fitted on {facts['events']} events in {counters['fit_ms'] / 1000:.1f} s")
    if blend := blend_of(names):
        started = time.monotonic()
        hybrid, report = fit_hybrid(config, lake, day, data, inputs, settings)
        counters = {"fit_ms": round(1000 * (time.monotonic() - started))}
        files = model_files(hybrid.state(), facts | {"validation": report})
        made[f"model_{blend}"] = lake.publish_files(f"model_{blend}", day, files, counters=counters, **provenance)
        progress(f"{blend}: fitted on {report['warm']['users']} warm and {report['cold']['users']} cold users")
    return made


def fit_hybrid(
    config: Config, lake: Lake, day: date, data: Dataset, now: Inputs, settings: dict[str, Hyperparameters]
) -> tuple[Hybrid, dict[str, Any]]:
    """Stack recommenders fitted without the last days on what users came to like in them; facts are those of now."""
    validation = load_validation(config, lake, day, data, now)
    models = [m.fit(validation.past) for m in unfitted(config.recommend.models, settings)]
    hybrid = Hybrid(models)
    report = hybrid.fit(validation.past, validation.wanted, validation.seen, config.recommend.k)
    hybrid.prepare_for(now)
    return hybrid, {"days": validation.days} | report
