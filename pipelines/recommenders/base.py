"""The protocol of all recommenders, and what they are fitted on.

Does not belong here: any model, ranking (``ranking``), matrices that several models share (``matrices``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

import numpy as np
from scipy import sparse

from encoders.space.ragged import Ragged

Arrays = dict[str, np.ndarray]
Hyperparameters = dict[str, float | int | str]


@dataclass(frozen=True, eq=False)
class Pooled:
    """Sums over the users of several sites, of items that this one has too.

    Attributes:
        items: rows of the items in the catalogue (m,), ascending.
        liked: float32 (m, m), users who like both; the diagonal is who likes each.
        walks: float64 (m, m), what users' weights of both come to over the users' weights of all.
        weight: float32 (m,), decayed weight of all positive feedback on each.
    """

    items: np.ndarray
    liked: np.ndarray
    walks: np.ndarray
    weight: np.ndarray


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
        recent: positive events of each item in the last days, by window (items, windows); none where times are unknown.
        domains: number of each item's domain from 0 (items,); empty where domains are not looked at.
        external: recommender -> places from 1 of the items that somebody else lists for each user (users, items).
        pooled: sums over the users of several sites, which popularity, item-based CF and EASE are made of; or None.
        device: torch device of what is trained or ranked there.
        validation: the last days, for what is fitted on them; None where they are not cut off.
        nearest: graphs of nearest neighbours that were built so far, each with the vectors that it is of; inputs that
            are made from others by ``replace`` share them.
    """

    positives: sparse.csr_matrix
    content: dict[str, np.ndarray] = field(default_factory=dict)
    uploads: dict[str, np.ndarray] = field(default_factory=dict)
    fused: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    user_vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    has_signal: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    graphs: dict[str, sparse.csr_matrix] = field(default_factory=dict)
    histories: Ragged = field(default_factory=lambda: Ragged.of([]))
    recent: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    domains: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    external: dict[str, sparse.csr_matrix] = field(default_factory=dict)
    pooled: Pooled | None = None
    device: str = "cpu"
    validation: "Validation | None" = None
    nearest: dict[str, tuple[np.ndarray, sparse.csr_matrix]] = field(default_factory=dict)


@dataclass(frozen=True)
class Validation:
    """The last days before the end of a night, to choose and weigh models on.

    Attributes:
        days: how many.
        past: what recommenders see of the time before; uploads carry no time here, so it has none.
        relevant: nonzero (users, items) that users came to like in these days.
        seen: nonzero (users, items) that lists leave out, or None.
        k: length of the lists that are judged.
    """

    days: float
    past: Inputs
    relevant: sparse.csr_matrix
    seen: sparse.csr_matrix | None
    k: int


class Recommender(Protocol):
    """Learns from ``Inputs``, scores every item for some users, and can be stored as arrays.

    Attributes:
        name: as in ``recommend.models``; the model asset is ``model_<name>``.
        signed: whether scores may be negative; those that may not grow by ratio rather than by difference.
        signals: names of what a stack weighs one by one; for most there is the score alone.
        grid: settings that a search tries beside the defaults.
        combines: whether these settings change nothing but ``combine``.
        scaled: whether ``evidence`` is on a scale that adds up with others' already (``blend.likelihood.channel``).
        outside: whether somebody else has made it; a stack lets it in only where it surely helps.
    """

    name: str
    signed: bool
    signals: tuple[str, ...] = ("score",)
    grid: ClassVar[tuple[Hyperparameters, ...]]
    combines: ClassVar[bool] = False
    scaled: ClassVar[bool] = False
    outside: ClassVar[bool] = False

    def given(self, others: "Mapping[str, Recommender]") -> Self:
        """Itself, with recommenders that were fitted on the same inputs before it; most need none of them."""
        return self

    def fit(self, inputs: Inputs) -> Self:
        """Itself, after learning."""

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """Float32 scores (len(users), items); higher is better, 0 where the model has nothing to say."""

    def evidence(self, inputs: Inputs, users: np.ndarray) -> list[np.ndarray]:
        """Float32 (len(users), items) of each of ``signals``."""
        return [self.score(inputs, users)]

    def likeness(self, of: np.ndarray, items: np.ndarray) -> np.ndarray | None:
        """How much each of some history items speaks for each of some items, float32 (len(of), len(items)).

        On any scale, zero or less where it does not; None where the model does not look at items one by one.
        """
        return None

    def combine(self, evidence: list[np.ndarray]) -> np.ndarray:
        """The scores that follow from ``evidence``."""
        return evidence[0]

    def state(self) -> Arrays:
        """What ``restore`` needs."""

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Itself, with a stored state and the inputs that it was fitted on."""
