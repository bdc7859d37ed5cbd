"""Settings: judged by their own lists, changed only where the gain is sure."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from benchmarks.accuracy import NAMES
from pipelines.recommenders.base import Inputs, Recommender, Validation
from pipelines.recommenders.ranking import ndcg_of
from pipelines.recommenders.registry import classes
from pipelines.search import judges, search_one


@pytest.mark.parametrize("kind", [k for k in classes().values() if k.grid and k.name in NAMES])
def test_a_search_judges_every_setting_by_its_own_lists(inputs: Inputs, kind: type[Recommender]) -> None:
    liked = inputs.positives.toarray()
    hidden = (np.random.default_rng(2).random(liked.shape) < 0.3) & (liked > 0)
    past = replace(inputs, positives=sparse.csr_matrix(np.where(hidden, 0, liked)))
    wanted = sparse.csr_matrix(hidden.astype(np.float32))
    validation = Validation(0, past, wanted, past.positives, 10)
    _, tried, _ = search_one(kind, validation)
    users = judges(validation)
    for trial, settings in zip(tried, ({}, *kind.grid), strict=True):
        scores = kind(**settings).fit(past).score(past, users)
        alone = ndcg_of(scores, wanted[users], past.positives[users], 10, "cpu").mean()
        assert trial["ndcg"] == pytest.approx(alone, abs=1e-5), settings
