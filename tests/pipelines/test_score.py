"""Lists, ids and what serves: by hand."""

import hashlib
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from encoders.space.ragged import Ragged
from pipelines.learning.reasons import Space
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.blend.transfer import Transfer
from pipelines.score import Loaded, candidates, recommendation_id, scored, served
from tests.toy import Fixed

DAY = date(2026, 3, 10)


@pytest.fixture
def night() -> Loaded:
    positives = sparse.csr_matrix(np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]], np.float32))
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    inputs = Inputs(positives, histories=Ragged.of([[], [0], []]), has_signal=np.array([False, True, True]))
    space = Space(vectors, {"text": vectors}, {"text": np.array([1, 0.75, 1], np.float32)})
    liked = np.array([True, False, False])
    return Loaded(inputs, np.array(["*", "u", "z"]), np.array(["a", "b", "c"]), positives, liked, space, [])


def test_an_id_is_the_same_for_the_same_night_model_user_and_item() -> None:
    expected = hashlib.sha256(b"2026-03-10|hybrid|u|a").hexdigest()[:20]
    assert recommendation_id(DAY, "hybrid", "u", "a") == expected
    others = {
        recommendation_id(date(2026, 3, 11), "hybrid", "u", "a"),
        recommendation_id(DAY, "ease", "u", "a"),
        recommendation_id(DAY, "hybrid", "v", "a"),
        recommendation_id(DAY, "hybrid", "u", "b"),
    }
    assert len({expected, *others}) == 5


LISTS = (np.array([[2, 1], [1, -1]]), np.array([[0.9, 0.5], [0.25, -np.inf]], np.float32))


def test_lists_become_rows_and_end_where_nothing_is_left(night: Loaded) -> None:
    rows = candidates(night, np.array([0, 1]), "ease", *LISTS).to_pylist()
    assert [(r["model"], r["user_id"], r["rank"], r["item_id"], r["score"]) for r in rows] == [
        ("ease", "*", 1, "c", pytest.approx(0.9)),
        ("ease", "*", 2, "b", 0.5),
        ("ease", "u", 1, "b", 0.25),
    ]


def test_served_rows_have_an_id_and_a_reason(night: Loaded) -> None:
    users = np.array([0, 1])
    rows = candidates(night, users, "ease", *LISTS)
    table = served(night, users, DAY, rows, LISTS[0]).to_pylist()
    assert [r["recommendation_id"] for r in table] == [
        recommendation_id(DAY, "ease", u, i) for u, i in ("*c", "*b", "ub")
    ]
    assert [r["arm"] for r in table] == ["default"] * 3
    assert [(r["reason_code"], r["reason_item_ids"]) for r in table] == [
        ("new", []),
        ("new", []),
        ("similar_to_history", ["a"]),
    ]
    assert [(r["reason_modality"], r["reason_attention"]) for r in table] == [(None, None)] * 2 + [("text", 0.75)]


def test_a_user_with_uploads_alone_is_told_so(night: Loaded) -> None:
    users, lists = np.array([2]), (np.array([[0, 1]]), np.array([[1.0, 0.5]], np.float32))
    table = served(night, users, DAY, candidates(night, users, "m", *lists), lists[0])
    assert table["reason_code"].to_pylist() == ["similar_to_uploads"] * 2
    assert table.schema.field("reason_item_ids").type == pa.list_(pa.string())


def test_the_hybrid_reads_the_signals_of_the_others_once(night: Loaded) -> None:
    asked: list[str] = []

    class Counted(Fixed):
        def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
            asked.append(self.name)
            return super().score(inputs, users)

    class Chances(Counted, Transfer):
        pass

    one, two = Counted("one", [[1, 2, 3]] * 3), Chances("transfer", [[0, 0.5, 0.5]] * 3)
    hybrid = Hybrid(facts=False).given({"one": one, "transfer": two})
    weights = np.array([2.0, 0.0], np.float32)
    hybrid.channels_of = {"warm": weights, "cold": weights}
    hybrid.prior = {s: np.array([0, 0, 1], np.float32) for s in ("warm", "cold")}
    found = {
        name: (scores, chances) for name, scores, chances in scored([one, two, hybrid], night.inputs, np.arange(2))
    }
    assert asked == ["one", "transfer"]
    assert found["one"][1] is None
    assert found["hybrid"][1] is not None
    assert found["hybrid"][1].tolist() == [[0, 0.5, 0.5]] * 2, "new items are ranked by their chances"
    z = (np.array([1, 2, 3]) - 2) / np.sqrt(2 / 3)
    assert found["hybrid"][0][0].tolist() == pytest.approx((2 * z + [0, 0, 1]).tolist())


def test_without_transfer_new_items_are_ranked_by_the_hybrids_own_scores(night: Loaded) -> None:
    one = Fixed("one", [[1, 2, 3]] * 3)
    hybrid = Hybrid(facts=False).given({"one": one})
    hybrid.channels_of = {s: np.ones(1, np.float32) for s in ("warm", "cold")}
    hybrid.prior = {s: np.zeros(3, np.float32) for s in ("warm", "cold")}
    *_, (name, scores, chances) = scored([one, hybrid], night.inputs, np.arange(3))
    assert name == "hybrid"
    assert chances is scores
