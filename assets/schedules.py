"""The nightly job and its schedule. One job serves the schedule, the UI's backfills and the command line."""

from typing import Any

import dagster as dg

NIGHTLY = "nightly"


def build_job(assets: list[Any], hooks: frozenset[dg.HookDefinition] = frozenset()) -> Any:
    """The job that materializes every asset of a night, one process for all steps."""
    keys = [spec.key for definition in assets for spec in definition.specs]
    return dg.define_asset_job(
        NIGHTLY,
        selection=dg.AssetSelection.assets(*keys),
        executor_def=dg.in_process_executor,
        hooks=hooks,
        description="Everything for one day: ingest, standardize, embed, align, fuse, train, score, evaluate.",
    )


def build_schedule(job: Any) -> Any:
    """Night D runs at 02:30 on day D+1, in the time zone of the partitions."""
    return dg.build_schedule_from_partitioned_job(job, name="nightly_schedule", hour_of_day=2, minute_of_hour=30)
