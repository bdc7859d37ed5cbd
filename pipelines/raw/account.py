"""The account of a day's raw rows: what was rejected and why, and what became of the rows of each file.

What has no day of its own (undated rejects, files refused whole, notes) counts on the date in the file's name, else on
the night that first saw the file. Does not belong here: deciding what is rejected (``typed``, ``versions``, ``media``).
"""

from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.config import digest_of
from pipelines.engine.database import database
from pipelines.lake.schemas import in_order
from pipelines.lake.tables import TABLES
from pipelines.raw.known import Piece

HARMLESS = ("duplicate", "before_start_date", "empty_list", "repeated_header")  # rejects that lose no event
FATES = ("in", "out", "superseded", "quarantined", "lost")


def undated_day(piece: Piece, start: date) -> date:
    """The day on which what has no day of its own counts."""
    return max(piece.file_day or piece.first_seen, start)


class Account:
    """Rejects and rows of each file for one day, gathered as the tables are made."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []
        self.rows: list[dict[str, Any]] = []
        self.files: dict[tuple[str, str], Counter[str]] = {}
        self.columns: dict[tuple[str, str], dict[str, None]] = {}

    def reject(self, stage: str, source: str, position: int, reason: str, detail: str) -> None:
        """Note one rejected row (stage ``ingest_<kind>``, position > 0), file (position 0) or reference (``media``)."""
        self.rows.append({"stage": stage, "source": source, "position": position, "reason": reason, "detail": detail})

    def reject_rows(self, kind: str, rejects: pa.Table) -> None:
        """Rejected rows (source, position, reason, detail); they count as rows in and quarantined."""
        stage = pa.repeat(pa.scalar(f"ingest_{kind}"), rejects.num_rows)
        table = rejects.append_column("stage", stage)
        self.tables.append(table.select(["stage", "source", "position", "reason", "detail"]))
        self.count_each(kind, rejects["source"], "in")
        self.count_each(kind, rejects["source"], "quarantined")

    def count(self, kind: str, source: str, **rows: int) -> None:
        """Add rows to a file's account."""
        self.files.setdefault((source, kind), Counter()).update(rows)

    def count_each(self, kind: str, sources: pa.ChunkedArray | pa.Array, fate: str) -> None:
        """Add one row to the account of each source, as often as it is there."""
        for entry in sources.value_counts().to_pylist():
            self.count(kind, entry["values"], **{fate: entry["counts"]})

    def add_whole_files(self, kind: str, pieces: Iterable[Piece], day: date, start: date) -> None:
        """Files refused whole, and fields that became null, of the pieces whose undated things count on the day.

        Days of events are made whenever a file of theirs comes, other tables on the night that first saw it.
        """
        notes: dict[tuple[str, str, str], list[Any]] = {}
        for piece in pieces:
            counts_on = undated_day(piece, start)
            if (counts_on if kind == "interactions" else max(counts_on, piece.first_seen)) != day:
                continue
            account = piece.account
            if account.refused:
                self.reject(f"ingest_{kind}", piece.source, 0, *account.refused)
                self.count(kind, piece.source, lost=account.lost)
            for column, reason, count, position, value in account.notes:
                first = notes.setdefault((piece.source, column, reason), [0, position, value])
                first[0] += count
        for (source, column, reason), (count, position, value) in notes.items():
            detail = f"{column}: {count} cells became null, the first held '{value}'"
            self.reject(f"ingest_{kind}_fields", source, position, reason, detail)

    def name_columns(self, kind: str, pieces: Iterable[Piece]) -> None:
        """Note what the columns of the files are called that have an account."""
        for piece in pieces:
            if (piece.source, kind) in self.files and piece.account.shape is not None:
                names = self.columns.setdefault((piece.source, kind), {})
                names |= dict.fromkeys(piece.account.shape["header"])

    def lost(self) -> dict[str, int]:
        """``rows_lost``, that should have been events and are not; ``files_refused``, whole or from where they tear."""
        refused = sum(counts["lost"] for counts in self.files.values())
        reasons = [t["reason"] for t in self.tables]
        bad = sum(pc.sum(pc.invert(pc.is_in(r, value_set=pa.array(HARMLESS)))).as_py() or 0 for r in reasons)
        files = sum(r["stage"] == "ingest_interactions" and not r["position"] for r in self.rows)
        return {"rows_lost": refused + bad, "files_refused": files}

    def quarantine(self) -> pa.Table:
        """Rejects as rows of ``quarantine``; equal ones (elements of one row's list) are numbered in their detail."""
        table = TABLES["quarantine"]
        schema, files = table.schema({}), {tuple(r.values()): r for r in self.rows if not r["position"]}
        own = [*files.values(), *(r for r in self.rows if r["position"])]  # a file is refused once
        rows = pa.concat_tables([pa.Table.from_pylist(own, schema=schema), *(t.cast(schema) for t in self.tables)])
        rows = rows.select(schema.names).sort_by([(k, "ascending") for k in table.key])
        _, repeated = in_order(rows, table.key)
        return _numbered(rows).cast(schema) if repeated else rows

    def ledger(self) -> pa.Table:
        """The accounts as rows of ``ingest_files``."""
        rows = [
            {"source": source, "kind": kind, "columns": list(self.columns.get((source, kind), ()))}
            | {f"rows_{f}": counts[f] for f in FATES}
            for (source, kind), counts in self.files.items()
        ]
        return pa.Table.from_pylist(rows, schema=TABLES["ingest_files"].schema({}))


def _numbered(rows: pa.Table) -> pa.Table:
    names = ", ".join(rows.column_names)
    query = f"""SELECT * EXCLUDE n REPLACE (CASE n WHEN 1 THEN detail ELSE detail || ' (' || n || ')' END AS detail)
                FROM (SELECT *, row_number() OVER (PARTITION BY {names}) AS n FROM rows)"""  # noqa: S608
    with database() as con:
        con.register("rows", rows)
        return con.sql(query).to_arrow_table()


# --- events: an account a day -----------------------------------------------------------------------------------


def inputs_of(pieces: Iterable[Piece], start: date, day: date) -> dict[date, dict[str, str]]:
    """Day -> {part of a file: digest of its rows and rejects of the day}, for days from ``start`` to ``day``."""
    found: dict[date, dict[str, list[Any]]] = {}

    def add(when: date, piece: Piece, what: Any) -> None:
        if when <= day:
            found.setdefault(max(when, start), {}).setdefault(f"{piece.source}@{piece.start}", []).append(what)

    for piece in pieces:
        undated, account = undated_day(piece, start), piece.account
        for name in account.days:
            add(date.fromisoformat(name), piece, account.days[name])
        for name in account.rejected_days:
            add(date.fromisoformat(name) if name else undated, piece, account.rejected_days[name])
        if account.refused or account.notes:
            add(undated, piece, [account.refused, account.notes, undated.isoformat()])
    return {d: {name: digest_of(what) for name, what in parts.items()} for d, parts in sorted(found.items())}


def rejects_by_day(pieces: Iterable[Piece], days: set[date], start: date) -> dict[date, pa.Table]:
    """Rejected events of each of some days: source, position, reason, detail. Those before ``start`` count on it."""
    columns = ["source", "position", "reason", "detail"]
    parts = []
    for piece in pieces:
        undated = undated_day(piece, start)
        when = {max(date.fromisoformat(d), start) if d else undated for d in piece.account.rejected_days}
        if when & days:
            rows = _early(pq.read_table(piece.rejects), start)
            day = pc.max_element_wise(pc.fill_null(rows["day"], undated), pa.scalar(start, pa.date32()))
            source = pa.repeat(pa.scalar(piece.source, pa.string()), rows.num_rows)
            parts.append(rows.set_column(3, "day", day).append_column("source", source))
        if start in days and any(d and date.fromisoformat(d) < start for d in piece.account.days):
            parts.append(_before_start(piece, start))
    if not parts:
        return {}
    every = pa.concat_tables([p.select([*columns, "day"]) for p in parts]).sort_by([("day", "ascending")])
    found, at = {}, 0
    for entry in every["day"].value_counts().to_pylist():
        if entry["values"] in days:
            found[entry["values"]] = every.slice(at, entry["counts"]).select(columns)
        at += entry["counts"]
    return found


def _early(rejects: pa.Table, start: date) -> pa.Table:
    """Rejects of which those of a day before ``start`` say so first: they would not have been events."""
    early = pc.fill_null(pc.less(rejects["day"], pa.scalar(start, pa.date32())), False)
    if not pc.any(early).as_py():
        return rejects
    said = pc.binary_join_element_wise(rejects["day"].cast(pa.string()), f"is before start_date {start}", " ")
    detail = pc.binary_join_element_wise(said, pc.binary_join_element_wise(rejects["reason"], rejects["detail"], ", "), "; ")  # noqa: E501 # fmt: skip
    rejects = rejects.set_column(1, "reason", pc.if_else(early, "before_start_date", rejects["reason"]))
    return rejects.set_column(2, "detail", pc.if_else(early, detail, rejects["detail"]))


def _before_start(piece: Piece, start: date) -> pa.Table:
    rows = pq.read_table(piece.rows, columns=["_position", "_day", "source"], filters=[("_day", "<", start)])
    n = rows.num_rows
    detail = pc.binary_join_element_wise(rows["_day"].cast(pa.string()), f"is before start_date {start}", " ")
    return pa.table(
        {
            "source": rows["source"],
            "position": rows["_position"],
            "reason": pa.repeat(pa.scalar("before_start_date"), n),
            "detail": detail,
            "day": pa.repeat(pa.scalar(start, pa.date32()), n),
        }
    )


def events_account(
    pieces: list[Piece],
    day: date,
    start: date,
    rejects: pa.Table | None,
    duplicates: pa.Table,
    counts: dict[str, list[int]],
) -> Account:
    """The account of one day of events.

    Args:
        pieces: of all files.
        day: the day.
        start: first day of all.
        rejects: of the day, see ``rejects_by_day``.
        duplicates: of the day, see ``days.DUPLICATES``.
        counts: file -> rows in and out.
    """
    account = Account()
    for source, (rows_in, rows_out) in counts.items():
        account.count("interactions", source, **{"in": rows_in, "out": rows_out})
    if rejects is not None:
        account.reject_rows("interactions", rejects)
    if duplicates.num_rows:
        account.tables.append(_repeated(duplicates))
        account.count_each("interactions", duplicates["source"], "quarantined")
    account.add_whole_files("interactions", pieces, day, start)
    account.name_columns("interactions", pieces)
    return account


def _repeated(duplicates: pa.Table) -> pa.Table:
    """Rows of ``quarantine`` for events that are there already."""
    n = duplicates.num_rows
    who = pc.binary_join_element_wise(duplicates["user_id"], duplicates["item_id"], ", ")
    text = "same user_id, item_id, event and event_at as an earlier row ("
    detail = pc.binary_join_element_wise(pa.scalar(text), who, pa.scalar(")"), "")
    columns = {"stage": pa.repeat(pa.scalar("ingest_interactions"), n), "source": duplicates["source"]}
    columns |= {"position": duplicates["position"], "reason": pa.repeat(pa.scalar("duplicate"), n), "detail": detail}
    return pa.table(columns)
