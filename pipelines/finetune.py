"""The text encoder, trained on the log every few nights; the nights between go on with the last result.

Writes ``model_finetuned``. Belongs here: which events and items are trained, validated and tested on, by time. Does
not: the training (``encoders.finetune``).
"""

import logging
from collections.abc import Iterator
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.device import choose_device
from encoders.finetune import CoConsumption, Labels, content_recall
from encoders.finetune import finetune as train
from encoders.space.alignment import card_bytes
from pipelines.config import Config
from pipelines.lake.cards import load_card
from pipelines.lake.storage import Lake, Manifest
from pipelines.night.events import Dataset
from pipelines.night.night import Night
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.neighbours import ItemCF

log = logging.getLogger(__name__)

TABLE = "model_finetuned"
NEIGHBOURS = 10  # items that the same users like most, a pair each
TEST_SHARE = 0.2  # of labelled items, the youngest ones


def finetune(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish the night's encoder, or a card that names the night whose encoder still serves."""
    digest = config.digest("finetune", "encoders")
    earlier = [d for d in lake.days(TABLE) if d < day]
    due = (day - config.start_date).days % config.finetune.every_days == 0 or not earlier
    if not due:
        card = {"trained_on": load_card(lake, "finetuned", earlier[-1])["trained_on"]}
        yield lake.publish_files(TABLE, day, {"card.json": card_bytes(card)}, config_digest=digest)
        return
    night = Night.of(config, lake, day)
    data, texts = night.dataset(), pc.fill_null(night.items()["text"], "").to_pylist()
    past = data.before(data.validation_days())  # the days after it are the test
    known = past.before(past.validation_days())  # the days between choose the epoch
    if config.finetune.task == "co_consumption":
        task: CoConsumption | Labels = co_consumed(known)
    else:
        cut_days = data.validation_days() + past.validation_days()
        task = labelled(night.items(), known, night.end.timestamp() / 86_400 - cut_days)
    tested: list[float] = []

    def validate(vectors: np.ndarray) -> float:
        tested.append(content_recall(vectors, past.histories(), data.new_since(past)))
        return content_recall(vectors, known.histories(), past.new_since(known))

    device = choose_device(config.compute.device).name
    files, card = train(config.encoders["text"], texts, task, config.finetune, validate, device)
    measured = card.pop("measured")  # times differ from run to run and stay out of the files
    card |= {
        "trained_on": day.isoformat(),
        "recall_at_20_before": round(tested[0], 5),
        "recall_at_20_after": round(tested[card["best_epoch"]], 5),
    }
    log.info("%s %s: test Recall@20 %.4f -> %.4f in %s", TABLE, day, tested[0], tested[card["best_epoch"]], measured)
    files = {f"encoder/{name}": content for name, content in files.items()} | {"card.json": card_bytes(card)}
    counters = {"seconds": round(measured["seconds"]), "peak_memory_mb": measured["peak_memory_mb"]}
    yield lake.publish_files(TABLE, day, files, config_digest=digest, counters=counters)


def co_consumed(known: Dataset) -> CoConsumption:
    """Pairs of items that the same users like most; most pairs within a long history have nothing in common."""
    similar = ItemCF(NEIGHBOURS, "shrunk").fit(Inputs(known.positives())).similarity.tocoo()
    return CoConsumption(np.stack([similar.row, similar.col], 1).astype(np.int64))


def labelled(items: pa.Table, known: Dataset, end_days: float) -> Labels:
    """First category, else domain, of items with text; the youngest are the test.

    An item is as old as its creation, else as its first known event, else older than all others.

    Args:
        items: rows of ``std_items``.
        known: events.
        end_days: when the ages of ``known`` are counted from, days since 1970.

    Raises:
        ValueError: there are not two classes.
    """
    rows = items.select(["categories", "domain", "created_at", "text"]).to_pylist()
    classes = [r["categories"][0] if r["categories"] else r["domain"] for r in rows]
    names = sorted({c for c in classes if c})
    if len(names) < 2:
        raise ValueError(f"finetune.task = 'labels' needs items of two or more categories or domains, got {names}")
    label = np.array([names.index(c) if c else -1 for c in classes], np.int64)
    first = np.full(len(rows), np.inf)
    np.minimum.at(first, known.item, end_days - known.age_days)
    first = np.where(np.isfinite(first), first, -np.inf)
    born = [r["created_at"].timestamp() / 86_400 if r["created_at"] else f for r, f in zip(rows, first, strict=True)]
    usable = np.flatnonzero((label >= 0) & np.array([bool(r["text"]) for r in rows]))
    ordered = usable[np.argsort(np.array(born)[usable], kind="stable")]
    cut = int(len(ordered) * (1 - TEST_SHARE))
    return Labels(label, ordered[:cut], ordered[cut:])
