"""What a number usually is: the range of the last nights, with room around it.

Does not belong here: which numbers a night is judged by (``monitor``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np


@dataclass(frozen=True)
class Range:
    """Where a number is expected, ends included."""

    low: float
    high: float

    def has(self, value: float) -> bool:
        """Whether a number lies in it.

        >>> Range(1, 2).has(2), Range(1, 2).has(2.5)
        (True, False)
        """
        return self.low <= value <= self.high


MARGIN = 1.5  # by which a count may leave the range that it had
SPREADS = 4.0  # standard deviations of the logarithm, by the median of absolute deviations


def usual_amount(history: Sequence[float], factor: float) -> Range:
    """From the median of some counts through ``factor`` to ``factor`` times it, and what chance adds to a count.

    A house whose counts spread more than that has its own spread instead, and ``MARGIN`` around its own range.

    >>> usual_amount([100, 100, 160], 4)
    Range(low=10.0, high=480.0)
    >>> f"{usual_amount([10, 100, 1000], 4).high:.3g}"  # 100 e^(4 * 1.4826 * ln 10)
    '8.52e+07'

    Args:
        history: the counts.
        factor: how far counts may be from the median anyway.
    """
    logs, middle = np.log(np.maximum(history, 1)), median(history)
    spread = max(factor, float(np.exp(SPREADS * 1.4826 * np.median(np.abs(logs - np.median(logs))))))
    low, high = min(middle / spread, min(history) / MARGIN), max(middle * spread, max(history) * MARGIN)
    return Range(max(low - 3 * low**0.5, 0.0), high + 4 * high**0.5)


def usual_share(history: Sequence[float], slack: float, counted: float) -> Range:
    """From the least to the most of some shares, with ``slack`` and what chance adds to a share of ``counted``.

    >>> usual_share([0.25, 0.5], 0.2, 10_000)
    Range(low=0.04, high=0.71)
    """
    room = slack + (1 / max(counted, 1)) ** 0.5
    return Range(max(round(min(history) - room, 9), 0.0), min(round(max(history) + room, 9), 1.0))


def distance(counts: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Total variation distance of each row of counts (n, bins) from usual counts (bins,), 0 to 1; 0 of no counts.

    >>> distance(np.array([[2, 2], [4, 0]]), np.array([1, 1])).tolist()
    [0.0, 0.5]
    """
    total = np.maximum(counts.sum(-1, keepdims=True), 1)
    off = np.abs(counts / total - usual / max(usual.sum(), 1)).sum(-1) / 2
    return np.asarray(np.where(counts.sum(-1) > 0, off, 0))
