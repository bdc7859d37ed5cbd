"""Fits every recommender of the night and publishes ``model_<name>``.

Belongs here: the order of fits, the cards. Does not: any algorithm (``recommenders``), storing (``lake.cards``), the
time split on which the hybrid is fitted (``night.inputs``).
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from encoders.device import choose_device, single_threaded
from pipelines.config import Config
from pipelines.lake.cards import chosen_settings, files_of_model, load_recommender, made_from
from pipelines.lake.credits import retired_by, trusted_by
from pipelines.lake.storage import Lake, Manifest
from pipelines.night.inputs import load_inputs, load_validation
from pipelines.night.night import Night
from pipelines.recommenders.base import Recommender
from pipelines.recommenders.registry import blend_of, entry, merged, unfitted

log = logging.getLogger(__name__)


def train(
    config: Config,
    lake: Lake,
    day: date,
    progress: Callable[[str], None] = log.info,
    only: Collection[str] | None = None,
) -> Iterator[Manifest]:
    """Fit and publish recommenders, the one that combines the others last.

    Those that are not among ``only`` stay as they were published, and are read where they are combined.
    The counter ``fit_ms`` of a manifest is how long the fit took; ``validation`` in a card is what it has shown.
    """
    night, r = Night.of(config, lake, day), config.recommend
    with single_threaded():  # sums of several threads differ from run to run
        data, inputs = load_inputs(night, choose_device(config.compute.device).name)
        blend = blend_of(r.models)
        if blend:
            validation = load_validation(night, data, inputs, config.aligner.history, r.filter_seen, r.k)
            inputs = replace(inputs, validation=validation)
    settings = merged(r.models, chosen_settings(lake, day), r.settings)
    facts = {"upto": day.isoformat(), "users": len(data.users), "items": len(data.items), "events": len(data.user)}
    models = unfitted(r.models, settings)
    if blend:
        settings[blend] = (of_team(config, lake, day) if r.team else {}) | ({"pool": True} if r.pool_domains else {})
        if r.pool_domains and inputs.domains.max(initial=0) < 1:
            log.warning("%s: recommend.pool_domains has nothing to pool; set std_items.domain of two at least", day)
        models.append(entry(blend).make(settings[blend]))
    fitted: dict[str, Recommender] = {}
    now = made_from(lake, day)
    for model in models:
        if only is not None and model.name not in only:
            if blend in only:
                fitted[model.name] = load_recommender(lake, day, model.name, inputs, fitted, now)
            continue
        started = time.monotonic()
        with single_threaded():
            fitted[model.name] = model.given(fitted).fit(inputs)
        counters = {"fit_ms": round(1000 * (time.monotonic() - started))}
        card: dict[str, Any] = facts | {"settings": settings[model.name], "validation": getattr(model, "report", {})}
        yield lake.publish_files(
            f"model_{model.name}",
            day,
            files_of_model(model.state(), card),
            counters=counters,
            config_digest=config.digest("recommend"),
            inputs=now,
        )
        progress(f"{model.name}: fitted on {facts['events']} events in {counters['fit_ms'] / 1000:.1f} s")


def of_team(config: Config, lake: Lake, day: date) -> dict[str, Any]:
    """Settings of the hybrid where recommenders are judged by what they add: who is left out, and who is let in."""
    team, before = config.recommend.team, day - timedelta(days=1)
    retired, trusted = (retired_by(lake, before), trusted_by(lake, before)) if team and team.act else ([], [])
    if retired:
        log.info("%s: the hybrid goes without %s, see eval_credit", day, ", ".join(retired))
    return {"credit": True, "without": retired, "trusted": trusted}
