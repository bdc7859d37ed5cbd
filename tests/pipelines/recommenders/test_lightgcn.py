"""LightGCN: its gradient, what it learns."""

from dataclasses import replace

import numpy as np
import torch
from scipy import sparse

from pipelines.recommenders.base import Inputs
from pipelines.recommenders.lightgcn import LightGCN
from pipelines.recommenders.ranking import PASS_USERS
from tests.worlds import ITEMS, USERS


def test_lightgcn_gradient_is_that_of_the_softmax(inputs: Inputs) -> None:
    """Against automatic differentiation of the loss written out."""
    torch.manual_seed(0)
    liked = (inputs.positives > 0).astype(np.float32).tocsr()
    batch, model = np.array([1, 2, 9, PASS_USERS + 3]), LightGCN(dim=8)
    vectors = torch.randn(USERS + ITEMS, 8, dtype=torch.float64)
    units = torch.nn.functional.normalize(vectors, dim=1).requires_grad_()
    logit = units[batch] @ units[USERS:].T / model.temperature
    goal = torch.from_numpy(liked[batch].toarray())
    length = goal.sum(1)
    weight = length ** (1 - model.activity)
    loss = (logit.logsumexp(1) - (goal * logit).sum(1) / length) * weight / weight.sum()
    loss.sum().backward()
    found = model._slope(units.detach().float(), USERS, liked[batch], batch)
    assert units.grad is not None
    assert torch.allclose(found.double(), units.grad, atol=1e-5)


def test_lightgcn_learns_taste_and_repeats_itself(inputs: Inputs) -> None:
    model = LightGCN(dim=16).fit(inputs)
    everyone = np.arange(USERS)
    scores = model.score(inputs, everyone)
    same = (np.arange(ITEMS) % 4)[None] == (np.arange(USERS) % 4)[:, None]
    unseen = inputs.positives.toarray() == 0
    unseen[5] = False
    assert scores[same & unseen].mean() > scores[~same & unseen].mean() + 0.2
    theirs = np.arange(USERS) % 4 == 3
    assert scores[theirs, 7].mean() > scores[~theirs, 7].mean() + 0.2, "content carries an item that nobody has met"
    assert np.array_equal(LightGCN(dim=16).fit(inputs).score(inputs, everyone), scores)
    assert np.array_equal(LightGCN().restore(model.state(), inputs).score(inputs, everyone), scores)
    empty = replace(inputs, positives=sparse.csr_matrix((USERS, ITEMS), dtype=np.float32))
    assert np.isfinite(LightGCN(dim=16).fit(empty).score(empty, everyone)).all()
