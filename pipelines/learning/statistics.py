"""Whether a difference is more than chance, judged user by user; intervals that one may look at every day.

Does not belong here: what is compared, and how sure one has to be.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2, norm, t

RESAMPLES = 1000
MOST_RESAMPLED = 2_000  # users; of more the mean is as good as normal


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


def resampled(users: int) -> np.ndarray | None:
    """How often each user is in each of ``RESAMPLES`` samples with replacement (samples, users), by a fixed seed.

    Counts are Poisson, which does not need to know how many users there are (https://doi.org/10.1109/ICDM.2012.123);
    None of more than ``MOST_RESAMPLED`` users.
    """
    if users > MOST_RESAMPLED:
        return None
    return np.random.default_rng(0).poisson(1.0, (RESAMPLES, users)).astype(np.float32)


def intervals(values: np.ndarray, who: np.ndarray, samples: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """95% intervals of means over users: the percentiles of the bootstrap, of many users those of the normal.

    Args:
        values: columns of each user (users, n).
        who: bool (users, n), which users a mean is over, at least one each.
        samples: of ``resampled``.

    Returns:
        Lower and upper ends (n,).
    """
    counted = np.where(who, values, 0.0)
    if samples is None:
        number = who.sum(0)
        mean = counted.sum(0) / number
        spread = (np.where(who, values - mean, 0.0) ** 2).sum(0) / number
        half = float(norm.ppf(0.975)) * (spread / number) ** 0.5
        return mean - half, mean + half
    drawn = samples @ who.astype(np.float32)
    means = np.where(drawn > 0, samples @ counted.astype(np.float32) / np.maximum(drawn, 1), np.nan)
    low, high = np.nanquantile(means.astype(np.float64), [0.025, 0.975], axis=0)
    return low, high


def difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float, float]:
    """Difference of the means of two groups, its 95% interval and p-value, by Welch's test.

    https://doi.org/10.1093/biomet/34.1-2.28. A group whose users are all alike, as where a small one lacks a rare hit,
    is taken to vary as both together do. The interval is without bounds where a group has one user.

    Returns:
        Difference, low, high, p.
    """
    gap = float(one.mean() - other.mean())
    if min(len(one), len(other)) < 2:
        return gap, -np.inf, np.inf, 1.0
    together = np.concatenate([one, other]).var(ddof=1)
    parts = [(x.var(ddof=1) or together) / len(x) for x in (one, other)]
    error = sum(parts) ** 0.5
    if error == 0:
        return gap, gap, gap, float(gap == 0)
    freedom = sum(parts) ** 2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (one, other), strict=True))
    half = float(t.ppf(0.975, freedom)) * error
    return gap, gap - half, gap + half, float(2 * t.sf(abs(gap) / error, freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for how many were looked at, by Holm's step-down method.

    https://www.jstor.org/stable/4615733

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order, corrected, worst = np.argsort(p_values, kind="stable"), [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = worst
    return corrected


# --- experiments --------------------------------------------------------------------------------------------------


def sample_ratio_p(counts: Sequence[float], shares: Sequence[float]) -> float:
    """P-value of how users fell into arms, if each had its share (chi-square); below .001 something is broken.

    https://doi.org/10.1145/3292500.3330722

    >>> sample_ratio_p([500, 500], [0.5, 0.5])
    1.0
    """
    observed, total = np.asarray(counts, float), float(sum(counts))
    if total == 0:
        return 1.0
    expected = total * np.asarray(shares) / sum(shares)
    return float(chi2.sf(((observed - expected) ** 2 / expected).sum(), len(counts) - 1))


def adjusted(outcome: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Outcomes (users,) less what was to be expected of each user by what it did before (CUPED); the mean stays.

    https://doi.org/10.1145/2433396.2433413

    Args:
        outcome: of users of all arms together.
        before: of the same users, from before the experiment.
    """
    spread = before.var() if len(before) else 0.0
    if spread == 0:
        return outcome
    slope = ((outcome - outcome.mean()) * (before - before.mean())).mean() / spread
    return np.asarray(outcome - slope * (before - before.mean()))


def sequential_half(variance: float, planned: float, level: float) -> float:
    """Half the width of an interval that holds at every look at once: looking daily does not spoil it.

    Mixture sequential probability ratio test with a normal prior of the planned effect's size
    (https://doi.org/10.1287/opre.2021.2135).

    Args:
        variance: of the estimated effect now.
        planned: effect that the experiment is planned for, in the outcome's unit; it is narrowest around there.
        level: how often the interval may ever be wrong.
    """
    if variance <= 0 or planned <= 0:
        return float("inf")
    ratio = (variance + planned**2) / variance
    return float((variance * ratio / (ratio - 1) * np.log(ratio / level**2)) ** 0.5)


def sequential_power(variance: float, planned: float, level: float) -> float:
    """Chance that a planned effect is outside of the interval at a look with this variance; earlier looks add to it."""
    if variance <= 0:
        return 1.0
    return float(norm.cdf((planned - sequential_half(variance, planned, level)) / variance**0.5))


def days_needed(
    between: float, within: float, users: Sequence[float], planned: float, level: float, power: float, most: int
) -> int | None:
    """Days until a planned effect on a daily mean is found with some power; None where ``most`` do not suffice.

    Args:
        between: variance of users' daily means.
        within: variance of a user's days around it.
        users: in either arm.
        planned: effect on the daily mean.
        level: of the sequential interval.
        power: chance wanted.
        most: days.
    """
    for days in range(1, most + 1):
        variance = (between + within / days) * sum(1 / n for n in users)
        if sequential_power(variance, planned, level) >= power:
            return days
    return None
