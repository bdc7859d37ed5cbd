"""Views of the night's content as vectors, for training only: the same anti-join and encoding as ``embed``.

Writes ``aug_views``. Belongs here: which views a night needs, examples to look at. Does not: the ops
(``encoders.augment``), what is trained with them (``align``).
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from encoders.augment import VERSION, augmented
from encoders.decode.image import decode_image
from encoders.decode.sound import decode_audio
from encoders.errors import DecodeError
from encoders.modalities import Modality
from pipelines.config import Config, digest_of
from pipelines.engine import blocks as encoding
from pipelines.engine.chosen import Chosen, unload
from pipelines.lake.schemas import OPTIONAL_VECTOR
from pipelines.lake.storage import Lake, Manifest, scratch
from pipelines.night.contents import needed, reuse, view_digest
from pipelines.raw.files import RawError, RawStore

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
        content = needed(config, lake, modality, day)
        chosen = encoding.of_night(config, lake, modality, day, content)
        for epoch in range(config.augment.views):
            digest = view_digest(config, modality, chosen.digest, epoch)
            found = reuse(lake, TABLE, day, digest, content, _empty())
            parts.append(found.copied)
            counted = {"needed": content.num_rows, "earlier": found.earlier, "copied": found.copied.num_rows}
            if found.todo.num_rows:
                view = encoding.View(config.augment.ops(modality), epoch)
                made, rows = _views(config, modality, chosen, digest, view, found.todo, report)
                parts += rows
                counted |= {name: made[name] for name in encoding.COUNTERS}
            for name, n in counted.items():
                counters[name] += n
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


def _views(
    config: Config,
    modality: Modality,
    chosen: Chosen,
    digest: str,
    view: encoding.View,
    todo: pa.Table,
    report: encoding.Report | None,
) -> tuple[dict[str, int], list[pa.Table]]:
    """Counters and rows of one view of new content."""
    with scratch(config.paths.data / "cache", f"augment-{modality}") as staging:
        raw, allowed = config.paths.raw, config.paths.allowed_uris
        job = encoding.Job(modality, chosen.choice, chosen.device, digest, raw, allowed, str(staging), view)
        counted = encoding.encode(job, todo, config.compute, f"{TABLE}_{modality}", 0, report)
        rows = []
        for part in encoding.vector_parts(staging):
            n = part.num_rows
            columns = {"modality": [modality] * n, "view": pa.array([view.epoch] * n, pa.int32())}
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
