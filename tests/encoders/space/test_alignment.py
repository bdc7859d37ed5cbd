"""Training of the space: losses by hand, modality dropout, reproducible bytes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from encoders.settings import FusionKind
from encoders.space import alignment
from encoders.space.alignment import _Batches, _Trainer, info_nce, load_aligner, train_aligner
from encoders.space.closed_form import MAPS
from encoders.space.features import Features, Uploads
from encoders.space.fusion import FUSERS, fuse_items, fuse_users
from encoders.space.ragged import Ragged
from tests.shop import unit
from tests.worlds import GROUPS, SETTINGS, N, Trained, World


def test_training_is_reproducible_to_the_byte(world: World, trained: Trained) -> None:
    torch.set_num_threads(2)  # whatever its caller left
    assert train_aligner(world[0], world[1], SETTINGS) == trained


@pytest.mark.slow
@pytest.mark.parametrize("kind", FUSERS)
def test_every_kind_of_alignment_keeps_the_contract(world: World, kind: FusionKind) -> None:
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
    assert np.allclose(np.sum(list(fused.attention.values()), 0)[there], 1, atol=1e-5)
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
def test_hardly_any_log_still_makes_a_space(world: World, kind: FusionKind, users: int) -> None:
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


def test_info_nce_by_hand() -> None:
    import torch

    eye = torch.eye(2)
    expected = -np.log(np.e / (np.e + 1))
    assert float(info_nce(eye, eye, torch.tensor(1.0))) == pytest.approx(expected, abs=1e-6)
    same = torch.ones(2, 2, dtype=torch.bool)
    assert float(info_nce(eye, eye, torch.tensor(1.0), same=same)) == pytest.approx(0.0, abs=1e-6)


def test_a_dropped_modality_is_gone_from_every_item_but_one_that_has_no_other(world: World) -> None:
    features, _, _ = world
    rows = torch.arange(N)
    present = np.stack([features[m].present for m in sorted(features)], 1)
    whole, *without = (np.asarray(m) for m in _Trainer(features, SETTINGS, {}, "cpu").masks(rows))
    assert np.array_equal(whole, present)
    assert len(without) == len(features), "each modality has its turn"
    for column, mask in enumerate(without):
        both = present.all(1)
        assert not mask[both, column].any()
        assert mask[both, 1 - column].all()
        assert np.array_equal(mask[~both], present[~both]), "what an item has alone stays"
    assert len(_Trainer(features, replace(SETTINGS, modality_dropout=0.0), {}, "cpu").masks(rows)) == 1


def test_the_interaction_loss_is_shared_out_by_modality_dropout(world: World) -> None:
    features, histories, _ = world
    batches = _Batches(Ragged.of(histories), N, SETTINGS, np.arange(N))
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


@pytest.mark.slow
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
def test_training_starts_from_ridge_regression(world: World, kind: FusionKind) -> None:
    features, histories, _ = world
    begun = replace(SETTINGS, kind=kind, steps=1, learning_rate=1e-9)
    models = [load_aligner(*train_aligner(features, histories, s)) for s in (begun, replace(SETTINGS, kind="ridge"))]
    for model in models:
        model.frame.copy_(torch.eye(model.dim))  # each is turned by what its own vectors are
    first, ridge = (fuse_items(model, features) for model in models)
    for m, f in features.items():
        assert np.allclose(first.aligned[m][f.present], ridge.aligned[m][f.present], atol=1e-4)
    alone = features["text"].present ^ features["image"].present
    assert (first.vector[alone] * ridge.vector[alone]).sum(1).min() > 0.9, "a fuser adds next to nothing at first"


def test_correction_takes_the_log_of_how_often_an_item_is_drawn_off_its_logit() -> None:
    """Two users, two items, cosines 1 and 0, temperature 1; item 0 is drawn three times as often as item 1."""
    units, log_q = torch.eye(2), torch.log(torch.tensor([0.75, 0.25]))
    e = np.e
    users = -np.log((e / 0.75) / (e / 0.75 + 1 / 0.25)) / 2 - np.log((e / 0.25) / (e / 0.25 + 1 / 0.75)) / 2
    items = -np.log(e / (e + 1))
    found = info_nce(units, units, torch.tensor(1.0), log_q)
    assert float(found) == pytest.approx((users + items) / 2)


def test_pairs_that_are_no_negatives_do_not_count() -> None:
    vectors, same = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.zeros(3, 3, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    e2 = np.exp(2.0)
    expected = (2 * np.log((e2 + 1) / e2) + np.log((e2 + 2) / e2)) / 3
    assert float(info_nce(vectors, vectors, torch.tensor(0.5), None, same)) == pytest.approx(expected)


def test_how_often_items_are_drawn_is_counted_from_what_comes_after_the_first() -> None:
    """Item 0 is never a next item, item 1 twice, item 2 once; each counts once more."""
    batches = _Batches(Ragged.of([[0, 1, 2], [], [0, 1], [2]]), 3, SETTINGS, np.arange(3))
    assert np.exp(batches.log_q).tolist() == pytest.approx([1 / 6, 3 / 6, 2 / 6])


def test_a_batch_has_what_came_before_each_next_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "TRAIN_HISTORY", 2)
    batches = _Batches(Ragged.of([[0, 1, 2, 3], [], [4], [5, 6]]), 7, replace(SETTINGS, batch_size=64), np.arange(7))
    found = set()
    for _ in range(20):
        rows, mask, target = batches.next_items()
        assert (len(target), rows.shape[1]) == (4, 2), "no more than there are to draw from"
        found |= {(*r[m].tolist(), "->", int(t)) for r, m, t in zip(rows, mask, target, strict=True)}
        assert (rows[~mask] == 0).all()
    assert found == {(0, "->", 1), (0, 1, "->", 2), (1, 2, "->", 3), (5, "->", 6)}


@pytest.mark.slow
@pytest.mark.parametrize("items", [300, 3_000, 30_000])
def test_the_same_bytes_twice_at_every_size(items: int) -> None:
    rng = np.random.default_rng(items)
    features = {"text": Features(unit(rng, items, 24).astype(np.float32), rng.random(items) < 0.9)}
    histories = Ragged.of([rng.choice(items, 12, replace=False) for _ in range(items // 3)])
    settings = replace(SETTINGS, steps=5)
    assert train_aligner(features, histories, settings) == train_aligner(features, histories, settings)
