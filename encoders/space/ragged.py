"""Lists of different lengths as two arrays: histories of users, uploads of users.

Does not belong here: what the entries mean.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, overload

import numpy as np


@dataclass(frozen=True, eq=False)
class Ragged(Sequence[np.ndarray]):
    """Lists of numbers, one behind another; list i is ``values[bounds[i] : bounds[i + 1]]``.

    Attributes:
        bounds: int64 (lists + 1,), ascending from 0.
        values: (sum of lengths,).
    """

    bounds: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, lists: Iterable[np.ndarray | Sequence[int]]) -> Self:
        """The same lists as two arrays."""
        arrays = [np.asarray(x, np.int64) for x in lists]
        return cls(np.cumsum([0, *map(len, arrays)]), np.concatenate([*arrays, np.zeros(0, np.int64)]))

    @classmethod
    def grouped(cls, owner: np.ndarray, values: np.ndarray, lists: int) -> Self:
        """Lists of the values of each owner (0 to ``lists`` - 1), which come in ascending order of owner."""
        return cls(np.searchsorted(owner, np.arange(lists + 1)), values)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, at: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, at: slice) -> "Ragged": ...
    def __getitem__(self, at: "int | slice") -> "np.ndarray | Ragged":
        if isinstance(at, slice):
            start, stop, _ = at.indices(len(self))
            bounds = self.bounds[start : max(stop, start) + 1]
            return Ragged(bounds - bounds[0], self.values[bounds[0] : bounds[-1]])
        return self.values[self.bounds[at] : self.bounds[at + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.values[a:b] for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True))

    @property
    def lengths(self) -> np.ndarray:
        """Length of each list (lists,)."""
        return np.diff(self.bounds)

    @property
    def owner(self) -> np.ndarray:
        """List that each value is in (sum of lengths,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, rows: np.ndarray) -> "Ragged":
        """Some of the lists, in the order of ``rows``."""
        length = self.lengths[rows]
        bounds = np.cumsum([0, *length])
        at = np.arange(bounds[-1]) - np.repeat(bounds[:-1], length) + np.repeat(self.bounds[:-1][rows], length)
        return Ragged(bounds, self.values[at])

    def latest(self, most: int) -> "Ragged":
        """The last entries of each list, at most ``most``."""
        length = np.minimum(self.lengths, most)
        bounds = np.cumsum([0, *length])
        at = np.arange(bounds[-1]) - np.repeat(bounds[1:], length) + np.repeat(self.bounds[1:], length)
        return Ragged(bounds, self.values[at])

    @property
    def place(self) -> np.ndarray:
        """Place of each value in its own list, from 0 (sum of lengths,)."""
        return np.arange(len(self.values)) - np.repeat(self.bounds[:-1], self.lengths)
