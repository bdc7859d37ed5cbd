"""`python -m benchmarks.cold --data DIR [--draws N] [--json]`: items that nobody has liked, on a published split.

DIR is that of ``benchmarks.accuracy``; only its train part and its content are read. A fifth of the liked items loses
all its events, recommenders are fitted on the rest with their defaults, and rank the held-out items alone for everyone
who liked one of them and something else. Figures are means over draws; the baseline is the nearest by plain content.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import sparse
from tqdm import tqdm

from benchmarks.accuracy import judged, load_split
from benchmarks.figures import Figure, parser, show
from encoders.device import single_threaded
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.ranking import blocks_of
from pipelines.recommenders.registry import classes

NAMES = ("content", "graph", "lightgcn", "transfer")
SHARE = 0.2  # of the liked items
METRICS = ("recall@20", "ndcg@20")
GOAL = 1.25  # of plain content's Recall@20


def held_out(inputs: Inputs, seed: int) -> tuple[Inputs, np.ndarray]:
    """The same without any event on some items, and the rows of these."""
    liked = np.flatnonzero(np.diff(inputs.positives.tocsc().indptr))
    cold = np.sort(np.random.default_rng(seed).permutation(liked)[: round(SHARE * len(liked))])
    kept = np.isin(np.arange(inputs.positives.shape[1]), cold, invert=True).astype(np.float32)
    positives = (inputs.positives @ sparse.diags_array(kept)).tocsr().astype(np.float32)
    positives.eliminate_zeros()
    return replace(inputs, positives=positives), cold


def measured(inputs: Inputs, seed: int) -> dict[str, list[float]]:
    """Recommender -> mean of each of ``METRICS`` on one draw."""
    past, cold = held_out(inputs, seed)
    relevant = inputs.positives[:, cold].tocsr()
    users = np.flatnonzero((np.diff(past.positives.indptr) > 0) & (np.diff(relevant.indptr) > 0))
    scores = {"random": np.random.default_rng(seed).random((len(users), len(cold)), np.float32)}
    for name in NAMES:
        model = classes()[name]().fit(past)
        scores[name] = np.vstack([model.score(past, b)[:, cold] for b in blocks_of(users, past.positives.shape[1])])
    found = {name: judged(s, relevant[users], sparse.csr_matrix(s.shape)) for name, s in scores.items()}
    return {name: [float(f[m].mean()) for m in METRICS] for name, f in found.items()}


def figures(inputs: Inputs, draws: int) -> Iterator[Figure]:
    """Means over draws, each as a ratio to plain content."""
    found = [measured(inputs, seed) for seed in tqdm(range(draws), "draws", disable=None)]
    for at, metric in enumerate(METRICS):
        mean = {name: float(np.mean([f[name][at] for f in found])) for name in found[0]}
        for name, value in mean.items():
            goal = GOAL if (name, metric) == ("transfer", METRICS[0]) else None
            ratio = value / max(mean["content"], 1e-12)
            yield Figure(f"new items {name} {metric}", value, "share", "plain content", ratio, goal, "higher")


@single_threaded()
def main() -> None:
    """Print every figure."""
    command = parser(__doc__)
    command.add_argument("--data", type=Path, required=True, help="folder of a split")
    command.add_argument("--draws", type=int, default=3, help="times that items are held out")
    args = command.parse_args()
    show(figures(load_split(args.data).inputs, args.draws), args.json)


if __name__ == "__main__":
    main()
