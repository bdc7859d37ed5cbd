"""What a file is, found in its bytes: containers, encodings, dialects, layouts, paths."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.raw.dialect import encoding_of
from pipelines.raw.places import RawError
from tests.raw import piece, read

EVENTS = [(f"u{n}", f"i{n}", "view", datetime(2026, 3, 1, n, tzinfo=UTC)) for n in range(12)]
HEAD = "user_id,item_id,event,event_at\n"
CSV = HEAD + "".join(f"{u},{i},{e},{t.isoformat()}\n" for u, i, e, t in EVENTS)
OBJECTS = [{"user_id": u, "item_id": i, "event": e, "event_at": t.isoformat()} for u, i, e, t in EVENTS]
LINES = "".join(json.dumps(o) + "\n" for o in OBJECTS)


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name in names:
            z.writestr(name, CSV)
    return out.getvalue()


SAME: dict[str, tuple[str, str | bytes, dict[str, Any]]] = {
    "plain": ("a.csv", CSV, {}),
    "gzip": ("a.csv.gz", gzip.compress(CSV.encode()), {}),
    "gzip in two members": ("a.csv.gz", gzip.compress(CSV[:200].encode()) + gzip.compress(CSV[200:].encode()), {}),
    "bzip2": ("a.bz2", bz2.compress(CSV.encode()), {}),
    "xz": ("a.xz", lzma.compress(CSV.encode()), {}),
    "zip of one": ("a.zip", zipped("a.csv", "__MACOSX/a.csv"), {}),
    "packed json": ("a.jsonl.gz", gzip.compress(LINES.encode()), {}),
    "a name that lies": ("a.parquet", CSV, {}),
    "no ending": ("20260301", LINES, {}),
    "rotated": ("app.log.1", CSV, {}),
    "byte order mark": ("a.csv", b"\xef\xbb\xbf" + CSV.encode(), {}),
    "utf-16": ("a.csv", CSV.encode("utf-16"), {}),
    "utf-16 without mark": ("a.csv", CSV.encode("utf-16-le"), {}),
    "utf-16, said": ("a.csv", CSV.encode("utf-16-be"), {"encoding": "utf-16-be"}),
    "carriage returns": ("a.csv", CSV.replace("\n", "\r"), {}),
    "both": ("a.csv", CSV.replace("\n", "\r\n"), {}),
    "no last newline": ("a.csv", CSV.rstrip("\n"), {}),
    "empty lines": ("a.csv", CSV.replace("\n", "\n\n"), {}),
    "semicolons": ("a.csv", CSV.replace(",", ";"), {}),
    "tabs": ("a.txt", CSV.replace(",", "\t"), {}),
    "bars": ("a.txt", CSV.replace(",", "|"), {}),
    "two colons": ("a.dat", CSV.replace(",", "::"), {}),
    "control characters": ("000000_0", CSV.replace(",", "\x01"), {}),
    "a delimiter that is said": ("a.txt", CSV.replace(",", "~~"), {"delimiter": "~~"}),
    "quoted cells": ("a.csv", "".join(f'"{line}"\n'.replace(",", '","') for line in CSV.splitlines()), {}),
    "quoted tabs": ("a.tsv", "".join(f'"{line}"\n'.replace(",", '"\t"') for line in CSV.splitlines()), {}),
    "empty trailing columns": ("a.csv", CSV.replace("\n", ",,\n"), {}),
    "trailing delimiter in rows alone": ("a.csv", HEAD + CSV.removeprefix(HEAD).replace("\n", ",\n"), {}),
    "another case": ("a.csv", CSV.replace(HEAD, " USER_ID ,Item_Id,EVENT,Event_At\n"), {}),
    "recbole": ("a.inter", CSV.replace(HEAD, "user_id:token,item_id:token,event:token,event_at:float\n"), {}),
    "an index column": ("a.csv", "".join(f"{n or ''},{line}\n" for n, line in enumerate(CSV.splitlines())), {}),
    "excel's first line": ("a.csv", "sep=;\n" + CSV.replace(",", ";"), {}),
    "a title": ("a.csv", "Report of 1 March\n\n" + CSV, {}),
    "no header, numbers": (
        "a.csv", CSV.removeprefix(HEAD), {"columns": {"user_id": "1", "item_id": "2", "event": "3", "event_at": "4"}},
    ),
    "no header, names": ("a.csv", CSV.removeprefix(HEAD), {"header": ("user_id", "item_id", "event", "event_at")}),
    "a header that is said and there": ("a.csv", CSV, {"header": ("user_id", "item_id", "event", "event_at")}),
    "json lines": ("a.jsonl", LINES, {}),
    "an array": ("a.json", json.dumps(OBJECTS), {}),
    "a pretty array": ("a.json", json.dumps(OBJECTS, indent=2), {}),
    "pretty objects": ("a.json", "\n".join(json.dumps(o, indent=2) for o in OBJECTS), {}),
    "several a line": ("a.json", LINES.replace("\n", "") + "\n", {}),
    "a list in an object": ("a.json", json.dumps({"n": 12, "data": {"rows": OBJECTS}}, indent=1), {}),
    "a list in an object, said": ("a.json", json.dumps({"rows": OBJECTS, "old": [{"a": 1}]}), {"records": "rows"}),
    "pages": (
        "a.json", "".join(json.dumps({"page": n, "rows": OBJECTS[6 * n : 6 * n + 6]}) + "\n" for n in (0, 1)), {},
    ),
    "nested": (
        "a.jsonl",
        "".join(
            json.dumps({"user": {"id": o["user_id"]}, "what": [{"sku": o["item_id"]}], "e": o}) + "\n" for o in OBJECTS
        ),
        {"columns": {"user_id": "user.id", "item_id": "what[0].sku", "event": "e.event", "event_at": "e.event_at"}},
    ),
    "a row an element": (
        "a.jsonl",
        "".join(
            json.dumps({"user_id": f"u{n}", "event": "view", "list": [{"i": f"i{n}", "t": t.isoformat()}]}) + "\n"
            for n, (*_, t) in enumerate(EVENTS)
        ),
        {"columns": {"item_id": "list[].i", "event_at": "list.t"}},
    ),
    "another name": (
        "a.csv", CSV.replace("event_at", "occurred_at"), {"columns": {"event_at": ("event_at", "occurred_at")}},
    ),
    "a path of Hive": ("event=view/a.csv", CSV.replace("event,", "").replace("view,", ""), {}),
    "a null of Hive and a default": (
        "event=__HIVE_DEFAULT_PARTITION__/a.csv",
        CSV.replace("event,", "").replace("view,", ""),
        {"defaults": {"event": "view"}},
    ),
    "events by synonym": ("a.csv", CSV.replace("view", "Page View"), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_the_same_events_in_every_shape(tmp_path: Path, name: str) -> None:
    file, content, source = SAME[name]
    rows, rejects = read(tmp_path, file, content, **({"columns": {}} | source))
    assert [(r["user_id"], r["item_id"], r["event"], r["event_at"]) for r in rows] == EVENTS
    assert rejects == []


def test_zstandard(tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as f:
        f.write(CSV.encode())
    rows, rejects = read(tmp_path, "a.csv.zst", sink.getvalue().to_pybytes(), columns={})
    assert (len(rows), rejects) == (12, [])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (zipped("a.csv", "b.csv"), "zip_of_several"),
        (zipped("[Content_Types].xml", "xl/sheet.xml"), "unsupported_format"),
        (gzip.compress(b"", mtime=0)[:5], "broken_gzip"),
        (b"ORC\x00\x01", "unsupported_format"),
        (b"Obj\x01avro", "unsupported_format"),
        (b"\x80\x04pickle", "unsupported_format"),
        (bytes(range(256)) * 40, "unsupported_format"),
    ],
)
def test_files_that_are_no_table_say_what_they_are(tmp_path: Path, content: bytes, reason: str) -> None:
    rows, rejects = read(tmp_path, "a.csv", content, columns={})
    assert (rows, [r["reason"] for r in rejects]) == ([], [reason])


def test_what_a_torn_archive_held_before_the_tear_is_kept(tmp_path: Path) -> None:
    text = HEAD + "".join(f"u{n},i{n % 977},view,{1772323200 + n * 7919 % 86399}\n" for n in range(200_000))
    packed = gzip.compress(text.encode())
    rows, rejects, account = piece(tmp_path, "a.csv.gz", packed[: len(packed) // 2], columns={})
    assert account.refused[0] == "broken_gzip"
    assert 50_000 < len(rows) + len(rejects) < 200_000
    assert rows[0]["user_id"] == "u0"


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.raw import containers

    monkeypatch.setattr(containers, "BOMB_BYTES", 1 << 20)
    rows, rejects = read(tmp_path, "a.csv.gz", gzip.compress(HEAD.encode() + b"\n" * (5 << 20)), columns={})
    assert (rows, [r["reason"] for r in rejects]) == ([], ["unpacks_too_large"])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"id,title\n1,plain\n", "utf-8"),
        ("id,title\n1,größer é\n".encode(), "utf-8"),
        ("id,title\n1,größer é, ein Café, naïve\n".encode("cp1252"), "cp1252"),
        ("id,title\n1,„Zitat“ – 5 €\n".encode("cp1252"), "cp1252"),
        ("größer é naïve Öl\n".encode() * 20 + b"\xff\xfe\xfd broken\n", "utf-8"),
        ("id,title\n".encode("utf-16"), "utf-16"),
    ],
)
def test_encodings(data: bytes, expected: str) -> None:
    assert encoding_of(data, b"") == expected


def test_binary_is_no_encoding() -> None:
    with pytest.raises(RawError, match="not text"):
        encoding_of(b"\x00\x01\x02" * 100, b"")


def test_accents_that_come_late_are_found(tmp_path: Path) -> None:
    text = "item_id,title\n" + "".join(f"{n},plain title\n" for n in range(80_000)) + "x,größer Öl é ü ä\n" * 50
    rows, rejects = read(tmp_path, "a.csv", text.encode("cp1252"), "items", columns={})
    assert rejects == []
    assert rows[-1]["title"] == "größer Öl é ü ä"


def test_what_was_found_is_said(tmp_path: Path) -> None:
    text = "sep=;\nKunde;item_id;event;event_at;value\n" + "".join(
        f"é{n};i;view;{n + 10}.03.2026 14:05;4,50\n" for n in range(9)
    )
    rows, _, account = piece(tmp_path, "a.csv.gz", gzip.compress(text.encode("cp1252")), columns={"user_id": "kunde"})
    assert rows[0]["value"] == 4.5
    assert account.shape is not None
    said = " ".join(account.shape["said"])
    for what in ("cp1252", "';'", "1 lines before the header", "'Kunde' read as user_id", "%d.%m.%Y", "comma", "gzip"):
        assert what in said, what


@pytest.mark.parametrize(
    ("titles", "suffix"),
    [
        (['"Heroes at dawn', '12" vinyl', '"both" ends open"'], ".tsv"),
        (["a 5\" pipe", 'x "y" z', "plain"], ".csv"),
    ],
)  # fmt: skip
def test_quotes_that_are_no_quotes_stay(tmp_path: Path, titles: list[str], suffix: str) -> None:
    d = "\t" if suffix == ".tsv" else ","
    text = f"item_id{d}title\n" + "".join(f"{n}{d}{t}\n" for n, t in enumerate(titles))
    rows, rejects = read(tmp_path, f"a{suffix}", text, "items", columns={})
    assert ([r["title"] for r in rows], rejects) == (titles, [])


def test_backslashes_before_quotes(tmp_path: Path) -> None:
    text = 'item_id,title\n1,"a \\"b\\", c"\n2,"d"\n'
    rows, rejects = read(tmp_path, "a.csv", text, "items", columns={})
    assert ([r["title"] for r in rows], rejects) == (['a "b", c', "d"], [])


def test_a_record_over_lines_survives_the_end_of_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.raw import lines

    monkeypatch.setattr(lines, "BLOCK_BYTES", 64)
    text = "item_id,title,description\n" + "".join(f'{n},t{n},"one\ntwo {n}, ""x""\nthree"\n' for n in range(50))
    rows, rejects = read(tmp_path, "a.csv", text, "items", columns={})
    assert rejects == []
    assert [r["description"] for r in rows] == [f'one\ntwo {n}, "x"\nthree' for n in range(50)]
    assert [r["_position"] for r in rows] == [2 + 3 * n for n in range(50)]


def test_a_quoted_first_column_may_span_lines(tmp_path: Path) -> None:
    text = 'title,item_id\n"one\ntwo",1\n"three",2\nfo"ur,3\nfi"ve,4\n'
    rows, rejects = read(tmp_path, "a.csv", text, "items", columns={})
    assert [(r["title"], r["item_id"]) for r in rows] == [
        ("one\ntwo", "1"),
        ("three", "2"),
        ('fo"ur', "3"),
        ('fi"ve', "4"),
    ]
    assert rejects == []


def test_a_stray_quote_joins_no_lines(tmp_path: Path) -> None:
    text = 'item_id,title\n1,"12\n2,13"\n3,"a"\n'
    rows, rejects = read(tmp_path, "a.csv", text, "items", columns={})
    assert ([r["item_id"] for r in rows], [(r["position"], r["reason"]) for r in rejects]) == (
        ["2", "3"],
        [(2, "unbalanced_quote")],
    )


def test_a_cell_may_be_longer_than_the_csv_module_likes(tmp_path: Path) -> None:
    long = "x" * 200_000
    text = f'item_id,title,description\n1,a,"{long}\n""y"""\n2,b,c\n'
    rows, rejects = read(tmp_path, "a.csv", text, "items", columns={})
    assert ([len(r["description"]) for r in rows], rejects) == ([200_004, 1], [])


def test_lines_end_at_line_ends_alone(tmp_path: Path) -> None:
    text = "item_id,title\x85\u2028,description\n1,a,b\n"
    rows, rejects = read(tmp_path, "a.csv", text, "items", columns={})
    assert ([(r["item_id"], r["description"]) for r in rows], rejects) == ([("1", "b")], [])


def test_packed_parquet(tmp_path: Path) -> None:
    table = pa.table({"item_id": ["1", "2"], "title": ["a", "b"]})
    pq.write_table(table, tmp_path / "x")
    packed = gzip.compress((tmp_path / "x").read_bytes())
    rows, rejects = read(tmp_path, "a.parquet.gz", packed, "items", columns={})
    assert ([r["title"] for r in rows], rejects) == (["a", "b"], [])


def test_what_else_a_file_of_users_says(tmp_path: Path) -> None:
    line = json.dumps({"user_id": "u", "tier": "gold", "age": 7, "address": {"city": "x"}}) + "\n"
    rows, _ = read(tmp_path, "a.jsonl", line, "users", columns={"segment": "tier"})
    assert (rows[0]["segment"], rows[0]["attributes"]) == ("gold", ["age=7", 'address={"city":"x"}'])


def test_a_tail_of_zeros_costs_its_line(tmp_path: Path) -> None:
    text = "item_id,title\n" + "".join(f"{n},t{n}\n" for n in range(9)) + "\0" * 4_000
    rows, rejects = read(tmp_path, "a.csv", text, "items", columns={})
    assert len(rows) == 9
    assert [(r["position"], r["reason"]) for r in rejects] == [(11, "bad_encoding")]


def test_cells_that_mean_nothing(tmp_path: Path) -> None:
    text = "item_id,title,price\n1,\\N,NULL\n2,null,1\nnan,x,2\n3,NAN,NaN\n"
    rows, rejects = read(tmp_path, "a.csv", text, "items", columns={})
    assert [(r["title"], r["price"]) for r in rows] == [(None, None), (None, 1.0), ("NAN", None)]
    assert [r["reason"] for r in rejects] == ["missing_item_id"]
    rows, _ = read(tmp_path, "b.csv", text, "items", columns={}, nulls=("null",))
    assert [(r["title"], r["price"]) for r in rows][:2] == [("\\N", None), (None, 1.0)]


def test_cells_take_the_value_above_them(tmp_path: Path) -> None:
    text = "order,uid,item_id,paid\nA,u,1,2026-03-01\nA,u,2,\nB,v,3,\nC,w,4,2026-03-02\nC,w,5,\n"
    settings: dict[str, Any] = {"columns": {"user_id": "uid", "event_at": "paid"}, "defaults": {"event": "purchase"}}
    rows, rejects = read(tmp_path, "a.csv", text, fill_down={"event_at": "order"}, **settings)
    assert [(r["item_id"], r["event_at"].day) for r in rows] == [("1", 1), ("2", 1), ("4", 2), ("5", 2)]
    assert [(r["position"], r["reason"]) for r in rejects] == [(4, "missing_event_at")], "B has none above it"


def test_ids_that_a_table_of_floats_made(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "a.csv", HEAD + "1.0,7.0,view,1772323200\n,8.0,view,1772323200\n", columns={})
    assert [(r["user_id"], r["item_id"]) for r in rows] == [("1", "7")]
    rows, _ = read(tmp_path, "b.csv", HEAD + "v1.0,7.0,view,1772323200\nx,8,view,1772323200\n", columns={})
    assert [(r["user_id"], r["item_id"]) for r in rows] == [("v1.0", "7.0"), ("x", "8")], "a version is no float"


def test_rules_make_columns_of_others(tmp_path: Path) -> None:
    columns = {"images": "covers/{item_id}.jpg"}
    rows, _ = read(tmp_path, "a.csv", "item_id,title\n0,a\n1,b\n", "items", columns=columns)
    assert [r["images"] for r in rows] == [["covers/0.jpg"], ["covers/1.jpg"]]


def test_an_optional_field_becomes_null_with_a_note(tmp_path: Path) -> None:
    text = "item_id,title,price,created_at\n1,a,from 7,2026-03-01\n2,b,7.5,soon\n3,c,none,2026-03-01\n"
    rows, rejects, account = piece(tmp_path, "a.csv", text, "items", columns={})
    assert [(r["item_id"], r["price"]) for r in rows] == [("1", None), ("2", 7.5), ("3", None)]
    assert rejects == []
    assert sorted(account.notes) == [
        ["created_at", "bad_timestamp", 1, 3, "soon"],
        ["price", "bad_number", 2, 2, "from 7"],
    ]


def test_days_in_folders(tmp_path: Path) -> None:
    text = "user_id,item_id,event\nu,i,view\n"
    for path in ("dt=2026-03-05/a.csv", "year=2026/month=3/day=05/a.csv", "ds=20260305/a.csv"):
        rows, _ = read(tmp_path, path, text, columns={})
        assert [r["event_at"] for r in rows] == [datetime(2026, 3, 5, tzinfo=UTC)], path
    rows, rejects = read(tmp_path, "2026-03-05.csv", text, columns={})
    assert (rows, [r["reason"] for r in rejects]) == ([], ["missing_column"]), "a name of a file is no column"


def test_a_log_is_dated_once_even_where_a_path_says_a_day(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "dt=2026-03-09/a.csv", CSV, columns={})
    assert rows[1]["event_at"] == EVENTS[0][3] + timedelta(hours=1)


SEGMENT = [("u1", ""), ("", "a2"), ("u3", "a3")]


@pytest.mark.parametrize("fmt", ["csv", "jsonl", "parquet"])
def test_a_column_under_several_names_takes_the_first_that_a_row_has(tmp_path: Path, fmt: str) -> None:
    names = ("userId", "anonymousId", "item_id", "event", "event_at")
    rows = [dict(zip(names, (u or None, a or None, "i", "view", 1772323200), strict=True)) for u, a in SEGMENT]
    if fmt == "csv":
        content = ",".join(names) + "\n" + "".join(f"{u},{a},i,view,1772323200\n" for u, a in SEGMENT)
    elif fmt == "jsonl":
        content = "".join(json.dumps({k: v for k, v in r.items() if v}) + "\n" for r in rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x")
        content = (tmp_path / "x").read_bytes()  # type: ignore[assignment]
    found, rejects = read(tmp_path, f"a.{fmt}", content, columns={"user_id": ["userId", "anonymousId"]})
    assert ([r["user_id"] for r in found], rejects) == (["u1", "a2", "u3"], [])


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Война и мир", "cp1251"), ("Война и мир", "koi8-r"), ("Πόλεμος και ειρήνη", "iso8859-7"),
        ("战争与和平", "gbk"), ("戦争と平和", "shift_jis"), ("戦争と平和", "euc-jp"), ("전쟁과 평화", "euc-kr"),
    ],
)  # fmt: skip
def test_other_alphabets_are_said_not_guessed(tmp_path: Path, text: str, encoding: str) -> None:
    data = ("item_id,title\n" + "".join(f"{n},{text} {n}\n" for n in range(30))).encode(encoding)
    rows, rejects = read(tmp_path, "a.csv", data, "items", columns={})
    assert (rows, len(rejects)) == ([], 1)
    assert rejects[0]["reason"] in ("unknown_encoding", "unsupported_format")
    assert "say its encoding" in rejects[0]["detail"]
    rows, rejects = read(tmp_path, "a.csv", data, "items", columns={}, encoding=encoding)
    assert ([r["title"] for r in rows], rejects) == ([f"{text} {n}" for n in range(30)], [])


@pytest.mark.parametrize(
    "text", ["Ça été très bien à l'hôtel", "Größe, Öl, Übermaß", "año niño", "Žluťoučký"[2:], "Ærø å"]
)
def test_western_words_are_guessed(tmp_path: Path, text: str) -> None:
    data = ("item_id,title\n" + "".join(f'{n},"{text} {n}"\n' for n in range(30))).encode("cp1252", "replace")
    rows, rejects = read(tmp_path, "a.csv", data, "items", columns={})
    assert (len(rows), rejects) == (30, [])


@pytest.mark.parametrize("kind", ["gz", "zip", "bz2", "xz", "zst"])
def test_an_archive_with_wrong_bytes_costs_itself(tmp_path: Path, kind: str) -> None:
    text = "item_id,title\n" + "".join(f"{n * 7919 % 5003},{n * 104729 % 997}\n" for n in range(20_000))
    packed = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("a.csv", text)
    elif kind == "zst":
        with pa.CompressedOutputStream(packed, "zstd") as z:
            z.write(text.encode())
            z.flush()
            held = packed.getvalue()
        packed = io.BytesIO(held)
    else:
        packed.write({"gz": gzip, "bz2": bz2, "xz": lzma}[kind].compress(text.encode()))
    for seed in range(6):
        data = bytearray(packed.getvalue())
        for i in range(40):
            data[(seed + 1) * len(data) // 8 + i] ^= 0x5A
        _, _, account = piece(tmp_path, f"{seed}.csv.{kind}", bytes(data), "items", columns={})
        assert account.refused[0].startswith(("broken_", "unreadable", "unsupported", "missing"))
        assert account.lost > 0


def test_words_for_nothing_are_none_under_any_name(tmp_path: Path) -> None:
    text = "item_id,title,name\n1,,NULL\n2,NULL,N/A\n3,NULL,c\n"
    rows, _ = read(tmp_path, "a.csv", text, "items", columns={"title": ["title", "name"]})
    assert [r["title"] for r in rows] == [None, None, "c"]
