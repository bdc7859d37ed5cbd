"""The benchmarks of accuracy: splits, held-out items, metrics."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from benchmarks.accuracy import NAMES, Contest, Split, frequent_in_validation, judged, load_split, means_of
from benchmarks.cold import figures, held_out
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.item_graphs import nearest_graph
from pipelines.recommenders.ranking import is_warm
from tests.worlds import ITEMS


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
    train, validation, test = split.inputs.positives, split.relevant["validation"], split.relevant["test"]
    assert train.nnz + validation.nnz + test.nnz == inputs.positives.nnz
    assert train.multiply(test).nnz == 0
    assert split.inputs.content["image"].shape == (ITEMS, 24), "items behind the end of a file have zero rows"
    assert not split.inputs.content["image"][-1].any()
    assert split.inputs.graphs["text"].shape == (ITEMS, ITEMS)
    contest = Contest(split)
    for name in NAMES:
        contest.choose(name)
    contest.stack("hybrid", True)
    rows = {r["model"]: r for r in contest.rows()}
    assert rows["graph"]["test_recall@20"] > 1.2 * rows["popularity"]["test_recall@20"]
    for metric in ("test_recall@20", "test_ndcg@20"):
        assert rows["lightgcn"][metric] > rows["popularity"][metric], "training does not lose what counting has"
    assert rows["hybrid"]["test_ndcg@20"] > 1.2 * rows["popularity"]["test_ndcg@20"]
    assert {w.split(".")[0] for w in rows["hybrid"]["chosen"]["weights"]} == set(NAMES)
    parts, hybrid = ("validation_list_cpu_s", "test_list_cpu_s"), contest.hybrids["hybrid"]
    lists = sum(contest.cost[n][p] for n in NAMES for p in parts)
    everyone = is_warm(split.inputs, split.users("test")).all()
    assert not everyone, "cold users hear all recommenders"
    assert contest.needless() == pytest.approx(lists)
    of, names = hybrid.channels_of, hybrid.channel_names
    of["warm"] = of["cold"] = of["warm"] * [name != "content" for name in names]
    mute = {n for n in NAMES if not of["warm"][[p.split(".")[0] == n for p in names]].any()}
    assert "content" in mute
    scores = sum(contest.cost[n][p.replace("_list", "")] for n in mute for p in parts)
    assert scores > 0
    assert contest.needless() == pytest.approx(lists + scores)


def test_new_items_are_held_out_whole_and_ranked_among_themselves(inputs: Inputs) -> None:
    past, cold = held_out(inputs, 0)
    assert len(cold) == round(0.2 * (ITEMS - 1)), "a fifth of those that anybody liked"
    assert not past.positives[:, cold].nnz
    assert (inputs.positives - past.positives).nnz == inputs.positives[:, cold].nnz
    found = {f.figure: f for f in figures(inputs, 1)}
    assert found["new items transfer ndcg@20"].value > 1.3 * found["new items random ndcg@20"].value
    assert found["new items content recall@20"].ratio == 1


def test_metrics_by_hand_train_items_left_out() -> None:
    scores = np.arange(30, 0, -1, dtype=np.float32)[None]
    seen = sparse.csr_matrix(([1.0], ([0], [0])), shape=(1, 30))
    wanted = sparse.csr_matrix(([1.0, 1.0], ([0, 0], [2, 15])), shape=(1, 30))  # ranks 2 and 15
    found = judged(scores, wanted, seen)
    ideal = 1 + 1 / np.log2(3)
    assert found["recall@10"] == [0.5]
    assert found["recall@20"] == [1.0]
    assert np.allclose(found["ndcg@20"], (1 / np.log2(3) + 1 / np.log2(16)) / ideal)


def test_another_numbering_is_the_same_split(inputs: Inputs, tmp_path: Path) -> None:
    _write_split(tmp_path, inputs)
    plain, other = load_split(tmp_path), load_split(tmp_path, numbering=3)
    for part in ("validation", "test"):
        assert (plain.relevant[part] != other.relevant[part]).nnz
        assert sorted(np.diff(plain.relevant[part].indptr)) == sorted(np.diff(other.relevant[part].indptr))
    for split in (plain, other):  # how alike what a user has is does not depend on numbers
        split.inputs.graphs["text"].setdiag(0)
    of_users = [
        np.sort(np.asarray((s.inputs.positives @ s.inputs.content["image"]).sum(1)).ravel()) for s in (plain, other)
    ]
    assert np.allclose(of_users[0], of_users[1], atol=1e-4)
    walked = [
        np.sort(np.asarray((s.inputs.positives @ s.inputs.graphs["text"]).sum(1)).ravel()) for s in (plain, other)
    ]
    assert np.allclose(walked[0], walked[1], atol=1e-4)
    assert frequent_in_validation(plain)["test_recall@20"] == pytest.approx(
        frequent_in_validation(other)["test_recall@20"], abs=0.05
    ), "ties are broken by number"


def test_what_is_most_frequent_in_validation_by_hand() -> None:
    """Item 1 twice, item 2 once; the test user has seen item 1 in train and wants item 2, which is first then."""
    train = sparse.csr_matrix(np.array([[0, 1, 0], [1, 0, 0], [1, 0, 0]], np.float32))
    validation = sparse.csr_matrix(np.array([[0, 0, 0], [0, 1, 0], [0, 1, 1]], np.float32))
    test = sparse.csr_matrix(np.array([[0, 0, 1], [0, 0, 0], [0, 0, 0]], np.float32))
    row = frequent_in_validation(Split(Inputs(train), {"validation": validation, "test": test}))
    assert (row["test_recall@10"], row["test_ndcg@20"]) == (1.0, 1.0)


def test_means_over_numberings() -> None:
    runs = [
        [{"model": "a", "test_recall@20": r, "fit_cpu_s": c, "chosen": {"x": 1}}] for r, c in ((0.1, 1.0), (0.3, 2.0))
    ]
    assert means_of(runs) == [{"model": "a", "test_recall@20": 0.2, "fit_cpu_s": 1.5, "spread": 0.2, "chosen": {}}]
