"""Maps without training."""

from dataclasses import replace

import numpy as np
import pytest

from encoders.settings import FusionKind
from encoders.space import closed_form
from encoders.space.alignment import load_aligner, train_aligner
from encoders.space.closed_form import MAPS
from encoders.space.fusion import fuse_items
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
    features, histories, _ = world
    whole = MAPS["ridge"](features, histories, 16, np.arange(N))
    monkeypatch.setattr(closed_form, "BLOCK", 7)
    for m, found in MAPS["ridge"](features, histories, 16, np.arange(N)).items():
        assert np.allclose(found.matrix, whole[m].matrix, atol=1e-6)
        assert np.allclose(found.mean, whole[m].mean)
