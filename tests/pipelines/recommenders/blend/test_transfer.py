"""New items go to those who like their like."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from pipelines.recommenders.base import Inputs
from pipelines.recommenders.blend import transfer
from pipelines.recommenders.blend.transfer import Transfer
from pipelines.recommenders.content import Content
from pipelines.recommenders.item_graphs import GRAPH_NEIGHBOURS, centred, nearest_graph
from pipelines.recommenders.ranking import ndcg_of
from tests.shop import unit
from tests.worlds import ITEMS, USERS


def _with_new_items(inputs: Inputs, new: np.ndarray) -> Inputs:
    """The same, but nobody has liked ``new`` yet."""
    liked = inputs.positives.toarray()
    liked[:, new] = 0
    return replace(inputs, positives=sparse.csr_matrix(liked))


def test_new_items_go_to_those_who_like_their_like(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taste follows ``item % 4``, which one modality shows; the other groups items by what nobody minds."""
    new = np.union1d(np.arange(3, ITEMS, 5), [7])
    content = inputs.content | {"text": unit(np.random.default_rng(3), 3, 24)[np.arange(ITEMS) % 3].astype(np.float32)}
    past = replace(_with_new_items(inputs, new), content=content)
    users = np.arange(USERS)
    model = Transfer().fit(past)
    scores = model.score(past, users)
    liked = inputs.positives.toarray() > 0
    warm = (past.positives.toarray() > 0).any(1)
    assert not np.delete(scores, new, 1).any(), "liked items are for the other recommenders"
    assert np.allclose(scores.sum(1), warm, atol=1e-5), "chances among new items; without history there are none"
    same = (new % 4)[None] == (users % 4)[:, None]
    assert scores[:, new][same & warm[:, None]].mean() > 3 * scores[:, new][~same & warm[:, None]].mean()
    wanted = sparse.csr_matrix(liked[:, new] & warm[:, None])
    judges = np.flatnonzero(np.diff(wanted.indptr))
    by_content = Content().fit(past).score(past, users)[:, new]
    gained, plain = (ndcg_of(s[judges], wanted[judges], None, 3, "cpu").mean() for s in (scores[:, new], by_content))
    assert gained > 1.1 * plain, (gained, plain)
    assert np.array_equal(Transfer().restore(model.state(), past).score(past, users), scores)
    assert np.array_equal(Transfer().fit(replace(past)).score(past, users), scores), "training repeats itself"
    monkeypatch.setattr(transfer, "REACHED", 0)
    from_users = Transfer().restore(model.state(), past).score(past, users)
    assert np.allclose(from_users, scores, rtol=1e-4, atol=1e-5), "walks from users are walks from items"


def test_new_items_by_a_graph_alone_and_where_there_are_none(inputs: Inputs) -> None:
    new = np.union1d(np.arange(3, ITEMS, 5), [7])
    graph = nearest_graph(centred(inputs.content["image"]), GRAPH_NEIGHBOURS)
    past = _with_new_items(Inputs(inputs.positives, graphs={"image": graph}), new)
    model, users = Transfer().fit(past), np.arange(USERS)
    scores = model.score(past, users)[:, new]
    same = (new % 4)[None] == (users % 4)[:, None]
    assert scores[same].mean() > 1.5 * scores[~same].mean()
    assert np.array_equal(Transfer().restore(model.state(), past).score(past, users)[:, new], scores)
    everything = replace(inputs, positives=sparse.csr_matrix(np.ones((USERS, ITEMS), np.float32)))
    for nothing_to_do in (everything, Inputs(past.positives)):
        model = Transfer().fit(nothing_to_do)
        assert not Transfer().restore(model.state(), nothing_to_do).score(nothing_to_do, users).any()
