"""Places of lists by rules and wishes: by hand."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from pipelines.night.placing import Places, behind, capped, held_of, pinned
from pipelines.sections import Rules
from tests.lakes import at, rows_of

MEMBERS = sparse.csr_matrix(np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 0], [0, 0]], np.float32))
RANKED = np.array([[0, 1, 2, 3, 4, 5]] * 2)
SCORES = np.array([[6, 5, 4, 3, 2, 1]] * 2, np.float32)


def places(at_most: list[float], less: list[list[int]] | None = None, **more: dict[int, int]) -> Places:
    unwanted = sparse.csr_matrix(np.array(less or [[0, 0]] * 2, np.float32))
    return Places(MEMBERS, np.array(at_most), unwanted, **more)


@pytest.mark.parametrize(
    ("at_most", "less", "lists"),
    [
        ([np.inf, np.inf], None, [[0, 1, 2, 3]] * 2),
        ([1, np.inf], None, [[0, 3, 4, 5]] * 2),
        ([2, 1], None, [[0, 1, 3, 4]] * 2),
        ([np.inf, np.inf], [[1, 0], [0, 1]], [[0, 3, 4, 5], [0, 1, 2, 4]]),
        ([0, 0], None, [[4, 5, -1, -1]] * 2),
    ],
)
def test_no_group_has_more_places_than_it_may(
    at_most: list[float], less: list[list[int]] | None, lists: list[list[int]]
) -> None:
    """Less of the first group: of three places one is left. Of the second: of two, 2 and 3, one."""
    found, scores = capped(RANKED, SCORES, places(at_most, less), np.arange(2), 4)
    assert found.tolist() == lists
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    assert scores[0][found[0] >= 0].tolist() == [float(6 - i) for i in found[0] if i >= 0]


def test_behind_a_list_comes_what_else_is_ranked() -> None:
    lists = np.array([[0, 5]]), np.array([[6, 1]], np.float32)
    ranked, scores = behind(lists, (RANKED[:1], SCORES[:1]))
    assert ranked.tolist() == [[0, 5, -1, 1, 2, 3, 4, -1]]
    found, values = capped(ranked, scores, places([1, 1]), np.array([0]), 3)
    assert found.tolist() == [[0, 3, 5]], "by their scores, whatever place they had"
    assert values.tolist() == [[6, 3, 1]]


def test_pinned_items_have_their_places() -> None:
    forbidden = sparse.csr_matrix(np.array([[0] * 6, [0, 0, 0, 0, 1, 0]], np.float32))
    fixed = places([np.inf] * 2, pinned={0: 4, 2: 0})
    lists, scores, at_places = pinned(RANKED[:, :4], SCORES[:, :4], fixed, forbidden, np.ones(6, bool))
    assert lists.tolist() == [[4, 1, 0, 2], [1, 2, 0, 3]], "the second user hides 4"
    assert at_places.tolist() == [[True, False, True, False], [False, False, True, False]]
    assert (np.diff(scores, axis=1) <= 0).all()
    none = pinned(RANKED[:, :4], SCORES[:, :4], fixed, forbidden, np.zeros(6, bool))
    assert none[0].tolist() == RANKED[:, :4].tolist(), "what is not available is not pinned"
    short = np.array([[1, -1, -1, -1]]), np.array([[5, -np.inf, -np.inf, -np.inf]], np.float32)
    assert pinned(*short, fixed, forbidden[:1], np.ones(6, bool))[0].tolist() == [[4, 1, 0, -1]]


def test_pinned_items_count_among_those_that_a_group_may_have() -> None:
    """The first group has 0, 1, 2 and may have one place: 1 is pinned to the second, so 0 and 2 stay out.

    The second user hides 1 and has the group's best item, 0.
    """
    forbidden = sparse.csr_matrix(np.array([[0] * 6, [0, 1, 0, 0, 0, 0]], np.float32))
    ruled = places([1, np.inf], pinned={1: 1})
    held = held_of(ruled, forbidden, np.ones(6, bool))
    assert held.tolist() == [[True], [False]]
    ranked = np.where(forbidden.toarray() > 0, -1, RANKED)
    lists = capped(ranked, SCORES, ruled, np.arange(2), 3, held=held)
    assert lists[0].tolist() == [[3, 4, 5], [0, 3, 4]]
    assert pinned(*lists, ruled, forbidden, np.ones(6, bool))[0].tolist() == [[3, 1, 4], [0, 3, 4]]
    assert held_of(ruled, forbidden, np.arange(6) != 1).tolist() == [[False], [False]], "it is not available"


def test_rules_and_wishes_of_a_night() -> None:
    items = rows_of(
        "std_items",
        [{"item_id": "a", "categories": ["sea"], "tags": ["blue"], "domain": "x"}, {"item_id": "b", "tags": ["blue"]}],
    )
    wishes = [
        {"user_id": "u", "target": t, "value": v, "wish": w}
        for t, v, w in (("category", "sea", "less"), ("tag", "blue", "more"), ("tag", "gone", "less"))
    ]
    controls = rows_of("std_controls", [w | {"created_at": at(1), "source": "s"} for w in wishes])
    users = pa.array(["*", "u"])
    found = Places.of(items, controls, users, Rules(at_most={"domain": 2}, pinned={3: "b", 1: "gone"}))
    assert found.members.toarray().tolist() == [[1, 1], [0, 0]], "category sea, domain x; nothing limits tag blue"
    assert found.at_most.tolist() == [np.inf, 2]
    assert found.unwanted.toarray().tolist() == [[0, 0], [1, 0]]
    assert found.pinned == {2: 1}
    assert found.limits
    free = Places.of(items, controls.slice(0, 0), users, Rules())
    assert (free.limits, free.members.shape, free.unwanted.shape) == (False, (2, 0), (2, 0))
