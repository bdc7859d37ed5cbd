"""Alignment, fusion, recommenders, metrics: right answers known by construction."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import sparse

from encoders.settings import AlignerSettings
from encoders.space import closed_form
from encoders.space.alignment import _Batches, _Trainer, info_nce, load_aligner, train_aligner
from encoders.space.closed_form import MAPS
from encoders.space.features import Features, Uploads
from encoders.space.fusion import FUSERS, fuse_items, fuse_users
from encoders.space.ragged import Ragged
from pipelines.evaluate import Judgement, evaluate_model
from pipelines.learning.metrics import PER_USER
from pipelines.recommenders import ranking
from pipelines.recommenders.base import Inputs, Recommender, Validation
from pipelines.recommenders.blend.hybrid import Hybrid, place_new
from pipelines.recommenders.matrices import keep_largest
from pipelines.recommenders.neighbours import SIMILARITIES, ItemCF
from pipelines.recommenders.ranking import is_warm, standard_scores, top_k
from pipelines.recommenders.registry import RECOMMENDERS, classes, unfitted
from pipelines.search import better
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
    users = fuse_users(model, fused.vector, Ragged.of(histories), Uploads.none(len(histories)), 20)
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
    users = fuse_users(model, whole, Ragged.of(histories), Uploads.none(len(histories)), 20)
    assert np.array_equal(users[5:6], fuse_users(model, whole, Ragged.of(histories[5:6]), Uploads.none(1), 20))


def test_uploads_speak_for_a_user_without_history(world, trained) -> None:  # type: ignore[no-untyped-def]
    features, _, group = world
    model = load_aligner(*trained)
    fused = fuse_items(model, features).vector
    rows = np.flatnonzero(features["text"].present)[:20]
    one_each = Ragged(np.arange(21), np.arange(20))
    uploads = Uploads(one_each, np.full(20, "text"), rows, {"text": features["text"].matrix})
    users = fuse_users(model, fused, Ragged.of([[]] * 20), uploads, 20)
    there = np.flatnonzero(features["text"].present)
    assert (group[there[(users @ fused[there].T).argmax(1)]] == group[rows]).mean() > 0.8


@pytest.mark.parametrize("kind", FUSERS)
def test_every_kind_of_alignment_keeps_the_contract(world, kind: str) -> None:  # type: ignore[no-untyped-def]
    features, histories, group = world
    settings = replace(SETTINGS, kind=kind, steps=150)
    first, again = train_aligner(features, histories, settings), train_aligner(features, histories, settings)
    assert first == again, "the same bytes"
    model, card = load_aligner(*first), first[1]
    fused = fuse_items(model, features)
    assert np.allclose(np.linalg.norm(fused.vector, axis=1), 1, atol=1e-5)
    junk = {
        m: Features(np.where(f.present[:, None], f.matrix, 7.0).astype(np.float32), f.present)
        for m, f in features.items()
    }
    assert np.array_equal(fuse_items(model, junk).vector, fused.vector), "what is missing is never read"
    there = features["text"].present | features["image"].present
    assert np.allclose(sum(fused.attention.values())[there], 1, atol=1e-5)
    part = {m: Features(f.matrix[30:37], f.present[30:37]) for m, f in features.items()}
    assert np.array_equal(fuse_items(model, part).vector, fused.vector[30:37]), "no item depends on its neighbours"
    both = features["text"].present & features["image"].present
    across = fused.aligned["text"][both] @ fused.aligned["image"][both].T
    assert (group[both][across.argmax(1)] == group[both]).mean() > 0.8, "a modality finds the other's items"
    users = fuse_users(model, fused.vector, Ragged.of(histories), Uploads.none(len(histories)), 20)
    nearest = (users @ fused.vector[there].T).argmax(1)
    assert (group[there][nearest] == np.arange(80) % GROUPS).mean() > 0.9, "users are near what they like"
    assert (card["curve"] == []) == (kind in MAPS)


@pytest.mark.parametrize("kind", FUSERS)
@pytest.mark.parametrize("users", [0, 1, 3])
def test_hardly_any_log_still_makes_a_space(world, kind: str, users: int) -> None:  # type: ignore[no-untyped-def]
    """The first nights of a shop; with a few users, ridge regression fills a few directions only."""
    features, histories, group = world
    model = load_aligner(*train_aligner(features, histories[:users], replace(SETTINGS, kind=kind)))
    fused = fuse_items(model, features)
    vectors = {"fused": (fused.vector, features["text"].present | features["image"].present)}
    vectors |= {m: (fused.aligned[m], f.present) for m, f in features.items()}
    for rows, there in vectors.values():
        assert np.allclose(np.linalg.norm(rows[there], axis=1), 1, atol=1e-5)
    if kind == "ridge" and users:
        return  # it says what users say, and these say little
    rows, there = vectors["text"]
    alike = rows[there] @ rows[there].T
    np.fill_diagonal(alike, -2)
    assert (group[there][alike.argmax(1)] == group[there]).mean() > 0.7, "content alone tells groups apart"


def test_an_item_without_content_has_a_place_of_its_own(world) -> None:  # type: ignore[no-untyped-def]
    features, histories, _ = world
    model = load_aligner(*train_aligner(features, histories, replace(SETTINGS, kind="ridge")))
    none = {m: Features(f.matrix[:3], np.zeros(3, bool)) for m, f in features.items()}
    vectors = fuse_items(model, none).vector
    assert np.isfinite(vectors).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_ridge_learns_taste_that_content_shows(world) -> None:  # type: ignore[no-untyped-def]
    """Two of four groups share their users: the ridge space must join them, a space of content alone must not."""
    features, _, group = world
    rng = np.random.default_rng(3)
    histories = [rng.permutation(np.flatnonzero(group % 2 == u % 2))[:15] for u in range(80)]

    def apart(kind: str) -> float:
        model = load_aligner(*train_aligner(features, histories, replace(SETTINGS, kind=kind)))
        vectors = fuse_items(model, features).vector[features["text"].present | features["image"].present]
        mine = group[features["text"].present | features["image"].present]
        alike = vectors @ vectors.T
        return float(alike[mine == 0][:, mine == 2].mean() - alike[mine == 0][:, mine == 1].mean())

    assert apart("ridge") > 0.5
    assert apart("ridge") > apart("procrustes") + 0.3


def test_info_nce_by_hand() -> None:
    import torch

    eye = torch.eye(2)
    expected = -np.log(np.e / (np.e + 1))
    assert float(info_nce(eye, eye, torch.tensor(1.0))) == pytest.approx(expected, abs=1e-6)
    same = torch.ones(2, 2, dtype=torch.bool)
    assert float(info_nce(eye, eye, torch.tensor(1.0), same=same)) == pytest.approx(0.0, abs=1e-6)


def test_a_dropped_modality_is_gone_from_every_item_but_one_that_has_no_other(world) -> None:  # type: ignore[no-untyped-def]
    features, _, _ = world
    rows = torch.arange(N)
    present = np.stack([features[m].present for m in sorted(features)], 1)
    whole, *without = _Trainer(features, SETTINGS, {}, "cpu").masks(rows)
    assert np.array_equal(whole, present)
    assert len(without) == len(features), "each modality has its turn"
    for column, mask in enumerate(without):
        both = present.all(1)
        assert not mask[both, column].any()
        assert mask[both, 1 - column].all()
        assert np.array_equal(mask[~both], present[~both]), "what an item has alone stays"
    assert len(_Trainer(features, replace(SETTINGS, modality_dropout=0.0), {}, "cpu").masks(rows)) == 1


def test_the_interaction_loss_is_shared_out_by_modality_dropout(world) -> None:  # type: ignore[no-untyped-def]
    features, histories, _ = world
    batches = _Batches(histories, N, SETTINGS, np.arange(N))
    batch = (*batches.next_items(), batches.log_q)

    def loss(features: dict[str, Features], share: float) -> float:
        trainer = _Trainer(features, replace(SETTINGS, modality_dropout=share), {}, "cpu")
        return float(trainer.interaction(*batch).detach())

    whole, half, lacking = (loss(features, share) for share in (0.0, 0.5, 1.0))
    assert abs(lacking - whole) > 1e-3 * whole, "items without a modality have a loss of their own"
    assert half == pytest.approx((whole + lacking) / 2, rel=1e-5)
    mine = np.arange(N) % 2 == 0
    one_each = {m: replace(f, present=mine if m == "text" else ~mine) for m, f in features.items()}
    assert loss(one_each, 1.0) == pytest.approx(loss(one_each, 0.0), rel=1e-5), "an item's only modality stays"


@pytest.mark.parametrize("gone", ["text", "image"])
def test_a_modality_alone_is_trained_as_well_as_beside_others(gone: str) -> None:
    """Each modality tells half of what the groups are; alone it must still tell its half."""
    rng = np.random.default_rng(1)
    half = {"text": np.arange(N) % 2, "image": np.arange(N) // 2 % 2}
    features = {}
    for m, side in half.items():
        x = unit(rng, 2, 24)[side] + 0.7 * unit(rng, N, 24)
        features[m] = Features((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), np.ones(N, bool))
    group = half["text"] * 2 + half["image"]
    histories = [rng.permutation(np.flatnonzero(group == u % 4))[:12] for u in range(80)]
    model = load_aligner(*train_aligner(features, histories, SETTINGS))
    lacking = features | {gone: replace(features[gone], present=np.zeros(N, bool))}
    other = half["image" if gone == "text" else "text"]
    for given, labels, least in ((features, group, 0.95), (lacking, other, 0.9)):
        vectors = fuse_items(model, given).vector
        alike = vectors @ vectors.T
        np.fill_diagonal(alike, -2)
        assert (labels[alike.argmax(1)] == labels).mean() > least


@pytest.mark.parametrize("kind", sorted(FUSERS.keys() - MAPS.keys()))
def test_training_starts_from_ridge_regression(world, kind: str) -> None:  # type: ignore[no-untyped-def]
    features, histories, _ = world
    begun = replace(SETTINGS, kind=kind, steps=1, learning_rate=1e-9)
    first, ridge = (
        fuse_items(load_aligner(*train_aligner(features, histories, s)), features)
        for s in (begun, replace(SETTINGS, kind="ridge"))
    )
    for m, f in features.items():
        assert np.allclose(first.aligned[m][f.present], ridge.aligned[m][f.present], atol=1e-4)
    alone = features["text"].present ^ features["image"].present
    assert (first.vector[alone] * ridge.vector[alone]).sum(1).min() > 0.9, "a fuser adds next to nothing at first"


def test_ridge_regression_is_the_same_in_blocks(world, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    features, histories, _ = world
    whole = MAPS["ridge"](features, histories, 16, np.arange(N))
    monkeypatch.setattr(closed_form, "BLOCK", 7)
    for m, found in MAPS["ridge"](features, histories, 16, np.arange(N)).items():
        assert np.allclose(found.matrix, whole[m].matrix, atol=1e-6)
        assert np.allclose(found.mean, whole[m].mean)


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
    known = [*histories, np.zeros(0, int), np.zeros(0, int)]
    return Inputs(positives, content, {}, fused.astype(np.float32), means, signal, histories=Ragged.of(known))


MODELS = unfitted(tuple(RECOMMENDERS), {"als": {"factors": 8}}) + [ItemCF(similarity=s) for s in SIMILARITIES]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.name}-{getattr(m, 'kind', '')}")
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
    restored = classes()[model.name]().restore(state, inputs)
    assert np.array_equal(restored.score(inputs, everyone), scores), "a stored model is the same model"
    assert np.array_equal(model.fit(inputs).score(inputs, everyone), scores), "fitting again changes nothing"
    if model.name == "transfer":
        assert not scores.any(), "every item has been liked"
    elif model.name != "popularity":
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
    assert [a.shape for a in top_k(big[:0], 20)] == [(0, 20), (0, 20)]


@pytest.mark.parametrize("levels", [1, 3, 4000])
def test_top_k_of_long_rows_is_that_of_a_sort(levels: int) -> None:
    """Long rows are sought in segments; with one level and three all is tied, within segments and across them."""
    n = 8 * ranking.SEGMENT * 10 + 17
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (30, n)).astype(np.float32)
    forbidden = sparse.random(30, n, 0.3, format="csr", rng=rng)
    allowed = np.where(forbidden.toarray() != 0, -np.inf, scores)
    expected = np.lexsort((np.tile(np.arange(n), (30, 1)), -allowed), axis=1)[:, :10]
    items, values = top_k(scores, 10, forbidden)
    assert np.array_equal(items, expected)
    assert np.array_equal(values, np.take_along_axis(allowed, expected, 1))
    almost = sparse.csr_matrix(np.arange(n)[None] >= 4)
    assert top_k(scores[:1], 10, almost)[0][0, 4:].tolist() == [-1] * 6


def test_keep_largest_by_hand() -> None:
    m = sparse.csr_matrix(np.array([[1.0, 5, 3], [0, 0, 0], [2, 2, 2]]))
    assert keep_largest(m, 2).toarray().tolist() == [[0, 5, 3], [0, 0, 0], [2, 2, 0]]


def test_standard_scores_of_flat_rows_are_zero() -> None:
    out = standard_scores(np.array([[1, 1, 1], [0, 1, 2]], np.float32))
    assert out[0].tolist() == [0, 0, 0]
    assert out[1].mean() == pytest.approx(0)


class Fixed(Recommender):
    """A recommender whose scores are given."""

    signed = True

    def __init__(self, name: str, scores: np.ndarray):
        self.name, self.scores = name, scores.astype(np.float32)

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        return self.scores[users]


def test_hybrid_finds_the_part_that_is_right_in_each_segment() -> None:
    rng = np.random.default_rng(0)
    users, items = 200, 60
    history = (rng.random((users, items)) < 0.1) * (np.arange(users) < 100)[:, None]  # the second half is cold
    wanted = sparse.csr_matrix((rng.random((users, items)) < 0.08) & ~history.astype(bool), dtype=np.float32)
    truth = 3 * wanted.toarray() + rng.normal(size=(users, items))
    noise = rng.normal(size=(2, users, items))
    right_for_warm = np.where((np.arange(users) < 100)[:, None], truth, noise[0])
    right_for_cold = np.where((np.arange(users) < 100)[:, None], noise[1], truth)
    models = [Fixed("a", right_for_warm), Fixed("b", right_for_cold)]
    past = Inputs(sparse.csr_matrix(history.astype(np.float32)))
    named = {m.name: m for m in models}
    mixed = Hybrid(facts=False).given(named)
    report = mixed.weigh(Validation(0, past, wanted, past.positives, 10))
    assert report["warm"]["weights"]["a"] > 5 * abs(report["warm"]["weights"]["b"])
    assert report["cold"]["weights"]["b"] > 3 * abs(report["cold"]["weights"]["a"])
    assert mixed.channels_of["cold"].all(), "cold users keep what only few of them wake"
    for segment in ("warm", "cold"):
        found = report[segment]["ndcg"]
        assert found["blend"] >= max(found["a"], found["b"]) - 0.02
    everyone = np.arange(users)
    evidence = mixed.evidence_of(past, everyone)
    blended = mixed.blend(evidence, is_warm(past, everyone))
    again = Hybrid().given(named).restore(mixed.state(), past)
    assert np.array_equal(again.blend(evidence, is_warm(past, everyone)), blended)
    assert np.corrcoef(blended[150], right_for_cold[150])[0, 1] > 0.8
    assert np.corrcoef(blended[50], right_for_warm[50])[0, 1] > 0.8


def test_a_segment_with_few_validation_users_keeps_the_weights_it_starts_from() -> None:
    wanted = sparse.csr_matrix(np.eye(5, 8, dtype=np.float32))
    models = [Fixed("a", np.ones((5, 8))), Fixed("b", np.ones((5, 8)))]
    report = (
        Hybrid(facts=False).given({m.name: m for m in models}).weigh(Validation(0, Inputs(wanted), wanted, None, 3))
    )
    assert report["warm"]["weights"] == report["cold"]["weights"] == {"a": 0.5, "b": 0.5}
    assert "fewer than" in report["warm"]["note"]


def test_new_items_get_the_last_places_and_nothing_forbidden() -> None:
    scores = np.array([[9, 8, 7, 2, 1], [9, 8, 7, 2, 1], [1, 2, 3, 8, 9]], np.float32)
    new = np.array([False, False, False, True, True])
    forbidden = sparse.csr_matrix(np.array([[0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]))
    items, values = place_new(top_k(scores, 3, forbidden), scores, scores, new, 1, forbidden)
    assert items.tolist() == [[0, 1, 3], [0, 1, 4], [4, 3, 2]], "a list that has new items stays as it is"
    assert values.tolist() == [[9, 8, 2], [9, 8, 1], [9, 8, 3]]
    items, values = place_new(
        top_k(scores[:1], 3), scores[:1], scores[:1], np.array([False, False, True, True, True]), 2, None
    )
    assert (items.tolist(), values.tolist()) == ([[0, 2, 3]], [[9, 7, 2]]), "a new item keeps the place that it has"
    chances = np.array([[0, 0, 0, 0.4, 0.6], [0, 0, 0, 0, 0], [0, 0, 0, 0.5, 0.5]], np.float32)
    items, values = place_new(top_k(scores, 3), scores, chances, new, 1, None)
    assert items.tolist() == [[0, 1, 4], [0, 1, 3], [4, 3, 2]], "chances rank new items, scores where there are none"
    assert values.tolist() == [[9, 8, 1], [9, 8, 2], [9, 8, 3]], "a list has scores of one kind"
    none = np.zeros(5, bool)
    assert place_new(top_k(scores, 3), scores, scores, none, 1, None)[0].tolist() == [[0, 1, 2], [0, 1, 2], [4, 3, 2]]


def test_settings_change_only_where_the_gain_is_sure() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(100)
    assert better([base, base + 0.001 * rng.normal(size=100), base - 0.1]) == 0
    assert better([base, base + 0.05 + 0.1 * rng.normal(size=100), base + 0.2]) == 2
    assert better([base, base]) == 0


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
        users=np.array(["c", "w"]),
        items=np.array(["new", "old", "x"]),
        relevant=sparse.csr_matrix(np.array([[0, 1, 0], [1, 1, 0]], np.float32)),
        warm=np.array([False, True]),
        met=np.array([0, 3, 0]),
        users_before=1,
    )
    lists = pa.table({"user_id": ["w", "w", "*"], "rank": [1, 2, 1], "item_id": ["new", "x", "old"]})
    rows = evaluate_model("m", lists, judgement, 20)
    value = {(r["metric"], r["slice"]): r["value"] for r in rows if r["k"] == 10}
    assert value["recall", "all"] == pytest.approx((0.5 + 1) / 2)
    assert value["recall", "user_warm"] == 0.5
    assert value["recall", "user_cold"] == 1.0, "an unknown user is judged by the list for everyone"
    assert value["recall", "item_cold"] == 1.0
    assert value["recall", "item_warm"] == 0.5
    assert value["coverage", "all"] == 1.0
