"""A night as files that workers map into memory: all that is needed to score and list any user.

Belongs here: writing and loading them. Does not: lists (``score``), what a night knows (``night``).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from encoders.device import single_threaded
from pipelines.config import Config
from pipelines.lake.cards import load_recommenders
from pipelines.lake.folders import scratch
from pipelines.lake.health import good_nights
from pipelines.lake.schemas import rows_in
from pipelines.lake.storage import Lake, write_parquet
from pipelines.learning.reasons import Shared, Space
from pipelines.night.arms import Plan, plans_of
from pipelines.night.dials import Traits
from pipelines.night.exploring import Exploring
from pipelines.night.inputs import (
    arrays_of,
    load_inputs,
    load_inputs_from,
    load_sparse,
    save_inputs,
    save_sparse,
    space_of,
)
from pipelines.night.night import Night
from pipelines.night.placing import Places
from pipelines.night.rules import ruled, wanted_of
from pipelines.recommenders.base import Inputs, Recommender
from pipelines.recommenders.blend.scored import popular_where_flat, scored
from pipelines.recommenders.ranking import blocks_of, top_k
from pipelines.sections import Dials


def save_night(night: Night, folder: Path, device: str, ignored: float = 0.0) -> tuple[int, int]:
    """Write what workers need to score any user, as .npy files that they map into memory.

    Args:
        night: the night.
        folder: where files go.
        device: torch device of the inputs.
        ignored: standard deviations that an item moves down each time that it was shown in vain.

    Returns:
        Number of users, with the one who stands for anyone else, and of items.
    """
    data, inputs = load_inputs(night, device)
    save_inputs(inputs, folder)
    save_sparse(data.seen(), folder, "seen")
    hidden, moved = night.wishes(pa.array(data.users, pa.string()))
    save_sparse(hidden, folder, "hidden")
    moved = moved + night.leanings(data)
    save_sparse((moved - ignored * night.ignored(data) if ignored else moved).tocsr(), folder, "moved")
    np.save(folder / "servable.npy", night.servable())
    ids = {n: pa.table({"id": pa.array(x, pa.string())}) for n, x in (("users", data.users), ("items", data.items))}
    write_parquet(ids["users"], folder / "users.parquet")
    write_parquet(ids["items"].append_column("categories", night.categories()), folder / "items.parquet")
    write_parquet(wanted_of(night.controls()), folder / "wanted.parquet")
    places = Places.of(night.items(), night.controls(), pa.array(data.users, pa.string()), night.rules)
    save_sparse(places.members, folder, "members")
    save_sparse(places.unwanted, folder, "unwanted")
    np.save(folder / "at_most.npy", places.at_most)
    np.save(folder / "pinned.npy", np.array(sorted(places.pinned.items()), np.int64).reshape(-1, 2))
    _save_shared(night, data.items, folder)
    space = space_of(night, inputs.fused)
    np.save(folder / "space.npy", space.centred)
    for m in space.aligned:
        np.save(folder / f"aligned.{m}.npy", space.aligned[m])
        np.save(folder / f"attention.{m}.npy", space.attention[m])
    return len(data.users), len(data.items)


def _save_shared(night: Night, items: np.ndarray, folder: Path) -> None:
    """Write what is known that pairs of items share; of several graphs the one in which they are most alike counts."""
    rows = night.item_graphs().sort_by([("similarity", "descending"), ("graph", "ascending")])
    one, other = (rows_in(rows[c], pa.array(items, pa.string())) for c in ("item_id", "other_item_id"))
    there = (one >= 0) & (other >= 0)
    pairs, first = np.unique((one * len(items) + other)[there], return_index=True)
    why = rows["why"].filter(pa.array(there)).take(pa.array(first))
    write_parquet(pa.table({"pair": pairs, "why": why}), folder / "shared.parquet")


def _load_shared(folder: Path, items: int) -> Shared:
    rows = pq.read_table(folder / "shared.parquet")
    return Shared(items, rows["pair"].to_numpy(), rows["why"].to_numpy())


def load_places(folder: Path) -> Places:
    """Rules and wishes for places, from the files of ``save_night``."""
    fixed = dict(np.load(folder / "pinned.npy").tolist())
    return Places(
        load_sparse(folder, "members"), np.load(folder / "at_most.npy"), load_sparse(folder, "unwanted"), fixed
    )


def save_plans(config: Config, lake: Lake, day: date, folder: Path) -> None:
    """Write what each user is served, for workers: an experiment's arm decides."""
    users = pq.read_table(folder / "users.parquet")["id"].to_pylist()
    plans = plans_of(config, lake, day, users)
    rows = [vars(p) | {"dials": p.dials.model_dump()} for p in plans]
    write_parquet(pa.Table.from_pylist(rows), folder / "plans.parquet")


def save_exposed(lake: Lake, day: date, folder: Path) -> None:
    """Write in how many lists of the last good night before each item was; zeros where there is none."""
    items = pq.read_table(folder / "items.parquet")["id"].combine_chunks()
    found = np.zeros(len(items), np.int64)
    if before := good_nights(lake, day - timedelta(days=1)):
        row = rows_in(lake.read("recommendations", before[-1], ["item_id"])["item_id"], items)
        found = np.bincount(row[row >= 0], minlength=len(items))
    np.save(folder / "exposed.npy", found)


@contextmanager
def opened(config: Config, lake: Lake, day: date, device: str = "cpu") -> Iterator["Loaded"]:
    """A night that was run, as workers of ``score`` have it."""
    with scratch(config.paths.data / "cache", "opened") as folder, single_threaded():
        save_night(Night.of(config, lake, day), folder, device, config.recommend.ignored)
        save_plans(config, lake, day, folder)
        save_exposed(lake, day, folder)
        yield Loaded.of(lake, day, config.recommend.models, folder, device)


def save_exploring(config: Config, lake: Lake, day: date, folder: Path) -> None:
    """Write how places are drawn, where any are."""
    how = Exploring.of(config, lake, day, pq.read_table(folder / "items.parquet")["id"].combine_chunks())
    if how:
        np.savez(folder / "exploring.npz", allow_pickle=False, **vars(how) | {"night": day.isoformat()})


def load_exploring(folder: Path) -> Exploring | None:
    """What ``save_exploring`` wrote; None where nothing is drawn."""
    if not (folder / "exploring.npz").exists():
        return None
    with np.load(folder / "exploring.npz") as s:
        night, kind = date.fromisoformat(str(s["night"])), str(s["kind"])
        return Exploring(kind, int(s["places"]), int(s["pool"]), s["shown"], s["clicked"], night)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Loaded:
    """Everything that a worker needs to score any user of a night."""

    inputs: Inputs
    users: pa.StringArray
    items: pa.StringArray
    seen: sparse.csr_matrix
    hidden: sparse.csr_matrix
    moved: sparse.csr_matrix
    categories: pa.ListArray
    wanted: dict[str, set[str]]
    servable: np.ndarray
    liked: np.ndarray
    space: Space
    places: Places
    models: list[Recommender]
    plans: list[Plan]
    shared: Shared = field(default_factory=Shared.nothing)
    exposed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    exploring: Exploring | None = None
    bonus: np.ndarray = field(default_factory=lambda: np.zeros(0))
    added: dict[str, float] = field(default_factory=dict)

    def forbidden(self, users: np.ndarray, filter_seen: bool) -> sparse.csr_matrix:
        """Nonzero (users, items) where an item is never listed: hidden, or met where that is left out."""
        return self.hidden[users] + self.seen[users] if filter_seen else self.hidden[users]

    def traits(self) -> Traits:
        """What items and users are like, and what floors have added."""
        plain = Traits.of(self.inputs, self.categories, self.exposed)
        return replace(plain, bonus=self.bonus, added=self.added)

    def ranked_by(self, scores: np.ndarray, users: np.ndarray) -> np.ndarray:
        """What some users' lists are ranked by (users, items): a recommender's scores under rules and wishes."""
        return ruled(popular_where_flat(scores, self.inputs), self.servable, self.moved[users])

    def ranked(self, users: np.ndarray, serve: str, deep: int, filter_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """What a recommender ranks for some users, at least one: items (users, deep) and scores, by blocks of users."""
        parts = []
        for block in blocks_of(users, len(self.items)):
            plain = next(s for name, s, _ in scored(self.models, self.inputs, block) if name == serve)
            forbidden = self.forbidden(block, filter_seen)
            parts.append(top_k(self.ranked_by(plain, block), deep, forbidden, self.inputs.device))
        items, values = (np.concatenate([p[n] for p in parts]) for n in (0, 1))
        return items, values

    @classmethod
    def of(cls, lake: Lake, day: date, names: tuple[str, ...], folder: Path, device: str) -> "Loaded":
        """The night's models from the lake, the rest from the files of ``save_night``."""
        inputs = load_inputs_from(folder, device)
        centred_vectors = np.load(folder / "space.npy", mmap_mode="r")
        items, wanted = pq.read_table(folder / "items.parquet"), dict[str, set[str]]()
        for user, category in zip(*pq.read_table(folder / "wanted.parquet").to_pydict().values(), strict=True):
            wanted.setdefault(user, set()).add(category)
        return cls(
            inputs=inputs,
            users=pq.read_table(folder / "users.parquet")["id"].combine_chunks(),
            items=items["id"].combine_chunks(),
            seen=load_sparse(folder, "seen"),
            hidden=load_sparse(folder, "hidden"),
            moved=load_sparse(folder, "moved"),
            categories=items["categories"].combine_chunks(),
            wanted=wanted,
            servable=np.load(folder / "servable.npy"),
            liked=np.asarray(inputs.positives.sum(0)).ravel() > 0,
            places=load_places(folder),
            space=Space(centred_vectors, arrays_of(folder, "aligned"), arrays_of(folder, "attention")),
            models=load_recommenders(lake, day, names, inputs),
            shared=_load_shared(folder, len(items)),
            exploring=load_exploring(folder),
            plans=[
                Plan(**r | {"dials": Dials(**r["dials"])}) for r in pq.read_table(folder / "plans.parquet").to_pylist()
            ],
            bonus=np.load(priced) if (priced := folder / "bonus.npy").exists() else np.zeros(0),
            added=json.loads(more.read_text()) if (more := folder / "added.json").exists() else {},
            exposed=np.load(shown) if (shown := folder / "exposed.npy").exists() else np.zeros(len(items), np.int64),
        )
