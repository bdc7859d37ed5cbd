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

from pipelines.lake.storage import Lake
from pipelines.recommenders.base import Arrays, Hyperparameters, Recommender
from pipelines.recommenders.registry import singles, unfitted


def model_files(state: Arrays, card: Mapping[str, Any]) -> dict[str, bytes]:
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


def load_recommenders(lake: Lake, day: date, names: Sequence[str]) -> list[Recommender]:
    """The night's fitted recommenders, without the one that combines them.

    Raises:
        StorageError: one was not published.
    """
    names = singles(names)
    models = unfitted(names, {n: load_card(lake, n, day)["settings"] for n in names})
    return [model.restore(load_arrays(lake, model.name, day)) for model in models]
