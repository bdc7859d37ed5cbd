"""The text encoder, trained on the log every few nights; the nights between go on with the last result.

Writes ``model_finetuned``. Belongs here: which events and items are trained, validated and tested on, by time. Does
not: the training (``encoders.finetune``).
"""

import logging
from datetime import date

import numpy as np

from encoders.device import choose_device
from encoders.finetune import CoConsumption, Labels, content_recall, finetune
from encoders.space.alignment import card_bytes
from pipelines.config import Config
from pipelines.lake.cards import load_card
from pipelines.lake.storage import Lake, Manifest
from pipelines.night.events import Dataset, load_dataset
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.neighbours import ItemCF

log = logging.getLogger(__name__)

TABLE = "model_finetuned"
NEIGHBOURS = 10  # items that the same users like most, a pair each
TEST_SHARE = 0.2  # of labelled items, the youngest ones


def train(config: Config, lake: Lake, day: date) -> Manifest:
    """Publish the night's encoder, or a card that names the night whose encoder still serves."""
    digest = config.digest("finetune", "encoders")
    earlier = [d for d in lake.days(TABLE) if d < day]
    due = (day - config.start_date).days % config.finetune.every_days == 0 or not earlier
    if not due:
        card = {"trained_on": load_card(lake, "finetuned", earlier[-1])["trained_on"]}
        return lake.publish_files(TABLE, day, {"card.json": card_bytes(card)}, config_digest=digest)
    data = load_dataset(lake, day, config.recommend, config.timezone)
    texts = [t or "" for t in lake.read("std_items", day, ["text"])["text"].to_pylist()]
    past = data.before(data.validation_days())  # the days after it are the test
    known = past.before(past.validation_days())  # the days between choose the epoch
    task = _task(config, lake, day, known)
    choice = config.encoders["text"]
    tested: list[float] = []

    def validate(vectors: np.ndarray) -> float:
        tested.append(content_recall(vectors, past.histories(), data.new_since(past)))
        return content_recall(vectors, known.histories(), past.new_since(known))

    files, card = finetune(choice, texts, task, config.finetune, validate, choose_device(config.compute.device).name)
    measured = card.pop("measured")  # times differ from run to run and stay out of the files
    card |= {
        "trained_on": day.isoformat(),
        "recall_at_20_before": round(tested[0], 5),
        "recall_at_20_after": round(tested[card["best_epoch"]], 5),
    }
    log.info("%s %s: test Recall@20 %.4f -> %.4f in %s", TABLE, day, tested[0], tested[card["best_epoch"]], measured)
    files = {f"encoder/{name}": content for name, content in files.items()} | {"card.json": card_bytes(card)}
    counters = {"seconds": round(measured["seconds"]), "peak_memory_mb": measured["peak_memory_mb"]}
    return lake.publish_files(TABLE, day, files, config_digest=digest, counters=counters)


def _task(config: Config, lake: Lake, day: date, known: Dataset) -> CoConsumption | Labels:
    if config.finetune.task == "co_consumption":
        # most pairs within a long history have nothing in common; item-CF says which belong together
        similar = ItemCF(NEIGHBOURS, "shrunk").fit(Inputs(known.positives())).similarity.tocoo()
        return CoConsumption(np.stack([similar.row, similar.col], 1).astype(np.int64))
    items = lake.read("std_items", day, ["categories", "domain", "created_at", "text"]).to_pylist()
    classes = [r["categories"][0] if r["categories"] else r["domain"] for r in items]
    names = sorted({c for c in classes if c})
    if len(names) < 2:
        raise ValueError(f"finetune.task = 'labels' needs items of two or more categories or domains, got {names}")
    label = np.array([names.index(c) if c else -1 for c in classes], np.int64)
    first = np.full(len(items), np.inf)  # an item is as old as its creation, else as its first event
    np.minimum.at(first, known.item, -known.age_days)
    age = [r["created_at"].timestamp() / 86_400 if r["created_at"] else f for r, f in zip(items, first, strict=True)]
    usable = np.flatnonzero((label >= 0) & np.array([bool(r["text"]) for r in items]))
    ordered = usable[np.argsort(np.array(age)[usable], kind="stable")]
    cut = int(len(ordered) * (1 - TEST_SHARE))
    return Labels(label, ordered[:cut], ordered[cut:])
