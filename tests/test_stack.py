"""Graph filter, item facts, stacking and the accuracy benchmark: right answers by construction or by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from benchmarks.accuracy import NAMES, Contest, judged, load_split
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.content import GRAPH_NEIGHBOURS, centred, nearest_graph
from pipelines.recommenders.graph import BLOCK, GraphFilter
from pipelines.recommenders.hybrid import SURE, Hybrid
from pipelines.recommenders.stack import ItemFacts, Stack, combined, logarithm, right_directions
from tests.conftest import unit

USERS, ITEMS = BLOCK + 40, 60


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """Users of four tastes; content says the taste; one user and one item without any event."""
    rng = np.random.default_rng(0)
    taste = np.arange(ITEMS) % 4
    likes = rng.random((USERS, ITEMS)) < np.where(taste[None] == (np.arange(USERS) % 4)[:, None], 0.2, 0.01)
    likes[5], likes[:, 7] = False, False
    vectors = unit(rng, 4, 24)[taste] + 0.5 * unit(rng, ITEMS, 24)
    content = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return Inputs(sparse.csr_matrix(likes.astype(np.float32)), {"image": content})


def dense_filter(inputs: Inputs, order: int, weight: float, exponent: float) -> np.ndarray:
    x = inputs.positives.toarray().astype(np.float64)
    user, item = (np.maximum(x.sum(a), 1e-300) for a in (1, 0))
    user, item = np.where(x.sum(1) > 0, user, 1), np.where(x.sum(0) > 0, item, 1)
    r = x / np.sqrt(user)[:, None] / np.sqrt(item)[None]
    c = nearest_graph(centred(inputs.content["image"]), GRAPH_NEIGHBOURS).toarray().astype(np.float64)
    degree = np.where(c.sum(1) > 0, c.sum(1), 1)
    p = r.T @ r + weight * c / np.sqrt(degree)[:, None] / np.sqrt(degree)[None]
    damped = (x / np.sqrt(user)[:, None]).sum(0)
    return r @ np.linalg.matrix_power(p, order) * (1 + damped) ** exponent


@pytest.mark.parametrize("order", [1, 3])
def test_graph_filter_by_hand(inputs: Inputs, order: int) -> None:
    model = GraphFilter(order, 0.3, 0.5).fit(inputs)
    scores = model.score(inputs, np.arange(USERS))
    assert np.allclose(scores, dense_filter(inputs, order, 0.3, 0.5), atol=1e-5)
    again = GraphFilter(order, 0.3, 0.5).restore(model.state())
    some = np.array([3, BLOCK + 1, 5])
    assert np.allclose(again.score(inputs, some), scores[some], atol=1e-6), "users do not depend on their block"
    assert not scores[5].any(), "no history, nothing to say"
    assert scores[:, 7].any(), "content carries an item that nobody has met"


def test_given_graphs_count_like_those_of_vectors(inputs: Inputs) -> None:
    graph = nearest_graph(centred(inputs.content["image"]), GRAPH_NEIGHBOURS)
    given = Inputs(inputs.positives, graphs={"image": graph})
    users = np.arange(20)
    assert np.allclose(GraphFilter().fit(given).score(given, users), GraphFilter().fit(inputs).score(inputs, users))


def test_facts_are_scaled_repeatable_and_carry_over(inputs: Inputs) -> None:
    facts = ItemFacts()
    found = facts.fit_transform(inputs)
    assert np.isfinite(found).all()
    assert np.array_equal(facts.transform(inputs), found)
    assert len(found) == ITEMS
    assert np.array_equal(ItemFacts().fit_transform(inputs), found)
    later = inputs.positives.copy().tolil()
    later[0, :10] = 1
    moved = facts.transform(Inputs(later.tocsr().astype(np.float32), inputs.content))
    assert moved.shape == found.shape
    per_item = [np.corrcoef(a, b)[0, 1] for a, b in zip(moved, found, strict=True)]
    assert np.median(per_item) > 0.95, "a few more events move the facts little"


def test_leading_directions_are_those_of_the_svd() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(80, 4)) * [9, 6, 4, 2]) @ rng.normal(size=(4, 50)) + 0.01 * rng.normal(size=(80, 50))
    exact = np.linalg.svd(matrix)[2][:4].T
    found = right_directions(sparse.csr_matrix(matrix.astype(np.float32)), 4)
    assert np.allclose(np.abs((exact * found).sum(0)), 1, atol=1e-3)
    assert (found[np.abs(found).argmax(0), np.arange(4)] > 0).all()


def test_logarithm_ignores_the_scale_of_a_row() -> None:
    scores = np.array([[0, 1, 3], [0, 10, 30], [0, 0, 0]], np.float32)
    found = logarithm(scores)
    assert np.allclose(found[0], found[1])
    assert np.ptp(found[2]) == 0


def test_stack_finds_the_weights_that_made_the_choices() -> None:
    rng = np.random.default_rng(0)
    users, items = 3000, 40
    channels = [rng.normal(size=(users, items)).astype(np.float32) for _ in range(2)]
    facts = rng.normal(size=(items, 3)).astype(np.float32)
    true, of_facts = np.array([1.0, -0.5]), np.array([0.8, 0.0, -0.4], np.float32)
    seen = sparse.csr_matrix((rng.random((users, items)) < 0.2).astype(np.float32))
    logit = combined(channels, true, facts @ of_facts) + rng.gumbel(size=(users, items))
    logit[seen.toarray() > 0] = -np.inf
    wanted = sparse.csr_matrix((np.ones(users, np.float32), (np.arange(users), logit.argmax(1))), shape=(users, items))
    w = Stack(channels, facts, wanted, seen, np.zeros(5)).fit()
    assert np.allclose(w[:2], true, atol=0.08), w
    assert np.allclose(w[2:], of_facts, atol=0.08), w


def test_a_channel_without_meaning_gets_no_weight(inputs: Inputs) -> None:
    rng = np.random.default_rng(0)
    useful = inputs.positives.toarray() * 3 + rng.normal(size=(USERS, ITEMS)).astype(np.float32)
    noise = rng.normal(size=(USERS, ITEMS)).astype(np.float32)
    w = Stack([useful, noise], np.zeros((ITEMS, 0), np.float32), inputs.positives, None, np.zeros(2)).fit()
    assert w[0] > 0.5
    assert abs(w[1]) < 0.1


def _write_split(folder: Path, inputs: Inputs) -> None:
    """One held-out item a user: validation for even users, test for odd ones; items alike in one modality a graph."""
    user, item = inputs.positives.nonzero()
    last = np.append(np.diff(user) > 0, True)
    parts = {"train": ~last, "validation": last & (user % 2 == 0), "test": last & (user % 2 == 1)}
    for name, rows in parts.items():
        pq.write_table(pa.table({"user_id": user[rows], "item_id": item[rows]}), folder / f"{name}.parquet")
    np.save(folder / "image_feat.npy", inputs.content["image"].astype(np.float16)[:-1])
    sparse.save_npz(folder / "text_graph.npz", nearest_graph(inputs.content["image"], 5)[:50, :50])


def test_accuracy_reads_a_split_and_the_hybrid_wins(inputs: Inputs, tmp_path: Path) -> None:
    _write_split(tmp_path, inputs)
    split = load_split(tmp_path)
    train, validation, test = split.inputs.positives, split.wanted["validation"], split.wanted["test"]
    assert train.nnz + validation.nnz + test.nnz == inputs.positives.nnz
    assert train.multiply(test).nnz == 0
    assert split.inputs.content["image"].shape == (ITEMS, 24), "items behind the end of a file have zero rows"
    assert not split.inputs.content["image"][-1].any()
    assert split.inputs.graphs["text"].shape == (ITEMS, ITEMS)
    contest = Contest(split)
    rows = {n: contest.run(n) for n in NAMES}
    rows["hybrid"] = contest.hybrid("hybrid", facts=True)
    assert rows["graph"]["test_recall@20"] > 1.2 * rows["popularity"]["test_recall@20"]
    assert rows["hybrid"]["test_ndcg@20"] > 1.2 * rows["popularity"]["test_ndcg@20"]
    assert set(rows["hybrid"]["chosen"]) == set(NAMES)


def test_a_user_with_many_items_has_one_vote() -> None:
    rng = np.random.default_rng(0)
    channels = [rng.normal(size=(400, 50)).astype(np.float32) for _ in range(2)]
    first, second = (z.argsort(1)[:, ::-1] for z in channels)
    wanted = np.zeros((400, 50), np.float32)
    wanted[np.arange(300), first[:300, 0]] = 1  # most users follow the first channel, one item each
    np.put_along_axis(wanted[300:], second[300:, :12], 1, 1)  # few follow the second, twelve items each
    w = Stack(channels, np.zeros((50, 0), np.float32), sparse.csr_matrix(wanted), None, np.zeros(2)).fit()
    assert w[0] > 1.5 * w[1], "3:1 in users, 1:4 in events"


def test_scores_that_are_no_numbers_are_refused() -> None:
    bad = np.full((3, 4), np.nan, np.float32)
    with pytest.raises(FloatingPointError, match="not finite"):
        Stack([bad], np.zeros((4, 0), np.float32), sparse.csr_matrix(np.eye(3, 4)), None, np.zeros(1))


def test_metrics_by_hand_train_items_left_out() -> None:
    scores = np.arange(30, 0, -1, dtype=np.float32)[None]
    seen = sparse.csr_matrix(([1.0], ([0], [0])), shape=(1, 30))
    wanted = sparse.csr_matrix(([1.0, 1.0], ([0, 0], [2, 15])), shape=(1, 30))  # ranks 2 and 15
    found = judged(scores, wanted, seen)
    ideal = 1 + 1 / np.log2(3)
    assert found["recall@10"] == [0.5]
    assert found["recall@20"] == [1.0]
    assert np.allclose(found["ndcg@20"], (1 / np.log2(3) + 1 / np.log2(16)) / ideal)


class Noise:
    """A recommender that knows nothing."""

    name, signed = "noise", True

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        return np.random.default_rng(0).normal(size=inputs.positives.shape).astype(np.float32)[users]


@pytest.mark.parametrize("drifts", [True, False])
def test_facts_take_part_only_where_other_users_show_their_worth(inputs: Inputs, drifts: bool) -> None:
    """When taste moves to a quarter of the catalogue that its content shows, facts must carry it, and only then."""
    rng = np.random.default_rng(1)
    liked_now = np.where(np.arange(ITEMS) % 4 == 2, 0.3, 0.01) if drifts else np.full(ITEMS, 0.08)
    wanted = sparse.csr_matrix((rng.random((USERS, ITEMS)) < liked_now[None]).astype(np.float32))
    hybrid = Hybrid({"noise": True})
    report = hybrid.fit([Noise()], inputs, wanted, None, 10)["warm"]
    gain, error = report["facts"]["ndcg_gain"], report["facts"]["standard_error"]
    assert (gain > SURE * error) == drifts
    assert hybrid.prior["warm"].any() == drifts
    if drifts:
        assert report["ndcg"]["blend"] > 2 * report["ndcg"]["noise"]
        assert hybrid.prior["warm"][2::4].mean() > np.delete(hybrid.prior["warm"], np.s_[2::4]).mean() + 1
