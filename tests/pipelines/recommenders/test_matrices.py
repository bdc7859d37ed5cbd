"""Sparse products, largest entries, singular vectors."""

import numpy as np
import torch
from scipy import sparse

from pipelines.recommenders.matrices import OnDevice, keep_largest, right_directions


def test_products_on_a_device_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    matrix = sparse.random(50, 30, 0.1, format="csr", rng=rng, dtype=np.float32)
    matrix = (sparse.diags_array((np.arange(50) % 3 > 0).astype(np.float32)) @ matrix).tocsr()  # some rows are empty
    for width in (1, 7, 32):
        dense = rng.normal(size=(30, width)).astype(np.float32)
        assert np.allclose((OnDevice(matrix, "cpu") @ torch.from_numpy(dense)).numpy(), matrix @ dense, atol=1e-6)
    nothing = sparse.csr_matrix((4, 30), dtype=np.float32)
    assert not (OnDevice(nothing, "cpu") @ torch.ones(30, 2)).any()


def test_leading_directions_are_those_of_the_svd() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(80, 4)) * [9, 6, 4, 2]) @ rng.normal(size=(4, 50)) + 0.01 * rng.normal(size=(80, 50))
    exact = np.linalg.svd(matrix)[2][:4].T
    found = right_directions(sparse.csr_matrix(matrix.astype(np.float32)), 4)
    assert np.allclose(np.abs((exact * found).sum(0)), 1, atol=1e-3)
    assert (found[np.abs(found).argmax(0), np.arange(4)] > 0).all()


def test_keep_largest_by_hand() -> None:
    m = sparse.csr_matrix(np.array([[1.0, 5, 3], [0, 0, 0], [2, 2, 2]]))
    assert keep_largest(m, 2).toarray().tolist() == [[0, 5, 3], [0, 0, 0], [2, 2, 0]]
