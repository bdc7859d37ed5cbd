"""Tastes that change all at once: lists follow, and it is the short memory that makes them."""

import numpy as np
import pytest

from benchmarks.flip import BOTH, FLIP, LONG, NIGHTS, THEMES, accuracy, dataset, log_of
from encoders.device import single_threaded

pytestmark = pytest.mark.slow


def test_lists_follow_a_change_of_all_tastes_within_three_nights() -> None:
    night = FLIP + NIGHTS - 1
    log = log_of(0, night + 2, flips=True)
    with single_threaded():
        both, long = (accuracy(log, night, models, 0) for models in (BOTH, LONG))
        fresh = accuracy(log, night, BOTH, FLIP)
    assert both >= 0.9 * fresh, "of the accuracy of a hybrid that never knew the old tastes"
    assert long < 0.9 * fresh, "without a short memory they do not"


def test_the_change_is_what_it_says() -> None:
    """Before the change both houses are the same; after it they share almost no event."""
    plain, flipped = (log_of(1, FLIP + 1, flips) for flips in (False, True))
    before, after = (
        [dataset(log, since, until).seen().toarray() for log in (plain, flipped)]
        for since, until in ((0, FLIP), (FLIP, FLIP + 1))
    )
    assert np.array_equal(*before)
    assert (after[0] * after[1]).sum() < after[0].sum() / THEMES
