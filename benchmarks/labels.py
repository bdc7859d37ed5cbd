"""`python -m benchmarks.labels --config FILE --date NIGHT [--draws N] [--json]`: labels told from a tenth of them.

Categories of nine tenths of the items of a night are hidden and told from content. Baseline: a logistic regression a
label (scikit-learn's, on the same vectors, of modalities side by side) of the same tenth, taken from a probability of
one half on, at the best of three penalties. Micro-F1 over all labels, expected calibration error in ten bins; means
over draws. The night has to be there.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks.figures import Figure, show
from benchmarks.nights import one_night
from encoders.device import single_threaded
from pipelines.config import load_config
from pipelines.label import NEIGHBOURS
from pipelines.lake.storage import Lake
from pipelines.learning.labels import learned, weights_of
from pipelines.night.night import Night
from pipelines.recommenders.item_graphs import centred, nearest_graph
from pipelines.recommenders.matrices import unit_or_zero

SHARE, BINS = 10, 10
PENALTIES = (1.0, 10.0, 100.0)  # inverse, of the baseline
CALIBRATED = 0.05  # goal


def f1(taken: np.ndarray, right: np.ndarray) -> float:
    """Micro-F1 over all labels."""
    return float(2 * (taken & right).sum() / max(taken.sum() + right.sum(), 1))


def calibration_error(probability: np.ndarray, right: np.ndarray) -> float:
    """Mean over all labels of the gap between what is said and what is found, in bins of what is said."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gaps = [(bins == b).mean() * abs(probability[bins == b].mean() - right[bins == b].mean()) for b in np.unique(bins)]
    return float(sum(gaps))


def plain(vectors: np.ndarray, labels: np.ndarray, known: np.ndarray, rest: np.ndarray) -> tuple[float, float]:
    """Micro-F1 and calibration error of the baseline's best penalty."""
    from sklearn.linear_model import LogisticRegression

    found = []
    for penalty in PENALTIES:
        said = np.zeros((len(rest), labels.shape[1]))
        for n in range(labels.shape[1]):
            if 0 < labels[known, n].sum() < len(known):
                model = LogisticRegression(C=penalty, max_iter=500).fit(vectors[known], labels[known, n])
                said[:, n] = model.predict_proba(vectors[rest])[:, 1]
        found.append((f1(said >= 0.5, labels[rest] > 0), calibration_error(said, labels[rest] > 0)))
    return max(found)


def figures(night: Night, draws: int) -> Iterator[Figure]:
    """F1 and calibration, and those of the baseline."""
    given = night.items()["categories"].to_pylist()
    names = sorted({name for mine in given for name in mine or []})
    labels = np.array([[name in (mine or []) for name in names] for mine in given], float)
    parts = [centred(np.where(f.present[:, None], f.matrix, 0)) for _, f in sorted(night.features().items())]
    side = np.hstack(parts) / len(parts) ** 0.5
    usable = np.flatnonzero(labels.any(1) & side.any(1))
    ours, theirs = list[tuple[float, float]](), list[tuple[float, float]]()
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(usable)
        known, rest = np.sort(order[: len(order) // SHARE]), np.sort(order[len(order) // SHARE :])
        weights = weights_of(parts, labels, known)
        joined = np.hstack([np.float32(w**0.5) * p for w, p in zip(weights, parts, strict=True)])
        found = learned(joined, nearest_graph(unit_or_zero(joined), NEIGHBOURS), labels, known)
        said = found.probability[rest]
        ours.append((f1(said >= found.threshold, labels[rest] > 0), calibration_error(said, labels[rest] > 0)))
        theirs.append(plain(side, labels, known, rest))
    (score, gap), (base, base_gap) = (np.mean(x, 0) for x in (ours, theirs))
    yield Figure("micro_f1", score, "F1", "logistic regression a label", score / base, 1.0, "higher")
    yield Figure(
        "calibration_error", gap, "share", "logistic regression a label", gap / base_gap, CALIBRATED / base_gap, "lower"
    )


def main() -> None:
    """Print the figures."""
    command = one_night(__doc__)
    command.add_argument("--draws", type=int, default=4, help="of the tenth, of which figures are means")
    args = command.parse_args()
    config = load_config(args.config)
    with single_threaded():
        show(figures(Night.of(config, Lake.of(config), args.date), args.draws), args.json)


if __name__ == "__main__":
    main()
