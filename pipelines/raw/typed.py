"""Rows of cells to typed rows: what a row must have, what is only noted, the local day of each row.

A required field that cannot be read costs the row; an optional one becomes null with a note.
Belongs here: one row at a time. Does not: what the rows of all files mean together (``days``, ``versions``).
"""

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.modalities import FILES
from pipelines.lake.schemas import EVERYONE, STRINGS, TIMESTAMP
from pipelines.raw.amounts import numbers
from pipelines.raw.cells import Cells, cast_texts, flat, lengths, lists, shown, texts
from pipelines.raw.columns import RAW_COLUMNS, REQUIRED
from pipelines.raw.delimited import Rows
from pipelines.raw.embedded import Embedded
from pipelines.raw.event_names import WISHES, canonical, wished
from pipelines.raw.lines import Reject
from pipelines.raw.shape import Shape
from pipelines.raw.times import TimeRule, times
from pipelines.sections import Source

MAX_ID = 512  # characters
INVISIBLE = r"[\x{AD}\x{200B}-\x{200F}\x{202A}-\x{202E}\x{2060}-\x{2064}\x{FEFF}]"  # joiners, marks of direction
MAX_TEXT = 1_000_000  # characters of one cell
DAY_COLUMN = {
    "interactions": ("event_at",),
    "items": ("updated_at", "created_at"),
    "user_content": ("created_at",),
    "users": ("updated_at", "created_at"),
    "controls": ("created_at",),
}
JOINED = ("title", "description", "text")  # texts that may come as a list of paragraphs
MEDIA = {k.raw_column for k in FILES} | {k.name for k in FILES}
WHAT = {TIMESTAMP: "a time from 1971 to 2199: ISO 8601, epoch, or as time_format says", pa.float64(): "a finite number"}
BAD = {TIMESTAMP: "bad_timestamp", pa.float64(): "bad_number"}


@dataclass
class Typed:
    """Typed rows of a batch.

    Attributes:
        rows: ``RAW_COLUMNS`` with ``_position``, ``_day`` and ``_known`` (see ``times``).
        rejects: rows that could not be typed, with their first problem.
        days: day of each reject where the row has one.
        notes: (column, reason) -> fields that became null: how many, position of the first, what it held.
    """

    rows: pa.Table
    rejects: list[Reject]
    days: list[date | None]
    notes: dict[tuple[str, str], tuple[int, int, str]] = field(default_factory=dict)


def _visible(names: pa.Array) -> pa.Array:
    """Ids and events without characters that nobody sees, and without Excel's ``="7"``."""
    if pc.any(pc.starts_with(names, '="')).as_py():
        names = pc.replace_substring_regex(names, r'^="(.*)"$', r"\1")
    if pc.all(pc.string_is_ascii(names)).as_py() is not False:
        return names
    return pc.replace_substring_regex(names, INVISIBLE, "")


def schema_of(kind: str) -> pa.Schema:
    """Columns of typed rows."""
    own = [("_position", pa.int64()), ("_day", pa.date32()), ("_known", pa.int8())]
    return pa.schema([*own, *RAW_COLUMNS[kind].items()])


def typed(rows: Rows, kind: str, source: Source, shape: Shape, timezone: str, embedded: Embedded) -> Typed:
    """Type a batch of rows of one file."""
    typing = _Typing(rows, kind, source, shape, timezone, embedded)
    for column, kind_of in RAW_COLUMNS[kind].items():
        typing.columns[column] = typing.column(column, kind_of)
    for column, rule in shape.rules.items():
        typing.columns[column] = typing.ruled(column, rule)
    return typing.result()


class _Typing:
    def __init__(self, rows: Rows, kind: str, source: Source, shape: Shape, timezone: str, embedded: Embedded):
        self.source_rows, self.kind, self.source, self.shape = rows, kind, source, shape
        self.timezone, self.embedded = timezone, embedded
        self.n = len(rows.positions)
        self.columns: dict[str, pa.Array] = {}
        self.known = np.zeros(self.n, np.int8)
        self.problems: dict[int, tuple[str, str]] = {}
        self.notes: dict[tuple[str, str], tuple[int, int, str]] = {}

    def column(self, name: str, kind_of: Any) -> pa.Array:
        cells = self.source_rows.columns[name]
        if kind_of == STRINGS:
            if name in MEDIA:
                cells = self.embedded.kept(cells)
            separator = " " if name in self.shape.spaced else self.source.list_separator
            found = lists(cells, separator)
            default = self.source.defaults.get(name)
            if default is not None:
                empty = pc.equal(pc.list_value_length(found), 0)
                found = pc.if_else(empty, pa.scalar([default], STRINGS), found)
            return found
        if kind_of == pa.string():
            return self._text(name, self.embedded.kept(cells) if name in MEDIA else cells)
        if kind_of == TIMESTAMP:
            found, lost, known = times(cells, self._time_rule(name))
            if name == "event_at":
                self.known = known
        else:
            found, lost = numbers(cells, self.shape.comma)
        self._lost(name, lost, BAD[kind_of], f"{name}: expected {WHAT[kind_of]}")
        if name in self.source.defaults:
            fixed = Cells(pa.array([self.source.defaults[name]]))
            is_time = kind_of == TIMESTAMP
            value = times(fixed, self._time_rule(name))[0] if is_time else cast_texts(fixed.array, "DOUBLE")
            found = pc.if_else(pc.and_(pc.is_null(found), pc.invert(lost)), value[0], found)
        self._required(name, pc.or_(pc.is_valid(found), lost))
        return found

    def _time_rule(self, name: str) -> TimeRule:
        unit = "excel" if name in self.shape.excel else self.source.time_unit
        known = self.shape.time_formats.get(name, "")
        written = known if self.source.time_format == "auto" else self.source.time_format
        return TimeRule(unit, written, self.source.time_origin, self.timezone)

    def _text(self, name: str, cells: Cells) -> pa.Array:
        found, structured = texts(cells, join=name in JOINED)
        if name in self.shape.float_ids:
            found = pc.replace_substring_regex(found, r"^(-?\d+)\.0+$", r"\1")
        self._lost(name, structured, "bad_type", f"{name} is a list or an object, expected one value")
        if name in self.source.defaults:
            found = pc.if_else(pc.and_(pc.is_null(found), pc.invert(structured)), self.source.defaults[name], found)
        is_name = name.endswith("_id") or name == "event"
        found = _visible(found) if is_name else found
        limit = MAX_ID if is_name else MAX_TEXT
        if lengths(found).max(initial=0) > limit:  # bytes; few texts have so many
            found = self._shortened(name, found, limit)
        if name == "user_id":
            detail = f"a user_id that begins with '{EVERYONE}' is reserved for lists of users who have none"
            self._reject(pc.fill_null(pc.starts_with(found, EVERYONE), False), "reserved_user_id", detail)
        self._required(name, pc.or_(pc.is_valid(found), structured))
        if name == "wish":
            found = wished(found)
            self._reject(pc.is_null(found), "unknown_wish", f"wish: expected {', '.join(WISHES)}", cells)
        return canonical(found) if name == "event" else pc.utf8_lower(found) if name == "status" else found

    def _shortened(self, name: str, found: pa.Array, limit: int) -> pa.Array:
        """A text that is too long is cut, with a note; an id that is costs its row."""
        long = pc.fill_null(pc.greater(pc.utf8_length(found), limit), False)
        if limit != MAX_TEXT:
            self._reject(long, "too_long", f"{name}: more than {limit} characters")
        elif pc.any(long).as_py():
            self._note(name, "too_long", long, pc.utf8_slice_codeunits(found, 0, 100))
            return pc.utf8_slice_codeunits(found, 0, MAX_TEXT)
        return found

    def ruled(self, column: str, rule: str) -> pa.Array:
        """A column that a rule makes from others: ``covers/{item_id}.jpg``; empty where one of them is."""
        pieces = rule.replace("{", "\0{").replace("}", "}\0").split("\0")
        parts = [
            self.columns[p[1:-1]] if p.startswith("{") else pa.repeat(pa.scalar(p, pa.string()), self.n)
            for p in pieces
            if p
        ]
        made = pc.binary_join_element_wise(*parts, "")
        return lists(Cells(made), "\0") if RAW_COLUMNS[self.kind][column] == STRINGS else made

    # --- problems -------------------------------------------------------------------------------------------------

    def _lost(self, name: str, lost: pa.Array, reason: str, detail: str) -> None:
        if not pc.any(lost).as_py():
            return
        if name in REQUIRED[self.kind]:
            self._reject(lost, reason, detail, self.source_rows.columns[name])
        else:
            self._note(name, reason, lost, flat(self.source_rows.columns[name].array))

    def _note(self, name: str, reason: str, where: pa.Array, values: pa.Array) -> None:
        at = int(np.flatnonzero(np.asarray(where))[0])
        count = int(pc.sum(where).as_py())
        self.notes[name, reason] = (count, self.source_rows.positions[at].as_py(), shown(values, at))

    def _required(self, name: str, given: pa.Array) -> None:
        if name in REQUIRED[self.kind]:
            self._reject(pc.invert(given), f"missing_{name}", f"{name} is empty and required")

    def _reject(self, where: pa.Array, reason: str, detail: str, cells: Cells | None = None) -> None:
        at = np.flatnonzero(np.asarray(where))
        if not len(at):
            return
        found = None if cells is None else flat(cells.array).take(pa.array(at))
        elements = self.source_rows.elements
        for n, i in enumerate(at.tolist()):
            what = "" if found is None else f", found '{shown(found, n)}'"
            element = "" if elements is None else f" (element {elements[i].as_py()})"
            self.problems.setdefault(i, (reason, f"{detail}{what}{element}"))

    def result(self) -> Typed:
        positions = self.source_rows.positions
        if self.kind == "controls":
            aimless = pc.not_equal(self.columns["wish"], "reset")
            for target in ("item_id", "category", "tag"):
                aimless = pc.and_(aimless, pc.is_null(self.columns[target]))
            self._reject(pc.fill_null(aimless, False), "no_target", "item_id, category and tag are all empty")
        days = self._days()
        table = pa.table({"_position": positions, "_day": days, "_known": pa.array(self.known), **self.columns})
        table = table.cast(schema_of(self.kind))
        if not self.problems:
            return Typed(table, [], [], self.notes)
        bad = sorted(self.problems)
        keep = np.ones(self.n, bool)
        keep[bad] = False
        rejects = [Reject(positions[i].as_py(), *self.problems[i]) for i in bad]
        return Typed(table.filter(pa.array(keep)), rejects, days.take(pa.array(bad)).to_pylist(), self.notes)

    def _days(self) -> pa.Array:
        """Local day of each row's own time; null where it has none."""
        when = pc.coalesce(*[self.columns[c] for c in DAY_COLUMN[self.kind]])
        return pc.local_timestamp(when.cast(pa.timestamp("us", self.timezone))).cast(pa.date32(), safe=False)
