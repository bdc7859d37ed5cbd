"""Assets of the data layer: raw folders as they are, and the std tables made from them."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets import plots
from assets.checks import check_specs, run_checks
from assets.metadata import OWNERS, table_metadata, table_spec
from assets.resources import Nightloom, day_of, failures_explained, lake_of

STD_TABLES = {  # table -> nearest parents
    "std_interactions": ["raw_interactions"],
    "std_items": ["raw_items", "raw_media"],
    "std_user_content": ["raw_user_content", "raw_media"],
    "std_media": ["raw_media"],
    "quarantine": ["std_interactions", "std_items", "std_user_content", "std_media"],
    "ingest_files": ["quarantine"],
}
RAW = {
    "raw_interactions": "Event logs as the user drops them: CSV, JSON Lines or Parquet. Never modified.",
    "raw_items": "Catalogue files as the user drops them. Never modified.",
    "raw_user_content": "What users upload: reviews, pictures, sounds. Never modified.",
    "raw_media": "Images and sounds that rows refer to by path or URI. Never modified.",
}
GROUPS = {"quarantine": "quality", "ingest_files": "quality"}  # the others are "data"
PLOTS = {"std_interactions": plots.events_by_day, "quarantine": plots.rejects_by_reason}


def raw_specs() -> list[dg.AssetSpec]:
    """External assets: nightloom reads them and never writes them."""
    return [dg.AssetSpec(n, description=d, group_name="data", owners=OWNERS, kinds={"file"}) for n, d in RAW.items()]


def build(partitions: dg.PartitionsDefinition) -> list[Any]:
    """The step that standardizes a night."""

    @dg.multi_asset(
        name="standardize",
        specs=[table_spec(name, GROUPS.get(name, "data"), partitions, deps) for name, deps in STD_TABLES.items()],
        check_specs=[c for name in STD_TABLES for c in check_specs(name)],
    )
    def standardize(context: dg.AssetExecutionContext, nightloom: Nightloom) -> Iterator[Any]:
        """Raw files to typed, deduplicated, accounted tables."""
        from pipelines.standardize import standardize as run

        with failures_explained():
            config = nightloom.verified()
            lake, day = lake_of(config), day_of(context)
            made, earlier = run(config, lake, day)
            for manifest in earlier:
                context.log_event(
                    dg.AssetMaterialization(
                        "std_interactions",
                        partition=manifest.partition,
                        description=f"made by night {day}: its raw events were new or had changed",
                        metadata={"dagster/row_count": manifest.rows},
                    )
                )
            for name in STD_TABLES:
                plot = PLOTS[name](lake, day) if name in PLOTS else None
                yield dg.MaterializeResult(asset_key=name, metadata=table_metadata(lake, made[name], plot))
                yield from run_checks(config, lake, name, day)

    return [standardize]
