"""What is known to judge the lists of a night, and the groups of users and items that they are judged for apart.

Belongs here: who came to like what, who is of which group. Does not: the formulas (``learning.metrics``), tables
(``evaluate``).
"""

import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from encoders.modalities import MODALITIES
from pipelines.config import Config
from pipelines.lake.schemas import EVERYONE, rows_in, vectors_to_numpy
from pipelines.lake.storage import Lake
from pipelines.night.events import Feedback, end_of_day, event_weights
from pipelines.night.night import Night
from pipelines.night.rules import groups_of_items, names_of, remembered, segment_of, shares_of_rows

log = logging.getLogger(__name__)

MOST_GROUPS = 20  # of one kind that are judged apart
FEWEST_USERS = 10  # of a group of users by an attribute
EXPOSURE_DAYS = 28  # of what was shown, before the night
NEW_DAYS = 7  # since anybody first met an item
ACTIVITY = ((1, 5), (6, 20), (21, None))  # events before the night


@dataclass(frozen=True)
class Judgement:
    """What is known to judge the lists of a night.

    Attributes:
        users: sorted ids of users who came to like something after the night.
        items: sorted ids of the night's catalogue.
        relevant: one (users, items) where a user came to like an item after the night.
        warm: bool (users,), whether the user had met anything up to the night.
        met: number of users who had met each item up to the night (items,).
        users_before: number of users with events up to the night.
        segment: name of each user's (users,), None where there is none.
        candidates: items that could be listed for each user (users,).
        history: one (users, items) where a user had met an item.
        vectors: unit vectors (items, d) in the unified space of the night; no rows where there is none.
        categories: share of each category (items, categories), rows of zeros where an item has none.
        groups: kind -> name of each user's group (users,), None where there is none.
        item_groups: slice -> bool (items,), relevant items that it is judged by.
        exposure: with which probability a user was shown each item of late (items,); None where that is not known.
    """

    users: pa.Array
    items: pa.Array
    relevant: sparse.csr_matrix
    warm: np.ndarray
    met: np.ndarray
    users_before: int
    segment: np.ndarray
    candidates: np.ndarray | None = None
    history: sparse.csr_matrix | None = None
    vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    categories: sparse.csr_matrix | None = None
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    item_groups: dict[str, np.ndarray] = field(default_factory=dict)
    exposure: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> "Judgement":
        """What is known to judge the lists of some of the users."""
        return replace(
            self,
            users=self.users.take(pa.array(rows)),
            relevant=self.relevant[rows],
            warm=self.warm[rows],
            segment=self.segment[rows],
            candidates=None if self.candidates is None else self.candidates[rows],
            history=None if self.history is None else self.history[rows],
            groups={kind: names[rows] for kind, names in self.groups.items()},
        )


def judgement_of(config: Config, lake: Lake, day: date) -> Judgement:
    """What the lists of the night before are judged by, with all that is known of its users and items."""
    yesterday, night = day - timedelta(days=1), Night.of(config, lake, day)
    end = end_of_day(yesterday, config.timezone)
    events, catalogue = night.every_event(), lake.read("std_items", yesterday)
    late = pc.greater_equal(events["event_at"], pa.scalar(end, events.schema.field("event_at").type))
    before, later = events.filter(pc.invert(late)), events.filter(late)
    before = remembered(before, Night.of(config, lake, yesterday).controls())  # as the lists knew it
    segments = Night.of(config, lake, yesterday).segments()
    found = judge(catalogue["item_id"], before, later, night.feedback, config.recommend.filter_seen, segments)
    content = config.encoders and lake.manifest("feat_items", yesterday)
    features = _of_items(lake.read("feat_items", yesterday), catalogue["item_id"]) if content else None
    about = lake.read("std_users", yesterday) if lake.manifest("std_users", yesterday) else None
    first = before.group_by("item_id").aggregate([("event_at", "min")])
    row = pc.index_in(catalogue["item_id"], value_set=first["item_id"].combine_chunks())
    first_met = first["event_at_min"].combine_chunks().cast(pa.int64()).take(row.combine_chunks()).to_numpy(False)
    return replace(
        found,
        vectors=found.vectors if features is None else vectors_to_numpy(features["vector"]),
        categories=categories_of(catalogue)[1],
        groups=found.groups | (attributes_of(about, found.users) if about is not None else {}),
        item_groups=item_groups_of(catalogue, features, (end.timestamp() - first_met / 1e6) / 86_400),
        exposure=exposure_of(lake, yesterday, found.items) if config.evaluate.estimator == "snips" else None,
    )


def exposure_of(lake: Lake, day: date, items: pa.Array) -> np.ndarray | None:
    """Share of the users of the last four weeks who were shown each item (items,), one more of each for luck.

    None where nothing is known to have been shown.
    """
    days = [d for d in lake.days("feedback", day) if d > day - timedelta(days=EXPOSURE_DAYS)]
    columns = ["user_id", "item_id", "shown"]
    shown = [lake.read("feedback", d, columns) for d in days]
    met = pa.concat_tables(shown).filter(pc.not_equal(pa.concat_tables(shown)["shown"], "reaction")) if shown else None
    if met is None or not met.num_rows:
        log.warning(
            "evaluate.estimator = 'snips', but feedback up to %s has nothing that was shown; see impressions", day
        )
        return None
    row = rows_in(met.group_by(["user_id", "item_id"]).aggregate([])["item_id"], items)
    number = np.bincount(row[row >= 0], minlength=len(items))
    return np.asarray((number + 1) / (len(pc.unique(met["user_id"])) + 1))


def _of_items(features: pa.Table, items: pa.ChunkedArray) -> pa.Table | None:
    """Rows of ``feat_items`` in the order of a catalogue; None where it has items that these do not have."""
    row = rows_in(items, features["item_id"].combine_chunks())
    return features.take(pa.array(row)) if (row >= 0).all() else None


def judge(
    catalogue: pa.ChunkedArray,
    before: pa.Table,
    later: pa.Table,
    feedback: Feedback,
    filter_seen: bool,
    segments: pa.Table | None = None,
) -> Judgement:
    """What users did later that the lists of a night could have foretold.

    Args:
        catalogue: sorted item ids of the night.
        before: events up to the night.
        later: events after it.
        feedback: how strong events count; what is no positive feedback is not relevant.
        filter_seen: what a user had met before is not relevant.
        segments: user_id and segment of the night.
    """
    met = before.group_by(["user_id", "item_id"]).aggregate([])
    later = later.filter(pa.array(event_weights(later["event"], later["value"], feedback) > 0))
    later = later.group_by(["user_id", "item_id"]).aggregate([])
    later = later.filter(pc.is_in(later["item_id"], value_set=catalogue.combine_chunks()))
    if filter_seen:
        later = later.join(met, ["user_id", "item_id"], join_type="left anti")
    users, items = pc.unique(later["user_id"]).sort(), catalogue.combine_chunks()
    users_before, known = pc.unique(met["user_id"]), rows_in(met["item_id"], items)
    history = _pairs(met, users, items)
    segment = np.full(len(users), None, object) if segments is None else segment_of(segments, users)
    return Judgement(
        users=users,
        items=items,
        relevant=_pairs(later, users, items),
        warm=rows_in(users, users_before) >= 0,
        met=np.bincount(known[known >= 0], minlength=len(items)),
        users_before=len(users_before),
        segment=segment,
        candidates=len(items) - (np.diff(history.indptr) if filter_seen else np.zeros(len(users), int)),
        history=history,
        groups={"segment": segment, "activity": activity_of(before, users)},
    )


def _pairs(rows: pa.Table, users: pa.Array, items: pa.Array) -> sparse.csr_matrix:
    """One (users, items) for each row of known users and items; rows do not repeat."""
    row, column = rows_in(rows["user_id"], users), rows_in(rows["item_id"], items)
    known = (row >= 0) & (column >= 0)
    ones = np.ones(known.sum(), np.float32)
    return sparse.csr_matrix((ones, (row[known], column[known])), shape=(len(users), len(items)))


def activity_of(before: pa.Table, users: pa.Array) -> np.ndarray:
    """How many events each user had, as one of ``ACTIVITY`` in words; None without any."""
    row = rows_in(before["user_id"], users)
    number = np.bincount(row[row >= 0], minlength=len(users))
    names = np.full(len(users), None, object)
    for low, high in ACTIVITY:
        names[(number >= low) & (number <= (high or np.inf))] = f"{low}-{high}" if high else f"{low} and more"
    return names


def attributes_of(rows: pa.Table, users: pa.Array) -> dict[str, np.ndarray]:
    """``user.`` and attribute -> value of each user (users,), None where fewer than ``FEWEST_USERS`` have it.

    Attributes with more than ``MOST_GROUPS`` values say nothing of groups and are left out.
    """
    lists, row = rows["attributes"].combine_chunks(), rows_in(rows["user_id"], users)
    owner = row[np.asarray(pc.list_parent_indices(lists), np.int64)] if len(lists) else np.zeros(0, np.int64)
    found: dict[str, np.ndarray] = {}
    for at, text in zip(owner.tolist(), lists.flatten().to_pylist(), strict=True):
        name, _, value = text.partition("=")
        if at >= 0 and value:
            if name not in found:
                found[name] = np.full(len(users), None, object)
            found[name][at] = value
    groups = {}
    for name, values in sorted(found.items()):
        counted = Counter(v for v in values if v is not None)
        kept = {v for v, n in counted.items() if n >= FEWEST_USERS}
        if len(kept) > 1 and len(counted) <= MOST_GROUPS:
            groups[f"user.{name}"] = np.array([v if v in kept else None for v in values], object)
    return groups


def categories_of(items: pa.Table) -> tuple[list[str], sparse.csr_matrix]:
    """Names of categories, and the share of each in each item (items, categories); rows without any are zeros."""
    shares = shares_of_rows(groups_of_items(items, ["category"])["category"])
    return names_of(items, "category").to_pylist(), shares


def item_groups_of(items: pa.Table, features: pa.Table | None, first_met: np.ndarray) -> dict[str, np.ndarray]:
    """Slice -> which items it is judged by: new ones, those of a category or domain, those with and without a modality.

    Args:
        items: rows of ``std_items`` of the night.
        features: rows of ``feat_items`` of the night; None where there is no content.
        first_met: days since anybody first met each item (items,), NaN where nobody did.
    """
    found = {f"item_age<{NEW_DAYS}d": ~(first_met >= NEW_DAYS), f"item_age>={NEW_DAYS}d": first_met >= NEW_DAYS}
    names, shares = categories_of(items)
    sizes = np.asarray((shares > 0).sum(0)).ravel()
    for c in sorted(np.argsort(-sizes, kind="stable")[:MOST_GROUPS]) if len(names) > 1 else []:
        found[f"category={names[c]}"] = np.asarray((shares[:, [c]] > 0).todense()).ravel()
    domains = Counter(d for d in items["domain"].to_pylist() if d is not None)
    for domain, _ in sorted(domains.most_common(MOST_GROUPS)) if len(domains) > 1 else []:
        found[f"domain={domain}"] = np.asarray(pc.equal(items["domain"], domain).fill_null(False).to_numpy(), np.bool_)
    if features is None:
        return found
    for m in MODALITIES:
        has = np.asarray(features[f"has_{m}"].to_numpy(), np.bool_)
        if has.any() and not has.all():
            found |= {f"with_{m}": has, f"without_{m}": ~has}
    return found


def lists_of(table: pa.Table, judgement: Judgement) -> tuple[np.ndarray, np.ndarray]:
    """Lists of one recommender as rows of the catalogue (lists, longest).

    -1 is behind the end of a list, and an item that has left the catalogue since.

    Returns:
        The lists of all users, and those of the judged users; who has none gets the list of the segment, else of all.
    """
    table = table.sort_by([("user_id", "ascending"), ("rank", "ascending")])
    users = pc.unique(table["user_id"])
    owner = rows_in(table["user_id"], users)
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    lists = np.full((len(users) + 1, int(place.max(initial=0)) + 1), -1, np.int64)  # row -1 is an empty list
    lists[owner, place] = rows_in(table["item_id"], judgement.items)
    own = rows_in(judgement.users, users)
    of_segment = rows_in(pa.array([f"{EVERYONE}{s or ''}" for s in judgement.segment], pa.string()), users)
    everyone = rows_in(pa.array([EVERYONE]), users)
    return lists[:-1], lists[np.select([own >= 0, of_segment >= 0], [own, of_segment], everyone)]
