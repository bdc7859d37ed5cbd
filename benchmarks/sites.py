"""`python -m benchmarks.sites --config FILE --date NIGHT --until DAY [--json]`: sites that share sums, and none.

The users of a night are split at random into sites. EASE of each site alone, of the sums of all sites (masked, added up
and unmasked as at the exchange), and of the log of all is judged by what users came to like until a later day.
NDCG@20, seen items left out; the night and the later day have to be there.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import sparse

from benchmarks.figures import Figure, show
from benchmarks.nights import rows_later, two_nights
from encoders.device import single_threaded
from pipelines.config import load_config
from pipelines.federation.masks import mask, private_key, public_text
from pipelines.federation.statistics import pooled_of, sums_of
from pipelines.lake.storage import Lake
from pipelines.night.inputs import load_inputs
from pipelines.night.night import Night
from pipelines.recommenders.base import Inputs, Pooled
from pipelines.recommenders.ranking import ndcg_of
from pipelines.recommenders.registry import entry

K, SITES = 20, (5, 20)


def summed(positives: sparse.csr_matrix, site: np.ndarray, without: int = -1) -> Pooled:
    """Sums of all sites but one, of which each was masked against all others.

    Args:
        positives: weights of feedback (users, items).
        site: of each user (users,).
        without: a site that left no share.
    """
    names = [f"{n:02d}" for n in np.unique(site) if n != without]
    with tempfile.TemporaryDirectory() as folder:
        keys = {n: private_key(Path(folder) / n) for n in names}
    public, total = {n: public_text(k) for n, k in keys.items()}, np.zeros(1, np.uint64)
    for name in names:
        own = sums_of(positives[site == int(name)])
        others = {n: p for n, p in public.items() if n != name}
        total = total + own + mask(keys[name], name, others, "benchmark", len(own))
    return pooled_of(total, np.arange(positives.shape[1]))


def figures(
    inputs: Inputs, users: np.ndarray, relevant: sparse.csr_matrix, seen: sparse.csr_matrix
) -> Iterator[Figure]:
    """NDCG alone and of the sums, each as a ratio to that of the log of all."""

    def accuracy(of: Inputs, rows: np.ndarray) -> np.ndarray:
        scores = entry("ease").make({}).fit(of).score(inputs, users[rows])
        return ndcg_of(scores, relevant[rows], seen[users[rows]], K, "cpu")

    everyone = np.arange(len(users))
    pooled = accuracy(inputs, everyone)
    for number in SITES:
        site = np.random.default_rng(0).integers(0, number, inputs.positives.shape[0])
        alone = np.zeros(len(users))
        for n in range(number):
            mine = np.flatnonzero(site[users] == n)
            kept = sparse.diags_array((site == n).astype(np.float32))
            alone[mine] = accuracy(replace(inputs, positives=(kept @ inputs.positives).tocsr()), mine)
        yield Figure(
            f"{number}_sites_alone",
            alone.mean(),
            f"NDCG@{K}",
            "the log of all",
            alone.mean() / pooled.mean(),
            None,
            "higher",
        )
        together = accuracy(replace(inputs, pooled=summed(inputs.positives, site)), everyone)
        same = np.array_equal(together, pooled)
        name = f"{number}_sites_summed" + (" (each user the same)" if same else "")
        yield Figure(
            name, together.mean(), f"NDCG@{K}", "the log of all", together.mean() / pooled.mean(), 1.0, "higher"
        )
        kept = sparse.diags_array((site != 0).astype(np.float32))
        fewer = accuracy(replace(inputs, positives=(kept @ inputs.positives).tocsr()), everyone)
        without = accuracy(replace(inputs, pooled=summed(inputs.positives, site, 0)), everyone)
        said = " (each user the same)" if np.array_equal(without, fewer) else ""
        name, base = f"{number}_sites_without_one{said}", "the log of the others"
        yield Figure(name, without.mean(), f"NDCG@{K}", base, without.mean() / fewer.mean(), 1.0, "higher")


def main() -> None:
    """Print the figures."""
    args = two_nights(__doc__).parse_args()
    config = load_config(args.config)
    lake = Lake.of(config)
    with single_threaded():
        data, inputs = load_inputs(Night.of(config, lake, args.date), "cpu")
        rows, relevant = rows_later(config, lake, args.date, args.until, data)
        show(figures(inputs, rows, relevant, data.seen()), args.json)


if __name__ == "__main__":
    main()
