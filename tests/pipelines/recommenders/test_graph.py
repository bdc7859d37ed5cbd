"""The graph filter against dense products."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.recommenders.base import Inputs
from pipelines.recommenders.graph import WALKS, GraphFilter, Walker
from pipelines.recommenders.item_graphs import GRAPH_NEIGHBOURS, centred, nearest_graph
from pipelines.recommenders.ranking import PASS_USERS
from tests.worlds import USERS


def dense_walks(inputs: Inputs) -> dict[str, np.ndarray]:
    x = inputs.positives.toarray().astype(np.float64)
    user, item = np.where(x.sum(1) > 0, x.sum(1), 1), np.where(x.sum(0) > 0, x.sum(0), 1)
    r = x / np.sqrt(user)[:, None] / np.sqrt(item)[None]
    c = nearest_graph(centred(inputs.content["image"]), GRAPH_NEIGHBOURS).toarray().astype(np.float64)
    degree = np.where(c.sum(1) > 0, c.sum(1), 1)
    step = {"R": r.T @ r, "C": c / np.sqrt(degree)[:, None] / np.sqrt(degree)[None]}
    found = {"": r}
    for walk in WALKS:
        found[walk] = found[walk[:-1]] @ step[walk[-1]]
    return found


def test_a_graph_filter_fitted_again_walks_the_new_graph(inputs: Inputs) -> None:
    other = replace(inputs, positives=inputs.positives[::-1].tocsr())
    users = np.arange(9)
    model = GraphFilter().fit(inputs)
    model.score(inputs, users)
    assert np.array_equal(model.fit(other).score(other, users), GraphFilter().fit(other).score(other, users))


def test_graph_filter_by_hand(inputs: Inputs) -> None:
    model = GraphFilter(0.3, 0.5).fit(inputs)
    walks, everyone = dense_walks(inputs), np.arange(USERS)
    for walk, found in zip(WALKS, model.evidence(inputs, everyone), strict=True):
        assert np.allclose(found, walks[walk], rtol=1e-5, atol=1e-6), walk
    x = inputs.positives.toarray()
    damped = (x / np.sqrt(np.where(x.sum(1) > 0, x.sum(1), 1))[:, None]).sum(0)
    expected = walks["RRR"] + 0.3 * (walks["RRC"] + walks["RCR"]) + 0.09 * walks["RCC"]
    scores = model.score(inputs, everyone)
    assert np.allclose(scores, expected * (1 + damped) ** 0.5, rtol=1e-5, atol=1e-6)
    again = GraphFilter(0.3, 0.5).restore(model.state(), inputs)
    some = np.array([3, PASS_USERS + 1, 5])
    assert np.allclose(again.score(inputs, some), scores[some], atol=1e-6), "users do not depend on their block"
    assert not scores[5].any(), "no history, nothing to say"
    assert scores[:, 7].any(), "content carries an item that nobody has met"


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_walks_begin_at_any_size(size: float, inputs: Inputs) -> None:
    model, start = GraphFilter().fit(inputs), inputs.positives[:9]
    walker = Walker(model.links, model.graph, "cpu")
    plain, sized = walker.walked(start, WALKS), walker.walked((start * np.float32(size)).tocsr(), WALKS)
    for one, other in zip(plain, sized, strict=True):
        assert one.any()
        assert np.allclose(other / size, one, rtol=1e-5, atol=1e-6)
