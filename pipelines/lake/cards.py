"""Models as files: safetensors and a JSON card, to and from ``model_<name>`` partitions.

Belongs here: the files. Does not: which class a name stands for (``recommenders.registry``), any algorithm.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from safetensors.numpy import save as save_arrays

from encoders.modalities import MODALITIES
from pipelines.config import digest_of
from pipelines.lake.storage import Lake, StorageError
from pipelines.recommenders.base import Arrays, Hyperparameters, Inputs, Recommender
from pipelines.recommenders.registry import blend_of, entry, singles


def files_of_model(state: Arrays, card: Mapping[str, Any]) -> dict[str, bytes]:
    """Files of a ``model_<name>`` partition."""
    arrays = {k: np.ascontiguousarray(v) for k, v in sorted(state.items())}
    return {
        "model.safetensors": save_arrays(arrays),
        "card.json": (json.dumps(card, indent=1, sort_keys=True) + "\n").encode(),
    }


def load_arrays(lake: Lake, name: str, day: date) -> Arrays:
    """Arrays of a published model.

    Raises:
        StorageError: it was not published.
    """
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


SETTINGS = "model_settings"


def chosen_settings(lake: Lake, day: date) -> dict[str, Hyperparameters]:
    """Settings of the latest search up to a night; empty before the first one."""
    days = lake.days(SETTINGS, day)
    settings: dict[str, Hyperparameters] = load_card(lake, "settings", days[-1])["settings"] if days else {}
    return settings


OF_THE_NIGHT = (
    "std_items",
    "model_pooled",
    "std_user_content",
    "external_lists",
    "item_graphs",
    "feat_items",
    "feat_users",
    SETTINGS,
)
GROWING = ("std_interactions", *(f"emb_{m}" for m in MODALITIES))  # a night reads their partitions of all days


def made_from(lake: Lake, day: date) -> dict[str, str]:
    """Table -> digest of what a night knows of it, of all that recommenders are fitted on.

    Models hold these digests, not copies of vectors, so that what serves can be checked to be what was fitted.
    """
    days = {table: [day] for table in OF_THE_NIGHT} | {table: lake.days(table, day) for table in GROWING}
    found = {table: [lake.manifest(table, d) for d in of_table] for table, of_table in days.items()}
    known = {t: [(m.partition, m.content_digest, m.config_digest) for m in ms if m] for t, ms in found.items()}
    return {table: digest_of(parts) for table, parts in known.items() if parts}


def load_recommenders(lake: Lake, day: date, names: Sequence[str], inputs: Inputs) -> list[Recommender]:
    """The night's fitted recommenders, the one that combines the others last.

    Args:
        lake: where models are.
        day: the night.
        names: which ones.
        inputs: of the same night.

    Raises:
        StorageError: one was not published, or was fitted on other tables than are there now.
    """
    now, fitted, blend = made_from(lake, day), dict[str, Recommender](), blend_of(names)
    for name in (*singles(names), *([blend] if blend else [])):
        fitted[name] = load_recommender(lake, day, name, inputs, fitted, now)
    return list(fitted.values())


def load_recommender(
    lake: Lake, day: date, name: str, inputs: Inputs, fitted: Mapping[str, Recommender], now: Mapping[str, str]
) -> Recommender:
    """One fitted recommender of a night.

    Args:
        lake: where models are.
        day: the night.
        name: which one.
        inputs: of the same night.
        fitted: those that it may be made from.
        now: of ``made_from``.

    Raises:
        StorageError: it was not published, or was fitted on other tables than are there now.
    """
    then = lake.require(f"model_{name}", day).inputs
    tables = {*now, *then} - {SETTINGS}  # a model has its settings in its card
    if changed := sorted(t for t in tables if now.get(t) != then.get(t)):
        raise StorageError(f"model_{name} of {day} was fitted on another {', '.join(changed)}; train the night again")
    model = entry(name).make(load_card(lake, name, day)["settings"])
    return model.given(fitted).restore(load_arrays(lake, name, day), inputs)
