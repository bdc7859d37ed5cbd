"""Jobs, and what starts them: a schedule, files that are there; what is told when a night fails.

One job serves the schedule, the UI's backfills and the command line; each step of it is a job too.
"""

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg

from assets.alerts import PID_TAG, alert, served_now, why_failed
from pipelines.config import Config
from pipelines.lake.health import good_nights
from pipelines.lake.storage import Lake
from pipelines.raw.places import RawStore, file_day

NIGHTLY = "nightly"


def build_job(
    assets: list[Any], tags: dict[str, str] | None = None, hooks: frozenset[dg.HookDefinition] = frozenset()
) -> Any:
    """The job that materializes every asset of a night, one process for all steps."""
    keys = [spec.key for definition in assets for spec in definition.specs]
    return dg.define_asset_job(
        NIGHTLY,
        selection=dg.AssetSelection.assets(*keys),
        executor_def=dg.in_process_executor,
        hooks=hooks,
        tags=tags,
        description="Everything for one day: ingest, standardize, embed, align, fuse, train, score, evaluate.",
    )


def step_jobs(assets: list[dg.AssetsDefinition], tags: dict[str, str]) -> list[Any]:
    """A job a step, to make its tables or models of some nights again."""
    return [
        dg.define_asset_job(
            f"only_{definition.node_def.name}",
            selection=dg.AssetSelection.assets(*definition.keys),
            executor_def=dg.in_process_executor,
            tags=tags,
            description=f"Only step {definition.node_def.name} of a night whose other steps were run.",
        )
        for definition in assets
    ]


def build_schedule(job: Any) -> Any:
    """Night D runs at 02:30 on day D+1, in the time zone of the partitions."""
    return dg.build_schedule_from_partitioned_job(job, name="nightly_schedule", hour_of_day=2, minute_of_hour=30)


def files_sensor(job: Any, config: Config, partitions: dg.DailyPartitionsDefinition) -> dg.SensorDefinition:
    """Starts the latest night that has ended as soon as a file of its events is there; off until it is switched on."""

    @dg.sensor(name="files_are_there", job=job, minimum_interval_seconds=300)
    def files_are_there() -> Iterator[dg.RunRequest | dg.SkipReason]:
        last = partitions.get_last_partition_key()
        if last is None:
            yield dg.SkipReason("no night has ended yet")
            return
        day, place = date.fromisoformat(last), config.interactions.path
        if good_nights(Lake.of(config), day)[-1:] == [day]:
            yield dg.SkipReason(f"the night of {day} has its lists")
        elif day in {file_day(name) for name in RawStore(*config.raw_place).below(place)}:
            yield dg.RunRequest(partition_key=last, run_key=last)
        else:
            yield dg.SkipReason(f"no file of {place} has {day} in its name")

    return files_are_there


def failure_sensor(job: Any, config: Config) -> dg.SensorDefinition:
    """Tells of nights that failed under Dagster; the command line tells of its own."""

    @dg.run_failure_sensor(name="tell_of_failures", monitored_jobs=[job], default_status=dg.DefaultSensorStatus.RUNNING)
    def tell_of_failures(context: dg.RunFailureSensorContext) -> None:
        run = context.dagster_run
        if PID_TAG in run.tags or "dagster/partition" not in run.tags:
            return
        day = date.fromisoformat(run.tags["dagster/partition"])
        events = [e.dagster_event for e in context.instance.all_logs(run.run_id) if e.dagster_event]
        alert(config, day, why_failed(events)[0], served_now(config, day))

    return tell_of_failures
