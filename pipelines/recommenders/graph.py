"""Graph filter: a history spread over the graph of who liked what and the graphs of items alike in content.

Belongs here: normalized graphs and their low-pass filter. Does not: how content graphs are cut (``content``).
"""

from typing import ClassVar, Self

import numpy as np
from scipy import sparse

from pipelines.recommenders.base import Arrays, Inputs, Settings, pack, scaled, unpack
from pipelines.recommenders.content import with_graphs

BLOCK = 256  # users of one pass; their columns stay in the processor's cache


def normalized(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """A similarity of items (items, items) made symmetric and divided by the square roots of both degrees."""
    return scaled(graph.maximum(graph.T).tocsr(), 0.5, 0.5)


def content_graph(inputs: Inputs) -> sparse.csr_matrix:
    """Mean of the normalized nearest-neighbour graphs of all modalities (items, items)."""
    n = inputs.positives.shape[1]
    graphs = with_graphs(inputs).graphs if inputs.content.keys() - inputs.graphs.keys() else inputs.graphs
    total = sparse.csr_matrix((n, n), dtype=np.float32)
    for _, graph in sorted(graphs.items()):
        total = total + normalized(graph) / len(graphs)
    return total.tocsr().astype(np.float32)


class GraphFilter:
    """Low-pass filter of the interaction graph plus content graphs, without training.

    ``score = x (R'R + w C)^order``, R the interactions divided by the square roots of both degrees, C the content
    graph; close to GF-CF (https://arxiv.org/abs/2108.07567) with the frozen item graph of FREEDOM
    (https://arxiv.org/abs/2211.06924). Popularity comes back in with an exponent, counted so that a user with a long
    history does not weigh more.

    Args:
        order: applications of the filter.
        content: weight of the content graph.
        popularity: exponent of damped popularity.
    """

    name = "graph"
    signed = False
    grid: ClassVar[tuple[Settings, ...]] = ({"order": 2}, {"content": 0.1}, {"order": 2, "content": 0.1})

    def __init__(self, order: int = 3, content: float = 0.3, popularity: float = 0.5):
        self.order, self.content, self.popularity = order, content, popularity

    def fit(self, inputs: Inputs) -> Self:
        """Normalize the graphs."""
        self.links = scaled(inputs.positives, 0.5, 0.5)
        self.column = np.asarray(inputs.positives.sum(0), np.float32).ravel()
        self.graph = content_graph(inputs)
        self.damped = np.asarray(scaled(inputs.positives, 0.5, 0.0).sum(0), np.float32).ravel()
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        item = np.where(self.column > 0, self.column, 1) ** -0.5
        start = (scaled(inputs.positives[users], 0.5, 0.0) @ sparse.diags_array(item)).tocsr()
        out = np.zeros(start.shape, np.float32)
        weight = (1 + self.damped) ** self.popularity
        for a in range(0, len(users), BLOCK):
            signal = np.ascontiguousarray(start[a : a + BLOCK].T.toarray(), np.float32)
            for _ in range(self.order):
                signal = self.links.T @ (self.links @ signal) + self.content * (self.graph @ signal)
            out[a : a + BLOCK] = (signal * weight[:, None]).T
        return out

    def state(self) -> Arrays:
        """Arrays to store."""
        return pack("links", self.links) | pack("graph", self.graph) | {"column": self.column, "damped": self.damped}

    def restore(self, state: Arrays) -> Self:
        """Stored arrays."""
        self.links, self.graph = unpack("links", state), unpack("graph", state)
        self.column, self.damped = state["column"], state["damped"]
        return self
