"""Times as people write them to UTC microseconds: ISO 8601, epochs, 20260301, formats, Excel's days.

A local time that the clock shows twice (the autumn hour) is the first of the two; one that it never shows (the spring
hour) is an hour later. Belongs here: one cell's time. Does not: equal rows (``days``), which cells are times.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.engine.database import database
from pipelines.lake.schemas import TIMESTAMP
from pipelines.raw.cells import Cells, cast_texts, clean, flat, is_text, lengths

EXACT, DATE_ONLY, TWICE = 0, 1, 2  # how well a time is known: to the moment, to the day, one of two
SECOND = 1_000_000
EARLIEST, LATEST = 365 * 86_400 * SECOND, 7_258_118_400 * SECOND  # numbers: 1971 to 2199, microseconds
YEAR_1000 = -30_610_224_000 * SECOND
EXCEL_EPOCH = 25_569  # days from 1899-12-30 to 1970-01-01
EXCEL_DAYS = (29_221, 73_051)  # 1980 to 2100
ISO = r"^\d{4}-\d{1,2}-\d{1,2}([T ]|$)"
LOOSE = (  # what is nearly ISO 8601, and how that has it
    (r"^(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})", r"\1-\2-\3T\4:\5:\6"),  # 20260301T143052Z
    (r"^(\d{4})(\d{2})(\d{2})[T ](\d{2}:\d{2}(:\d{2})?)", r"\1-\2-\3T\4"),  # 20260301 14:30:52
    (r"^(\d{4})年(\d{1,2})月(\d{1,2})日 *$", r"\1-\2-\3"),
    (r"^(\d{4})年(\d{1,2})月(\d{1,2})日 *(.+)$", r"\1-\2-\3 \4"),
    (r"^(\d{4}-\d{1,2}-\d{1,2}[T ]\d{1,2})([Zz]|[+-]\d{2}:?\d{2})?$", r"\1:00\2"),  # hours
    (r"(:\d{2}),(\d{1,9})( ?[Zz]|[+-]\d{2}:?\d{2})?$", r"\1.\2\3"),  # log4j, Python's logging
    (r"\[[A-Za-z_/+-]+\]$", ""),  # Java: ...Z[UTC]
    (r" ([+-]\d{2}:?\d{2})$", r"\1"),  # Ruby: 14:30:52 -0500
)
OTHER = (  # what says its number of milliseconds, or its zone, in words
    (r"^/?Date\((-?\d{12,13})\)/?$", r"\1"),
    (r"^([A-Z][a-z]{2}) ([A-Z][a-z]{2}) (\d{2}) (\d{4}) (\S+) (?:GMT|UTC)([+-]\d{4})( \(.*\))?$", r"\1 \2 \3 \5 \6 \4"),
    (r"^([A-Z][a-z]{2})  ?(\d{1,2}) (\d{4})  ?(\d{1,2}:\d{2})([AP]M)$", r"\1 \2 \3 \4 \5"),  # SQL Server
)
ZONE = r"(?:[Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?|[A-Z][A-Za-z]+/[A-Za-z_]+)$"
NAMED = r" ?\b([A-Z]{1,5})$"  # a zone by its initials
OFFSETS = {  # hours of those that mean one zone only; of America as RFC 2822 has them
    "EST": -5, "EDT": -4, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7, "AKST": -9, "AKDT": -8, "HST": -10,
    "WET": 0, "WEST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "MSK": 3, "HKT": 8, "AWST": 8, "JST": 9, "KST": 9,
    "AEST": 10, "AEDT": 11, "NZST": 12, "NZDT": 13, "BRT": -3,
}  # fmt: skip
DAY_FIRST = ("%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y", "%d/%m/%y", "%d.%m.%y")
MONTH_FIRST = ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y")
OTHER_DATES = ("%Y/%m/%d", "%Y.%m.%d", "%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y")
CLOCKS = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p", " %H:%M:%S.%f", ", %H:%M:%S", ", %H:%M")
WHOLE = (
    "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z",
    "%Y-%m-%dT%H.%M.%S", "%Y-%m-%d-%H.%M.%S.%f", "%d%b%Y:%H:%M:%S", "%d-%b-%y %I.%M.%S.%f %p", "%d-%b-%y %I.%M.%S %p",
    "%b %d %Y %I:%M %p", "%d-%b-%y",
)  # fmt: skip
FORMATS = WHOLE + tuple(d + c for d in (*DAY_FIRST, *MONTH_FIRST, *OTHER_DATES) for c in CLOCKS)


@dataclass(frozen=True)
class TimeRule:
    """How one column's times are written.

    Attributes:
        unit: of numbers, see ``sections.Source.time_unit``.
        format: of texts; empty for ISO 8601.
        origin: ISO time that numbers count from; empty for 1970.
        timezone: IANA zone of times without one.
    """

    unit: str = "auto"
    format: str = ""
    origin: str = ""
    timezone: str = "UTC"


def times(cells: Cells, rule: TimeRule) -> tuple[pa.Array, pa.Array, np.ndarray]:
    """UTC microseconds of each cell, null where there is none; which cells hold something else; how well it is known.

    Returns:
        Timestamps, mask of what is no time, int8 of ``EXACT``, ``DATE_ONLY``, ``TWICE``.
    """
    array = flat(cells.array)
    kind, exact = array.type, np.zeros(len(array), np.int8)
    if pa.types.is_timestamp(kind):
        if kind.tz:
            found, known = array.cast(TIMESTAMP, safe=False), exact
        else:
            found, known = _local(array.cast(pa.timestamp("us"), safe=False), rule.timezone)
    elif pa.types.is_date(kind):
        found, _ = _local(array.cast(pa.timestamp("us"), safe=False), rule.timezone)
        known = exact + np.int8(DATE_ONLY)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        found, known = _of_numbers(array.cast(pa.float64(), safe=False), rule)
    elif is_text(kind) or pa.types.is_null(kind):
        array = _without_words(clean(array.cast(pa.string())))
        found, known = _of_texts(array, rule)
    else:
        found, known = pa.nulls(len(array), TIMESTAMP), exact
    found = _with_four_digits(found)
    return found, pc.and_(pc.is_valid(array), pc.is_null(found)), known


def _without_words(text: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(text, r"^[/A-Z]")).as_py():
        for pattern, instead in OTHER:
            text = pc.replace_substring_regex(text, pattern, instead)
    return text


def _of_texts(text: pa.Array, rule: TimeRule) -> tuple[pa.Array, np.ndarray]:
    if rule.format:
        found, known = _formatted(text, rule)
        rest = pc.and_(pc.is_valid(text), pc.is_null(found))
        if not pc.any(rest).as_py():
            return found, known
        other, more = _of_texts(pc.if_else(rest, text, pa.scalar(None, pa.string())), TimeRule(timezone=rule.timezone))
        return pc.coalesce(found, other), np.where(np.asarray(rest), more, known).astype(np.int8)
    found, known = _iso(text, rule.timezone)
    if rule.unit == "iso":
        return found, known
    rest = pc.and_(pc.is_valid(text), pc.is_null(found))
    if not pc.any(rest).as_py():
        return found, known
    numbers = cast_texts(pc.if_else(rest, text, pa.scalar(None, pa.string())), "DOUBLE")
    epochs, more = _of_numbers(numbers, rule)
    return pc.coalesce(found, epochs), np.where(np.asarray(rest), more, known).astype(np.int8)


# --- numbers ------------------------------------------------------------------------------------------------------


def _of_numbers(numbers: pa.Array, rule: TimeRule) -> tuple[pa.Array, np.ndarray]:
    """Epochs, Excel's days, and dates written as 20260301; a number that would be 1970 or after 2199 is no time."""
    values = np.array(pc.fill_null(numbers, np.nan), np.float64)
    values[~np.isfinite(values)] = np.nan
    known = np.zeros(len(values), np.int8)
    if rule.unit == "excel":
        local = pa.array(_rounded((values - EXCEL_EPOCH) * 86_400 * SECOND)).cast(pa.timestamp("us"))
        found, known = _local(local, rule.timezone)
        return _in_range(found), np.where(values % 1 == 0, DATE_ONLY, known).astype(np.int8)
    scale = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}.get(rule.unit)
    if scale is None:
        size = np.abs(values)
        scales = np.select([size < 1e11, size < 1e14, size < 1e17], [1e6, 1e3, 1.0], 1e-3)
    else:
        scales = np.full(len(values), scale)
    origin = _origin(rule) if rule.origin else 0
    found = _in_range(pa.array(_rounded(values * scales + origin)).cast(TIMESTAMP))
    if rule.unit != "auto" or rule.origin:
        return found, known
    for digits, pattern in ((8, "%Y%m%d"), (12, "%Y%m%d%H%M"), (14, "%Y%m%d%H%M%S")):  # no epochs: 1970, 1976, 2600
        mask = (values >= 19 * 10.0 ** (digits - 2)) & (values < 22 * 10.0 ** (digits - 2))
        if mask.any():
            texts = pa.array([f"{int(v):0{digits}d}" if m else None for v, m in zip(values, mask, strict=True)])
            read, _ = _formatted(texts, TimeRule(format=pattern, timezone=rule.timezone))
            found = pc.if_else(pa.array(mask), read, found)
            known[mask & (digits == 8)] = DATE_ONLY
    return found, known


def _rounded(micros: np.ndarray) -> np.ma.MaskedArray:
    bad = ~(np.abs(micros) < 9e18)
    return np.ma.masked_array(np.where(bad, 0, np.round(micros)).astype(np.int64), bad)


def _in_range(found: pa.Array) -> pa.Array:
    micros = found.cast(pa.int64())
    good = pc.and_(pc.greater_equal(micros, EARLIEST), pc.less(micros, LATEST))
    return pc.if_else(pc.fill_null(good, False), found, pa.scalar(None, TIMESTAMP))


def _origin(rule: TimeRule) -> int:
    start = datetime.fromisoformat(rule.origin)
    if start.tzinfo is None:
        return int(_local(pa.array([start], pa.timestamp("us")), rule.timezone)[0].cast(pa.int64())[0].as_py())
    return int((start - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * SECOND)


# --- texts --------------------------------------------------------------------------------------------------------


def _iso(text: pa.Array, timezone: str) -> tuple[pa.Array, np.ndarray]:
    return _plain_iso(text, timezone) or _any_iso(text, timezone)


def _plain_iso(text: pa.Array, timezone: str) -> tuple[pa.Array, np.ndarray] | None:
    """Arrow's own reading, several times as fast, of texts that all have a zone or all have none; else None."""
    try:
        return _with_four_digits(text.cast(TIMESTAMP)), np.zeros(len(text), np.int8)
    except pa.ArrowInvalid:
        pass
    try:
        local, twice = _local(text.cast(pa.timestamp("us")), timezone)
    except pa.ArrowInvalid:
        return None
    return _with_four_digits(local), np.where(lengths(text) <= 10, DATE_ONLY, twice).astype(np.int8)


def _with_offsets(text: pa.Array) -> pa.Array:
    """Initials of a zone as its offset; null where they mean several, such as BST, IST or CST."""
    named = pc.fill_null(pc.match_substring_regex(text, r"\d" + NAMED), False)
    if not pc.any(named).as_py():
        return text
    known = {"Z": "Z", "UTC": "Z", "GMT": "Z"} | {name: f"{hours:+03d}:00" for name, hours in OFFSETS.items()}
    initials = pc.struct_field(pc.extract_regex(text, r"(?P<z>[A-Z]{1,5})$"), "z")
    at = pc.index_in(initials, value_set=pa.array(known, pa.string()))
    offset = pa.array(known.values(), pa.string()).take(at)
    bare = pc.replace_substring_regex(text, NAMED, "")
    return pc.if_else(named, pc.binary_join_element_wise(bare, offset, ""), text)


def _any_iso(text: pa.Array, timezone: str) -> tuple[pa.Array, np.ndarray]:
    for pattern, instead in LOOSE:
        if pc.any(pc.match_substring_regex(text, pattern)).as_py():
            text = pc.replace_substring_regex(text, pattern, instead)
    text = _with_offsets(text)
    text = pc.if_else(pc.fill_null(pc.match_substring_regex(text, ISO), False), text, pa.scalar(None, pa.string()))
    known = np.where(np.asarray(pc.fill_null(pc.utf8_length(text), 99)) <= 10, DATE_ONLY, EXACT).astype(np.int8)
    if timezone == "UTC":
        return _with_four_digits(cast_texts(text, "TIMESTAMPTZ").cast(TIMESTAMP)), known
    zoned = pc.fill_null(pc.match_substring_regex(text, r":\d{2}(\.\d+)? ?" + ZONE), False)
    found = pa.nulls(len(text), TIMESTAMP)
    if pc.any(zoned).as_py():
        found = cast_texts(pc.if_else(zoned, text, pa.scalar(None, pa.string())), "TIMESTAMPTZ").cast(TIMESTAMP)
    if not pc.all(zoned).as_py():
        naive = cast_texts(pc.if_else(zoned, pa.scalar(None, pa.string()), text), "TIMESTAMP")
        local, twice = _local(naive.cast(pa.timestamp("us")), timezone)
        found, known = pc.coalesce(found, local), np.where(known == DATE_ONLY, known, twice).astype(np.int8)
    return _with_four_digits(found), known


def _with_four_digits(found: pa.Array) -> pa.Array:
    """Times from the year 1000 to 2199: a text says what it means, so the past has no other limit."""
    micros = found.cast(pa.int64())
    good = pc.and_(pc.greater_equal(micros, YEAR_1000), pc.less(micros, LATEST))
    return pc.if_else(pc.fill_null(good, False), found, pa.scalar(None, TIMESTAMP))


def _formatted(text: pa.Array, rule: TimeRule) -> tuple[pa.Array, np.ndarray]:
    pattern = rule.format.replace("'", "''")
    with database(rule.timezone) as con:
        con.register("cells", pa.table({"x": text}))
        found = flat(con.sql(f"SELECT try_strptime(x, '{pattern}') AS y FROM cells").to_arrow_table()["y"])  # noqa: S608
    if found.type.tz:
        found, known = found.cast(TIMESTAMP), np.zeros(len(text), np.int8)
    else:
        found, known = _local(found.cast(pa.timestamp("us")), rule.timezone)
    if not any(c in rule.format for c in ("%H", "%I", "%X", "%c", "%-H", "%-I")):
        known = np.full(len(text), DATE_ONLY, np.int8)
    return _with_four_digits(found), known


def _local(naive: pa.Array, timezone: str) -> tuple[pa.Array, np.ndarray]:
    """Local times in UTC, and which of them the clock showed twice."""
    known = np.zeros(len(naive), np.int8)
    if timezone == "UTC" or naive.null_count == len(naive):
        return naive.cast(TIMESTAMP), known
    first = pc.assume_timezone(naive, timezone, ambiguous="earliest", nonexistent="earliest")
    second = pc.assume_timezone(naive, timezone, ambiguous="latest", nonexistent="earliest")
    known[np.asarray(pc.fill_null(pc.not_equal(first, second), False))] = TWICE
    never = pc.fill_null(pc.not_equal(pc.local_timestamp(first), naive), False)
    if pc.any(never).as_py():
        hour = pa.scalar(3600 * SECOND, pa.duration("us"))
        later = pc.assume_timezone(pc.add(naive, hour), timezone, ambiguous="earliest", nonexistent="latest")
        first = pc.if_else(never, later, first)
    return first.cast(TIMESTAMP), known


# --- what a sample shows --------------------------------------------------------------------------------------------


def unit_of(sample: list[str]) -> str:
    """Excel where all numbers of a sample can only be its days; auto otherwise."""
    values = np.asarray(cast_texts(pa.array(sample, pa.string()), "DOUBLE").drop_null(), np.float64)
    days = (values >= EXCEL_DAYS[0]) & (values < EXCEL_DAYS[1])
    return "excel" if len(values) and len(values) == len(sample) and days.all() else "auto"


def _is_unpadded(text: pa.Array) -> bool:
    """Whether neither day nor month has a leading zero (3/1/2026): with AM and PM, only Americans write so."""
    padded = pc.any(pc.match_substring_regex(text, r"^0|^\d+/0")).as_py()
    return not padded and bool(pc.any(pc.match_substring_regex(text, r"^\d+/\d/")).as_py())


def format_of(sample: list[str]) -> tuple[str, ...]:
    """The format that reads most of a sample of texts; none where ISO or numbers do.

    Two where days and months cannot be told apart.
    """
    text = _without_words(clean(pa.array(sample, pa.string())).drop_null())
    found, _ = _of_texts(text, TimeRule())
    numbers = cast_texts(text, "DOUBLE")
    odd = text.filter(pc.and_(pc.is_null(found), pc.is_null(numbers)))
    if 2 * len(odd) <= len(text) or not len(odd):
        return ()
    read = {f: len(odd) - _formatted(odd, TimeRule(format=f))[0].null_count for f in FORMATS}
    best = max(read.values())
    if 2 * best < len(odd):
        return ()
    equal = [f for f, n in read.items() if n == best]
    day_first = [f for f in equal if f.startswith(DAY_FIRST)]
    month_first = [f for f in equal if f.startswith(MONTH_FIRST)]
    american = [f for f in month_first if "%p" in f and _is_unpadded(odd)]
    if american:
        return (american[0],)
    if day_first and month_first:
        return day_first[0], month_first[0]
    return (equal[0],)
