"""Blocking checks: generated from each table's contract, plus the promises that span tables.

They read the published partition back, so they judge what users will read. Belongs here: which promise guards
which asset. Does not: the rules (``lake.schemas``, ``lake.promises``).
"""

from collections.abc import Callable, Iterator
from datetime import date
from functools import partial

import dagster as dg

from encoders.modalities import MODALITIES
from pipelines.config import Config
from pipelines.lake.schemas import TABLES, Key
from pipelines.lake.storage import Lake

Promise = Callable[[Config, Lake, date], list[str]]

TABLE_RULES = {
    "keys_unique": "No two rows share the key.",
    "required_present": "Required columns have no nulls.",
    "numbers_finite": "No number is NaN or infinite.",
    "norms_one": "Every vector has L2 norm 1.",
}


def promises(table: str) -> dict[str, Promise]:
    """Promises across tables that guard this one; imported late, so that definitions load without the stages."""
    from pipelines.lake import promises as kept

    found: dict[str, dict[str, Promise]] = {
        "ingest_files": {"rows_accounted": kept.rows_accounted},
        "std_interactions": {"nothing_after_the_day": kept.nothing_after_the_day},
        "recommendations": {
            "lists_keep_their_word": kept.lists_keep_their_word,
            "scores_fall": kept.scores_fall,
        },
    }
    for m in MODALITIES:
        found[f"emb_{m}"] = {"references_embedded": partial(kept.references_embedded, modality=m)}
    return found.get(table, {})


PROMISE_NAMES = {
    "ingest_files": {"rows_accounted": "Rows in = rows out + superseded + quarantined, file by file."},
    "std_interactions": {"nothing_after_the_day": "No event is dated after the partition's day."},
    "recommendations": {
        "lists_keep_their_word": "Every user with history has K distinct items, all known, none seen.",
        "scores_fall": "Scores do not rise with the rank.",
    },
} | {f"emb_{m}": {"references_embedded": "Every referenced content has a vector or a reason."} for m in MODALITIES}


def check_specs(table: str) -> list[dg.AssetCheckSpec]:
    """Blocking checks of a table asset."""
    has_vectors = any(c.is_vector for c in TABLES[table].columns)
    rules = {k: v for k, v in TABLE_RULES.items() if has_vectors or k != "norms_one"}
    named = rules | PROMISE_NAMES.get(table, {})
    return [dg.AssetCheckSpec(name, asset=table, blocking=True, description=text) for name, text in named.items()]


def run_checks(config: Config, lake: Lake, table: str, day: date) -> Iterator[dg.AssetCheckResult]:
    """Result of each of a table's checks on the published partition."""
    found: dict[str, list[str]] = {c.name: [] for c in check_specs(table)}
    contract = TABLES[table]
    last: Key = ()
    for part in lake.scan(table, [day]):
        for rule, texts in contract.problems(part).items():
            if rule in found:
                found[rule] += texts
        last, disorder = contract.after(last, part)
        found["keys_unique"] += disorder
    for name, promise in promises(table).items():
        found[name] += promise(config, lake, day)
    for name, problems in found.items():
        metadata = {"problems": "\n".join(problems)} if problems else {}
        yield dg.AssetCheckResult(
            asset_key=dg.AssetKey(table),
            check_name=name,
            passed=not problems,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata=metadata,
        )
