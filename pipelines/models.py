"""Recommenders by name, and to and from the lake.

Belongs here: which class a name stands for, their settings, ``model_<name>`` partitions. Does not: any algorithm
(``recommenders``), what they are fitted on (``inputs``), when to fit (``train``), what to serve (``score``).
"""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from safetensors.numpy import save as save_arrays

from pipelines.config import HYBRID, Recommend
from pipelines.recommenders.base import Arrays, Recommender, Settings
from pipelines.recommenders.content import Content, Multimodal
from pipelines.recommenders.graph import GraphFilter
from pipelines.recommenders.hybrid import Hybrid
from pipelines.recommenders.lightgcn import LightGCN
from pipelines.recommenders.linear import ALS, Ease
from pipelines.recommenders.neighbours import ItemCF, Popularity, UserCF
from pipelines.recommenders.sequential import Sequential
from pipelines.recommenders.transfer import Transfer
from pipelines.storage import Lake

CLASSES: dict[str, type[Recommender]] = {
    c.name: c
    for c in (
        Popularity,
        UserCF,
        ItemCF,
        Ease,
        ALS,
        GraphFilter,
        LightGCN,
        Content,
        Multimodal,
        Sequential,
        Transfer,
    )
}
SETTINGS = "model_settings"


def recommenders(config: Recommend, chosen: Mapping[str, Settings] | None = None) -> list[Recommender]:
    """Unfitted recommenders of a configuration, without the hybrid that combines them.

    Args:
        config: names, and settings that are pinned.
        chosen: name -> settings that a search chose; pinned ones go first.
    """
    return [CLASSES[n](**settings_of(n, config, chosen or {})) for n in config.models if n != HYBRID]


def settings_of(name: str, config: Recommend, chosen: Mapping[str, Settings]) -> Settings:
    """What differs from a recommender's defaults."""
    return chosen.get(name, {}) | config.settings.get(name, {})


def chosen_settings(lake: Lake, day: date) -> dict[str, Settings]:
    """Settings of the latest search up to a night; empty before the first one."""
    days = lake.days(SETTINGS, day)
    settings: dict[str, Settings] = load_card(lake, "settings", days[-1])["settings"] if days else {}
    return settings


def model_files(state: Arrays, card: Mapping[str, Any]) -> dict[str, bytes]:
    """Files of a ``model_<name>`` partition."""
    arrays = {k: np.ascontiguousarray(v) for k, v in sorted(state.items())}
    return {
        "model.safetensors": save_arrays(arrays),
        "card.json": (json.dumps(card, indent=1, sort_keys=True) + "\n").encode(),
    }


def load_recommenders(lake: Lake, day: date, config: Recommend) -> list[Recommender]:
    """The night's fitted recommenders, without the hybrid.

    Raises:
        StorageError: one was not published.
    """
    fitted = []
    for name in (n for n in config.models if n != HYBRID):
        settings = load_card(lake, name, day)["settings"]
        fitted.append(CLASSES[name](**settings).restore(_arrays(lake, name, day)))
    return fitted


def load_hybrid(lake: Lake, day: date, models: list[Recommender]) -> Hybrid:
    """The night's fitted hybrid of these recommenders.

    Raises:
        StorageError: it was not published.
    """
    return Hybrid(models).restore(_arrays(lake, HYBRID, day))


def _arrays(lake: Lake, name: str, day: date) -> Arrays:
    lake.require(f"model_{name}", day)
    return load_file(lake.folder(f"model_{name}", day) / "model.safetensors")


def load_card(lake: Lake, name: str, day: date) -> dict[str, Any]:
    """Card of a published model.

    Raises:
        StorageError: it was not published.
    """
    lake.require(f"model_{name}", day)
    card: dict[str, Any] = json.loads((lake.folder(f"model_{name}", day) / "card.json").read_text())
    return card
