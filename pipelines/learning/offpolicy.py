"""What another way to serve would have brought, from what was drawn with known probability: IPS, SNIPS, doubly robust.

Pure functions of logged places. Does not belong here: which places were drawn (``night.exploring``), tables.
"""

from dataclasses import dataclass

import numpy as np

NORMAL_95 = 1.959963984540054  # 97.5% quantile of the normal distribution
LEAST_EFFECTIVE = 50.0  # effective places below which nothing is said


class TooLittleError(ValueError):
    """The log says too little of what the other way would have served."""


@dataclass(frozen=True)
class Estimate:
    """Mean reward a place.

    Attributes:
        value: the estimate.
        low: lower end of its 95% interval.
        high: upper end.
        places: logged places.
        effective: Kish's effective number of them, which weights leave.
    """

    value: float
    low: float
    high: float
    places: int
    effective: float


def effective_size(weights: np.ndarray) -> float:
    """Kish's effective sample size of weights (n,).

    >>> effective_size(np.array([1.0, 1.0, 1.0])), effective_size(np.array([3.0, 0.0, 0.0]))
    (3.0, 1.0)
    """
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def ips(reward: np.ndarray, logged: np.ndarray, target: np.ndarray, least: float = LEAST_EFFECTIVE) -> Estimate:
    """Inverse propensity score: unbiased, and as noisy as its weights (https://doi.org/10.1145/3289600.3291027).

    Args:
        reward: of each place (n,).
        logged: probability with which its item was drawn (n,), above 0.
        target: probability with which the other way would have drawn it (n,).
        least: effective places that are wanted.

    Raises:
        TooLittleError: fewer effective places.
    """
    weights = _weights(logged, target, least)
    return _estimate(weights * reward, weights)


def snips(reward: np.ndarray, logged: np.ndarray, target: np.ndarray, least: float = LEAST_EFFECTIVE) -> Estimate:
    """Self-normalized: hardly biased and less noisy (https://papers.nips.cc/paper/5748); arguments as of ``ips``."""
    weights = _weights(logged, target, least)
    value = float((weights * reward).sum() / weights.sum())
    terms = weights * (reward - value) / weights.mean()  # linearized, as of a ratio of means
    return _estimate(terms + value, weights)


def doubly_robust(
    reward: np.ndarray,
    logged: np.ndarray,
    target: np.ndarray,
    expected_logged: np.ndarray,
    expected_target: np.ndarray,
    least: float = LEAST_EFFECTIVE,
) -> Estimate:
    """Right if either the propensities or the expected rewards are (https://arxiv.org/abs/1103.4601).

    Args:
        reward: of each place (n,).
        logged: probability with which its item was drawn (n,), above 0.
        target: probability with which the other way would have drawn it (n,).
        expected_logged: reward that a model expects of the item that was drawn (n,).
        expected_target: of what the other way would have drawn, in the mean (n,).
        least: effective places that are wanted.

    Raises:
        TooLittleError: fewer effective places.
    """
    weights = _weights(logged, target, least)
    return _estimate(expected_target + weights * (reward - expected_logged), weights)


def _weights(logged: np.ndarray, target: np.ndarray, least: float) -> np.ndarray:
    if len(logged) and (logged <= 0).any():
        raise ValueError("a place was drawn with probability 0; propensities are above 0")
    weights = target / logged
    size = effective_size(weights)
    if size < least:
        said = f"{len(logged)} drawn places are worth {size:.1f} of what would be served"
        raise TooLittleError(f"{said}; {least:.0f} are needed")
    return np.asarray(weights, float)


def _estimate(terms: np.ndarray, weights: np.ndarray) -> Estimate:
    value, error = float(terms.mean()), float(terms.std(ddof=1) / len(terms) ** 0.5)
    half = NORMAL_95 * error
    return Estimate(value, value - half, value + half, len(terms), effective_size(weights))
