"""Paired differences, by hand."""

import numpy as np
import pytest
from scipy import stats

from pipelines.learning.statistics import (
    adjusted,
    difference,
    holm,
    intervals,
    mean_and_error,
    resampled,
    sample_ratio_p,
    surely_best,
)  # fmt: skip


def test_mean_and_error_of_a_difference() -> None:
    """Of 1, 2, 3, 6 the mean is 3 and the variance (4 + 1 + 0 + 9) / 4."""
    assert mean_and_error(np.array([1.0, 2.0, 3.0, 6.0])) == (3.0, pytest.approx((14 / 4) ** 0.5 / 2))
    assert mean_and_error(np.array([])) == (0.0, 0.0)


def test_another_way_must_win_by_so_many_errors() -> None:
    base = np.zeros(4)
    gain = np.array([1.0, 2.0, 3.0, 6.0])  # 3.2 standard errors
    assert surely_best([base, gain], 3.0) == 1
    assert surely_best([base, gain], 3.5) == 0
    assert surely_best([base, gain, gain + 1, gain - 9], 1.0) == 2, "the best of those that surely win"
    assert surely_best([base, base], 0.0) == 0, "no gain is no win"
    assert surely_best([base], 1.0) == 0


def test_intervals_of_a_mean_hold_it_as_often_as_they_say() -> None:
    """Of 400 draws of 60 skewed values some 95% have the true mean, by the bootstrap and by the normal."""
    rng, samples = np.random.default_rng(5), resampled(60)
    assert samples is not None
    held = np.zeros(2)
    for _ in range(400):
        values = rng.exponential(1.0, 60)
        for i, drawn in enumerate((samples, None)):
            low, high = intervals(values[:, None], np.ones((60, 1), bool), drawn)
            held[i] += low[0] <= 1.0 <= high[0]
    assert ((held >= 360) & (held <= 392)).all(), held
    assert resampled(20_000) is None
    two, first = np.array([[0.5, 1.0], [0.5, 9.0]]), np.array([[True, True], [True, False]])
    for drawn in (resampled(2), None):
        low, high = intervals(two, first, drawn)
        assert (low.tolist(), high.tolist()) == ([0.5, 1.0], [0.5, 1.0]), "of some users each"


def test_a_difference_is_that_of_welch() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(0, 1, 12), rng.normal(0.5, 3, 40)
    theirs = stats.ttest_ind(one, other, equal_var=False)
    bounds = theirs.confidence_interval(0.95)
    assert difference(one, other) == pytest.approx((one.mean() - other.mean(), bounds.low, bounds.high, theirs.pvalue))
    assert difference(one[:1], other)[1:] == (-np.inf, np.inf, 1.0)
    pooled = np.var([1, 1, 1, 0, 0, 0], ddof=1)
    theirs = stats.ttest_ind_from_stats(1, pooled**0.5, 3, 0, pooled**0.5, 3, equal_var=False)
    assert difference(np.ones(3), np.zeros(3))[3] == pytest.approx(theirs.pvalue)
    assert difference(np.ones(3), np.ones(3)) == (0.0, 0.0, 0.0, 1.0)


def test_a_small_group_without_a_rare_hit_is_no_finding() -> None:
    """Ten of a thousand users, none of whom hits what one in twenty hits: some six in ten such groups are like that."""
    rng, found = np.random.default_rng(3), 0
    for _ in range(300):
        hits = (rng.random(1_000) < 0.05).astype(float)
        found += difference(hits[:10], hits[10:])[3] < 0.05
    assert found <= 300 * 0.12


def test_p_values_are_corrected_step_by_step() -> None:
    """Sorted .01, .02, .03, .5 times 4, 3, 2, 1, none below the one before it, none above 1."""
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_experiments_agree_with_tea_tasting() -> None:
    """Expected values are those of tea-tasting 1.14.0 (Mean, Mean with a covariate, SampleRatio by the normal).

    It has no intervals that hold at every look, which is what an experiment here is decided by, and is not used.
    """
    rng = np.random.default_rng(11)
    arm, before = np.array([0, 1] * 300), rng.poisson(8, 600).astype(float)
    outcome = 0.3 * before + rng.normal(0, 1, 600) + 0.2 * arm
    plain = (0.12574722698751195, -0.08961987031991972, 0.3411143242949436, 0.251964984583562)
    cleaned = (0.13467277807656508, -0.03330208376578714, 0.3026476399189173, 0.11588332472466288)
    for values, expected in ((outcome, plain), (adjusted(outcome, before), cleaned)):
        assert difference(values[arm == 1], values[arm == 0]) == pytest.approx(expected, abs=1e-9)
    assert sample_ratio_p([5000, 4800], [0.5, 0.5]) == pytest.approx(0.04335175126086261, abs=1e-9)
