"""The frame that nights share: found again whatever the rotation, without any other night."""

from dataclasses import replace

import numpy as np
import pytest

from encoders.space import frame
from encoders.space.alignment import load_aligner, train_aligner
from encoders.space.features import Features, Uploads
from encoders.space.frame import frame_digest, rotation
from encoders.space.fusion import fuse_items, fuse_users
from encoders.space.ragged import Ragged
from tests.shop import unit
from tests.worlds import SETTINGS, N, Trained, World

ENCODERS = {"text": "minilm", "image": "lite0"}
DIM = 8


def content(seed: int = 0, items: int = 200) -> dict[str, Features]:
    """Two modalities, each of which some items lack."""
    rng = np.random.default_rng(seed)
    there = np.arange(items) % 5
    return {
        m: Features(unit(rng, items, length).astype(np.float32), there != lacking)
        for m, length, lacking in (("text", 24, 1), ("image", 40, 2))
    }


def anchored(features: dict[str, Features]) -> np.ndarray:
    """Where the frame wants each item."""
    maps = {m: frame._projection(m, ENCODERS[m], f.matrix.shape[1], DIM) for m, f in features.items()}
    return frame._anchors(features, maps, slice(0, len(features["text"].present)))


def turned(seed: int) -> np.ndarray:
    """A rotation that training may have come out with."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((DIM, DIM)))[0]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_space_that_differs_by_a_rotation_comes_out_the_same(seed: int) -> None:
    features = content()
    goal = anchored(features)
    found = rotation(goal @ turned(seed).T, features, ENCODERS)
    assert np.allclose(found, turned(seed), atol=1e-5)
    assert np.allclose(found @ found.T, np.eye(DIM), atol=1e-5), "nothing but a rotation"


def test_anchors_are_mean_directions_of_what_an_item_has() -> None:
    features = content(items=10)
    goal = anchored(features)
    text, image = (
        features[m].matrix @ frame._projection(m, ENCODERS[m], features[m].matrix.shape[1], DIM) for m in ENCODERS
    )
    text, image = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (text, image))
    assert np.allclose(goal[1], image[1], atol=1e-6), "no text"
    assert np.allclose(goal[2], text[2], atol=1e-6), "no image"
    assert np.allclose(goal[0], (text[0] + image[0]) / np.linalg.norm(text[0] + image[0]), atol=1e-6)


def test_the_rotation_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    features = content()
    vectors = unit(np.random.default_rng(3), 200, DIM)
    whole = rotation(vectors, features, ENCODERS)
    monkeypatch.setattr(frame, "BLOCK", 7)
    assert np.allclose(rotation(vectors, features, ENCODERS), whole, atol=1e-5)


def test_another_encoder_or_length_is_another_frame() -> None:
    features, vectors = content(), unit(np.random.default_rng(3), 200, DIM)
    other = ENCODERS | {"image": "clip"}
    assert len({frame_digest(ENCODERS, 64), frame_digest(other, 64), frame_digest(ENCODERS, 32)}) == 3
    assert frame_digest(ENCODERS, 64) == frame_digest(dict(reversed(ENCODERS.items())), 64)
    assert not np.allclose(rotation(vectors, features, ENCODERS), rotation(vectors, features, other), atol=0.1)


def test_two_trainings_of_the_same_shop_can_be_compared(world: World) -> None:
    """Other seeds and a tenth of the users less: without the frame the vectors have little in common."""
    features, histories, _ = world
    there = features["text"].present | features["image"].present
    nights = [
        load_aligner(*train_aligner(features, h, replace(SETTINGS, seed=seed), encoders=ENCODERS))
        for seed, h in ((0, histories), (1, histories[8:]))
    ]
    first, second = (fuse_items(n, features).vector[there] for n in nights)
    raw = [v @ n.frame.numpy().T for v, n in zip((first, second), nights, strict=True)]
    assert (raw[0] * raw[1]).sum(1).mean() < 0.8
    assert (first * second).sum(1).mean() > 0.9


def test_users_and_modalities_are_turned_as_items_are(world: World, trained: Trained) -> None:
    features, histories, _ = world
    model = load_aligner(*trained)
    turn = model.frame.numpy().copy()
    assert not np.allclose(turn, np.eye(len(turn)), atol=0.1)

    def everything() -> list[np.ndarray]:
        items = fuse_items(model, features)
        users = fuse_users(model, items.vector, Ragged.of(histories), Uploads.none(len(histories)), 5)
        return [items.vector, *items.aligned.values(), users]

    in_frame = everything()
    model.frame.copy_(model.frame.new_tensor(np.eye(len(turn))))
    for now, before in zip(in_frame, everything(), strict=True):
        assert np.allclose(now, before @ turn, atol=1e-5)
    assert len(in_frame[0]) == N


def test_an_aligner_of_an_earlier_version_has_no_frame(world: World, trained: Trained) -> None:
    from safetensors.torch import load, save

    weights = {name: t for name, t in load(trained[0]).items() if name != "frame"}
    model = load_aligner(save(weights), trained[1])
    assert np.array_equal(model.frame.numpy(), np.eye(model.dim))
