"""Items as three small numbers: residual k-means codes of their vectors, for models that read ids.

A code is the nearest of 256 centres, the next one the nearest to what the first leaves over, and so on, as semantic ids
of generative recommenders are (QARM, https://arxiv.org/abs/2411.11739; TIGER, https://arxiv.org/abs/2305.05065). From
night to night items keep their codes: centres move with the items that they stand for, and few items change sides.
Belongs here: centres and codes. Does not: which items are the same as last night (``pipelines.lake.still``).
"""

from dataclasses import dataclass

import numpy as np

LEVELS, CENTRES = 3, 256
SAMPLE = 1 << 16  # items that centres are sought on
ROUNDS = 15  # of k-means
MOVING = 0.03  # share of the items of last night that may change their codes
BLOCK = 1 << 14  # items at once
NEW = -1  # code of an item that has none yet


@dataclass(frozen=True)
class Codes:
    """Codes of n items and the centres that they stand for.

    Attributes:
        codes: int16 (n, levels).
        centres: float32 (levels, centres, d); zeros where no item has the code.
    """

    codes: np.ndarray
    centres: np.ndarray

    def decoded(self) -> np.ndarray:
        """Sum of the centres of each item (n, d), which its vector is near to."""
        return np.sum([self.centres[level][self.codes[:, level]] for level in range(LEVELS)], axis=0)

    @property
    def collisions(self) -> float:
        """Share of items that have all codes in common with another."""
        _, at, counts = np.unique(self.codes, axis=0, return_inverse=True, return_counts=True)
        return float((counts[at.ravel()] > 1).mean()) if len(self.codes) else 0.0


def codes_of(vectors: np.ndarray, before: np.ndarray | None = None) -> Codes:
    """Codes of items, the same for the same arguments.

    Args:
        vectors: of n items (n, d).
        before: codes of last night (n, levels), ``NEW`` for items that are new or have changed; None to begin afresh.
    """
    x = vectors.astype(np.float32)
    if before is None or (before == NEW).all():
        codes, centres = _afresh(x)
    else:
        codes, centres = _continued(x, before)
    fixed = np.zeros(len(x), bool) if before is None else (before == codes).all(1)
    codes = _apart(x, codes, centres, fixed)
    return Codes(codes.astype(np.int16), _means(x, codes, _zeros(x)))


def _zeros(x: np.ndarray) -> np.ndarray:
    return np.zeros((LEVELS, CENTRES, x.shape[1]), np.float32)


def _afresh(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    sample = np.sort(rng.permutation(len(x))[:SAMPLE])
    rest, centres, codes = x.copy(), _zeros(x), np.zeros((len(x), LEVELS), np.int64)
    for level in range(LEVELS):
        centres[level] = _k_means(rest[sample], rng)
        codes[:, level] = _nearest(rest, centres[level])
        rest -= centres[level][codes[:, level]]
    return codes, centres


def _k_means(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Centres (256, d) by Lloyd's rounds from distinct items; an empty centre moves to the item that is worst off."""
    first = np.unique(x, axis=0, return_index=True)[1]
    chosen = np.sort(rng.permutation(np.sort(first))[:CENTRES])
    centres = np.zeros((CENTRES, x.shape[1]), np.float32)
    centres[: len(chosen)] = x[chosen]
    if len(chosen) < CENTRES:  # each distinct item is its own centre
        return centres
    for _ in range(ROUNDS):
        code = _nearest(x, centres)
        count = np.bincount(code, minlength=CENTRES)
        sums = np.zeros(centres.shape)
        np.add.at(sums, code, x)
        centres = (sums / np.maximum(count, 1)[:, None]).astype(np.float32)
        empty = np.flatnonzero(count == 0)
        if len(empty):
            off = np.square(x - centres[code]).sum(1)
            centres[empty] = x[np.argsort(-off, kind="stable")[: len(empty)]]
    return centres


def _nearest(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    half = np.square(centres).sum(1) / 2
    return np.concatenate(
        [(x[a : a + BLOCK] @ centres.T - half).argmax(1) for a in range(0, len(x), BLOCK)] or [np.zeros(0, np.int64)]
    )


def _means(x: np.ndarray, codes: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Mean of what each code stands for, level by level; ``otherwise`` where it stands for nothing."""
    rest, centres = x.astype(np.float64), otherwise.copy()
    for level in range(LEVELS):
        code = codes[:, level]
        count = np.bincount(code, minlength=CENTRES)
        sums = np.zeros(centres[level].shape)
        np.add.at(sums, code, rest)
        there = count > 0
        centres[level][there] = (sums[there] / count[there, None]).astype(np.float32)
        rest -= centres[level][code]
    return centres


def _continued(x: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes that stay, but for the items that gain most by other ones; new items get the nearest."""
    kept = (before != NEW).all(1)
    codes = np.where(kept[:, None], before, 0).astype(np.int64)
    centres = _means(x[kept], codes[kept], _zeros(x))
    best, centres = _greedy(x, centres, codes, kept)
    gain = _error(x, codes, centres) - _error(x, best, centres)
    moving = np.argsort(-np.where(kept, gain, -np.inf), kind="stable")[: int(MOVING * kept.sum())]
    change = ~kept
    change[moving[gain[moving] > 0]] = True
    codes[change] = best[change]
    return codes, centres


def _greedy(x: np.ndarray, centres: np.ndarray, now: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest codes of all items; codes that are free go to the new items that are further off than old ones are."""
    rest, codes, centres = x.copy(), np.zeros((len(x), LEVELS), np.int64), centres.copy()
    for level in range(LEVELS):
        used = np.unique(now[kept, level])
        usual = np.square(rest[kept] - centres[level][now[kept, level]]).sum(1).mean()
        off = np.square(rest - centres[level][used[_nearest(rest, centres[level][used])]]).sum(1)
        off[kept | (off <= usual)] = -1
        free = np.setdiff1d(np.arange(CENTRES), used)
        first = np.argsort(-off, kind="stable")[: min(len(free), int((off > 0).sum()))]
        centres[level][free[: len(first)]] = rest[first]
        used = np.concatenate([used, free[: len(first)]])
        codes[:, level] = used[_nearest(rest, centres[level][used])]
        rest -= centres[level][codes[:, level]]
    return codes, centres


def _error(x: np.ndarray, codes: np.ndarray, centres: np.ndarray) -> np.ndarray:
    decoded = np.sum([centres[level][codes[:, level]] for level in range(LEVELS)], axis=0)
    return np.asarray(np.square(x - decoded).sum(1))


def _apart(x: np.ndarray, codes: np.ndarray, centres: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Codes of which items that share the first ones differ in the last, as far as there are free ones.

    Items that are ``fixed`` keep theirs; of others those that are nearest to their centre choose first.
    """
    codes = codes.copy()
    family = codes[:, :-1] @ (CENTRES ** np.arange(LEVELS - 1))
    order = np.lexsort((~fixed, family))
    ends = np.flatnonzero(np.append(np.diff(family[order]), 1)) + 1
    for a, b in zip([0, *ends[:-1]], ends, strict=True):
        rows = order[a:b]
        if b - a > 1 and len(np.unique(codes[rows, -1])) < b - a:
            codes[rows, -1] = _shared_out(
                _rest(x[rows], codes[rows], centres), codes[rows, -1], centres[-1], fixed[rows]
            )
    return codes


def _rest(x: np.ndarray, codes: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return x - np.sum([centres[level][codes[:, level]] for level in range(LEVELS - 1)], axis=0)


def _shared_out(rest: np.ndarray, code: np.ndarray, centres: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Last codes of the items of one family, each its own while there are enough."""
    code = code.copy()
    distance = np.square(centres).sum(1) / 2 - rest @ centres.T
    free = np.ones(len(centres), bool)
    waiting = []
    for i in np.lexsort((distance[np.arange(len(code)), code], ~fixed)):
        if free[code[i]] or fixed[i]:
            free[code[i]] = False
        else:
            waiting.append(i)
    for i in waiting:
        if free.any():
            code[i] = np.argmin(np.where(free, distance[i], np.inf))
            free[code[i]] = False
    return code
