"""Views of the night's content as vectors, for training only: the same anti-join and encoding as ``embed``.

Writes ``aug_views``. Belongs here: which views a night needs, examples to look at. Does not: the ops
(``encoders.augment``), what is trained with them (``align``).
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from encoders.augment import VERSION, augmented
from encoders.decode.image import decode_image
from encoders.decode.sound import decode_audio
from encoders.errors import DecodeError
from encoders.modalities import Modality
from pipelines.config import Config, digest_of
from pipelines.engine import blocks as encoding
from pipelines.engine.chosen import choice_of, unload
from pipelines.lake.folders import scratch
from pipelines.lake.schemas import VECTOR
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.night.contents import view_digest
from pipelines.night.night import Night
from pipelines.raw.places import RawError, RawStore

log = logging.getLogger(__name__)

TABLE = "aug_views"


def modalities(config: Config) -> list[Modality]:
    """Modalities whose content has views."""
    return [m for m in sorted(config.encoders) if config.augment.ops(m) and not config.encoders[m].is_vectors]


def augment(config: Config, lake: Lake, day: date, report: encoding.Report | None = None) -> Iterator[Manifest]:
    """Publish the vectors of views that night D needs and no earlier night has, and what could not be encoded."""
    night, cache = Night.of(config, lake, day), config.paths.data / "cache"
    raw = config.raw_place
    counters = dict.fromkeys(("needed", "earlier", "copied", "encoded", "failed"), 0)
    parts, failed = [_empty()], list[pa.Table]()
    for modality in modalities(config):
        content, ops = night.needed(modality), config.augment.ops(modality)
        choice = choice_of(lake, day, modality, config.encoders[modality], config.finetune.enabled)
        chosen = encoding.of_content(modality, choice, config.compute, cache, raw, content)
        for epoch in range(config.augment.views):
            digest = view_digest(chosen.digest, ops, epoch)
            found = night.reuse(TABLE, digest, content, _empty())
            parts.append(found.copied)
            counted = {"needed": content.num_rows, "earlier": found.earlier, "copied": found.copied.num_rows}
            if found.todo.num_rows:
                with scratch(cache, f"augment-{modality}") as staging:
                    view = encoding.View(ops, epoch)
                    job = encoding.Job(modality, choice, chosen.device, digest, raw, str(staging), view)
                    made = encoding.encode(job, found.todo, config.compute, f"{TABLE}_{modality}", 0, report)
                    parts += _rows(modality, epoch, staging)
                    failed.append(encoding.rejects(f"augment_{modality}_{epoch}", encoding.failures(staging)))
                counted |= {name: made[name] for name in encoding.COUNTERS}
            for name, n in counted.items():
                counters[name] += n
        unload()
    none = TABLES["quarantine"].schema({}).empty_table()
    yield lake.publish_step("quarantine", day, TABLE, pa.concat_tables([none, *failed]))
    digest = digest_of([config.augment.model_dump(mode="json"), VERSION])
    log.info("%s %s: %s", TABLE, day, ", ".join(f"{k} {v}" for k, v in counters.items()))
    yield lake.publish(TABLE, day, pa.concat_tables(parts), config_digest=digest, counters=counters)


def _empty() -> pa.Table:
    return pa.table(
        {
            "content_sha256": pa.array([], pa.string()),
            "view_digest": pa.array([], pa.string()),
            "modality": pa.array([], pa.string()),
            "view": pa.array([], pa.int32()),
            "vector": pa.array([], VECTOR),
        }
    )


def _rows(modality: Modality, epoch: int, staging: Path) -> Iterator[pa.Table]:
    """Rows of one view of new content."""
    for part in encoding.vector_parts(staging):
        n = part.num_rows
        columns = {"content_sha256": part["content_sha256"], "view_digest": part["encoder_digest"]}
        columns |= {"modality": [modality] * n, "view": pa.array([epoch] * n, pa.int32())}
        yield pa.table(columns | {"vector": part["vector"]})


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
    night, store = Night.of(config, lake, day), RawStore(*config.raw_place)
    for modality in modalities(config):
        shown = 0
        for row in night.needed(modality).slice(0, 5 * each).to_pylist():
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
