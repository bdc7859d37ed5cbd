"""What the unified space is made from: vectors of items, and what users have uploaded.

Numpy only, so that reading tables needs no torch. Does not belong here: the network (``fusion``).
"""

from dataclasses import dataclass, field

import numpy as np

from encoders.base import unit_rows
from encoders.space.ragged import Ragged


@dataclass(frozen=True)
class Features:
    """Vectors of n items in one modality.

    Attributes:
        matrix: float32 (n, d_m), unit rows; rows that are absent are ignored.
        present: bool (n,).
        sequence: (steps, features) where each row is a flat sequence.
        views: float32 (v, n, d_m), augmented rows for training; a row without a view repeats its original.
    """

    matrix: np.ndarray
    present: np.ndarray
    sequence: tuple[int, int] | None = None
    views: np.ndarray | None = None


@dataclass(frozen=True)
class Uploads:
    """Pieces that users have uploaded, oldest first.

    Attributes:
        pieces: pieces of each user, as rows of ``modality`` and ``row``.
        modality: name of each piece's modality.
        row: row of each piece in the vectors of its modality.
        vectors: modality -> unit vectors (n, d_m).
    """

    pieces: Ragged
    modality: np.ndarray
    row: np.ndarray
    vectors: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def none(cls, users: int) -> "Uploads":
        """Of users who have uploaded nothing."""
        nothing = np.zeros(0, np.int64)
        return cls(Ragged(np.zeros(users + 1, np.int64), nothing), np.zeros(0, "U1"), nothing)

    def means(self, modality: str) -> np.ndarray:
        """Mean unit vector of each user's pieces of a modality (users, d_m); zero rows where there are none."""
        matrix = self.vectors[modality]
        out = np.zeros((len(self.pieces), matrix.shape[1]), np.float32)
        mine = self.modality[self.pieces.values] == modality
        owner, row = self.pieces.owner[mine], self.row[self.pieces.values[mine]]
        np.add.at(out, owner, matrix[row])
        counts = np.bincount(owner, minlength=len(out))
        there = counts > 0
        out[there] = unit_rows(out[there] / counts[there, None].astype(np.float32))
        return out
