"""Neighbours by hand: the walk of three steps and its powers."""

import numpy as np
import pytest
from scipy import sparse

from pipelines.recommenders.base import Inputs
from pipelines.recommenders.linear import ALS
from pipelines.recommenders.neighbours import ItemCF

#                                 0  1  2
LIKED = sparse.csr_matrix(np.array([[1, 1, 0], [1, 0, 1], [0, 0, 1]], np.float32))


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.6), (1.0, 0.0), (0.6, 0.0), (0.5, 1.0)])
def test_a_walk_to_a_user_and_on_to_another_item(alpha: float, beta: float) -> None:
    """From item 0 to either user by 1/2, from each on to an item by 1/2; items 1 and 2 have one and two users."""
    similarity = ItemCF(alpha=alpha, beta=beta).fit(Inputs(LIKED)).similarity.toarray()
    step = (1 / 2) ** alpha * (1 / 2) ** alpha
    assert similarity[0].tolist() == pytest.approx([0, step, step / 2**beta])
    assert similarity[1].tolist() == pytest.approx([(1 / 2) ** alpha / 2**beta, 0, 0]), "its only user, for sure"
    assert similarity[2, 0] == pytest.approx(step / 2**beta), "by one of its two users"


def test_settings_that_a_search_tries_reach_beyond_the_defaults() -> None:
    assert {"alpha": 0.6, "beta": 0.0} in ItemCF.grid
    assert {"alpha": 20.0, "regularization": 100.0} in ALS.grid
    for settings in ItemCF.grid:
        assert ItemCF(**settings).fit(Inputs(LIKED)).similarity.shape == (3, 3)  # type: ignore[arg-type]
