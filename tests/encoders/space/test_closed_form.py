"""Maps without training."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from encoders.settings import FusionKind
from encoders.space import closed_form
from encoders.space.alignment import load_aligner, train_aligner
from encoders.space.closed_form import MAPS
from encoders.space.fusion import fuse_items
from encoders.space.ragged import Ragged
from tests.worlds import SETTINGS, N, World


def test_ridge_learns_taste_that_content_shows(world: World) -> None:
    """Two of four groups share their users: the ridge space must join them, a space of content alone must not."""
    features, _, group = world
    rng = np.random.default_rng(3)
    histories = [rng.permutation(np.flatnonzero(group % 2 == u % 2))[:15] for u in range(80)]

    def apart(kind: FusionKind) -> float:
        model = load_aligner(*train_aligner(features, histories, replace(SETTINGS, kind=kind)))
        vectors = fuse_items(model, features).vector[features["text"].present | features["image"].present]
        mine = group[features["text"].present | features["image"].present]
        alike = vectors @ vectors.T
        return float(alike[mine == 0][:, mine == 2].mean() - alike[mine == 0][:, mine == 1].mean())

    assert apart("ridge") > 0.5
    assert apart("ridge") > apart("procrustes") + 0.3


def test_ridge_regression_is_the_same_in_blocks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    features, histories = world[0], Ragged.of(world[1])
    whole = MAPS["ridge"](features, histories, 16, np.arange(N))
    monkeypatch.setattr(closed_form, "BLOCK", 7)
    for m, found in MAPS["ridge"](features, histories, 16, np.arange(N)).items():
        assert np.allclose(found.matrix, whole[m].matrix, atol=1e-6)
        assert np.allclose(found.mean, whole[m].mean)


@pytest.mark.parametrize("shape", [(30, 80), (200, 60), (90, 90)])
def test_leading_directions_are_those_of_a_full_decomposition(shape: tuple[int, int]) -> None:
    """Ten directions stand out of noise; where all fit, the small ones are exact as well."""
    rng = np.random.default_rng(1)
    strong = rng.standard_normal((shape[0], 10)) @ rng.standard_normal((10, shape[1]))
    matrix = sparse.csr_matrix(strong + 0.1 * rng.standard_normal(shape))
    _, values, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
    for k in (10, min(shape) - 1):
        found, axes = closed_form._leading(matrix, k)
        assert np.allclose(found, values[:k], rtol=2e-3)
        assert np.allclose(np.abs(np.sum(axes[:, :10] * right[:10].T, 0)), 1, atol=1e-4)
        assert np.allclose(axes.T @ axes, np.eye(k), atol=1e-8)


def test_rows_of_a_matrix_go_by_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = sparse.random(50, 20, 0.3, format="csr", random_state=0)
    axes = np.eye(20)[:, :4]
    expected = matrix.toarray().T @ matrix.toarray() @ axes
    for rows in (7, 50, 1000):
        monkeypatch.setattr(closed_form, "ROWS", rows)
        assert np.allclose(closed_form._gram_times(matrix, axes), expected)


def test_factors_of_a_log_by_hand() -> None:
    """Two users who like items 0 and 1, one who likes item 2; nobody likes item 3: two tastes at right angles."""
    factors = closed_form._collaborative(Ragged.of([[0, 1], [1, 0], [2]]), 4, 2)
    assert np.allclose(np.abs(factors), [[1, 0], [1, 0], [0, 1], [0, 0]], atol=1e-6)
    assert np.allclose(factors[0], factors[1])
