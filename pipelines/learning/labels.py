"""Labels of items that have none, from the content of items that have some: probabilities that mean what they say.

Belongs here: the classifier and its calibration. Does not: whose labels they are, tables (``label``).
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse, special

RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SHARPNESS = 4  # power of the similarity of a neighbour
THRESHOLDS = np.linspace(0.2, 0.5, 31)
SLACK = 1e-3  # of the calibration's weights
MOST_LABELLED = 4_000  # items that are learned from; the cost is their cube
MOST_PAIRED = 1_000  # items whose pairs weigh the modalities


@dataclass(frozen=True)
class Labels:
    """What items are labelled with, as far as their content tells.

    Attributes:
        probability: (items, labels); of labelled items, by what was learned from the others.
        threshold: from which a label is taken, so that of labelled items the F1 over all labels is highest.
    """

    probability: np.ndarray
    threshold: float


def weights_of(parts: list[np.ndarray], given: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How much likeness in each modality says of having labels in common (modalities,), adding up to 1.

    Non-negative least squares of the products of centred labels on the cosines of pairs of labelled items.

    Args:
        parts: unit or zero rows of each modality (items, d_m).
        given: labels (items, labels), 0 or 1.
        known: rows of labelled items.
    """
    known = _some(known, MOST_PAIRED)
    labels = given[known] - given[known].mean(0)
    pairs = np.triu_indices(len(known), 1)
    cosines = np.stack([(p[known] @ p[known].T)[pairs] for p in parts], 1).astype(np.float64)
    fitted = optimize.nnls(cosines.T @ cosines, cosines.T @ (labels @ labels.T)[pairs])[0]
    return np.asarray(fitted / fitted.sum() if fitted.any() else np.full(len(parts), 1 / len(parts)))


def learned(vectors: np.ndarray, neighbours: sparse.csr_matrix, given: np.ndarray, known: np.ndarray) -> Labels:
    """Probability of each label of each item.

    Ridge regression of the labels on content, whose ridge is that of the least leave-one-out error (in closed form,
    https://doi.org/10.1080/00401706.1979.10489751), and what neighbours are labelled with or taken to be by it. Both go
    through a logistic regression with the labels' log-odds, fitted on labelled items by what was said of them without
    themselves (Platt scaling).

    Args:
        vectors: content (items, d).
        neighbours: similarity of like items (items, items), no diagonal.
        given: labels (items, labels), 0 or 1.
        known: rows of labelled items, ascending.
    """
    some = (
        known if len(known) <= MOST_LABELLED else np.sort(np.random.default_rng(0).permutation(known)[:MOST_LABELLED])
    )
    mean = given[known].mean(0)
    own = _ridge(vectors, given, some) + mean
    beside = _beside(_normalized(neighbours), own, given, known)
    number = given[known].sum(0)
    odds = np.log((number + 0.5) / (len(known) - number + 0.5))
    features = np.stack([np.broadcast_to(odds, own.shape), np.ones_like(own), own - mean, beside - mean], -1)
    weights = _logistic(features[some].reshape(-1, 4), given[some].ravel())
    probability = special.expit(features @ weights)
    return Labels(probability, _threshold(probability[some], given[some] > 0))


def _some(known: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, as good as drawn, ascending."""
    return known if len(known) <= most else np.sort(np.random.default_rng(0).permutation(known)[:most])


def _ridge(vectors: np.ndarray, given: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What content says of each label (items, labels) less its mean; of labelled items without themselves."""
    kernel = (vectors[known] @ vectors[known].T).astype(np.float64)
    values, axes = np.linalg.eigh(kernel)
    centred, best = given[known] - given[known].mean(0), (np.inf, np.zeros(0), np.zeros(0))
    for ridge in RIDGES:
        inverse = (axes / (values + ridge)) @ axes.T
        dual = inverse @ centred
        left_out = dual / np.diag(inverse)[:, None]
        error = float((left_out**2).mean())
        if error < best[0]:
            best = (error, dual, centred - left_out)
    said = (vectors @ vectors[known].T).astype(np.float64) @ best[1]
    said[known] = best[2]
    return np.asarray(said)


def _normalized(neighbours: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows of sharpened similarities that add up to 1, or are empty."""
    sharp = neighbours.astype(np.float64).tocsr()
    sharp.data = np.maximum(sharp.data, 0) ** SHARPNESS
    total = np.asarray(sharp.sum(1)).ravel()
    return (sparse.diags_array(1 / np.where(total > 0, total, 1)) @ sharp).tocsr()


def _beside(near: sparse.csr_matrix, own: np.ndarray, given: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mean of what an item's neighbours are labelled with, or taken to be by their content (items, labels).

    One step: with more an item's own label would come back to it.
    """
    taken = np.clip(own, 0, 1)
    taken[known] = given[known]
    return np.asarray(near @ taken)


def _logistic(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights (f,) of a logistic regression, by maximum likelihood."""

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = features @ w
        value = float((np.logaddexp(0, z) - labels * z).mean() + SLACK * (w[2:] ** 2).sum() / len(labels))
        slope = features.T @ (special.expit(z) - labels) / len(labels)
        slope[2:] += 2 * SLACK * w[2:] / len(labels)
        return value, slope

    return np.asarray(optimize.minimize(loss, np.array([1.0, 0.0, 3.0, 3.0]), jac=True, method="L-BFGS-B").x)


def _threshold(probability: np.ndarray, labels: np.ndarray) -> float:
    """The threshold of the highest F1 over all labels, by its mean with its neighbours: one step is chance."""
    scores = []
    for threshold in THRESHOLDS:
        taken = probability >= threshold
        scores.append(2 * (taken & labels).sum() / max(taken.sum() + labels.sum(), 1))
    smooth = np.convolve(np.pad(scores, 2, mode="edge"), np.ones(5) / 5, "valid")
    return float(THRESHOLDS[smooth.argmax()])
