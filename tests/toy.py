"""A recommender of nine lines and a stage that writes a table of its own, to see what adding one takes.

And a recommender that is told its scores.
"""

from collections.abc import Iterator
from datetime import date
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from pipelines.config import Config
from pipelines.lake.storage import Lake, Manifest
from pipelines.recommenders.base import Arrays, Hyperparameters, Inputs, Recommender


class Alphabet(Recommender):
    """The first items of the catalogue, for everyone."""

    name, signed, grid = "alphabet", False, ()

    def fit(self, inputs: Inputs) -> "Alphabet":
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        return np.tile(np.arange(inputs.positives.shape[1], 0, -1, dtype=np.float32), (len(users), 1))

    def state(self) -> Arrays:
        return {}

    def restore(self, state: Arrays, inputs: Inputs) -> "Alphabet":
        return self


class Fixed(Recommender):
    """Scores that are given, a row a user."""

    signed = True
    grid: ClassVar[tuple[Hyperparameters, ...]] = ()

    def __init__(self, name: str, scores: Any):
        self.name, self.scores = name, np.array(scores, np.float32)

    def fit(self, inputs: Inputs) -> Self:
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        return self.scores[users]

    def state(self) -> Arrays:
        return {"scores": self.scores}

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        return self


def count(config: Config, lake: Lake, day: date, report: object, only: object) -> Iterator[Manifest]:
    """Publish ``item_counts`` of the night."""
    items = lake.require("std_items", day).rows
    yield lake.publish("item_counts", day, pa.table({"name": ["items"], "n": [items]}))
