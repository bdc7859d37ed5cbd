"""One contract of all recommenders."""

import numpy as np
import pytest
from scipy import sparse

from encoders.space.ragged import Ragged
from pipelines.recommenders.base import Inputs, Recommender
from pipelines.recommenders.neighbours import SIMILARITIES, ItemCF
from pipelines.recommenders.ranking import top_k
from pipelines.recommenders.registry import RECOMMENDERS, classes, unfitted
from tests.shop import unit
from tests.worlds import GROUPS, N


def inputs_of(world) -> Inputs:  # type: ignore[no-untyped-def]
    features, histories, group = world
    rows = np.concatenate([np.full(len(h), u) for u, h in enumerate(histories)])
    positives = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, np.concatenate(histories))), shape=(82, N))
    content = {m: np.where(f.present[:, None], f.matrix, 0).astype(np.float32) for m, f in features.items()}
    fused = unit(np.random.default_rng(1), GROUPS, 16)[group] + 0.3 * unit(np.random.default_rng(2), N, 16)
    fused /= np.linalg.norm(fused, axis=1, keepdims=True)
    means = np.stack([fused[h].mean(0) for h in histories] + [np.zeros(16)] * 2).astype(np.float32)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    signal = np.array([True] * 80 + [False] * 2)
    known = [*histories, np.zeros(0, int), np.zeros(0, int)]
    return Inputs(positives, content, {}, fused.astype(np.float32), means, signal, histories=Ragged.of(known))


MODELS = unfitted(tuple(RECOMMENDERS), {"als": {"factors": 8}}) + [ItemCF(similarity=s) for s in SIMILARITIES]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.name}-{getattr(m, 'kind', '')}")
def test_contract_of_all_recommenders(world, model: Recommender) -> None:  # type: ignore[no-untyped-def]
    inputs, everyone = inputs_of(world), np.arange(82)
    fitted = model.fit(inputs)
    scores = fitted.score(inputs, everyone)
    assert scores.shape == (82, N)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    singly = np.concatenate([fitted.score(inputs, np.array([u])) for u in everyone])
    assert np.allclose(scores, singly, atol=1e-5), "batch equals single"
    state = {k: v.copy() for k, v in fitted.state().items()}
    restored = classes()[model.name]().restore(state, inputs)
    assert np.array_equal(restored.score(inputs, everyone), scores), "a stored model is the same model"
    assert np.array_equal(model.fit(inputs).score(inputs, everyone), scores), "fitting again changes nothing"
    if model.name == "transfer":
        assert not scores.any(), "every item has been liked"
    elif model.name != "popularity":
        assert (scores[80:] == 0).all(), "nothing to say about users without any signal"
        items, _ = top_k(scores[:80], 10, inputs.positives[:80])
        group = world[2]
        assert (group[items] == (np.arange(80) % GROUPS)[:, None]).mean() > 0.8, "finds the unseen items of the group"


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.name}-{getattr(m, 'kind', '')}")
def test_what_history_items_say_is_what_the_model_scores(world, model: Recommender) -> None:  # type: ignore[no-untyped-def]
    """Of a user whose history is one item, what likeness ranks first is near the top of the scores."""
    inputs = inputs_of(world)
    fitted = model.fit(inputs)
    of, items = np.array([3, 17, 40]), np.array([1, 5, 20, 60, 99])
    found = fitted.likeness(of, items)
    if found is None:
        assert model.name in ("popularity", "user_cf", "transfer"), "these do not look at items one by one"
        return
    assert found.shape == (3, 5)
    assert np.isfinite(found).all()
    everything = fitted.likeness(np.arange(N), np.arange(N))
    assert everything is not None
    assert np.allclose(found, everything[np.ix_(of, items)], atol=1e-5)
    rows = np.flatnonzero(np.diff(inputs.positives.indptr))[:30]
    said = np.stack([everything[inputs.positives[u].indices].sum(0) for u in rows])
    scores = fitted.score(inputs, rows)
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(said, scores, strict=True) if a.std() > 0 and b.std() > 0]
    assert np.mean(alike) > 0.5, "what the history says adds up to something like the score"
