"""What may be listed: items that are available on the next day, and what users wish to see more, less or never.

Belongs here: masks and shifts of scores. Does not: ranking (``recommenders.ranking``), where wishes come from
(``raw.versions``).
"""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from pipelines.lake.schemas import rows_in

GONE = (
    "removed", "deleted", "inactive", "unavailable", "archived", "draft", "hidden", "disabled", "discontinued",
    "sold_out", "sold out", "out_of_stock", "out of stock", "unpublished", "expired", "false", "0", "no",
)  # fmt: skip


def available(items: pa.Table, end: datetime) -> np.ndarray:
    """Bool (items,): whether each may be recommended for the day that begins at ``end``."""
    start, after = (pa.scalar(t, items["available_from"].type) for t in (end, end + timedelta(days=1)))
    begun = pc.fill_null(pc.less(items["available_from"], after), True)
    ended = pc.fill_null(pc.less_equal(items["available_to"], start), False)
    gone = pc.fill_null(pc.is_in(items["status"], value_set=pa.array(GONE)), False)
    return np.asarray(begun) & ~np.asarray(ended) & ~np.asarray(gone)


def wishes_of(controls: pa.Table, items: pa.Table, users: pa.Array) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """What users hide (users, items), nonzero where hidden; and +1 or -1 where they want more or less of an item.

    A wish for an item counts before one for its category; of several categories the sum counts.

    Args:
        controls: rows of ``std_controls``.
        items: rows of ``std_items``.
        users: ids, in the order of the matrices.
    """
    shape = (len(users), items.num_rows)
    known = controls.filter(pa.array(rows_in(controls["user_id"], users) >= 0))
    owner = rows_in(known["user_id"], users)
    target, wish = (np.asarray(known[c].to_pylist(), object) for c in ("target", "wish"))
    in_category = _members(known["value"], items)
    direct = rows_in(known["value"], items["item_id"].combine_chunks())
    of_item: dict[tuple[int, int], str] = {
        (int(u), int(i)): w for u, i, w, t in zip(owner, direct, wish, target, strict=True) if t == "item" and i >= 0
    }
    sums: dict[tuple[int, int], list[str]] = {}
    for n in np.flatnonzero(target == "category"):
        for i in in_category.indices[in_category.indptr[n] : in_category.indptr[n + 1]]:
            sums.setdefault((int(owner[n]), int(i)), []).append(wish[n])
    hidden, moved = {}, {}
    for place in sums.keys() | of_item.keys():
        said = [of_item[place]] if place in of_item else sums[place]
        if "hide" in said:
            hidden[place] = 1.0
        shift = sum({"more": 1.0, "less": -1.0}.get(w, 0.0) for w in said)
        if shift and "hide" not in said:
            moved[place] = shift
    return _matrix(hidden, shape), _matrix(moved, shape)


def _members(categories: pa.ChunkedArray, items: pa.Table) -> sparse.csr_matrix:
    """(values, items): which items are of a category."""
    lists = items["categories"].combine_chunks()
    names = lists.flatten()
    owner = np.asarray(pc.list_parent_indices(lists), np.int64)
    unique = pc.unique(categories)
    row = rows_in(names, unique)
    of_unique = sparse.csr_matrix(
        (np.ones((row >= 0).sum()), (row[row >= 0], owner[row >= 0])), shape=(len(unique), items.num_rows)
    )
    return of_unique[rows_in(categories, unique)].tocsr()


def _matrix(values: dict[tuple[int, int], float], shape: tuple[int, int]) -> sparse.csr_matrix:
    places = sorted(values)
    rows, columns = ([p[axis] for p in places] for axis in (0, 1))
    return sparse.csr_matrix((np.array([values[p] for p in places], np.float32), (rows, columns)), shape=shape)


def ruled(scores: np.ndarray, servable: np.ndarray, moved: sparse.csr_matrix) -> np.ndarray:
    """Scores (users, items) after the rules: a wish moves an item by the standard deviation of the user's scores.

    Args:
        scores: of one recommender; not changed.
        servable: bool (items,); other items get minus infinity.
        moved: (users, items), how often an item is moved up, or down.
    """
    if servable.all() and not moved.nnz:
        return scores
    out = scores.copy()
    rows = np.repeat(np.arange(moved.shape[0]), np.diff(moved.indptr))
    out[rows, moved.indices] += moved.data * scores.std(axis=1)[rows]
    out[:, ~servable] = -np.inf
    return out
