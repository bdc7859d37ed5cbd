"""Whether the unified space holds still: vectors and codes of the same items on two nights, promises about them.

Belongs here: the last night's vectors and codes beside tonight's. Does not: how nights come to share axes
(``encoders.space.frame``) and codes (``encoders.space.codes``).
"""

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines.config import Config
from pipelines.lake.promises import Remark, promise
from pipelines.lake.schemas import vectors_to_numpy

if TYPE_CHECKING:
    from pipelines.night.night import Night

MIN_ITEMS = 100  # of fewer a cosine says little
MOST_COLLISIONS, LEAST_KEPT = 0.01, 0.95  # of codes; beyond, the check warns


@dataclass(frozen=True)
class Pair:
    """Items whose content is the same on two nights.

    Attributes:
        before: the earlier night.
        comparable: whether the nights share a frame.
        rows: rows of ``feat_items`` tonight.
        earlier: unit vectors of the earlier night (n, d).
        now: unit vectors of tonight (n, d).
    """

    before: date
    comparable: bool
    rows: np.ndarray
    earlier: np.ndarray
    now: np.ndarray

    @property
    def cosine(self) -> float:
        """Mean cosine of an item with itself."""
        return float(np.einsum("nd,nd->n", self.earlier, self.now).mean()) if len(self.rows) else float("nan")


def pair_of(night: "Night") -> Pair | None:
    """A night and the latest before it; None where there is none, or where it has no frame."""
    lake, day = night.lake, night.day
    earlier = [d for d in lake.days("feat_items", day) if d < day]
    if not earlier or not lake.manifest("std_items", earlier[-1]):
        return None
    now, before = (lake.read("feat_items", d, ["vector", "frame"]) for d in (day, earlier[-1]))
    if not all("frame" in t.column_names and t.num_rows for t in (now, before)):  # earlier versions had none
        return None
    same_frame = now["frame"][0].as_py() == before["frame"][0].as_py()
    there, row = night.same_items(earlier[-1])
    vectors = [vectors_to_numpy(t["vector"]) for t in (before, now)]
    if vectors[0].shape[1] != vectors[1].shape[1]:
        there, row, vectors = there[:0], row[:0], [np.zeros((0, 0), np.float32)] * 2
    return Pair(earlier[-1], same_frame, there, vectors[0][row], vectors[1][there])


@promise(["feat_items"], "Vectors of unchanged items are near those of the night before.", ["frame"])
def space_holds_still(config: Config, night: "Night", _: str, __: pa.Table) -> list[str]:
    """Says the mean cosine; warns below ``guards.space_warn``, breaks below ``guards.space_stop``."""
    pair = pair_of(night)
    if pair is None:
        return []
    if not pair.comparable:
        text = f"a new frame, as an encoder or the dimension is another than on {pair.before}: do not compare across it"
        return [Remark(text, warns=True)]
    text = f"mean cosine {pair.cosine:.3f} of {len(pair.rows)} unchanged items with {pair.before}"
    numbers = {"cosine": float(pair.cosine), "unchanged_items": float(len(pair.rows))} if len(pair.rows) else {}
    if len(pair.rows) < MIN_ITEMS or pair.cosine >= config.guards.space_warn:
        return [Remark(text, numbers=numbers)]
    if pair.cosine >= config.guards.space_stop:
        return [Remark(f"{text}, expected {config.guards.space_warn} (guards.space_warn)", True, numbers)]
    advice = "read no vectors across the two nights; lower guards.space_stop if that does not matter"
    return [f"{text}, expected at least {config.guards.space_stop}; {advice}", Remark("", numbers=numbers)]


@promise(["item_codes"], "Items have codes of their own, which they keep.", ["codes", "frame"])
def codes_hold_still(_: Config, night: "Night", __: str, rows: pa.Table) -> list[str]:
    """Says the share of items that share all codes with another, and of unchanged items that kept theirs; may warn."""
    if not rows.num_rows:
        return []
    codes = _matrix(rows)
    counts = np.unique(codes, axis=0, return_counts=True)[1]
    shared = float(counts[counts > 1].sum() / len(codes))
    kept, text = 1.0, f"{shared:.2%} of {len(codes)} items share all codes with another"
    earlier = [d for d in night.lake.days("item_codes", night.day) if d < night.day]
    if earlier and night.lake.manifest("std_items", earlier[-1]):
        last = night.lake.read("item_codes", earlier[-1], ["codes", "frame"])
        there, row = night.same_items(earlier[-1])
        if last.num_rows and len(there) and last["frame"][0] == rows["frame"][0]:
            kept = float((codes[there] == _matrix(last)[row]).all(1).mean())
            text += f"; {kept:.1%} of {len(there)} unchanged items keep those of {earlier[-1]}"
    few = len(codes) < MIN_ITEMS
    warns = not few and (shared > MOST_COLLISIONS or kept < LEAST_KEPT)
    return [Remark(text, warns, {"share_shared": shared, "share_kept": kept})]


def _matrix(rows: pa.Table) -> np.ndarray:
    """Codes (items, levels)."""
    lists = rows["codes"].combine_chunks()
    return np.asarray(lists.flatten()).reshape(len(lists), -1)
