"""What may be listed: items that are available on the next day, and what users wish to see more, less or never.

Belongs here: masks and shifts of scores, of users and of segments of them. Does not: ranking
(``recommenders.ranking``), where wishes come from (``raw.versions``).
"""

from collections import Counter
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from pipelines.lake.schemas import EVERYONE, rows_in

SEGMENT_USERS, MOST_SEGMENTS = 10, 50  # with events, for a list of their own; lists
PRIOR_USERS = 50.0
MOST_MOVED = 2.0  # standard deviations of the scores
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


def wanted_of(controls: pa.Table) -> pa.Table:
    """user_id and category of the wishes for more of a category."""
    more = pc.and_(pc.equal(controls["target"], "category"), pc.equal(controls["wish"], "more"))
    return controls.filter(more).select(["user_id", "value"])


# --- segments: lists for users without a history ----------------------------------------------------------------


def segment_of(segments: pa.Table, users: pa.Array) -> np.ndarray:
    """Name of the segment of each user; None where there is none."""
    names = np.array([*segments["segment"].to_pylist(), None], object)
    return names[rows_in(users, segments["user_id"].combine_chunks())]  # row -1 is nobody


def segments_with_lists(segments: pa.Table, users: pa.Array) -> list[str]:
    """``*name`` of the segments that most users with events are of, unless a user is called that."""
    counted = Counter(name for name in segment_of(segments, users) if name is not None)
    named = {f"{EVERYONE}{name}" for name, n in counted.most_common(MOST_SEGMENTS) if n >= SEGMENT_USERS}
    return sorted(named - set(users.to_pylist()))


def stands_for_segment(users: list[str]) -> np.ndarray:
    """Bool (users,), whether an id stands for the users of a segment; ``*`` alone stands for anyone."""
    return np.array([u.startswith(EVERYONE) and u != EVERYONE for u in users], bool)


def leanings_of(segments: pa.Table, users: np.ndarray, positives: sparse.csr_matrix) -> sparse.csr_matrix:
    """How far the users of a segment like an item more than all do (users, items), in the rows that stand for segments.

    The logarithm of the ratio of the shares of users who like it, those of the segment shrunk towards all by as many
    users as ``PRIOR_USERS``, at most ``MOST_MOVED``.

    Args:
        segments: user_id and segment.
        users: ids in the order of the rows, with those of ``segments_with_lists``.
        positives: weights of positive feedback (users, items).
    """
    liked = (positives > 0).astype(np.float64)
    names = segment_of(segments, pa.array(users, pa.string()))
    has_history = np.diff(positives.indptr) > 0
    overall = np.asarray(liked.sum(0)).ravel() / max(1, has_history.sum())
    moved = sparse.lil_matrix(positives.shape, dtype=np.float32)
    for row in np.flatnonzero(stands_for_segment(users.tolist())):
        of_segment = (names == users[row].removeprefix(EVERYONE)) & has_history
        if names[row] is None and of_segment.any():
            share = np.asarray(liked[of_segment].sum(0)).ravel() + PRIOR_USERS * overall
            ratio = np.log(
                share / (of_segment.sum() + PRIOR_USERS) / np.where(overall > 0, overall, 1) + (overall == 0)
            )
            moved[row] = np.clip(ratio, -MOST_MOVED, MOST_MOVED)
    return moved.tocsr()


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
