"""What counts beside relevance: by hand, and against a plain loop."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from pipelines.learning.metrics import miscalibration
from pipelines.night.dials import Traits, turned
from pipelines.recommenders.base import Inputs
from pipelines.sections import Dials

ITEMS = np.array([[0, 1, 2, 3]])
SCORES = np.array([[5.0, 4.8, 4.0, 3.0]], np.float32)  # relevance 1, .9, .5, 0
VECTORS = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)


def traits(**more: Any) -> Traits:
    """Items a, a, b, c of three categories; the user has liked as much of a as of b."""
    shares = sparse.csr_matrix(np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float))
    nothing = np.zeros(4)
    known: dict[str, Any] = {"vectors": VECTORS, "categories": shares, "popular": nothing, "exposed": nothing}
    return Traits(**known | {"tastes": sparse.csr_matrix(np.array([[0.5, 0.5, 0]]))} | more)


def lists(dials: Dials, k: int = 3, **more: Any) -> list[int]:
    found, values = turned((ITEMS, SCORES), k, dials, traits(**more), np.array([0]))
    assert (np.diff(values) <= 0).all(), "scores fall with the rank"
    listed: list[int] = found[0].tolist()
    return listed


def test_nothing_turned_is_the_ranking() -> None:
    assert lists(Dials()) == [0, 1, 2]


def test_diversity_takes_what_is_unlike_what_stands_above() -> None:
    """Behind item 0 the like one is worth .9 - d and the other .5: they change places above d = .4."""
    assert lists(Dials(diversity=0.39)) == [0, 1, 2]
    assert lists(Dials(diversity=0.41)) == [0, 2, 1], "then 3 is worth 0 - .41, 1 still .49"


def test_popularity_and_exposure_cost_their_share_of_the_largest() -> None:
    """The logarithms of item 0 are the largest: it falls behind .9 above a dial of .1, behind .5 above .5."""
    for name in ("popularity", "exposure"):
        trait: Any = {{"popularity": "popular", "exposure": "exposed"}[name]: np.array([1.0, 0, 0, 0])}
        assert lists(Dials(**{name: 0.09}), **trait) == [0, 1, 2]
        assert lists(Dials(**{name: 0.11}), **trait) == [1, 0, 2]
        assert lists(Dials(**{name: 0.51}), **trait) == [1, 2, 0]


def test_calibration_gives_a_category_its_share_of_the_history() -> None:
    """With a, a the divergence is .5 log2(.5 / .995) + .5 log2(.5 / .005) = 2.826 bits, .425 of 6.644; with a, b 0.

    So behind item 0 the second a is worth .9 - .425 d and b .5: they change places above d = .94.
    """
    assert lists(Dials(calibration=0.93))[:2] == [0, 1]
    assert lists(Dials(calibration=0.95))[:2] == [0, 2]


def test_short_rankings_stay_short_and_scores_are_those_of_the_ranks() -> None:
    items, scores = (
        np.array([[2, 0, -1, -1], [-1] * 4]),
        np.array([[2, 1, -np.inf, -np.inf], [-np.inf] * 4], np.float32),
    )
    both = traits(tastes=sparse.csr_matrix((2, 3)))
    found, values = turned((items, scores), 3, Dials(diversity=1, calibration=1, popularity=1), both, np.arange(2))
    assert found.tolist() == [[2, 0, -1], [-1, -1, -1]]
    assert values.tolist() == [[2, 1, -np.inf], [-np.inf] * 3]
    _, values = turned((ITEMS, SCORES), 3, Dials(diversity=0.5), traits(), np.array([0]))
    assert values.tolist() == [[5, pytest.approx(4.8), 4]], "0, 2, 1 have the scores of the three in order"


def test_many_users_have_what_a_plain_loop_chooses() -> None:
    rng = np.random.default_rng(0)
    users, n, deep, k = 300, 40, 20, 6
    vectors = rng.normal(size=(n, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = (rng.random((n, 7)) < 0.3) * rng.random((n, 7))
    shares /= np.maximum(shares.sum(1, keepdims=True), 1e-9)
    tastes = rng.dirichlet(np.ones(7), users)
    popular, exposed = rng.random(n), rng.random(n)
    known = Traits(vectors, sparse.csr_matrix(shares), sparse.csr_matrix(tastes), popular, exposed)
    items = np.stack([rng.permutation(n)[:deep] for _ in range(users)])
    scores = -np.sort(-rng.normal(size=(users, deep)).astype(np.float32), 1)
    dials = Dials(diversity=0.4, calibration=0.8, exposure=0.2, popularity=0.3)
    found, _ = turned((items, scores), k, dials, known, np.arange(users))
    for u in range(users):
        relevance = (scores[u] - scores[u].min()) / (scores[u].max() - scores[u].min())
        chosen: list[int] = []
        for _ in range(k):
            worth = {}
            for rank, item in enumerate(items[u].tolist()):
                if item in chosen:
                    continue
                near = max([0.0, *(float(vectors[item] @ vectors[c]) for c in chosen)])
                mixed = shares[[*chosen, item]].sum(0) / (len(chosen) + 1)
                p, q = tastes[u], 0.99 * mixed + 0.01 * tastes[u]
                off = float((p * np.log2(p / q)).sum()) / np.log2(100)
                worth[item] = relevance[rank] - 0.4 * near - 0.8 * off - 0.2 * exposed[item] - 0.3 * popular[item]
            chosen.append(max(worth, key=worth.__getitem__))
        assert found[u].tolist() == chosen


def test_traits_are_logarithms_of_counts_and_shares_of_what_was_liked() -> None:
    """Item 0 was liked by three users, item 1 by one; log 4 and log 2, so 1 and .5. The first user liked both."""
    positives = sparse.csr_matrix(np.array([[2.0, 0.5, 0], [1, 0, 0], [1, 0, 0]], np.float32))
    categories = pa.array([["sea", "sky"], ["sea"], []], pa.list_(pa.string()))
    found = Traits.of(Inputs(positives), categories, np.array([0, 7, 1]))
    assert found.popular.tolist() == pytest.approx([1, 0.5, 0])
    assert found.exposed.tolist() == pytest.approx([0, 1, 1 / 3])
    assert found.categories.toarray().tolist() == [[0.5, 0.5], [1, 0], [0, 0]]
    assert found.tastes.toarray()[0].tolist() == pytest.approx([0.75, 0.25])
    assert miscalibration(np.array([[0.75, 0.25]]), found.tastes.toarray()[:1])[0] == pytest.approx(0, abs=1e-6)
