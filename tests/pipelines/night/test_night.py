"""A night knows what was there at the end of its day, and reads it once."""

from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.lake.storage import StorageError
from pipelines.lake.tables import TABLES
from pipelines.night import night as module
from pipelines.night.night import forget
from tests.lakes import DAY, at, event, night_of, publish_vectors, tiny_lake
from tests.nights import lake_at, run_job
from tests.shop import FIRST, LAST

ITEMS = [
    {"item_id": "a", "text_sha256": "t1", "text": "one", "image_sha256s": ["i1"]},
    {"item_id": "b", "text_sha256": "t2", "text": "two"},
]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each Parquet part of a lake is opened to be read, by ``table/date=...``."""
    found: Counter[str] = Counter()
    real = pq.ParquetFile

    def counted(path: Path, **options: object) -> object:
        found["/".join(Path(path).parent.parts[-2:])] += 1
        return real(path, **options)

    monkeypatch.setattr(pq, "ParquetFile", counted)
    forget()
    return found


def test_nothing_after_the_day_is_read(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, [event("u", "a", at(9)), event("v", "b", at(12))], ITEMS)
    night = night_of(lake)
    assert night.events()["user_id"].to_pylist() == ["u"]
    assert night.dataset().users.tolist() == ["u"]
    assert night.end == at(11, 0)


def test_users_are_those_with_events_or_uploads_and_the_one_for_everyone(tmp_path: Path) -> None:
    upload = {"user_id": "z", "content_sha256": "t9", "modality": "text", "text": "x", "created_at": at(1)}
    lake = tiny_lake(tmp_path, [event("u", "unknown", at(9)), event("b", "a", at(9))], ITEMS, [upload])
    assert night_of(lake).dataset().users.tolist() == ["b", "u", "z"]
    assert night_of(lake).dataset(everyone=True).users.tolist() == ["*", "b", "u", "z"]
    assert night_of(lake).dataset().items.tolist() == ["a", "b"]


def test_an_item_that_was_only_shown_is_neither_met_nor_liked(tmp_path: Path) -> None:
    events = [event("u", "a", at(9)), event("u", "b", at(9), "impression"), event("v", "a", at(10), "impression")]
    night = night_of(tiny_lake(tmp_path, events, ITEMS))
    assert night.events()["item_id"].to_pylist() == ["a"]
    data = night.dataset()
    assert data.users.tolist() == ["u"], "v was shown something and did nothing"
    assert data.seen().toarray().tolist() == [[1, 0]]
    assert data.positives().nnz == 1


def test_what_did_not_change_is_read_once(tmp_path: Path, opened: Counter[str]) -> None:
    lake = tiny_lake(tmp_path, [event("u", "a", at(9)), event("v", "b", at(10))], ITEMS)
    for _ in range(3):
        night = night_of(lake)
        night.events(), night.items(), night.dataset(), night.dataset(everyone=True)
    assert opened["std_interactions/date=2026-03-09"] == 1
    assert opened["std_items/date=2026-03-10"] == 1
    events = [event("u", "b", at(9))]
    tiny_lake(tmp_path, events, ITEMS[:1])
    night = night_of(lake)
    assert night.dataset().items.tolist() == ["a"], "a partition that was made again is read again"
    assert night.events()["item_id"].to_pylist() == ["b"]
    assert opened["std_interactions/date=2026-03-09"] == 2


def test_other_settings_and_other_days_have_other_answers(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, [event("u", "a", at(9), "purchase"), event("u", "b", at(10))], ITEMS)
    tiny_lake(tmp_path, [event("u", "a", at(9), "purchase")], ITEMS, day=DAY - timedelta(days=1))
    assert night_of(lake).dataset().weight.tolist() == [5.0, 1.0]
    changed = night_of(lake, recommend={"event_weights": {"purchase": 2.0}})
    assert changed.dataset().weight.tolist() == [2.0, 1.0]
    assert night_of(lake, timezone="Asia/Tokyo").dataset().age_days.tolist() == pytest.approx([1.125, 0.125])
    assert night_of(lake, DAY - timedelta(days=1)).dataset().weight.tolist() == [5.0]
    assert night_of(lake).dataset().weight.tolist() == [5.0, 1.0]


def test_only_the_last_read_of_a_kind_is_kept(tmp_path: Path) -> None:
    forget()
    lake = tiny_lake(tmp_path, [event("u", "a", at(9))], ITEMS)
    tiny_lake(tmp_path, [event("u", "a", at(9))], ITEMS, day=DAY - timedelta(days=1))
    for day in (DAY, DAY - timedelta(days=1)):
        night_of(lake, day).items()
    assert [name for _, name in module._READ] == ["std_items"]
    forget()
    assert not module._READ


def test_vectors_are_those_of_the_nights_encoder_from_all_days(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, [], ITEMS)
    publish_vectors(lake, "text", {"t1": [1, 0], "t0": [0, 1]}, DAY - timedelta(days=2))
    publish_vectors(lake, "text", {"t2": [1, 0]}, DAY - timedelta(days=1), "another")
    publish_vectors(lake, "text", {"t2": [0.6, 0.8]})
    publish_vectors(lake, "text", {"t3": [1, 0]}, DAY + timedelta(days=1))
    publish_vectors(lake, "image", {})
    night = night_of(lake)
    vectors = night.vectors("text")
    assert vectors.keys.to_pylist() == ["t0", "t1", "t2"]
    assert vectors.matrix[2].tolist() == pytest.approx([0.6, 0.8])
    assert vectors.digest == "digest"
    features = night.features()
    assert set(features) == {"text"}, "a modality that no item has is no part of the space"
    assert features["text"].matrix.tolist() == [[1, 0], pytest.approx([0.6, 0.8])]
    assert night.encoder_digests() == {"text": "digest", "image": "digest"}


def test_content_is_encoded_where_no_night_has_its_vector(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, [], ITEMS)
    publish_vectors(lake, "text", {"t1": [1, 0]}, DAY - timedelta(days=1))
    publish_vectors(lake, "text", {"t2": [1, 0]}, DAY - timedelta(days=2), "another")
    publish_vectors(lake, "text", {"t2": [0, 1], "t9": [1, 0]}, DAY + timedelta(days=1))
    night = night_of(lake)
    content = night.needed("text")
    empty = lake.read("emb_text", DAY + timedelta(days=1)).slice(0, 0)
    found = night.reuse("emb_text", "digest", content, empty)
    assert (found.todo.num_rows, found.earlier) == (0, 1)
    assert found.copied["content_sha256"].to_pylist() == ["t2"], "of a later night, computed once"
    other = night.reuse("emb_text", "third", content, empty)
    assert (other.todo["content_sha256"].to_pylist(), other.earlier) == (["t1", "t2"], 0)


def test_a_night_without_a_catalogue_says_what_to_run(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, [event("u", "a", at(9))], ITEMS)
    with pytest.raises(StorageError, match="std_items has no partition 2026-03-09"):
        night_of(lake, DAY - timedelta(days=1)).items()


def test_keys_of_earlier_nights_alone(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, [], ITEMS)
    publish_vectors(lake, "text", {"t1": [1, 0]}, DAY - timedelta(days=1))
    publish_vectors(lake, "text", {"t2": [1, 0]})
    assert night_of(lake).earlier_keys("emb_text").to_pylist() == [{"content_sha256": "t1", "encoder_digest": "digest"}]
    assert night_of(lake).earlier_keys("emb_image").num_rows == 0
    assert TABLES["aug_views"].key == ("content_sha256", "view_digest")
    assert night_of(lake).earlier_keys("aug_views").column_names == ["content_sha256", "view_digest"]


def test_uploads_of_users_find_their_vectors(tmp_path: Path) -> None:
    rows = [
        {"user_id": "u", "content_sha256": s, "modality": "text", "text": s, "created_at": at(d)}
        for s, d in (("t2", 5), ("t1", 4), ("t7", 3))
    ]
    lake = tiny_lake(tmp_path, [event("a", "a", at(9))], ITEMS, rows)
    publish_vectors(lake, "text", {"t1": [1, 0], "t2": [0, 1]})
    publish_vectors(lake, "image", {})
    night = night_of(lake)
    found = night.uploaded(night.dataset().users, ("text",))
    assert found.pieces.lengths.tolist() == [0, 2]
    assert found.row.tolist() == [0, 1], "oldest first; what has no vector does not count"
    assert np.array_equal(found.vectors["text"], [[1, 0], [0, 1]])


@pytest.mark.slow
def test_a_night_reads_no_partition_more_than_twice(shop: Path, opened: Counter[str]) -> None:
    """Once to make what follows from it, and once to check it; earlier days of vectors have their keys read apart."""
    for day in (FIRST, LAST):
        opened.clear()
        forget()
        assert run_job(shop, day).success
        watched = ("std_interactions", "std_items", "emb_")
        reads = {name: n for name, n in opened.items() if name.startswith(watched)}
        assert len(reads) >= 5
        assert max(reads.values()) <= 2, reads
    assert sum(lake_at(shop).require("emb_text", d).rows for d in (FIRST, LAST))
    assert isinstance(lake_at(shop).read("std_items", LAST), pa.Table)


def test_reuse_counts_what_earlier_nights_made_apart_from_what_is_copied(tmp_path: Path) -> None:
    """Of five texts two are from earlier nights, two from this one and a later one, and one is nowhere."""
    items = [{"item_id": i, "text_sha256": f"t{i}", "text": i} for i in "12345"]
    lake = tiny_lake(tmp_path, [], items)
    publish_vectors(lake, "text", {"t1": [1, 0], "t2": [1, 0]}, DAY - timedelta(days=1))
    publish_vectors(lake, "text", {"t3": [1, 0]})
    publish_vectors(lake, "text", {"t3": [0, 1], "t4": [1, 0]}, DAY + timedelta(days=1))
    night = night_of(lake)
    found = night.reuse("emb_text", "digest", night.needed("text"), lake.read("emb_text", DAY).slice(0, 0))
    assert found.todo["content_sha256"].to_pylist() == ["t5"]
    assert found.earlier == 2
    rows = sorted(zip(found.copied["content_sha256"].to_pylist(), found.copied["vector"].to_pylist(), strict=True))
    assert rows == [("t3", [1, 0]), ("t4", [1, 0])], "the first that has it"


def test_what_takes_too_much_memory_is_not_kept(
    tmp_path: Path, opened: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = tiny_lake(tmp_path, [event("u", "a", at(9))], ITEMS)
    size = night_of(lake).items().nbytes
    monkeypatch.setattr(module, "KEPT_BYTES", size + 1)
    forget()
    opened.clear()
    for _ in range(2):
        night_of(lake).items()
    assert opened["std_items/date=2026-03-10"] == 1, "it fits"
    night_of(lake).events()
    night_of(lake).events()
    assert opened["std_interactions/date=2026-03-09"] == 1, "the last read stays"
    night_of(lake).items()
    assert opened["std_items/date=2026-03-10"] == 2, "the one before it had to go"


def test_vectors_of_another_encoder_are_read_again(tmp_path: Path) -> None:
    """Day 10 was made by encoder B without any new content, then again by A: its own rows are none both times."""
    lake = tiny_lake(tmp_path, [], ITEMS)
    publish_vectors(lake, "text", {"t1": [1, 0]}, DAY - timedelta(days=2), "A")
    publish_vectors(lake, "text", {"t1": [0, 1]}, DAY - timedelta(days=1), "B")
    for digest, expected in (("A", [[1, 0]]), ("B", [[0, 1]]), ("A", [[1, 0]])):
        publish_vectors(lake, "text", {}, DAY, digest)
        found = night_of(lake, modalities=("text",)).vectors("text")
        assert (found.digest, found.matrix.tolist()) == (digest, expected)
        assert night_of(lake, modalities=("text",)).features()["text"].matrix[0].tolist() == expected[0]


def test_vectors_of_another_encoder_alone_are_none(tmp_path: Path) -> None:
    lake = tiny_lake(tmp_path, [], ITEMS)
    publish_vectors(lake, "text", {"t1": [1, 0]}, DAY - timedelta(days=1), "A")
    publish_vectors(lake, "text", {}, DAY, "B")
    found = night_of(lake, modalities=("text",)).vectors("text")
    assert (found.keys.to_pylist(), found.matrix.shape) == ([], (0, 2))
    publish_vectors(lake, "text", {"t1": [1, 0], "t2": [0, 1]}, DAY - timedelta(days=1), "A")
    assert len(night_of(lake, modalities=("text",)).vectors("text").keys) == 0
