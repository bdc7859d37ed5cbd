"""The protocol of all recommenders, and what they are fitted on.

Does not belong here: any model, ranking (``ranking``), matrices that several models share (``matrices``).
"""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

import numpy as np
from scipy import sparse

Arrays = dict[str, np.ndarray]
Hyperparameters = dict[str, float | int | str]


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a recommender may see. Rows are users and items of one night.

    Attributes:
        positives: decayed weights of positive feedback (users, items).
        content: modality -> unit vectors (items, d_m), zero rows where the item has none.
        uploads: modality -> mean unit vector of a user's uploads (users, d_m), zero rows where there are none.
        fused: unit vectors of items in the unified space (items, d).
        user_vectors: unit vectors of users in the same space (users, d).
        has_signal: bool (users,), False for users without positive history and uploads.
        graphs: modality -> similarity of items (items, items), where it is known or given instead of vectors.
        histories: distinct positive items of each user, oldest first; empty where nothing is known of the order.
        device: torch device of what is trained or ranked there.
    """

    positives: sparse.csr_matrix
    content: dict[str, np.ndarray] = field(default_factory=dict)
    uploads: dict[str, np.ndarray] = field(default_factory=dict)
    fused: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    user_vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    has_signal: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    graphs: dict[str, sparse.csr_matrix] = field(default_factory=dict)
    histories: list[np.ndarray] = field(default_factory=list)
    device: str = "cpu"


class Recommender(Protocol):
    """Learns from ``Inputs``, scores every item for some users, and can be stored as arrays.

    Attributes:
        name: as in ``recommend.models``; the model asset is ``model_<name>``.
        signed: whether scores may be negative; those that may not grow by ratio rather than by difference.
        signals: names of what a stack weighs one by one; for most there is the score alone.
        grid: settings that a search tries beside the defaults.
        combines: whether these settings change nothing but ``combine``.
    """

    name: str
    signed: bool
    signals: tuple[str, ...] = ("score",)
    grid: ClassVar[tuple[Hyperparameters, ...]]
    combines: ClassVar[bool] = False

    def fit(self, inputs: Inputs) -> Self:
        """Learn; returns itself."""

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """Float32 scores (len(users), items); higher is better, 0 where the model has nothing to say."""

    def evidence(self, inputs: Inputs, users: np.ndarray) -> list[np.ndarray]:
        """Float32 (len(users), items) of each of ``signals``."""
        return [self.score(inputs, users)]

    def combine(self, evidence: list[np.ndarray]) -> np.ndarray:
        """The scores that follow from ``evidence``."""
        return evidence[0]

    def state(self) -> Arrays:
        """What ``restore`` needs."""

    def restore(self, state: Arrays) -> Self:
        """Take up a stored state; returns itself."""
