"""Why an item is in a list: history items that speak for it, how much they say, the modality that makes them alike.

Belongs here: the rule. Does not: ids and tables (``score``), what a model makes of a history (``recommenders``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import sparse

from encoders.space.ragged import Ragged

ITEMS = 3  # of the history that are named
HISTORY = 50  # most recent items that can be a reason
BLOCK_NUMBERS = 20_000_000  # of the vectors that are compared at once
SIMILARITY = 0.1  # centred cosine below which a history item is no reason


WORDS = {  # code -> in words, of the title of a history item and of the reason's value
    "similar_to_history": "like {0}",
    "similar_to_uploads": "like what was uploaded",
    "popular_in_segment": "popular among {1}",
    "wished": "wished: {1}",
}


def in_words(row: Mapping[str, Any], titles: Sequence[str], words: Mapping[str, str] = MappingProxyType(WORDS)) -> str:
    """The reason of a row of ``recommendations``; codes without words stay as they are.

    Args:
        row: with its reason.
        titles: of the history items that it names.
        words: of each code.
    """
    said = words.get(row["reason_code"], row["reason_code"])
    said = said.format(titles[0] if titles else "", row["reason_value"] or "")
    if row["reason_code"] == "similar_to_history" and row["reason_value"]:
        said += f", both {row['reason_value'].replace('_', ' ')}"
    return said + (f", by {row['reason_modality']}" if row["reason_modality"] else "")


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
class Shared:
    """What pairs of items share, as far as it is known.

    Attributes:
        items: how many there are.
        pairs: row of an item times ``items`` plus that of the other (n,), ascending.
        why: of each pair (n,).
    """

    items: int
    pairs: np.ndarray
    why: np.ndarray

    @classmethod
    def nothing(cls) -> "Shared":
        """Where nothing is known."""
        return cls(0, np.zeros(0, np.int64), np.zeros(0, object))

    def _places(self, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place of each pair among the known ones, and whether it is one of them."""
        wanted = one * self.items + other
        if not len(self.pairs):
            return np.zeros(wanted.shape, np.int64), np.zeros(wanted.shape, bool)
        at = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
        return at, (self.pairs[at] == wanted) & (one >= 0)

    def known(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Bool, whether each item of ``one`` is known to share something with that of ``other``."""
        return self._places(one, other)[1]

    def of(self, one: np.ndarray, other: np.ndarray) -> list[str | None]:
        """What each item of ``one`` (m,) shares with that of ``other``; None where nothing is known."""
        at, found = self._places(one, other)
        return [str(self.why[n]) if there else None for n, there in zip(at.tolist(), found.tolist(), strict=True)]


@dataclass(frozen=True)
class Reasons:
    """A reason for each place of the lists of some users.

    Attributes:
        code: (users, k) similar_to_history, similar_to_uploads, popular or new.
        history: (users, k, ``ITEMS``) rows of history items, the nearest first; -1 where there are fewer.
        modality: (users, k) name, empty where no modality is shared.
        attention: float32 (users, k) of that modality in the item's vector.
        effect: float32 (users, k) share of what the whole history says for the item that the named items say, 0 to 1.
    """

    code: np.ndarray
    history: np.ndarray
    modality: np.ndarray
    attention: np.ndarray
    effect: np.ndarray


@dataclass(frozen=True)
class Speakers:
    """What the models that a list is of make of history items.

    Attributes:
        of: history items of some users, ascending.
        items: listed items, ascending.
        parts: weight of each model, and how much each of ``of`` speaks for each of ``items`` (len(of), len(items)).
        feedback: decayed weights of the users' positive feedback (users, all items).
    """

    of: np.ndarray
    items: np.ndarray
    parts: list[tuple[float, np.ndarray]]
    feedback: sparse.csr_matrix

    @cached_property
    def said(self) -> np.ndarray:
        """Sum over the models (len(of), len(items)): each by its weight, and by ratio to a usual history item."""
        total = np.zeros((len(self.of), len(self.items)), np.float32)
        for weight, likeness in self.parts:
            part = np.maximum(likeness, 0)
            usual = part.mean(0)
            total += weight * part / np.where(usual > 0, usual, 1)
        return total

    def influence(self, users: slice, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Share of what a history says for an item that each of its items says.

        Args:
            users: rows of ``feedback``.
            history: (users, h) their items, -1 where there is none.
            items: (users, k).

        Returns:
            Float32 (users, k, h), which adds up to 1 over the history where any model says anything.
        """
        row, column = (np.searchsorted(x, np.maximum(y, 0)) for x, y in ((self.of, history), (self.items, items)))
        row, column = (np.minimum(at, max(len(x) - 1, 0)) for at, x in ((row, self.of), (column, self.items)))
        owner, place = np.nonzero(history >= 0)
        strength = np.zeros((len(history), 1, history.shape[1]), np.float32)
        strength[owner, 0, place] = np.asarray(self.feedback[users][owner, history[owner, place]]).ravel()
        said = self.said[row[:, None, :], column[:, :, None]] * strength
        whole = said.sum(2, keepdims=True)
        return said / np.where(whole > 0, whole, 1)


def explain(
    space: Space,
    histories: Ragged,
    has_signal: np.ndarray,
    liked: np.ndarray,
    items: np.ndarray,
    speakers: Speakers | None = None,
    shared: Shared | None = None,
) -> Reasons:
    """Reasons of the lists of some users.

    History items speak for an item by what the models of the list make of them; where none says anything, by centred
    cosine in the unified space. The modality is the one that carries most of it: its attention in the recommended item
    times the cosine to the strongest history item in that modality. Where nothing speaks for an item it is new, if
    nobody has liked it, and popular else.

    Args:
        space: the items.
        histories: item rows of each user, oldest first.
        has_signal: bool (users,), whether there is history or an upload.
        liked: bool (items,), whether anybody has liked an item.
        items: (users, k) item rows; -1 behind the end of a list.
        speakers: what the models make of these histories; None where that is not known.
        shared: what pairs of items are known to share.
    """
    size = max(1, BLOCK_NUMBERS // max(items.shape[1] * space.centred.shape[1], 1))
    blocks = [
        _explained(
            space,
            histories,
            has_signal,
            liked,
            items,
            speakers,
            shared or Shared.nothing(),
            slice(a, min(a + size, len(items))),
        )
        for a in range(0, max(len(items), 1), size)
    ]
    return Reasons(*(np.concatenate([getattr(b, f.name) for b in blocks]) for f in fields(Reasons)))


def _explained(
    space: Space,
    histories: Ragged,
    has_signal: np.ndarray,
    liked: np.ndarray,
    items: np.ndarray,
    speakers: Speakers | None,
    shared: Shared,
    users: slice,
) -> Reasons:
    histories, has_signal, items = histories[users], has_signal[users], items[users]
    recent, rows = histories.latest(HISTORY), np.maximum(items, 0)
    history = np.full((len(items), max(int(recent.lengths.max(initial=0)), 1)), -1, np.int64)
    history[recent.owner, recent.place] = recent.values
    history = np.sort(history, axis=1)  # so that the first of equal ones is the lower row
    says = None if speakers is None else speakers.influence(users, history, rows)
    known = shared.known(history[:, None], rows[..., None])
    nearest, effect = _named(space, history, rows, says, liked[rows][..., None] | known)
    alike = nearest[..., 0] >= 0
    uploads = (has_signal & (histories.lengths == 0))[:, None]
    code = np.where(alike, "similar_to_history", np.where(uploads, "similar_to_uploads", "popular"))
    code = np.where(~alike & ~uploads & ~liked[rows], "new", code)
    return Reasons(code, nearest, *modality_of(space, np.maximum(nearest[..., 0], 0), rows, alike), effect)


def _named(
    space: Space, history: np.ndarray, items: np.ndarray, influence: np.ndarray | None, heard: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """History items (users, k, ``ITEMS``) that say most, and the share of all that they say (users, k).

    Of history items that are not ``heard`` (users, k, h) those speak that are like the item: for an item that nobody
    has liked nothing else speaks than content and what is known of both.
    """
    cosine = np.matmul(space.centred[items], space.centred[np.maximum(history, 0)].swapaxes(1, 2))  # (users, k, h)
    cosine[np.broadcast_to(history[:, None] < 0, cosine.shape)] = -np.inf
    cosine = np.where(cosine >= SIMILARITY, cosine, 0)
    if influence is not None:
        influence = influence * (heard | (cosine > 0))
    says = cosine if influence is None else np.where(influence.any(2, keepdims=True), influence, cosine)
    whole = says.sum(2)
    nearest = np.full((*items.shape, ITEMS), -1, np.int64)
    effect = np.zeros(items.shape, np.float32)
    for place in range(min(ITEMS, history.shape[1])):
        best = says.argmax(2)[..., None]
        value = np.take_along_axis(says, best, 2)[..., 0]
        nearest[..., place] = np.where(value > 0, np.take_along_axis(history, best[..., 0], 1), -1)
        effect = effect + value.astype(np.float32)
        np.put_along_axis(says, best, 0, 2)
    return nearest, (effect / np.where(whole > 0, whole, 1)).astype(np.float32)


def modality_of_uploads(
    uploads: dict[str, np.ndarray], content: dict[str, np.ndarray], items: np.ndarray
) -> np.ndarray:
    """The modality in which what users uploaded is most like listed items, by cosine (users, k); empty where in none.

    Args:
        uploads: modality -> mean vectors of the users' uploads (users, d_m), zero rows where there are none.
        content: modality -> unit vectors (items, d_m), zero rows where an item lacks it.
        items: (users, k).
    """
    name, best = np.full(items.shape, "", object), np.zeros(items.shape, np.float32)
    for m in sorted(uploads.keys() & content.keys()):
        length = np.linalg.norm(uploads[m], axis=1, keepdims=True)
        cosine = np.einsum("ud,ukd->uk", uploads[m] / np.where(length > 0, length, 1), content[m][items])
        name[cosine > best] = m
        best = np.maximum(best, cosine)
    return name


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
