"""Fusing items and users: content and taste, missing modalities, uploads."""

from dataclasses import replace

import numpy as np

from encoders.space.alignment import load_aligner, train_aligner
from encoders.space.features import Features, Uploads
from encoders.space.fusion import fuse_items, fuse_users
from encoders.space.ragged import Ragged
from tests.worlds import GROUPS, SETTINGS, Trained, World


def test_space_holds_content_and_taste(world: World, trained: Trained) -> None:
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


def test_missing_modalities_are_masked_never_read(world: World, trained: Trained) -> None:
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
    assert np.allclose(np.sum(list(fused.attention.values()), 0)[there], 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(fused.vector, axis=1), 1, atol=1e-5)
    assert np.isfinite(fused.vector[~there]).all()


def test_fused_vectors_do_not_depend_on_neighbours(world: World, trained: Trained) -> None:
    features, histories, _ = world
    model = load_aligner(*trained)
    whole = fuse_items(model, features).vector
    part = fuse_items(model, {m: Features(f.matrix[30:37], f.present[30:37]) for m, f in features.items()}).vector
    assert np.array_equal(whole[30:37], part)
    users = fuse_users(model, whole, Ragged.of(histories), Uploads.none(len(histories)), 20)
    assert np.array_equal(users[5:6], fuse_users(model, whole, Ragged.of(histories[5:6]), Uploads.none(1), 20))


def test_uploads_speak_for_a_user_without_history(world: World, trained: Trained) -> None:
    features, _, group = world
    model = load_aligner(*trained)
    fused = fuse_items(model, features).vector
    rows = np.flatnonzero(features["text"].present)[:20]
    one_each = Ragged(np.arange(21), np.arange(20))
    uploads = Uploads(one_each, np.full(20, "text"), rows, {"text": features["text"].matrix})
    users = fuse_users(model, fused, Ragged.of([[]] * 20), uploads, 20)
    there = np.flatnonzero(features["text"].present)
    assert (group[there[(users @ fused[there].T).argmax(1)]] == group[rows]).mean() > 0.8


def test_an_item_without_content_has_a_place_of_its_own(world: World) -> None:
    features, histories, _ = world
    model = load_aligner(*train_aligner(features, histories, replace(SETTINGS, kind="ridge")))
    none = {m: Features(f.matrix[:3], np.zeros(3, bool)) for m, f in features.items()}
    vectors = fuse_items(model, none).vector
    assert np.isfinite(vectors).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
