"""Recommenders by name: the one list, their settings, and fitted ones from the lake.

Does not belong here: any algorithm, what they are fitted on (``night.inputs``), when to fit (``train``).
"""

from collections.abc import Mapping
from datetime import date

from pipelines.config import HYBRID, Recommend
from pipelines.lake.cards import load_arrays, load_card
from pipelines.lake.storage import Lake
from pipelines.recommenders.base import Recommender, Settings
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.blend.transfer import Transfer
from pipelines.recommenders.content import Content, Multimodal
from pipelines.recommenders.graph import GraphFilter
from pipelines.recommenders.lightgcn import LightGCN
from pipelines.recommenders.linear import ALS, Ease
from pipelines.recommenders.neighbours import ItemCF, Popularity, UserCF
from pipelines.recommenders.sequential import Sequential

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


def load_recommenders(lake: Lake, day: date, config: Recommend) -> list[Recommender]:
    """The night's fitted recommenders, without the hybrid.

    Raises:
        StorageError: one was not published.
    """
    fitted = []
    for name in (n for n in config.models if n != HYBRID):
        settings = load_card(lake, name, day)["settings"]
        fitted.append(CLASSES[name](**settings).restore(load_arrays(lake, name, day)))
    return fitted


def load_hybrid(lake: Lake, day: date, models: list[Recommender]) -> Hybrid:
    """The night's fitted hybrid of these recommenders.

    Raises:
        StorageError: it was not published.
    """
    return Hybrid(models).restore(load_arrays(lake, HYBRID, day))
