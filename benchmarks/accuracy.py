"""`python -m benchmarks.accuracy --data DIR [--json]`: Recall and NDCG of every recommender on a published split.

DIR holds ``train.parquet``, ``validation.parquet``, ``test.parquet`` (user_id, item_id, integers) and for each modality
``<modality>_feat.npy`` (row = item_id) or ``<modality>_graph.npz`` (scipy CSR, item-item similarity). Recommenders are
fitted on train, their settings are searched by validation NDCG@20 as in the nightly run, and the hybrid's weights are
fitted on validation (its own validation figures are therefore flattering); test decides nothing. Full ranking, train
items left out.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy import sparse

from benchmarks.figures import parser, peak_mb
from encoders.base import single_threaded
from pipelines.inputs import Validation
from pipelines.metrics import hits_of, ndcg, recall
from pipelines.models import CLASSES
from pipelines.recommenders.base import Inputs, Recommender, top_k
from pipelines.recommenders.content import with_graphs
from pipelines.recommenders.hybrid import Hybrid, is_warm
from pipelines.search import search_one

CUTOFFS = (10, 20)
BLOCK = 2048  # users scored at once
NEED_MORE = ("multimodal", "sequential")  # the unified space, the order of events: no split has them
NAMES = tuple(n for n in CLASSES if n not in NEED_MORE)
Score = Callable[[Inputs, np.ndarray], np.ndarray]  # scores (users, items) of some users


@dataclass(frozen=True)
class Split:
    """A published split: what is learned from, and who is judged by what.

    Attributes:
        inputs: train interactions and content.
        wanted: name of a part -> items (users, items) of it.
    """

    inputs: Inputs
    wanted: dict[str, sparse.csr_matrix]

    def users(self, part: str) -> np.ndarray:
        """Rows of users with items in the part."""
        return np.flatnonzero(np.diff(self.wanted[part].indptr))


def load_split(folder: Path) -> Split:
    """Read a folder of the shape above."""
    pairs = {}
    for part in ("train", "validation", "test"):
        table = pq.read_table(folder / f"{part}.parquet", columns=["user_id", "item_id"])
        pairs[part] = (table["user_id"].to_numpy().astype(np.int64), table["item_id"].to_numpy().astype(np.int64))
    vectors = {p.name.removesuffix("_feat.npy"): np.load(p) for p in sorted(folder.glob("*_feat.npy"))}
    graphs = {p.name.removesuffix("_graph.npz"): sparse.load_npz(p).tocsr() for p in sorted(folder.glob("*_graph.npz"))}
    users = 1 + max(int(u.max()) for u, _ in pairs.values())
    items = max([1 + max(int(i.max()) for _, i in pairs.values()), *(m.shape[0] for m in (vectors | graphs).values())])

    def matrix(part: str) -> sparse.csr_matrix:
        user, item = pairs[part]
        found = sparse.csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=(users, items))
        found.data[:] = 1
        return found

    padded = {m: np.pad(v.astype(np.float32), ((0, items - len(v)), (0, 0))) for m, v in vectors.items()}
    for graph in graphs.values():
        graph.resize(items, items)
    train = matrix("train")
    content = {m: _unit(v) for m, v in padded.items()}
    inputs = Inputs(train, content, graphs={m: g.astype(np.float32) for m, g in graphs.items()})
    return Split(with_graphs(inputs), {part: matrix(part) for part in ("validation", "test")})


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; an item without content keeps its zeros, unlike in ``encoders.base.unit_rows``."""
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


def judged(scores: np.ndarray, wanted: sparse.csr_matrix, seen: sparse.csr_matrix) -> dict[str, np.ndarray]:
    """Recall and NDCG at each cutoff of each user (users,)."""
    items, _ = top_k(scores, max(CUTOFFS), seen)
    hits, relevant = hits_of(items, wanted), np.diff(wanted.indptr)
    metrics = {"recall": recall, "ndcg": ndcg}
    return {f"{m}@{k}": np.asarray(f(hits[:, :k], relevant)) for m, f in metrics.items() for k in CUTOFFS}


class Contest:
    """Every recommender on a split, with what each cost."""

    def __init__(self, split: Split):
        self.split, self.best = split, dict[str, Recommender]()
        self.validation = Validation(0, split.inputs, split.wanted["validation"], split.inputs.positives)

    def run(self, name: str) -> dict[str, Any]:
        """Choose a recommender's settings on validation as the nightly search does, judge it on both parts."""
        started = time.process_time()
        chosen, _ = search_one(CLASSES[name], self.validation, max(CUTOFFS)) if CLASSES[name].grid else ({}, [])
        model = self.best[name] = CLASSES[name](**chosen).fit(self.split.inputs)
        return self._row(name, model.score, time.process_time() - started, chosen)

    def hybrid(self, name: str, facts: bool) -> dict[str, Any]:
        """Fit the stack of all recommenders on validation, with or without facts about items."""
        started = time.process_time()
        models, v = list(self.best.values()), self.validation
        hybrid = Hybrid({m.name: m.signed for m in models}, facts)
        report = hybrid.fit(models, v.past, v.wanted, v.seen, max(CUTOFFS))
        fitted = time.process_time() - started

        def score(inputs: Inputs, users: np.ndarray) -> np.ndarray:
            return hybrid.blend({m.name: m.score(inputs, users) for m in models}, is_warm(inputs, users))

        return self._row(name, score, fitted, report["warm"]["weights"])

    def _row(self, name: str, score: Score, fitted: float, chosen: dict[str, Any]) -> dict[str, Any]:
        started = time.process_time()
        test = self._mean("test", score)
        cost: dict[str, Any] = {"fit_cpu_s": round(fitted, 1), "test_cpu_s": round(time.process_time() - started, 1)}
        metrics = {"validation": self._mean("validation", score), "test": test}
        figures = {f"{part}_{k}": round(v, 5) for part, found in metrics.items() for k, v in found.items()}
        return {"model": name} | figures | cost | {"peak_mb": round(peak_mb()), "chosen": chosen}

    def _mean(self, part: str, score: Score) -> dict[str, float]:
        """Mean metrics over the users of a part."""
        users, found = self.split.users(part), list[dict[str, np.ndarray]]()
        inputs = self.split.inputs
        for start in range(0, len(users), BLOCK):
            block = users[start : start + BLOCK]
            found.append(judged(score(inputs, block), self.split.wanted[part][block], inputs.positives[block]))
        return {name: float(np.concatenate([f[name] for f in found]).mean()) for name in found[0]}


def show(row: dict[str, Any], as_json: bool) -> None:
    """Print a line as soon as it is known."""
    if as_json:
        print(json.dumps(row), flush=True)
        return
    parts = " ".join(f"{row[f'{p}_{m}@20']:.4f}" for p in ("validation", "test") for m in ("recall", "ndcg"))
    times = f"fit {row['fit_cpu_s']:6.1f} test {row['test_cpu_s']:6.1f} CPU-s {row['peak_mb']:6d} MB"
    print(f"{row['model']:24s} {parts}  {times}  {row['chosen']}", flush=True)


@single_threaded()
def main() -> None:
    """Run all on a folder and print a line each."""
    command = parser(__doc__)
    command.add_argument("--data", type=Path, required=True, help="folder of a split")
    command.add_argument("--without-facts", action="store_true", help="a hybrid of recommenders alone, too")
    args = command.parse_args()
    loaded = time.process_time()
    contest = Contest(load_split(args.data))
    if not args.json:
        print(f"{'':24s} validation    test (Recall@20, NDCG@20)")
    for name in NAMES:
        show(contest.run(name), args.json)
    show(contest.hybrid("hybrid", facts=True), args.json)
    if args.without_facts:
        show(contest.hybrid("hybrid_without_facts", facts=False), args.json)
    total = {"model": "all", "cpu_s": round(time.process_time() - loaded, 1), "peak_mb": round(peak_mb())}
    print(json.dumps(total | {"cores": len(os.sched_getaffinity(0))}), flush=True)


if __name__ == "__main__":
    main()
