"""Cells as texts, numbers, lists: each type by its rule."""

import uuid
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from pipelines.raw.amounts import numbers
from pipelines.raw.cells import Cells, lists, texts


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("  a\x00b ", pa.string(), "a b"),
        ("e\u0301", pa.large_string(), "é"),
        ("\u00a0", pa.string(), None),
        (7.0, pa.float64(), "7"),
        (7.5, pa.float32(), "7.5"),
        (float("nan"), pa.float64(), None),
        (12345678901234567, pa.int64(), "12345678901234567"),
        (Decimal(7), pa.decimal128(38, 0), "7"),
        (Decimal("12.50"), pa.decimal128(10, 2), "12.5"),
        (Decimal("7.00"), pa.decimal128(10, 2), "7"),
        (True, pa.bool_(), "true"),
        (date(2026, 3, 1), pa.date32(), "2026-03-01"),
        (datetime(2026, 3, 1, 1), pa.timestamp("ns"), "2026-03-01T01:00:00"),
        (time(1, 2), pa.time32("s"), "01:02:00"),
        (b"abc", pa.binary(), "abc"),
        (b"\xff\x00", pa.binary(), "ff00"),
        (None, pa.null(), None),
    ],
)
def test_texts(value: Any, kind: pa.DataType, expected: str | None) -> None:
    found, structured = texts(Cells(pa.array([value], kind)))
    assert (found[0].as_py(), structured[0].as_py()) == (expected, False)


def test_uuids_and_dictionaries_are_texts() -> None:
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(int=7).bytes], pa.binary(16)))
    assert texts(Cells(ids))[0].to_pylist() == [str(uuid.UUID(int=7))]
    assert texts(Cells(pa.array(["a", None, "a"]).dictionary_encode()))[0].to_pylist() == ["a", None, "a"]


def test_lists_are_no_text_unless_they_are_paragraphs() -> None:
    arrow = Cells(pa.array([["one", " two "], [], None]))
    json = Cells(pa.array(['["one", ["two"]]', "[]", '{"a": 1}', "plain"]), pa.array([True, True, True, False]))
    assert texts(arrow)[1].to_pylist() == [True, True, False]
    assert [x.to_pylist() for x in texts(arrow, join=True)] == [["one\n two", None, None], [False, False, False]]
    found, structured = texts(json, join=True)
    assert (found.to_pylist()[0], found.to_pylist()[3]) == ("one\ntwo", "plain")
    assert structured.to_pylist() == [False, False, True, False], "an object is no text"


@pytest.mark.parametrize(
    ("text", "comma", "expected"),
    [
        ("4.5", False, 4.5), ("1e3", False, 1000.0), ("$1,299.00", False, 1299.0), ("1,299", False, 1299.0),
        ("12 €", False, 12.0), ("-3", False, -3.0), ("4,50", True, 4.5), ("1.299,90", True, 1299.9),
        ("1.299", True, 1299.0), ("4,50", False, None), ("from 7.25", False, None), ("inf", False, None),
        ("1e999", False, None), ("0x10", False, None),
    ],
)  # fmt: skip
def test_numbers_in_text(text: str, comma: bool, expected: float | None) -> None:
    found, lost = numbers(Cells(pa.array([text])), comma)
    assert (found[0].as_py(), lost[0].as_py()) == (expected, expected is None)


@pytest.mark.parametrize("text", ["", "NaN", "nan"])
def test_no_number_is_not_lost(text: str) -> None:
    found, lost = numbers(Cells(pa.array([text])), False)
    assert (found[0].as_py(), lost[0].as_py()) == (None, False)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, pa.uint8(), 3.0),
        (Decimal("1.50"), pa.decimal128(10, 2), 1.5),
        (True, pa.bool_(), 1.0),
        (2.5, pa.float16(), 2.5),
    ],
)
def test_numbers_of_arrow_types(value: Any, kind: pa.DataType, expected: float) -> None:
    assert numbers(Cells(pa.array([value], kind)), False)[0].to_pylist() == [expected]


def test_a_list_is_no_number() -> None:
    found, lost = numbers(Cells(pa.array([[1.0], None])), False)
    assert (found.to_pylist(), lost.to_pylist()) == ([None, None], [True, False])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b | |c", ["a", "b", "c"]),
        ('["a", ["b", null, "c"]]', ["a", "b", "c"]),
        ("['a', 'b']", ["a", "b"]),
        ("[unfinished|x", ["[unfinished", "x"]),
        ("[not a literal]", ["[not a literal]"]),
        ("(1, 2.0)", ["1", "2"]),
        ("{'b', 'a'}", ["a", "b"]),
        ("", []),
        (None, []),
    ],
)
def test_lists_in_text(text: str | None, expected: list[str]) -> None:
    assert lists(Cells(pa.array([text], pa.string())), "|").to_pylist() == [expected]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (["a", None, " "], pa.list_(pa.string()), ["a"]),
        ([["a"], ["b", "c"]], pa.list_(pa.list_(pa.string())), ["a", "b", "c"]),
        ([1, 2], pa.large_list(pa.int16()), ["1", "2"]),
        ({"a": 1}, pa.struct([("a", pa.int8())]), ['{"a": 1}']),
        (None, pa.list_(pa.string()), []),
        (5, pa.int8(), ["5"]),
    ],
)
def test_lists_of_arrow_types(value: Any, kind: pa.DataType, expected: list[str]) -> None:
    assert lists(Cells(pa.array([value], kind)), "|").to_pylist() == [expected]
