"""Whether a difference is more than chance, judged user by user.

Does not belong here: what is compared, and how sure one has to be.
"""

from collections.abc import Sequence

import numpy as np


def mean_and_error(gain: np.ndarray) -> tuple[float, float]:
    """Mean of a paired difference (users,) and its standard error, that of the population; 0 and 0 of nobody."""
    return (float(gain.mean()), float(gain.std() / len(gain) ** 0.5)) if len(gain) else (0.0, 0.0)


def surely_best(values: Sequence[np.ndarray], certainty: float) -> int:
    """Which of several ways is best; the first, unless another beats it by some standard errors of the difference.

    Args:
        values: of each way, a metric of the same users (users,); higher is better.
        certainty: standard errors.
    """
    gains = [mean_and_error(v - values[0]) for v in values]
    sure = [i for i, (mean, error) in enumerate(gains) if mean > certainty * error]
    return max(sure, key=lambda i: gains[i][0], default=0)
