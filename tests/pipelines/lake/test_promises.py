"""Every promise: kept on a good night, broken on purpose it says so."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from assets.checks import TABLE_RULES, check_specs, checked
from pipelines.lake.promises import PROMISES
from pipelines.lake.storage import Lake
from tests.lakes import DAY, at, config_of, event, night_of, publish_vectors, rows_of, tiny_lake

ITEMS = [{"item_id": i, "text_sha256": f"t{i}", "text": i} for i in "abcde"]
EVENTS = [event("u", "a", at(9)), event("u", "unknown", at(9)), event("v", "b", at(10)), event("v", "c", at(10))]


def broken(lake: Lake, table: str, name: str, rows: pa.Table | None = None, **recommend: Any) -> list[str]:
    """What a promise says of rows, those of the lake by default."""
    config = config_of(lake.root, recommend=recommend)
    promise = next(p for p in PROMISES[table] if p.name == name)
    rows = lake.read(table, DAY) if rows is None else rows
    return promise.broken(config, night_of(lake), table, rows.select(list(promise.columns)))


def lists(*rows: tuple[str, int, str, float]) -> pa.Table:
    names = ("user_id", "rank", "item_id", "score")
    return rows_of("recommendations", [dict(zip(names, r, strict=True)) for r in rows])


def full(k: int = 2, **instead: Sequence[str]) -> pa.Table:
    """Lists of two unseen items for both users and everyone else."""
    of = {"*": "ab", "u": "bc", "v": "ad"} | instead
    return lists(*((u, n, i, 1.0 - n) for u, items in of.items() for n, i in enumerate(items[:k], 1)))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return tiny_lake(tmp_path, EVENTS, ITEMS)


SHORT: dict[str, Any] = {"k": 2, "new_items": 1}
WORD = ("recommendations", "lists_keep_their_word")


def test_full_lists_of_unseen_items_keep_the_word(lake: Lake) -> None:
    assert broken(lake, *WORD, full(), **SHORT) == []


@pytest.mark.parametrize(
    ("instead", "message"),
    [
        ({"u": ["b", "zz"]}, "1 rows recommend items that are not in the catalogue"),
        ({"u": ["b", "b"]}, "1 rows repeat an item within a list"),
        ({"u": ["b", "a"]}, "1 rows recommend what the user has seen"),
        ({"u": ["b"]}, "1 users have no full list, for example u"),
        ({"u": []}, "1 users have no full list, for example u"),
        ({"*": ["b"]}, r"1 users have no full list, for example \*"),
        ({"v": ["a", "d", "e"]}, "1 users have no full list, for example v"),
    ],
)
def test_a_broken_list_is_named(lake: Lake, instead: Mapping[str, Sequence[str]], message: str) -> None:
    rows = full(3 if len(next(iter(instead.values()))) > 2 else 2, **instead)
    with pytest.raises(AssertionError, match=message):
        assert not broken(lake, *WORD, rows, **SHORT), broken(lake, *WORD, rows, **SHORT)


def test_seen_items_may_be_listed_where_that_is_configured(lake: Lake) -> None:
    assert broken(lake, *WORD, full(u=["a", "b"]), filter_seen=False, **SHORT) == []
    assert "no full list" in broken(lake, *WORD, full(u=["a"]), filter_seen=False, **SHORT)[0]


def test_where_seen_items_may_be_listed_a_full_list_has_all_of_a_small_catalogue(lake: Lake) -> None:
    catalogue = sorted(i["item_id"] for i in ITEMS)
    short: dict[str, Any] = {"k": len(catalogue), "new_items": 1, "filter_seen": False}
    everything = full(len(catalogue), **dict.fromkeys(("*", "u", "v"), catalogue))
    assert broken(lake, *WORD, everything, **short) == []
    assert (
        "no full list"
        in broken(lake, *WORD, full(9, **{"*": catalogue, "u": catalogue, "v": catalogue[1:]}), **short)[0]
    )


def test_a_list_is_full_when_nothing_unseen_is_left(lake: Lake) -> None:
    of = {"*": "abcde", "u": "bcde", "v": "ade"}
    rows = lists(*((u, n, i, -n) for u, items in of.items() for n, i in enumerate(items, 1)))
    assert broken(lake, *WORD, rows, k=9) == []


def test_scores_must_not_rise(lake: Lake) -> None:
    name = ("recommendations", "scores_fall")
    assert broken(lake, *name, lists(("u", 1, "a", 2.0), ("u", 2, "b", 2.0), ("v", 1, "c", 9.0))) == []
    rising = lists(("u", 1, "a", 2.0), ("u", 2, "b", 3.0), ("u", 3, "c", 3.5), ("v", 1, "c", 9.0))
    assert broken(lake, *name, rising) == ["2 rows score higher than the row above them"]


def test_no_event_is_after_the_day(lake: Lake) -> None:
    name = ("std_interactions", "nothing_after_the_day")
    assert broken(lake, *name) == []
    late = rows_of("std_interactions", [event("u", "a", at(10, 23, 59)), event("u", "a", at(11, 0))])
    assert broken(lake, *name, late) == [
        "an event at 2026-03-11 00:00:00+00:00 is not before 2026-03-11 00:00:00+00:00"
    ]
    assert broken(lake, *name, late.slice(0, 1)) == []


def rejected(lake: Lake, *rows: Mapping[str, Any], step: str = "standardize") -> None:
    lake.publish_step("quarantine", DAY, step, rows_of("quarantine", rows))


def row(stage: str, source: str, position: int = 0, reason: str = "x") -> dict[str, Any]:
    return {"stage": stage, "source": source, "position": position, "reason": reason}


def ledger(**files: tuple[int, int, int, int]) -> pa.Table:
    names = ("rows_in", "rows_out", "rows_superseded", "rows_quarantined")
    kind = {"kind": "items", "rows_lost": 0}
    return rows_of("ingest_files", [kind | {"source": f} | dict(zip(names, n, strict=True)) for f, n in files.items()])


def test_rows_in_are_accounted_file_by_file(lake: Lake) -> None:
    name = ("ingest_files", "rows_accounted")
    rejected(
        lake,
        row("ingest_items", "a", 3),
        row("ingest_items", "a", 4),
        row("ingest_items", "a", 0),
        row("media", "a", 5),
    )
    assert broken(lake, *name, ledger(a=(10, 7, 1, 2), b=(4, 4, 0, 0))) == []
    assert broken(lake, *name, ledger(a=(11, 7, 1, 2))) == ["a: in 11, out 7 + superseded 1 + quarantined 2"]
    assert broken(lake, *name, ledger(a=(9, 7, 1, 2))) == ["a: in 9, out 7 + superseded 1 + quarantined 2"]
    assert len(broken(lake, *name, ledger(a=(10, 7, 1, 3)))) == 1, "a file that says three where two are in quarantine"
    assert len(broken(lake, *name, ledger(b=(4, 3, 0, 1)))) == 1, "a reject that is in no table"
    rejected(lake, row("ingest_items", "b", 1), step="another")
    assert broken(lake, *name, ledger(b=(4, 3, 0, 1))) == [], "of any step"


def test_every_reference_has_a_vector_or_a_reason(tmp_path: Path) -> None:
    items = [
        {"item_id": "a", "text_sha256": "t1", "text": "x", "image_sha256s": ["i1", "i2"]},
        {"item_id": "b", "text_sha256": "t2", "text": "y"},
    ]
    upload = {"user_id": "u", "content_sha256": "t3", "modality": "text", "text": "z", "created_at": at(1)}
    media = [{"sha256": s, "kind": "image", "format": "x", "uri": f"{s}.jpg"} for s in ("i1", "i2")]
    lake = tiny_lake(tmp_path, [], items, [upload], media)
    rejected(lake)
    publish_vectors(lake, "text", {"t1": [1, 0]}, DAY - timedelta(days=1))
    publish_vectors(lake, "text", {"t2": [1, 0], "t3": [1, 0]})
    publish_vectors(lake, "image", {"i1": [1, 0]})
    name = "references_embedded"
    assert broken(lake, "emb_text", name) == []
    assert broken(lake, "emb_image", name) == ["1 contents have no vector and no reason: i2"]
    rejected(lake, row("embed_text", "i2.jpg"), step="emb_text")
    assert broken(lake, "emb_image", name), "the reason of another modality is none"
    rejected(lake, row("embed_image", "i2.jpg"), step="emb_image")
    assert broken(lake, "emb_image", name) == []
    publish_vectors(lake, "text", {"t2": [1, 0]})
    assert broken(lake, "emb_text", name) == ["1 contents have no vector and no reason: t3"], "an upload is a reference"
    rejected(lake, row("embed_text", "t3"), step="emb_text")
    assert broken(lake, "emb_text", name) == []
    publish_vectors(lake, "text", {"t2": [1, 0], "t3": [1, 0]}, digest="another")
    assert broken(lake, "emb_text", name) == ["1 contents have no vector and no reason: t1"], "of another encoder"


def test_five_of_many_are_named(tmp_path: Path) -> None:
    items = [{"item_id": f"{n}", "text_sha256": f"t{n}", "text": f"{n}"} for n in range(7)]
    lake = tiny_lake(tmp_path, [], items)
    rejected(lake)
    publish_vectors(lake, "text", {})
    expected = ["7 contents have no vector and no reason: t0, t1, t2, t3, t4"]
    assert broken(lake, "emb_text", "references_embedded") == expected


def test_every_promise_is_a_blocking_check_with_its_text(lake: Lake) -> None:
    names = {t: {p.name for p in promises} for t, promises in PROMISES.items()}
    assert names["recommendations"] == {"lists_keep_their_word", "scores_fall"}
    assert all(names[f"emb_{m}"] == {"references_embedded"} for m in ("text", "image", "audio", "video"))
    assert set(names) >= {"ingest_files", "std_interactions"}
    for table, promises in PROMISES.items():
        specs = {s.name: s for s in check_specs(table)}
        assert all(s.blocking for s in specs.values())
        assert all(specs[p.name].description == p.text for p in promises)


def test_parts_of_a_table_by_steps_are_in_order_each_for_itself(lake: Lake) -> None:
    file = {
        "source": "a",
        **dict.fromkeys(["rows_in", "rows_out", "rows_superseded", "rows_quarantined", "rows_lost"], 0),
    }
    config, night = config_of(lake.root), night_of(lake)
    lake.publish_step("quarantine", DAY, "events", rows_of("quarantine", []))
    for step, kind in (("events", "interactions"), ("standardize", "controls")):
        lake.publish_step("ingest_files", DAY, step, rows_of("ingest_files", [file | {"kind": kind}]))
    result = {r.check_name: r for r in checked(config, night, "ingest_files").results}["keys_unique"]
    assert result.passed, result.metadata
    lake.publish_step("ingest_files", DAY, "standardize", rows_of("ingest_files", [file | {"kind": "interactions"}]))
    result = {r.check_name: r for r in checked(config, night, "ingest_files").results}["keys_unique"]
    assert "1 rows repeat a key (kind, source)" in str(result.metadata["problems"].value)


def test_checks_read_what_was_published_and_report_what_is_wrong(lake: Lake) -> None:
    config, night = config_of(lake.root), night_of(lake)
    good = checked(config, night, "std_interactions")
    assert {r.check_name for r in good.results} == set(TABLE_RULES) - {"norms_one"} | {"nothing_after_the_day"}
    assert all(r.passed for r in good.results)
    assert good.sample.num_rows == 2
    late = rows_of("std_interactions", [event("u", "a", at(12))])
    lake.publish("std_interactions", DAY, late)
    bad = {r.check_name: r for r in checked(config, night, "std_interactions").results}
    assert not bad["nothing_after_the_day"].passed
    assert "2026-03-12" in str(bad["nothing_after_the_day"].metadata["problems"].value)
    assert bad["keys_unique"].passed
