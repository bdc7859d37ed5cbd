"""`python -m benchmarks.privacy --config FILE --date NIGHT --until DAY [--epsilon 4] [--json]`: what noise costs.

EASE of the sums of more and more users, with noise for one share at an epsilon and without. Users beyond those of the
night are made of theirs: each is one of them, with every liked item kept four times out of five. Judged as
``benchmarks.sites``, by what the night's own users came to like until a later day, NDCG@20; the ratio is to the same
sums without noise, the first baseline the night's own log. Then a test of membership: who has all sums but one user's,
and the released ones, guesses whether that user is in them; its advantage (true minus false positive rate) over many
releases as a ratio to the largest that epsilon allows.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy import sparse

from benchmarks.figures import Figure, show
from benchmarks.nights import rows_later, two_nights
from encoders.device import single_threaded
from pipelines.beyond import Privacy
from pipelines.config import load_config
from pipelines.federation.privacy import bounded, deviations, most_told, multiplier_of, with_noise
from pipelines.federation.statistics import SCALE, Layout, pooled_of, sums_of
from pipelines.lake.storage import Lake
from pipelines.night.inputs import load_inputs
from pipelines.night.night import Night
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.ranking import ndcg_of
from pipelines.recommenders.registry import entry

K, KEPT, BLOCK = 20, 0.8, 10_000
USERS = (1_000, 10_000, 30_000, 100_000)
RELEASES, ITEMS = 2_000, 40  # of the test of membership


def crowd(positives: sparse.csr_matrix, users: int) -> Iterator[sparse.csr_matrix]:
    """Feedback of made-up users (``BLOCK``, items) until there are enough."""
    rng, known = np.random.default_rng(0), np.flatnonzero(np.diff(positives.indptr))
    for first in range(0, users, BLOCK):
        rows = positives[rng.choice(known, min(BLOCK, users - first))].tocsr()
        rows.data = rows.data * (rng.random(rows.nnz) < KEPT)
        rows.eliminate_zeros()
        yield rows


def accuracy(inputs: Inputs, privacy: Privacy, relevant: sparse.csr_matrix, users: np.ndarray) -> Iterator[Figure]:
    """NDCG of EASE of sums of more and more users."""

    def ndcg(of: Inputs) -> float:
        scores = entry("ease").make({}).fit(of).score(inputs, users)
        return float(ndcg_of(scores, relevant, inputs.positives[users], K, "cpu").mean())

    own, layout = ndcg(inputs), Layout(inputs.positives.shape[1])
    every, deviation = np.arange(layout.n), deviations(privacy, 1.0, multiplier_of(privacy))
    for number in USERS:
        sums = np.zeros(layout.length, np.uint64)
        for rows in crowd(inputs.positives, number):
            sums = sums + sums_of(bounded(rows, privacy, 1.0))
        exact = ndcg(replace(inputs, pooled=pooled_of(sums, every)))
        told = ndcg(replace(inputs, pooled=pooled_of(with_noise(sums, deviation), every, deviation.tolist())))
        named = f"without noise {exact:.4f}; own log {own:.4f}"
        yield Figure(f"ease_of_{number}_users", told, f"NDCG@{K}", named, told / exact, None, "higher")


def membership(positives: sparse.csr_matrix, privacy: Privacy) -> Iterator[Figure]:
    """Advantage of the best test against noise, and against sums without any."""
    top = np.sort(np.argsort(-positives.getnnz(0), kind="stable")[:ITEMS])
    rows = bounded(positives[:, top].tocsr(), privacy, 1.0)
    target = int(np.argmax(np.diff(rows.indptr)))
    layout, deviation = Layout(ITEMS), deviations(privacy, 1.0, multiplier_of(privacy))
    size = np.repeat(deviation * np.array([1.0, SCALE, SCALE]), [layout.pairs, layout.pairs, layout.n])
    change = sums_of(rows[[target]]).view(np.int64) / size
    nobody = np.zeros(layout.length, np.uint64)
    said = [
        [(with_noise(nobody, deviation).view(np.int64) / size + there * change) @ change for _ in range(RELEASES)]
        for there in (0, 1)
    ]
    cuts = np.sort(np.concatenate(said))
    rates = [1 - np.searchsorted(np.sort(values), cuts) / RELEASES for values in said]
    advantage, bound = float((rates[1] - rates[0]).max()), most_told(privacy.epsilon, privacy.delta)
    named = f"largest at epsilon {privacy.epsilon:g}: {bound:.3f}"
    yield Figure("membership_advantage", advantage, "share", named, advantage / bound, 1.0, "lower")


def main() -> None:
    """Print the figures."""
    command = two_nights(__doc__)
    command.add_argument("--epsilon", type=float, default=4.0, help="of one share")
    args = command.parse_args()
    config, privacy = load_config(args.config), Privacy(epsilon=args.epsilon, nights=1)
    lake = Lake.of(config)
    with single_threaded():
        data, inputs = load_inputs(Night.of(config, lake, args.date), "cpu")
        rows, relevant = rows_later(config, lake, args.date, args.until, data)
        show(accuracy(inputs, privacy, relevant, rows), args.json)
        show(membership(inputs.positives, privacy), args.json)


if __name__ == "__main__":
    main()
