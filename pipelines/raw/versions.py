"""Which rows of all files are known at the end of a day: the latest version of items and users, uploads, wishes.

Belongs here: what rows mean together, as tables. Does not: reading files (``pieces``), media bytes (``media``),
publishing (``standardize``). Nothing here looks at a row dated after the day.
"""

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from encoders.modalities import FILES, KINDS, MODALITIES
from pipelines.engine.database import database
from pipelines.lake.schemas import EVERYTHING, STRINGS
from pipelines.lake.storage import Lake
from pipelines.lake.tables import TABLES
from pipelines.raw.account import Account
from pipelines.raw.columns import RAW_COLUMNS
from pipelines.raw.known import Piece, has_column
from pipelines.raw.media import MediaFile
from pipelines.raw.typed import schema_of

Found = dict[tuple[str, str], MediaFile]  # kind, uri -> what is known of the file
REMOVED = "removed"  # status of an item that a whole catalogue no longer has
REFERENCES = pa.schema([("kind", pa.string()), ("uri", pa.string()), ("source", pa.string()), ("position", pa.int64())])


def known_rows(kind: str, pieces: list[Piece], day: date, account: Account) -> pa.Table:
    """Rows of all files of a kind known by the end of ``day``, with ``source`` and ``_when``; rejects are accounted.

    Undated rows count from the date in the file's name (``_when``), those of undated files from the beginning.
    """
    schema = schema_of(kind).append(pa.field("source", pa.string())).append(pa.field("_when", pa.date32()))
    tables = [schema.empty_table()]
    for piece in pieces:
        if piece.file_day and piece.file_day > day:
            continue
        rows = pq.read_table(piece.rows)
        past = pc.less_equal(rows["_day"], pa.scalar(day, pa.date32()))
        rows = rows.filter(pc.or_kleene(pc.is_null(rows["_day"]), past))
        when = pc.coalesce(rows["_day"], pa.scalar(piece.file_day or date.min, pa.date32()))
        tables.append(rows.append_column("_when", when).cast(schema))
        if rows.num_rows:
            account.count(kind, piece.source, **{"in": rows.num_rows})
        rejects = pq.read_table(piece.rejects)
        rejects = rejects.filter(pc.less_equal(pc.fill_null(rejects["day"], day), pa.scalar(day, pa.date32())))
        source = pa.repeat(pa.scalar(piece.source, pa.string()), rejects.num_rows)
        account.reject_rows(kind, rejects.append_column("source", source))
    return pa.concat_tables(tables)


# --- items ------------------------------------------------------------------------------------------------------


def current(kind: str, rows: pa.Table, pieces: list[Piece], account: Account) -> pa.Table:
    """The latest version of each item or user in order of id: by day, then time, then file and position.

    A column that the file of that version does not have keeps what the version before says.

    Args:
        kind: items or users.
        rows: what ``known_rows`` gives.
        pieces: that they are from.
        account: older versions count as superseded.
    """
    key = {"items": "item_id", "users": "user_id"}[kind]
    narrow = rows.select([key, "_when", "updated_at", "created_at", "source", "_position"])
    with database() as con:
        con.register("versions", narrow.append_column("n", pa.array(np.arange(rows.num_rows))))
        ranked = con.sql(
            f"""SELECT {key}, source, n, row_number() OVER (PARTITION BY {key} ORDER BY _when DESC,
                 coalesce(epoch_us(coalesce(updated_at, created_at)), 0) DESC, source DESC, _position DESC, n DESC) AS v
               FROM versions ORDER BY {key}, v"""  # noqa: S608, the key is one of ours
        ).to_arrow_table()
    latest = ranked["n"].filter(pc.equal(ranked["v"], 1))
    account.count_each(kind, rows["source"].take(latest), "out")
    account.count_each(kind, rows["source"].take(ranked["n"].filter(pc.greater(ranked["v"], 1))), "superseded")
    found = rows.take(latest)
    for column, sources in _without_column(kind, pieces).items():
        has = ranked.filter(pc.invert(pc.is_in(ranked["source"], value_set=pa.array(sources))))
        said = has.group_by(key, use_threads=False).aggregate([("n", "first")])
        at = said["n_first"].take(pc.index_in(found[key], value_set=said[key].combine_chunks()))
        values = pc.coalesce(rows[column].take(at), found[column])  # a default stands where no version says anything
        found = found.set_column(found.column_names.index(column), column, values)
    return found


def _without_column(kind: str, pieces: list[Piece]) -> dict[str, list[str]]:
    """Our columns that some files have and others do not, with those others."""
    found, sources = {}, {p.source for p in pieces if p.shape}
    for column in RAW_COLUMNS[kind]:
        with_it = {p.source for p in pieces if has_column(p, column)}
        if column != "attributes" and with_it and with_it < sources:  # attributes are made of whatever a file has
            found[column] = sorted(sources - with_it)
    return found


def without_gone(items: pa.Table, pieces: list[Piece], day: date) -> pa.Table:
    """Items of a catalogue whose dated files are whole: those that the latest files lack get the status ``removed``.

    The files of a day of which one is refused, or all are empty, do not say what is gone; nor do undated files.
    """
    whole = whole_days(pieces, day)
    if not whole:
        return items
    still = [p for p in pieces if not p.file_day or whole[-1] <= p.file_day <= day]
    parts = [pq.read_table(p.rows, columns=["item_id"])["item_id"] for p in still]
    now = pa.concat_arrays([c for part in parts for c in part.chunks])
    status = pc.if_else(pc.is_in(items["item_id"], value_set=now), items["status"], REMOVED)
    return items.set_column(items.column_names.index("status"), "status", status)


def whole_days(pieces: list[Piece], day: date) -> list[date]:
    """Days up to one, in order, of which all catalogue files could be read and any has a row."""
    known = [p for p in pieces if p.file_day and p.file_day <= day]
    torn = {p.file_day for p in known if p.account.refused}
    return sorted({p.file_day for p in known if p.file_day and p.file_day not in torn and p.account.rows})


def items_of_events(lake: Lake, day: date) -> pa.Table:
    """The items that events up to the day name, in order of id, for a house without a catalogue."""
    schema = schema_of("items").append(pa.field("source", pa.string())).append(pa.field("_when", pa.date32()))
    empty = pa.table({"item_id": pa.array([], pa.string()), "source": pa.array([], pa.string())})
    parts = lake.scan("std_interactions", lake.days("std_interactions", day), ["item_id", "source"])
    first = [p.group_by("item_id").aggregate([("source", "min")]).rename_columns(["item_id", "source"]) for p in parts]
    found = pa.concat_tables([empty, *(t.cast(empty.schema) for t in first)])
    found = found.group_by("item_id").aggregate([("source", "min")]).sort_by("item_id")
    own = {
        "item_id": found["item_id"],
        "source": found["source_min"],
        "_when": pa.repeat(pa.scalar(date.min), len(found)),
    }
    lists = pa.array([[]] * len(found), STRINGS)
    columns = {f.name: own.get(f.name, lists if f.type == STRINGS else pa.nulls(len(found), f.type)) for f in schema}
    return pa.table(columns).cast(schema)


def references_of(items: pa.Table) -> pa.Table:
    """Media that items refer to (``REFERENCES``)."""
    parts = [REFERENCES.empty_table()]
    for kind in FILES:
        uris = items[kind.raw_column].combine_chunks()
        owner = pc.list_parent_indices(uris)
        columns = {"kind": pa.repeat(pa.scalar(kind.name), len(owner)), "uri": uris.flatten()}
        columns |= {"source": items["source"].take(owner), "position": items["_position"].take(owner)}
        parts.append(pa.table(columns).cast(REFERENCES))
    return pa.concat_tables(parts)


def item_texts(items: pa.Table) -> pa.Array:
    """The text of each item that is embedded: title, description, categories, tags; null where it has none."""
    lists = [pc.binary_join(items[c], ", ") for c in ("categories", "tags")]
    parts = [_sentence(p) for p in (items["title"], items["description"], *lists)]
    # not binary_join_element_wise: pyarrow 25 gives no rows where all parts of all rows are null
    with database() as con:
        con.register("parts", pa.table({"n": np.arange(items.num_rows), **{f"p{i}": p for i, p in enumerate(parts)}}))
        joined = con.sql("SELECT concat_ws('. ', p0, p1, p2, p3) AS t FROM parts ORDER BY n").to_arrow_table()["t"]
    return _null_where_empty(joined.combine_chunks())


def _sentence(text: pa.ChunkedArray) -> pa.Array:
    """One blank between words, no full stop at the end; null where nothing is left."""
    text = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
    words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(text))
    return _null_where_empty(pc.utf8_rtrim(pc.binary_join(words, " "), "."))


def _null_where_empty(text: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def sha256s(texts: pa.Array) -> pa.Array:
    """Content address of each text; null where it is null."""
    with database() as con:
        con.register("texts", pa.table({"n": np.arange(len(texts)), "text": texts}))
        return con.sql("SELECT sha256(text) AS s FROM texts ORDER BY n").to_arrow_table()["s"].combine_chunks()


def items_table(items: pa.Table, found: Found) -> pa.Table:
    """Rows of ``std_items``: current versions with their text and the files that can be used."""
    texts = item_texts(items)
    own = {"text": texts, "text_sha256": sha256s(texts)}
    own |= {k.sha_column: _usable(items[k.raw_column].combine_chunks(), k.name, found) for k in FILES}
    schema = TABLES["std_items"].schema({})
    return pa.table(
        {name: own.get(name, items[name] if name in items.column_names else None) for name in schema.names}
    ).cast(schema)


def _usable(uris: pa.ListArray, kind: str, found: Found) -> pa.ListArray:
    """Distinct sha256s of the usable files of each item, in the order of its references."""
    good = {uri: f.sha256 for (k, uri), f in found.items() if k == kind and not f.reason}
    names, shas = pa.array(good.keys(), pa.string()), pa.array(good.values(), pa.string())
    at = pc.index_in(uris.flatten(), value_set=names)
    owner = np.asarray(pc.list_parent_indices(uris))[np.asarray(pc.is_valid(at))]
    sha = shas.take(at.drop_null())
    code = np.asarray(pc.dictionary_encode(sha).indices, np.int64) if len(sha) else np.zeros(0, np.int64)
    _, first = np.unique(owner * (len(names) + 1) + code, return_index=True)
    first = np.sort(first)
    bounds = np.searchsorted(owner[first], np.arange(len(uris) + 1))
    return pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), sha.take(pa.array(first)), type=STRINGS)


# --- uploads ----------------------------------------------------------------------------------------------------


def uploads(rows: pa.Table, account: Account) -> pa.Table:
    """A row a text, image, sound or video that a user uploaded, in order of file, position and modality.

    Args:
        rows: what ``known_rows`` gives.
        account: rows without any content are rejected.
    """
    parts = []
    rows = rows.append_column("_row", pa.array(np.arange(rows.num_rows)))
    for order, m in enumerate(MODALITIES):
        mine = rows.filter(pc.is_valid(rows[m]))
        columns = {c: mine[c] for c in ("user_id", "item_id", "created_at", "source", "_position", "_row")}
        none = pa.nulls(mine.num_rows, pa.string())
        content = {"text": none, "uri": mine[m]} if KINDS[m].is_file else {"text": mine[m], "uri": none}
        what = {
            "modality": pa.repeat(pa.scalar(m), mine.num_rows),
            "_order": pa.repeat(pa.scalar(order), mine.num_rows),
        }
        parts.append(pa.table(columns | content | what))
    empty = rows
    for m in MODALITIES:
        empty = empty.filter(pc.is_null(empty[m]))
    for r in empty.select(["source", "_position"]).to_pylist():
        detail = f"{', '.join(MODALITIES)} are all empty"
        account.reject("ingest_user_content", r["source"], r["_position"], "no_content", detail)
        account.count("user_content", r["source"], quarantined=1)
    order_by = [(c, "ascending") for c in ("source", "_position", "_row", "_order")]
    return pa.concat_tables(parts).sort_by(order_by).drop_columns("_order")


def uploaded_references(pieces: pa.Table) -> pa.Table:
    """Media that uploads refer to (``REFERENCES``)."""
    files = pieces.filter(pc.is_valid(pieces["uri"]))
    columns = {
        "kind": files["modality"],
        "uri": files["uri"],
        "source": files["source"],
        "position": files["_position"],
    }
    return pa.table(columns).cast(REFERENCES)


def uploads_table(pieces: pa.Table, found: Found, account: Account) -> pa.Table:
    """Rows of ``std_user_content``: each usable piece of a user once.

    A raw row is out if any of its pieces is, superseded if all that can be used are there already, and quarantined if
    none can be used.
    """
    names = [f"{m} {uri}" for m, uri in found]
    known = pa.array([f.sha256 if not f.reason else None for f in found.values()], pa.string())
    named = pc.binary_join_element_wise(pieces["modality"], pieces["uri"], " ")
    of_file = known.take(pc.index_in(named, value_set=pa.array(names, pa.string())))
    sha = pc.coalesce(of_file, sha256s(pieces["text"].combine_chunks()))
    table = pieces.append_column("content_sha256", sha).append_column("_n", pa.array(np.arange(len(pieces))))
    usable = table.filter(pc.is_valid(table["content_sha256"]))
    first = usable.group_by(["user_id", "content_sha256", "created_at"]).aggregate([("_n", "min")])["_n_min"]
    kept = table.take(first.sort())
    _account_uploads(table, usable, kept, account)
    schema = TABLES["std_user_content"].schema({})
    return kept.select(schema.names).cast(schema)


def _account_uploads(table: pa.Table, usable: pa.Table, kept: pa.Table, account: Account) -> None:
    row = ["_row", "source", "_position"]
    every, good, out = (t.group_by(row).aggregate([]) for t in (table, usable, kept))
    account.count_each("user_content", out["source"], "out")
    account.count_each("user_content", good.join(out, row, join_type="left anti")["source"], "superseded")
    for r in every.join(good, row, join_type="left anti").sort_by("_row").to_pylist():
        detail = "every file of the row was rejected, see stage media"
        account.reject("ingest_user_content", r["source"], r["_position"], "no_usable_content", detail)
        account.count("user_content", r["source"], quarantined=1)


# --- users and their wishes -------------------------------------------------------------------------------------


def users_table(users: pa.Table) -> pa.Table:
    """Rows of ``std_users`` from current versions."""
    schema = TABLES["std_users"].schema({})
    return users.select(schema.names).cast(schema)


def controls_table(rows: pa.Table, account: Account) -> pa.Table:
    """Rows of ``std_controls``: the latest wish of each user for each item, category or tag.

    An undo or a reset of a target takes its wish back. A reset of nothing in particular stays as a row, and all wishes
    before it are gone; ``night.events`` forgets the history before it.

    Args:
        rows: what ``known_rows`` gives.
        account: older wishes, and what was taken back, count as superseded.
    """
    with database() as con:
        con.register("wishes", rows.append_column("n", pa.array(np.arange(rows.num_rows))))
        found = con.sql(
            f"""WITH aimed AS (
                  SELECT *, CASE WHEN item_id IS NOT NULL THEN 'item' WHEN category IS NOT NULL THEN 'category'
                                 WHEN tag IS NOT NULL THEN 'tag' ELSE '{EVERYTHING}' END AS target,
                         coalesce(item_id, category, tag, '') AS value
                  FROM wishes),
                restarts AS (
                  SELECT user_id, max(created_at) AS restart FROM aimed WHERE target = '{EVERYTHING}' GROUP BY ALL)
               SELECT n, aimed.user_id, target, value, wish, created_at, source
               FROM aimed LEFT JOIN restarts USING (user_id)
               WHERE restart IS NULL OR created_at > restart OR (target = '{EVERYTHING}' AND created_at = restart)
               QUALIFY row_number() OVER (
                 PARTITION BY aimed.user_id, target, value ORDER BY created_at DESC, source DESC, _position DESC) = 1
               ORDER BY aimed.user_id, target, value"""  # noqa: S608
        ).to_arrow_table()
    back = pc.is_in(found["wish"], value_set=pa.array(["undo", "reset"]))
    kept = found.filter(pc.or_(pc.invert(back), pc.equal(found["target"], EVERYTHING)))
    gone = np.ones(rows.num_rows, bool)
    gone[np.asarray(kept["n"], np.int64)] = False
    account.count_each("controls", kept["source"], "out")
    account.count_each("controls", rows["source"].filter(pa.array(gone)), "superseded")
    schema = TABLES["std_controls"].schema({})
    return kept.select(schema.names).cast(schema)
