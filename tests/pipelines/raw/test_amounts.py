"""Numbers as people write them."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.raw.amounts import decimal_of, numbers
from pipelines.raw.cells import Cells
from tests.raw import piece


@pytest.mark.parametrize(
    ("cell", "comma", "expected"),
    [
        ("12.50", False, 12.5), ("1,299.00", False, 1299), ("1,299", False, 1299), ("1.299,90", True, 1299.9),
        ("1.299", True, 1299), ("9,90", True, 9.9), ("9,90", False, None), ("1.299,90", False, None),
        ("$12.50", False, 12.5), ("-$12.50", False, -12.5), ("$-12.50", False, -12.5), ("12.50 USD", False, 12.5),
        ("USD 12.50", False, 12.5), ("usd12.50", False, 12.5), ("kr 12,50", True, 12.5), ("12,50 kr.", True, 12.5),
        ("CHF 1'299.50", False, 1299.5), ("CHF 1\u2019299.50", False, 1299.5), ("R$ 5,00", True, 5),
        ("1\u00a0299,50 €", True, 1299.5), ("1\u202f299,50", True, 1299.5), ("1 299", False, 1299),
        ("₹1,25,000.00", False, 125_000), ("(12.50)", False, -12.5), ("($1,299.00)", False, -1299),
        ("\u22121", False, -1), ("\uff15", False, 5), ("5%", False, 0.05), ("1e3", False, 1000), ("+4", False, 4),
        ("12 50", False, None), ("A12", False, None), ("1,2,3", False, None), ("12 XYZ", False, None),
        ("%", False, None),
        ("1.2.3", True, None), ("", False, None), ("(5%)", False, -0.05), ("\uff15\uff05", False, 0.05),
        ("0,299", False, None), ("0.299", True, 0.299), ("5\u00b2", False, None), ("\u0665", False, 5),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(cell: str, comma: bool, expected: float | None) -> None:
    found, lost = numbers(Cells(pa.array([cell, "0"])), comma)
    assert found[0].as_py() == (None if expected is None else pytest.approx(expected))
    assert lost.to_pylist() == [expected is None and cell != "", False]


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (["9,90", "1.299"], ","), (["9.90", "1,299"], "."), (["1.299"], "?"), (["1,299"], "?"), (["12", "7"], ""),
        (["1.299,50"], ","), (["1,299.50"], "."), (["1.299.000"], ","), (["1,299,000"], "."), (["0,299"], ","),
        (["4.5", "4.5", "3,5"], "."), (["3,5", "3,5", "4.5"], ","), (["12,50 kr", "1 299,00 kr"], ","), 
        (["0.125"], "."),
        (["x", "1.5555"], "."),
    ],
)  # fmt: skip
def test_the_decimal_sign_of_a_sample(sample: list[str], expected: str) -> None:
    assert decimal_of(pa.array(sample)) == expected


def test_one_cell_that_only_a_decimal_comma_explains_decides_for_its_file(tmp_path: Path) -> None:
    text = "item_id;title;price\n" + "".join(f"{n};t;1.299\n" for n in range(9)) + "9;t;9,90\n"
    rows, _, account = piece(tmp_path, "a.csv", text, "items", columns={})
    assert [r["price"] for r in rows] == [1299.0] * 9 + [9.9]
    assert "decimal comma" in (account.shape or {})["said"]
