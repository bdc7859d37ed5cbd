"""Paired differences, by hand."""

import numpy as np
import pytest

from pipelines.learning.statistics import mean_and_error, surely_best


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
