"""Unit rows."""

import numpy as np

from encoders.base import unit_rows


def test_zero_rows_become_unit() -> None:
    assert np.allclose(np.linalg.norm(unit_rows(np.zeros((2, 3))), axis=1), 1)
