"""Graphs of items alike in content: nearest neighbours, normalization, one graph of all modalities.

Belongs here: how content becomes a graph. Does not: walks on it (``graph``), training with it (``lightgcn``).
"""

from dataclasses import replace

import numpy as np
from scipy import optimize, sparse

from pipelines.recommenders.base import Inputs
from pipelines.recommenders.matrices import keep_largest, scaled

GRAPH_NEIGHBOURS = 10
BLOCK = 4096  # items of one similarity block


def centred(matrix: np.ndarray) -> np.ndarray:
    """Unit rows after taking off the mean of the rows that are there; zero rows stay zero.

    Pretrained vectors share a large common direction that says nothing about taste (https://arxiv.org/abs/1702.01417).
    """
    there = np.linalg.norm(matrix, axis=1) > 0
    if not there.any():
        return matrix
    out = np.where(there[:, None], matrix - matrix[there].mean(0), 0).astype(np.float32)
    norm = np.linalg.norm(out, axis=1, keepdims=True)
    return out / np.where(norm < 1e-9, 1, norm)


def nearest_graph(vectors: np.ndarray, k: int) -> sparse.csr_matrix:
    """Symmetric k-nearest-neighbour graph of unit rows by positive cosine (items, items), zero diagonal."""
    n, rows = len(vectors), []
    for start in range(0, n, BLOCK):
        similarity = vectors[start : start + BLOCK] @ vectors.T
        at = np.arange(len(similarity))
        similarity[at, start + at] = 0
        keep = min(k, n - 1)
        if keep > 0:
            threshold = -np.partition(-similarity, keep - 1, axis=1)[:, keep - 1 : keep]
            similarity[similarity < threshold] = 0
        rows.append(keep_largest(sparse.csr_matrix(np.maximum(similarity, 0)), max(keep, 0)))
    graph = sparse.vstack(rows).tocsr() if rows else sparse.csr_matrix((0, 0), dtype=np.float32)
    return graph.maximum(graph.T).tocsr().astype(np.float32)


def with_graphs(inputs: Inputs) -> Inputs:
    """The same with the nearest-neighbour graph of each modality, so that each is built once for all models."""
    missing = sorted(inputs.content.keys() - inputs.graphs.keys())
    graphs = {m: nearest_graph(centred(inputs.content[m]), GRAPH_NEIGHBOURS) for m in missing}
    return replace(inputs, graphs=graphs | inputs.graphs) if missing else inputs


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
    parts = [normalized(g) for _, g in sorted(with_graphs(inputs).graphs.items())]
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
