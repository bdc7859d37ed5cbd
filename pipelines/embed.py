"""Content to vectors, each content once: anti-join with what is there, encode the rest, publish.

Writes ``emb_<modality>``: the vectors that night D needs and no earlier night has. Belongs here: what must be
encoded and what is reused. Does not: how it is encoded (``engine.blocks``), decoding and models (``encoders``).
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.modalities import Modality
from pipelines.config import Config
from pipelines.engine import blocks as encoding
from pipelines.engine.chosen import Chosen, choice_of, unload
from pipelines.lake.folders import scratch
from pipelines.lake.storage import Lake, Manifest
from pipelines.night.night import Night

log = logging.getLogger(__name__)


def embed(
    config: Config, lake: Lake, day: date, modality: Modality, report: encoding.Report | None = None
) -> Iterator[Manifest]:
    """Publish the vectors of a modality that night D needs and no earlier night has, and what could not be encoded.

    Vectors found on a later night or in the partition being rebuilt are copied, not computed again. Counters of
    the manifest: ``needed``, ``earlier`` (on an earlier night), ``copied``, ``encoded``, ``failed``, and for text the
    tokens and the padding.

    Args:
        config: paths, the encoder, fine-tuning and compute are used.
        lake: where tables are.
        day: the night.
        modality: text, image, audio or video.
        report: called every few seconds while something is encoded.
    """
    night, table = Night.of(config, lake, day), f"emb_{modality}"
    content, raw = night.needed(modality), config.raw_place
    choice = choice_of(lake, day, modality, config.encoders[modality], config.finetune.enabled)
    cache = config.paths.data / "cache"
    chosen = encoding.of_content(modality, choice, config.compute, cache, raw, content)
    empty = encoding.vector_table([], chosen.digest, np.zeros((0, chosen.spec.dim), np.float32))
    found = night.reuse(table, chosen.digest, content, empty)
    todo, reused = found.todo, content.num_rows - found.todo.num_rows
    counters = {"needed": content.num_rows, "earlier": found.earlier, "copied": found.copied.num_rows}
    counters |= dict.fromkeys(encoding.COUNTERS, 0)
    with scratch(cache, f"embed-{modality}") as staging:
        if todo.num_rows:
            log.info("%s: encoding %d of new content with %s (%s)", table, todo.num_rows, choice.model, chosen.device)
            job = encoding.Job(modality, choice, chosen.device, chosen.digest, raw, str(staging))
            counters |= encoding.encode(job, todo, config.compute, table, reused, report)
        unload()
        yield lake.publish_step(
            "quarantine", day, table, encoding.rejects(f"embed_{modality}", encoding.failures(staging))
        )
        rows = _merged(found.copied, encoding.vector_parts(staging))
        yield lake.publish(table, day, rows, config_digest=chosen.digest, counters=counters, spec=spec_of(chosen))
    log.info("%s %s: %s", table, day, ", ".join(f"{k} {v}" for k, v in counters.items()))


def _merged(copied: pa.Table, fresh: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Copied rows and shards of fresh ones, as pieces in order of content; one shard is held at a time."""
    copied = copied.sort_by("content_sha256")
    for part in fresh:
        if not part.num_rows:
            continue
        n = pc.sum(pc.less_equal(copied["content_sha256"], part["content_sha256"][-1])).as_py() or 0
        yield pa.concat_tables([copied.slice(0, n), part])
        copied = copied.slice(n)
    yield copied


def spec_of(chosen: Chosen) -> dict[str, Any]:
    """The encoder as a manifest holds it."""
    return asdict(chosen.spec) | {"device": chosen.device.name, "batch": chosen.device.batch}
