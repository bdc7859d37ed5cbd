"""`python -m benchmarks.accuracy --data DIR [--json]`: Recall and NDCG of every recommender on a published split.

With ``--numberings N`` means over as many orders of users and items, which move the figures of a split by some
thousandths. The list of what is most frequent in validation stands beside models whose weights have seen it.

DIR holds ``train.parquet``, ``validation.parquet``, ``test.parquet`` (user_id, item_id, integers) and for each modality
``<modality>_feat.npy`` (row = item_id) or ``<modality>_graph.npz`` (scipy CSR, item-item similarity). Recommenders are
fitted on train, their settings are searched by validation NDCG@20 as in the nightly run, and the hybrid's weights are
fitted on validation (its own validation figures are therefore flattering); test decides nothing. Full ranking, train
items left out.

Costs are CPU-seconds: to search and fit, to score the users of test, to make and judge their lists. The last line has
those of everything, and of the hybrid alone (all but the lists of the others, and scores that weigh nothing in it).
"""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy import sparse
from tqdm import tqdm

from benchmarks.figures import parser, peak_mb
from encoders.device import single_threaded
from pipelines.learning.metrics import hits_of, ndcg, recall
from pipelines.recommenders.base import Inputs, Recommender, Validation
from pipelines.recommenders.blend.hybrid import SEGMENTS, Hybrid
from pipelines.recommenders.matrices import unit_or_zero
from pipelines.recommenders.ranking import blocks_of, is_warm, liked_by, top_k
from pipelines.recommenders.registry import classes
from pipelines.search import judges, search_one

CUTOFFS = (10, 20)
# the unified space, the order of events, domains: no split has them
NEED_MORE = ("multimodal", "sequential", "domains")
NAMES = tuple(n for n in classes() if n not in NEED_MORE)


@dataclass(frozen=True)
class Split:
    """A published split: what is learned from, and who is judged by what.

    Attributes:
        inputs: train interactions and content.
        relevant: name of a part -> items (users, items) of it.
    """

    inputs: Inputs
    relevant: dict[str, sparse.csr_matrix]

    def users(self, part: str) -> np.ndarray:
        """Rows of users with items in the part."""
        return np.flatnonzero(np.diff(self.relevant[part].indptr))


def load_split(folder: Path, numbering: int = 0) -> Split:
    """Read a folder of the shape above; ``numbering`` seeds another order of users and items, 0 leaves it as it is."""
    pairs = {}
    for part in ("train", "validation", "test"):
        table = pq.read_table(folder / f"{part}.parquet", columns=["user_id", "item_id"])
        pairs[part] = (table["user_id"].to_numpy().astype(np.int64), table["item_id"].to_numpy().astype(np.int64))
    vectors = {p.name.removesuffix("_feat.npy"): np.load(p) for p in sorted(folder.glob("*_feat.npy"))}
    graphs = {p.name.removesuffix("_graph.npz"): sparse.load_npz(p).tocsr() for p in sorted(folder.glob("*_graph.npz"))}
    users = 1 + max(int(u.max()) for u, _ in pairs.values())
    items = max([1 + max(int(i.max()) for _, i in pairs.values()), *(m.shape[0] for m in (vectors | graphs).values())])

    rng = np.random.default_rng(numbering)
    user_at, item_at = (rng.permutation(n) if numbering else np.arange(n) for n in (users, items))

    def matrix(part: str) -> sparse.csr_matrix:
        user, item = user_at[pairs[part][0]], item_at[pairs[part][1]]
        found = sparse.csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=(users, items))
        found.data[:] = 1
        return found

    padded = {m: np.pad(v.astype(np.float32), ((0, items - len(v)), (0, 0))) for m, v in vectors.items()}
    for graph in graphs.values():
        graph.resize(items, items)
    back, train = np.argsort(item_at), matrix("train")
    graphs = {m: g[back][:, back].tocsr() for m, g in graphs.items()}
    content = {m: unit_or_zero(v[back]) for m, v in padded.items()}
    inputs = Inputs(train, content, graphs={m: g.astype(np.float32) for m, g in graphs.items()})
    return Split(inputs, {part: matrix(part) for part in ("validation", "test")})


def judged(scores: np.ndarray, relevant: sparse.csr_matrix, seen: sparse.csr_matrix) -> dict[str, np.ndarray]:
    """Recall and NDCG at each cutoff of each user (users,)."""
    items, _ = top_k(scores, max(CUTOFFS), seen)
    hits, number = hits_of(items, relevant), np.diff(relevant.indptr)
    metrics = {"recall": recall, "ndcg": ndcg}
    return {f"{m}@{k}": np.asarray(f(hits[:, :k], number)) for m, f in metrics.items() for k in CUTOFFS}


class Contest:
    """Every recommender and hybrids of them on a split, with what each cost."""

    def __init__(self, split: Split):
        self.split = split
        self.validation = Validation(
            0, split.inputs, split.relevant["validation"], split.inputs.positives, max(CUTOFFS)
        )
        self.models, self.hybrids = list[Recommender](), dict[str, Hybrid]()
        self.chosen, self.cost = dict[str, Any](), defaultdict[str, dict[str, float]](lambda: defaultdict(float))

    def choose(self, name: str) -> None:
        """Choose a recommender's settings on validation as the nightly search does, and fit it."""
        with self._costs(name, "fit_cpu_s"):
            kind = classes()[name]
            if kind.grid:
                self.chosen[name], _, model = search_one(kind, self.validation)
            else:
                self.chosen[name], model = {}, kind().given({m.name: m for m in self.models}).fit(self.split.inputs)
            self.models.append(model)

    def stack(self, name: str, facts: bool) -> None:
        """Fit a hybrid of all recommenders on validation."""
        with self._costs(name, "fit_cpu_s"):
            hybrid = Hybrid(facts).given({m.name: m for m in self.models})
            report = hybrid.weigh(self.validation)["warm"]
            self.hybrids[name], self.chosen[name] = hybrid, {k: report.get(k) for k in ("facts", "weights")}

    def rows(self) -> list[dict[str, Any]]:
        """A line each: validation and test metrics, cost, what was chosen."""
        validation, test = (self._means(part) for part in ("validation", "test"))
        return [
            {"model": name}
            | {f"validation_{k}": v for k, v in validation[name].items()}
            | {f"test_{k}": v for k, v in test[name].items()}
            | {k: round(v, 1) for k, v in self.cost[name].items()}
            | {"chosen": self.chosen[name]}
            for name in test
        ]

    def _means(self, part: str) -> dict[str, dict[str, float]]:
        """Mean metrics over the users of a part: all of test, and of validation those that settings are chosen by."""
        users = judges(self.validation) if part == "validation" else self.split.users(part)
        found: dict[str, list[dict[str, np.ndarray]]] = defaultdict(list)
        inputs, relevant = self.split.inputs, self.split.relevant[part]
        for block in blocks_of(users, relevant.shape[1]):
            evidence, liked, seen = {}, relevant[block], inputs.positives[block]
            for m in self.models:
                with self._costs(m.name, f"{part}_cpu_s"):
                    evidence[m.name] = m.evidence(inputs, block)
            for m in self.models:
                with self._costs(m.name, f"{part}_list_cpu_s"):
                    found[m.name].append(judged(m.combine(evidence[m.name]), liked, seen))
            for name, hybrid in self.hybrids.items():
                with self._costs(name, f"{part}_list_cpu_s"):
                    found[name].append(judged(hybrid.blend(evidence, liked_by(inputs, block)), liked, seen))
        return {
            name: {k: round(float(np.concatenate([p[k] for p in parts]).mean()), 5) for k in parts[0]}
            for name, parts in found.items()
        }

    def needless(self) -> float:
        """CPU-seconds that the hybrids' lists do without.

        Those of all other lists, and of scores, once weights are fitted, of recommenders that weigh nothing.
        """
        segments = SEGMENTS[:1] if is_warm(self.split.inputs, self.split.users("test")).all() else SEGMENTS
        heard = {name for hybrid in self.hybrids.values() for s in segments for name in hybrid.heard(s)}
        lists, scores = ("validation_list_cpu_s", "test_list_cpu_s"), ("validation_cpu_s", "test_cpu_s")
        return sum(self.cost[m.name][k] for m in self.models for k in lists + (() if m.name in heard else scores))

    @contextmanager
    def _costs(self, name: str, what: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.cost[name][what] += time.process_time() - started


def frequent_in_validation(split: Split) -> dict[str, Any]:
    """A line for one list for everyone, of what is most frequent in validation."""
    users, counts = split.users("test"), np.asarray(split.relevant["validation"].sum(0), np.float32).ravel()
    scores = np.tile(counts, (len(users), 1))
    metrics = judged(scores, split.relevant["test"][users], split.inputs.positives[users])
    means = {f"test_{m}": round(float(v.mean()), 5) for m, v in metrics.items()}
    return {"model": "most frequent in validation"} | means | {"chosen": {}}


def means_of(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Lines with means over several runs; ``spread`` is from the least to the greatest test Recall@20."""
    every = [{row["model"]: row for row in rows} for rows in runs]
    found = []
    for name, first in every[0].items():
        numbers = [k for k, v in first.items() if isinstance(v, float)]
        recalls = [rows[name]["test_recall@20"] for rows in every]
        means = {k: round(float(np.mean([rows[name].get(k, 0.0) for rows in every])), 5) for k in numbers}
        found.append({"model": name} | means | {"spread": round(max(recalls) - min(recalls), 5), "chosen": {}})
    return found


def show(row: dict[str, Any], as_json: bool) -> None:
    """Print a line."""
    if as_json:
        print(json.dumps(row), flush=True)
        return
    keys = [f"{p}_{m}@20" for p in ("validation", "test") for m in ("recall", "ndcg")]
    parts = " ".join(f"{row[k]:.4f}" if k in row else "     -" for k in keys)
    fit, scores, lists = (row.get(k, 0.0) for k in ("fit_cpu_s", "test_cpu_s", "test_list_cpu_s"))
    times = f"fit {fit:5.1f} score {scores:5.1f} list {lists:5.1f} CPU-s"
    spread = f"spread {row['spread']:.4f}" if "spread" in row else row["chosen"]
    print(f"{row['model']:28s} {parts}  {times}  {spread}", flush=True)


@single_threaded()
def main() -> None:
    """Run all on a folder and print a line each."""
    command = parser(__doc__)
    command.add_argument("--data", type=Path, required=True, help="folder of a split")
    command.add_argument("--all-hybrids", action="store_true", help="a hybrid without facts about items, too")
    command.add_argument("--numberings", type=int, default=1, help="orders of users and items to take means over")
    args = command.parse_args()
    runs = []
    for numbering in range(args.numberings):
        split = load_split(args.data, numbering)
        contest = Contest(split)
        for name in tqdm(NAMES, "search and fit", disable=None):
            contest.choose(name)
        for facts in (False, True) if args.all_hybrids else (True,):
            contest.stack("hybrid" if facts else "hybrid_without_facts", facts)
        runs.append([*contest.rows(), frequent_in_validation(split)])
    if not args.json:
        print(f"{'':28s} validation    test (Recall@20, NDCG@20)")
    for row in runs[0] if len(runs) == 1 else means_of(runs):
        show(row, args.json)
    if len(runs) > 1:
        return
    spent = time.process_time()
    total = {"model": "all", "cpu_s": round(spent, 1), "hybrid_cpu_s": round(spent - contest.needless(), 1)}
    print(json.dumps(total | {"peak_mb": round(peak_mb()), "cores": len(os.sched_getaffinity(0))}), flush=True)


if __name__ == "__main__":
    main()
