"""Differential privacy of what leaves a site: users count alike, sums get noise, and a ledger says what was spent.

A share of sums is one Gaussian mechanism over users (Dwork and Roth, https://doi.org/10.1561/0400000042): what one user
can add is bounded, and every number gets noise in proportion. A site adds all of it itself, as other sites of a round
could take off their own. Belongs here: bounds, noise, accounting. Does not: masks (``masks``), who sends what when
(``federate``).
"""

import json
import logging
import os
import sys
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
STEP = 1 << 24  # of sums of walks and weights with noise
FARTHEST = 10.0  # standard deviations, beyond what 64 bits can draw
ROUNDING = 1.001  # of a bound: numbers are rounded to 20 binary places before they are multiplied


@dataclass(frozen=True)
class Entry:
    """A share that left the site, or that was refused.

    Attributes:
        label: of the round's masks, another one for every round that is opened.
        round: that it is of.
        night: that it knows; of a refusal the night of it.
        users: whose feedback is in it.
        multiplier: standard deviation of the noise by what one user can change; None where nothing left.
        reason: why nothing left.
    """

    label: str
    round: str
    night: str
    users: int
    multiplier: float | None
    reason: str = ""


class Ledger:
    """All shares that ever left a site, and what was refused; a share is written down before it goes.

    Args:
        path: file, one JSON object a line.
    """

    def __init__(self, path: Path):
        self.path = path

    def entries(self) -> list[Entry]:
        """In the order in which they were written; a line that a crash has torn is none, as nothing left after it."""
        if not self.path.exists():
            return []
        whole, _, _ = self.path.read_text().rpartition("\n")
        return [Entry(**json.loads(line)) for line in whole.splitlines()]

    def shares(self) -> list[Entry]:
        """Those that left."""
        return [e for e in self.entries() if e.multiplier is not None]

    def write(self, entry: Entry) -> None:
        """Add an entry, a refusal once a night; it is on the disk when this returns."""
        known = self.entries()
        if entry.multiplier is None and any((e.label, e.night) == (entry.label, entry.night) for e in known):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(asdict(e), sort_keys=True) + "\n" for e in (*known, entry)]
        part = self.path.with_suffix(".part")
        with part.open("w") as f:
            f.write("".join(lines))
            f.flush()
            os.fsync(f.fileno())
        part.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


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

    handler = absl_logging.get_absl_handler()
    logging.root.removeHandler(handler)
    handler.python_handler.stream = sys.__stderr__  # a redirected one is closed when logging is set up anew
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


def with_noise(sums: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Sums with noise (``Layout.length``,) uint64 modulo 2^64.

    Sums of walks and weights are cut to steps of 2^-16 after that: there are far fewer of these than random numbers,
    so that every one can come from any sums. Finer ones would tell whether they are sums plus a number that could have
    been drawn (Mironov, https://doi.org/10.1145/2382196.2382264).

    Args:
        sums: of ``statistics.sums_of``.
        deviation: of the noise in each part (3,).

    Raises:
        ValueError: the noise does not fit into 64 bits.
    """
    layout = Layout.of(len(sums))
    size = np.repeat(deviation * np.array([1.0, SCALE, SCALE]), [layout.pairs, layout.pairs, layout.n])
    if (size * FARTHEST >= 2.0**62).any():
        raise ValueError("privacy: noise does not fit into 64 bits; raise epsilon, or lower recommend.event_weights")
    total = sums.view(np.int64) + np.round(normal(len(sums)) * size).astype(np.int64)
    fine = slice(layout.pairs, None)
    total[fine] = (total[fine] + STEP // 2) // STEP * STEP
    return total.view(np.uint64)


def normal(n: int) -> np.ndarray:
    """Standard normal numbers (n,) that nobody can guess, as fine in both tails: of 63 random bits and a sign."""
    stream = Cipher(algorithms.ChaCha20(os.urandom(32), bytes(16)), mode=None).encryptor()  # the key is used once
    bits = np.frombuffer(stream.update(bytes(8 * n)), "<u8")
    lower = special.ndtri(((bits >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64)
    return np.where(bits & np.uint64(1), -lower, lower)
