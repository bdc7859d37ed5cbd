"""Top K of every recommender for every user, and the served list with its reasons, in blocks of users through Beam.

Writes ``reco_candidates``, ``recommendations``, ``list_health``. Belongs here: blocks, lists, ids. Does
not: fitting (``train``), why an item is in a list (``learning.reasons``).
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.utils.shared import Shared
from scipy import sparse

from encoders.device import choose_device, single_threaded
from pipelines.config import Config
from pipelines.engine import beam as engine
from pipelines.lake.folders import scratch
from pipelines.lake.health import good_nights, list_health, said
from pipelines.lake.schemas import EVERYONE
from pipelines.lake.storage import Lake, Manifest, write_parquet
from pipelines.lake.tables import TABLES
from pipelines.learning.reasons import HISTORY, Reasons, Speakers, explain, modality_of_uploads
from pipelines.night.arms import DEFAULT, groups_of
from pipelines.night.dials import POOL, Traits, turned
from pipelines.night.exploring import explored
from pipelines.night.files import Loaded, save_exploring, save_exposed, save_night, save_plans
from pipelines.night.floors import Price, found_on, kept_by
from pipelines.night.night import Night
from pipelines.night.placing import DEEP, behind, capped, held_of, pinned
from pipelines.night.rules import allowed, meaningless, stands_for_segment
from pipelines.raw.places import UnusualError
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.blend.new_items import place_new
from pipelines.recommenders.blend.scored import scored
from pipelines.recommenders.ranking import MOST_SCORES, top_k
from pipelines.sections import Dials, Recommend

log = logging.getLogger(__name__)

Lists = tuple[np.ndarray, np.ndarray]
SECTIONS = ("recommend", "rules")  # settings that lists are made under

SPACE = 1.0  # weight of likeness in the unified space among what the models make of a history


@dataclass(frozen=True)
class Serving:
    """What is listed; travels to workers.

    Attributes:
        models: recommenders of the night.
        k: list length.
        filter_seen: lists leave out what a user has met.
        new_items: last places of a hybrid list kept for items that nobody has liked.
    """

    models: tuple[str, ...]
    k: int
    filter_seen: bool
    new_items: int


def score(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``reco_candidates`` and ``recommendations`` of the night."""
    night, r = Night.of(config, lake, day), config.recommend
    serving = Serving(r.models, r.k, r.filter_seen, r.new_items)
    provenance: dict[str, Any] = {
        "config_digest": config.digest(*SECTIONS),
        "inputs": {f"model_{n}": lake.require(f"model_{n}", day).content_digest for n in r.models},
    }
    for target in meaningless(night.items(), night.rules):
        log.warning("rules: '%s' is nothing that the catalogue of %s has", target, day)
    with scratch(config.paths.data / "cache", "score") as staging:
        device = choose_device(config.compute.device).name
        with single_threaded():
            users, items = save_night(night, staging, device, r.ignored)
            save_plans(config, lake, day, staging)
            if any(d.exposure for d in config.every_dials):
                save_exposed(lake, day, staging)
            save_exploring(config, lake, day, staging)
            prices = save_prices(night, lake, r, staging, device) if r.floors else None
        size = max(1, min(config.compute.shard_rows, MOST_SCORES // max(items, 1)))
        blocks = [(a, min(a + size, users), users) for a in range(0, users, size)]

        def build(p: beam.Pipeline) -> None:
            score_block = beam.ParDo(ScoreBlock(str(lake.root), day, serving, str(staging), device))
            p | beam.Create(blocks, reshuffle=False) | score_block

        engine.run(build, config.compute.runner, config.compute.runner_options, "score")
        candidates = [staging / f"{n}-{a:09d}.parquet" for n in sorted(r.models) for a, _, _ in blocks]
        served = [staging / f"served-{a:09d}.parquet" for a, _, _ in blocks]
        judged = lists_judged(config, lake, day, served)
        yield lake.publish("list_health", day, judged, config_digest=config.digest("guards"))
        stop_where_lists_are_unusual(judged.to_pylist())
        yield lake.publish("floor_prices", day, floors_kept(prices, night.items(), served))
        yield lake.publish("reco_candidates", day, (pq.read_table(p) for p in candidates), **provenance)
        counters = {"pinned": 0, "ruled_out": int((~allowed(night.items(), night.rules)).sum())}
        for path in served:
            codes = pq.read_table(path, columns=["reason_code"])["reason_code"]
            counters["pinned"] += pc.sum(pc.equal(codes, "pinned")).as_py() or 0
        pieces = (pq.read_table(p) for p in served)
        manifest = lake.publish("recommendations", day, pieces, **provenance, counters=counters)
        yield manifest
    log.info("recommendations %s: %d rows for %d users", day, manifest.rows, users)


def save_prices(night: Night, lake: Lake, r: Recommend, folder: Path, device: str) -> tuple[list[Price], Traits]:
    """Find the prices of the night's floors, and write what they add to relevance and dials, for workers."""
    loaded = Loaded.of(lake, night.day, r.models, folder, device)
    prices, traits = found_on(loaded, night.items(), r.k, r.filter_seen, r.floors)
    np.save(folder / "bonus.npy", traits.bonus)
    (folder / "added.json").write_text(json.dumps(traits.added))
    return prices, traits


def floors_kept(found: tuple[list[Price], Traits] | None, items: pa.Table, served: list[Path]) -> pa.Table:
    """Rows of ``floor_prices``: each target with what it has of the night's lists."""
    schema = TABLES["floor_prices"].schema({})
    if found is None:
        return schema.empty_table()
    tables = (pq.read_table(p, columns=["user_id", "rank", "item_id"]) for p in served)
    shares = kept_by(tables, items, *found).tolist()
    return pa.Table.from_pylist([vars(p) | {"share": s} for p, s in zip(found[0], shares, strict=True)], schema=schema)


def lists_judged(config: Config, lake: Lake, day: date, served: list[Path]) -> pa.Table:
    """Rows of ``list_health``: how much of the lists to be published was in those of the night before.

    There are none where nothing can be compared; lists of users whose recommender is another one than the night before
    say nothing of the data.
    """
    nothing = TABLES["list_health"].schema({}).empty_table()
    earlier = good_nights(lake, day - timedelta(days=1))
    if not earlier or lake.require("recommendations", earlier[-1]).config_digest != config.digest(*SECTIONS):
        return nothing
    tonight = pa.concat_tables(pq.read_table(p, columns=["user_id", "model", "item_id"]) for p in served)
    before = lake.read("recommendations", earlier[-1], ["user_id", "model", "item_id"])
    users = before.group_by(["user_id", "model"]).aggregate([])
    both = tonight.join(users, ["user_id", "model"], join_type="left semi")
    if not both.num_rows:
        return nothing
    same = both.join(before, ["user_id", "model", "item_id"], join_type="left semi").num_rows
    row = list_health(config, lake, day, same / both.num_rows, len(pc.unique(both["user_id"])))
    return pa.Table.from_pylist([row], schema=nothing.schema)


def stop_where_lists_are_unusual(rows: list[dict[str, Any]]) -> None:
    """Check what ``lists_judged`` has found.

    Raises:
        UnusualError: less than usual, and nobody has accepted it.
    """
    for row in rows:
        if not row["passed"] and not row["accepted"]:
            advice = f"look at the night's data, or `nightloom accept --date {row['day']}`"
            raise UnusualError(f"check usual_same_lists: {said(row)}; {advice}")


class ScoreBlock(beam.DoFn):
    """(first user, end, total) -> paths of Parquet shards: one a recommender, one of the served lists."""

    def __init__(self, lake: str, day: date, serving: Serving, folder: str, device: str):
        self.lake, self.day, self.serving, self.folder, self.device = lake, day, serving, folder, device
        self.shared = Shared()

    def setup(self) -> None:
        """Load the night once a process."""
        names, folder = self.serving.models, Path(self.folder)
        self.night: Loaded = self.shared.acquire(
            lambda: Loaded.of(Lake(Path(self.lake)), self.day, names, folder, self.device)
        )
        some_turned = any(plan.dials.turned for plan in self.night.plans)
        night, self.traits = self.night, None
        if some_turned or len(night.bonus):
            self.traits = night.traits()

    def process(self, element: tuple[int, int, int]) -> Iterator[str]:
        """Score one block of users."""
        with single_threaded():  # sums of several threads differ from run to run
            yield from self._scored(*element)

    def _scored(self, start: int, stop: int, total: int) -> Iterator[str]:
        night, serving, users = self.night, self.serving, np.arange(start, stop)
        forbidden = night.forbidden(users, serving.filter_seen)
        new, parts = ~night.liked & night.servable, list[pa.Table]()
        for name, plain, chances in scored(night.models, night.inputs, users):
            scores = night.ranked_by(plain, users)
            lists = top_k(scores, serving.k, forbidden, night.inputs.device)
            every = self._with_new(lists, scores, chances, new, forbidden, serving.new_items)
            yield self._write(f"{name}-{start:09d}", candidates(night, users, name, *every))
            for plan, at in groups_of(night.plans[start:stop]):
                if plan.serve == name:
                    mine = self._turned((lists[0][at], lists[1][at]), scores[at], users[at], forbidden[at], plan.dials)
                    chance = None if chances is None else chances[at]
                    mine = self._with_new(mine, scores[at], chance, new, forbidden[at], plan.new_items)
                    placed = self._placed(mine, scores[at], users[at], forbidden[at])
                    items, values, fixed, propensity = placed
                    rows = candidates(night, users[at], name, items, values)
                    parts.append(served(night, users[at], self.day, rows, items, plan.arm, fixed, propensity))
        order = [("user_id", "ascending"), ("rank", "ascending")]
        yield self._write(f"served-{start:09d}", pa.concat_tables(parts).sort_by(order))
        log.info("score: %d of %d users", stop, total)

    def _turned(
        self, lists: Lists, scores: np.ndarray, users: np.ndarray, forbidden: sparse.csr_matrix, dials: Dials
    ) -> Lists:
        """Lists by what counts beside relevance."""
        if self.traits is None or not (dials.turned or self.traits.priced):
            return lists
        k = lists[0].shape[1]
        ranked = top_k(scores, k * POOL, forbidden, self.night.inputs.device)
        return turned(ranked, k, dials, self.traits, users)

    def _placed(
        self, lists: Lists, scores: np.ndarray, users: np.ndarray, forbidden: sparse.csr_matrix
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Lists after the rules for places: items, scores, where an item is pinned, probability of what was drawn."""
        night, k = self.night, lists[0].shape[1]
        places, how, deep = night.places, night.exploring, lists
        pool = how.pool if how else 0
        if places.limits or how:
            deep = behind(lists, top_k(scores, max(k * DEEP, k + pool), forbidden, night.inputs.device))
        if places.limits:
            held = held_of(places, forbidden, night.servable)
            lists = capped(*deep, places, users, k, held=held)
            deep = capped(*deep, places, users, k + pool, k, held) if how else deep  # so that any draw keeps the limits
        items, values, fixed = pinned(*lists, places, forbidden, night.servable)
        if how is None:
            return items, values, fixed, np.full(items.shape, np.nan, np.float32)
        kept = fixed | ((items >= 0) & ~night.liked[items])  # places for new items are no places to draw for
        names = night.users.take(pa.array(users)).to_pylist()
        items, values, propensity = explored(items, values, *deep, kept, how, names)
        return items, values, fixed, propensity

    def _with_new(
        self,
        lists: Lists,
        scores: np.ndarray,
        chances: np.ndarray | None,
        new: np.ndarray,
        forbidden: sparse.csr_matrix,
        places: int,
    ) -> Lists:
        """Lists with some places for new items, where a recommender says what their chances are."""
        if chances is None or not places or not new.any():
            return lists
        return place_new(lists, scores, chances, new, places, forbidden)

    def _write(self, name: str, table: pa.Table) -> str:
        path = Path(self.folder) / f"{name}.parquet"
        write_parquet(table, path)
        return str(path)


def candidates(night: Loaded, users: np.ndarray, name: str, items: np.ndarray, scores: np.ndarray) -> pa.Table:
    """Rows of ``reco_candidates`` for the lists (users, k) of one recommender; -1 is behind the end of a list."""
    row, rank = np.nonzero(items >= 0)
    return pa.table(
        {
            "model": pa.array([name] * len(row), pa.string()),
            "user_id": night.users.take(pa.array(users[row])),
            "rank": pa.array(rank + 1, pa.int32()),
            "item_id": night.items.take(pa.array(items[row, rank])),
            "score": pa.array(scores[row, rank], pa.float32()),
        }
    )


def served(
    night: Loaded,
    users: np.ndarray,
    day: date,
    rows: pa.Table,
    items: np.ndarray,
    arm: str = DEFAULT,
    fixed: np.ndarray | None = None,
    propensity: np.ndarray | None = None,
) -> pa.Table:
    """Rows of ``recommendations``: those of the served recommender, each with an id and a reason.

    Args:
        night: the night.
        users: whose lists they are.
        day: of the night.
        rows: of ``candidates``.
        items: the lists (users, k).
        arm: of the users.
        fixed: bool (users, k), where an item is pinned, which then is the reason.
        propensity: (users, k), with which an item was drawn for its place, NaN where it was not.
    """
    at, rank = np.nonzero(items >= 0)
    histories = night.inputs.histories.take(users)
    speakers = speakers_of(night, users, rows["model"][0].as_py() if rows.num_rows else "", items)
    signal = night.inputs.has_signal[users]
    reasons = explain(night.space, histories, signal, night.liked, items, speakers, night.shared)
    history = reasons.history[at, rank]
    codes, values = _named(night, users[at], items[at, rank], reasons.code[at, rank], history[:, 0])
    chance = np.full(len(at), np.nan, np.float32) if propensity is None else propensity[at, rank]
    for code, where in (("pinned", None if fixed is None else fixed[at, rank]), ("explored", ~np.isnan(chance))):
        if where is not None:
            codes[where], values[where], history[where] = code, None, -1
    bounds = pa.array(np.cumsum([0, *(history >= 0).sum(1)]), pa.int32())
    lists = pa.ListArray.from_arrays(bounds, night.items.take(pa.array(history[history >= 0])))
    columns = rows.select(["model", "user_id", "item_id"]).to_pydict()
    ids = [recommendation_id(day, m, u, i) for m, u, i in zip(*columns.values(), strict=True)]
    modality, attention = _modality(night, users, items, reasons, at, rank)
    return (
        rows.append_column("arm", pa.array([arm] * len(ids), pa.string()))
        .append_column("propensity", pa.array(chance, mask=np.isnan(chance)))
        .append_column("recommendation_id", pa.array(ids, pa.string()))
        .append_column("reason_code", pa.array(codes, pa.string()))
        .append_column("reason_value", pa.array(values, pa.string()))
        .append_column("reason_item_ids", lists)
        .append_column("reason_modality", pa.array(modality, pa.string(), mask=modality == ""))
        .append_column("reason_attention", pa.array(attention, pa.float32(), mask=modality == ""))
        .append_column("reason_effect", pa.array(reasons.effect[at, rank], pa.float32(), mask=history[:, 0] < 0))
        .append_column("carried_from", pa.nulls(len(ids), pa.date32()))
        .append_column("carried_why", pa.nulls(len(ids), pa.string()))
    )


def _named(
    night: Loaded, users: np.ndarray, items: np.ndarray, codes: np.ndarray, nearest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Codes and what they refer to, by place (n,): what is shared, the segment, the category of a wish.

    A wish is the reason where no history and no upload is.
    """
    codes, values = codes.copy(), np.full(len(codes), None, object)
    values[:] = night.shared.of(nearest, items)
    ids = night.users.take(pa.array(users)).to_pylist()
    segment = stands_for_segment(ids) & (codes == "popular")
    codes[segment] = "popular_in_segment"
    values[segment] = [ids[n].removeprefix(EVERYONE) for n in np.flatnonzero(segment)]
    wished = np.isin(codes, ("popular", "new")) & (np.asarray(night.moved[users, items]).ravel() > 0)
    wished &= ~np.char.startswith(np.array(ids, str), EVERYONE)
    codes[wished] = "wished"
    for n in np.flatnonzero(wished):
        of_item = night.categories[int(items[n])].as_py() or []
        values[n] = next((c for c in of_item if c in night.wanted.get(ids[n], ())), None)
    return codes, values


def _modality(
    night: Loaded, users: np.ndarray, items: np.ndarray, reasons: Reasons, at: np.ndarray, rank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The modality of each reason, and its attention in the item's vector, by place (n,)."""
    modality, attention = reasons.modality[at, rank], reasons.attention[at, rank]
    by_upload = np.flatnonzero((reasons.code == "similar_to_uploads").any(1))
    if len(by_upload):
        inputs, listed = night.inputs, np.maximum(items[by_upload], 0)
        uploads = {m: vectors[users[by_upload]] for m, vectors in inputs.uploads.items()}
        name = np.full(items.shape, "", object)
        name[by_upload] = modality_of_uploads(uploads, inputs.content, listed)
        for m in uploads.keys() & night.space.attention.keys():
            mine = name[at, rank] == m
            modality[mine], attention[mine] = m, night.space.attention[m][items[at, rank][mine]]
    return modality, attention


def speakers_of(night: Loaded, users: np.ndarray, name: str, items: np.ndarray) -> Speakers | None:
    """What the models behind lists (users, k) make of the latest items of histories; None where there are none."""
    models, histories = night.models, night.inputs.histories.take(users)
    of, listed = np.unique(histories.latest(HISTORY).values), np.unique(items[items >= 0])
    served = next((m for m in models if m.name == name), None)
    if served is None or not len(of) or not len(listed):
        return None
    says = served.says("warm") if isinstance(served, Hybrid) else {name: 1.0}  # who has a history is warm
    heard = [(says[m.name], m.likeness(of, listed)) for m in models if says.get(m.name)]
    parts = [(weight, likeness) for weight, likeness in heard if likeness is not None]
    parts.append((SPACE, np.asarray(night.space.centred[of] @ night.space.centred[listed].T)))
    return Speakers(of, listed, parts, night.inputs.positives[users])


def recommendation_id(day: date, model: str, user_id: str, item_id: str) -> str:
    """Id of a recommendation, which begins with its night; the same for the same night, recommender, user and item."""
    return f"{day:%Y%m%d}-{hashlib.sha256(f'{day}|{model}|{user_id}|{item_id}'.encode()).hexdigest()[:20]}"
