"""What recommenders learn from, as of a night and before its last days."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from encoders.space.alignment import load_aligner
from encoders.space.features import Uploads
from encoders.space.fusion import fuse_users
from encoders.space.ragged import Ragged
from pipelines.align import align
from pipelines.fuse import fuse
from pipelines.lake.cards import load_card
from pipelines.lake.storage import StorageError
from pipelines.lake.tables import TABLES
from pipelines.night.events import Dataset
from pipelines.night.inputs import (
    MOST_DOMAINS,
    domains_of,
    load_inputs,
    load_inputs_from,
    load_sparse,
    load_validation,
    relevant_after,
    save_inputs,
    save_sparse,
)
from pipelines.night.night import Night
from pipelines.recommenders.base import Inputs
from pipelines.sections import Aligner
from tests.lakes import DAY, at, config_of, event, night_of, publish_vectors, tiny_lake


def test_relevant_is_what_users_came_to_like_late_and_had_not_seen() -> None:
    #  user, item, weight, age
    rows = [(0, 0, 1, 9.0), (0, 0, 1, 1.0), (0, 1, 1, 1.0), (0, 2, -1, 1.0), (1, 2, 5, 3.001), (1, 1, 1, 3.0)]
    user, item, weight, age = (np.array(c) for c in zip(*rows, strict=True))
    data = Dataset(np.array(["a", "b"]), np.array(list("xyz")), user, item, weight, age, 30.0)
    seen = data.before(3.0).seen()
    assert seen.toarray().tolist() == [[1, 0, 0], [0, 0, 1]]
    assert relevant_after(data, 3.0, seen).toarray().tolist() == [[0, 1, 0], [0, 1, 0]]
    assert relevant_after(data, 3.0, None).toarray().tolist() == [[1, 1, 0], [0, 1, 0]]


def test_domains_are_numbered_by_what_is_liked_in_them() -> None:
    names = pa.chunked_array([["toys", None, "books", "toys", "books", "art"]])
    assert domains_of(names, np.array([1, 9, 5, 2, 0, 3])).tolist() == [2, 3, 0, 2, 0, 1], "of toys and art: by name"
    assert domains_of(pa.chunked_array([[None, None]], pa.string()), np.array([1, 2])).tolist() == [0, 0]
    many = pa.chunked_array([[f"d{n:03d}" for n in range(100)] + [None]])
    found = domains_of(many, np.array([*range(100, 0, -1), 500]))
    assert found[: MOST_DOMAINS - 1].tolist() == list(range(MOST_DOMAINS - 1))
    assert set(found[MOST_DOMAINS - 1 :].tolist()) == {MOST_DOMAINS - 1}, "the rest is one, with items without any"


def unit(*rows: tuple[float, float]) -> list[list[float]]:
    return [list(r) for r in rows]


def test_rows_of_inputs_are_those_of_users_and_items(tmp_path: Path) -> None:
    items = [{"item_id": "a", "text_sha256": "t1", "text": "x"}, {"item_id": "b"}]
    upload = {"user_id": "z", "content_sha256": "t2", "modality": "text", "text": "y", "created_at": at(1)}
    lake = tiny_lake(tmp_path, [event("u", "b", at(10, 0)), event("u", "a", at(10, 1), "skip")], items, [upload])
    publish_vectors(lake, "text", {"t1": [0.6, 0.8], "t2": [0, 1]})
    publish_vectors(lake, "image", {})
    features = [{"item_id": i, "vector": v} for i, v in (("a", [1.0, 0.0]), ("b", [0.0, 1.0]))]
    users = [{"user_id": u, "vector": v} for u, v in (("u", [0.6, 0.8]), ("z", [0.0, 1.0]))]
    for table, rows in (("feat_items", features), ("feat_users", users)):
        vectors = pa.array([r.pop("vector") for r in rows], pa.list_(pa.float32(), 2))
        lake.publish(table, DAY, with_vectors(table, rows, vectors))
    data, inputs = load_inputs(night_of(lake), "cpu")
    assert data.users.tolist() == ["*", "u", "z"]
    assert inputs.positives.toarray()[:, 0].tolist() == [0, 0, 0], "a skip is no positive feedback"
    assert inputs.positives[1, 1] == pytest.approx(0.5 ** (1 / 30))
    assert inputs.content["text"].tolist() == [pytest.approx([0.6, 0.8]), [0, 0]], "zero where there is no content"
    assert inputs.uploads["text"].tolist() == unit((0, 0), (0, 0), (0, 1))
    assert inputs.fused.tolist() == unit((1, 0), (0, 1))
    assert inputs.user_vectors.tolist() == [[0, 0], pytest.approx([0.6, 0.8]), [0, 1]]
    assert inputs.has_signal.tolist() == [False, True, True]
    assert [h.tolist() for h in inputs.histories] == [[], [1], []]
    assert (inputs.device, inputs.validation) == ("cpu", None)


def with_vectors(table: str, rows: list[dict[str, Any]], vectors: pa.Array) -> pa.Table:
    """Rows of a table with a vector each; other columns that they leave out are empty, zero or False."""
    columns: dict[str, Any] = {"vector": vectors}
    for c in (c for c in TABLES[table].columns if c.name not in columns):
        fills: dict[Any, Any] = {pa.bool_(): False, pa.string(): ""}
        fill = None if c.nullable else [] if pa.types.is_list(c.type) else fills.get(c.type, 0)
        columns[c.name] = pa.array([r.get(c.name, fill) for r in rows], None if c.name in rows[0] else c.type)
    return pa.table(columns)


def test_what_workers_read_back_is_what_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    positives = sparse.random(7, 5, 0.4, "csr", np.float32, rng)
    content = {"text": rng.normal(size=(5, 3)).astype(np.float32)}
    uploads = {"text": rng.normal(size=(7, 3)).astype(np.float32)}
    fused, users = content["text"] * 2, uploads["text"] * 2
    inputs = Inputs(positives, content, uploads, fused, users, np.arange(7) > 2, histories=Ragged.of([[1, 2], [], [4]]))
    save_inputs(inputs, tmp_path / "night")
    read = load_inputs_from(tmp_path / "night", "cpu")
    assert (read.positives != positives).nnz == 0
    for name in ("fused", "user_vectors", "has_signal"):
        assert np.array_equal(getattr(read, name), getattr(inputs, name)), name
    assert np.array_equal(read.content["text"], content["text"])
    assert np.array_equal(read.uploads["text"], uploads["text"])
    assert [h.tolist() for h in read.histories] == [[1, 2], [], [4]]
    assert isinstance(read.fused, np.memmap), "pages are read when they are used"
    save_sparse(positives.T.tocsr(), tmp_path / "night", "other")
    assert (load_sparse(tmp_path / "night", "other") != positives.T).nnz == 0


def test_validation_cuts_the_last_days_off_and_forgets_uploads(tmp_path: Path) -> None:
    """The last of ten days validate: u comes to like the latest items, and v its only one; w liked one long ago."""
    events = [event("u", f"i{d}", at(d, 23)) for d in range(1, 11)] + [event("v", "i1", at(10, 23))]
    events.append(event("w", "i2", at(2)))
    items = [{"item_id": f"i{d}", "text_sha256": f"t{d}", "text": "x"} for d in range(1, 11)]
    upload = {"user_id": "z", "content_sha256": "t1", "modality": "text", "text": "x", "created_at": at(1)}
    lake = tiny_lake(tmp_path, events, items, [upload])
    angles = np.linspace(0, 1, 10)
    publish_vectors(lake, "text", {f"t{d}": [np.cos(a), np.sin(a)] for d, a in zip(range(1, 11), angles, strict=True)})
    config = config_of(tmp_path, ("text",), aligner=Aligner(dim=8, heads=2, kind="ridge"))
    for stage in (align, fuse):
        list(stage(config, lake, DAY))
    night = Night.of(config, lake, DAY)
    data, now = load_inputs(night, "cpu")
    assert now.has_signal.tolist() == [False, True, True, True, True], "anyone else, u, v, w, and z who uploaded"
    days = data.validation_days()
    found = load_validation(night, data, now, 50, True, 7)
    late = {i for i, age in zip(data.items[data.item], data.age_days, strict=True) if age < days} - {"i1"}
    assert 0 < len(late) < 5
    assert set(data.items[found.relevant[1].indices]) == late
    assert (found.days, found.k) == (days, 7)
    assert found.past.has_signal.tolist() == [False, True, False, True, False], "v comes later, z has no likes"
    assert found.past.uploads == {}
    assert len(found.past.histories[1]) == 10 - len(late)
    assert found.seen is not None
    assert set(found.seen[1].indices) == set(found.past.histories[1].tolist())
    assert load_validation(night, data, now, 50, False, 7).seen is None
    weights = (lake.folder("model_aligner", DAY) / "aligner.safetensors").read_bytes()
    aligner = load_aligner(weights, load_card(lake, "aligner", DAY))
    expected = fuse_users(aligner, now.fused, found.past.histories, Uploads.none(5), 50, "cpu")
    assert np.array_equal(found.past.user_vectors, expected)
    latest = load_validation(night, data, now, 1, True, 7).past.user_vectors
    assert not np.allclose(latest[1], expected[1]), "one item describes a user, not fifty"


def test_a_modality_that_nobody_uploaded_has_rows_of_zeros(tmp_path: Path) -> None:
    items = [{"item_id": "a", "text_sha256": "t1", "text": "x", "image_sha256s": ["i1"]}]
    media = [{"sha256": "i1", "kind": "image", "format": "x", "uri": "1.jpg"}]
    upload = {"user_id": "z", "content_sha256": "t2", "modality": "text", "text": "y", "created_at": at(1)}
    lake = tiny_lake(tmp_path, [event("u", "a", at(9))], items, [upload], media)
    publish_vectors(lake, "text", {"t1": [0.6, 0.8], "t2": [0, 1]})
    publish_vectors(lake, "image", {"i1": [0, 1]})
    for table, ids in (("feat_items", [{"item_id": "a"}]), ("feat_users", [{"user_id": "u"}, {"user_id": "z"}])):
        vectors = pa.array([[1.0, 0.0]] * len(ids), pa.list_(pa.float32(), 2))
        lake.publish(table, DAY, with_vectors(table, ids, vectors))
    _, inputs = load_inputs(night_of(lake), "cpu")
    assert {m: u.tolist() for m, u in inputs.uploads.items()} == {
        "text": [[0, 0], [0, 0], [0, 1]],
        "image": [[0, 0]] * 3,
    }


def test_without_uploads_every_modality_has_rows_of_zeros(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, [event("u", "a", at(9))], [{"item_id": "a", "text_sha256": "t1", "text": "x"}])
    publish_vectors(lake, "text", {"t1": [0, 0, 1]})
    for table, ids in (("feat_items", [{"item_id": "a"}]), ("feat_users", [{"user_id": "u"}])):
        vectors = pa.array([[1.0, 0.0]], pa.list_(pa.float32(), 2))
        lake.publish(table, DAY, with_vectors(table, ids, vectors))
    _, inputs = load_inputs(night_of(lake, modalities=("text",)), "cpu")
    assert inputs.uploads["text"].tolist() == [[0, 0, 0]] * 2


def test_features_of_users_that_the_events_do_not_have_are_refused(tmp_path: Path) -> None:
    """Events were made again without user b after the features; the vector of b must not become that of c."""
    lake = tiny_lake(tmp_path, [event("a", "x", at(9)), event("c", "x", at(9))], [{"item_id": "x"}])
    publish_vectors(lake, "text", {"t1": [0, 1]})
    for table, ids in (("feat_items", [{"item_id": "x"}]), ("feat_users", [{"user_id": u} for u in "ab"])):
        vectors = pa.array([[1.0, 0.0]] * len(ids), pa.list_(pa.float32(), 2))
        lake.publish(table, DAY, with_vectors(table, ids, vectors))
    with pytest.raises(StorageError, match="feat_users of 2026-03-10 has users that its events do not have"):
        load_inputs(night_of(lake, modalities=("text",)), "cpu")
