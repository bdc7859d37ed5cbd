"""Recommenders agree with public implementations."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from pipelines.recommenders.base import Inputs, Recommender
from pipelines.recommenders.linear import ALS, Ease
from pipelines.recommenders.neighbours import ItemCF, Similarity
from pipelines.recommenders.ranking import top_k

K = 10


@pytest.fixture(scope="module")
def liked() -> sparse.csr_matrix:
    stored = np.load(Path(__file__).parent / "expected" / "ease_cornac.npz")
    shape = tuple(stored["shape"])
    return sparse.csr_matrix(np.unpackbits(stored["liked"])[: shape[0] * shape[1]].reshape(shape), dtype=np.float32)


def ranked(model: Recommender, liked: sparse.csr_matrix) -> np.ndarray:
    inputs = Inputs(liked)
    scores = model.fit(inputs).score(inputs, np.arange(liked.shape[0]))
    return top_k(scores, K, liked)[0]


def test_ease_ranks_as_in_cornac(liked: sparse.csr_matrix) -> None:
    """Expected lists are those of EASE(lamb=50) in Cornac 3.0.1, which is not worth its 31 MB in every set-up."""
    expected = np.load(Path(__file__).parent / "expected" / "ease_cornac.npz")
    assert np.array_equal(ranked(Ease(ridge=float(expected["ridge"])), liked), expected["items"])


def test_ease_leaves_the_least_liked_items_out(liked: sparse.csr_matrix) -> None:
    inputs = Inputs(liked)
    model = Ease(50.0, items=30).fit(inputs)
    scores = model.score(inputs, np.arange(20))
    degree = np.diff(liked.tocsc().indptr)
    assert (np.count_nonzero(scores.any(0)), len(model.chosen)) == (30, 30)
    assert degree[model.chosen].min() >= np.sort(degree)[::-1][30]


@pytest.mark.parametrize("similarity", ["cosine", "bm25"])
def test_item_cf_ranks_as_in_implicit(liked: sparse.csr_matrix, similarity: Similarity) -> None:
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender

    theirs = {"cosine": CosineRecommender, "bm25": BM25Recommender}[similarity](K=liked.shape[1])
    theirs.fit(liked.astype(np.float64), show_progress=False)
    expected, _ = theirs.recommend(np.arange(liked.shape[0]), liked, N=K)
    ours = ranked(ItemCF(liked.shape[1], similarity), liked)
    assert (ours == expected).mean() > 0.995, "but for ties in the last digit"


def test_als_ranks_as_in_implicit(liked: sparse.csr_matrix) -> None:
    from implicit.cpu.als import AlternatingLeastSquares

    theirs = AlternatingLeastSquares(factors=16, regularization=0.1, alpha=10.0, iterations=15, random_state=0)
    theirs.fit(liked, show_progress=False)
    expected, _ = theirs.recommend(np.arange(liked.shape[0]), liked, N=K)
    assert np.array_equal(ranked(ALS(factors=16), liked), expected)
