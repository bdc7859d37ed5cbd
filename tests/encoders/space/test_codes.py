"""Codes of items: nearest centres of what is left over, apart from each other, kept from night to night."""

import numpy as np
import pytest

from encoders.space import codes as module
from encoders.space.codes import CENTRES, LEVELS, NEW, Codes, codes_of
from tests.shop import unit


def clusters(items: int, seed: int = 0, dim: int = 16) -> np.ndarray:
    """Unit vectors around 300 places."""
    rng = np.random.default_rng(seed)
    places = unit(rng, 300, dim)
    rows = places[rng.integers(300, size=items)] + 0.15 * unit(rng, items, dim)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def overlap(vectors: np.ndarray, codes: Codes) -> float:
    """Share of the ten nearest items that are the ten nearest by the codes' centres as well."""
    near = []
    for x in (vectors, codes.decoded()):
        alike = x @ x.T - np.square(x).sum(1)[None] / 2
        np.fill_diagonal(alike, -np.inf)
        near.append(np.argsort(-alike, 1, kind="stable")[:, :10])
    return float(np.mean([len({*a} & {*b}) / 10 for a, b in zip(*near, strict=True)]))


def test_a_small_catalogue_has_a_centre_an_item() -> None:
    vectors = unit(np.random.default_rng(0), 40, 8).astype(np.float32)
    found = codes_of(vectors)
    assert np.allclose(found.decoded(), vectors, atol=1e-6)
    assert len(np.unique(found.codes[:, 0])) == 40
    assert (found.codes[:, 1:] == found.codes[0, 1:]).all(), "nothing is left over"


def test_each_code_is_the_nearest_centre_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four corners with four points around each, by hand: corners first, then the same four offsets."""
    monkeypatch.setattr(module, "CENTRES", 4)
    corners, offsets = 10 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]), np.array([[1, 0], [-1, 0], [0, 2], [0, -2]])
    points = (corners[:, None] + offsets[None]).reshape(-1, 2).astype(np.float32)
    found = codes_of(points)
    assert np.allclose(found.decoded(), points, atol=1e-5)
    of_corner = found.codes[:, 0].reshape(4, 4)
    assert (of_corner == of_corner[:, :1]).all()
    assert len({*of_corner[:, 0].tolist()}) == 4
    assert (found.codes[:, 1].reshape(4, 4) == found.codes[:4, 1]).all(), "an offset has one code at every corner"


def test_codes_tell_items_apart_and_keep_their_neighbours() -> None:
    vectors = clusters(3000)
    found = codes_of(vectors)
    assert found.codes.dtype == np.int16
    assert (found.codes.min(), found.codes.max()) == (0, CENTRES - 1)
    assert found.collisions == 0
    assert overlap(vectors, found) > 0.6
    again = codes_of(vectors)
    assert np.array_equal(again.codes, found.codes)
    assert np.array_equal(again.centres, found.centres)


def test_centres_are_means_of_what_they_stand_for() -> None:
    vectors = clusters(1000)
    found = codes_of(vectors)
    rest = vectors.astype(np.float64)
    for level in range(LEVELS):
        for code in np.unique(found.codes[:, level])[:20]:
            mine = found.codes[:, level] == code
            assert np.allclose(found.centres[level, code], rest[mine].mean(0), atol=1e-5)
        rest -= found.centres[level][found.codes[:, level]]


def test_codes_are_kept_while_vectors_move_a_little() -> None:
    """A night later every vector has moved (cosine .95), sixty items are new and ten have other content."""
    rng, vectors = np.random.default_rng(1), clusters(2000)
    first = codes_of(vectors)
    moved = vectors + 0.33 * unit(rng, 2000, 16)
    now = np.concatenate([moved / np.linalg.norm(moved, axis=1, keepdims=True), clusters(60, seed=9)])
    before = np.concatenate([first.codes, np.full((60, LEVELS), NEW)]).astype(np.int64)
    before[:10] = NEW
    second = codes_of(now, before)
    kept = (second.codes[10:2000] == first.codes[10:]).all(1).mean()
    assert 0.95 <= kept < 1
    assert second.collisions < 0.01
    error, afresh = (np.square(now - c.decoded()).sum(1).mean() for c in (second, codes_of(now)))
    assert error < 2.5 * afresh
    assert np.square(now[2000:] - second.decoded()[2000:]).sum(1).mean() < 0.3, "new items are near their codes"


def test_a_shop_that_grows_uses_codes_that_are_free() -> None:
    vectors = unit(np.random.default_rng(2), 300, 8).astype(np.float32)
    codes = codes_of(vectors[:20]).codes
    for items in (60, 150, 240):
        before = np.full((items, LEVELS), NEW)
        before[: len(codes)] = codes
        found = codes_of(vectors[:items], before)
        assert np.array_equal(found.codes[: len(codes)], codes)
        assert np.allclose(found.decoded(), vectors[:items], atol=1e-5), items
        codes = found.codes


def test_equal_items_are_told_apart_by_the_last_code() -> None:
    vectors = np.repeat(unit(np.random.default_rng(3), 5, 8), 30, 0).astype(np.float32)
    found = codes_of(vectors)
    assert found.collisions == 0
    assert np.square(vectors - found.decoded()).sum(1).max() < 1e-6
    crowd = codes_of(np.repeat(vectors[:1], CENTRES + 10, 0))
    counts = np.unique(crowd.codes, axis=0, return_counts=True)[1]
    assert len(counts) == CENTRES, "all there are"
    assert crowd.collisions == pytest.approx((CENTRES + 10 - (counts == 1).sum()) / (CENTRES + 10))


def test_who_had_a_code_keeps_it_from_a_newcomer() -> None:
    vectors = unit(np.random.default_rng(4), 30, 8).astype(np.float32)
    first = codes_of(vectors)
    twice = np.concatenate([vectors[:1], vectors])
    before = np.concatenate([np.full((1, LEVELS), NEW), first.codes.astype(np.int64)])
    found = codes_of(twice, before)
    assert np.array_equal(found.codes[1:], first.codes)
    assert found.codes[0].tolist()[:-1] == first.codes[0].tolist()[:-1]
    assert found.codes[0, -1] != first.codes[0, -1]


def test_two_who_shared_their_codes_both_keep_them() -> None:
    vectors = unit(np.random.default_rng(4), 30, 8).astype(np.float32)
    first = codes_of(vectors).codes.astype(np.int64)
    twice = codes_of(np.concatenate([vectors, vectors]), np.concatenate([first, first]))
    assert np.array_equal(twice.codes, np.concatenate([first, first])), "none is new or changed"


@pytest.mark.parametrize("items", [0, 1, 2])
def test_hardly_any_items(items: int) -> None:
    vectors = unit(np.random.default_rng(5), 3, 4)[:items].astype(np.float32)
    found = codes_of(vectors)
    assert found.codes.shape == (items, LEVELS)
    assert codes_of(vectors, np.full((items, LEVELS), NEW)).codes.tolist() == found.codes.tolist()
