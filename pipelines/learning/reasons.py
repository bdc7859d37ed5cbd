"""Why an item is in a list: history items that speak for it, the modality that makes them alike.

Belongs here: the rule. Does not: ids and tables (``score``).
"""

from dataclasses import dataclass, fields

import numpy as np

from encoders.space.ragged import Ragged

ITEMS = 3  # of the history that are named
HISTORY = 50  # most recent items that can be a reason
BLOCK_NUMBERS = 20_000_000  # of the vectors that are compared at once
SIMILARITY = 0.1  # centred cosine below which a history item is no reason


@dataclass(frozen=True)
class Space:
    """Items in the unified space.

    Attributes:
        centred: unit fused vectors less their mean (items, d).
        aligned: modality -> unit vectors (items, d), zero rows where an item lacks it.
        attention: modality -> share of the fused vector (items,).
    """

    centred: np.ndarray
    aligned: dict[str, np.ndarray]
    attention: dict[str, np.ndarray]


@dataclass(frozen=True)
class Reasons:
    """A reason for each place of the lists of some users.

    Attributes:
        code: (users, k) similar_to_history, similar_to_uploads, popular, popular_in_segment or new.
        history: (users, k, ``ITEMS``) rows of history items, the nearest first; -1 where there are fewer.
        modality: (users, k) name, empty where no modality is shared.
        attention: float32 (users, k) of that modality in the item's vector.
    """

    code: np.ndarray
    history: np.ndarray
    modality: np.ndarray
    attention: np.ndarray


def explain(space: Space, histories: Ragged, has_signal: np.ndarray, liked: np.ndarray, items: np.ndarray) -> Reasons:
    """Reasons of the lists of some users.

    History items speak for an item by centred cosine in the unified space. The modality is the one that carries most of
    it: its attention in the recommended item times the cosine to the strongest history item in that modality. Where
    nothing speaks for an item it is new, if nobody has liked it, and popular else.

    Args:
        space: the items.
        histories: item rows of each user, oldest first.
        has_signal: bool (users,), whether there is history or an upload.
        liked: bool (items,), whether anybody has liked an item.
        items: (users, k) item rows; -1 behind the end of a list.
    """
    size = max(1, BLOCK_NUMBERS // max(items.shape[1] * space.centred.shape[1], 1))
    blocks = [
        _explained(space, histories[a : a + size], has_signal[a : a + size], liked, items[a : a + size])
        for a in range(0, max(len(items), 1), size)
    ]
    return Reasons(*(np.concatenate([getattr(b, f.name) for b in blocks]) for f in fields(Reasons)))


def _explained(
    space: Space, histories: Ragged, has_signal: np.ndarray, liked: np.ndarray, items: np.ndarray
) -> Reasons:
    recent, rows = histories.latest(HISTORY), np.maximum(items, 0)
    history = np.full((len(items), max(int(recent.lengths.max(initial=0)), 1)), -1, np.int64)
    history[recent.owner, recent.place] = recent.values
    history = np.sort(history, axis=1)  # so that the first of equal ones is the lower row
    similarity = np.matmul(space.centred[rows], space.centred[np.maximum(history, 0)].swapaxes(1, 2))  # (users, k, h)
    similarity[np.broadcast_to(history[:, None] < 0, similarity.shape)] = -np.inf
    nearest = np.full((*items.shape, ITEMS), -1, np.int64)
    for place in range(min(ITEMS, history.shape[1])):
        best = similarity.argmax(2)[..., None]
        near = np.take_along_axis(similarity, best, 2)[..., 0] >= SIMILARITY
        nearest[..., place] = np.where(near, np.take_along_axis(history, best[..., 0], 1), -1)
        np.put_along_axis(similarity, best, -np.inf, 2)
    alike = nearest[..., 0] >= 0
    uploads = (has_signal & (histories.lengths == 0))[:, None]
    code = np.where(alike, "similar_to_history", np.where(uploads, "similar_to_uploads", "popular"))
    code = np.where(~alike & ~uploads & ~liked[rows], "new", code)
    return Reasons(code, nearest, *modality_of(space, np.maximum(nearest[..., 0], 0), rows, alike))


def modality_of(space: Space, a: np.ndarray, b: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The modality that makes items ``b`` like items ``a`` (users, k), and its attention in ``b``."""
    best = np.full(a.shape, -np.inf, np.float32)
    name, attention = np.full(a.shape, "", object), np.zeros(a.shape, np.float32)
    for m, vectors in sorted(space.aligned.items()):
        one, other = vectors[a], vectors[b]
        shared = there & one.any(-1) & other.any(-1)
        weight = space.attention[m][b] * np.einsum("ukd,ukd->uk", one, other)
        better = shared & (weight > best)
        best = np.where(better, weight, best)
        name[better], attention[better] = m, space.attention[m][b][better]
    return name, attention
