"""Reasons worked out by hand."""

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from encoders.space.ragged import Ragged
from pipelines.learning import reasons
from pipelines.learning.reasons import Shared, Space, Speakers, explain, in_words

A, B, AB = (1.0, 0.0), (0.0, 1.0), (0.6, 0.8)
#             0  1  2   3  4 (no content)
CENTRED = np.array([A, B, AB, A, (0, 0)], np.float32)


def space(**attention: list[float]) -> Space:
    text = np.array([A, B, A, B, (0, 0)], np.float32)
    image = np.array([A, B, AB, A, (0, 0)], np.float32)
    shares = {m: np.array(v, np.float32) for m, v in attention.items()}
    return Space(CENTRED, {"text": text, "image": image}, shares)


HALF = {"text": [0.5] * 5, "image": [0.5] * 5}
LIKED = np.array([True, True, True, False, False])
LIKES = sparse.csr_matrix(np.array([[1, 1, 0, 0, 0]], np.float32))


def test_the_nearest_history_items_speak_for_an_item() -> None:
    found = explain(space(**HALF), Ragged.of([[0, 1]]), np.array([True]), LIKED, np.array([[2, 3]]))
    assert found.code.tolist() == [["similar_to_history"] * 2]
    assert found.history[0, 0].tolist() == [1, 0, -1], "cosines .8 and .6"
    assert found.history[0, 1].tolist() == [0, -1, -1], "the cosine to item 1 is 0, below the threshold"


def test_attention_times_cosine_picks_the_modality() -> None:
    """Item 2 and item 0: text cosine 1, image cosine .6."""

    def modality(text: float) -> tuple[str, Any]:
        shares = {"text": [text] * 5, "image": [1 - text] * 5}
        found = explain(space(**shares), Ragged.of([[0]]), np.array([True]), LIKED, np.array([[2]]))
        return found.modality[0, 0], pytest.approx(float(found.attention[0, 0]))

    assert modality(0.4) == ("text", 0.4), ".4 x 1 against .6 x .6"
    assert modality(0.3) == ("image", 0.7), ".3 x 1 against .7 x .6"
    assert modality(0.36) == ("image", 0.64), ".36 x 1 against .64 x .6; sums would say text"


def test_where_nothing_speaks_an_item_is_new_or_popular() -> None:
    """Item 3 nobody has liked, item 4 neither and it is like nothing; item 0 is liked."""
    histories, signal = Ragged.of([[1], [], []]), np.array([True, False, True])
    found = explain(space(**HALF), histories, signal, LIKED, np.array([[0, 3, 4]] * 3))
    assert found.code[0].tolist() == ["popular", "new", "new"], "a history that is like none of them"
    assert found.code[1].tolist() == ["popular", "new", "new"], "no history"
    assert found.code[2].tolist() == ["similar_to_uploads"] * 3, "uploads alone"
    assert (found.history == -1).all()
    assert (found.modality == "").all()


def test_only_the_latest_items_are_reasons_and_ties_go_to_the_lower_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons, "HISTORY", 2)
    found = explain(space(**HALF), Ragged.of([[1, 3, 0]]), np.array([True]), LIKED, np.array([[2, -1]]))
    assert found.history[0, 0].tolist() == [0, 3, -1], "item 1 is too long ago; 0 and 3 are the same vector"


def test_blocks_of_users_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    histories, items = Ragged.of([[0], [1, 2], []]), np.array([[2, 3], [0, 3], [1, 4]])
    signal = np.array([True, True, False])
    whole = explain(space(**HALF), histories, signal, LIKED, items)
    monkeypatch.setattr(reasons, "BLOCK_NUMBERS", 1)
    parts = explain(space(**HALF), histories, signal, LIKED, items)
    for name in ("code", "history", "modality", "attention"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name


def test_the_last_fifty_items_of_a_history_can_be_reasons() -> None:
    for length, expected in ((49, "similar_to_history"), (50, "popular")):
        history = [0] + [1] * length  # item 0 is the only one that is like item 3, item 1 has a cosine of 0
        found = explain(space(**HALF), Ragged.of([history]), np.array([True]), np.ones(5, bool), np.array([[3]]))
        assert found.code[0, 0] == expected, length


def speakers(*parts: tuple[float, list[list[float]]], feedback: list[list[float]]) -> Speakers:
    """Models over history items 0, 1, 2 and listed items 3, 4."""
    arrays = [(weight, np.array(likeness, np.float32)) for weight, likeness in parts]
    return Speakers(np.array([0, 1, 2]), np.array([3, 4]), arrays, sparse.csr_matrix(np.array(feedback, np.float32)))


def test_what_models_make_of_a_history_by_their_weights() -> None:
    """Likeness counts by ratio to what a usual history item says: 2 of item 3 to both models, 1 of item 4."""
    said = speakers(
        (3.0, [[3, 0], [1, 0], [2, 3]]), (1.0, [[0, 1], [2, -5], [4, 2]]), feedback=[[1, 1, 0, 0, 0], [2, 0, 0, 0, 0]]
    )
    found = said.influence(slice(0, 1), np.array([[0, 1]]), np.array([[3, 4]]))
    first, second = 3 * 3 / 2, 3 * 1 / 2 + 2 / 2
    assert found[0, 0].tolist() == pytest.approx([first / (first + second), second / (first + second)])
    assert found[0, 1].tolist() == [1, 0], "less than nothing is nothing"
    padded = said.influence(slice(1, 2), np.array([[-1, 0]]), np.array([[3, 4]]))
    assert padded[0].tolist() == [[0, 1], [0, 1]], "one item, of which one model speaks for each"


def test_strong_feedback_says_more() -> None:
    said = speakers((1.0, [[1, 1], [1, 1], [0, 0]]), feedback=[[3, 1, 0, 0, 0]])
    found = said.influence(slice(0, 1), np.array([[0, 1]]), np.array([[3]]))
    assert found[0, 0].tolist() == pytest.approx([0.75, 0.25])


def test_who_says_most_is_named_with_its_share() -> None:
    """By cosine item 1 would be nearest to item 2; by what the model makes of them it is item 0."""
    model = Speakers(np.array([0, 1]), np.array([2, 4]), [(1.0, np.array([[4, 0], [1, 0]], np.float32))], LIKES)
    found = explain(space(**HALF), Ragged.of([[0, 1]]), np.array([True]), LIKED, np.array([[2, 4]]), model)
    assert found.history[0, 0].tolist() == [0, 1, -1]
    assert found.effect[0].tolist() == [1.0, 0.0], "all that is said is named; nothing speaks for item 4"
    assert found.code[0].tolist() == ["similar_to_history", "new"]
    plain = explain(space(**HALF), Ragged.of([[0, 1]]), np.array([True]), LIKED, np.array([[2, 4]]))
    assert plain.history[0, 0].tolist() == [1, 0, -1]


def test_for_an_item_that_nobody_has_liked_only_what_is_like_it_speaks() -> None:
    """Models speak for item 3 by both history items; it is like item 0 and not like item 1."""
    model = Speakers(np.array([0, 1]), np.array([3]), [(1.0, np.array([[1], [5]], np.float32))], LIKES)

    def named(history: list[int], liked: np.ndarray) -> tuple[str, list[int]]:
        found = explain(space(**HALF), Ragged.of([history]), np.array([True]), liked, np.array([[3]]), model)
        return found.code[0, 0], found.history[0, 0].tolist()

    assert named([0, 1], LIKED) == ("similar_to_history", [0, -1, -1])
    assert named([1], LIKED) == ("new", [-1, -1, -1])
    assert named([0, 1], np.ones(5, bool)) == ("similar_to_history", [1, 0, -1]), "somebody has liked it"


def test_effect_is_the_share_of_the_named_among_all_that_speak() -> None:
    likeness = np.array([[4], [3], [2], [1]], np.float32)
    model = Speakers(np.array([0, 1, 2, 3]), np.array([4]), [(1.0, likeness)], sparse.csr_matrix(np.ones((1, 5))))
    everything = np.ones(5, bool)
    found = explain(space(**HALF), Ragged.of([[0, 1, 2, 3]]), np.array([True]), everything, np.array([[4]]), model)
    assert found.history[0, 0].tolist() == [0, 1, 2]
    assert found.effect[0, 0] == pytest.approx(0.9)


def test_what_pairs_of_items_share() -> None:
    """Of four items 0 and 2, and 3 and 1, in this direction."""
    known = Shared(4, np.array([2, 13]), np.array(["directed_by Lee", "starring Kim"], object))
    one, other = np.array([0, 2, 3, -1, 3]), np.array([2, 0, 1, 2, 3])
    assert known.of(one, other) == ["directed_by Lee", None, "starring Kim", None, None]
    assert Shared.nothing().of(one, other) == [None] * 5
    row = {"reason_code": "similar_to_history", "reason_value": "directed_by Lee", "reason_modality": "text"}
    assert in_words(row, ["Heat"]) == "like Heat, both directed by Lee, by text"
    assert in_words(row | {"reason_value": None}, ["Heat"]) == "like Heat, by text"
