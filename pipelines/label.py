"""Missing labels of items, told from what items with like content are labelled with.

Writes ``item_labels``; ``std_items`` keeps what is given. Belongs here: which items and labels take part. Does not: the
classifier (``learning.labels``).
"""

import logging
from collections import Counter
from collections.abc import Iterator
from datetime import date

import numpy as np
import pyarrow as pa

from encoders.device import single_threaded
from pipelines.config import Config
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.learning.labels import learned, weights_of
from pipelines.night.night import Night
from pipelines.recommenders.item_graphs import centred, nearest_graph
from pipelines.recommenders.matrices import unit_or_zero

log = logging.getLogger(__name__)

FEWEST_ITEMS = 5  # that have a label, below which nothing is learned of it
FEWEST_LABELLED = 30  # items with any label
NEIGHBOURS = 40  # of each item
MOST_NUMBERS = 50_000_000  # items times labels; what is rarer than these is not told


def label(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``item_labels`` of the night."""
    night = Night.of(config, lake, day)
    items, parts = night.items(), list[pa.Table]()
    with single_threaded():  # sums of several threads differ from run to run
        vectors = {m: centred(np.where(f.present[:, None], f.matrix, 0)) for m, f in sorted(night.features().items())}
        for kind in sorted(config.items.fill):
            parts.append(told(kind, items["item_id"].to_pylist(), items[kind].to_pylist(), list(vectors.values())))
    schema = TABLES["item_labels"].schema({})
    rows = pa.concat_tables([schema.empty_table(), *(p.cast(schema) for p in parts)])
    yield lake.publish("item_labels", day, rows, config_digest=config.digest("items"))


def told(kind: str, ids: list[str], given: list[list[str] | None], vectors: list[np.ndarray]) -> pa.Table:
    """Rows of ``item_labels`` of one kind, in order of item and label.

    Args:
        kind: categories or tags.
        ids: of the items.
        given: labels of each item.
        vectors: unit or zero rows of each modality (items, d_m).
    """
    counts = Counter(name for names in given for name in set(names or []))
    common = sorted((name for name, n in counts.items() if n >= FEWEST_ITEMS), key=lambda name: (-counts[name], name))
    names = sorted(common[: max(MOST_NUMBERS // max(len(ids), 1), 1)])
    if len(names) < len(common):
        log.warning("item_labels: of %d %s the %d most frequent are told", len(common), kind, len(names))
    column = {name: n for n, name in enumerate(names)}
    matrix = np.zeros((len(ids), len(names)))
    for row, mine in enumerate(given):
        matrix[row, [column[name] for name in set(mine or []) if name in column]] = 1
    seen = np.any([v.any(1) for v in vectors], axis=0) if vectors else np.zeros(len(ids), bool)
    known = np.flatnonzero(matrix.any(1) & seen)
    wanted = np.flatnonzero(np.array([not mine for mine in given], bool) & seen)
    nothing = TABLES["item_labels"].schema({}).empty_table()
    if len(known) < FEWEST_LABELLED or not len(wanted):
        log.info("item_labels: %d items with %s, %d to be told of: nothing is told", len(known), kind, len(wanted))
        return nothing
    weights = weights_of(vectors, matrix, known)
    joined = np.hstack([np.float32(w**0.5) * v for w, v in zip(weights, vectors, strict=True)])
    found = learned(joined, nearest_graph(unit_or_zero(joined), NEIGHBOURS), matrix, known)
    of, at = np.nonzero(found.probability[wanted] >= found.threshold)
    log.info("item_labels: %d %s told of %d items, from %.2f on", len(of), kind, len(wanted), found.threshold)
    columns = {
        "kind": pa.array([kind] * len(of), pa.string()),
        "item_id": pa.array(ids, pa.string()).take(pa.array(wanted[of])),
        "label": pa.array(names, pa.string()).take(pa.array(at)),
        "confidence": pa.array(found.probability[wanted[of], at], pa.float32()),
    }
    return pa.table(columns).cast(nothing.schema)
