"""Places in lists for items that nobody has liked yet.

Does not belong here: what users would do with such items (``transfer``).
"""

import numpy as np
from scipy import sparse

from pipelines.recommenders.ranking import top_k


def place_new(
    lists: tuple[np.ndarray, np.ndarray],
    scores: np.ndarray,
    chances: np.ndarray,
    new: np.ndarray,
    places: int,
    forbidden: sparse.csr_matrix | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Lists with their last places given to the best new items, as far as fewer are in them already.

    An item that nobody has liked loses to liked ones almost always, and would never be liked.

    Args:
        lists: item rows and scores (users, k) of ``top_k``.
        scores: (users, items), those of the lists.
        chances: (users, items), what new items are ranked by; where a row has none, it is the scores.
        new: bool (items,), True for items that nobody has liked.
        places: of each list.
        forbidden: nonzero (users, items) are never placed.
    """
    items, values = (a.copy() for a in lists)
    columns = np.flatnonzero(new)
    never = forbidden[:, columns].tocsr() if forbidden is not None else None
    ranked = np.where(chances[:, columns].any(1, keepdims=True), chances[:, columns], scores[:, columns])
    fresh, _ = top_k(ranked, places, never)
    for row in np.flatnonzero((items >= 0).all(1)):  # a shorter list holds all that is allowed
        inside = new[items[row]]
        chosen = np.flatnonzero((fresh[row] >= 0) & ~np.isin(columns[fresh[row]], items[row]))
        chosen = chosen[: max(places - inside.sum(), 0)]
        kept = np.delete(np.arange(len(inside)), np.flatnonzero(~inside)[::-1][: len(chosen)])
        items[row] = np.concatenate([items[row, kept], columns[fresh[row, chosen]]])
        placed = np.concatenate([values[row, kept], scores[row, items[row, len(kept) :]]])
        values[row] = np.minimum.accumulate(placed)  # chances are in another order than scores
    return items, values
