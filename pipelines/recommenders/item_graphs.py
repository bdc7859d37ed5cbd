"""Graphs of items alike in content: nearest neighbours, normalization, one graph of all modalities.

Belongs here: how content becomes a graph. Does not: walks on it (``graph``), training with it (``lightgcn``).
"""

import numpy as np
from scipy import optimize, sparse

from pipelines.recommenders.base import Inputs
from pipelines.recommenders.matrices import scaled, unit_or_zero

GRAPH_NEIGHBOURS = 10
TILE_ROWS, TILE_COLUMNS = 1024, 4096  # items of one tile of similarities


def centred(matrix: np.ndarray) -> np.ndarray:
    """Unit rows after taking off the mean of the rows that are there; zero rows stay zero.

    Pretrained vectors share a large common direction that says nothing about taste (https://arxiv.org/abs/1702.01417).
    """
    there = np.linalg.norm(matrix, axis=1) > 0
    if not there.any():
        return matrix
    out = np.where(there[:, None], matrix - matrix[there].mean(0), 0).astype(np.float32)
    return unit_or_zero(out)


def nearest_graph(vectors: np.ndarray, k: int) -> sparse.csr_matrix:
    """Symmetric k-nearest-neighbour graph of unit rows by positive cosine (items, items), zero diagonal.

    Similarities are made in tiles, and of each only what is among the k largest of its row so far is kept: memory does
    not grow with the square of the items. Ties go to the lower column.
    """
    n = len(vectors)
    keep = min(k, n - 1)
    blocks = [
        _nearest(vectors, slice(a, min(a + TILE_ROWS, n)), keep) for a in range(0, n if keep > 0 else 0, TILE_ROWS)
    ]
    row, column, value = (np.concatenate([b[i] for b in blocks] or [np.zeros(0)]) for i in range(3))
    shape = (row.astype(np.int32), column.astype(np.int32))
    graph = sparse.csr_matrix((value.astype(np.float32), shape), shape=(n, n))
    return graph.maximum(graph.T).tocsr().astype(np.float32)


def _nearest(vectors: np.ndarray, rows: slice, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and cosine of the k largest positive cosines of each of some rows to all others."""
    queries, size = vectors[rows], rows.stop - rows.start
    rows_held, columns_held = np.zeros(0, np.int64), np.zeros(0, np.int64)
    cosines_held = np.zeros(0, np.float32)
    threshold = np.zeros(size, np.float32)  # the k-th largest so far; what only equals it comes later and loses
    for start in range(0, len(vectors), TILE_COLUMNS):
        tile = queries @ vectors[start : start + TILE_COLUMNS].T
        inside = np.arange(max(rows.start, start), min(rows.stop, start + tile.shape[1]))
        tile[inside - rows.start, inside - start] = 0
        passing = tile > threshold[:, None]
        if start == 0 and tile.shape[1] > k:  # nothing is held yet, so that nearly all would pass
            passing &= tile >= -np.partition(-tile, k - 1, axis=1)[:, k - 1 : k]
        row, column = np.nonzero(passing)
        rows_held = np.concatenate([rows_held, row])
        columns_held = np.concatenate([columns_held, column + start])
        cosines_held = np.concatenate([cosines_held, tile[row, column]])
        order = np.lexsort((columns_held, -cosines_held, rows_held))
        place = np.arange(len(order)) - np.searchsorted(rows_held[order], rows_held[order])
        order, place = order[place < k], place[place < k]
        rows_held, columns_held, cosines_held = rows_held[order], columns_held[order], cosines_held[order]
        threshold[rows_held[place == k - 1]] = cosines_held[place == k - 1]
    return rows_held + rows.start, columns_held, cosines_held


def neighbours_of(inputs: Inputs, name: str, vectors: np.ndarray) -> sparse.csr_matrix:
    """Nearest-neighbour graph of vectors (items, d) after centring; built once for all inputs that share them."""
    known = inputs.nearest.get(name)
    if known is None or known[0] is not vectors:
        known = inputs.nearest[name] = (vectors, nearest_graph(centred(vectors), GRAPH_NEIGHBOURS))
    return known[1]


def content_graphs(inputs: Inputs) -> dict[str, sparse.csr_matrix]:
    """Modality -> graph of items alike in it: the given one, else of nearest neighbours; in order of name."""
    missing = sorted(inputs.content.keys() - inputs.graphs.keys())
    graphs = inputs.graphs | {m: neighbours_of(inputs, m, inputs.content[m]) for m in missing}
    return dict(sorted(graphs.items()))


def normalized(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """A similarity of items (items, items) made symmetric, divided by the square roots of both degrees, no diagonal.

    Negative entries count as none.
    """
    both = graph.maximum(graph.T).maximum(0)
    return scaled((both - sparse.diags_array(both.diagonal())).tocsr(), 0.5, 0.5)


def content_graph(inputs: Inputs) -> sparse.csr_matrix:
    """Mean of the normalized nearest-neighbour graphs of all modalities (items, items).

    A modality weighs as much as likeness in it predicts being liked together: non-negative least squares of the
    co-occurrences, damped by both degrees, on the graphs; all the same where there are none.
    """
    n = inputs.positives.shape[1]
    parts = [normalized(g) for g in content_graphs(inputs).values()]
    if not parts:
        return sparse.csr_matrix((n, n), dtype=np.float32)
    links = scaled(inputs.positives, 0.5, 0.5)
    together = [_agreement(links, p) for p in parts]
    overlap = np.array([[float(a.multiply(b).sum()) for b in parts] for a in parts])
    weight = optimize.nnls(overlap, np.array(together))[0] if overlap.diagonal().all() else np.zeros(len(parts))
    weight = weight / weight.sum() if weight.any() else np.full(len(parts), 1 / len(parts))
    return sum((w * p for w, p in zip(weight, parts, strict=True)), 0 * parts[0]).tocsr().astype(np.float32)


def _agreement(links: sparse.csr_matrix, graph: sparse.csr_matrix) -> float:
    """Sum of (R'R * graph) over all pairs; the graph has no diagonal. R'R is not formed."""
    return float((links @ graph).multiply(links).sum())
