"""Content to vectors, each content once: anti-join with what is there, encode the rest, publish.

Writes ``emb_<modality>``: the vectors that night D needs and no earlier night has. Belongs here: what must be
encoded and what is reused. Does not: how it is encoded (``encoding``), decoding and models (``encoders``).
"""

import logging
from dataclasses import asdict
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.base import Modality
from pipelines import encoding
from pipelines.config import Config
from pipelines.dataset import needed
from pipelines.encoder import Chosen, choice_of, choose, unload
from pipelines.raw import RawStore
from pipelines.storage import Lake, Manifest, locked, scratch

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
    choice = choice_of(config, lake, modality, day)
    store = RawStore(config.paths.raw, config.paths.allowed_uris)
    cache = config.paths.data / "cache"
    chosen = choose(modality, choice, config.compute, cache, lambda: encoding.first_payloads(content, store))
    digest, dim = chosen.digest, chosen.spec.dim
    earlier = known(lake, table, [d for d in lake.days(table) if d < day], digest, dim, content)
    todo = content.filter(pc.invert(pc.is_in(content["content_sha256"], earlier["content_sha256"])))
    copied = known(lake, table, [d for d in lake.days(table) if d >= day], digest, dim, todo)
    todo = todo.filter(pc.invert(pc.is_in(todo["content_sha256"], copied["content_sha256"])))
    counters = {"needed": content.num_rows, "earlier": earlier.num_rows, "copied": copied.num_rows}
    counters |= dict.fromkeys(encoding.COUNTERS, 0)
    parts, failures = [copied], []
    if todo.num_rows:
        log.info("%s: encoding %d of new content with %s (%s)", table, todo.num_rows, choice.model, chosen.device)
        with scratch(cache, f"embed-{modality}") as staging:
            job = encoding.Job(
                modality, choice, chosen.device, digest, store.root, config.paths.allowed_uris, str(staging)
            )
            counters |= encoding.encode(job, todo, config.compute, table, earlier.num_rows + copied.num_rows, report)
            parts += list(encoding.vector_parts(staging))
            failures = encoding.failures(staging)
    unload()
    if failures:
        _quarantine(lake, day, f"embed_{modality}", failures)
    manifest = lake.publish(
        table, day, pa.concat_tables(parts), config_digest=digest, counters=counters, spec=spec_of(chosen)
    )
    log.info("%s %s: %s", table, day, ", ".join(f"{k} {v}" for k, v in counters.items()))
    return manifest


def spec_of(chosen: Chosen) -> dict[str, Any]:
    """The encoder as a manifest holds it."""
    return asdict(chosen.spec) | {"device": chosen.device.name, "batch": chosen.device.batch}


def known(lake: Lake, table: str, days: list[date], digest: str, dim: int, content: pa.Table) -> pa.Table:
    """Vectors of ``content`` under this digest on some nights, each once."""
    found = [encoding.vector_table([], digest, np.zeros((0, dim), np.float32))]
    left = content["content_sha256"]
    for part in lake.scan(table, days):
        mine = part.filter(pc.and_(pc.equal(part["encoder_digest"], digest), pc.is_in(part["content_sha256"], left)))
        if mine.num_rows:
            found.append(mine.cast(found[0].schema))
            left = left.filter(pc.invert(pc.is_in(left, mine["content_sha256"])))
    return pa.concat_tables(found)


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
