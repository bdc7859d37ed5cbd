"""`python -m benchmarks.domains pairs|leave|few ... [--json]`: what several domains are worth to each other.

- ``pairs --data DIR``: users of two shops, DIR as in ``<a>_<b>_train.parquet``, ``<a>_<b>_test.parquet`` (user_id,
  item_id; domain a of the users of a and b). The hybrid of both with ``pool_domains`` against that of each alone, and
  with the users of the other shop exchanged at random, which has to gain nothing.
- ``leave --config FILE --date NIGHT --events N``: a large domain keeps N events; domains are the items' own, or the
  first category of each (``--by category``). The hybrid with ``pool_domains`` against that of all without it, and that
  of the domain alone.
- ``few --data DIR``: a split as for ``benchmarks.accuracy``; 486 items keep 1, 2, 5 or 20 events and are ranked among
  each other. The hybrid against plain content and the best recommender of interactions alone.

The hybrid is fitted on events that were held out by chance; NDCG@20 and Recall@20, seen items left out.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy import sparse
from tqdm import tqdm

from benchmarks.accuracy import load_split
from benchmarks.figures import Figure, show
from encoders.device import single_threaded
from pipelines.config import load_config
from pipelines.lake.storage import Lake
from pipelines.learning.metrics import hits_of, recall
from pipelines.learning.statistics import mean_and_error
from pipelines.night.inputs import load_inputs
from pipelines.night.night import Night
from pipelines.recommenders.base import Inputs, Recommender, Validation
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.ranking import blocks_of, liked_by, ndcg_of, top_k
from pipelines.recommenders.registry import DOMAINS, entry

K = 20
INTERACTIONS = ("popularity", "user_cf", "item_cf", "ease", "als", "graph")
CONTENT = ("content", "transfer")
JUDGED = 1500  # users of a domain
HELD_OUT, LEAST_HISTORY = 0.1, 3  # share of events, items of a user who has one held out
FEW_ITEMS, FEW = 486, (1, 2, 5, 20)
LARGE = 6000  # events of a domain that is cut, or half of the largest


def matrix(user: np.ndarray, item: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """One (users, items) for each pair."""
    found = sparse.csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=shape)
    found.data[:] = 1
    return found


def one_each(positives: sparse.csr_matrix) -> np.ndarray:
    """Bool (entries,): one of every user with as many as ``LEAST_HISTORY``, of an item that others like too.

    Published splits have no item in test that nobody likes in train; what the hybrid is fitted on is like it.
    """
    user = np.repeat(np.arange(positives.shape[0]), np.diff(positives.indptr))
    able = (np.diff(positives.indptr)[user] >= LEAST_HISTORY) & (positives.getnnz(0)[positives.indices] > 1)
    drawn = np.lexsort((np.random.default_rng(1).random(len(user)), ~able, user))
    first = drawn[np.flatnonzero(np.diff(user[drawn], prepend=-1))]
    out = np.zeros(len(user), bool)
    out[first[able[first]]] = True
    return out


def validated(inputs: Inputs, out: np.ndarray) -> Inputs:
    """The same with some entries of its history (bool) held out to fit the hybrid on."""
    rows, shape = inputs.positives.tocoo(), inputs.positives.shape
    past, relevant = (matrix(rows.row[kept], rows.col[kept], shape) for kept in (~out, out))
    before = replace(inputs, positives=past, nearest={})
    return replace(inputs, validation=Validation(0, before, relevant, past, K), nearest={})


def hybrid_of(inputs: Inputs, names: Sequence[str], pool: bool = False) -> Hybrid:
    """The hybrid of some recommenders, without facts."""
    fitted: dict[str, Recommender] = {}
    for name in (*names, *([DOMAINS] if pool and len(inputs.domains) else [])):
        fitted[name] = entry(name).make({}).given(fitted).fit(inputs)
    return Hybrid(facts=False, pool=pool).given(fitted).fit(inputs)


def ndcg_within(
    hybrid: Hybrid, inputs: Inputs, items: np.ndarray, relevant: sparse.csr_matrix, users: np.ndarray
) -> np.ndarray:
    """NDCG@20 of each user (users,), items of one domain ranked among each other; ``relevant`` has these alone."""
    seen, found = inputs.positives[:, items].tocsr(), list[np.ndarray]()
    for block in blocks_of(users, inputs.positives.shape[1]):
        scores = np.ascontiguousarray(hybrid.score(inputs, block)[:, items])
        found.append(ndcg_of(scores, relevant[block], seen[block], K, "cpu"))
    return np.concatenate(found)


class Shop:
    """One domain of a pair: what its users like, and what they come to like."""

    def __init__(self, folder: Path, name: str, users: int, order: np.ndarray | None = None):
        """Read it; ``order`` gives every user the history of another one."""
        train, test = (pq.read_table(folder / f"{name}_{part}.parquet") for part in ("train", "test"))
        user, item = (np.concatenate([t[c].to_numpy() for t in (train, test)]) for c in ("user_id", "item_id"))
        known, item = np.unique(item, return_inverse=True)
        user = user.astype(np.int64) if order is None else order[user.astype(np.int64)]
        shape, first = (users, len(known)), len(train)
        self.train = matrix(user[:first], item[:first], shape)
        later = matrix(user[first:], item[first:], shape)
        self.test = (later - later.multiply(self.train)).tocsr()
        self.test.eliminate_zeros()


def together(shops: Sequence[Shop]) -> Inputs:
    """All shops as domains of one."""
    domains = np.repeat(np.arange(len(shops)), [s.train.shape[1] for s in shops])
    positives = sparse.hstack([s.train for s in shops]).tocsr()
    held = sparse.hstack([_held(s.train) for s in shops]).tocsr()
    rows = positives.tocoo()
    out = np.asarray(held[rows.row, rows.col]).ravel() > 0
    return validated(Inputs(positives, domains=domains), out)


def _held(train: sparse.csr_matrix) -> sparse.csr_matrix:
    rows, out = train.tocoo(), one_each(train)
    return matrix(rows.row[out], rows.col[out], train.shape)


def pairs(folder: Path, names: Sequence[str]) -> Iterator[Figure]:
    """NDCG of every domain with the other one and with it shuffled, each beside that of the domain alone."""
    gains: dict[str, list[np.ndarray]] = {"with": [], "shuffled": []}
    for pair in names:
        a, b = pair.split("_")
        both = f"{a}_{b}", f"{b}_{a}"
        tables = [pq.read_table(folder / f"{n}_{part}.parquet") for n in both for part in ("train", "test")]
        users = 1 + max(int(t["user_id"].to_numpy().max()) for t in tables)
        order = np.random.default_rng(0).permutation(users)
        shops = [Shop(folder, n, users) for n in both]
        wrong = [shops[0], Shop(folder, both[1], users, order)]
        judged = [_some(shop.test) for shop in shops]
        alone = [
            ndcg_within(hybrid_of(i, INTERACTIONS), i, np.arange(s.test.shape[1]), s.test, rows)
            for s, rows in zip(shops, judged, strict=True)
            for i in [replace(together([s]), domains=np.zeros(0, np.int64))]
        ]
        for way, of, moved in (("with", shops, judged), ("shuffled", wrong, [judged[0], order[judged[1]]])):
            inputs, first = together(of), of[0].train.shape[1]
            hybrid = hybrid_of(inputs, INTERACTIONS, pool=True)
            for at, (shop, rows) in enumerate(zip(of, moved, strict=True)):
                items = np.arange(shop.test.shape[1]) + at * first
                value = ndcg_within(hybrid, inputs, items, shop.test, rows)
                gains[way].append(value - alone[at])
                yield _beside(f"{both[at].split('_')[0]} {way} {both[at].split('_')[1]}", value, alone[at], "alone")
    for way, found in gains.items():
        mean, error = mean_and_error(np.concatenate(found))
        yield Figure(f"mean gain {way}", mean, f"NDCG@{K}", f"alone, error {error:.5f}", mean / error, None, "higher")


def _some(relevant: sparse.csr_matrix) -> np.ndarray:
    users = np.flatnonzero(np.diff(relevant.indptr))
    return np.sort(np.random.default_rng(0).permutation(users)[:JUDGED])


def _beside(figure: str, value: np.ndarray, base: np.ndarray, named: str) -> Figure:
    """A mean over users with its paired difference from another."""
    gain, error = mean_and_error(value - base)
    said = f"{named}, gain {gain:+.4f} +- {error:.4f}"
    return Figure(figure, float(value.mean()), f"NDCG@{K}", said, value.mean() / base.mean(), 1.0, "higher")


def leave(inputs: Inputs, names: np.ndarray, events: int, draws: int) -> Iterator[Figure]:
    """A large domain with few events: the hybrid with ``pool_domains``, without it, and of the domain alone."""
    known, domains = np.unique(names, return_inverse=True)
    number = np.bincount(domains, inputs.positives.getnnz(0))
    large, gains = np.argsort(-number)[: int((number >= min(LARGE, number.max() / 2)).sum())], list[float]()
    models = (*INTERACTIONS, *CONTENT) if inputs.content else INTERACTIONS
    for draw in tqdm(range(draws), "draws", disable=None):
        rng, domain, rows = np.random.default_rng(draw), large[draw % len(large)], inputs.positives.tocoo()
        mine = rng.permutation(np.flatnonzero(domains[rows.col] == domain))
        kept, shape = np.setdiff1d(np.arange(rows.nnz), mine[events:]), inputs.positives.shape
        items, gone = np.flatnonzero(domains == domain), mine[events:]
        relevant = matrix(rows.row[gone], rows.col[gone], shape)[:, items].tocsr()
        train = replace(inputs, positives=matrix(rows.row[kept], rows.col[kept], shape), domains=domains)
        every = validated(train, rng.random(len(kept)) < HELD_OUT)
        own = replace(
            train,
            positives=train.positives[:, items].tocsr(),
            content={m: v[items] for m, v in train.content.items()},
            domains=np.zeros(0, np.int64),
        )
        own = validated(own, rng.random(own.positives.nnz) < HELD_OUT)
        users = np.flatnonzero(np.diff(relevant.indptr))
        pooled = ndcg_within(hybrid_of(every, models, pool=True), every, items, relevant, users)
        without = ndcg_within(
            hybrid_of(replace(every, domains=np.zeros(0, np.int64)), models), every, items, relevant, users
        )
        alone = ndcg_within(hybrid_of(own, models), own, np.arange(len(items)), relevant, users)
        better, base = ("of all", without) if without.mean() >= alone.mean() else ("alone", alone)
        gains.append(float(pooled.mean() - base.mean()))
        yield _beside(f"{known[domain]} of {events} events", pooled, base, f"hybrid {better}")
    mean, error = mean_and_error(np.array(gains))
    said = f"the better, error {error:.5f}; {sum(g >= 0 for g in gains)} of {len(gains)} not below"
    yield Figure(f"mean gain at {events} events", mean, f"NDCG@{K}", said, mean / error, None, "higher")


def few(inputs: Inputs, seed: int) -> Iterator[Figure]:
    """Items of few events among each other: the hybrid with weights by events, and what it is made of."""
    models, rows = (*INTERACTIONS, *CONTENT), inputs.positives.tocoo()
    able = np.flatnonzero(inputs.positives.getnnz(0) > max(FEW))
    items = np.sort(np.random.default_rng(seed).permutation(able)[:FEW_ITEMS])
    order = np.random.default_rng(seed).permutation(rows.nnz)
    user, item = rows.row[order], rows.col[order]
    place = np.empty(len(item), np.int64)  # of each event among those of its item
    by_item = np.argsort(item, kind="stable")
    start = np.searchsorted(item[by_item], item[by_item])
    place[by_item] = np.arange(len(item)) - start
    for number in FEW:
        gone = np.isin(item, items) & (place >= number)
        shape = inputs.positives.shape
        train = replace(inputs, positives=matrix(user[~gone], item[~gone], shape), nearest={})
        relevant = matrix(user[gone], item[gone], shape)[:, items].tocsr()
        now = validated(train, one_each(train.positives))
        hybrid = hybrid_of(now, models, pool=True)
        users = np.flatnonzero((np.diff(relevant.indptr) > 0) & (np.diff(train.positives.indptr) > 0))
        users = np.sort(np.random.default_rng(0).permutation(users)[: 2 * JUDGED])
        found = _recalls(hybrid, now, items, relevant, users)
        single = max((n for n in INTERACTIONS if n != "graph"), key=lambda n: found[n].mean())
        for name in ("content", single, "graph"):
            gain, error = mean_and_error(found["hybrid"] - found[name])
            said = f"{name} {found[name].mean():.4f}, gain {gain:+.4f} +- {error:.4f}"
            value = found["hybrid"].mean()
            yield Figure(
                f"items of {number} events", value, f"recall@{K}", said, value / found[name].mean(), 1.0, "higher"
            )


def _recalls(
    hybrid: Hybrid, inputs: Inputs, items: np.ndarray, relevant: sparse.csr_matrix, users: np.ndarray
) -> dict[str, np.ndarray]:
    """Recall@20 of each user by the hybrid and every recommender in it."""
    found: dict[str, list[np.ndarray]] = {m.name: [] for m in (*hybrid.models, hybrid)}
    seen = inputs.positives[:, items].tocsr()
    for block in blocks_of(users, inputs.positives.shape[1]):
        evidence = hybrid.evidence_of(inputs, block)
        scores = {m.name: m.combine(evidence[m.name]) for m in hybrid.models}
        scores["hybrid"] = hybrid.blend(evidence, liked_by(inputs, block))
        for name, of_all in scores.items():
            lists, _ = top_k(np.ascontiguousarray(of_all[:, items]), K, seen[block])
            found[name].append(np.asarray(recall(hits_of(lists, relevant[block]), np.diff(relevant[block].indptr))))
    return {name: np.concatenate(values) for name, values in found.items()}


def _arguments() -> Namespace:
    command = ArgumentParser(description=__doc__)
    parts = command.add_subparsers(dest="part", required=True)
    of_pairs, of_leave, of_few = (parts.add_parser(name) for name in ("pairs", "leave", "few"))
    of_pairs.add_argument("--data", type=Path, required=True, help="folder of the shops")
    of_pairs.add_argument("--only", nargs="+", help="pairs, such as phone_sport; all by default")
    of_leave.add_argument("--config", type=Path, required=True, help="configuration of the lake")
    of_leave.add_argument("--date", type=date.fromisoformat, required=True, help="a night that was run")
    of_leave.add_argument("--by", choices=("domain", "category"), default="domain", help="what a domain is")
    of_leave.add_argument("--events", type=int, default=500, help="that the domain keeps")
    of_leave.add_argument("--draws", type=int, default=10, help="of domains and events")
    of_few.add_argument("--data", type=Path, required=True, help="folder of a split")
    of_few.add_argument("--seed", type=int, default=0, help="of the items")
    for part in (of_pairs, of_leave, of_few):
        part.add_argument("--json", action="store_true", help="one JSON object a line")
    return command.parse_args()


def _pairs_in(folder: Path) -> list[str]:
    names = sorted({p.name.removesuffix("_train.parquet") for p in folder.glob("*_train.parquet")})
    return [n for n in names if n <= "_".join(reversed(n.split("_")))]


@single_threaded()
def main() -> None:
    """Print the figures of a part."""
    args = _arguments()
    if args.part == "pairs":
        show(pairs(args.data, args.only or _pairs_in(args.data)), args.json)
    elif args.part == "few":
        show(few(load_split(args.data).inputs, args.seed), args.json)
    else:
        config = load_config(args.config)
        night = Night.of(config, Lake.of(config), args.date)
        of_category = [(of or ["none"])[0] for of in night.categories().to_pylist()]
        of_domain = [of or "none" for of in night.items()["domain"].to_pylist()]
        names = np.array(of_category if args.by == "category" else of_domain)
        show(leave(load_inputs(night, "cpu")[1], names, args.events, args.draws), args.json)


if __name__ == "__main__":
    main()
