"""Differential privacy of what leaves a site: users count alike, sums get noise, and a ledger says what was spent.

A share of sums is one Gaussian mechanism over users (Dwork and Roth, https://doi.org/10.1561/0400000042): what one user
can add is bounded, and every number gets noise in proportion. A site adds all of it itself, as other sites of a round
could take off their own. Belongs here: bounds, noise, accounting. Does not: masks (``masks``), who sends what when
(``federate``).
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from scipy import sparse, special

from pipelines.beyond import Privacy
from pipelines.federation.statistics import SCALE, Layout

PARTS = 3  # of the sums; each has its own bound
ROUNDING = 1.001  # of a bound: numbers are rounded to 20 binary places before they are multiplied


@dataclass(frozen=True)
class Spent:
    """A share that left the site.

    Attributes:
        label: of the round's masks, another one for every round that is opened.
        round: that it is of.
        night: that it knows.
        users: whose feedback is in it.
        multiplier: standard deviation of the noise by what one user can change.
    """

    label: str
    round: str
    night: str
    users: int
    multiplier: float


class Ledger:
    """All shares that ever left a site; a share is written down before it goes.

    Args:
        path: file, one JSON object a line.
    """

    def __init__(self, path: Path):
        self.path = path

    def entries(self) -> list[Spent]:
        """Oldest first."""
        if not self.path.exists():
            return []
        return [Spent(**json.loads(line)) for line in self.path.read_text().splitlines()]

    def write(self, spent: Spent) -> None:
        """Add a share, unless it is there; it is on the disk when this returns."""
        if spent.label not in {e.label for e in self.entries()}:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as f:
                f.write(json.dumps(asdict(spent), sort_keys=True) + "\n")
                f.flush()
                os.fsync(f.fileno())


def epsilon_of(multipliers: Sequence[float], delta: float) -> float:
    """What all shares together tell of a user: epsilon at a delta, by privacy loss distributions.

    https://arxiv.org/abs/2207.04380; 0 without any share.
    """
    dp = _accounting()
    accountant = dp.pld.PLDAccountant()
    for multiplier, number in sorted(Counter(multipliers).items()):
        accountant.compose(dp.SelfComposedDpEvent(dp.GaussianDpEvent(multiplier), number))
    return float(accountant.get_epsilon(delta)) if multipliers else 0.0


@cache
def multiplier_of(privacy: Privacy) -> float:
    """Noise with which as many shares as are planned spend the whole budget."""
    dp = _accounting()

    def shares(multiplier: float) -> Any:
        return dp.SelfComposedDpEvent(dp.GaussianDpEvent(multiplier), privacy.nights)

    return float(dp.calibrate_dp_mechanism(dp.pld.PLDAccountant, shares, privacy.epsilon, privacy.delta))


def _accounting() -> Any:
    """The library of accountants, without the handler that it gives the root logger."""
    import dp_accounting
    import dp_accounting.pld
    from absl import logging as absl_logging

    logging.root.removeHandler(absl_logging.get_absl_handler())
    return dp_accounting


def most_told(epsilon: float, delta: float) -> float:
    """Largest advantage (true minus false positive rate) that any test of membership can have.

    https://proceedings.mlr.press/v37/kairouz15.html
    """
    return float((np.expm1(epsilon) + 2 * delta) / (np.exp(epsilon) + 1))


def bounded(positives: sparse.csr_matrix, privacy: Privacy, most: float) -> sparse.csr_matrix:
    """Feedback of each user (users, items) as far as it counts: the items that weigh most, each up to ``most``."""
    rows = positives.tocsr().astype(np.float64)
    user, weight = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), np.minimum(rows.data, most)
    order = np.lexsort((rows.indices, -weight, user))
    place = np.arange(len(order)) - rows.indptr[user[order]]
    kept = order[place < privacy.items]
    return sparse.csr_matrix((weight[kept], (user[kept], rows.indices[kept])), shape=rows.shape)


def bounds(privacy: Privacy, most: float) -> np.ndarray:
    """Euclidean length of what one user can change in each part of the sums (3,): likes, walks, weights in common."""
    pairs = privacy.items * (privacy.items + 1) / 2
    return ROUNDING * np.array([pairs**0.5, most, most * privacy.items**0.5])


def deviations(privacy: Privacy, most: float, multiplier: float) -> np.ndarray:
    """Standard deviation of the noise of a number in each part (3,), in its own unit."""
    return multiplier * PARTS**0.5 * bounds(privacy, most)


def noise(layout: Layout, deviation: np.ndarray) -> np.ndarray:
    """Noise (``Layout.length``,) uint64 modulo 2^64, of random numbers that nobody can guess."""
    bits = (
        Cipher(algorithms.ChaCha20(os.urandom(32), os.urandom(16)), mode=None)
        .encryptor()
        .update(bytes(8 * layout.length))
    )
    uniform = (np.frombuffer(bits, "<u8") >> np.uint64(11)).astype(np.float64) + 0.5
    normal = special.ndtri(uniform / 2.0**53)
    size = np.repeat(deviation * np.array([1.0, SCALE, SCALE]), [layout.pairs, layout.pairs, layout.n])
    return np.round(normal * size).astype(np.int64).view(np.uint64)
