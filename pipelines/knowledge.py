"""What is known of items as triples (head, relation, tail), as graphs of items that share something.

Writes ``item_graphs``. Items share an entity where both stand in the same relation to it; what few items share counts
more. Belongs here: reading triples, the similarity. Does not: what recommenders make of it (``recommenders``).
"""

import logging
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq
from scipy import sparse

from pipelines.config import Config
from pipelines.lake.schemas import rows_in
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.night.night import Night
from pipelines.raw.account import Account
from pipelines.raw.places import RawError, RawStore
from pipelines.recommenders.matrices import keep_largest, unit_or_empty

log = logging.getLogger(__name__)

TRIPLE, LINK = ("head", "relation", "tail"), ("item_id", "entity")
MOST_ITEMS = 2_000  # of one entity; what more items share says nothing, and has the square of them as pairs
BLOCK = 4_096  # items whose similarities to all others are made at once
Refuse = Callable[[str, int, str, str], None]  # source, position, reason, detail


def knowledge(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``item_graphs`` of the night, and rows and files that could not be read."""
    store, ids = RawStore(*config.raw_place), Night.of(config, lake, day).items()["item_id"].combine_chunks()
    parts, account, spec = [TABLES["item_graphs"].schema({}).empty_table()], Account(), {}
    for name, settings in config.graphs.items():
        refuse = partial(_refuse, account, name)
        try:
            triples = read(store, settings.triples, settings.columns, TRIPLE, refuse)
            links = read(store, settings.links, settings.columns, LINK, refuse) if settings.links else None
        except RawError as e:
            refuse(settings.triples, 0, e.reason, e.detail)
            log.warning("item_graphs %s: %s: %s", day, name, e.detail)
            continue
        features, names = shared(triples, links, ids, settings.relations)
        graph = similar(features, settings.neighbours)
        parts.append(rows_of(name, graph, features, names, ids))
        known = int((np.diff(features.indptr) > 0).sum())
        spec[name] = {"triples": triples.num_rows, "items": known, "entities": len(names), "pairs": graph.nnz}
        log.info(
            "item_graphs %s: %s: %d of %d items, %d entities, %d pairs",
            day,
            name,
            known,
            len(ids),
            len(names),
            graph.nnz,
        )
    yield lake.publish_step("quarantine", day, "item_graphs", account.quarantine())
    yield lake.publish("item_graphs", day, pa.concat_tables(parts), config_digest=config.digest("graphs"), spec=spec)


# --- files --------------------------------------------------------------------------------------------------------


def read(store: RawStore, name: str, named: dict[Any, str], columns: tuple[str, ...], refuse: Refuse) -> pa.Table:
    """Rows of a file as text; those with an empty cell or another number of cells are refused.

    Raises:
        RawError: the file is not there, cannot be read, or has other columns.
    """
    found = store.below(name)
    if len(found) != 1:
        raise RawError("missing_file", f"expected one file, found {len(found)} at {name}")
    try:
        with store.fs.open(f"{store.root}/{found[0]}", "rb", compression="infer") as f:
            table = (
                pq.read_table(f) if found[0].endswith(".parquet") else _delimited(f, found[0], named, columns, refuse)
            )
        theirs = [named.get(c, c) for c in columns]
        if lacking := [t for t in theirs if t not in table.column_names]:
            has = ", ".join(table.column_names[:12])
            raise RawError("missing_column", f"expected {', '.join(lacking)}, it has {has}")
        texts = [pc.utf8_trim_whitespace(table[t].cast(pa.string())) for t in theirs]
        rows = pa.table(dict(zip(columns, texts, strict=True)))
        rows.validate(full=True)
    except RawError:
        raise
    except (pa.ArrowException, OSError, KeyError, ValueError) as e:
        raise RawError("unreadable_file", f"{type(e).__name__}: {str(e)[:300]}") from e
    empty = np.zeros(len(rows), bool)
    for column in columns:
        empty |= np.asarray(pc.fill_null(pc.equal(rows[column], ""), True))
    detail = f"one of {', '.join(columns)} is empty"
    for n in np.flatnonzero(empty).tolist():
        refuse(found[0], n + 1, "empty_cell", detail)
    return rows.filter(pa.array(~empty))


def _delimited(file: Any, name: str, named: dict[Any, str], columns: tuple[str, ...], refuse: Refuse) -> pa.Table:
    """Rows of text with tabs, commas or blanks between its cells; without our names it has no header.

    Quotes mean something between commas alone; lines with another number of cells are refused.
    """
    content = file.read()
    first = content.split(b"\n", 1)[0].decode("utf-8-sig").rstrip("\r")
    delimiter = next((d for d in ("\t", ",", " ") if d in first), "\t")
    cells = [cell.strip('"') for cell in first.split(delimiter)]
    header = {named.get(c, c) for c in columns} <= set(cells)
    names = None if header else [named.get(c, c) for c in columns][: len(cells)]
    more = [f"_{n}" for n in range(len(cells) - len(columns))]

    unnumbered = count(1)

    def refused(row: Any) -> str:
        detail = f"expected {row.expected_columns} cells, found {row.actual_columns}"
        refuse(name, row.number or next(unnumbered), "wrong_number_of_cells", f"{detail}: {row.text[:100]}")
        return "skip"

    quote = '"' if delimiter == "," else False
    parse = pc_csv.ParseOptions(delimiter=delimiter, quote_char=quote, invalid_row_handler=refused)
    options = pc_csv.ReadOptions(column_names=None if names is None else [*names, *more], use_threads=False)
    texts = pc_csv.ConvertOptions(column_types={named.get(c, c): pa.string() for c in columns})
    return pc_csv.read_csv(pa.BufferReader(content), options, parse, texts)


def _refuse(account: Account, graph: str, source: str, position: int, reason: str, detail: str) -> None:
    """Note a rejected row or file; several graphs may read the same file."""
    account.reject("item_graphs", source, position, reason, f"graphs.{graph}: {detail}")


# --- similarity ---------------------------------------------------------------------------------------------------


def shared(
    triples: pa.Table, links: pa.Table | None, ids: pa.Array, relations: tuple[str, ...]
) -> tuple[sparse.csr_matrix, list[str]]:
    """What items could share (items, entities), by rarity, and the name of each: relation and entity.

    An item may be the head of a triple or its tail; where both are items, each is something that the other has.

    Args:
        triples: head, relation, tail.
        links: item_id and entity, where triples have other ids; None where they are item ids.
        ids: of the catalogue.
        relations: that count, all where it is empty.
    """
    if relations:
        triples = triples.filter(pc.is_in(triples["relation"], value_set=pa.array(relations)))
    parts = []
    for own, other, text in (("head", "tail", "{} {}"), ("tail", "head", "{} of {}")):
        item, some = _linked(triples, own, links, ids)
        names = [text.format(r, e) for r, e in zip(some["relation"].to_pylist(), some[other].to_pylist(), strict=True)]
        parts.append((item, np.array(names, object)))
    item, name = (np.concatenate([p[n] for p in parts]) for n in (0, 1))
    entities, entity = np.unique(name.astype(str), return_inverse=True)
    has = sparse.csr_matrix((np.ones(len(item), np.float32), (item, entity)), shape=(len(ids), len(entities)))
    has.data[:] = 1
    number, items = np.asarray(has.sum(0)).ravel(), max(int((np.diff(has.indptr) > 0).sum()), 1)
    kept = np.flatnonzero((number > 1) & (number < items) & (number <= MOST_ITEMS))
    weighed = (has[:, kept] @ sparse.diags_array(np.log(items / number[kept]).astype(np.float32))).tocsr()
    return unit_or_empty(weighed), entities[kept].tolist()


def _linked(triples: pa.Table, own: str, links: pa.Table | None, catalogue: pa.Array) -> tuple[np.ndarray, pa.Table]:
    """Row in the catalogue and triple of each item at one end of a triple; an entity may be several items.

    Args:
        triples: head, relation, tail.
        own: the end.
        links: item_id and entity; None where ids of triples are item ids.
        catalogue: item ids.
    """
    if links is None:
        item = rows_in(triples[own], catalogue)
        there = np.flatnonzero(item >= 0)
        return item[there], triples.take(pa.array(there))
    row = rows_in(links["item_id"], catalogue)
    known = pa.table({"entity": links["entity"], "row": row}).filter(pa.array(row >= 0))
    place = triples.append_column("n", pa.array(np.arange(len(triples))))
    both = place.join(known, own, "entity", join_type="inner").sort_by([("n", "ascending"), ("row", "ascending")])
    return both["row"].to_numpy(), triples.take(both["n"])


def similar(features: sparse.csr_matrix, neighbours: int) -> sparse.csr_matrix:
    """Cosines of the most similar items of each item (items, items), without itself."""
    parts = []
    for a in range(0, features.shape[0], BLOCK):
        part = (features[a : a + BLOCK] @ features.T).tocoo()
        other = part.row + a != part.col
        values = (part.data[other], (part.row[other], part.col[other]))
        parts.append(keep_largest(sparse.csr_matrix(values, shape=part.shape), neighbours))
    return sparse.vstack(parts).tocsr().astype(np.float32) if parts else sparse.csr_matrix((0, 0), dtype=np.float32)


def rows_of(
    name: str, graph: sparse.csr_matrix, features: sparse.csr_matrix, entities: list[str], ids: pa.Array
) -> pa.Table:
    """Rows of ``item_graphs``."""
    row, column = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr)), graph.indices
    best = [
        np.asarray(features[row[a : a + BLOCK]].multiply(features[column[a : a + BLOCK]]).tocsr().argmax(1)).ravel()
        for a in range(0, len(row), BLOCK)
    ]
    why = np.concatenate([*best, np.zeros(0, int)])
    columns = {
        "graph": pa.array([name] * len(row), pa.string()),
        "item_id": ids.take(pa.array(row)),
        "other_item_id": ids.take(pa.array(column)),
        "similarity": pa.array(np.minimum(graph.data, 1), pa.float32()),
        "why": pa.array([entities[n] for n in why], pa.string()),
    }
    rows = pa.table(columns).cast(TABLES["item_graphs"].schema({}))
    return rows.sort_by([("item_id", "ascending"), ("other_item_id", "ascending")])
