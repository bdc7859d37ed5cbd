"""Hyperparameters of the recommenders, searched on the last days before a night every few nights.

Writes ``model_settings``: a card with the settings that serve until the next search, and everything that was tried.
Belongs here: when to search, how one setting beats another. Does not: what is tried (``grid`` of each recommender).
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np

from encoders.device import choose_device, single_threaded
from pipelines.config import Config
from pipelines.lake.cards import SETTINGS, files_of_model, load_card
from pipelines.lake.storage import Lake, Manifest
from pipelines.learning.statistics import surely_best
from pipelines.night.inputs import load_inputs, load_validation
from pipelines.night.night import Night
from pipelines.recommenders.base import Hyperparameters, Recommender, Validation
from pipelines.recommenders.ranking import MIN_USERS, blocks_of, is_warm, ndcg_of, some_users
from pipelines.recommenders.registry import unfitted

log = logging.getLogger(__name__)

CERTAINTY = 1.0  # standard errors by which settings must beat the defaults


def search(
    config: Config, lake: Lake, day: date, now: bool = False, progress: Callable[[str], None] = log.info
) -> Iterator[Manifest]:
    """Publish the night's settings: searched when due, else those of the last search.

    Args:
        config: events, recommenders and device are used; settings pinned there are left alone.
        lake: where tables are.
        day: the night.
        now: search whether due or not.
        progress: told of each recommender.
    """
    digest = config.digest("recommend")
    earlier = [d for d in lake.days(SETTINGS, day) if d < day]
    card = load_card(lake, "settings", earlier[-1]) if earlier else {"searched_on": None, "settings": {}, "tried": {}}
    last = card["searched_on"]
    every = config.recommend.search_days
    if now or last is None or day >= date.fromisoformat(last) + timedelta(days=every):
        night, r = Night.of(config, lake, day), config.recommend
        with single_threaded():  # sums of several threads differ from run to run
            data, inputs = load_inputs(night, choose_device(config.compute.device).name)
            validation = load_validation(night, data, inputs, config.aligner.history, r.filter_seen, r.k)
            card = {"searched_on": day.isoformat()} | search_all(r.models, r.settings, validation, progress)
    yield lake.publish_files(SETTINGS, day, files_of_model({}, card), config_digest=digest)


def search_all(
    names: Sequence[str],
    pinned: Mapping[str, Hyperparameters],
    validation: Validation,
    progress: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """Search every recommender whose settings are not pinned.

    Args:
        names: recommenders of the night.
        pinned: name -> settings that are left alone.
        validation: days to judge on.
        progress: told of each recommender.

    Returns:
        ``settings`` (recommender -> chosen settings), ``tried`` (recommender -> settings and NDCG@K each), ``users``.
    """
    card: dict[str, Any] = {"users": len(judges(validation)), "settings": {}, "tried": {}}
    if card["users"] < MIN_USERS:
        progress(f"settings: {card['users']} warm validation users, {MIN_USERS} are needed; the defaults stay")
        return card
    for model in unfitted(names, {}):
        if model.grid and model.name not in pinned:
            chosen, tried, _ = search_one(type(model), validation)
            card["settings"][model.name], card["tried"][model.name] = chosen, tried
            progress(f"settings: {model.name} {chosen or 'defaults'}")
    return card


def judges(validation: Validation) -> np.ndarray:
    """Warm validation users, at most as many as ``FIT_SCORES`` allows."""
    users = np.flatnonzero(np.diff(validation.relevant.indptr))
    users = users[is_warm(validation.past, users)]
    return some_users(users, validation.relevant.shape[1])


def search_one(
    kind: type[Recommender], validation: Validation
) -> tuple[Hyperparameters, list[Hyperparameters], Recommender]:
    """Try the defaults and the grid of a recommender.

    The defaults stay unless others beat them by ``CERTAINTY`` standard errors of the paired difference in NDCG@K; of
    those that do, the best is chosen.

    Returns:
        The chosen settings, all settings with the mean of NDCG@K, and the recommender that was chosen, as fitted.
    """
    users, trials = judges(validation), [dict[str, float | int | str](), *kind.grid]
    models = [kind(**s).fit(validation.past) for s in trials]
    values = _judge(models, validation, users)
    tried = [s | {"ndcg": round(float(v.mean()), 5)} for s, v in zip(trials, values, strict=True)]
    best = surely_best(values, CERTAINTY)
    return trials[best], tried, models[best]


def _judge(models: list[Recommender], validation: Validation, users: np.ndarray) -> list[np.ndarray]:
    """NDCG@K of each user by each of the models of a kind."""
    judged: list[list[np.ndarray]] = [[] for _ in models]
    for block in blocks_of(users, validation.relevant.shape[1]):
        forbidden = validation.seen[block] if validation.seen is not None else None
        evidence = models[0].evidence(validation.past, block)
        for i, model in enumerate(models):
            if i and not model.combines:
                evidence = model.evidence(validation.past, block)
            scores = model.combine(evidence)
            judged[i].append(
                ndcg_of(scores, validation.relevant[block], forbidden, validation.k, validation.past.device)
            )
    return [np.concatenate(values) for values in judged]
