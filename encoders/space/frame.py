"""A frame of the unified space that is the same every night: nights that know nothing of each other agree on axes.

Training finds a space up to a rotation, another one each night, so vectors of two nights could not be compared. Each
night is turned by the rotation that brings its items closest to fixed, seeded projections of their content (orthogonal
Procrustes, https://doi.org/10.1007/BF02289451, for embeddings https://arxiv.org/abs/2508.07574). Dot products within a
night stay what they are. Belongs here: anchors and the rotation. Does not: training (``alignment``).
"""

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from encoders.space.features import Features

VERSION = 1  # raise it when the same content should be anchored elsewhere
BLOCK = 4096  # items at once
SMALL = 1e-6  # of the greatest variance: what is less is no direction


def frame_digest(encoders: Mapping[str, str], dim: int) -> str:
    """Identity of a frame: nights with the same can be compared.

    Args:
        encoders: modality -> identity of its encoder; another encoder is another frame.
        dim: length of the unified vector.
    """
    return hashlib.sha256(json.dumps([VERSION, dim, dict(sorted(encoders.items()))]).encode()).hexdigest()[:16]


def rotation(vectors: np.ndarray, features: Mapping[str, Features], encoders: Mapping[str, str]) -> np.ndarray:
    """The orthogonal matrix (d, d) that turns unit vectors into the fixed frame: ``vectors @ rotation``.

    The anchors' components count alike, and directions by how much of the vectors lies in them, as those that hold
    little are turned by chance.

    Args:
        vectors: of n items (n, d).
        features: modality -> content of the same items.
        encoders: see ``frame_digest``.
    """
    dim = vectors.shape[1]
    maps = {m: _projection(m, encoders.get(m, ""), f.matrix.shape[1], dim) for m, f in features.items()}
    own, cross, anchored = (np.zeros((dim, dim)) for _ in range(3))
    for a in range(0, len(vectors), BLOCK):
        block = vectors[a : a + BLOCK].astype(np.float64)
        anchor = _anchors(features, maps, slice(a, a + BLOCK))
        own += block.T @ block
        cross += block.T @ anchor
        anchored += anchor.T @ anchor
    left, _, right = np.linalg.svd(own @ cross @ _inverse_root(anchored))
    return (left @ right).astype(np.float32)


def _projection(modality: str, encoder: str, length: int, dim: int) -> np.ndarray:
    seed = hashlib.sha256(f"{VERSION} {modality} {encoder}".encode()).digest()
    drawn = np.random.default_rng(list(seed)).standard_normal((length, dim))
    return drawn / np.sqrt(length)


def _anchors(features: Mapping[str, Features], maps: Mapping[str, np.ndarray], rows: slice) -> np.ndarray:
    """Unit sums of the projected content of each modality; zero rows for items without any."""
    total = 0.0
    for m, f in features.items():
        total = total + _unit(f.matrix[rows].astype(np.float64) @ maps[m]) * f.present[rows, None]
    return _unit(np.asarray(total))


def _unit(rows: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


def _inverse_root(gram: np.ndarray) -> np.ndarray:
    values, axes = np.linalg.eigh(gram)
    return np.asarray((axes * np.maximum(values, SMALL * max(values.max(), SMALL)) ** -0.5) @ axes.T)
