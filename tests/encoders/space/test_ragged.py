"""Lists of different lengths as two arrays, by hand."""

import numpy as np

from encoders.space.ragged import Ragged

LISTS = Ragged.of([[5, 6, 7], [], [8]])


def as_lists(ragged: Ragged) -> list[list[int]]:
    return [part.tolist() for part in ragged]


def test_lists_come_back_as_they_went_in() -> None:
    assert (LISTS.bounds.tolist(), LISTS.values.tolist()) == ([0, 3, 3, 4], [5, 6, 7, 8])
    assert as_lists(LISTS) == [[5, 6, 7], [], [8]]
    assert [LISTS[i].tolist() for i in range(len(LISTS))] == as_lists(LISTS)
    assert (len(Ragged.of([])), as_lists(Ragged.of([]))) == (0, [])


def test_values_are_grouped_by_their_owner() -> None:
    assert as_lists(Ragged.grouped(np.array([0, 0, 2]), np.array([1, 2, 3]), 4)) == [[1, 2], [], [3], []]


def test_owner_place_and_length_of_each_value() -> None:
    assert LISTS.lengths.tolist() == [3, 0, 1]
    assert LISTS.owner.tolist() == [0, 0, 0, 2]
    assert LISTS.place.tolist() == [0, 1, 2, 0]


def test_some_lists_in_another_order() -> None:
    assert as_lists(LISTS.take(np.array([2, 0, 2]))) == [[8], [5, 6, 7], [8]]
    assert as_lists(LISTS.take(np.array([], int))) == []


def test_the_last_entries_of_each_list() -> None:
    assert as_lists(LISTS.latest(2)) == [[6, 7], [], [8]]
    assert as_lists(LISTS.latest(9)) == as_lists(LISTS)


def test_slices() -> None:
    assert as_lists(LISTS[1:]) == [[], [8]]
    assert as_lists(LISTS[:1]) == [[5, 6, 7]]
    assert as_lists(LISTS[2:1]) == []
