"""Metrics by hand and against ranx."""

import numpy as np
import pytest
from scipy import sparse

from pipelines.learning.metrics import PER_USER, hits_of
from pipelines.recommenders.ranking import top_k

K = 10


def test_metrics_against_ir_definitions() -> None:
    hits = np.array([False, True, False, True, False])
    found = {name: f(hits, 3) for name, f in PER_USER.items()}
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["ndcg"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / ideal)
    assert found["map"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert (found["mrr"], found["hit_rate"]) == (0.5, 1.0)


def test_hits_are_those_of_the_lists_own_user() -> None:
    """Three items; the keys of a user end where those of the next one begin."""
    last = sparse.csr_matrix(np.array([[0, 0, 1], [0, 0, 1]]))
    assert hits_of(np.array([[0, 2], [2, -1]]), last).tolist() == [[False, True], [True, False]]
    assert hits_of(np.array([[0], [-1]]), last).tolist() == [[False], [False]], "-1 is not the item before the row"
    first = sparse.csr_matrix(np.array([[1, 0, 0], [0, 0, 0]]))
    assert hits_of(np.array([[1, 0], [0, 1]]), first).tolist() == [[False, True], [False, False]]
    assert hits_of(np.array([[0, 1, 2]]), sparse.csr_matrix((1, 3))).tolist() == [[False] * 3]


RANX = {"recall": "recall", "ndcg": "ndcg", "mrr": "mrr", "hit_rate": "hit_rate", "map": "map"}


@pytest.mark.slow
def test_metrics_agree_with_ranx() -> None:
    from ranx import Qrels, Run, evaluate

    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(60.0), (200, 1)), axis=1).astype(np.float32)
    relevant = sparse.csr_matrix(rng.random((200, 60)) < rng.uniform(0.02, 0.5, (200, 1)), dtype=np.float32)
    scores, relevant = (m[np.diff(relevant.indptr) > 0] for m in (scores, relevant))
    items, values = top_k(scores, K)
    qrels, run = {}, {}
    for u in range(len(scores)):
        qrels[f"u{u:03d}"] = {f"i{i}": 1 for i in relevant[u].indices}
        run[f"u{u:03d}"] = {f"i{i}": float(s) for i, s in zip(items[u], values[u], strict=True)}
    theirs = evaluate(Qrels(qrels), Run(run), [f"{m}@{K}" for m in RANX.values()], return_mean=False)
    hits, n = hits_of(items, relevant), np.diff(relevant.indptr)
    for ours, name in RANX.items():
        few = n <= K if ours == "map" else n > 0  # ranx divides by all relevant items, RecBole and we by at most K
        assert few.sum() > 50
        assert np.allclose(np.asarray(PER_USER[ours](hits, n))[few], theirs[f"{name}@{K}"][few], rtol=0, atol=1e-9), (
            ours
        )
