"""Alignment, fusion, recommenders, metrics: right answers known by construction."""

import numpy as np
import pytest
import torch
from scipy import sparse

from encoders.alignment import AlignerSettings, info_nce, load_aligner, train_aligner
from encoders.fusion import Features, fuse_items, fuse_users
from pipelines.config import Recommend
from pipelines.evaluate import Judgement, evaluate_model
from pipelines.metrics import PER_USER
from pipelines.models import recommenders
from pipelines.recommenders import hybrid
from pipelines.recommenders.base import Inputs, Recommender, keep_largest, standard_scores, top_k
from tests.conftest import unit

N, GROUPS = 120, 4
SETTINGS = AlignerSettings(dim=16, steps=80, batch_size=64, heads=2)


@pytest.fixture(scope="module")
def world() -> tuple[dict[str, Features], list[np.ndarray], np.ndarray]:
    """Items of four groups; both modalities say the group in their own way; users stay within a group."""
    rng = np.random.default_rng(0)
    group = np.arange(N) % GROUPS
    features = {}
    for m, d in (("text", 24), ("image", 40)):
        x = unit(rng, GROUPS, d)[group] + 0.5 * unit(rng, N, d)
        present = rng.random(N) < 0.8
        features[m] = Features((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), present)
    histories = [rng.permutation(np.flatnonzero(group == u % GROUPS))[:12] for u in range(80)]
    return features, histories, group


@pytest.fixture(scope="module")
def trained(world):  # type: ignore[no-untyped-def]
    features, histories, _ = world
    return train_aligner(features, histories, SETTINGS)


def test_training_is_reproducible_to_the_byte(world, trained) -> None:  # type: ignore[no-untyped-def]
    torch.set_num_threads(2)  # whatever its caller left
    assert train_aligner(world[0], world[1], SETTINGS) == trained


def test_space_holds_content_and_taste(world, trained) -> None:  # type: ignore[no-untyped-def]
    features, histories, group = world
    model = load_aligner(*trained)
    fused = fuse_items(model, features)
    similarity = fused.vector @ fused.vector.T
    np.fill_diagonal(similarity, -2)
    there = features["text"].present | features["image"].present
    nearest = similarity[:, there].argmax(1)
    assert (group[np.flatnonzero(there)[nearest]] == group)[there].mean() > 0.9
    users = fuse_users(model, fused.vector, histories, [[] for _ in histories], 20)
    scores = users @ fused.vector[there].T
    assert (group[there][scores.argmax(1)] == np.arange(80) % GROUPS).mean() > 0.9


def test_missing_modalities_are_masked_never_read(world, trained) -> None:  # type: ignore[no-untyped-def]
    features, _, _ = world
    model = load_aligner(*trained)
    fused = fuse_items(model, features)
    junk = {
        m: Features(np.where(f.present[:, None], f.matrix, 7.0).astype(np.float32), f.present)
        for m, f in features.items()
    }
    assert np.array_equal(fuse_items(model, junk).vector, fused.vector)
    for m, f in features.items():
        assert (fused.attention[m][~f.present] == 0).all()
    there = features["text"].present | features["image"].present
    assert np.allclose(sum(fused.attention.values())[there], 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(fused.vector, axis=1), 1, atol=1e-5)
    assert np.isfinite(fused.vector[~there]).all()


def test_fused_vectors_do_not_depend_on_neighbours(world, trained) -> None:  # type: ignore[no-untyped-def]
    features, histories, _ = world
    model = load_aligner(*trained)
    whole = fuse_items(model, features).vector
    part = fuse_items(model, {m: Features(f.matrix[30:37], f.present[30:37]) for m, f in features.items()}).vector
    assert np.array_equal(whole[30:37], part)
    users = fuse_users(model, whole, histories, [[] for _ in histories], 20)
    assert np.array_equal(users[5:6], fuse_users(model, whole, histories[5:6], [[]], 20))


def test_uploads_speak_for_a_user_without_history(world, trained) -> None:  # type: ignore[no-untyped-def]
    features, _, group = world
    model = load_aligner(*trained)
    fused = fuse_items(model, features).vector
    rows = np.flatnonzero(features["text"].present)[:20]
    users = fuse_users(
        model, fused, [np.zeros(0, int)] * 20, [[("text", features["text"].matrix[r])] for r in rows], 20
    )
    there = np.flatnonzero(features["text"].present)
    assert (group[there[(users @ fused[there].T).argmax(1)]] == group[rows]).mean() > 0.8


def test_info_nce_by_hand() -> None:
    import torch

    eye = torch.eye(2)
    expected = -np.log(np.e / (np.e + 1))
    assert float(info_nce(eye, eye, torch.tensor(1.0))) == pytest.approx(expected, abs=1e-6)
    same = torch.ones(2, 2, dtype=torch.bool)
    assert float(info_nce(eye, eye, torch.tensor(1.0), same=same)) == pytest.approx(0.0, abs=1e-6)


# --- recommenders -----------------------------------------------------------------------------------------------


def inputs_of(world) -> Inputs:  # type: ignore[no-untyped-def]
    features, histories, group = world
    rows = np.concatenate([np.full(len(h), u) for u, h in enumerate(histories)])
    positives = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, np.concatenate(histories))), shape=(82, N))
    content = {m: np.where(f.present[:, None], f.matrix, 0).astype(np.float32) for m, f in features.items()}
    fused = unit(np.random.default_rng(1), GROUPS, 16)[group] + 0.3 * unit(np.random.default_rng(2), N, 16)
    fused /= np.linalg.norm(fused, axis=1, keepdims=True)
    means = np.stack([fused[h].mean(0) for h in histories] + [np.zeros(16)] * 2).astype(np.float32)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    signal = np.array([True] * 80 + [False] * 2)
    return Inputs(positives, content, {}, fused.astype(np.float32), means, signal)


MODELS = recommenders(Recommend())


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_contract_of_all_recommenders(world, model: Recommender) -> None:  # type: ignore[no-untyped-def]
    inputs, everyone = inputs_of(world), np.arange(82)
    fitted = model.fit(inputs)
    scores = fitted.score(inputs, everyone)
    assert scores.shape == (82, N)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    singly = np.concatenate([fitted.score(inputs, np.array([u])) for u in everyone])
    assert np.allclose(scores, singly, atol=1e-5), "batch equals single"
    state = {k: v.copy() for k, v in fitted.state().items()}
    restored = next(m for m in recommenders(Recommend()) if m.name == model.name).restore(state)
    assert np.array_equal(restored.score(inputs, everyone), scores), "a stored model is the same model"
    assert np.array_equal(model.fit(inputs).score(inputs, everyone), scores), "fitting again changes nothing"
    if model.name != "popularity":
        assert (scores[80:] == 0).all(), "nothing to say about users without any signal"
        items, _ = top_k(scores[:80], 10, inputs.positives[:80])
        group = world[2]
        assert (group[items] == (np.arange(80) % GROUPS)[:, None]).mean() > 0.8, "finds the unseen items of the group"


def test_top_k_is_exact_and_unique() -> None:
    scores = np.array([[1, 3, 3, 2, 0], [0, 0, 0, 0, 0]], np.float32)
    forbidden = sparse.csr_matrix(np.array([[0, 0, 0, 1, 0], [1, 1, 1, 1, 0]]))
    items, values = top_k(scores, 3, forbidden)
    assert items.tolist() == [[1, 2, 0], [4, -1, -1]]
    assert values[0].tolist() == [3, 3, 1]
    rng = np.random.default_rng(0)
    big = rng.integers(0, 50, (40, 300)).astype(np.float32)
    expected = np.lexsort((np.tile(np.arange(300), (40, 1)), -big), axis=1)[:, :20]
    assert np.array_equal(top_k(big, 20)[0], expected)
    assert top_k(big, 1000)[0].shape == (40, 300)


def test_keep_largest_by_hand() -> None:
    m = sparse.csr_matrix(np.array([[1.0, 5, 3], [0, 0, 0], [2, 2, 2]]))
    assert keep_largest(m, 2).toarray().tolist() == [[0, 5, 3], [0, 0, 0], [2, 2, 0]]


def test_standard_scores_of_flat_rows_are_zero() -> None:
    out = standard_scores(np.array([[1, 1, 1], [0, 1, 2]], np.float32))
    assert out[0].tolist() == [0, 0, 0]
    assert out[1].mean() == pytest.approx(0)


def test_hybrid_finds_the_part_that_is_right() -> None:
    rng = np.random.default_rng(0)
    relevant = sparse.csr_matrix((rng.random((40, 60)) < 0.1).astype(np.float32))
    keep = np.flatnonzero(np.diff(relevant.indptr))
    relevant = relevant[keep]
    scores = {n: rng.normal(size=relevant.shape).astype(np.float32) for n in hybrid.PARTS}
    scores["content"] = relevant.toarray() + 0.1 * scores["content"]
    weights, report = hybrid.fit_weights(scores, relevant, None, 10, hybrid.DEFAULT["warm"])
    assert weights["content"] > max(w for n, w in weights.items() if n != "content")
    assert report["ndcg_blend"] >= max(report["ndcg_alone"].values()) - 1e-9


def test_cold_users_get_the_cold_blend() -> None:
    scores = {n: np.zeros((2, 3), np.float32) for n in hybrid.PARTS}
    scores["popularity"] = np.array([[1, 2, 3], [1, 2, 3]], np.float32)
    scores["item_cf"] = np.array([[3, 2, 1], [3, 2, 1]], np.float32)
    only = {s: dict.fromkeys(hybrid.PARTS, 0.0) for s in ("warm", "cold")}
    only["warm"]["item_cf"] = only["cold"]["popularity"] = 1.0
    blended = hybrid.route(scores, only, np.array([True, False]))
    assert blended.argmax(1).tolist() == [0, 2]


# --- evaluation -------------------------------------------------------------------------------------------------


def test_metrics_against_ir_definitions() -> None:
    hits = np.array([False, True, False, True, False])
    found = {name: f(hits, 3) for name, f in PER_USER.items()}
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["ndcg"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / ideal)
    assert found["map"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert (found["mrr"], found["hit_rate"]) == (0.5, 1.0)


def test_slices_of_the_evaluation() -> None:
    judgement = Judgement(
        relevant={"w": {"old", "new"}, "c": {"old"}}, met={"old": 3}, users_before={"w"}, catalogue={"old", "new", "x"}
    )
    rows = evaluate_model("m", {"w": ["new", "x"], "*": ["old"]}, judgement, 20)
    value = {(r["metric"], r["slice"]): r["value"] for r in rows if r["k"] == 10}
    assert value["recall", "all"] == pytest.approx((0.5 + 1) / 2)
    assert value["recall", "user_warm"] == 0.5
    assert value["recall", "user_cold"] == 1.0, "an unknown user is judged by the list for everyone"
    assert value["recall", "item_cold"] == 1.0
    assert value["recall", "item_warm"] == 0.5
    assert value["coverage", "all"] == 1.0
