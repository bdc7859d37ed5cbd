"""Shards that workers fuse: what they hold, and the columns beside the vector, by hand."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from encoders.settings import AlignerSettings
from encoders.space.alignment import card_bytes, load_aligner, train_aligner
from encoders.space.features import Features, Uploads
from encoders.space.fusion import fuse_users
from encoders.space.ragged import Ragged
from pipelines.fuse import Aligner, ItemShards, Space, UserShards, fuse, item_rows, user_rows
from pipelines.lake.storage import Lake
from pipelines.operation import Compute
from pipelines.sections import Aligner as Settings
from tests.lakes import DAY, at, config_of, event, night_of, publish_vectors, rows_of, tiny_lake
from tests.pipelines.night.test_inputs import with_vectors

DIM = 8
ITEMS = [{"item_id": i, "text_sha256": f"t{i}", "text": i} for i in "abc"]
EVENTS = [
    event("u", "a", at(8)), event("u", "b", at(9)), event("u", "a", at(10, 18)), event("v", "c", at(10), "skip"),
]  # fmt: skip
UPLOADS = [
    {"user_id": u, "content_sha256": s, "modality": m, "text": s, "created_at": at(d)}
    for u, s, m, d in (("w", "ta", "text", 3), ("w", "i1", "image", 4), ("u", "tc", "text", 5))
]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = tiny_lake(tmp_path, EVENTS, ITEMS, UPLOADS)
    publish_vectors(lake, "text", {"ta": [1, 0], "tb": [0, 1], "tc": [0.6, 0.8]})
    publish_vectors(lake, "image", {"i1": [1, 0]})
    features = {"text": Features(np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32), np.ones(3, bool))}
    settings = AlignerSettings(dim=DIM, steps=2, heads=2, batch_size=4)
    weights, card = train_aligner(features, [np.array([0, 1])], settings)
    lake.publish_files("model_aligner", DAY, {"aligner.safetensors": weights, "card.json": card_bytes(card)})
    rows = [{"item_id": i} for i in "abc"]
    vectors = pa.array(np.eye(3, DIM, dtype=np.float32).tolist(), pa.list_(pa.float32(), DIM))
    lake.publish("feat_items", DAY, with_vectors("feat_items", rows, vectors))
    return lake


@pytest.fixture
def aligner(lake: Lake) -> Aligner:
    return Space(str(lake.root), DAY, "cpu").load()


def test_rows_of_users(lake: Lake, aligner: Aligner) -> None:
    shards = UserShards(night_of(lake), history=50)
    table = user_rows(aligner, shards.of(slice(0, 3))).to_pylist()
    columns = ("user_id", "n_events", "n_items", "n_uploads", "last_event_at")
    assert [tuple(r[c] for c in columns) for r in table] == [
        ("u", 3, 2, 1, at(10, 18)),
        ("v", 1, 1, 0, at(10)),
        ("w", 0, 0, 1, None),  # nobody has a vector of its image: no item has images
    ]
    assert [r["recency_days"] for r in table] == [0.25, 0.5, None]
    digest = json.loads((lake.folder("model_aligner", DAY) / "_SUCCESS").read_text())["content_digest"]
    assert {r["aligner_digest"] for r in table} == {digest}


def test_a_shard_holds_what_its_users_need_and_any_cut_gives_the_same_rows(lake: Lake, aligner: Aligner) -> None:
    shards = UserShards(night_of(lake), history=50)
    one = shards.of(slice(0, 1))
    assert one["items"].shape == (2, DIM), "of three items the two that the user has liked"
    assert one["history.values"].tolist() == [1, 0], "b, then a again"
    assert one["vectors.text"].tolist() == [pytest.approx([0.6, 0.8])]
    whole = user_rows(aligner, shards.of(slice(0, 3)))
    for n in range(3):
        assert user_rows(aligner, shards.of(slice(n, n + 1))).equals(whole.slice(n, 1)), n
    last = UserShards(night_of(lake), history=1).of(slice(0, 1))
    assert last["items"].tolist() == [[1] + [0] * (DIM - 1)], "the most recent one alone"


def test_vectors_of_users_come_from_their_history_and_uploads(lake: Lake, aligner: Aligner) -> None:
    table = user_rows(aligner, UserShards(night_of(lake), history=50).of(slice(0, 3)))
    fused = np.eye(3, DIM, dtype=np.float32)
    text = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    pieces = Ragged(np.array([0, 1, 1, 2]), np.array([0, 1]))
    uploads = Uploads(pieces, np.array(["text", "text"]), np.array([2, 0]), {"text": text})
    expected = fuse_users(aligner.model, fused, Ragged.of([[1, 0], [], []]), uploads, 50)
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), expected)
    assert not np.allclose(expected[0], expected[2])


def test_rows_of_items_have_every_modality(lake: Lake, aligner: Aligner) -> None:
    shards = ItemShards(night_of(lake))
    table = item_rows(aligner, shards.of(slice(0, 3))).to_pylist()
    assert [r["item_id"] for r in table] == ["a", "b", "c"]
    assert [(r["has_text"], r["has_image"], r["has_video"]) for r in table] == [(True, False, False)] * 3
    assert {r["attention_text"] for r in table} == {1.0}
    assert {r["attention_image"] for r in table} == {0.0}
    assert all(r["vector_image"] is None and len(r["vector_text"]) == DIM for r in table)
    assert item_rows(aligner, shards.of(slice(1, 2))).to_pylist() == table[1:2]


def test_the_aligner_is_the_nights_own(lake: Lake, aligner: Aligner) -> None:
    folder = lake.folder("model_aligner", DAY)
    card = json.loads((folder / "card.json").read_text())
    other = load_aligner((folder / "aligner.safetensors").read_bytes(), card)
    state = aligner.model.state_dict()
    assert all(bool((state[k] == v).all()) for k, v in other.state_dict().items())
    assert aligner.device == "cpu"


def test_the_stage_publishes_every_row_in_order_however_rows_are_cut(lake: Lake) -> None:
    made = []
    for rows in (2, 2048):
        items, codes, centres, users = fuse(config_of(lake.root, compute=Compute(shard_rows=rows)), lake, DAY)
        digest = lake.require("model_aligner", DAY).content_digest
        assert [(m.table, m.rows, m.inputs) for m in (items, codes, centres, users)] == [
            ("feat_items", 3, {"model_aligner": digest}),
            ("item_codes", 3, {"model_aligner": digest}),
            ("code_centres", 5, {"model_aligner": digest}),
            ("feat_users", 3, {"model_aligner": digest}),
        ]
        made.append([lake.read(table, DAY) for table in ("item_codes", "code_centres", "feat_items", "feat_users")])
    assert made[0] == made[1]
    codes_of_items, centres_of, items, users = made[1]
    centre = {(r["level"], r["code"]): np.array(r["centre"]) for r in centres_of.to_pylist()}
    decoded = [np.sum([centre[p] for p in enumerate(codes)], 0) for codes in codes_of_items["codes"].to_pylist()]
    assert np.allclose(decoded, items["vector"].to_pylist(), atol=1e-6), "three items, three centres"
    assert [r["items"] for r in centres_of.to_pylist()] == [1, 1, 1, 3, 3]
    night, aligner = night_of(lake), Space(str(lake.root), DAY, "cpu").load()
    assert items["item_id"].to_pylist() == ["a", "b", "c"]
    all_items, all_users = (s.of(slice(0, 3)) for s in (ItemShards(night), UserShards(night, 50)))
    expected = item_rows(aligner, all_items), user_rows(aligner, all_users)
    assert items["vector"].to_pylist() == expected[0]["vector"].to_pylist()
    assert users["user_id"].to_pylist() == ["u", "v", "w"]
    assert (
        users["vector"].to_pylist() == user_rows(aligner, UserShards(night, 50).of(slice(0, 3)))["vector"].to_pylist()
    )
    assert not list((lake.root / "cache").glob("[!.]*")), "shards are removed"


def test_the_history_that_describes_a_user_is_configured(lake: Lake) -> None:
    list(fuse(config_of(lake.root, aligner=Settings(history=1)), lake, DAY))
    one = lake.read("feat_users", DAY)["vector"][0].as_py()
    list(fuse(config_of(lake.root), lake, DAY))
    assert one != lake.read("feat_users", DAY)["vector"][0].as_py()


def test_codes_continue_those_of_the_night_before(lake: Lake) -> None:
    """The last night's codes are others by hand: an item whose content is the same keeps what it had."""
    before = DAY - timedelta(days=1)
    list(fuse(config_of(lake.root), lake, DAY))
    rows = lake.read("item_codes", DAY)
    afresh = rows["codes"].to_pylist()
    other = pa.array([[n + 7, 0, 0] for n in range(3)], pa.list_(pa.int16()))
    lake.publish("std_items", before, rows_of("std_items", [*ITEMS[:2], ITEMS[2] | {"text_sha256": "another"}]))
    for frame, expected in ((rows["frame"][0].as_py(), [[7, 0, 0], [8, 0, 0]]), ("another", afresh[:2])):
        last = pa.table({"item_id": rows["item_id"], "codes": other, "frame": pa.array([frame] * 3)})
        lake.publish("item_codes", before, last)
        manifest = next(m for m in fuse(config_of(lake.root), lake, DAY) if m.table == "item_codes")
        codes = lake.read("item_codes", DAY)["codes"].to_pylist()
        assert codes[:2] == expected
        assert len({tuple(c) for c in codes}) == 3
        assert ("item_codes" in manifest.inputs) == (frame != "another")
