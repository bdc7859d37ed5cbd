"""`python -m benchmarks.knowledge --config FILE --date NIGHT [--draws N] [--json]`: what a graph of items is worth.

The night has to be there, with ``[graphs]``. A fifth of the items that a graph knows loses all its events; recommenders
are fitted on the rest, and rank the held-out items alone for everyone who liked one of them and something else. Then a
tenth of all events is held out instead, so that items keep most of theirs. Each is done with the graph, without it, and
with the same graph of other items (shuffled). Means over draws.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy import sparse
from tqdm import tqdm

from benchmarks.accuracy import judged
from benchmarks.figures import Figure, show
from benchmarks.nights import one_night
from encoders.device import single_threaded
from pipelines.config import load_config
from pipelines.lake.storage import Lake
from pipelines.night.inputs import load_inputs
from pipelines.night.night import Night
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.ranking import blocks_of
from pipelines.recommenders.registry import classes

NAMES = ("transfer", "graph")
COLD, WARM = 0.2, 0.1  # shares of the known items, of all events
METRIC = "recall@20"
GOALS = {("new", "with it"): 1.5, ("known", "with it"): 1.0}


def held_out(inputs: Inputs, seed: int, known: np.ndarray | None) -> tuple[Inputs, sparse.csr_matrix, np.ndarray]:
    """What is left, what was taken away (users, items), and the items that are ranked.

    Args:
        inputs: all.
        seed: of the draw.
        known: items of which some lose all events; None where all items lose some.
    """
    rng, positives = np.random.default_rng(seed), inputs.positives.tocoo()
    if known is not None:
        liked = np.intersect1d(known, positives.col)
        ranked = np.sort(rng.permutation(liked)[: round(COLD * len(liked))])
        gone = np.isin(positives.col, ranked)
    else:
        ranked, gone = np.arange(positives.shape[1]), rng.random(positives.nnz) < WARM
    parts = [
        sparse.csr_matrix((positives.data[rows], (positives.row[rows], positives.col[rows])), shape=positives.shape)
        for rows in (~gone, gone)
    ]
    return replace(inputs, positives=parts[0].astype(np.float32), nearest={}), parts[1], ranked


def shuffled(inputs: Inputs) -> Inputs:
    """The same graphs, of other items."""
    order = np.random.default_rng(0).permutation(inputs.positives.shape[1])
    return replace(inputs, graphs={name: g[order][:, order].tocsr() for name, g in inputs.graphs.items()})


def accuracy(inputs: Inputs, name: str, seed: int, known: np.ndarray | None) -> float:
    """Recall@20 of a recommender on one draw."""
    past, relevant, ranked = held_out(inputs, seed, known)
    relevant = relevant[:, ranked].tocsr()
    users = np.flatnonzero((np.diff(past.positives.indptr) > 0) & (np.diff(relevant.indptr) > 0))
    model = classes()[name]().fit(past)
    scores = np.vstack([model.score(past, b)[:, ranked] for b in blocks_of(users, past.positives.shape[1])])
    seen = past.positives[users][:, ranked].tocsr()
    return float(judged(scores, relevant[users], seen)[METRIC].mean())


def figures(inputs: Inputs, draws: int) -> Iterator[Figure]:
    """Each recommender on new items, and one on known items; the ratio is to the same without a graph."""
    known = np.unique(np.concatenate([g.nonzero()[0] for g in inputs.graphs.values()]))
    ways = {"without": replace(inputs, graphs={}), "with it": inputs, "shuffled": shuffled(inputs)}
    for what, names, of in (("new", NAMES, known), ("known", NAMES[1:], None)):
        for name in names:
            found = {
                way: float(np.mean([accuracy(i, name, s, of) for s in tqdm(range(draws), way, disable=None)]))
                for way, i in ways.items()
            }
            for way, value in found.items():
                goal = GOALS.get((what, way)) if name != "graph" or what == "known" else None
                ratio = value / max(found["without"], 1e-12)
                yield Figure(f"{what} items {name} {way}", value, METRIC, "without a graph", ratio, goal, "higher")


def main() -> None:
    """Print a figure a recommender and way."""
    command = one_night(__doc__)
    command.add_argument("--draws", type=int, default=4, help="of held-out items, of which figures are means")
    args = command.parse_args()
    config = load_config(args.config)
    with single_threaded():
        inputs = load_inputs(Night.of(config, Lake.of(config), args.date), "cpu")[1]
        if not inputs.graphs:
            raise SystemExit(f"the night of {args.date} has no item_graphs; set [graphs] and run it again")
        show(figures(inputs, args.draws), args.json)


if __name__ == "__main__":
    main()
