"""What follows what, by hand."""

import numpy as np
import pytest
from scipy import sparse

from encoders.space.ragged import Ragged
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.sequential import Sequential


def of(*histories: list[int], items: int = 3) -> Inputs:
    rows = Ragged.of(histories)
    positives = sparse.csr_matrix((np.ones(len(rows.values)), rows.values, rows.bounds), shape=(len(rows), items))
    return Inputs(positives.astype(np.float32), histories=rows)


def test_a_rule_counts_by_its_distance_and_both_popularities() -> None:
    """0, 1, 2: 0 is followed by 1 after one step and by 2 after two; sums of rows 1.5, 1 and of columns 1, 1.5."""
    rules = Sequential(window=2).fit(of([0, 1, 2])).rules.toarray()
    assert rules[0].tolist() == pytest.approx([0, 1 / np.sqrt(1.5), 0.5 / 1.5])
    assert rules[1].tolist() == pytest.approx([0, 0, 1 / np.sqrt(1.5)])
    assert rules[2].tolist() == [0, 0, 0], "nothing follows, and nothing leads back"


def test_steps_end_at_the_window_and_at_the_end_of_a_history() -> None:
    assert Sequential(window=1).fit(of([0, 1, 2])).rules.nnz == 2
    assert Sequential(window=5).fit(of([0, 1], [2, 0])).rules.toarray().astype(bool).tolist() == [
        [False, True, False],
        [False, False, False],
        [True, False, False],
    ]


def test_an_item_does_not_follow_itself() -> None:
    assert Sequential().fit(of([0, 0, 1])).rules.toarray().diagonal().tolist() == [0, 0, 0]


def test_the_latest_item_counts_most_and_old_ones_nothing() -> None:
    inputs = of([0, 1, 2], [0, 1])
    model = Sequential(window=2, recent=2).fit(of([0, 1, 2]))
    rules = model.rules.toarray()
    assert model.score(inputs, np.array([1]))[0].tolist() == pytest.approx((0.5 * rules[0] + rules[1]).tolist())
    latest = Sequential(window=2, recent=1).fit(of([0, 1, 2]))
    assert latest.score(inputs, np.array([1]))[0].tolist() == pytest.approx(rules[1].tolist())
    assert latest.score(inputs, np.array([0]))[0].tolist() == [0, 0, 0], "nothing ever followed item 2"


def test_without_histories_there_is_nothing_to_say() -> None:
    empty = of([], [0])
    assert Sequential().fit(empty).score(empty, np.array([0, 1])).tolist() == [[0, 0, 0]] * 2
