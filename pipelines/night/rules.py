"""What may be listed: items that are available on the next day, and what users wish to see more, less or never.

Belongs here: masks and shifts of scores, of users and of segments of them. Does not: ranking
(``recommenders.ranking``), where wishes come from (``raw.versions``).
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from pipelines.lake.schemas import EVERYONE, EVERYTHING, rows_in
from pipelines.night.events import Dataset
from pipelines.sections import Rules

SEGMENT_USERS, MOST_SEGMENTS = 10, 50  # with events, for a list of their own; lists
PRIOR_USERS = 50.0
IGNORED_DAYS, MOST_IGNORED = 14, 5  # days of impressions that count, and times that an item was shown
MOST_MOVED = 2.0  # standard deviations of the scores
GROUPED = {"category": "categories", "tag": "tags"}  # target of a wish -> column of the catalogue
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


def allowed(items: pa.Table, rules: Rules) -> np.ndarray:
    """Bool (items,): what the shop's ``deny`` and ``allow`` leave."""
    denied = np.zeros(items.num_rows, bool)
    for target in rules.deny:
        denied |= meant_by(items, target)
    if not rules.allow:
        return ~denied
    return ~denied & np.any([meant_by(items, target) for target in rules.allow], axis=0)


def meaningless(items: pa.Table, rules: Rules) -> list[str]:
    """Targets and pinned items of rules that no item of a catalogue is meant by."""
    targets = [*rules.deny, *rules.allow, *(f"item:{i}" for i in rules.pinned.values())]
    return [t for t in dict.fromkeys(targets) if not meant_by(items, t).any()]


def meant_by(items: pa.Table, target: str) -> np.ndarray:
    """Bool (items,), which items a target such as ``domain:books`` means."""
    kind, _, value = target.partition(":")
    if kind in GROUPED:
        return np.asarray(_members(pa.chunked_array([[value]]), items, GROUPED[kind]).todense(), bool)[0]
    column = items[{"item": "item_id", "domain": "domain"}[kind]]
    return np.asarray(pc.fill_null(pc.equal(column, value), False))


def groups_of_items(items: pa.Table, kinds: Iterable[str]) -> dict[str, sparse.csr_matrix]:
    """Kind -> one (items, groups) where an item is of a group, and the names of the groups; see ``names_of``."""
    found = {}
    for kind in kinds:
        names = names_of(items, kind)
        if kind in GROUPED:
            found[kind] = _members(pa.chunked_array([names]), items, GROUPED[kind]).T.tocsr()
        else:
            row = rows_in(items["domain"], names)
            of = (np.ones((row >= 0).sum(), np.float32), (np.flatnonzero(row >= 0), row[row >= 0]))
            found[kind] = sparse.csr_matrix(of, shape=(items.num_rows, len(names)))
    return found


def shares_of_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each entry as a share of its row; rows without any stay empty."""
    total = np.asarray(matrix.sum(1)).ravel()
    return sparse.csr_matrix(sparse.diags_array(1 / np.where(total > 0, total, 1)) @ matrix)


def names_of(items: pa.Table, kind: str) -> pa.Array:
    """Sorted names of the categories, tags or domains of a catalogue."""
    column = items[GROUPED[kind]].combine_chunks().flatten() if kind in GROUPED else items["domain"].combine_chunks()
    return pc.unique(column.drop_null()).sort()


def unwanted_of(controls: pa.Table, items: pa.Table, users: pa.Array, kind: str) -> sparse.csr_matrix:
    """One (users, groups) where a user wants less of a category or tag."""
    mine = pc.and_(pc.equal(controls["target"], kind), pc.equal(controls["wish"], "less"))
    rows, names = controls.filter(mine), names_of(items, kind)
    row, column = rows_in(rows["user_id"], users), rows_in(rows["value"], names)
    known = (row >= 0) & (column >= 0)
    ones = np.ones(known.sum(), np.float32)
    return sparse.csr_matrix((ones, (row[known], column[known])), shape=(len(users), len(names)))


def wishes_of(controls: pa.Table, items: pa.Table, users: pa.Array) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """What users hide (users, items), nonzero where hidden; and +1 or -1 where they want more or less of an item.

    A wish for an item counts before those for its categories and tags; of several of these the sum counts. To want less
    of a category or tag moves nothing, it takes places away, see ``placing``.

    Args:
        controls: rows of ``std_controls``.
        items: rows of ``std_items``.
        users: ids, in the order of the matrices.
    """
    shape = (len(users), items.num_rows)
    known = controls.filter(pa.array(rows_in(controls["user_id"], users) >= 0))
    owner = rows_in(known["user_id"], users)
    target, wish = (np.asarray(known[c].to_pylist(), object) for c in ("target", "wish"))
    members = {kind: _members(known["value"], items, column) for kind, column in GROUPED.items()}
    direct = rows_in(known["value"], items["item_id"].combine_chunks())
    of_item: dict[tuple[int, int], str] = {
        (int(u), int(i)): w for u, i, w, t in zip(owner, direct, wish, target, strict=True) if t == "item" and i >= 0
    }
    sums: dict[tuple[int, int], list[str]] = {}
    for n in np.flatnonzero(np.isin(target, list(GROUPED)) & (wish != "less")):
        of = members[target[n]]
        for i in of.indices[of.indptr[n] : of.indptr[n + 1]]:
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


def remembered(events: pa.Table, controls: pa.Table) -> pa.Table:
    """Events without those that their users have asked to forget: all up to the moment of a reset of everything."""
    resets = controls.filter(pc.equal(controls["target"], EVERYTHING))
    if not resets.num_rows:
        return events
    row = rows_in(events["user_id"], resets["user_id"].combine_chunks())
    at = resets["created_at"].combine_chunks().take(pa.array(np.maximum(row, 0)))
    return events.filter(pc.or_(pa.array(row < 0), pc.greater(events["event_at"], at)))


def ignored_of(shown: pa.Table, data: Dataset) -> sparse.csr_matrix:
    """How often each user was shown an item, where the user has never met it (users, items); at most ``MOST_IGNORED``.

    Impressions without a click are discounted at ranking, so that every recommender learns from them
    (https://doi.org/10.1145/2623330.2623356).

    Args:
        shown: user_id and item_id of impressions.
        data: events, users and items of the night.
    """
    row, column = (
        rows_in(shown[c], pa.array(ids, pa.string())) for c, ids in (("user_id", data.users), ("item_id", data.items))
    )
    known = (row >= 0) & (column >= 0)
    shape = (len(data.users), len(data.items))
    counts = sparse.csr_matrix((np.ones(known.sum(), np.float32), (row[known], column[known])), shape=shape)
    counts = (counts - counts.multiply(data.seen())).tocsr()
    counts.data = np.minimum(counts.data, MOST_IGNORED)
    counts.eliminate_zeros()
    return counts


def wanted_of(controls: pa.Table) -> pa.Table:
    """user_id and value of the wishes for more of a category or tag."""
    grouped = pc.is_in(controls["target"], value_set=pa.array(list(GROUPED)))
    more = pc.and_(grouped, pc.equal(controls["wish"], "more"))
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


def _members(categories: pa.ChunkedArray, items: pa.Table, column: str) -> sparse.csr_matrix:
    """(values, items): which items are of a category, or have a tag."""
    lists = items[column].combine_chunks()
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
