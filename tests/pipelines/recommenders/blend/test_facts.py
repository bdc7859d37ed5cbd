"""Facts about items carry over from day to day."""

import numpy as np

from pipelines.recommenders.base import Inputs
from pipelines.recommenders.blend.facts import ItemFacts
from tests.worlds import ITEMS


def test_facts_are_scaled_repeatable_and_carry_over(inputs: Inputs) -> None:
    facts = ItemFacts()
    found = facts.fit_transform(inputs)
    assert np.isfinite(found).all()
    assert np.array_equal(facts.transform(inputs), found)
    assert len(found) == ITEMS
    assert np.array_equal(ItemFacts().fit_transform(inputs), found)
    later = inputs.positives.copy().tolil()
    later[0, :10] = 1
    moved = facts.transform(Inputs(later.tocsr().astype(np.float32), inputs.content))
    assert moved.shape == found.shape
    per_item = [np.corrcoef(a, b)[0, 1] for a, b in zip(moved, found, strict=True)]
    assert np.median(per_item) > 0.95, "a few more events move the facts little"
