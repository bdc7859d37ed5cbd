"""Whole nights through the Dagster job."""

from datetime import date
from pathlib import Path

import dagster as dg

from assets.definitions import build_defs
from pipelines.config import load_config
from pipelines.lake.storage import Lake


def run_job(config_file: Path, day: date) -> dg.ExecuteInProcessResult:
    job = build_defs(config_file).resolve_job_def("nightly")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(
            partition_key=day.isoformat(), instance=instance, raise_on_error=False, run_config=quiet
        )


def lake_at(config_file: Path) -> Lake:
    return Lake.of(load_config(config_file))


def nightly() -> dg.JobDefinition:
    """The job of the configuration that the environment names, for what Dagster builds again by itself."""
    return build_defs().resolve_job_def("nightly")
