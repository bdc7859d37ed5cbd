"""Content addresses and content to vectors, by hand."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from pipelines.night.contents import content_of, features_of, item_address, needed, uploads_of, view_digest
from tests.lakes import at, rows_of

ITEMS = rows_of(
    "std_items",
    [
        {"item_id": "a", "text": "A", "text_sha256": "t1", "image_sha256s": ["i2", "i1"]},
        {"item_id": "b", "image_sha256s": ["i1"]},
        {"item_id": "c", "text": "A", "text_sha256": "t1"},
    ],
)
UPLOADS = rows_of(
    "std_user_content",
    [
        {"user_id": "u", "content_sha256": "t9", "modality": "text", "text": "nine", "created_at": at(1)},
        {"user_id": "u", "content_sha256": "i1", "modality": "image", "uri": "zz.jpg", "created_at": at(2)},
        {"user_id": "v", "content_sha256": "i7", "modality": "image", "uri": "7.jpg", "created_at": at(3)},
    ],
)
MEDIA = rows_of(
    "std_media",
    [
        {"sha256": s, "kind": k, "format": "x", "size_bytes": 1, "uri": f"{s}.jpg"}
        for s, k in (("i1", "image"), ("i2", "image"), ("i8", "image"), ("s1", "audio"))
    ],
)
KEYS = pa.array(["i1", "i2", "i3"])
MATRIX = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)


def test_content_of_items() -> None:
    assert content_of(ITEMS, "text", False).to_pylist() == [["t1"], [], ["t1"]]
    assert content_of(ITEMS, "image", False).to_pylist() == [["i2", "i1"], ["i1"], []]
    own = [[hashlib.sha256(b"item\0" + i).hexdigest()] for i in (b"a", b"b", b"c")]
    assert content_of(ITEMS, "image", True).to_pylist() == own
    assert item_address("a") == own[0][0]


def test_what_a_night_needs_once_in_order_of_address() -> None:
    texts = needed(ITEMS, UPLOADS, MEDIA, "text", False).to_pylist()
    assert [(r["content_sha256"], r["text"], r["uri"]) for r in texts] == [("t1", "A", None), ("t9", "nine", None)]
    images = needed(ITEMS, UPLOADS, MEDIA, "image", False).to_pylist()
    assert [(r["content_sha256"], r["text"], r["uri"]) for r in images] == [
        ("i1", None, "i1.jpg"),  # of the item and the upload, the first in order of name
        ("i2", None, "i2.jpg"),
        ("i7", None, "7.jpg"),
    ], "a file that nothing refers to is not needed, and neither is a sound"
    given = needed(ITEMS, UPLOADS, MEDIA, "image", True).to_pylist()
    assert {r["text"] for r in given} == {"a", "b", "c"}
    assert len(given) == 3, "nobody can look up an upload in a file of vectors"


def test_an_item_of_several_images_is_their_mean_on_the_unit_sphere() -> None:
    contents = pa.array([["i1", "i2"], ["i2"], [], ["gone"], ["i1", "gone", "i3"]])
    found = features_of(contents, KEYS, MATRIX)
    assert found.present.tolist() == [True, True, False, False, True]
    half = 0.5**0.5
    assert found.matrix[0].tolist() == pytest.approx([half, half])
    assert found.matrix[1].tolist() == [0, 1]
    mean = np.array([1.6, 0.8]) / np.hypot(1.6, 0.8)
    assert found.matrix[4].tolist() == pytest.approx(mean.tolist()), "what has no vector does not count"


def test_uploads_are_oldest_first_whatever_their_modality() -> None:
    uploads = UPLOADS.sort_by([("created_at", "ascending")])
    texts = (pa.array(["t9"]), np.array([[0, 0, 1]], np.float32))
    found = uploads_of(uploads, np.array(["u", "v", "w"], object), {"image": (KEYS, MATRIX), "text": texts})
    assert found.pieces.lengths.tolist() == [2, 0, 0], "i7 has no vector"
    assert found.modality.tolist() == ["text", "image"]
    assert found.row.tolist() == [0, 0]
    assert found.means("image").tolist() == [[1, 0], [0, 0], [0, 0]]


def test_the_mean_upload_of_a_user_is_a_unit_vector() -> None:
    rows = [
        {"user_id": "u", "content_sha256": s, "modality": "image", "uri": s, "created_at": at(d)}
        for s, d in (("i1", 1), ("i2", 2), ("i1", 3))
    ]
    found = uploads_of(rows_of("std_user_content", rows), np.array(["u"], object), {"image": (KEYS, MATRIX)})
    assert found.means("image")[0].tolist() == pytest.approx((np.array([2, 1]) / np.hypot(2, 1)).tolist())


def test_a_view_is_known_by_encoder_ops_and_epoch() -> None:
    one = view_digest("e", ("crop", "flip"), 0)
    assert one == view_digest("e", ["crop", "flip"], 0)
    others = {view_digest("f", ("crop", "flip"), 0), view_digest("e", ("flip", "crop"), 0)}
    assert len({one, view_digest("e", ("crop", "flip"), 1), *others}) == 4


def test_a_clip_that_is_sound_and_video_is_needed_for_both() -> None:
    """``std_media`` has a row a file, under the kind that was seen first."""
    items = rows_of("std_items", [{"item_id": "a", "audio_sha256s": ["m1"], "video_sha256s": ["m1"]}])
    media = rows_of("std_media", [{"sha256": "m1", "kind": "audio", "format": "mp4", "size_bytes": 1, "uri": "c.mp4"}])
    for modality in ("audio", "video"):
        rows = needed(items, UPLOADS.slice(0, 0), media, modality, False).to_pylist()
        assert rows == [{"content_sha256": "m1", "text": None, "uri": "c.mp4"}], modality
