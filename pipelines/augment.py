"""Views of the night's content as vectors, for training only: the same anti-join and encoding as ``embed``.

Writes ``aug_views``. Belongs here: which views a night needs, examples to look at. Does not: the ops
(``encoders.augment``), what is trained with them (``features``).
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.augment import VERSION, augmented
from encoders.base import DecodeError, Modality
from encoders.image import decode_image
from encoders.sound import decode_audio
from pipelines import encoding
from pipelines.config import Config, digest_of
from pipelines.dataset import needed, view_digest
from pipelines.encoder import Chosen, choice_of, choose, unload
from pipelines.raw import RawError, RawStore
from pipelines.schemas import OPTIONAL_VECTOR
from pipelines.storage import Lake, Manifest, scratch

log = logging.getLogger(__name__)

TABLE = "aug_views"


def modalities(config: Config) -> list[Modality]:
    """Modalities whose content has views."""
    return [m for m in sorted(config.encoders) if config.augment.ops(m) and not config.encoders[m].is_vectors]


def augment(config: Config, lake: Lake, day: date, report: encoding.Report | None = None) -> Manifest:
    """Publish the vectors of views that night D needs and no earlier night has."""
    counters = dict.fromkeys(("needed", "earlier", "copied", "encoded", "failed"), 0)
    parts = [_empty()]
    for modality in modalities(config):
        content, chosen = needed(config, lake, modality, day), _chosen(config, lake, modality, day)
        for epoch in range(config.augment.views):
            digest = view_digest(config, modality, chosen.digest, epoch)
            todo, copied = _missing(lake, digest, day, content)
            parts += copied
            counters["needed"] += content.num_rows
            counters["copied"] += sum(p.num_rows for p in copied)
            counters["earlier"] += content.num_rows - todo.num_rows - sum(p.num_rows for p in copied)
            if todo.num_rows:
                job = encoding.Job(
                    modality,
                    choice_of(config, lake, modality, day),
                    chosen.device,
                    digest,
                    config.paths.raw,
                    config.paths.allowed_uris,
                    out="",
                    view=encoding.View(config.augment.ops(modality), epoch),
                )
                counted, rows = _views(config, todo, job, report)
                parts += rows
                for name in encoding.COUNTERS:
                    counters[name] += counted[name]
        unload()
    digest = digest_of([config.augment.model_dump(mode="json"), VERSION])
    log.info("%s %s: %s", TABLE, day, ", ".join(f"{k} {v}" for k, v in counters.items()))
    return lake.publish(TABLE, day, pa.concat_tables(parts), config_digest=digest, counters=counters)


def _empty() -> pa.Table:
    return pa.table(
        {
            "content_sha256": pa.array([], pa.string()),
            "view_digest": pa.array([], pa.string()),
            "modality": pa.array([], pa.string()),
            "view": pa.array([], pa.int32()),
            "vector": pa.array([], OPTIONAL_VECTOR),
        }
    )


def _chosen(config: Config, lake: Lake, modality: Modality, day: date) -> Chosen:
    """The encoder of the night's ``emb_`` table; its content is the sample where nothing is remembered."""
    content = needed(config, lake, modality, day)
    store = RawStore(config.paths.raw, config.paths.allowed_uris)
    choice = choice_of(config, lake, modality, day)
    cache = config.paths.data / "cache"
    return choose(modality, choice, config.compute, cache, lambda: encoding.first_payloads(content, store))


def _missing(lake: Lake, digest: str, day: date, content: pa.Table) -> tuple[pa.Table, list[pa.Table]]:
    """Content without this view on an earlier night; rows to copy from this night or later ones are taken off, too."""
    left, copied = content, []
    for other in sorted(lake.days(TABLE), key=lambda d: (d >= day, d)):
        for part in lake.scan(TABLE, [other]):
            mine = part.filter(pc.equal(part["view_digest"], digest))
            mine = mine.filter(pc.is_in(mine["content_sha256"], left["content_sha256"]))
            left = left.filter(pc.invert(pc.is_in(left["content_sha256"], mine["content_sha256"])))
            if other >= day and mine.num_rows:
                copied.append(mine.cast(_empty().schema))
    return left, copied


def _views(
    config: Config, todo: pa.Table, job: encoding.Job, report: encoding.Report | None
) -> tuple[dict[str, int], list[pa.Table]]:
    """Counters and rows of one view of new content."""
    view = job.view
    assert view is not None
    with scratch(config.paths.data / "cache", f"augment-{job.modality}") as staging:
        job = replace(job, out=str(staging))
        counted = encoding.encode(job, todo, config.compute, f"{TABLE}_{job.modality}", 0, report)
        rows = []
        for part in encoding.vector_parts(staging):
            n = part.num_rows
            columns = {"modality": [job.modality] * n, "view": pa.array([view.epoch] * n, pa.int32())}
            columns |= {"vector": part["vector"].cast(OPTIONAL_VECTOR)}
            rows.append(
                pa.table({"content_sha256": part["content_sha256"], "view_digest": part["encoder_digest"]} | columns)
            )
        return counted, rows


# --- to look at -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """One content and its views, decoded: pixels (h, w, 3), a waveform (samples,), or a text."""

    modality: Modality
    before: np.ndarray | str
    after: list[np.ndarray | str]
    rate_hz: int = 0


def examples(config: Config, lake: Lake, day: date, each: int = 3, views: int = 3) -> Iterator[Example]:
    """Some content of the night before and after augmentation."""
    store = RawStore(config.paths.raw, config.paths.allowed_uris)
    for modality in modalities(config):
        shown = 0
        for row in needed(config, lake, modality, day).slice(0, 5 * each).to_pylist():
            try:
                payload = encoding.payload_of(row, store)
                ops = config.augment.ops(modality)
                made = [augmented(modality, payload, ops, row["content_sha256"], v) for v in range(views)]
                before, rate = _decoded(modality, payload)
                yield Example(modality, before, [_decoded(modality, m)[0] for m in made], rate)
            except (DecodeError, RawError) as e:
                log.debug("no example of %s: %s", row["content_sha256"], e)
                continue
            shown += 1
            if shown == each:
                break


def _decoded(modality: Modality, payload: bytes) -> tuple[np.ndarray | str, int]:
    if modality == "text":
        return payload.decode(), 0
    if modality == "image":
        return np.asarray(decode_image(payload)), 0
    wave, rate, _, _ = decode_audio(payload)
    return wave, rate
