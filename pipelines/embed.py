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
from pipelines.engine.chosen import Chosen, unload
from pipelines.lake.storage import Lake, Manifest, locked, scratch
from pipelines.night.contents import needed, reuse

log = logging.getLogger(__name__)


def embed(config: Config, lake: Lake, modality: Modality, day: date, report: encoding.Report | None = None) -> Manifest:
    """Publish the vectors that night D needs and no earlier night has.

    Vectors found on a later night or in the partition being rebuilt are copied, not computed again. Counters of
    the manifest: ``needed``, ``earlier`` (on an earlier night), ``copied``, ``encoded``, ``failed``, and for text the
    tokens and the padding.

    Args:
        config: whole configuration.
        lake: where tables are.
        modality: text, image, audio or video.
        day: the night.
        report: called every few seconds while something is encoded.
    """
    table, content = f"emb_{modality}", needed(config, lake, modality, day)
    chosen = encoding.of_night(config, lake, modality, day, content)
    digest = chosen.digest
    empty = encoding.vector_table([], digest, np.zeros((0, chosen.spec.dim), np.float32))
    found = reuse(lake, table, day, digest, content, empty)
    todo, reused = found.todo, content.num_rows - found.todo.num_rows
    counters = {"needed": content.num_rows, "earlier": found.earlier, "copied": found.copied.num_rows}
    counters |= dict.fromkeys(encoding.COUNTERS, 0)
    with scratch(config.paths.data / "cache", f"embed-{modality}") as staging:
        if todo.num_rows:
            model = chosen.choice.model
            log.info("%s: encoding %d of new content with %s (%s)", table, todo.num_rows, model, chosen.device)
            raw, allowed = config.paths.raw, config.paths.allowed_uris
            job = encoding.Job(modality, chosen.choice, chosen.device, digest, raw, allowed, str(staging))
            counters |= encoding.encode(job, todo, config.compute, table, reused, report)
        unload()
        failures = encoding.failures(staging)
        if failures:
            _quarantine(lake, day, f"embed_{modality}", failures)
        rows = _merged(found.copied, encoding.vector_parts(staging))
        manifest = lake.publish(table, day, rows, config_digest=digest, counters=counters, spec=spec_of(chosen))
    log.info("%s %s: %s", table, day, ", ".join(f"{k} {v}" for k, v in counters.items()))
    return manifest


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


def _quarantine(lake: Lake, day: date, stage: str, failures: list[dict[str, Any]]) -> None:
    """Put a later stage's rejects into the night's quarantine beside those of standardization."""
    with locked(lake.root, f"quarantine-{day}"):
        old = lake.read("quarantine", day)
        rows = [
            {
                "stage": stage,
                "source": f["source"],
                "position": 0,
                "reason": f["reason"],
                "detail": f["detail"],
            }
            for f in failures
        ]
        kept = old.filter(pc.not_equal(old["stage"], stage))
        manifest = lake.require("quarantine", day)
        lake.publish(
            "quarantine",
            day,
            pa.concat_tables([kept, pa.Table.from_pylist(rows, schema=old.schema)]),
            config_digest=manifest.config_digest,
        )
