"""Exact top-K, scales, blocks."""

import numpy as np
import pytest
from scipy import sparse

from pipelines.recommenders import ranking
from pipelines.recommenders.ranking import PASS_USERS, blocks_of, some_users, standard_scores, top_k, weighted_sum


def test_top_k_is_exact_and_unique() -> None:
    scores = np.array([[1, 3, 3, 2, 0], [0, 0, 0, 0, 0]], np.float32)
    forbidden = sparse.csr_matrix(np.array([[0, 0, 0, 1, 0], [1, 1, 1, 1, 0]]))
    items, values = top_k(scores, 3, forbidden)
    assert items.tolist() == [[1, 2, 0], [4, -1, -1]]
    assert values[0].tolist() == [3, 3, 1]
    rng = np.random.default_rng(0)
    big = rng.integers(0, 50, (40, 300)).astype(np.float32)
    expected = np.lexsort((np.tile(np.arange(300), (40, 1)), -big), axis=1)[:, :20]
    assert np.array_equal(top_k(big, 20)[0], expected)
    assert top_k(big, 1000)[0].shape == (40, 300)
    assert [a.shape for a in top_k(big[:0], 20)] == [(0, 20), (0, 20)]


@pytest.mark.parametrize("levels", [1, 3, 4000])
def test_top_k_of_long_rows_is_that_of_a_sort(levels: int) -> None:
    """Long rows are sought in segments; with one level and three all is tied, within segments and across them."""
    n = 8 * ranking.SEGMENT * 10 + 17
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (30, n)).astype(np.float32)
    forbidden = sparse.random(30, n, 0.3, format="csr", rng=rng)
    allowed = np.where(forbidden.toarray() != 0, -np.inf, scores)
    expected = np.lexsort((np.tile(np.arange(n), (30, 1)), -allowed), axis=1)[:, :10]
    items, values = top_k(scores, 10, forbidden)
    assert np.array_equal(items, expected)
    assert np.array_equal(values, np.take_along_axis(allowed, expected, 1))
    almost = sparse.csr_matrix(np.arange(n)[None] >= 4)
    assert top_k(scores[:1], 10, almost)[0][0, 4:].tolist() == [-1] * 6


def test_standard_scores_of_flat_rows_are_zero() -> None:
    out = standard_scores(np.array([[1, 1, 1], [0, 1, 2]], np.float32))
    assert out[0].tolist() == [0, 0, 0]
    assert out[1].mean() == pytest.approx(0)


def test_a_weighted_sum_does_not_mind_the_order_in_memory() -> None:
    rng = np.random.default_rng(0)
    draws = [rng.normal(size=(6, 9)).astype(np.float32) for _ in range(4)]
    parts = [draws[0], np.asfortranarray(draws[1]), np.asfortranarray(draws[2]), draws[3]]
    weights = np.array([1.0, -2.0, 0.5, 3.0])
    kept = [p.copy() for p in parts]
    expected = sum(w * p for w, p in zip(weights, parts, strict=True))
    assert np.allclose(weighted_sum(iter(parts), weights), expected, atol=1e-5)
    assert all(np.array_equal(p, k) for p, k in zip(parts, kept, strict=True)), "parts stay as they were"


@pytest.mark.parametrize(
    ("items", "size"),
    [(100, 9984), (18_357, PASS_USERS), (50_000, PASS_USERS), (1_000_000, 4), (9_000_000, 1), (0, 1_000_000)],
)
def test_blocks_are_whole_passes_until_catalogues_are_too_large(items: int, size: int) -> None:
    users = np.arange(2_000_001)[::2]
    blocks = blocks_of(users, items)
    assert np.array_equal(np.concatenate(blocks), users)
    assert {len(b) for b in blocks[:-1]} <= {size}
    assert len(blocks[-1]) <= size


@pytest.mark.parametrize(
    ("items", "number"), [(0, 5000), (4_000, 5000), (10_000, 2000), (100_000, 500), (9_000_000, 500)]
)
def test_large_catalogues_do_not_leave_the_fit_with_few_users(items: int, number: int) -> None:
    users = np.arange(10_000)[::2]
    chosen = some_users(users, items)
    assert len(np.unique(chosen)) == len(chosen) == number
    assert np.isin(chosen, users).all()
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, some_users(users, items)), "drawn with a fixed seed"
    assert some_users(users[:3], items).tolist() == users[:3].tolist()
    for domains in (2, 4, 30):
        assert len(some_users(users, items, domains)) == max(number, 500 * min(domains, 4)), "500 of each, of four"
