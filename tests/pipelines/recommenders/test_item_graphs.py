"""Graphs of items alike in content."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from pipelines.recommenders import item_graphs
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.graph import GraphFilter
from pipelines.recommenders.item_graphs import GRAPH_NEIGHBOURS, centred, content_graph, nearest_graph, normalized
from pipelines.recommenders.registry import classes
from tests.shop import unit
from tests.worlds import ITEMS, USERS


def test_content_graph_weighs_a_modality_by_what_it_says_of_taste(inputs: Inputs) -> None:
    noise = unit(np.random.default_rng(3), ITEMS, 24).astype(np.float32)
    both = replace(inputs, content=inputs.content | {"audio": noise})
    only = content_graph(inputs)
    assert abs(content_graph(both) - only).sum() < 0.4 * abs(only).sum(), "noise has little weight"
    loops = sparse.csr_matrix(np.eye(ITEMS, dtype=np.float32))
    graph = nearest_graph(centred(inputs.content["image"]), GRAPH_NEIGHBOURS)
    given = Inputs(inputs.positives, graphs={"image": (graph + loops).tocsr()})
    assert np.allclose(content_graph(given).toarray(), only.toarray(), atol=1e-6), "no item is its own neighbour"


def test_given_graphs_count_like_those_of_vectors(inputs: Inputs) -> None:
    graph = nearest_graph(centred(inputs.content["image"]), GRAPH_NEIGHBOURS)
    given = Inputs(inputs.positives, graphs={"image": graph})
    users = np.arange(20)
    assert np.allclose(GraphFilter().fit(given).score(given, users), GraphFilter().fit(inputs).score(inputs, users))


def test_negative_similarity_counts_as_none(inputs: Inputs) -> None:
    rng = np.random.default_rng(0)
    signed = sparse.csr_matrix(rng.normal(size=(ITEMS, ITEMS)).astype(np.float32))
    clipped = signed.maximum(0)
    assert (normalized(signed) != normalized(clipped)).nnz == 0
    model = GraphFilter().fit(Inputs(inputs.positives, graphs={"image": signed}))
    for walk in model.evidence(inputs, np.arange(USERS)):
        assert np.isfinite(walk).all()
        assert (walk >= 0).all()


def dense_neighbours(vectors: np.ndarray, k: int) -> np.ndarray:
    """The graph written out: the k largest positive cosines of each row, ties to the lower column, made symmetric."""
    similarity = vectors.astype(np.float64) @ vectors.T
    np.fill_diagonal(similarity, 0)
    graph = np.zeros_like(similarity)
    for row, values in enumerate(similarity):
        best = np.lexsort((np.arange(len(values)), -values))[:k]
        graph[row, best] = np.maximum(values[best], 0)
    return np.maximum(graph, graph.T)


@pytest.mark.parametrize("tiles", [(7, 11), (64, 5), (1024, 4096)])
@pytest.mark.parametrize("k", [1, 4, 200])
def test_tiles_of_any_shape_give_the_nearest_neighbours(
    tiles: tuple[int, int], k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_graphs, "TILE_ROWS", tiles[0])
    monkeypatch.setattr(item_graphs, "TILE_COLUMNS", tiles[1])
    rng = np.random.default_rng(0)
    vectors = rng.integers(-1, 2, (60, 6)).astype(np.float32)  # products are exact, and many tie
    vectors[7] = 0
    found = nearest_graph(vectors, k)
    assert np.allclose(found.toarray(), dense_neighbours(vectors, k), atol=1e-5)
    assert found.dtype == np.float32


def test_a_graph_of_no_or_one_item_is_empty() -> None:
    assert nearest_graph(np.zeros((0, 4), np.float32), 5).shape == (0, 0)
    assert nearest_graph(np.ones((1, 4), np.float32), 5).nnz == 0


def test_graphs_are_built_once_for_inputs_that_share_vectors_and_only_where_read(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []

    def counted(vectors: np.ndarray, k: int) -> sparse.csr_matrix:
        built.append(len(vectors))
        return nearest_graph(vectors, k)

    monkeypatch.setattr(item_graphs, "nearest_graph", counted)
    fresh = replace(inputs, nearest={})
    for name in ("popularity", "user_cf", "item_cf", "ease", "sequential", "content"):
        classes()[name]().fit(fresh)
    assert built == [], "models that read no graph have none built"
    past = replace(fresh, positives=inputs.positives[::-1].tocsr())
    for name in ("graph", "lightgcn", "transfer"):
        classes()[name]().fit(fresh)
        classes()[name]().fit(past)
    assert len(built) == 1, "one graph for all models and for the time before"
    other = replace(fresh, content={"image": fresh.content["image"][::-1].copy()})
    content_graph(other)
    assert len(built) == 2, "other vectors have a graph of their own"
