"""A manifest and a table as Dagster metadata: schema, counts, sample rows, plot.

Belongs here: presentation derived from ``schemas`` and manifests. Does not: figures themselves (``plots``).
"""

import base64
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa

from pipelines.lake.models import Model
from pipelines.lake.schemas import Column, Table
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES

SAMPLE_ROWS = 5
OWNERS = ["team:nightloom"]


def table_spec(
    table: Table,
    partitions: dg.PartitionsDefinition,
    deps: list[Any],
    code_version: str | None = None,
    freshness: dg.FreshnessPolicy | None = None,
    automation: dg.AutomationCondition[Any] | None = None,
) -> dg.AssetSpec:
    """Spec of a table asset; description, schema and kinds come from its contract.

    ``deps`` are nearest parents: what a table also reads through them is not drawn again, so the graph stays legible.
    """
    lines = [f"- `{c.name}`: {c.description}" for c in table.columns]
    description = (
        f"{table.description}\n\nKey: {', '.join(table.key) or 'none'}. Sorted by key, one partition a day.\n\n"
        + "\n".join(lines)
    )
    return dg.AssetSpec(
        table.name,
        deps=deps,
        group_name=table.group,
        owners=OWNERS,
        kinds={"parquet", "beam"},
        description=description,
        partitions_def=partitions,
        code_version=code_version,
        freshness_policy=freshness,
        automation_condition=automation,
        metadata={"dagster/column_schema": column_schema(table.name)},
    )


def model_spec(
    model: Model,
    partitions: dg.PartitionsDefinition,
    deps: list[Any],
    automation: dg.AutomationCondition[Any] | None = None,
) -> dg.AssetSpec:
    """Spec of an asset of files: a model, or the page of a night."""
    return dg.AssetSpec(
        model.name,
        deps=deps,
        group_name=model.group,
        owners=OWNERS,
        kinds={model.kind},
        description=model.description,
        partitions_def=partitions,
        automation_condition=automation,
    )


def column_schema(name: str) -> dg.TableSchema:
    """Columns of a table as the UI shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                c.name,
                str(c.type),
                c.description,
                dg.TableColumnConstraints(nullable=c.nullable, unique=(c.name,) == TABLES[name].key),
            )
            for c in TABLES[name].columns
        ]
    )


def manifest_metadata(lake: Lake, manifest: Manifest) -> dict[str, Any]:
    """Numbers as numbers (the UI plots them over time), and where the files are."""
    folder = lake.folder(manifest.table, date.fromisoformat(manifest.partition), manifest.step)
    size = sum((folder / name).stat().st_size for name in manifest.files)
    found: dict[str, Any] = {
        "path": dg.MetadataValue.path(str(folder)),
        "size_bytes": size,
        "content_digest": manifest.content_digest,
        "code_digest": manifest.code_digest,
    }
    return found | {f"rows_{k}": v for k, v in manifest.counters.items()}


def table_metadata(lake: Lake, manifest: Manifest, sample: pa.Table) -> dict[str, Any]:
    """Metadata of a published table partition; ``sample`` are its first rows."""
    found = manifest_metadata(lake, manifest)
    found["dagster/row_count"] = manifest.rows
    found["sample"] = dg.MetadataValue.md(sample_rows(manifest.table, sample))
    return found


def plot_metadata(plot: bytes | None, name: str = "plot") -> dict[str, Any]:
    """A PNG as markdown under a name, or nothing."""
    if plot is None:
        return {}
    return {name: dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(plot).decode()})")}


def texts_shown(examples: Iterable[Any]) -> dict[str, Any]:
    """Texts before and after augmentation, as markdown."""
    texts = [e for e in examples if e.modality == "text"]
    lines = [f"- {e.before}\n" + "\n".join(f"  - {a}" for a in e.after) for e in texts]
    return {"texts_before_and_after": dg.MetadataValue.md("\n".join(lines))} if lines else {}


def card_metadata(card: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a model card."""
    return {"card": dg.MetadataValue.json({k: v for k, v in card.items() if k != "curve"})}


def sample_rows(table: str, sample: pa.Table) -> str:
    """Rows of a table as a markdown table; vectors are cut."""
    columns, rows = TABLES[table].columns, sample.to_pylist()
    if not rows:
        return "no rows"
    head = "| " + " | ".join(c.name for c in columns) + " |\n|" + "---|" * len(columns)
    return head + "\n" + "\n".join("| " + " | ".join(_cell(c, r[c.name]) for c in columns) + " |" for r in rows)


def _cell(column: Column, value: Any) -> str:
    if column.is_vector and value is not None:
        return "[" + ", ".join(f"{x:.3f}" for x in value[:3]) + f", ... {len(value)}]"
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return (text if len(text) <= 60 else text[:57] + "...").replace("|", "\\|").replace("\n", " ")
