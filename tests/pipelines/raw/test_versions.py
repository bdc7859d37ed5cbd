"""Which version of an item is known, which upload counts: by hand."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.raw import pieces
from pipelines.raw.account import Account
from pipelines.raw.columns import RAW_COLUMNS
from pipelines.raw.known import Piece
from pipelines.raw.media import MediaFile
from pipelines.raw.pieces import REJECTS
from pipelines.raw.shape import Shape
from pipelines.raw.typed import schema_of
from pipelines.raw.versions import (
    Found,
    current,
    item_texts,
    items_table,
    known_rows,
    references_of,
    sha256s,
    uploaded_references,
    uploads,
    uploads_table,
    without_gone,
)
from tests.lakes import at

D = date(2026, 3, 10)


def piece(
    root: Path,
    kind: str,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    named: date | None = None,
    rejects: Sequence[Mapping[str, Any]] = (),
) -> Piece:
    """A piece of a raw file: rows are numbered from 1, ``_day`` is that of ``updated_at`` or ``created_at``."""
    folder = root / name.replace("/", "_")
    folder.mkdir(parents=True)
    full = []
    for n, r in enumerate(rows, 1):
        when = r.get("updated_at") or r.get("created_at")
        lists: dict[str, Any] = {c: [] for c, t in RAW_COLUMNS[kind].items() if pa.types.is_list(t)}
        full.append(
            lists | {"_position": n, "_day": when.date() if when else None, "_known": 0, "source": name} | dict(r)
        )
    schema = schema_of(kind).append(pa.field("source", pa.string()))
    pq.write_table(pa.Table.from_pylist(full, schema=schema), folder / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(list(rejects), schema=REJECTS), folder / "rejects.parquet")
    return Piece(name, 0, folder, named, D, pieces.Account())


def items_of(root: Path, *pieces: Piece, day: date = D) -> tuple[dict[str, str], Account]:
    account = Account()
    rows = current("items", known_rows("items", list(pieces), day, account), list(pieces), account)
    return dict(zip(rows["item_id"].to_pylist(), rows["title"].to_pylist(), strict=True)), account


def titled(item: str, title: str, **when: Any) -> dict[str, Any]:
    return {"item_id": item, "title": title, **when}


def test_the_latest_version_that_is_not_after_the_day_wins(tmp_path: Path) -> None:
    one = piece(
        tmp_path,
        "items",
        "a.jsonl",
        [
            titled("x", "old", created_at=at(1)),
            titled("x", "new", updated_at=at(9), created_at=at(1)),
            titled("x", "future", updated_at=at(11)),
            titled("y", "undated"),
        ],
    )
    found, account = items_of(tmp_path, one)
    assert found == {"x": "new", "y": "undated"}
    assert account.files["a.jsonl", "items"] == {"in": 3, "out": 2, "superseded": 1}
    assert items_of(tmp_path, one, day=date(2026, 3, 8))[0] == {"x": "old", "y": "undated"}
    assert items_of(tmp_path, one, day=date(2026, 3, 12))[0]["x"] == "future"


def test_within_a_day_the_later_time_wins_then_the_later_file_then_the_later_row(tmp_path: Path) -> None:
    first = piece(tmp_path, "items", "a.jsonl", [titled("x", "morning", updated_at=at(9, 8)), titled("y", "first")])
    second = piece(tmp_path, "items", "b.jsonl", [titled("x", "night", updated_at=at(9, 7)), titled("y", "second")])
    third = piece(tmp_path, "items", "c.jsonl", [titled("z", "one"), titled("z", "two")])
    assert items_of(tmp_path, second, first, third)[0] == {"x": "morning", "y": "second", "z": "two"}


def test_undated_rows_count_from_the_date_in_the_files_name(tmp_path: Path) -> None:
    base = piece(tmp_path, "items", "base.jsonl", [titled("x", "dated", updated_at=at(7)), titled("y", "base")])
    change = piece(
        tmp_path, "items", "2026-03-08.jsonl", [titled("x", "change"), titled("y", "change")], date(2026, 3, 8)
    )
    later = piece(tmp_path, "items", "2026-03-11.jsonl", [titled("x", "later")], date(2026, 3, 11))
    assert items_of(tmp_path, base, change, later)[0] == {"x": "change", "y": "change"}
    assert items_of(tmp_path, base, change, later, day=date(2026, 3, 7))[0] == {"x": "dated", "y": "base"}


def test_rejects_of_a_file_count_up_to_the_day(tmp_path: Path) -> None:
    rejects = [
        {"position": 5, "reason": "bad_number", "detail": "", "day": date(2026, 3, 9)},
        {"position": 6, "reason": "bad_number", "detail": "", "day": date(2026, 3, 11)},
        {"position": 7, "reason": "bad_json", "detail": "", "day": None},
    ]
    _, account = items_of(tmp_path, piece(tmp_path, "items", "a.csv", [titled("x", "x")], rejects=rejects))
    rows = account.quarantine().to_pylist()
    assert [(r["stage"], r["position"], r["reason"]) for r in rows] == [
        ("ingest_items", 5, "bad_number"),
        ("ingest_items", 7, "bad_json"),
    ]
    assert account.files["a.csv", "items"] == {"in": 3, "out": 1, "quarantined": 2}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("Blue wave", "A print.", ["ocean", "art"], ["new"]), "Blue wave. A print. ocean, art. new"),
        (("  Blue \n wave. ", None, [], []), "Blue wave"),
        ((None, None, ["ocean"], []), "ocean"),
        ((None, None, [], []), None),
        (("...", " ", [], []), None),
        (("Café\u00a0\u3000noir..", None, [], []), "Café noir"),
    ],
)
def test_text_of_an_item(parts: tuple[Any, ...], expected: str | None) -> None:
    names = ("title", "description", "categories", "tags")
    types = [pa.string(), pa.string(), pa.list_(pa.string()), pa.list_(pa.string())]
    row = pa.Table.from_pylist([dict(zip(names, parts, strict=True))], pa.schema(list(zip(names, types, strict=True))))
    assert item_texts(row).to_pylist() == [expected]


def test_content_addresses_are_sha256_of_utf8() -> None:
    texts = ["a", None, "größer 限定", ""]
    expected = [None if t is None else hashlib.sha256(t.encode()).hexdigest() for t in texts]
    assert sha256s(pa.array(texts, pa.string())).to_pylist() == expected


def media(kind: str, uri: str, sha: str, reason: str = "") -> tuple[tuple[str, str], MediaFile]:
    return (kind, uri), MediaFile(uri, kind, "", sha, 1, "{}", reason, "")


def test_an_item_has_its_usable_files_once_in_the_order_of_its_references(tmp_path: Path) -> None:
    rows = [
        {"item_id": "x", "images": ["b.jpg", "a.jpg", "copy-of-b.jpg", "torn.jpg"], "audios": ["s.wav"]},
        {"item_id": "y", "title": "words", "images": ["torn.jpg"]},
    ]
    account = Account()
    of_file = [piece(tmp_path, "items", "a.jsonl", rows)]
    items = current("items", known_rows("items", of_file, D, account), of_file, account)
    refs = references_of(items).to_pylist()
    assert [(r["kind"], r["uri"], r["position"]) for r in refs if r["kind"] != "video"] == [
        ("image", "b.jpg", 1), ("image", "a.jpg", 1), ("image", "copy-of-b.jpg", 1), ("image", "torn.jpg", 1),
        ("image", "torn.jpg", 2), ("audio", "s.wav", 1),
    ]  # fmt: skip
    found: Found = dict(
        [
            media("image", "a.jpg", "A"),
            media("image", "b.jpg", "B"),
            media("image", "copy-of-b.jpg", "B"),
            media("image", "torn.jpg", "T", "undecodable_image"),
            media("audio", "s.wav", "S"),
        ]
    )
    table = items_table(items, found).to_pylist()
    assert [r["image_sha256s"] for r in table] == [["B", "A"], []]
    assert [r["audio_sha256s"] for r in table] == [["S"], []]
    assert [r["text"] for r in table] == [None, "words"]
    assert table[0]["text_sha256"] is None
    assert table[1]["text_sha256"] == hashlib.sha256(b"words").hexdigest()


def test_an_upload_counts_once_and_every_row_has_a_fate(tmp_path: Path) -> None:
    rows = [
        {"user_id": "u", "created_at": at(1), "text": "sea", "image": "a.jpg"},  # 1: both new
        {"user_id": "u", "created_at": at(1), "text": "sea"},  # 2: there already
        {"user_id": "u", "created_at": at(2), "text": "sea"},  # 3: at another time
        {"user_id": "v", "created_at": at(1), "image": "torn.jpg"},  # 4: cannot be used
        {"user_id": "v", "created_at": at(1), "image": "torn.jpg", "text": "sky"},  # 5: its text can
        {"user_id": "v", "created_at": at(1)},  # 6: nothing
    ]
    account = Account()
    pieces = uploads(
        known_rows("user_content", [piece(tmp_path, "user_content", "u.jsonl", rows)], D, account), account
    )
    assert uploaded_references(pieces)["uri"].to_pylist() == ["a.jpg", "torn.jpg", "torn.jpg"]
    found = dict([media("image", "a.jpg", "A"), media("image", "torn.jpg", "T", "undecodable_image")])
    table = uploads_table(pieces, found, account).to_pylist()
    sea, sky = (hashlib.sha256(t).hexdigest() for t in (b"sea", b"sky"))
    assert [(r["user_id"], r["content_sha256"], r["modality"], r["created_at"].day) for r in table] == [
        ("u", sea, "text", 1), ("u", "A", "image", 1), ("u", sea, "text", 2), ("v", sky, "text", 1),
    ]  # fmt: skip
    assert account.files["u.jsonl", "user_content"] == {"in": 6, "out": 3, "superseded": 1, "quarantined": 2}
    assert {(r["position"], r["reason"]) for r in account.rows} == {(4, "no_usable_content"), (6, "no_content")}


def with_shape(piece: Piece, *columns: str, **account: Any) -> Piece:
    """A piece of a CSV file that has some columns."""
    shape = asdict(Shape("csv", header=columns, columns={c: c for c in columns}))
    facts = pieces.Account(shape=shape, rows=1, **account)
    return replace(piece, account=facts)


def test_a_catalogue_in_two_files_has_the_columns_of_both(tmp_path: Path) -> None:
    names = piece(tmp_path, "items", "a.csv", [titled("x", "X"), titled("y", "Y")])
    texts = piece(tmp_path, "items", "b.csv", [{"item_id": "x", "description": "words"}, {"item_id": "z"}])
    both = [with_shape(names, "item_id", "title"), with_shape(texts, "item_id", "description")]
    account = Account()
    found = current("items", known_rows("items", both, D, account), both, account)
    assert found.select(["item_id", "title", "description"]).to_pylist() == [
        {"item_id": "x", "title": "X", "description": "words"},
        {"item_id": "y", "title": "Y", "description": None},
        {"item_id": "z", "title": None, "description": None},
    ]
    assert found["tags"].to_pylist() == [[], [], []]


def test_a_value_that_a_later_file_leaves_empty_is_gone(tmp_path: Path) -> None:
    first = piece(tmp_path, "items", "a.csv", [titled("x", "X")])
    later = piece(tmp_path, "items", "b.csv", [{"item_id": "x"}])
    both = [with_shape(p, "item_id", "title") for p in (first, later)]
    found = current("items", known_rows("items", both, D, Account()), both, Account())
    assert found["title"].to_pylist() == [None]


def test_what_the_latest_whole_catalogue_lacks_is_removed(tmp_path: Path) -> None:
    def file(day: int, *ids: str, **account: Any) -> Piece:
        rows = [titled(i, i) for i in ids]
        named = date(2026, 3, day)
        return with_shape(piece(tmp_path, "items", f"2026-03-{day:02}.csv", rows, named), "item_id", "title", **account)

    files = [file(7, "x", "y", "z"), file(8, "x", "y"), file(9, "x", refused=["broken_gzip", ""]), file(11, "z")]
    items = current("items", known_rows("items", files, D, Account()), files, Account())
    gone = dict(zip(items["item_id"].to_pylist(), without_gone(items, files, D)["status"].to_pylist(), strict=True))
    assert gone == {"x": None, "y": None, "z": "removed"}


def test_a_torn_part_of_a_day_removes_nothing(tmp_path: Path) -> None:
    def file(name: str, day: int, *ids: str, **account: Any) -> Piece:
        rows = [titled(i, i) for i in ids]
        return with_shape(piece(tmp_path, "items", name, rows, date(2026, 3, day)), "item_id", "title", **account)

    def gone(*files: Piece) -> set[str]:
        items = without_gone(current("items", known_rows("items", list(files), D, Account()), list(files), Account()), list(files), D)  # noqa: E501 # fmt: skip
        return {i for i, s in zip(items["item_id"].to_pylist(), items["status"].to_pylist(), strict=True) if s}

    whole, first = file("9.csv", 9, "a", "b"), file("10/a.csv", 10, "a")
    torn = file("10/b.json", 10, "c", refused=["broken_json", ""])
    assert gone(whole, first) == {"b"}
    assert gone(whole, first, torn) == set(), "b may stand behind the tear; c was read"
    undated = with_shape(piece(tmp_path, "items", "old.csv", [titled("o", "o")]), "item_id", "title")
    assert gone(undated, whole, first) == {"b"}


def test_a_default_stands_where_no_version_says_anything(tmp_path: Path) -> None:
    first = with_shape(
        piece(tmp_path, "items", "a.csv", [titled("x", "X", status="hidden")]), "item_id", "title", "status"
    )
    rows = [titled("x", "X", status="new"), titled("y", "Y", status="new")]  # by default, the file has no status
    later = with_shape(piece(tmp_path, "items", "b.csv", rows), "item_id", "title")
    refused = replace(piece(tmp_path, "items", "c.csv", []), account=pieces.Account(refused=["unsupported_format", ""]))
    files = [first, later, refused]
    found = current("items", known_rows("items", files, D, Account()), files, Account())
    assert found["status"].to_pylist() == ["hidden", "new"]
    alone = current("items", known_rows("items", [later, refused], D, Account()), [later, refused], Account())
    assert alone["status"].to_pylist() == ["new", "new"]


def test_two_uploads_of_one_line_have_fates_of_their_own(tmp_path: Path) -> None:
    rows = [
        {"_position": 1, "user_id": "u", "created_at": at(1), "text": "sea"},
        {"_position": 1, "user_id": "u", "created_at": at(1), "text": "sea"},
        {"_position": 1, "user_id": "u", "created_at": at(1)},
        {"_position": 1, "user_id": "v", "created_at": at(1)},
    ]
    account = Account()
    known = known_rows("user_content", [piece(tmp_path, "user_content", "u.jsonl", rows)], D, account)
    table = uploads_table(uploads(known, account), {}, account)
    assert table.num_rows == 1
    assert account.files["u.jsonl", "user_content"] == {"in": 4, "out": 1, "superseded": 1, "quarantined": 2}
    assert account.quarantine().num_rows == 2
