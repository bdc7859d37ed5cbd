"""Pieces of raw files to the std tables of a night: dedupe, catalogue versions, uploads, media, quarantine.

Writes ``std_interactions``, ``std_items``, ``std_user_content``, ``std_media``, ``quarantine``, ``ingest_files``.
Belongs here: what rows of all files mean together on day D. Does not: reading files (``raw.pieces``), media bytes
(``raw.media``). Nothing here looks at a row dated after D.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from encoders.modalities import FILES, KINDS, MODALITIES
from pipelines.config import Config, digest_of
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.raw.files import RawStore
from pipelines.raw.media import MediaFile, MediaIndex
from pipelines.raw.pieces import Piece, for_kind

log = logging.getLogger(__name__)

SECTIONS = ("interactions", "items", "user_content", "timezone", "start_date")


@dataclass
class Account:
    """Rejects and per-file row counts of one night, gathered as the tables are made."""

    rejects: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def reject(self, stage: str, source: str, position: int, reason: str, detail: str) -> None:
        """Note one rejected row (stage ingest, position > 0), file (position 0) or media reference (stage media)."""
        self.rejects.append(
            {"stage": stage, "source": source, "position": position, "reason": reason, "detail": detail}
        )

    def count(self, kind: str, source: str, **rows: int) -> None:
        """Add rows to a file's account."""
        empty = {
            "source": source,
            "kind": kind,
            "rows_in": 0,
            "rows_out": 0,
            "rows_superseded": 0,
            "rows_quarantined": 0,
        }
        entry = self.files.setdefault(source, empty)
        for name, n in rows.items():
            entry[f"rows_{name}"] += n

    def add_piece_rejects(self, kind: str, piece: Piece, day: date, cumulative: bool) -> None:
        """Rejected rows of a raw file that count on this night."""
        if piece.file_day and piece.file_day > day:
            return
        for r in pq.read_table(piece.rejects).to_pylist():
            when = r["day"]
            if when is None and piece.file_day and not cumulative and piece.file_day != day:
                continue
            if when is not None and (when > day or (when < day and not cumulative)):
                continue
            self.reject("ingest", piece.source, r["position"], r["reason"], r["detail"])
            if r["position"]:
                self.count(kind, piece.source, **{"in": 1, "quarantined": 1})


def standardize(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Make every std table of a night; earlier days whose raw events changed or were never made are made too.

    Yields the manifests of earlier days of ``std_interactions`` that were made, then that of each table of the day.
    """
    store = RawStore(config.paths.raw, config.paths.allowed_uris)
    pieces = {kind: for_kind(kind, config).pieces(store, config) for kind in ("interactions", "items", "user_content")}
    account = Account()
    provenance = {"config_digest": config.digest(*SECTIONS)}
    events = _interactions(config, lake, day, pieces["interactions"], account, provenance)
    yield from (events[d] for d in sorted(events))
    items, refs = _current_items(day, pieces["items"], account)
    uploads = _uploads(day, pieces["user_content"], account)
    refs += [(m, r["uri"], r["source"], r["position"]) for r in uploads for m in [r["modality"]] if KINDS[m].is_file]
    index = MediaIndex(config.paths.data / "cache")
    found = index.look_up([(kind, uri) for kind, uri, _, _ in refs], store, config.paths.raw, config.compute)
    _reject_media(refs, found, account)
    uploaded = _uploads_table(uploads, found, account)
    rejects = pa.Table.from_pylist(_distinct(account.rejects), schema=_plain_schema("quarantine"))
    ledger = pa.Table.from_pylist(list(account.files.values()), schema=_plain_schema("ingest_files"))
    made = [
        lake.publish("std_items", day, _items_table(items, found), **provenance),
        lake.publish("std_user_content", day, uploaded, **provenance),
        lake.publish("std_media", day, _media_table(found.values()), **provenance),
        lake.publish_step("quarantine", day, "standardize", rejects, **provenance),
        lake.publish("ingest_files", day, ledger, **provenance),
    ]
    log.info("std %s: %s", day, ", ".join(f"{m.table} {m.rows}" for m in made))
    yield from made


def _plain_schema(table: str) -> pa.Schema:
    return TABLES[table].schema({})


def _distinct(rejects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({tuple(r.values()): r for r in rejects}.values())


# --- interactions -----------------------------------------------------------------------------------------------


def _interactions(
    config: Config, lake: Lake, day: date, pieces: list[Piece], account: Account, provenance: dict[str, Any]
) -> dict[date, Manifest]:
    events = _read_events(pieces, config.start_date, day)
    inputs = _slice_digests(events)
    stale = []
    for n in range((day - config.start_date).days + 1):
        d = config.start_date + timedelta(days=n)
        old = lake.manifest("std_interactions", d)
        same = old is not None and old.inputs == inputs.get(d, {}) and old.config_digest == provenance["config_digest"]
        if d == day or not same:
            stale.append(d)
    if len(stale) > 1:
        log.info("std_interactions: making %d earlier days too (%s to %s)", len(stale) - 1, stale[0], stale[-2])
    tables = {d: _dedupe(events.filter(pc.equal(events["_day"], d))) for d in stale}
    data = {d: kept for d, (kept, _) in tables.items()}
    made = lake.publish_days("std_interactions", data, {d: {**provenance, "inputs": inputs.get(d, {})} for d in stale})
    _account_events(pieces, events, day, tables[day], config.start_date, account)
    return made


def _read_events(pieces: list[Piece], start: date, day: date) -> pa.Table:
    """Events up to ``day`` of all files, with their source; earlier than ``start`` too, to be rejected."""
    tables = []
    for piece in pieces:
        rows = pq.read_table(piece.rows, filters=[("_day", "<=", day)])
        tables.append(rows.append_column("source", pa.array([piece.source] * rows.num_rows, pa.string())))
    if not tables:
        columns = [c for c in TABLES["std_interactions"].columns if c.name != "source"]
        empty = pa.schema(
            [
                ("_position", pa.int64()),
                ("_day", pa.date32()),
                *((c.name, c.type) for c in columns),
                ("source", pa.string()),
            ]
        )
        return empty.empty_table()
    return pa.concat_tables(tables)


def _slice_digests(events: pa.Table) -> dict[date, dict[str, str]]:
    """Day -> {file: digest of that file's rows of the day}."""
    with duckdb.connect() as con:
        con.register("events", events)
        rows = con.sql(
            """SELECT _day, source, count(*), sum(hash(_position, user_id, item_id, event, value, event_at, session_id,
               recommendation_id)::HUGEINT)::VARCHAR FROM events GROUP BY ALL ORDER BY ALL"""
        ).fetchall()
    out: dict[date, dict[str, str]] = {}
    for day, source, n, total in rows:
        out.setdefault(day, {})[source] = digest_of([n, total])
    return out


def _dedupe(events: pa.Table) -> tuple[pa.Table, pa.Table]:
    """First row of each key in order of file and position, and the rows that repeat one."""
    with duckdb.connect() as con:
        con.execute("SET threads = 1")
        con.register("events", events)
        numbered = con.sql(
            """SELECT *, row_number() OVER (
                 PARTITION BY user_id, item_id, event, event_at ORDER BY source, _position) AS n
               FROM events ORDER BY user_id, item_id, event, event_at"""
        ).to_arrow_table()
    first = pc.equal(numbered["n"], 1)
    names = [c.name for c in TABLES["std_interactions"].columns]
    kept = numbered.filter(first).select(names)
    at = kept.schema.get_field_index("event_at")
    kept = kept.set_column(at, "event_at", kept["event_at"].cast(pa.timestamp("us", tz="UTC")))
    return kept, numbered.filter(pc.invert(first)).select(["source", "_position", "user_id", "item_id"])


def _account_events(
    pieces: list[Piece],
    events: pa.Table,
    day: date,
    made: tuple[pa.Table, pa.Table],
    start: date,
    account: Account,
) -> None:
    kept, repeated = made
    for source, n in _counts(kept):
        account.count("interactions", source, **{"in": n, "out": n})
    for r in repeated.to_pylist():
        detail = f"same user_id, item_id, event and event_at as an earlier row ({r['user_id']}, {r['item_id']})"
        account.reject("ingest", r["source"], r["_position"], "duplicate", detail)
        account.count("interactions", r["source"], **{"in": 1, "quarantined": 1})
    if day == start:  # what happened before the first partition is counted there
        for r in events.filter(pc.less(events["_day"], start)).select(["source", "_position", "_day"]).to_pylist():
            account.reject(
                "ingest",
                r["source"],
                r["_position"],
                "before_start_date",
                f"{r['_day']} is before start_date {start}",
            )
            account.count("interactions", r["source"], **{"in": 1, "quarantined": 1})
    for piece in pieces:
        account.add_piece_rejects("interactions", piece, day, cumulative=False)


def _counts(rows: pa.Table) -> list[tuple[str, int]]:
    counted = rows.group_by("source").aggregate([([], "count_all")])
    return list(zip(counted["source"].to_pylist(), counted["count_all"].to_pylist(), strict=True))


# --- items ------------------------------------------------------------------------------------------------------

Reference = tuple[str, str, str, int]  # kind, uri, raw file, position


def _known_rows(kind: str, piece: Piece, day: date) -> pa.Table:
    """Rows of a raw file known by the end of ``day``; undated rows count from the date in the file's name."""
    rows = pq.read_table(piece.rows)
    if piece.file_day and piece.file_day > day:
        return rows.slice(0, 0)
    return rows.filter(pc.or_kleene(pc.is_null(rows["_day"]), pc.less_equal(rows["_day"], pa.scalar(day, pa.date32()))))


def _current_items(day: date, pieces: list[Piece], account: Account) -> tuple[list[dict[str, Any]], list[Reference]]:
    """Latest version of each item known by the end of the day, and the media that it refers to."""
    latest: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    for piece in pieces:
        for row in _known_rows("items", piece, day).to_pylist():
            account.count("items", piece.source, **{"in": 1})
            when = row["_day"] or piece.file_day or date.min
            moment = row["updated_at"] or row["created_at"]
            order = (when, moment.timestamp() if moment else 0.0, piece.source, row["_position"])
            row |= {"source": piece.source}
            old = latest.get(row["item_id"])
            loser = row if old and old[0] > order else old[1] if old else None
            if loser is not None:
                account.count("items", loser["source"], superseded=1)
            if loser is not row:
                latest[row["item_id"]] = (order, row)
        account.add_piece_rejects("items", piece, day, cumulative=True)
    rows = [latest[i][1] for i in sorted(latest)]
    refs: list[Reference] = []
    for row in rows:
        account.count("items", row["source"], out=1)
        refs += [(kind.name, u, row["source"], row["_position"]) for kind in FILES for u in row[kind.raw_column]]
    return rows, refs


def item_text(row: dict[str, Any]) -> str | None:
    """The text of an item that is embedded, or None when it has none."""
    parts = [row["title"], row["description"], ", ".join(row["categories"]), ", ".join(row["tags"])]
    text = ". ".join(" ".join(p.split()).rstrip(".") for p in parts if p)
    return text or None


def _items_table(rows: list[dict[str, Any]], found: dict[tuple[str, str], MediaFile]) -> pa.Table:
    def shas(kind: str, uris: Iterable[str]) -> list[str]:
        files = [found[(kind, u)] for u in uris]
        return list(dict.fromkeys(f.sha256 for f in files if not f.reason))

    out = []
    for row in rows:
        text = item_text(row)
        entry = {c.name: row.get(c.name) for c in TABLES["std_items"].columns}
        out.append(
            entry
            | {
                "text": text,
                "text_sha256": text_sha256(text) if text else None,
            }
            | {k.sha_column: shas(k.name, row[k.raw_column]) for k in FILES}
        )
    return pa.Table.from_pylist(out, schema=_plain_schema("std_items"))


def text_sha256(text: str) -> str:
    """Content address of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


# --- uploads and media ------------------------------------------------------------------------------------------


def _uploads(day: date, pieces: list[Piece], account: Account) -> list[dict[str, Any]]:
    """One record a text, image, sound or video that a user uploaded by the end of the day."""
    out = []
    for piece in pieces:
        for row in _known_rows("user_content", piece, day).to_pylist():
            account.count("user_content", piece.source, **{"in": 1})
            shared = {k: row[k] for k in ("user_id", "item_id", "created_at")} | {
                "source": piece.source,
                "position": row["_position"],
            }
            parts = [(m, row[m]) for m in MODALITIES if row[m]]
            out += [
                shared
                | {"modality": m, "text": None if KINDS[m].is_file else v, "uri": v if KINDS[m].is_file else None}
                for m, v in parts
            ]
            if not parts:
                account.reject(
                    "ingest",
                    piece.source,
                    row["_position"],
                    "no_content",
                    f"{', '.join(MODALITIES)} are all empty",
                )
                account.count("user_content", piece.source, quarantined=1)
        account.add_piece_rejects("user_content", piece, day, cumulative=True)
    return out


def _uploads_table(
    uploads: list[dict[str, Any]], found: dict[tuple[str, str], MediaFile], account: Account
) -> pa.Table:
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    rows: dict[tuple[str, int], str] = {}  # (file, position) -> fate of the row
    for piece in uploads:
        row = (piece["source"], piece["position"])
        file = found.get((piece["modality"], piece["uri"] or ""))
        if file is not None and file.reason:
            rows.setdefault(row, "quarantined")
            continue
        sha = file.sha256 if file else text_sha256(piece["text"])
        key = (piece["user_id"], sha, piece["created_at"])
        if key in kept:
            rows[row] = "out" if rows.get(row) == "out" else "superseded"
            continue
        rows[row] = "out"
        kept[key] = {k: v for k, v in piece.items() if k != "position"} | {"content_sha256": sha}
    for (source, position), fate in rows.items():
        account.count("user_content", source, **{fate: 1})
        if fate == "quarantined":
            account.reject(
                "ingest",
                source,
                position,
                "no_usable_content",
                "every file of the row was rejected, see stage media",
            )
    return pa.Table.from_pylist(list(kept.values()), schema=_plain_schema("std_user_content"))


def _reject_media(refs: list[Reference], found: dict[tuple[str, str], MediaFile], account: Account) -> None:
    """A file that exists and does not decode is reported once, a bad reference where it stands."""
    for kind, uri, source, position in refs:
        file = found[(kind, uri)]
        if file.reason:
            where = (uri, 0) if file.sha256 else (source, position)
            account.reject("media", *where, file.reason, file.detail)


def _media_table(files: Iterable[MediaFile]) -> pa.Table:
    out: dict[str, dict[str, Any]] = {}
    for f in sorted(files, key=lambda f: f.uri):
        if not f.reason:
            empty = dict.fromkeys(c.name for c in TABLES["std_media"].columns)
            facts = json.loads(f.facts)
            out.setdefault(
                f.sha256,
                empty | {"sha256": f.sha256, "kind": f.kind, "size_bytes": f.size_bytes, "uri": f.uri} | facts,
            )
    return pa.Table.from_pylist(list(out.values()), schema=_plain_schema("std_media"))
