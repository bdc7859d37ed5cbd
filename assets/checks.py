"""Blocking checks: generated from each table's contract, plus the promises that span tables.

They read the published partition back, once, so they judge what users will read. Does not belong here: the rules
(``lake.schemas``, ``lake.promises``).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from assets.metadata import SAMPLE_ROWS
from pipelines.config import Config
from pipelines.lake import deliveries, guards, health, still  # noqa: F401, their promises join the others
from pipelines.lake.promises import PROMISES, Remark
from pipelines.lake.schemas import Key
from pipelines.lake.tables import TABLES

if TYPE_CHECKING:
    from pipelines.night.night import Night

TABLE_RULES = {
    "keys_unique": "No two rows share the key.",
    "required_present": "Required columns have no nulls.",
    "numbers_finite": "No number is NaN or infinite.",
    "norms_one": "Every vector has L2 norm 1.",
}


@dataclass(frozen=True)
class Checked:
    """A published partition, read back.

    Attributes:
        results: of each check.
        sample: its first rows.
    """

    results: list[dg.AssetCheckResult]
    sample: pa.Table


def check_specs(table: str, partitions: dg.PartitionsDefinition | None = None) -> list[dg.AssetCheckSpec]:
    """Blocking checks of a table asset, one result a partition."""
    has_vectors = any(c.is_vector for c in TABLES[table].columns)
    named = {k: v for k, v in TABLE_RULES.items() if has_vectors or k != "norms_one"}
    named |= {p.name: p.text for p in PROMISES.get(table, [])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # a result a night is what a backfill is judged by
        return [
            dg.AssetCheckSpec(name, asset=table, blocking=True, description=text, partitions_def=partitions)
            for name, text in named.items()
        ]


def checked(config: Config, night: "Night", table: str) -> Checked:
    """Read the night's partition of a table back and check it; rows go by a row group at a time."""
    found: dict[str, list[str]] = {c.name: [] for c in check_specs(table)}
    contract, promises = TABLES[table], PROMISES.get(table, [])
    keys = contract.key if contract.by_step else ()  # each step's part is in order, all of them are not
    columns = [c.name for c in contract.columns if c.name in keys or any(c.name in p.columns for p in promises)]
    sample, kept = None, list[pa.Table]()
    last: Key = ()
    for part in night.lake.scan(table, [night.day]):
        for rule, texts in contract.problems(part).items():
            if rule in found:
                found[rule] += texts
        if not contract.by_step:
            last, disorder = contract.after(last, part)
            found["keys_unique"] += disorder
        sample = part.slice(0, SAMPLE_ROWS) if sample is None else sample
        kept.append(part.select(columns))
    rows = pa.concat_tables(kept)
    if keys:
        found["keys_unique"] += contract.repeated(rows)
    for promise in promises:
        found[promise.name] += promise.broken(config, night, table, rows)
    return Checked([_result(table, name, problems) for name, problems in found.items()], sample)


def broken(results: Sequence[dg.AssetCheckResult]) -> str:
    """The first check that stops a night, and what it says; empty where none does."""
    for r in results:
        if not r.passed and r.severity == dg.AssetCheckSeverity.ERROR:
            return f"check {r.check_name}: {r.metadata['problems'].value}"
    return ""


def _result(table: str, name: str, found: list[str]) -> dg.AssetCheckResult:
    """Problems stop the night; remarks are shown, as a warning or as they are."""
    problems = [p for p in found if not isinstance(p, Remark)]
    remarks = [p for p in found if isinstance(p, Remark)]
    said: dict[str, list[str]] = {"problems": problems, "remarks": [r for r in remarks if r]}
    numbers: dict[str, Any] = {k: v for r in remarks for k, v in r.numbers.items()}
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey(table),
        check_name=name,
        passed=not problems and not any(r.warns for r in remarks),
        severity=dg.AssetCheckSeverity.ERROR if problems else dg.AssetCheckSeverity.WARN,
        metadata=numbers | {name: "\n".join(texts) for name, texts in said.items() if texts},
    )
