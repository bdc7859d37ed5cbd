"""Times in every form to UTC microseconds, by hand."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from pipelines.raw.cells import Cells
from pipelines.raw.times import DATE_ONLY, EXACT, TWICE, TimeRule, format_of, times, unit_of


def read(value: Any, kind: pa.DataType | None = None, **rule: str) -> tuple[datetime | None, bool, int]:
    """What one cell gives: time, whether it is something else, how well it is known."""
    found, lost, known = times(Cells(pa.array([value], kind)), TimeRule(**rule))
    return found[0].as_py(), lost[0].as_py(), int(known[0])


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


NOON = utc(2026, 3, 1, 14, 30, 52)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T14:30:52Z", NOON),
        ("2026-03-01 14:30:52 UTC", NOON),
        ("2026-03-01T16:30:52+02:00", NOON),
        ("2026-03-01 09:30:52 -0500", NOON),
        ("2026-03-01 09:30:52 -05:00", NOON),
        ("20260301T143052Z", NOON),
        ("20260301 14:30:52", NOON),
        ("2026-03-01 14:30:52.000 Z", NOON),
        ("2026-03-01 14:30:52,000", NOON),
        ("2026-03-01T14:30:52.000Z[UTC]", NOON),
        ("2026年3月1日 14:30:52", NOON),
        ("2026-03-01T14", utc(2026, 3, 1, 14)),
        ("2026-03-01 14Z", utc(2026, 3, 1, 14)),
        ("/Date(1772375452000)/", NOON),
        ("2026-03-01 09:30:52 EST", NOON),
        ("2026-03-01 16:30:52 CEST", NOON),
        ("2026-03-01T23:30:52 JST", NOON),
        ("2026-03-01 14:30:52 GMT", NOON),
        ("2026-02-28 24:00:00", utc(2026, 3, 1)),
        ("20260301143052", NOON),
        ("202603011430", utc(2026, 3, 1, 14, 30)),
        ("1772375452", NOON),
        ("1772375452000", NOON),
        ("1772375452000000", NOON),
        ("1772375452000000000", NOON),
        ("1772375452.5", NOON + timedelta(seconds=0.5)),
        (" 2026-03-01 14:30:52 ", NOON),
        ("1955-04-12T00:00:00", utc(1955, 4, 12)),
    ],
)
def test_a_moment_in_every_usual_form(text: str, expected: datetime) -> None:
    assert read(text) == (expected, False, EXACT)


@pytest.mark.parametrize("text", ["2026-03-01", "20260301", "2026-3-1", "2026年3月1日"])
def test_a_day_without_a_clock_is_known_to_the_day(text: str) -> None:
    assert read(text) == (utc(2026, 3, 1), False, DATE_ONLY)


@pytest.mark.parametrize("text", ["0", "-5", "931988", "31535999", "9999999999999999999", "soon", "2400-01-01", "epoch", "infinity", "20261301", "14:30", "202613010000", "2026-03-01 10:00:00 BST", "2026-03-01 10:00:00 IST", "2026-03-01 10:00:00 CST", "2026-03-01 10:00:00 XYZ", "0999-01-01"])  # noqa: E501 # fmt: skip
def test_what_is_no_time_is_lost_not_read(text: str) -> None:
    assert read(text) == (None, True, EXACT if text != "20261301" else DATE_ONLY)


def test_nothing_is_not_lost() -> None:
    assert read(None, pa.string()) == (None, False, EXACT)
    assert read(" ", pa.string()) == (None, False, EXACT)


@pytest.mark.parametrize(
    ("text", "rule", "expected"),
    [
        ("931988", {"unit": "ms", "origin": "2026-03-01T00:00:00Z"}, utc(2026, 3, 1, 0, 15, 31, 988_000)),
        ("3600", {"unit": "s", "origin": "2026-03-01T00:00:00", "timezone": "Europe/Berlin"}, utc(2026, 3, 1)),
        ("46082.6048842592", {"unit": "excel"}, utc(2026, 3, 1, 14, 31, 2)),
        ("1772375452", {"unit": "ms"}, None),
        ("01/03/2026 14:30", {"format": "%d/%m/%Y %H:%M"}, utc(2026, 3, 1, 14, 30)),
        ("2026-03-01T14:30:52Z", {"format": "%d/%m/%Y %H:%M"}, NOON),
        ("Sun Mar 01 09:30:52 -0500 2026", {"format": "%a %b %d %H:%M:%S %z %Y"}, NOON),
    ],
)
def test_what_a_rule_says(text: str, rule: dict[str, str], expected: datetime | None) -> None:
    found = read(text, **rule)[0]
    assert found is None if expected is None else found is not None and abs(found - expected) < timedelta(seconds=1)


def test_local_times_and_the_hours_of_the_clock_change() -> None:
    """In Berlin 02:30 comes never on 2026-03-29 and twice on 2026-10-25."""
    berlin = {"timezone": "Europe/Berlin"}
    assert read("2026-03-01 14:30:52", **berlin) == (utc(2026, 3, 1, 13, 30, 52), False, EXACT)
    assert read("2026-03-29 02:30:00", **berlin) == (utc(2026, 3, 29, 1, 30), False, EXACT), "an hour later: 03:30"
    assert read("2026-10-25 02:30:00", **berlin) == (utc(2026, 10, 25, 0, 30), False, TWICE), "the first of two"
    assert read("2026-10-25 02:30:00+01:00", **berlin) == (utc(2026, 10, 25, 1, 30), False, EXACT)
    assert read("2026-03-01", **berlin) == (utc(2026, 2, 28, 23), False, DATE_ONLY)


@pytest.mark.parametrize(
    ("value", "kind", "expected", "known"),
    [
        (NOON, pa.timestamp("ns", "UTC"), NOON, EXACT),
        (datetime(2026, 3, 1, 14, 30, 52), pa.timestamp("s"), NOON, EXACT),
        (NOON, pa.timestamp("ms", "America/New_York"), NOON, EXACT),
        (date(2026, 3, 1), pa.date32(), utc(2026, 3, 1), DATE_ONLY),
        (date(1955, 4, 12), pa.date64(), utc(1955, 4, 12), DATE_ONLY),
        (1772375452, pa.int64(), NOON, EXACT),
        (Decimal(1772375452), pa.decimal128(20, 0), NOON, EXACT),
        (20260301, pa.int32(), utc(2026, 3, 1), DATE_ONLY),
    ],
)
def test_arrow_types(value: Any, kind: pa.DataType, expected: datetime, known: int) -> None:
    assert read(value, kind) == (expected, False, known)


@pytest.mark.parametrize(("value", "kind"), [(time(1, 2), pa.time64("us")), (timedelta(1), pa.duration("s")), (b"x", pa.binary())])  # noqa: E501 # fmt: skip
def test_types_that_are_no_time(value: Any, kind: pa.DataType) -> None:
    assert read(value, kind)[:2] == (None, True)


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (["2026-03-01T14:30:52Z", "1772375452"], ()),
        (["01.03.2026 14:05", "02.03.2026 06:33"], ("%d.%m.%Y %H:%M",)),
        (["13/03/2026", "01/03/2026"], ("%d/%m/%Y",)),
        (["3/13/2026", "3/1/2026"], ("%m/%d/%Y",)),
        (["03/04/2026", "01/02/2026"], ("%d/%m/%Y", "%m/%d/%Y")),
        (["3/1/2026 9:05:58 AM"], ("%m/%d/%Y %I:%M:%S %p",)),
        (["03/01/2026 09:05 AM"], ("%d/%m/%Y %I:%M %p", "%m/%d/%Y %I:%M %p")),
        (["03/21/2026 09:05 AM", "03/01/2026 09:05 PM"], ("%m/%d/%Y %I:%M %p",)),
        (["14.02.26", "01.03.26"], ("%d.%m.%y",)),
        (["02/27/26"], ("%m/%d/%y",)),
        (["Sun Mar  1 14:30:52 2026"], ("%a %b %d %H:%M:%S %Y",)),
        (["01/Mar/2026:14:30:52 -0500"], ("%d/%b/%Y:%H:%M:%S %z",)),
        (["Mar  1 2026 12:36AM"], ("%b %d %Y %I:%M %p",)),
        (["01MAR2026:14:30:52"], ("%d%b%Y:%H:%M:%S",)),
        (["01-MAR-26 12.36.00.000000 AM"], ("%d-%b-%y %I.%M.%S.%f %p",)),
        (["Sun Mar 01 2026 14:30:52 GMT+0000 (Coordinated Universal Time)"], ("%a %b %d %H:%M:%S %z %Y",)),
        (["hello", "world"], ()),
        ([], ()),
    ],
)
def test_the_format_that_a_sample_shows(sample: list[str], expected: tuple[str, ...]) -> None:
    assert format_of(sample) == expected


def test_numbers_that_can_only_be_excels_days() -> None:
    assert unit_of(["46082.6", "46083"]) == "excel"
    assert unit_of(["46082.6", "1772375452"]) == "auto"
    assert unit_of(["931988", "46083"]) == "auto", "a log that counts from elsewhere"


@pytest.mark.parametrize(
    ("text", "rule", "expected"),
    [
        ("2026-03-01 09:30:52 EST", {"timezone": "Europe/Berlin"}, NOON),
        ("2026-03-01 15:30:52", {"timezone": "Europe/Berlin"}, NOON),
        ("2026-03-01 10:00:00 BST", {"timezone": "Europe/Berlin"}, None),
        ("Mar  1 2026  2:30PM", {"format": "%b %d %Y %I:%M %p"}, NOON - timedelta(seconds=52)),
        ("Sun Mar 01 2026 14:30:52 GMT+0000 (UTC)", {"format": "%a %b %d %H:%M:%S %z %Y"}, NOON),
        ("01-MAR-26 02.30.52.000000 PM", {"format": "%d-%b-%y %I.%M.%S.%f %p"}, NOON),
    ],
)  # fmt: skip
def test_zones_and_words_by_rule(text: str, rule: dict[str, str], expected: datetime | None) -> None:
    assert read(text, **rule)[:2] == (expected, expected is None)


@pytest.mark.parametrize(
    "text", ["2026-03-01T14", "2026-03-01T14Z", "2026-03-01", "2026-03-01 14:30", "2026-03-01T14:30:52.5"]
)
def test_a_time_means_the_same_in_any_company(text: str) -> None:
    alone = read(text)
    for other in ("2026-03-01 05:00:00 +0100", "1772375452", "never", "01.03.2026"):
        found, _, known = times(Cells(pa.array([text, other])), TimeRule())
        assert (found[0].as_py(), int(known[0])) == (alone[0], alone[2])
