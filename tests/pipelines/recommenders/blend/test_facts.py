"""Facts about items carry over from day to day."""

import numpy as np
from scipy import sparse

from pipelines.recommenders.base import Inputs
from pipelines.recommenders.blend.facts import ItemFacts, _stratum
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


def test_users_of_like_activity_make_a_stratum() -> None:
    assert _stratum(np.array([0, 1, 2, 3, 4, 5, 8, 9])).tolist() == [0, 0, 1, 2, 2, 3, 3, 4]


def test_popularity_among_users_of_like_activity_and_among_neighbours() -> None:
    """Users like one, two and three items; the third is the most active and says nothing about what goes together."""
    inputs = Inputs(sparse.csr_matrix(np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]], np.float32)))
    facts = ItemFacts()
    facts.fit_transform(inputs)
    assert facts.strata.tolist() == [0, 1, 2]
    assert facts.usual.tolist() == [True, True, False]
    found = facts._raw(inputs)
    assert found[:, :3].tolist() == np.log1p([[1, 1, 1], [0, 1, 1], [0, 0, 1]]).tolist()
    first, second = np.array([1, 1, 1]), np.array([0, 1, 1])
    near = [2 / 3 * first + second / 6**0.5, first / 6**0.5 + second / 2, np.zeros(3)]
    assert np.allclose(found[:, 3:6], np.log1p(near), rtol=1e-6)
    assert not found[:, 6:9].any(), "without content no item is alike"


def test_recent_popularity_comes_first() -> None:
    positives = sparse.csr_matrix(np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]], np.float32))
    recent = np.array([[0, 1, 9], [2, 2, 2], [0, 0, 0]], np.float32)
    facts, plain = ItemFacts(), ItemFacts()
    found, without = facts.fit_transform(Inputs(positives, recent=recent)), plain.fit_transform(Inputs(positives))
    assert (facts.recent, plain.recent) == (3, 0)
    assert np.allclose(facts._raw(Inputs(positives, recent=recent))[:, :3], np.log([[1, 2, 10], [3, 3, 3], [1, 1, 1]]))
    assert np.array_equal(found[:, 3:], without)
    tomorrow = facts.transform(Inputs(positives, recent=recent[::-1].copy()))
    assert np.allclose(tomorrow[:, :3], found[::-1, :3])
    assert np.array_equal(facts.transform(Inputs(positives))[:, 3:], without), "no times, no recent events"


def test_facts_have_mean_zero_and_deviation_one_where_they_vary(inputs: Inputs) -> None:
    facts = ItemFacts()
    found = facts.fit_transform(inputs)
    raw = facts._raw(inputs)
    varies = raw.std(0) > 0
    expected = ((raw - raw.mean(0)) / np.where(varies, raw.std(0), 1)).clip(-4, 4)
    assert np.allclose(found[:, varies], expected[:, varies], atol=1e-5)
    assert not found[:, ~varies].any()
